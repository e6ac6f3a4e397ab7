"""Every model, guide and objective by name. A new row here runs through all contract tests."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

import ppvae
from ppvae import guides
from ppvae.distributions.likelihoods import Bernoulli, Categorical, Gaussian
from ppvae.engine.batch import Batch, as_batch
from ppvae.guides import (
    AuxiliaryGuide,
    BottomUpGuide,
    CategoricalGuide,
    FlowGuide,
    FullRankGaussian,
    LabelGuide,
    LabelStyleGuide,
    MeanFieldGaussian,
    MixtureGuide,
    PointGuide,
    RecognitionGuide,
    TopDownGuide,
)
from ppvae.models import (
    AutoregressiveFlow,
    AuxiliaryVAE,
    ConditionalVAE,
    GaussianMixture,
    GaussianVAE,
    HierarchicalVAE,
    ImplicitModel,
    LinearGaussian,
    MixtureOfGaussians,
    SemiSupervisedVAE,
)
from ppvae.nn import (
    MLP,
    Classes,
    ConvClassifier,
    ConvDecoder,
    ConvEncoder,
    CorruptInput,
    Dictionary,
    FillMissing,
    JointMLP,
    LabelledMLP,
    MaskingNoise,
)
from tests.user_pairs import (
    ClassConditionalGuide,
    ClassConditionalModel,
    ConditionalGuide,
    ConditionalModel,
    TwoConditionsGuide,
    TwoConditionsModel,
    UserGuide,
    UserModel,
)

BATCH, CLASSES, LATENT = 6, 4, 3
IMAGE = (8, 8)


LABELS = torch.tensor([0, -1, 3, -1, 1, 2])


@dataclass(frozen=True)
class Pair:
    """A model, a guide that fits it, and data to try them on; made anew in double precision.

    Attributes:
        model: makes the model.
        guide: makes the guide.
        data: makes x.
        given: makes the conditions.
        labelled: whether the class is a latent where it is unknown.
        needs_labels: whether the pair cannot be called without labels.
        discrete_only: whether every latent is enumerated.
    """

    model: Callable[[], nn.Module]
    guide: Callable[[], nn.Module]
    data: Callable[[], Tensor]
    given: Callable[[], dict[str, Tensor]] = dict
    labelled: bool = False
    needs_labels: bool = False
    discrete_only: bool = False

    def make(self, seed: int = 0) -> tuple[nn.Module, nn.Module, Tensor]:
        """Model, guide and x."""
        model, guide, batch = self.make_batch(seed)
        return model, guide, batch.x

    def make_batch(self, seed: int = 0) -> tuple[nn.Module, nn.Module, Batch]:
        """Model, guide and a batch: labels where the pair needs them, and conditions."""
        torch.manual_seed(seed)
        model, guide, x = self.model().double(), self.guide().double(), self.data().double()
        given = {name: value.double() for name, value in self.given().items()}
        return model, guide, as_batch(x, LABELS.clamp(min=0) if self.needs_labels else None, given)

    def kinds(self, batch: Batch) -> dict[str, Batch]:
        """The batch with the labels that the pair takes: none, some, all."""
        if not self.labelled:
            return {"all labelled" if self.needs_labels else "unlabelled": batch}
        y = LABELS.to(batch.x.device)
        known = replace(batch, y=y.clamp(min=0), all_known=True)
        return {"unlabelled": batch, "partly labelled": replace(batch, y=y), "all labelled": known}


def binary() -> Tensor:
    return torch.rand(BATCH, *IMAGE).bernoulli()


def vectors() -> Tensor:
    return torch.randn(BATCH, 5)


def vectors_with_missing_elements() -> Tensor:
    x = vectors()
    return x.masked_fill(torch.rand_like(x) < 0.3, torch.nan)


def angles() -> dict[str, Tensor]:
    return {"angle": torch.randn(BATCH, 2)}


def grey() -> Tensor:
    return torch.randint(0, 4, (BATCH, *IMAGE)) / 3.0


def linear_gaussian() -> LinearGaussian:
    return LinearGaussian(torch.randn(5, 2), torch.randn(5), scale=0.7)


FLOWS = {
    "inverse_autoregressive": guides.inverse_autoregressive,
    "affine_coupling": guides.affine_coupling,
    "planar": guides.planar,
    "radial": guides.radial,
    "householder": guides.householder,
    "neural_spline": guides.neural_spline,
    "sylvester_orthogonal": guides.sylvester,
    "sylvester_householder": lambda dim, context: guides.sylvester(dim, context, kind="householder"),
    "sylvester_triangular": lambda dim, context: guides.sylvester(dim, context, kind="triangular"),
}


def flow_pair(family: str) -> Pair:
    return Pair(
        linear_gaussian,
        lambda: FlowGuide(MLP(5, [], 2 * 2 + 3), FLOWS[family](2, 3), 2),
        vectors,
    )


def two_layers() -> HierarchicalVAE:
    """Linear, with a scale of z1 that does not depend on z2: all of it is one Gaussian."""
    model = HierarchicalVAE(MLP(3, [], 5), [MLP(2, [], 2 * 3)], 2, Gaussian(0.7))
    with torch.no_grad():
        model.conditionals[0].layers[0].weight[3:] = 0
    return model


def two_layer_evidence(model: HierarchicalVAE, x: Tensor) -> Tensor:
    """log p(x) of :func:`two_layers`, exact."""
    (down,), (out,) = model.conditionals[0].layers, model.decoder.layers
    z1 = down.weight[:3] @ down.weight[:3].T + (2 * down.bias[3:]).exp().diag()
    noise = (2 * model.likelihood.log_scale).exp() * torch.eye(5).to(x)
    loc = out.weight @ down.bias[:3] + out.bias
    return dist.MultivariateNormal(loc, out.weight @ z1 @ out.weight.T + noise).log_prob(x)


AUXILIARY = 2


def auxiliary_guide() -> AuxiliaryGuide:
    return AuxiliaryGuide(
        MLP(IMAGE, [8], 2 * AUXILIARY),
        JointMLP([AUXILIARY, IMAGE], [8], CLASSES),
        JointMLP([AUXILIARY, IMAGE, Classes(CLASSES)], [16], 2 * LATENT),
    )


def auxiliary_model(skip: bool) -> AuxiliaryVAE:
    inputs = [AUXILIARY] * skip + [LATENT, Classes(CLASSES)]
    decoder, auxiliary = JointMLP(inputs, [16], IMAGE), LabelledMLP(LATENT, CLASSES, [8], 2 * AUXILIARY)
    return AuxiliaryVAE(decoder, auxiliary, LATENT, CLASSES, skip=skip)


PAIRS: dict[str, Pair] = {
    "gaussian_vae": Pair(
        lambda: GaussianVAE(MLP(LATENT, [16], IMAGE), LATENT),
        lambda: MeanFieldGaussian(MLP(IMAGE, [16], 2 * LATENT)),
        binary,
    ),
    "convolutional": Pair(
        lambda: GaussianVAE(ConvDecoder(LATENT, [8, 4], IMAGE), LATENT, Bernoulli()),
        lambda: MeanFieldGaussian(ConvEncoder(IMAGE, [4, 8], 2 * LATENT)),
        binary,
    ),
    "learned_noise": Pair(
        lambda: GaussianVAE(MLP(LATENT, [16], 5), LATENT, Gaussian(0.5, learned=True)),
        lambda: MeanFieldGaussian(MLP(5, [16], 2 * LATENT)),
        vectors,
    ),
    "grey_levels": Pair(
        lambda: GaussianVAE(MLP(LATENT, [16], (*IMAGE, 4)), LATENT, Categorical(4)),
        lambda: MeanFieldGaussian(MLP(IMAGE, [16], 2 * LATENT)),
        grey,
    ),
    "linear_gaussian": Pair(linear_gaussian, lambda: MeanFieldGaussian(MLP(5, [], 4)), vectors),
    "mixture": Pair(
        lambda: GaussianMixture(torch.randn(CLASSES, 5)),
        lambda: CategoricalGuide(MLP(5, [8], CLASSES)),
        vectors,
        discrete_only=True,
    ),
    "label": Pair(
        lambda: SemiSupervisedVAE(LabelledMLP(LATENT, CLASSES, [16], IMAGE), LATENT, CLASSES),
        lambda: LabelGuide(ConvClassifier(IMAGE, CLASSES, width=2), MLP(IMAGE, [16], 2 * LATENT)),
        binary,
        labelled=True,
    ),
    "label_style": Pair(
        lambda: SemiSupervisedVAE(LabelledMLP(LATENT, CLASSES, [16], IMAGE), LATENT, CLASSES),
        lambda: LabelStyleGuide(MLP(IMAGE, [8], CLASSES), LabelledMLP(IMAGE, CLASSES, [16], 2 * LATENT)),
        binary,
        labelled=True,
    ),
    "adgm": Pair(lambda: auxiliary_model(skip=False), auxiliary_guide, binary, labelled=True),
    "sdgm": Pair(lambda: auxiliary_model(skip=True), auxiliary_guide, binary, labelled=True),
    "user": Pair(UserModel, UserGuide, vectors),
    "missing": Pair(
        lambda: LinearGaussian(torch.randn(5, 2), torch.randn(5), scale=0.7, missing=True),
        lambda: MeanFieldGaussian(FillMissing(MLP(2 * 5, [], 4))),
        vectors_with_missing_elements,
    ),
    "full_rank": Pair(linear_gaussian, lambda: FullRankGaussian(MLP(5, [], 5), 2), vectors),
    "mixture_guide": Pair(linear_gaussian, lambda: MixtureGuide(MLP(5, [], 15), 2, 3), vectors),
    **{f"flow_{family}": flow_pair(family) for family in FLOWS},
    "bottom_up": Pair(two_layers, lambda: BottomUpGuide([MLP(5, [], 6), MLP(3, [], 4)]), vectors),
    "top_down": Pair(
        two_layers,
        lambda: TopDownGuide([MLP(5, [8], 8), MLP(8, [8], 8)], [MLP(2 + 8, [], 6), MLP(8, [], 4)]),
        vectors,
    ),
    "mixture_prior": Pair(
        lambda: GaussianVAE(MLP(LATENT, [16], IMAGE), LATENT, prior=MixtureOfGaussians(LATENT, 4)),
        lambda: MeanFieldGaussian(MLP(IMAGE, [16], 2 * LATENT)),
        binary,
    ),
    "flow_prior": Pair(
        lambda: GaussianVAE(MLP(LATENT, [16], IMAGE), LATENT, prior=AutoregressiveFlow(LATENT)),
        lambda: MeanFieldGaussian(MLP(IMAGE, [16], 2 * LATENT)),
        binary,
    ),
}


CONDITIONAL_PAIRS: dict[str, Pair] = {  # those that x alone does not suffice for
    "conditional": Pair(
        lambda: ConditionalModel(LATENT),
        lambda: ConditionalGuide(MLP(5 + 2, [8], 2 * LATENT)),
        vectors,
        lambda: {"c": torch.randn(BATCH, 2)},
    ),
    "labelled_condition": Pair(
        lambda: ClassConditionalModel(LATENT, CLASSES),
        lambda: ClassConditionalGuide(LabelledMLP(5, CLASSES, [8], 2 * LATENT)),
        vectors,
        needs_labels=True,
    ),
    "two_conditions": Pair(
        TwoConditionsModel,
        TwoConditionsGuide,
        vectors,
        lambda: {"a": torch.randn(BATCH, 1), "b": torch.randn(BATCH, 1)},
    ),
    "conditional_vae": Pair(
        lambda: ConditionalVAE(JointMLP([LATENT, 2], [16], IMAGE), LATENT, "angle", prior=MLP(2, [8], 2 * LATENT)),
        lambda: MeanFieldGaussian(JointMLP([IMAGE, 2], [16], 2 * LATENT), "angle"),
        binary,
        angles,
    ),
    "conditional_standard_normal": Pair(
        lambda: ConditionalVAE(JointMLP([LATENT, 2], [16], IMAGE), LATENT, "angle"),
        lambda: FullRankGaussian(JointMLP([IMAGE, 2], [16], FullRankGaussian.num_features(LATENT)), LATENT, "angle"),
        binary,
        angles,
    ),
    "conditional_flow": Pair(
        lambda: ConditionalVAE(JointMLP([LATENT, 2], [16], 5), LATENT, "angle", Gaussian(0.5)),
        lambda: FlowGuide(JointMLP([5, 2], [16], 2 * LATENT + 3), guides.affine_coupling(LATENT, 3), LATENT, "angle"),
        vectors,
        angles,
    ),
    "conditional_mixture": Pair(
        lambda: ConditionalVAE(JointMLP([LATENT, 2], [16], 5), LATENT, "angle", Gaussian(0.5)),
        lambda: MixtureGuide(JointMLP([5, 2], [16], MixtureGuide.num_features(LATENT, 2)), LATENT, 2, "angle"),
        vectors,
        angles,
    ),
    "class_conditional": Pair(
        lambda: ConditionalVAE(LabelledMLP(LATENT, CLASSES, [16], IMAGE), LATENT, "y"),
        lambda: MeanFieldGaussian(LabelledMLP(IMAGE, CLASSES, [16], 2 * LATENT), "y"),
        binary,
        needs_labels=True,
    ),
}
ALL_PAIRS = PAIRS | CONDITIONAL_PAIRS
POINT_PAIRS: dict[str, Pair] = {  # those of a point mass, which all that weigh q refuse
    "autoencoder": Pair(
        lambda: GaussianVAE(MLP(LATENT, [16], IMAGE), LATENT),
        lambda: PointGuide(nn.Sequential(MLP(IMAGE, [16], LATENT), nn.Sigmoid())),
        binary,
    ),
    "denoising": Pair(
        lambda: GaussianVAE(Dictionary(LATENT, IMAGE), LATENT, Gaussian(0.5**0.5)),
        lambda: PointGuide(CorruptInput(nn.Sequential(MLP(IMAGE, [], LATENT), nn.Sigmoid()), MaskingNoise(0.3))),
        binary,
    ),
}


def generator(in_features: int) -> nn.Module:
    return nn.Sequential(MLP(in_features, [16], IMAGE), nn.Sigmoid())


IMPLICIT_PAIRS: dict[str, Pair] = {  # those of a generator, which all that read log p(x | z) refuse
    "codes": Pair(
        lambda: ImplicitModel(generator(CLASSES + 2 + LATENT), CLASSES, 2, LATENT),
        lambda: RecognitionGuide(MLP(IMAGE, [16], CLASSES + 2), CLASSES, 2),
        binary,
    ),
    "class_code": Pair(
        lambda: ImplicitModel(MLP(CLASSES + LATENT, [16], 5), num_classes=CLASSES, noise_dim=LATENT),
        lambda: RecognitionGuide(MLP(5, [16], CLASSES), num_classes=CLASSES),
        vectors,
    ),
    "continuous_codes": Pair(
        lambda: ImplicitModel(MLP(3 + LATENT, [16], 5), num_codes=3, noise_dim=LATENT),
        lambda: RecognitionGuide(MLP(5, [16], 3), num_codes=3, scale=0.5),
        vectors,
    ),
}
GANS: dict[str, Callable[..., list[ppvae.Player]]] = {  # called with model, guide, discriminator
    "info_gan": ppvae.info_gan,
    "info_wgan_gp": partial(ppvae.info_wgan_gp, critic_steps=2),
}


@dataclass(frozen=True)
class Estimator:
    """An objective, what it needs of a pair, and what it trains.

    Attributes:
        make: makes the objective.
        bound: whether it is a lower bound of log p(x).
        model: whether the model learns.
        label: whether q(y | x) learns where there are other latents.
        discrete_only: whether a guide of enumerated latents alone learns.
        scores: whether it needs a guide with ``log_prob`` at arbitrary values.
        classifies: whether it reads q(y | x) where labels are known.
        generates: whether it reads q(y | x) of labels that the model draws.
        reads: what it reads of q(z | x): "draws", "mean", "moments" or "product".
        draws_prior: whether a trainable prior must have reparameterised draws.
        one_prior: whether the prior must be the same for all data.
        enumerates: whether latents may be enumerated.
        noise: whether the scale of the likelihood learns.
        complete: whether x must have no missing elements.
        alike: whether all latents must be drawn for the same enumerated ones.
    """

    make: Callable[[], ppvae.Objective]
    bound: bool = False
    model: bool = True
    label: bool = True
    discrete_only: bool = True
    scores: bool = False
    classifies: bool = False
    generates: bool = False
    reads: str | None = None
    draws_prior: bool = False
    one_prior: bool = False
    enumerates: bool = True
    noise: bool = True
    complete: bool = False
    alike: bool = False

    def fits(self, pair: Pair) -> bool:
        """Whether the pair has what the objective needs."""
        guide, prior = pair.guide(), getattr(pair.model(), "prior", None)
        gives = GIVES.get(type(guide).__name__, ())
        if (self.generates and not pair.labelled) or (pair.labelled and not self.enumerates):
            return False
        if self.alike and isinstance(guide, AuxiliaryGuide):
            return False
        if (self.draws_prior and isinstance(prior, MixtureOfGaussians)) or (self.classifies and pair.needs_labels):
            return False
        if self.complete and pair.data().isnan().any():
            return False
        if self.one_prior and isinstance(pair.model(), ConditionalVAE) and prior is not None:
            return False
        return (not self.scores or getattr(guide, "can_score", True)) and (self.reads is None or self.reads in gives)

    def trained(self, pair: Pair, model: nn.Module, guide: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that get a gradient."""
        named = dict(model.named_parameters()) if self.model else {}
        named = {name: p for name, p in named.items() if self.noise or "log_scale" not in name}
        if pair.discrete_only and not self.discrete_only:
            return named
        return named | {
            name: p for name, p in guide.named_parameters() if self.label or not name.startswith("classifier")
        }


GIVES = {  # what can be read of q(z | x), by guide; the others have no z, or one for each class
    "MeanFieldGaussian": ("draws", "mean", "moments", "product"),
    "ConditionalGuide": ("draws", "mean", "moments", "product"),
    "ClassConditionalGuide": ("draws", "mean", "moments", "product"),
    "LabelGuide": ("draws", "mean", "moments", "product"),
    "FullRankGaussian": ("draws", "mean", "moments"),
    "MixtureGuide": ("draws", "mean"),
    "FlowGuide": ("draws",),
}


class Differences(nn.Module):
    """Two layers of features of x of any shape."""

    def forward(self, x):
        flat = x.flatten(1)
        return [flat.sin(), flat.diff(dim=1)]


def discriminator() -> ppvae.Discriminator:
    """A discriminator of x of any shape."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(4), nn.Linear(4, 6), nn.Tanh())
    return ppvae.Discriminator(features, nn.Linear(6, 1))


MULTI_SAMPLE = {"bound": True, "label": False, "discrete_only": False}
OBJECTIVES: dict[str, Estimator] = {
    "elbo": Estimator(ppvae.ELBO, bound=True),
    "elbo_sampled_kl": Estimator(lambda: ppvae.ELBO(num_particles=3, analytic_kl=False), bound=True),
    "sticking_the_landing": Estimator(lambda: ppvae.StickingTheLanding(num_particles=2), bound=True, scores=True),
    "iwae": Estimator(lambda: ppvae.IWAE(num_particles=4), **MULTI_SAMPLE),
    "dreg": Estimator(lambda: ppvae.DReG(num_particles=4), scores=True, alike=True, **MULTI_SAMPLE),
    "renyi": Estimator(lambda: ppvae.Renyi(0.5, num_particles=4), **MULTI_SAMPLE),
    "reweighted_wake_sleep": Estimator(
        lambda: ppvae.ReweightedWakeSleep(num_particles=4, insomnia=0.5), bound=True, scores=True
    ),
    "forward_kl": Estimator(ppvae.ForwardKL, model=False, scores=True),
    "semi_supervised": Estimator(lambda: ppvae.ELBO() + ppvae.ClassifierLoss(alpha=2.0), classifies=True),
    "semi_supervised_iwae": Estimator(
        lambda: ppvae.IWAE(num_particles=3) + ppvae.ClassifierLoss(alpha=2.0), discrete_only=False, classifies=True
    ),
    "generated_labels": Estimator(lambda: ppvae.ELBO() + ppvae.GeneratedLabels(2.0), generates=True),
    "beta_vae": Estimator(lambda: ppvae.beta_vae(4.0)),
    "annealed_vae": Estimator(lambda: ppvae.ELBO() + ppvae.Capacity(0.5, gamma=10.0)),
    "info_vae": Estimator(lambda: ppvae.info_vae(0.5, 10.0), reads="draws", draws_prior=True),
    "info_vae_stein": Estimator(
        lambda: ppvae.info_vae(0.5, 10.0, ppvae.SteinDiscrepancy), reads="draws", one_prior=True
    ),
    "dip_vae_ii": Estimator(lambda: ppvae.dip_vae_ii(2.0), reads="moments"),
    "beta_tcvae": Estimator(lambda: ppvae.beta_tcvae(num_data=100), reads="product"),
    "contractive": Estimator(lambda: ppvae.ELBO() + ppvae.ContractivePenalty(0.1), reads="mean"),
    "decoder_penalties": Estimator(
        lambda: ppvae.ELBO() + ppvae.CodeNorm(0.1) + ppvae.DecoderWeights(0.01) + ppvae.DecoderGradient(0.1),
        reads="draws",
        enumerates=False,
    ),
    "features": Estimator(
        lambda: ppvae.ELBO(num_particles=2) + ppvae.FeatureReconstruction(Differences()), noise=False, complete=True
    ),
    "features_added": Estimator(
        lambda: ppvae.IWAE(num_particles=3) + ppvae.FeatureReconstruction(Differences(), 0.5, replaces=False),
        complete=True,
    ),
}
POINT_OBJECTIVES: dict[str, Callable[[], ppvae.Objective]] = {  # those that read no density of q
    "reconstruction": ppvae.Reconstruction,
    "reconstruction of two particles": lambda: ppvae.Reconstruction(num_particles=2),
    "rae": ppvae.rae,
    "rae with gradient": lambda: ppvae.rae(penalty=ppvae.DecoderGradient),
    "sparse": lambda: ppvae.Reconstruction() + ppvae.CodeNorm(0.1, power=1),
    "sparse, kl": lambda: ppvae.Reconstruction() + ppvae.CodeSparsity(0.1),
    "contractive": lambda: ppvae.Reconstruction() + ppvae.ContractivePenalty(0.1),
    "wae": ppvae.wae,
    "stein": lambda: ppvae.info_vae(1.0, 10.0, ppvae.SteinDiscrepancy),
    "features": lambda: ppvae.Reconstruction() + ppvae.FeatureReconstruction(Differences()),
    "adversarial": lambda: ppvae.Reconstruction() + ppvae.AdversarialReconstruction(discriminator()),
}

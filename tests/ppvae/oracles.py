"""Oracles of known evidence, and guides that are exact or known to be off."""

import math
from dataclasses import dataclass, replace

import pyro
import torch
from pyro import distributions as dist
from torch import nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.distributions.likelihoods import Gaussian
from ppvae.engine.batch import Batch, as_batch
from ppvae.engine.contract import AmortizedGuide, Guide, Model
from ppvae.guides import MeanFieldGaussian
from ppvae.models import AuxiliaryVAE, GaussianMixture, LinearGaussian, SemiSupervisedVAE
from ppvae.nn import MLP, Classes, JointMLP, LabelledMLP


def linear_gaussian() -> tuple[LinearGaussian, torch.Tensor]:
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7).double()
    return model, torch.randn(4, 5).double()


def gaussian_mixture() -> tuple[GaussianMixture, torch.Tensor]:
    torch.manual_seed(0)
    return GaussianMixture(2 * torch.randn(4, 5), 0.8).double(), torch.randn(6, 5).double()


class Exact(Guide):
    """An oracle's posterior as a guide; its parameters stay the oracle's."""

    def __init__(self, oracle):
        super().__init__()
        self._oracle = [oracle]  # in a list, lest nn.Module register it

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self._oracle[0].posterior(x))


def nearly_exact(model: LinearGaussian, widen: float = 1.3) -> MeanFieldGaussian:
    """The posterior's mean, with its marginal standard deviations ``widen`` times too large."""
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    x = torch.cat([torch.zeros(1, 5), torch.eye(5)]).double()
    posterior = model.posterior(x)
    (layer,) = guide.encoder.layers
    with torch.no_grad():
        layer.bias[:2] = posterior.mean[0]
        layer.weight[:2] = (posterior.mean[1:] - posterior.mean[0]).T
        layer.weight[2:] = 0
        layer.bias[2:] = (posterior.stddev[0] * widen).log()
    return guide


def three_guides() -> tuple[LinearGaussian, dict[str, Guide], torch.Tensor]:
    """A model, its exact posterior and two guides that are too wide, and data."""
    model, x = linear_gaussian()
    return model, {"exact": Exact(model), "wide": nearly_exact(model, 1.3), "wider": nearly_exact(model, 2.0)}, x


class ExactTwoLayers(Guide):
    """The posterior of ``catalogue.two_layers`` drawn from below, q(z1 | x) q(z2 | z1); its parameters stay its own.

    z2 ~ N(0, I), z1 ~ N(A z2 + a, D), x ~ N(C z1 + c, s^2 I).
    """

    def __init__(self, oracle):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        (oracle,) = self._oracle
        (down,), (out,) = oracle.conditionals[0].layers, oracle.decoder.layers
        above, loc, precision = down.weight[:3], down.bias[:3], (-2 * down.bias[3:]).exp().diag()
        noise = (-2 * oracle.likelihood.log_scale).exp()
        prior = torch.linalg.inv(above @ above.T + torch.linalg.inv(precision))
        below = torch.linalg.inv(prior + noise * out.weight.T @ out.weight)
        top = torch.linalg.inv(torch.eye(2).to(x) + above.T @ precision @ above)
        with pyro.plate("data", len(x)):
            mean = (loc @ prior + noise * (x - out.bias) @ out.weight) @ below
            z1 = pyro.sample("z1", dist.MultivariateNormal(mean, below))
            pyro.sample("z2", dist.MultivariateNormal((z1 - loc) @ precision @ above @ top, top))


def labelled_linear() -> tuple[SemiSupervisedVAE, torch.Tensor]:
    """A class shifts a linear-Gaussian model: a mixture of Gaussians with one covariance."""
    torch.manual_seed(0)
    decoder = LabelledMLP(2, 3, [4], 5, activation=nn.Identity)
    with torch.no_grad():
        decoder.first.embedding.weight.mul_(10)
    return SemiSupervisedVAE(decoder, 2, 3, Gaussian(0.7)).double(), torch.randn(6, 5).double()


def labelled_linear_log_joint(model: SemiSupervisedVAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x, y) of each class, shape (3, B)."""
    mean, covariance = labelled_linear_moments(model)
    return dist.MultivariateNormal(mean.unsqueeze(1), covariance).log_prob(x) - math.log(3)


def labelled_linear_moments(model: SemiSupervisedVAE) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of x of each class (3, 5), and their common covariance (5, 5)."""
    weight, bias = _linear_parts(model)
    noise = (2 * model.likelihood.log_scale).exp() * torch.eye(5).to(weight)
    return bias, weight @ weight.T + noise


def _linear_parts(model: SemiSupervisedVAE) -> tuple[torch.Tensor, torch.Tensor]:
    """W (5, 2) and b (3, 5) of x = W z + b_y."""
    zero, one = torch.zeros(3, 2).double(), torch.eye(2).double()
    bias = model.decoder(zero, torch.arange(3))
    return (model.decoder(one, torch.zeros(2, dtype=torch.long)) - bias[0]).T, bias


class ExactLabelled(Guide):
    """The posterior q(y | x) q(z | x, y) of :func:`labelled_linear`; its parameters stay the oracle's."""

    def __init__(self, oracle):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        (oracle,) = self._oracle
        weight, bias = _linear_parts(oracle)
        variance = (2 * oracle.likelihood.log_scale).exp()
        inverse = torch.linalg.inv(weight.T @ weight + variance * torch.eye(2).to(x))
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.Categorical(logits=labelled_linear_log_joint(oracle, x).T))
            pyro.sample("z", dist.MultivariateNormal((x - bias[y]) @ weight @ inverse, variance * inverse))


def auxiliary_linear(skip: bool) -> tuple[AuxiliaryVAE, torch.Tensor]:
    """Linear networks and scales of a that are the same for all z and y: p(x | y) is Gaussian."""
    torch.manual_seed(0)
    inputs = [2] * skip + [2, Classes(3)]
    decoder, auxiliary = JointMLP(inputs, [], 5), JointMLP([2, Classes(3)], [], 2 * 2)
    with torch.no_grad():
        for table in (decoder.first[-1].weight, auxiliary.first[-1].weight):
            table.mul_(3)
        auxiliary.first[0].weight[2:], auxiliary.first[1].weight[:, 2:] = 0, 0
    return AuxiliaryVAE(decoder, auxiliary, 2, 3, Gaussian(0.7), skip).double(), torch.randn(6, 5).double()


def auxiliary_linear_log_joint(model: AuxiliaryVAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x, y) of each class, shape (3, B).

    a = U z + u_y + D e and x = A a + W z + b_y + s n, with A = 0 in the ADGM.
    """
    *of_a, of_z, shift = (layer.weight for layer in model.decoder.first)
    bias = shift + next(layer.bias for layer in model.decoder.first if isinstance(layer, nn.Linear))
    up, table = model.auxiliary.first
    offset, log_scale = (table.weight + up.bias).split(2, -1)
    loading = of_a[0] if of_a else torch.zeros(5, 2).to(x)
    weight = loading @ up.weight[:2] + of_z
    noise = loading @ (2 * log_scale[0]).exp().diag() @ loading.T
    variance = (2 * model.likelihood.log_scale).exp() * torch.eye(5).to(x)
    mean = bias + offset @ loading.T
    return dist.MultivariateNormal(mean.unsqueeze(1), weight @ weight.T + noise + variance).log_prob(x) - math.log(3)


class Walk(Model):
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1): the evidence is N(0, 3)."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2 + self.shift, 1.0))
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


class WalkBack(Guide):
    """The exact posterior of :class:`Walk`, drawn from below as q(z1 | x) q(z2 | z1)."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(2 / 3 * x, (2 / 3) ** 0.5))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.5**0.5))


class ConditionalLinear(Model):
    """z ~ N(U c, I), x ~ N(W z + V c + b, s^2 I) for a condition c; W'W is diagonal, and so is the posterior.

    With ``moves_prior=False`` U is 0.
    """

    def __init__(self, moves_prior: bool):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(5, 2)).Q * torch.tensor([1.5, 0.8]))
        self.shift, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5))
        self.prior_shift = nn.Parameter(torch.randn(2, 3) * moves_prior)
        self.scale = 0.7

    def draw(self, x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c @ self.prior_shift.T, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z, c), self.scale).to_event(1), obs=x)

    def mean(self, z, c):
        """E[x | z, c]."""
        return z @ self.weight.T + c @ self.shift.T + self.bias

    def log_evidence(self, x, c):
        """log p(x | c), exact, shape (B,)."""
        covariance = self.weight @ self.weight.T + self.scale**2 * torch.eye(5).to(x)
        return dist.MultivariateNormal(self.mean(c @ self.prior_shift.T, c), covariance).log_prob(x)

    def posterior(self, x, c):
        """Mean and standard deviation of p(z | x, c), exact, each (B, 2)."""
        precision = 1 + self.weight.square().sum(0) / self.scale**2
        residual = (x - c @ self.shift.T - self.bias) @ self.weight / self.scale**2
        mean = (residual + c @ self.prior_shift.T) / precision
        return mean, (precision**-0.5).expand_as(mean)


class GivenClass(ConditionalLinear):
    """:class:`ConditionalLinear` with a class that is always given and no site: it shifts x, not the prior."""

    def __init__(self):
        super().__init__(moves_prior=False)

    def forward(self, x, y):
        self.draw(x, self.condition(x, y))

    @staticmethod
    def condition(x, y):
        return nn.functional.one_hot(y, 3).to(x.dtype)


class GivenAngle(ConditionalLinear):
    """:class:`ConditionalLinear` with a real-valued condition, which moves the prior too."""

    def __init__(self):
        super().__init__(moves_prior=True)

    def forward(self, x, y=None, *, angle):
        self.draw(x, angle)


class PosteriorGivenClass(AmortizedGuide):
    """The posterior of :class:`GivenClass`, with standard deviations ``widen`` times too large."""

    def __init__(self, oracle, widen=1.0):
        super().__init__(nn.Identity())
        self._oracle, self.widen = [oracle], widen

    def encode(self, x, y):
        return self.features_of(x, self._oracle[0].condition(x, y))

    def features_of(self, x, c):
        mean, scale = self._oracle[0].posterior(x, c)
        return torch.cat([mean, (scale * self.widen).log()], -1)

    def distribution(self, features):
        return diagonal_normal(features)


class PosteriorGivenAngle(PosteriorGivenClass):
    """The posterior of :class:`GivenAngle`."""

    def encode(self, x, y=None, *, angle):
        return self.features_of(x, angle)


class ConditionalWalk(Model):
    """z2 ~ N(a, I), z1 ~ N(z2 + b, I), x ~ N(z1, I) for conditions a and b: the evidence is N(a + b, 3 I)."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, x, y=None, *, a, b):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(a + self.offset, 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 + b, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)


class ConditionalWalkBack(Guide):
    """The posterior of :class:`ConditionalWalk` drawn from below, with deviations ``widen`` times too large."""

    def __init__(self, widen=1.0):
        super().__init__()
        self.widen = widen

    def forward(self, x, y=None, **given):
        a, b = given["a"], given["b"]
        with pyro.plate("data", len(x)):
            scales = self.widen * (2 / 3) ** 0.5, self.widen * 0.5**0.5
            z1 = pyro.sample("z1", dist.Normal(2 / 3 * (x + (a + b) / 2), scales[0]).to_event(1))
            pyro.sample("z2", dist.Normal((a + z1 - b) / 2, scales[1]).to_event(1))


@dataclass(frozen=True)
class ConditionalCase:
    """A conditional pair of known evidence: model, exact guide, a guide that is too wide, and data."""

    model: Model
    exact: Guide
    wide: Guide
    batch: Batch

    def log_evidence(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x | labels, conditions of the batch), shape (B,)."""
        given = self.batch.given
        if isinstance(self.model, ConditionalWalk):
            return dist.Normal(given["a"] + given["b"], 3**0.5).to_event(1).log_prob(x)
        return self.model.log_evidence(x, self.condition).detach()

    @property
    def condition(self) -> torch.Tensor:
        """c of a :class:`ConditionalLinear`."""
        return self.batch.given["angle"] if self.batch.y is None else GivenClass.condition(self.batch.x, self.batch.y)

    def of_size(self, rows: int) -> "ConditionalCase":
        """The same pair on data of which the labels and conditions come round again and again."""
        return replace(self, batch=self.batch.rows(torch.arange(rows) % len(self.batch)))


def conditional_cases() -> dict[str, ConditionalCase]:
    """A class that is always given, a real-valued condition, and two latents with a condition each; in float64."""
    by_class, by_angle, walk = GivenClass().double(), GivenAngle().double(), ConditionalWalk().double()
    torch.manual_seed(1)
    x, angle, a, b = (torch.randn(6, size).double() for size in (5, 3, 2, 2))
    return {
        "class": ConditionalCase(
            by_class,
            PosteriorGivenClass(by_class),
            PosteriorGivenClass(by_class, 1.3),
            as_batch(x, torch.tensor([0, 1, 2, 2, 1, 0])),
        ),
        "angle": ConditionalCase(
            by_angle,
            PosteriorGivenAngle(by_angle),
            PosteriorGivenAngle(by_angle, 1.3),
            as_batch(x, None, {"angle": angle}),
        ),
        "two_latents": ConditionalCase(
            walk,
            ConditionalWalkBack(),
            ConditionalWalkBack(1.3),
            as_batch(2 * x[:, :2], None, {"a": a, "b": b}),
        ),
    }


class NormalWithoutMean(dist.Normal):
    """A Normal without a formula for its mean."""

    @property
    def mean(self):
        raise NotImplementedError


class Meanless(Model):
    """z ~ N(0, I), x ~ N(z, 0.01^2 I), a likelihood without a formula for its mean."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.offset, 1.0).to_event(1))
            pyro.sample("x", NormalWithoutMean(z, 0.01).to_event(1), obs=x)

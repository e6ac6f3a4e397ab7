"""Priors p(z) as modules: ``prior(template)`` gives a distribution over vectors, of the template's type and device."""

from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.transforms import conditional_affine_autoregressive
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.engine.columns import as_column
from ppvae.engine.contract import AmortizedGuide
from ppvae.engine.supports import is_point_mass
from ppvae.errors import ContractError


class StandardNormal(nn.Module):
    """N(0, I) over vectors of length ``dim``.

    Example:

        >>> StandardNormal(2)(torch.zeros(1)).log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, template: Tensor) -> dist.TorchDistribution:
        """p(z)."""
        return standard_normal(template, self.dim)


class MixtureOfGaussians(nn.Module):
    """sum_c pi_c N(loc_c, diag(scale_c^2)) with learned weights, means and scales.

    Args:
        dim: length of z.
        components: number of Gaussians. Their initial means are draws of N(0, I).

    Source: Dilokthanakul et al. 2016, "Deep Unsupervised Clustering with Gaussian Mixture VAEs".

    Example:

        >>> MixtureOfGaussians(2, components=5)(torch.zeros(1)).sample((4,)).shape
        torch.Size([4, 2])
    """

    def __init__(self, dim: int, components: int):
        super().__init__()
        self.locs = nn.Parameter(torch.randn(components, dim))
        self.log_scales = nn.Parameter(torch.zeros(components, dim))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, template: Tensor) -> dist.TorchDistribution:
        """p(z)."""
        components = dist.Normal(self.locs, self.log_scales.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class FullMixture(nn.Module):
    """sum_c pi_c N(loc_c, L_c L_c'), with fixed weights, means and covariances: a density fitted to codes.

    For an autoencoder that was trained without a prior (ex-post density estimation): with
    ``model.prior = FullMixture.fit(ppvae.features(guide, data))`` the model can be sampled.

    Args:
        weights: pi, shape (C,), positive; they are divided by their sum.
        locs: means, shape (C, D).
        scale_trils: L, lower triangular with a positive diagonal, shape (C, D, D).

    Raises ValueError for other shapes or weights.

    Source: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4.

    Example:

        >>> FullMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2).unsqueeze(0))(torch.zeros(1)).mean
        tensor([0., 0.])
    """

    weights: Tensor
    locs: Tensor
    scale_trils: Tensor

    def __init__(self, weights: Tensor, locs: Tensor, scale_trils: Tensor):
        super().__init__()
        shapes = len(locs.shape) == 2 and weights.shape == locs.shape[:1]
        if not shapes or scale_trils.shape != (*locs.shape, locs.shape[-1]) or not (weights > 0).all():
            raise ValueError(
                "expected positive weights (C,), locs (C, D) and scale_trils (C, D, D), got "
                f"{tuple(weights.shape)}, {tuple(locs.shape)} and {tuple(scale_trils.shape)}"
            )
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("locs", locs)
        self.register_buffer("scale_trils", scale_trils)

    @classmethod
    def fit(cls, codes: Tensor, components: int = 10, seed: int = 0) -> "FullMixture":
        """The mixture with a (local) maximum of the likelihood of codes, by EM (scikit-learn's ``GaussianMixture``).

        EM runs on codes that are divided by their standard deviations. It adds 1e-9 to each variance of these, so that
        no component collapses.

        Args:
            codes: shape (N, D), floating and finite, such as ``ppvae.features(guide, data)``; at least two,
                and one for each component.
            components: C; 1 for a single Gaussian.
            seed: of the start of EM.

        Raises ValueError for other codes or numbers of components.

        Example:

            >>> prior = FullMixture.fit(torch.randn(1000, 2) + 5, components=1)
            >>> prior(torch.zeros(1)).mean.round()
            tensor([5., 5.])
        """
        from sklearn.mixture import GaussianMixture

        codes = as_column(codes, "codes")
        if codes.dim() != 2 or not codes.is_floating_point() or not codes.isfinite().all() or len(codes) < 2:
            raise ValueError(f"expected floating, finite codes (N, D), N >= 2, got {codes.dtype} {tuple(codes.shape)}")
        if not 1 <= components <= len(codes):
            raise ValueError(f"expected components from 1 to {len(codes)}, the number of codes, got {components}")
        points = codes.detach().cpu().double()
        spread = points.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1.0)
        mixture = GaussianMixture(components, reg_covar=1e-9, random_state=seed).fit((points / spread).numpy())
        weights, locs, covariances = map(torch.from_numpy, (mixture.weights_, mixture.means_, mixture.covariances_))
        scale_trils = spread.unsqueeze(-1) * torch.linalg.cholesky(covariances)
        return cls(*(part.to(codes) for part in (weights, locs * spread, scale_trils)))

    def forward(self, template: Tensor) -> dist.TorchDistribution:
        """p(z)."""
        components = dist.MultivariateNormal(self.locs, scale_tril=self.scale_trils)
        return dist.MixtureSameFamily(dist.Categorical(probs=self.weights), components)


class VampPrior(nn.Module):
    """1/C sum_c q(z | u_c): the guide's posteriors of C learned pseudo-inputs, equally likely.

    The guide's parameters are not the prior's, but they move it: ``fit(train_model=False)`` does not hold the prior
    fixed, and a saved model needs its guide. Copy model and guide together, or the prior holds another guide.

    Args:
        guide: the guide that the model is trained with.
        pseudo_inputs: initial values, shape (C, *event_shape), such as some training data; values in [0, 1].

    Raises ValueError for a guide without ``log_prob`` at arbitrary values or with conditions. When it is called, it
    raises ContractError for the guide of a point mass.

    Source: Tomczak and Welling 2018, "VAE with a VampPrior", equation 9.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> prior = VampPrior(MeanFieldGaussian(nn.Linear(5, 4)), torch.rand(3, 5))
        >>> prior(torch.zeros(1)).sample((4,)).shape
        torch.Size([4, 2])
    """

    def __init__(self, guide: AmortizedGuide, pseudo_inputs: Tensor):
        super().__init__()
        if not isinstance(guide, AmortizedGuide) or not guide.can_score:
            raise ValueError(
                f"expected an AmortizedGuide with log_prob at arbitrary values (can_score), got {type(guide).__name__}"
            )
        if guide.conditions.names:
            raise ValueError(
                f"expected a guide of x alone, since pseudo-inputs have no conditions, got {type(guide).__name__} with "
                f"the conditions {guide.conditions.names}"
            )
        self._guide = [guide]  # in a list, so that its parameters are not the model's too
        self.logits = nn.Parameter(pseudo_inputs.detach().clamp(0.01, 0.99).logit())

    @property
    def partners(self) -> tuple[nn.Module, ...]:
        """The guide, which is held by reference and not registered."""
        return tuple(self._guide)

    def forward(self, template: Tensor) -> dist.TorchDistribution:
        """p(z)."""
        (guide,) = self._guide
        features = guide.encode(self.logits.sigmoid())
        posteriors = guide.distribution(features)
        if is_point_mass(posteriors):
            raise ContractError(
                f"expected a guide with a density in VampPrior, got {type(guide).__name__}, which is a point mass"
            )
        equal = dist.Categorical(logits=features.new_zeros(len(features)))
        return dist.MixtureSameFamily(equal, posteriors)


class AutoregressiveFlow(nn.Module):
    """N(0, I) through masked autoregressive maps: scored in one pass, drawn in one pass for each element of z.

    Args:
        dim: length of z, at least 2.
        steps: number of maps.
        hidden: width of each map's two hidden layers.

    Source: Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation"; as a prior: Chen et al.
    2017, "Variational Lossy Autoencoder".

    Example:

        >>> AutoregressiveFlow(3)(torch.zeros(1)).log_prob(torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(self, dim: int, steps: int = 2, hidden: int = 64):
        super().__init__()
        self.dim = dim
        self.maps = nn.ModuleList(
            conditional_affine_autoregressive(dim, 1, hidden_dims=[hidden, hidden]) for _ in range(steps)
        )

    def forward(self, template: Tensor) -> dist.TorchDistribution:
        """p(z)."""
        # A constant context: without one, Pyro's inverse starts from zeros of the default type, whatever z's type is.
        context = torch.ones(1, dtype=template.dtype, device=template.device)
        maps: list[Any] = list(self.maps)
        inverses = [step.condition(context).inv for step in maps]
        return dist.TransformedDistribution(standard_normal(template, self.dim), inverses)

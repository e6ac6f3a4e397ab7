"""A mixture of diagonal Gaussians, for posteriors with several modes.

    q(z | x) = sum_c pi_c(x) N(z; loc_c(x), diag(scale_c(x)^2))

The component is summed out of the density. Draws are reparameterised implicitly: with the distributional transform

    F_d(z) = sum_c pi_c(z_<d) Phi((z_d - loc_cd) / scale_cd),   pi_c(z_<d) prop. to pi_c prod_{e<d} N(z_e; loc_ce, ...)

which makes z uniform, dz/dphi = - (dF/dz)^-1 dF/dphi, and dF/dz is triangular.

Source: Figurnov, Mohamed and Mnih 2018, "Implicit Reparameterization Gradients", section 3 and appendix; Morningstar
et al. 2021, "Automatic Differentiation Variational Inference with Mixtures". (Pyro's MixtureOfDiagNormals has another
pathwise derivative, whose gradient of the component's logits is biased.)
"""

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

from ppvae.engine.contract import AmortizedGuide


class MixtureGuide(AmortizedGuide):
    """Mixture of diagonal Gaussians q(z | x); site "z". A label y is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, MixtureGuide.num_features(latent_dim, components)): logits of the
            components, then all means, then the logs of all standard deviations.
        latent_dim: length of z.
        components: number of Gaussians.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, components: int):
        super().__init__(encoder)
        if min(latent_dim, components) < 1:
            raise ValueError(f"expected latent_dim and components of at least 1, got {latent_dim} and {components}")
        self.latent_dim, self.components = latent_dim, components

    @staticmethod
    def num_features(latent_dim: int, components: int) -> int:
        """C (1 + 2 D) for z of length D and C components."""
        return components * (1 + 2 * latent_dim)

    def distribution(self, features: Tensor) -> "DiagonalMixture":
        expected = self.num_features(self.latent_dim, self.components)
        if features.shape[-1] != expected:
            raise ValueError(f"expected {expected} features for {self.components} components, got {features.shape[-1]}")
        logits, locs, log_scales = features.split([self.components, *2 * [self.components * self.latent_dim]], -1)
        shape = (*features.shape[:-1], self.components, self.latent_dim)
        return DiagonalMixture(logits, locs.reshape(shape), log_scales.reshape(shape).exp())


class DiagonalMixture(dist.TorchDistribution):
    """Mixture of diagonal Gaussians: logits (..., C), locs and scales (..., C, D); event shape (D,)."""

    arg_constraints = {"logits": constraints.real, "locs": constraints.real, "scales": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, logits: Tensor, locs: Tensor, scales: Tensor, validate_args=None):
        self.logits, self.locs, self.scales = logits, locs, scales
        super().__init__(logits.shape[:-1], locs.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return (self.logits.softmax(-1).unsqueeze(-1) * self.locs).sum(-2)

    def expand(self, batch_shape, _instance=None) -> "DiagonalMixture":
        batch = torch.Size(batch_shape)
        parameters = ((self.logits, 1), (self.locs, 2), (self.scales, 2))
        return DiagonalMixture(*(p.expand(batch + p.shape[-dims:]) for p, dims in parameters), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        within = self._components().log_prob(value.unsqueeze(-2)).sum(-1)
        return (self.logits.log_softmax(-1) + within).logsumexp(-1)

    def rsample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            component = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            index = component[..., None, None].expand(*shape, 1, *self.event_shape)
            loc, scale = (
                p.expand(*shape, *p.shape[-2:]).gather(-2, index)[..., 0, :] for p in (self.locs, self.scales)
            )
            z = loc + scale * torch.randn_like(loc)
        if not any(p.requires_grad for p in (self.logits, self.locs, self.scales)):
            return z
        uniform, slope = self._transform(z)
        change = torch.linalg.solve_triangular(slope.detach(), uniform.unsqueeze(-1), upper=False).squeeze(-1)
        return z - (change - change.detach())

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        with torch.no_grad():
            return self.rsample(sample_shape).detach()

    def _components(self) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.locs, self.scales, validate_args=False)

    def _transform(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """F (..., D) at a fixed z, and its Jacobian by z (..., D, D), lower triangular."""
        components, value = self._components(), z.unsqueeze(-2)  # (..., C, D)
        log_density, distribution = components.log_prob(value), components.cdf(value)
        before = log_density.cumsum(-1) - log_density
        weight = (self.logits.unsqueeze(-1) + before).softmax(-2)  # pi_c(z_<d)
        score = -(value - self.locs) / self.scales.square()  # d log N(z_e) / dz_e
        centred = score.unsqueeze(-2) - torch.einsum("...cd,...ce->...de", weight, score).unsqueeze(
            -3
        )  # (..., C, D, D)
        below = torch.einsum("...cd,...cde->...de", weight * distribution, centred).tril(-1)
        diagonal = (weight * log_density.exp()).sum(-2)
        return (weight * distribution).sum(-2), below + torch.diag_embed(diagonal)

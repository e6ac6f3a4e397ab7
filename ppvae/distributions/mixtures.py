"""Mixtures of diagonal Gaussians with reparameterised draws.

    q(z) = sum_c pi_c N(z; loc_c, diag(scale_c^2))

The component is summed out of the density. Draws are reparameterised implicitly. The distributional transform

    F_d(z) = sum_c pi_c(z_<d) Phi((z_d - loc_cd) / scale_cd),   pi_c(z_<d) prop. to pi_c prod_{e<d} N(z_e; loc_ce, ...)

makes z uniform, so dz/dphi = - (dF/dz)^-1 dF/dphi, and dF/dz is triangular.

Source: Figurnov, Mohamed and Mnih 2018, "Implicit Reparameterization Gradients", section 3 and appendix; Morningstar
et al. 2021, "Automatic Differentiation Variational Inference with Mixtures". (Pyro's MixtureOfDiagNormals has another
pathwise derivative, with a biased gradient of the component logits.)
"""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints


class DiagonalMixture(dist.TorchDistribution):
    """Mixture of diagonal Gaussians over vectors of length D, with C components.

    Args:
        logits: log weights of the components, not normalised; shape (..., C).
        locs: means, shape (..., C, D).
        scales: standard deviations, shape (..., C, D).

    Example:

        >>> mixture = DiagonalMixture(torch.zeros(2), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
        >>> mixture.mean, mixture.log_prob(torch.zeros(1))
        (tensor([0.]), tensor(-1.4189))
    """

    arg_constraints = {"logits": constraints.real, "locs": constraints.real, "scales": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, logits: Tensor, locs: Tensor, scales: Tensor, validate_args: bool | None = None):
        self.logits, self.locs, self.scales = logits, locs, scales
        super().__init__(logits.shape[:-1], locs.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Mean, shape (..., D)."""
        return (self.logits.softmax(-1).unsqueeze(-1) * self.locs).sum(-2)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiagonalMixture":
        """The distribution with that batch shape."""
        batch = torch.Size(batch_shape)
        logits = self.logits.expand(batch + self.logits.shape[-1:])
        locs, scales = (p.expand(batch + p.shape[-2:]) for p in (self.locs, self.scales))
        return DiagonalMixture(logits, locs, scales, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, in nats."""
        within = self._components().log_prob(value.unsqueeze(-2)).sum(-1)
        return (self.logits.log_softmax(-1) + within).logsumexp(-1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws with the implicit gradient."""
        z = self.sample(sample_shape)
        if not any(p.requires_grad for p in (self.logits, self.locs, self.scales)):
            return z
        uniform, slope = self._transform(z)
        change = torch.linalg.solve_triangular(slope.detach(), uniform.unsqueeze(-1), upper=False).squeeze(-1)
        return z - (change - change.detach())

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws without gradient."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            component = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            index = component[..., None, None].expand(*shape, 1, *self.event_shape)
            parameters = (self.locs, self.scales)
            loc, scale = (p.expand(*shape, *p.shape[-2:]).gather(-2, index)[..., 0, :] for p in parameters)
            return loc + scale * torch.randn_like(loc)

    def _components(self) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.locs, self.scales, validate_args=False)

    def _transform(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """F (..., D) at a fixed z, and its Jacobian by z (..., D, D), lower triangular."""
        components, value = self._components(), z.unsqueeze(-2)  # (..., C, D)
        log_density, distribution = components.log_prob(value), components.cdf(value)
        before = log_density.cumsum(-1) - log_density
        weight = (self.logits.unsqueeze(-1) + before).softmax(-2)  # pi_c(z_<d)
        score = -(value - self.locs) / self.scales.square()  # d log N(z_e) / dz_e
        mean_score = torch.einsum("...cd,...ce->...de", weight, score)
        centred = score.unsqueeze(-2) - mean_score.unsqueeze(-3)  # (..., C, D, D)
        below = torch.einsum("...cd,...cde->...de", weight * distribution, centred).tril(-1)
        diagonal = (weight * log_density.exp()).sum(-2)
        return (weight * distribution).sum(-2), below + torch.diag_embed(diagonal)

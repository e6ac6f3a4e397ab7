"""Penalties on the code of an autoencoder: its size, its sparsity, and how fast it changes with x."""

import torch
from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.errors import ContractError
from ppvae.objectives.base import Penalty
from ppvae.objectives.draws import draws, mean_by_formula, vector
from ppvae.objectives.jacobians import require_probes, squared_jacobian
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class CodeNorm(Penalty):
    """weight E_q sum_d |z_d|^power / power: the squared norm of a code, |z|^2 / 2, or with power 1 its L1 norm.

    With power 2 and a point mass it is - log N(z; 0, I) up to a constant, the code's term of a regularised autoencoder.
    With power 1 it makes a code sparse, best one of rectified units. A decoder without a bound on its weights escapes
    both by a small code and large weights: add ``DecoderWeights`` or ``DecoderGradient``, or use
    ``ppvae.nn.Dictionary``.

    Part: "code_norm/z".

    Args:
        weight: at least 0, or a schedule.
        power: at least 1.
        site: the latent.

    Raises ValueError for a weight or a power out of range.

    Source: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 3 (power 2); Ng 2011,
    "Sparse autoencoder" (lecture notes).

    Example:

        >>> import ppvae
        >>> objective = ppvae.Reconstruction() + ppvae.CodeNorm(0.01)
    """

    label = "code_norm"
    site: str
    over_batch = False

    def __init__(self, weight: float | Schedule, power: float = 2.0, site: str = "z"):
        require_weight("weight", weight)
        if not 1 <= power < float("inf"):
            raise ValueError(f"expected power of at least 1, got {power}")
        self.weight, self.power, self.site = weight, float(power), site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted norm of each datum's code, (B,)."""
        z = vector(particles, self.site).value
        size = z.square() if self.power == 2 else z.abs() if self.power == 1 else z.abs() ** self.power
        return value_at(self.weight, particles.step) * particles.average(size.sum(-1) / self.power)


class CodeSparsity(Penalty):
    """weight sum_d KL(target || a_d), where a_d is the mean of z_d over the batch, for a code between 0 and 1:

        KL(t || a) = t log(t / a) + (1 - t) log((1 - t) / (1 - a))

    Each unit is active in a share ``target`` of the data. The encoder ends with ``nn.Sigmoid()``.

    Part: "code_sparsity/z".

    Args:
        weight: at least 0, or a schedule.
        target: t, between 0 and 1.
        site: the latent.

    Raises:
        ValueError: a weight or a target out of range.
        ContractError: an element of a code is below 0 or above 1. During training the term is NaN then, and
            :func:`ppvae.fit` stops.

    Source: Ng 2011, "Sparse autoencoder" (lecture notes); Lee, Ekanadham and Ng 2008, "Sparse Deep Belief Net Model
    for Visual Area V2".

    Example:

        >>> import ppvae
        >>> objective = ppvae.Reconstruction() + ppvae.CodeSparsity(0.1, target=0.05)
    """

    label = "code_sparsity"
    site: str

    def __init__(self, weight: float | Schedule, target: float = 0.05, site: str = "z"):
        require_weight("weight", weight)
        if not 0 < target < 1:
            raise ValueError(f"expected target between 0 and 1, got {target}")
        self.weight, self.target, self.site = weight, target, site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted sum over the code's elements, a scalar."""
        z, target = draws(particles, self.site), self.target
        inside = ((z >= 0) & (z <= 1)).all()
        if particles.source.waits and not inside:
            raise ContractError(
                f"expected a code {self.site!r} between 0 and 1, got values from {z.min():.3g} to {z.max():.3g}; end "
                "the encoder with torch.nn.Sigmoid(), or use CodeNorm(weight, power=1)"
            )
        smallest = torch.finfo(z.dtype).eps
        active = z.mean((0, 1)).clamp(smallest, 1 - smallest)
        terms = target * (target / active).log() + (1 - target) * ((1 - target) / (1 - active)).log()
        return value_at(self.weight, particles.step) * torch.where(inside, terms.sum(), torch.nan)


class ContractivePenalty(Penalty):
    """weight |J|^2, where J = d E_q[z | x] / d x is the Jacobian matrix of the encoder at each datum.

    It runs the guide once more, at noise of its own if it has any. The encoder must treat each datum separately: under
    batch normalisation J has the influence of x on the other rows too. See :class:`CodeNorm` for decoders that escape
    the penalty.

    Part: "contractive/z".

    Args:
        weight: at least 0, or a schedule.
        num_probes: random vectors v in the unbiased estimate |J|^2 = E |J' v|^2, each one backward pass. None computes
            it exactly, with one backward pass for each element of the code.
        site: the latent.

    Raises ContractError for a guide without a formula for the mean of q.

    Source: Rifai et al. 2011, "Contractive Auto-Encoders: Explicit Invariance During Feature Extraction", equation 2.

    Example:

        >>> import ppvae
        >>> objective = ppvae.Reconstruction() + ppvae.ContractivePenalty(0.1)
    """

    label = "contractive"
    site: str
    reparameterised = over_batch = False

    def __init__(self, weight: float | Schedule, num_probes: int | None = 1, site: str = "z"):
        require_weight("weight", weight)
        self.weight, self.num_probes, self.site = weight, require_probes(num_probes), site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted squared size of each datum's Jacobian, (B,)."""
        vector(particles, self.site)
        with torch.enable_grad():
            x = particles.batch.x.detach().requires_grad_()
            q = particles.source.posterior(self.site, particles.batch.with_x(x))
            mean = mean_by_formula(q, f"q({self.site} | x)", "use PointGuide, MeanFieldGaussian or FullRankGaussian")
            square = squared_jacobian(mean, x, 1, self.num_probes)
        return value_at(self.weight, particles.step) * square

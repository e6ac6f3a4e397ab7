"""The aggregate posterior q(z) = 1/N sum_n q(z | x_n) taken exactly: total correlation and its neighbours.

    rate = E_x KL(q(z | x) || p(z)) = I(x; z) + KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d))

mutual information, total correlation, dimension-wise KL, where q(z | x_n) and p(z) are products of Normals.
Minibatch estimates replace the sum over n, and are biased; here it runs over every row, so that what is left is the
error of M draws.

Source: Hoffman and Johnson 2016, "ELBO Surgery"; Chen et al. 2018, "Isolating Sources of Disentanglement", equation 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.distributions import Normal

from ppvae.distributions.aggregate import log_joint_and_marginals, stratified
from ppvae.errors import DataError
from ppvae.evaluation.likelihood.per_datum import sampling_error

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
STANDARD_NORMAL = Normal(0.0, 1.0)
AT_ONCE = (64, 2048)  # draws and rows scored against each other; their densities stay in a CPU's cache


@dataclass(frozen=True, eq=False)
class AggregatePosterior:
    """The parts of the rate at M draws (n, z), n ~ rows and z ~ q(z | x_n); nats, each of shape (M,), float64.

    Attributes:
        pointwise_information: log q(z | x_n) - log q(z), at most :attr:`log_n`.
        pointwise_correlation: log q(z) - sum_d log q(z_d).
        pointwise_kl: sum_d log q(z_d) - log p(z_d); None where no prior was given.
        log_n: log N. Mutual information near it says only "at least".
    """

    pointwise_information: Tensor
    pointwise_correlation: Tensor
    pointwise_kl: Tensor | None
    log_n: float

    @property
    def mutual_information(self) -> float:
        """I(x; z)."""
        return self.pointwise_information.mean().item()

    @property
    def total_correlation(self) -> float:
        """KL(q(z) || prod_d q(z_d))."""
        return self.pointwise_correlation.mean().item()

    @property
    def dimension_wise_kl(self) -> float | None:
        """sum_d KL(q(z_d) || p(z_d)); None where no prior was given."""
        return None if self.pointwise_kl is None else self.pointwise_kl.mean().item()

    @property
    def rate(self) -> float | None:
        """The three together, E_x KL(q(z | x) || p(z)); None where no prior was given."""
        marginal = self.dimension_wise_kl
        return None if marginal is None else self.mutual_information + self.total_correlation + marginal

    @property
    def total_correlation_error(self) -> float:
        """Standard error of :attr:`total_correlation` over the draws."""
        return sampling_error(self.pointwise_correlation)

    @property
    def mutual_information_error(self) -> float:
        """Standard error of :attr:`mutual_information` over the draws."""
        return sampling_error(self.pointwise_information)

    def __repr__(self) -> str:
        with_prior = self.pointwise_kl is not None
        prior = f", dimension-wise KL {self.dimension_wise_kl:.3f}, rate {self.rate:.3f}" if with_prior else ""
        return (
            f"AggregatePosterior(total correlation {self.total_correlation:.3f} ± {self.total_correlation_error:.3f}, "
            f"mutual information {self.mutual_information:.3f} ± {self.mutual_information_error:.3f} "
            f"(log N = {self.log_n:.2f}){prior} nats)"
        )


def aggregate_posterior(
    codes: Tensor,
    scales: Tensor,
    prior: Normal | None = STANDARD_NORMAL,
    *,
    num_draws: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> AggregatePosterior:
    """The parts of the rate, with q(z) the exact mixture of all N posteriors.

    They are those of this finite mixture. Where the rows are a sample of a population and their posteriors so narrow
    that they do not overlap, its total correlation stays above the population's, as its mutual information stays at
    log N; of a whole grid there is no other.

    Args:
        codes: means of q(z | x_n), shape (N, D).
        scales: standard deviations of q(z | x_n), shape (N, D).
        prior: p(z_d), of batch shape () or (D,); None where it is no product of Normals.
        num_draws: M, of rows (with replacement) and latents; the cost is M N D densities.
        seed: of the draws; the caller's random state is left alone.
        progress: show a progress bar.

    Densities are computed in the codes' type and summed over rows in float64. Raises DataError where shapes disagree
    or a number is not finite.
    """
    _check(codes, scales)
    if num_draws < 2:
        raise ValueError(f"expected at least 2 draws, for a standard error, got {num_draws}")
    z, own = _draws(codes, scales, num_draws, torch.Generator().manual_seed(seed))
    parts = z.split(AT_ONCE[0])
    scored = [_log_aggregate(part, codes, scales) for part in (track(parts, "q(z)") if progress else parts)]
    joint, marginals = (torch.cat(part) for part in zip(*scored, strict=True))
    log_p = None if prior is None else prior.log_prob(z.to(prior.mean.device)).double().cpu() + HALF_LOG_2PI
    # Every density here lacks its (2 pi)^(-D/2).
    return AggregatePosterior(
        pointwise_information=(own - joint).cpu(),
        pointwise_correlation=(joint - marginals.sum(1)).cpu(),
        pointwise_kl=None if log_p is None else (marginals.cpu() - log_p).sum(1),
        log_n=math.log(len(codes)),
    )


def minibatch_correlation(
    codes: Tensor, scales: Tensor, *, batch_size: int = 64, num_batches: int = 200, seed: int = 0
) -> Tensor:
    """Estimates of the total correlation from single batches, by stratified sampling, nats, shape (batches,), float64.

    What beta-TCVAE has of it in a step. The mean over batches is biased, as a logarithm of an estimate is; the exact
    one stands in :func:`aggregate_posterior`.

    Args:
        codes, scales: as there.
        batch_size: B; N where there are fewer rows.
        num_batches: each of rows drawn without replacement.
        seed: of the batches and draws.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", appendix C.
    """
    _check(codes, scales)
    size = min(batch_size, len(codes))
    if size < 2 or num_batches < 2:
        raise ValueError(f"expected 2 batches or more, of at least 2 rows, got {num_batches} of {size}")
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    found = []
    for _ in range(num_batches):
        rows = torch.from_numpy(rng.choice(len(codes), size, replace=False)).to(codes.device)
        q = Normal(codes[rows].double(), scales[rows].double())
        z = q.mean + q.stddev * torch.randn(q.mean.shape, generator=generator).to(q.mean)
        log_q = q.log_prob(z.unsqueeze(1))  # (i, j, D)
        joint, marginals = log_joint_and_marginals(log_q, stratified(size, len(codes), like=log_q))
        found.append((joint - marginals.sum(-1)).mean())
    return torch.stack(found).cpu()


def critic_correlation(
    critic: Callable[[Tensor], Tensor], codes: Tensor, scales: Tensor, *, num_draws: int = 10_000, seed: int = 0
) -> Tensor:
    """What a critic takes for log q(z) / prod_d q(z_d) at draws of q(z), shape (M,), nats; its mean is its total
    correlation.

    Args:
        critic: (M, D) -> (M,), such as ``objective.adversaries[0].log_ratio`` of :func:`ppvae.factor_vae`.
        codes, scales: as in :func:`aggregate_posterior`.
        num_draws: M, of rows (with replacement) and latents.
        seed: of the draws.
    """
    _check(codes, scales)
    z, _ = _draws(codes, scales, num_draws, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return critic(z).double().cpu()


def _draws(codes: Tensor, scales: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws z, shape (M, D), of posteriors of random rows, and the log density of each under its own, (M,)."""
    rows = torch.randint(len(codes), (number,), generator=generator).to(codes.device)
    mean, precision = codes[rows], scales[rows].reciprocal()
    z = mean + scales[rows] * torch.randn(mean.shape, generator=generator).to(mean)
    # From z as rounded, as q(z) is, lest its logarithm be less than that of its own part.
    return z, ((z - mean) * precision).square().mul(-0.5).add(precision.log()).sum(1).double()


def _log_aggregate(z: Tensor, codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """log q(z), shape (m,), and log q(z_d), (m, D), each without its (2 pi)^(-1/2) a dimension, at z (m, D)."""
    joint = z.new_full((len(z),), -torch.inf, dtype=torch.float64)
    marginals = z.new_full(z.shape, -torch.inf, dtype=torch.float64)
    for mean, scale in zip(codes.split(AT_ONCE[1]), scales.split(AT_ONCE[1]), strict=True):
        mean, precision = mean.T.contiguous(), scale.T.reciprocal().contiguous()
        log_q = (z.unsqueeze(-1) - mean).mul_(precision).square_().mul_(-0.5).add_(precision.log())  # (m, D, n)
        joint = torch.logaddexp(joint, log_q.sum(1).logsumexp(-1).double())
        marginals = torch.logaddexp(marginals, log_q.logsumexp(-1).double())
    return joint - math.log(len(codes)), marginals - math.log(len(codes))


def _check(codes: Tensor, scales: Tensor) -> None:
    if codes.dim() != 2 or codes.shape != scales.shape or codes.numel() == 0:
        raise DataError(
            f"expected codes and scales of one shape (N, D), got {tuple(codes.shape)} and {tuple(scales.shape)}"
        )
    bad = ~(torch.isfinite(codes) & torch.isfinite(scales) & (scales > 0) & scales.reciprocal().isfinite()).all(1)
    if bad.any():
        raise DataError(f"expected finite codes and positive scales, got others first in row {int(bad.nonzero()[0])}")

"""Total correlation, mutual information and dimension-wise KL under the exact aggregate posterior.

With q(z) = 1/N sum_n q(z | x_n), and q(z | x_n) and p(z) products of Normals, the rate has three parts:

    E_x KL(q(z | x) || p(z))  =  I(x; z)  +  KL(q(z) || prod_d q(z_d))  +  sum_d KL(q(z_d) || p(z_d))

Minibatch estimates replace the sum over n and are biased. Here the sum is over all rows, so the only error is that of M
draws of z.

Source: Hoffman and Johnson 2016, "ELBO Surgery"; Chen et al. 2018, "Isolating Sources of Disentanglement", equation 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ppvae.distributions.aggregate import log_joint_and_marginals, stratified
from ppvae.errors import DataError
from ppvae.evaluation.likelihood.per_datum import sampling_error
from ppvae.evaluation.progress import tracked

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
STANDARD_NORMAL = Normal(0.0, 1.0)
BLOCK = (64, 2048)  # draws and rows scored against each other at once; their densities fit into the cache of a CPU


@dataclass(frozen=True, eq=False)
class AggregatePosterior:
    """The parts of the rate at M draws, n ~ rows and z ~ q(z | x_n); nats, each of shape (M,), float64.

    Attributes:
        pointwise_information: log q(z | x_n) - log q(z), at most :attr:`log_n`.
        pointwise_correlation: log q(z) - sum_d log q(z_d).
        pointwise_kl: sum_d log q(z_d) - log p(z_d); None without a prior.
        log_n: log N, the largest mutual information that N rows can show; a value close to it is a lower bound.

    Example:

        >>> import torch
        >>> from ppvae.evaluation.disentanglement import AggregatePosterior
        >>> parts = torch.tensor([1.0, 2.0])
        >>> AggregatePosterior(parts, parts, None, log_n=2.3).total_correlation
        1.5
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
        """sum_d KL(q(z_d) || p(z_d)); None without a prior."""
        return None if self.pointwise_kl is None else self.pointwise_kl.mean().item()

    @property
    def rate(self) -> float | None:
        """E_x KL(q(z | x) || p(z)), the sum of the three parts; None without a prior."""
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
    """The parts of the rate at M draws, with q(z) the exact mixture of all N posteriors.

    The mixture is that of the given rows. If they are a sample of a population, and their posteriors too narrow to
    overlap, the total correlation is above that of the population, and the mutual information is at most log N. For a
    whole grid of factors there is no such difference.

    Args:
        codes: means of q(z | x_n), shape (N, D).
        scales: standard deviations of q(z | x_n), shape (N, D).
        prior: p(z_d), of batch shape () or (D,); None if it is not a product of Normals.
        num_draws: M, draws of a row (with replacement) and of z; the cost is M N D densities.
        seed: of the draws. The random state of the caller does not change.
        progress: show a progress bar.

    Densities are computed in the type of the codes and summed over rows in float64. Raises DataError where shapes
    disagree, a number is not finite or a scale is not positive, and ValueError for fewer than two draws.

    Example:

        >>> import torch
        >>> from ppvae.evaluation.disentanglement import aggregate_posterior
        >>> codes = torch.arange(50.0)[:, None].expand(50, 2)  # z_2 = z_1 identifies the row: TC = I = log N
        >>> aggregate_posterior(codes, torch.full((50, 2), 1e-3), prior=None, num_draws=10)
        AggregatePosterior(total correlation 3.912 ± 0.000, mutual information 3.912 ± 0.000 (log N = 3.91) nats)
    """
    _check(codes, scales)
    if num_draws < 2:
        raise ValueError(f"expected at least 2 draws, for the standard error, got {num_draws}")
    z, own = row_draws(codes, scales, num_draws, torch.Generator().manual_seed(seed))
    parts = z.split(BLOCK[0])
    scored = [_log_aggregate(part, codes, scales) for part in tracked(parts, "q(z)", progress)]
    joint, marginals = (torch.cat(part) for part in zip(*scored, strict=True))
    # q is computed without its factor (2 pi)^(-1/2) in each dimension, so p must lack it too.
    log_p = None if prior is None else prior.log_prob(z.to(prior.mean.device)).double().cpu() + HALF_LOG_2PI
    return AggregatePosterior(
        pointwise_information=(own - joint).cpu(),
        pointwise_correlation=(joint - marginals.sum(1)).cpu(),
        pointwise_kl=None if log_p is None else (marginals.cpu() - log_p).sum(1),
        log_n=math.log(len(codes)),
    )


def minibatch_correlation(
    codes: Tensor, scales: Tensor, *, batch_size: int = 64, num_batches: int = 200, seed: int = 0
) -> Tensor:
    """Estimates of the total correlation from single batches, by stratified sampling, nats, shape (num_batches,).

    These are the estimates that beta-TCVAE's training step uses. They are biased, since they are logarithms of
    estimates; :func:`aggregate_posterior` gives the exact value.

    Args:
        codes: means of q(z | x_n), shape (N, D).
        scales: standard deviations of q(z | x_n), shape (N, D).
        batch_size: B, at least 2; N if there are fewer rows.
        num_batches: at least 2, each of rows drawn without replacement.
        seed: of the batches and the draws.

    Computed in float64. Raises DataError as :func:`aggregate_posterior` does, and ValueError for smaller settings.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", appendix C.

    Example:

        >>> import torch
        >>> from ppvae.evaluation.disentanglement import minibatch_correlation
        >>> minibatch_correlation(torch.zeros(8, 2), torch.ones(8, 2), batch_size=4, num_batches=3).abs().max() < 1e-6
        tensor(True)
    """
    _check(codes, scales)
    size = min(batch_size, len(codes))
    if size < 2 or num_batches < 2:
        raise ValueError(f"expected at least 2 batches of at least 2 rows, got {num_batches} of {size}")
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    found = []
    for _ in range(num_batches):
        rows = torch.from_numpy(rng.choice(len(codes), size, replace=False)).to(codes.device)
        q = Normal(codes[rows].double(), scales[rows].double())
        z = q.mean + q.stddev * torch.randn(q.mean.shape, generator=generator).to(q.mean)
        log_q = q.log_prob(z.unsqueeze(1))  # (i, j, D)
        joint, marginals = log_joint_and_marginals(log_q, stratified(size, len(codes), template=log_q))
        found.append((joint - marginals.sum(-1)).mean())
    return torch.stack(found).cpu()


def critic_correlation(
    critic: Callable[[Tensor], Tensor], codes: Tensor, scales: Tensor, *, num_draws: int = 10_000, seed: int = 0
) -> Tensor:
    """A critic's estimate of log q(z) / prod_d q(z_d) at draws of q(z), shape (M,), nats, float64.

    The mean estimates the total correlation. Critics underestimate it; see :func:`aggregate_posterior` for the exact
    value.

    Args:
        critic: z (M, D) -> log ratio (M,), such as ``objective.players[0].module.log_ratio`` of
            :func:`ppvae.factor_vae`.
        codes: means of q(z | x_n), shape (N, D).
        scales: standard deviations of q(z | x_n), shape (N, D).
        num_draws: M, draws of a row (with replacement) and of z.
        seed: of the draws.

    Raises DataError as :func:`aggregate_posterior` does.

    Example:

        >>> import torch
        >>> from ppvae.evaluation.disentanglement import critic_correlation
        >>> critic_correlation(lambda z: torch.ones(len(z)), torch.zeros(8, 2), torch.ones(8, 2), num_draws=3).tolist()
        [1.0, 1.0, 1.0]
    """
    _check(codes, scales)
    z, _ = row_draws(codes, scales, num_draws, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return critic(z).double().cpu()


def row_draws(codes: Tensor, scales: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws z ~ q(z | x_n) for random rows n, (M, D), and log q(z | x_n) without its factor (2 pi)^(-D/2), (M,).

    Example:

        >>> row_draws(torch.zeros(8, 2), torch.ones(8, 2), 5, torch.Generator().manual_seed(0))[0].shape
        torch.Size([5, 2])
    """
    rows = torch.randint(len(codes), (number,), generator=generator).to(codes.device)
    mean, precision = codes[rows], scales[rows].reciprocal()
    z = mean + scales[rows] * torch.randn(mean.shape, generator=generator).to(mean)
    # Scored at the rounded z, as q(z) is: otherwise log q(z) can be less than log q(z | x_n) / N.
    return z, ((z - mean) * precision).square().mul(-0.5).add(precision.log()).sum(1).double()


def _log_aggregate(z: Tensor, codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """log q(z), shape (m,), and log q(z_d), (m, D), at z (m, D), without the factor (2 pi)^(-1/2) in each dimension."""
    joint = z.new_full((len(z),), -torch.inf, dtype=torch.float64)
    marginals = z.new_full(z.shape, -torch.inf, dtype=torch.float64)
    for mean, scale in zip(codes.split(BLOCK[1]), scales.split(BLOCK[1]), strict=True):
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
        raise DataError(
            f"expected finite codes and positive scales, got other numbers first in row {int(bad.nonzero()[0])}"
        )

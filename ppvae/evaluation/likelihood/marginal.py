"""Results of importance sampling: log p(x) of each datum, with diagnostics."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import require_count
from ppvae.evaluation.likelihood.pareto import khat_limit, pareto_khat
from ppvae.evaluation.likelihood.per_datum import PerDatum

TOLERATED = 0.05  # share of the data whose k-hat may be bad by chance
TRUSTED_ESS = 0.1  # share of K


@dataclass(frozen=True, eq=False)
class Weighted(PerDatum):
    """Estimates of log p(x) of B data from K weights w_k = p(x, z_k) / q(z_k) each; in nats.

    Attributes:
        value: log 1/K sum_k w_k, shape (B,). Its expectation is a lower bound of log p(x) (the K-particle
            importance-weighted bound), and it is consistent as K grows.
        standard_error: of ``value`` by the delta method, sd(w) / (mean(w) sqrt(K)), shape (B,). It is reliable only
            where ``khat`` is at most :func:`khat_limit` of K.
        ess: effective sample size (sum w)^2 / sum w^2, from 1 to K, shape (B,).
        khat: Pareto shape of the weights' tail, shape (B,).
        num_particles: K.

    Example:

        >>> ones = torch.ones(2)
        >>> Weighted(-ones, 0.1 * ones, ess=900 * ones, khat=torch.tensor([0.1, 0.9]), num_particles=1000).in_doubt
        tensor([False,  True])
    """

    ess: Tensor
    khat: Tensor
    num_particles: int

    @property
    def khat_bad(self) -> float:
        """Share of the data whose k-hat is above :func:`khat_limit` of K; NaN where K is too small for k-hat."""
        return share_of_bad(self.khat, self.num_particles)

    @property
    def is_reliable(self) -> bool:
        """Whether k-hat is within its limit for 95% of the data. If not, read the mean as a lower bound alone."""
        return self.khat_bad <= TOLERATED

    @property
    def median_ess(self) -> float:
        """Median over the data of the effective sample size."""
        return self.ess.median().item()

    @property
    def in_doubt(self) -> Tensor:
        """Data with a k-hat that is unknown or above its limit, or an effective sample size below K / 10, bool, (B,).

        With 50 latents the weights of a guide that miss most of the posterior have, for one datum in ten, a k-hat
        below the limit: few effective draws tell the rest.
        """
        return self.failed | self.khat.isnan() | (self.ess < TRUSTED_ESS * self.num_particles)

    @property
    def failed(self) -> Tensor:
        """Data with a k-hat above its limit, bool, shape (B,): their value is a lower bound."""
        return self.khat > khat_limit(self.num_particles)


@dataclass(frozen=True, eq=False)
class Weights(Weighted):
    """The weights of one proposal for all data, such as those of a guide; made by :func:`weights_of`.

    Example:

        >>> log_weight = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]], dtype=torch.float64)
        >>> weights_of(log_weight).value, weights_of(log_weight).bound(1)
        (tensor([0.0000, 0.6931], dtype=torch.float64), tensor([0.0000, 0.5493], dtype=torch.float64))
    """

    _relative_log_weight: Tensor | None = None  # log w - value, float32, (K, B)

    def bound(self, k: int) -> Tensor:
        """The k-particle importance-weighted bound of each datum, shape (B,), for any k from 1 to K, in nats.

        Mean of log 1/k sum w over the K // k disjoint groups of k weights: unbiased for the bound.
        """
        if require_count("k", k) > self.num_particles:
            raise ValueError(f"expected k from 1 to num_particles={self.num_particles}, got {k}")
        return self.value if k == self.num_particles else self.value + self._grouped(k).mean(0)

    def bound_standard_error(self, k: int) -> Tensor:
        """Monte Carlo standard error of :meth:`bound`, from its groups, shape (B,); NaN where there is one group."""
        self.bound(k)  # raises ValueError for a k out of range
        if k == self.num_particles:
            return torch.full_like(self.value, torch.nan)
        groups = self._grouped(k)
        return groups.std(0) / len(groups) ** 0.5

    def _grouped(self, k: int) -> Tensor:
        """log 1/k sum w - value of each group of k weights, (K // k, B)."""
        if self._relative_log_weight is None:
            raise ValueError(f"expected k={self.num_particles}, got {k}; call log_marginal with keep_weights=True")
        groups = self.num_particles // k
        weights = self._relative_log_weight[: groups * k].double().reshape(groups, k, -1)
        return weights.logsumexp(1) - math.log(k)


@dataclass(frozen=True, eq=False)
class LogMarginal(Weighted):
    """log p(x) of B data, and the guide's own bounds; in nats. Made by :func:`ppvae.log_marginal`.

    Attributes:
        value, standard_error, ess, khat, num_particles: of the weights that decide each datum; see :class:`Weighted`.
        guide: the guide's own weights; :meth:`bound` reads these.
        stage: index into ``stages`` of the proposal that gave each datum its weights, shape (B,); 0 is the guide.
        stages: names of the proposals.
        quantity: what is estimated: "log p(x)", "log p(x, y)" where known labels are a site of the model,
            "log p(x | y)" where the model only reads them, "log p(x | c)" of a condition c.
        not_fitted: why no proposal could be fitted; empty where one could.
        diverged: indices of the data whose fit failed; they keep the weights that they had before.
        check: the comparison with annealed importance sampling, if requested.

    Example:

        >>> log_weight = torch.zeros(100, 2, dtype=torch.float64)
        >>> found = marginal_of(weights_of(log_weight))
        >>> found.num_fitted, found.num_failed, found.bound(10).shape
        (0, 0, torch.Size([2]))
    """

    guide: Weights
    stage: Tensor
    stages: tuple[str, ...] = ("guide",)
    quantity: str = "log p(x)"
    not_fitted: str = ""
    diverged: tuple[int, ...] = ()
    check: Any = None

    @property
    def num_fitted(self) -> int:
        """Number of data whose weights are those of a fitted proposal."""
        return int((self.stage > 0).sum())

    @property
    def num_failed(self) -> int:
        """Number of data whose k-hat is above its limit: their value is a lower bound."""
        return int(self.failed.sum())

    def bound(self, k: int) -> Tensor:
        """The k-particle bound of the guide, shape (B,), for any k from 1 to K, in nats; see :class:`Weights`.

        A fitted proposal estimates log p(x), which belongs to the model; the guide's weights judge the guide.
        """
        return self.guide.bound(k)

    def bound_standard_error(self, k: int) -> Tensor:
        """Monte Carlo standard error of :meth:`bound`, shape (B,)."""
        return self.guide.bound_standard_error(k)

    def __repr__(self) -> str:
        quantity = self.quantity if self.is_reliable else f"lower bound on {self.quantity}"
        khat = "k-hat unknown" if math.isnan(self.khat_bad) else f"k-hat bad in {self.khat_bad:.1%}"
        notes = [f"median ess {self.median_ess:.1f}", khat, *self._notes()]
        return (
            f"LogMarginal({quantity} {self.mean:.3f} nats, simulation error {self.simulation_error:.3f}, "
            f"sampling error {self.sampling_error:.3f} over {len(self.value)} data; {self.num_particles} particles, "
            f"{', '.join(notes)})"
        )

    def _notes(self) -> list[str]:
        counts = [f"{int((self.stage == i).sum())} by {name}" for i, name in enumerate(self.stages) if i]
        failed = [f"fit diverged for {len(self.diverged)}"] if self.diverged else []
        reason = [f"not fitted: {self.not_fitted}"] if self.not_fitted else []
        return counts + failed + reason + ([str(self.check)] if self.check is not None else [])


def share_of_bad(khat: Tensor, num_particles: int) -> float:
    """Share of k-hat values above :func:`khat_limit` of K; NaN where there are too few weights for k-hat.

    Example:

        >>> share_of_bad(torch.tensor([0.1, 0.9]), num_particles=1000)
        0.5
    """
    return math.nan if khat.isnan().any() else (khat > khat_limit(num_particles)).double().mean().item()


def weights_of(log_weight: Tensor, keep: bool = True) -> Weights:
    """The summary of log weights (K, B).

    Example:

        >>> weights_of(torch.zeros(100, 2, dtype=torch.float64)).ess
        tensor([100.0000, 100.0000], dtype=torch.float64)
    """
    value, error, ess, khat = summary(log_weight)
    return Weights(value, error, ess, khat, len(log_weight), (log_weight - value).float() if keep else None)


def marginal_of(guide: Weights) -> LogMarginal:
    """The estimates of the guide's weights alone.

    Example:

        >>> marginal_of(weights_of(torch.zeros(100, 2, dtype=torch.float64))).stages
        ('guide',)
    """
    stage = torch.zeros(len(guide.value), dtype=torch.long)
    return LogMarginal(guide.value, guide.standard_error, guide.ess, guide.khat, guide.num_particles, guide, stage)


def summary(log_weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, standard error, effective sample size and k-hat of log weights (K, B), each (B,).

    Example:

        >>> value, error, ess, khat = summary(torch.zeros(100, 2, dtype=torch.float64))
        >>> value.abs() < 1e-12
        tensor([True, True])
    """
    num_particles, total = len(log_weight), log_weight.logsumexp(0)
    ess = (2 * total - (2 * log_weight).logsumexp(0)).exp()
    khat = torch.from_numpy(pareto_khat(np.ascontiguousarray(log_weight.T.numpy())))
    return total - math.log(num_particles), _standard_error(ess, num_particles), ess, khat


def _standard_error(ess: Tensor, num_particles: int) -> Tensor:
    """sd(w) / (mean(w) sqrt(K)), from the effective sample size; NaN for a single particle."""
    if num_particles == 1:
        return torch.full_like(ess, torch.nan)
    return ((1 / ess - 1 / num_particles).clamp(min=0) * num_particles / (num_particles - 1)).sqrt()

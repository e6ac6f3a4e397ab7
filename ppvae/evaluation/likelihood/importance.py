"""log p(x) by importance sampling from the guide, with what is needed to judge it."""

import math
from dataclasses import dataclass

import numpy as np
import pyro
import torch
from rich.progress import track
from torch import Tensor

from ppvae.engine.checks import (
    check_input,
    check_label_range,
    check_parameters,
    check_support,
    check_weights,
    to_device_of,
)
from ppvae.engine.contract import check_pair, is_amortized
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import replay
from ppvae.engine.tracing import OBSERVED, distribution_at
from ppvae.evaluation.likelihood.pareto import pareto_khat
from ppvae.evaluation.likelihood.per_datum import PerDatum
from ppvae.objectives.local import at_features

KHAT_LIMIT = 0.7
ENCODED_AT_ONCE = 100  # data


@dataclass(frozen=True, eq=False)
class LogMarginal(PerDatum):
    """Estimates of log p(x) of B data from K weights w_k = p(x, z_k) / q(z_k | x) each; in nats.

    Attributes:
        value: log 1/K sum_k w_k, shape (B,). Its expectation is a lower bound of log p(x) (the K-particle
            importance-weighted bound), and it is consistent as K grows.
        standard_error: of ``value`` by the delta method, sd(w) / (mean(w) sqrt(K)), shape (B,). Believe it only
            where ``khat`` is below 0.7.
        ess: effective sample size (sum w)^2 / sum w^2, from 1 to K, shape (B,).
        khat: Pareto shape of the weights' tail, shape (B,).
        num_particles: K.
    """

    ess: Tensor
    khat: Tensor
    num_particles: int
    _relative_log_weight: Tensor | None = None  # log w - value, float32, (K, B)

    @property
    def khat_above_limit(self) -> float:
        """Share of the data whose k-hat is above 0.7; NaN where there are too few particles to tell."""
        return float("nan") if self.khat.isnan().any() else (self.khat > KHAT_LIMIT).double().mean().item()

    def bound(self, k: int) -> Tensor:
        """The k-particle importance-weighted bound of each datum, shape (B,), for any k from 1 to K.

        Mean of log 1/k sum w over the K // k disjoint groups of k weights: unbiased for the bound.
        """
        if not 1 <= k <= self.num_particles:
            raise ValueError(f"expected k from 1 to num_particles={self.num_particles}, got {k}")
        if k == self.num_particles:
            return self.value
        if self._relative_log_weight is None:
            raise ValueError(f"expected k={self.num_particles}, got {k}; call log_marginal with keep_weights=True")
        return self.value + self._grouped(k).mean(0)

    def bound_standard_error(self, k: int) -> Tensor:
        """Monte Carlo standard error of :meth:`bound`, from its groups, shape (B,); NaN where there is but one."""
        self.bound(k)  # refuses a k that cannot be
        if k == self.num_particles:
            return torch.full_like(self.value, torch.nan)
        groups = self._grouped(k)
        return groups.std(0) / len(groups) ** 0.5

    def _grouped(self, k: int) -> Tensor:
        """log 1/k sum w - value of each group of k weights, (K // k, B)."""
        groups = self.num_particles // k
        weights = self._relative_log_weight[: groups * k].double().reshape(groups, k, -1)
        return weights.logsumexp(1) - math.log(k)

    def __repr__(self) -> str:
        return (
            f"LogMarginal(mean {self.mean:.3f} +- {self.mean_standard_error:.3f} nats over {len(self.value)} data, "
            f"{self.num_particles} particles, median ess {self.ess.median():.1f}, "
            f"k-hat > {KHAT_LIMIT} in {self.khat_above_limit:.1%})"
        )


def log_marginal(
    model,
    guide,
    x: Tensor,
    y: Tensor | None = None,
    *,
    num_particles: int = 1000,
    chunk: int = 1000,
    seed: int = 0,
    keep_weights: bool = True,
    progress: bool = False,
) -> LogMarginal:
    """Estimate log p(x) (log p(x, y) where y is known) of each datum with the guide as importance sampler.

    Args:
        model: generative model.
        guide: its guide; discrete sites are summed exactly inside each weight.
        x: data, shape (B, *event_shape).
        y: labels, shape (B,), -1 where unknown; or None.
        num_particles: weights per datum, K.
        chunk: pairs of a particle and a datum (times the enumerated values) that are evaluated at once: the
            bound on the memory of the pass. About a thousand stays in a CPU's cache.
        seed: of the draws; the caller's own random state is left alone.
        keep_weights: keep 4 bytes for each particle of each datum, so that ``bound(k)`` works for every k.
        progress: show a progress bar.

    The pair is put in evaluation mode. Weights are computed in the pair's type and summed in float64.

    Source: Burda, Grosse and Salakhutdinov 2016 (estimator); Vehtari et al. 2024 (k-hat).
    """
    if num_particles < 1 or chunk < 1:
        raise ValueError(f"expected num_particles and chunk of at least 1, got {num_particles} and {chunk}")
    check_parameters(model, guide)
    check_input(x, y)
    x, y = to_device_of(model, x), None if y is None else to_device_of(model, y)
    with evaluation_mode(model, guide, device=x.device, seed=seed):
        pairs = max(1, chunk // _inspect(model, guide, x, y))
    with evaluation_mode(model, guide, device=x.device, seed=seed), pyro.validation_enabled(False):
        return estimate(model, _guide_of(guide, x), x, y, num_particles, pairs, keep_weights, progress)


def _guide_of(guide, x: Tensor):
    """The guide of each slice of the data; what an amortized one makes of its x is worked out once."""
    if not is_amortized(guide):
        return lambda rows: guide
    features = torch.cat([guide.encoder(part) for part in x.split(ENCODED_AT_ONCE)])
    return lambda rows: at_features(guide.distribution, features[rows])


def estimate(model, guide_of, x, y, num_particles: int, pairs: int, keep_weights=True, progress=False) -> LogMarginal:
    """:func:`log_marginal` without its checks, by the guide ``guide_of(rows)`` for each slice of the data."""
    rows = max(1, pairs // num_particles)
    blocks = [slice(start, start + rows) for start in range(0, len(x), rows)]
    # Results go into room made beforehand: small tensors left lying between the large ones of a pass would keep the
    # allocator from using that room again, and memory would grow with the number of data.
    summary = torch.empty(4, len(x), dtype=torch.float64)
    kept = torch.empty(len(x), num_particles if keep_weights else 0).T
    for block in track(blocks, "log p(x)") if progress else blocks:
        labels = None if y is None else y[block]
        log_weight = _log_weights(model, guide_of(block), x[block], labels, num_particles, pairs)
        summary[:, block] = torch.stack(_summary(log_weight))
        if keep_weights:
            kept[:, block] = log_weight - summary[0, block]
    check_weights(summary[0])
    return LogMarginal(*summary, num_particles, kept if keep_weights else None)


def _inspect(model, guide, x: Tensor, y: Tensor | None) -> int:
    """Check all of the data; the number of enumerated values per particle, at most."""
    check_label_range(model, x[:1], y)
    kinds = [slice(0, 4)] if y is None else [(y < 0).nonzero()[:2, 0], (y >= 0).nonzero()[:2, 0]]
    few = [(x[rows], None if y is None else y[rows]) for rows in kinds if len(x[rows])]
    for some_x, some_y in few:
        check_pair(model, guide, some_x, some_y)
    one_each = torch.cat([some_x[:1] for some_x, _ in few])
    labels = None if y is None else torch.cat([some_y[:1] for _, some_y in few])
    particles = replay(model, guide, one_each, labels)
    check_support(distribution_at(model, OBSERVED, x[:1], None if labels is None else labels[:1].clamp(min=0)), x)
    return max(site.log_prob.numel() for site in particles.model.values()) // len(one_each)


def _log_weights(model, guide, x, y, num_particles: int, pairs: int) -> Tensor:
    """(K, B), float64, on the CPU."""
    step = max(1, min(num_particles, pairs // len(x)))
    log_weight = torch.empty(num_particles, len(x), dtype=torch.float64)
    for part in log_weight.split(step):
        part.copy_(replay(model, guide, x, y, len(part)).log_weight)
    return log_weight


def _summary(log_weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, standard error, effective sample size and k-hat of log weights (K, B), each (B,)."""
    num_particles, total = len(log_weight), log_weight.logsumexp(0)
    ess = (2 * total - (2 * log_weight).logsumexp(0)).exp()
    khat = torch.from_numpy(pareto_khat(np.ascontiguousarray(log_weight.T.numpy())))
    return total - math.log(num_particles), _standard_error(ess, num_particles), ess, khat


def _standard_error(ess: Tensor, num_particles: int) -> Tensor:
    """sd(w) / (mean(w) sqrt(K)), from the effective sample size; NaN for a single particle."""
    if num_particles == 1:
        return torch.full_like(ess, torch.nan)
    return ((1 / ess - 1 / num_particles).clamp(min=0) * num_particles / (num_particles - 1)).sqrt()

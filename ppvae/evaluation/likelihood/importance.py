"""log p(x) by importance sampling from the guide, with diagnostics."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.contract import AmortizedGuide, is_amortized
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import LABEL, arguments, conditions_of
from ppvae.evaluation.likelihood.pareto import khat_limit, pareto_khat
from ppvae.evaluation.likelihood.per_datum import PerDatum
from ppvae.evaluation.progress import blocks, tracked
from ppvae.objectives.base import require_count
from ppvae.objectives.local import at_features

ENCODED_AT_ONCE = 100  # data
TOLERATED = 0.05  # share of the data whose k-hat may be bad by chance

GuideOf = Callable[[slice], Any]


@dataclass(frozen=True, eq=False)
class LogMarginal(PerDatum):
    """Estimates of log p(x) of B data from K weights w_k = p(x, z_k) / q(z_k | x) each; in nats.

    Attributes:
        value: log 1/K sum_k w_k, shape (B,). Its expectation is a lower bound of log p(x) (the K-particle
            importance-weighted bound), and it is consistent as K grows.
        standard_error: of ``value`` by the delta method, sd(w) / (mean(w) sqrt(K)), shape (B,). It is reliable only
            where ``khat`` is at most :func:`khat_limit` of K.
        ess: effective sample size (sum w)^2 / sum w^2, from 1 to K, shape (B,).
        khat: Pareto shape of the weights' tail, shape (B,).
        num_particles: K.
        quantity: what is estimated: "log p(x)", "log p(x, y)" where known labels are a site of the model,
            "log p(x | y)" where the model only reads them, "log p(x | c)" of a condition c.

    Example:

        >>> value, ess = torch.tensor([-1.0, -3.0]), torch.full((2,), 90.0)
        >>> found = LogMarginal(value, torch.zeros(2), ess=ess, khat=torch.zeros(2), num_particles=100)
        >>> found.mean, found.is_reliable
        (-2.0, True)
    """

    ess: Tensor
    khat: Tensor
    num_particles: int
    _relative_log_weight: Tensor | None = None  # log w - value, float32, (K, B)
    quantity: str = "log p(x)"

    @property
    def khat_bad(self) -> float:
        """Share of the data whose k-hat is above :func:`khat_limit` of K; NaN where K is too small for k-hat."""
        return share_of_bad(self.khat, self.num_particles)

    @property
    def is_reliable(self) -> bool:
        """Whether k-hat is within its limit for 95% of the data. If not, read the mean as a lower bound alone."""
        return self.khat_bad <= TOLERATED

    def bound(self, k: int) -> Tensor:
        """The k-particle importance-weighted bound of each datum, shape (B,), for any k from 1 to K, in nats.

        Mean of log 1/k sum w over the K // k disjoint groups of k weights: unbiased for the bound.
        """
        if not 1 <= k <= self.num_particles:
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

    def __repr__(self) -> str:
        quantity = self.quantity if self.is_reliable else f"lower bound on {self.quantity}"
        return (
            f"LogMarginal({quantity} {self.mean:.3f} nats, simulation error {self.simulation_error:.3f}, "
            f"sampling error {self.sampling_error:.3f} over {len(self.value)} data; {self.num_particles} particles, "
            f"median ess {self.ess.median():.1f}, k-hat bad in {self.khat_bad:.1%})"
        )


def share_of_bad(khat: Tensor, num_particles: int) -> float:
    """Share of k-hat values above :func:`khat_limit` of K; NaN where there are too few weights for k-hat.

    Example:

        >>> share_of_bad(torch.tensor([0.1, 0.9]), num_particles=1000)
        0.5
    """
    return math.nan if khat.isnan().any() else (khat > khat_limit(num_particles)).double().mean().item()


def log_marginal(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    num_particles: int = 1000,
    chunk: int = 1000,
    seed: int = 0,
    keep_weights: bool = True,
    progress: bool = False,
    **given: Array,
) -> LogMarginal:
    """Estimate log p(x) (log p(x, y) where y is known) of each datum with the guide as importance sampler.

        log p(x)  ~  log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    Args:
        model: generative model.
        guide: its guide; discrete sites are summed exactly inside each weight.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, shape (B,), -1 where unknown; or None.
        num_particles: weights per datum, K.
        chunk: pairs of a particle and a datum (times the enumerated values) that are evaluated at once: the
            bound on the memory of the pass. About a thousand stays in a CPU's cache.
        seed: of the draws; the caller's random state does not change.
        keep_weights: keep 4 bytes for each particle of each datum, so that ``bound(k)`` works for every k.
        progress: show a progress bar.
        given: conditions of B rows each. The estimate is that of log p(x | given).

    The pair is in evaluation mode. Weights are computed in the pair's type and summed in float64. A mode of the
    posterior that q never draws shows in no weight and in no k-hat: compare with :func:`ais` on a few data.

    Raises:
        ContractError: the pair or the data break the contract, q is not a density over the prior's whole space, or the
            weights of a datum have no finite sum; the pass ends at the first such datum.

    Source: Burda, Grosse and Salakhutdinov 2016 (estimator); Vehtari et al. 2024 (k-hat).

    Example:

        >>> import ppvae
        >>> from ppvae.guides import FullRankGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = FullRankGaussian(ppvae.nn.MLP(2, [], 5), 2)
        >>> result = ppvae.log_marginal(model, guide, torch.zeros(3, 2), num_particles=100)
        >>> result.value.shape, result.bound(10).shape
        (torch.Size([3]), torch.Size([3]))
    """
    num_particles, chunk = require_count("num_particles", num_particles), require_count("chunk", chunk)
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        pairs = max(1, chunk // _enumerated_values(pair, batch))
        found = estimate(model, _guide_of(guide, batch), batch, num_particles, pairs, keep_weights, progress)
        return replace(found, quantity=quantity_of(pair, batch))


def quantity_of(pair: Pair, batch: Batch) -> str:
    """What the weights of a pair estimate, in words for tables.

    Example:

        >>> from ppvae.engine.batch import as_batch
        >>> from ppvae.models import LinearGaussian
        >>> quantity_of(Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), None), as_batch(torch.zeros(3, 2)))
        'log p(x)'
    """
    with forked_randomness(batch.x.device):
        sites = pair.prior(batch.rows(slice(0, 1)), 1)
    names = conditions_of(pair.model)
    given = [name for name in batch.given if names is None or name in names]
    if batch.y is not None and LABEL not in sites and batch.all_known:
        given = [LABEL, *given]
    left = "x, y" if batch.all_known and LABEL in sites else "x"
    right = f" | {', '.join(given)}" if given else ""
    partly = " (x, y where y is known)" if LABEL in sites and batch.y is not None and not batch.all_known else ""
    return f"log p({left}{right}){partly}"


def estimate(
    model: Any,
    guide_of: GuideOf,
    batch: Batch,
    num_particles: int,
    pairs: int,
    keep_weights: bool = True,
    progress: bool = False,
) -> LogMarginal:
    """:func:`log_marginal` inside an evaluation, by the guide ``guide_of(rows)`` of each slice of the data.

    Example:

        >>> from ppvae.engine.batch import as_batch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> with evaluation(model, guide, torch.zeros(3, 2)) as (pair, batch):
        ...     estimate(model, lambda rows: guide, batch, num_particles=10, pairs=100).value.shape
        torch.Size([3])
    """
    # Results go into room made beforehand: small tensors left lying between the large ones of a pass would keep the
    # allocator from using that room again, and memory would grow with the number of data.
    value, error, ess, khat = summary = torch.empty(4, len(batch), dtype=torch.float64)
    kept = torch.empty(len(batch), num_particles if keep_weights else 0).T
    for block in tracked(blocks(len(batch), max(1, pairs // num_particles)), "log p(x)", progress):
        log_weight = _log_weights(Pair(model, guide_of(block)), batch.rows(block), num_particles, pairs)
        check_weights(log_weight, block.start)
        summary[:, block] = torch.stack(_summary(log_weight))
        if keep_weights:
            kept[:, block] = log_weight - value[block]
    return LogMarginal(value, error, ess, khat, num_particles, kept if keep_weights else None)


def encode(guide: AmortizedGuide, batch: Batch) -> Tensor:
    """The features of each datum, from an amortized guide; shape (B, features).

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> encode(MeanFieldGaussian(torch.nn.Linear(2, 4)), Batch(torch.zeros(3, 2))).shape
        torch.Size([3, 4])
    """
    positional, given = arguments(guide, batch)
    return guide.encode(*positional, **given)


def _guide_of(guide: Any, batch: Batch) -> GuideOf:
    """The guide of each slice of the data; the features of an amortized guide are computed once."""
    partly_labelled = batch.y is not None and not batch.all_known
    if not is_amortized(guide) or partly_labelled:
        return lambda rows: guide
    features = torch.cat([encode(guide, batch.rows(block)) for block in blocks(len(batch), ENCODED_AT_ONCE)])
    return lambda rows: at_features(guide.distribution, features[rows])


def _enumerated_values(pair: Pair, batch: Batch) -> int:
    """The most joint values of enumerated sites per particle; 1 if there are none."""
    unlabelled = 0 if batch.known is None else int(batch.known.int().argmin())
    with forked_randomness(batch.x.device):
        particles = pair.draw(batch.rows(slice(unlabelled, unlabelled + 1)))
        return max(site.log_prob.numel() for site in particles.model.values())


def _log_weights(pair: Pair, batch: Batch, num_particles: int, pairs: int) -> Tensor:
    """(K, B), float64, on the CPU."""
    step = max(1, min(num_particles, pairs // len(batch)))
    log_weight = torch.empty(num_particles, len(batch), dtype=torch.float64)
    for part in log_weight.split(step):
        part.copy_(pair.draw(batch, len(part)).log_weight)
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

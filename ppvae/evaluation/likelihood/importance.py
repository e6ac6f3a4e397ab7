"""log p(x) by importance sampling, from the guide or from a proposal fitted to each datum, with diagnostics."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.contract import AmortizedGuide, is_amortized
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import LABEL, arguments, conditions_of
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate, AnnealingCheck
from ppvae.evaluation.likelihood.annealing import ais
from ppvae.evaluation.likelihood.marginal import LogMarginal, Weights, marginal_of, summary
from ppvae.evaluation.likelihood.path import Path
from ppvae.evaluation.likelihood.stages import Choice, require_choice, staged
from ppvae.evaluation.progress import blocks, tracked
from ppvae.objectives.base import require_count
from ppvae.objectives.local import at_features

ENCODED_AT_ONCE = 100  # data

GuideOf = Callable[[slice], Any]


def log_marginal(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    proposal: Choice = "auto",
    num_particles: int = 1000,
    check_with_ais: int = 0,
    chunk: int = 1000,
    seed: int = 0,
    keep_weights: bool = True,
    progress: bool = False,
    **given: Array,
) -> LogMarginal:
    """Estimate log p(x) (log p(x, y) where y is known) of each datum by importance sampling.

        log p(x)  ~  log 1/K sum_k p(x, z_k) / q(z_k),   z_k ~ q(z)

    The guide is the first proposal q. A datum is in doubt where the Pareto k-hat of its weights is above
    min(1 - 1/log10 K, 0.7), or their effective sample size is below K / 10. A Gaussian with a full covariance is fitted
    to the posterior of each datum in doubt, and fresh draws of it are weighed. A guide that leaves more than 5% of the
    data in doubt passes for others by chance: then all data are fitted. Data that are still in doubt get a longer fit,
    and those with a bad k-hat one that covers the posterior. The values of data with a bad k-hat at the end are lower
    bounds, and are counted as failed.

    Each datum has the value of its last fit, also where the guide's is higher. The one exception: where the k-hat of
    the guide's weights is good and their value is higher by more than three standard errors, the fit misses a mode, and
    the datum has the guide's value.

    Args:
        model: generative model.
        guide: its guide; discrete sites are summed exactly inside each weight.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, shape (B,), -1 where unknown; or None.
        proposal: "auto" for the above; None for the guide's weights alone; or an object such as
            :class:`ppvae.evaluation.proposals.FullRank`, which is fitted to every datum. The guide's weights are
            computed in every case, for :meth:`LogMarginal.bound`.
        num_particles: weights per datum, K. "auto" fits nothing below 25, where k-hat does not exist.
        check_with_ais: compare the first so many data (all, if there are fewer) with annealed importance sampling from
            the prior, by :func:`ppvae.ais` with its default settings, and print the paired difference.
        chunk: pairs of a particle and a datum (times the enumerated values) that are evaluated at once: the
            bound on the memory of a pass through the model. About a thousand stays in a CPU's cache.
        seed: of the draws; the caller's random state does not change.
        keep_weights: keep 4 bytes for each particle of each datum, so that ``bound(k)`` works for every k.
        progress: show progress bars.
        given: conditions of B rows each. The estimate is that of log p(x | given).

    The pair is in evaluation mode. Weights are computed in the pair's type and summed in float64. Each q is fixed
    before its draws are weighed, so its weights have the mean p(x). "auto" chooses between sets of weights by their
    k-hat and effective sample size, which lowers a value slightly where a proposal passes by chance.

    **Limit.** No weight shows a mode of the posterior that q never draws. With several modes of equal mass the estimate
    is too low by the logarithm of their number, and k-hat is silent. Annealed importance sampling from the prior on a
    few data is the check: ``check_with_ais=20``.

    Raises:
        ContractError: the pair or the data break the contract, q is not a density over the prior's whole space, the
            weights of a datum have no finite sum, a requested proposal cannot be fitted to the pair, or
            ``check_with_ais`` is set for a pair that :func:`ppvae.ais` refuses.
        TypeError, ValueError: arguments of a wrong type or out of range.

    Source: Burda, Grosse and Salakhutdinov 2016 (estimator); Vehtari et al. 2024 (k-hat);
    :mod:`ppvae.evaluation.likelihood.proposals` (fits).

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
    require_choice(proposal)
    num_particles, chunk = require_count("num_particles", num_particles), require_count("chunk", chunk)
    checked = require_count("check_with_ais", check_with_ais, least=0)
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        few = batch.rows(slice(0, checked))
        if checked:
            Path(Pair(model, None), few, chains=1)  # raises ContractError for a pair that ais refuses
        pairs = max(1, chunk // _enumerated_values(pair, batch))
        weights = estimate(model, _guide_of(guide, batch), batch, num_particles, pairs, keep_weights, progress)
        found = replace(marginal_of(weights), quantity=quantity_of(pair, batch))
        found = staged(found, pair, batch, proposal, chunk, progress)
    return _checked(found, ais(model, few, seed=seed, progress=progress)) if checked else found


def _checked(found: LogMarginal, annealed: AnnealedEstimate) -> LogMarginal:
    """The estimates with the difference from annealed importance sampling, which is printed."""
    few = slice(0, len(annealed.value))
    error = (found.standard_error[few].square() + annealed.standard_error.square()).sqrt()
    check = AnnealingCheck(found.value[few] - annealed.value, error)
    print(check)
    return replace(found, check=check)


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
) -> Weights:
    """The weights of :func:`log_marginal` inside an evaluation, by the guide ``guide_of(rows)`` of each slice.

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
    value, error, ess, khat = columns = torch.empty(4, len(batch), dtype=torch.float64)
    kept = torch.empty(len(batch), num_particles if keep_weights else 0).T
    for block in tracked(blocks(len(batch), max(1, pairs // num_particles)), "log p(x)", progress):
        log_weight = _log_weights(Pair(model, guide_of(block)), batch.rows(block), num_particles, pairs)
        check_weights(log_weight, block.start)
        columns[:, block] = torch.stack(summary(log_weight))
        if keep_weights:
            kept[:, block] = log_weight - value[block]
    return Weights(value, error, ess, khat, num_particles, kept if keep_weights else None)


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

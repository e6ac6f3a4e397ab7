"""Which proposal decides each datum: the guide where its weights can be trusted, fitted proposals elsewhere."""

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import frozen
from ppvae.engine.pair import Pair
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.fitted import fittable, fitted_log_weight
from ppvae.evaluation.likelihood.marginal import TOLERATED, LogMarginal, Weighted, summary
from ppvae.evaluation.likelihood.pareto import MIN_WEIGHTS
from ppvae.evaluation.likelihood.proposals import FullRank, Proposal, draws_at_once
from ppvae.evaluation.progress import blocks, tracked

MANY = 0.25  # share of the data that a fit leaves with a k-hat above the limit
SIGNIFICANT = 3  # standard errors
LISTED = 10  # rows of a warning

Choice = Proposal | Literal["auto"] | None


@dataclass(frozen=True)
class Stage:
    """A proposal, and the data that it is fitted to.

    Attributes:
        name: in tables.
        proposal: what is fitted.
        only_failed: fit it where k-hat is above its limit, and not where only the effective sample size is small. The
            covering fit improves the tails of the weights and is the slowest.

    Example:

        >>> [stage.name for stage in AUTO]
        ['full rank', 'full rank, longer', 'full rank, covering']
    """

    name: str
    proposal: Proposal
    only_failed: bool = False

    def rows(self, found: LogMarginal) -> Tensor:
        """Indices of the data that the proposal is fitted to: those in doubt, or all of the last proposal's.

        Draws that miss the tail of a posterior have even weights. A proposal that is too narrow therefore passes for
        some data by chance, and their values are too low. All data of the last proposal are fitted where it leaves too
        many of them in doubt: above 5% for the guide, above 25% with a k-hat above its limit for a fit. So are the data
        whose last fit diverged.
        """
        doubt = found.failed if self.only_failed else found.in_doubt
        doubt = doubt.index_fill(0, torch.tensor(found.diverged, dtype=torch.long), True)
        last = found.stage == len(found.stages) - 1
        by_guide = len(found.stages) == 1
        share = (found.in_doubt if by_guide else found.failed)[last].double().mean()
        return (doubt | (last & (share > (TOLERATED if by_guide else MANY)))).nonzero()[:, 0]


AUTO = (
    Stage("full rank", FullRank(steps=100, particles=8, learning_rate=0.03, newton=1)),
    Stage("full rank, longer", FullRank(steps=150, particles=16, learning_rate=0.05)),
    Stage("full rank, covering", FullRank(steps=150, learning_rate=0.05, cover=200, scale=1.1), only_failed=True),
)


def require_choice(proposal: Choice) -> None:
    """Raise TypeError unless a proposal is None, "auto" or an object with ``fit``.

    Example:

        >>> require_choice("auto")
        >>> require_choice("best")
        Traceback (most recent call last):
        TypeError: expected proposal None, "auto" or an object with fit(log_joint, start), got 'best'
    """
    known = proposal is None or (isinstance(proposal, str) and proposal == "auto")
    if not known and (isinstance(proposal, type) or not callable(getattr(proposal, "fit", None))):
        raise TypeError(f'expected proposal None, "auto" or an object with fit(log_joint, start), got {proposal!r}')


def staged(
    found: LogMarginal, pair: Pair, batch: Batch, proposal: Choice, chunk: int, progress: bool = False
) -> LogMarginal:
    """The estimates with those of the proposal in place of the guide's: for every datum, or with "auto" where in doubt.

    With "auto" each proposal of ``AUTO`` is tried in turn on the data that are still in doubt, see :meth:`Stage.rows`.
    A datum keeps the weights of the last proposal that was fitted to it, whether they say more or less, unless the
    guide's weights have a good k-hat and a value above theirs by more than three standard errors: then the fit misses a
    mode. Warns, with their rows, of data whose fit diverged.

    Args:
        found: the estimates of the guide's weights.
        pair: model and guide, in an evaluation.
        batch: the data.
        proposal: see :func:`ppvae.log_marginal`.
        chunk: pairs of a draw and a datum that are evaluated at once.
        progress: show progress bars.

    Raises:
        ContractError: no proposal can be fitted to the pair, and one is asked for. With "auto" the result says so.

    Example:

        >>> from ppvae.evaluation.likelihood.marginal import marginal_of, weights_of
        >>> found = marginal_of(weights_of(torch.zeros(100, 2, dtype=torch.float64)))
        >>> staged(found, Pair(None, None), Batch(torch.zeros(2, 1)), proposal=None, chunk=100) is found
        True
    """
    automatic = isinstance(proposal, str)
    if proposal is None or (automatic and not found.in_doubt.any()):
        return found
    if automatic and found.num_particles < MIN_WEIGHTS:
        return replace(found, not_fitted=f"k-hat needs {MIN_WEIGHTS} particles, got {found.num_particles}")
    with frozen(pair.model) if isinstance(pair.model, nn.Module) else nullcontext():
        if not isinstance(proposal, str):
            fit = _Fit(pair, batch, chunk, progress)
            return _warned(fit(found, type(proposal).__name__, proposal, torch.arange(len(batch))))
        try:
            fit = _Fit(pair, batch, chunk, progress)
            for stage in AUTO:
                found = fit(found, stage.name, stage.proposal, stage.rows(found))
        except torch.OutOfMemoryError:
            raise
        except ContractError as error:
            return replace(found, not_fitted=str(error))
        except RuntimeError as error:  # of the model, such as an operation without a derivative
            return replace(found, not_fitted=f"{type(error).__name__}: {error}")
    return _warned(_without_lost_modes(found))


def _without_lost_modes(found: LogMarginal) -> LogMarginal:
    """The estimates, with the guide's weights for data where these find significantly more than the fit.

    A fit to one of several modes has good weights and a value that is too low. Where the k-hat of the guide's own
    weights is good and their value is higher by more than three standard errors, the guide draws what the fit misses.
    Within three errors the higher value is chance, and choosing it would bias the estimate.
    """
    guide = found.guide
    error = (found.standard_error.square() + guide.standard_error.square()).sqrt()
    lost = ~guide.failed & (guide.value - found.value > SIGNIFICANT * error)
    columns = [torch.where(lost, *pair) for pair in zip(_columns(guide), _columns(found), strict=True)]
    return _with_columns(found, columns, found.stage.masked_fill(lost, 0))


def _columns(weights: Weighted) -> list[Tensor]:
    """What the weights of each datum give, each (B,)."""
    return [weights.value, weights.standard_error, weights.ess, weights.khat]


def _with_columns(found: LogMarginal, columns: Iterable[Tensor], stage: Tensor) -> LogMarginal:
    value, error, ess, khat = columns
    return replace(found, value=value, standard_error=error, ess=ess, khat=khat, stage=stage)


def _warned(found: LogMarginal) -> LogMarginal:
    """The estimates, after a warning with the rows of the data whose fit diverged."""
    if found.diverged:
        rows = ", ".join(map(str, found.diverged[:LISTED])) + (", ..." if len(found.diverged) > LISTED else "")
        warnings.warn(
            f"the fit diverged for {len(found.diverged)} of {len(found.value)} data, rows {rows}: they keep the "
            "weights that they had before",
            stacklevel=4,
        )
    return found


class _Fit:
    """Replaces the weights of some data by those of a proposal."""

    def __init__(self, pair: Pair, batch: Batch, chunk: int, progress: bool):
        self.pair, self.batch, self.chunk, self.progress = pair, batch, chunk, progress
        fittable(pair, batch)

    def __call__(self, found: LogMarginal, name: str, proposal: Proposal, rows: Tensor) -> LogMarginal:
        if not len(rows):
            return found
        columns = torch.stack(_columns(found))
        stage, diverged = found.stage.clone(), set(found.diverged)
        size = max(1, self.chunk // draws_at_once(proposal))
        for block in tracked(blocks(len(rows), size), f"fit: {name}", self.progress):
            index = rows[block]
            log_weight = self._log_weight(proposal, index, found.num_particles)
            sound = log_weight.logsumexp(0).isfinite()
            columns[:, index[sound]] = torch.stack(summary(log_weight[:, sound]))
            stage[index[sound]] = len(found.stages)
            diverged = diverged - set(index[sound].tolist()) | set(index[~sound].tolist())
        found = replace(found, stages=(*found.stages, name), diverged=tuple(sorted(diverged)))
        return _with_columns(found, columns, stage)

    def _log_weight(self, proposal: Proposal, index: Tensor, num_particles: int) -> Tensor:
        batch = self.batch.rows(index.to(self.batch.x.device))
        return fitted_log_weight(self.pair, batch, proposal, num_particles, self.chunk)

"""Which proposal decides each datum: the guide where its weights can be trusted, fitted proposals elsewhere."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import frozen
from ppvae.engine.pair import Pair
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.fitted import fittable, fitted_log_weight, problems_of
from ppvae.evaluation.likelihood.marginal import LogMarginal, summary
from ppvae.evaluation.likelihood.pareto import MIN_WEIGHTS
from ppvae.evaluation.likelihood.proposals import FullRank, Proposal
from ppvae.evaluation.progress import blocks, tracked

AUTO: Mapping[str, Proposal] = {
    "full rank": FullRank(steps=60, particles=8),
    "full rank, longer": FullRank(steps=150, particles=16),
    "full rank, covering": FullRank(steps=150, particles=16, cover=200, scale=1.1),
}
DRAWS = 16  # of each datum that a proposal evaluates at once, where it does not say

Choice = Proposal | Literal["auto"] | None


def require_choice(proposal: Choice) -> None:
    """Raise TypeError unless a proposal is None, "auto" or an object with ``fit``.

    Example:

        >>> require_choice("auto")
        >>> require_choice("best")
        Traceback (most recent call last):
        TypeError: expected proposal None, "auto" or an object with fit(log_joint, start), got 'best'
    """
    if proposal is not None and proposal != "auto" and (not hasattr(proposal, "fit") or isinstance(proposal, type)):
        raise TypeError(f'expected proposal None, "auto" or an object with fit(log_joint, start), got {proposal!r}')


def staged(
    found: LogMarginal, pair: Pair, batch: Batch, proposal: Choice, chunk: int, progress: bool = False
) -> LogMarginal:
    """The estimates with those of the proposal in place of the guide's: for every datum, or with "auto" where in doubt.

    With "auto" each proposal of ``AUTO`` is tried in turn on the data that are still in doubt. A datum keeps the
    weights of the last proposal that was fitted to it, whether they say more or less.

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
    automatic = proposal == "auto"
    if proposal is None or (automatic and not found.in_doubt.any()):
        return found
    if automatic and found.num_particles < MIN_WEIGHTS:
        return replace(found, not_fitted=f"k-hat needs {MIN_WEIGHTS} particles, got {found.num_particles}")
    stages = AUTO if proposal == "auto" else {type(proposal).__name__: proposal}
    with frozen(pair.model) if isinstance(pair.model, nn.Module) else nullcontext():
        try:
            fit = _Fit(pair, batch, chunk, progress)
        except ContractError as error:
            if not automatic:
                raise
            return replace(found, not_fitted=str(error))
        for name, each in stages.items():
            rows = found.in_doubt.nonzero()[:, 0] if automatic else torch.arange(len(batch))
            found = fit(found, name, each, rows)
    return found


class _Fit:
    """Replaces the weights of some data by those of a proposal."""

    def __init__(self, pair: Pair, batch: Batch, chunk: int, progress: bool):
        self.pair, self.batch, self.chunk, self.progress = pair, batch, chunk, progress
        self.coordinates = fittable(pair, batch)

    def __call__(self, found: LogMarginal, name: str, proposal: Proposal, rows: Tensor) -> LogMarginal:
        if not len(rows):
            return found
        columns = torch.stack([found.value, found.standard_error, found.ess, found.khat])
        stage, diverged = found.stage.clone(), list(found.diverged)
        size = max(1, self.chunk // getattr(proposal, "draws", DRAWS))
        for block in tracked(blocks(len(rows), size), f"fit: {name}", self.progress):
            index = rows[block]
            log_weight = self._log_weight(proposal, index, found.num_particles)
            sound = log_weight.logsumexp(0).isfinite()
            columns[:, index[sound]] = torch.stack(summary(log_weight[:, sound]))
            stage[index[sound]] = len(found.stages)
            diverged += index[~sound].tolist()
        value, error, ess, khat = columns
        return replace(
            found,
            value=value,
            standard_error=error,
            ess=ess,
            khat=khat,
            stage=stage,
            stages=(*found.stages, name),
            diverged=tuple(sorted(set(diverged))),
        )

    def _log_weight(self, proposal: Proposal, index: Tensor, num_particles: int) -> Tensor:
        batch = self.batch.rows(index.to(self.batch.x.device))
        problems = problems_of(self.pair, batch, self.coordinates, self.chunk)
        return fitted_log_weight(problems, proposal, num_particles, self.chunk)

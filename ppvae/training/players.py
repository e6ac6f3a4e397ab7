"""The players of a pair: the pair itself under its objective, then the critics and multipliers of its objective."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.engine.player import Optimizer, Player, Turn
from ppvae.errors import ContractError
from ppvae.evaluation.loss import call_estimator
from ppvae.objectives.base import Objective, Parts, unused

PAIR = "pair"  # the name of the player that is the pair
UNLABELLED = "unlabelled"


def players_of(model: nn.Module, guide: nn.Module, objective: PyroELBO, optimizer: Optimizer) -> list[Player]:
    """The players of each step of :func:`ppvae.fit`: the pair, then the critics and multipliers of its objective.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> [player.name for player in players_of(*pair, ppvae.geco(3.0), ppvae.adam())]
        ['pair', 'constraint/distortion']
    """
    return [pair_player(model, guide, objective, optimizer), *own_players(objective)]


def own_players(objective: PyroELBO | None) -> tuple[Player, ...]:
    """The critics and multipliers of an objective, under different names; empty for an estimator of Pyro's.

    Example:

        >>> import ppvae
        >>> [player.name for player in own_players(ppvae.geco(3.0))]
        ['constraint/distortion']
    """
    named: dict[str, Player] = {}
    for player in objective.players if isinstance(objective, Objective) else ():
        name = unused(player.name, named)
        named[name] = replace(player, name=name)
    return tuple(named.values())


def pair_player(model: nn.Module, guide: nn.Module, objective: PyroELBO, optimizer: Optimizer) -> Player:
    """The player that minimises the mean loss per datum of a pair, in nats.

    Its loss runs the pair, and so writes ``turn.particles``, ``turn.other_draws`` and, for data that are labelled in
    part, the loss and the parts of the unlabelled rows into ``turn.log``.

    Args:
        model: generative model.
        guide: its guide.
        objective: an objective of ppvae, or an estimator of Pyro's such as ``Trace_ELBO()``.
        optimizer: parameters -> torch optimizer.

    Example:

        >>> import ppvae
        >>> from ppvae.engine.batch import as_batch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> player = pair_player(model, guide, ppvae.ELBO(), ppvae.adam())
        >>> sorted(player.loss(Turn([as_batch(torch.zeros(3, 2))])))
        ['distortion', 'rate/z']
    """
    if isinstance(objective, Objective):
        return Player(PAIR, pair_module(model, guide), PairLoss(Pair(model, guide, waits=False), objective), optimizer)
    return Player(PAIR, pair_module(model, guide), StockLoss(model, guide, objective), optimizer)


def pair_module(model: nn.Module, guide: nn.Module) -> nn.ModuleDict:
    """Both modules as one, with the parameters "model.…" and "guide.…".

    Example:

        >>> [name for name, _ in pair_module(nn.Linear(1, 1), nn.Linear(1, 1, bias=False)).named_parameters()]
        ['model.weight', 'model.bias', 'guide.weight']
    """
    return nn.ModuleDict({"model": model, "guide": guide})


@dataclass(frozen=True)
class PairLoss:
    """The named parts of an objective's mean loss per datum.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4)))
        >>> sorted(PairLoss(pair, ppvae.ELBO())(Turn([Batch(torch.zeros(3, 2))])))
        ['distortion', 'rate/z']
    """

    pair: Pair
    objective: Objective

    def __call__(self, turn: Turn) -> Parts:
        turn.particles = [self.objective.particles(self.pair, batch, turn.step) for batch in turn.batches]
        parts = [self.objective.parts(particles) for particles in turn.particles]
        rows = sum(map(len, turn.batches))
        shares = [_shares(each, len(batch), rows) for each, batch in zip(parts, turn.batches, strict=True)]
        if len(parts) > 1:
            turn.log.update(_of_unlabelled(parts[0], len(turn.batches[0])))
        draws = zip(turn.particles, turn.other, strict=bool(turn.other))
        turn.other_draws = [particles.source.draws_for(batch) for particles, batch in draws]
        return _added(shares)


@dataclass(frozen=True)
class StockLoss:
    """The mean loss per datum of one of Pyro's estimators.

    Example:

        >>> from pyro.infer import Trace_ELBO
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> StockLoss(model, guide, Trace_ELBO())(Turn([Batch(torch.zeros(3, 2))])).shape
        torch.Size([])
    """

    model: nn.Module
    guide: nn.Module
    objective: Any  # its methods are those of Pyro's estimators; their base class declares none

    def __call__(self, turn: Turn) -> Tensor:
        rows = sum(map(len, turn.batches))
        if hasattr(self.objective, "differentiable_loss"):
            losses = [self._of(self.objective.differentiable_loss, batch) for batch in turn.batches]
            loss = sum(losses[1:], start=losses[0]) / rows
        else:
            losses, loss = self._by_gradients(turn.batches, rows)
        if len(losses) > 1:
            turn.log[f"{UNLABELLED}_loss"] = torch.as_tensor(losses[0]).detach() / len(turn.batches[0])
        return loss

    def _of(self, function: Any, batch: Batch) -> Any:
        return call_estimator(function, self.model, self.guide, batch)

    def _by_gradients(self, batches: list[Batch], rows: int) -> tuple[list[Any], Tensor]:
        """The losses, and their mean as a scalar with the gradient that ``loss_and_grads`` leaves in ``.grad``.

        Some of Pyro's estimators, RenyiELBO for one, offer nothing else.
        """
        parameters = [p for module in (self.model, self.guide) for p in module.parameters() if p.requires_grad]
        before = [parameter.grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.grad = None
            losses = [self._of(self.objective.loss_and_grads, batch) for batch in batches]
            gradients = [None if parameter.grad is None else parameter.grad / rows for parameter in parameters]
        finally:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = gradient
        if all(gradient is None for gradient in gradients):
            raise ContractError(
                f"expected a gradient at a trainable parameter, got none from {type(self.objective).__name__}, which "
                "gives none to a plain nn.Module; derive model and guide from ppvae.Model and ppvae.Guide, or "
                "PyroModule"
            )
        value = torch.as_tensor(sum(losses) / rows, device=batches[0].x.device)
        return losses, _WithGradients.apply(value, gradients, *parameters)


class _WithGradients(torch.autograd.Function):
    """A value with given gradients at some parameters."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *parameters: nn.Parameter) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, *(None if gradient is None else upstream[0] * gradient for gradient in ctx.gradients)


def _shares(parts: Mapping[str, Tensor], batch_size: int, rows: int) -> Parts:
    """What a batch contributes to the mean of each part over all rows of a step."""
    return {
        name: part.sum() / rows if part.dim() else part if batch_size == rows else part * (batch_size / rows)
        for name, part in parts.items()
    }


def _of_unlabelled(parts: Mapping[str, Tensor], batch_size: int) -> Parts:
    means = _shares({name: part.detach() for name, part in parts.items()}, batch_size, batch_size)
    total = sum(means.values(), start=torch.zeros_like(next(iter(means.values()))))
    return {f"{UNLABELLED}_loss": total, **{f"{UNLABELLED}/{name}": mean for name, mean in means.items()}}


def _added(shares: Iterable[Parts]) -> Parts:
    first, *others = shares
    total = dict(first)
    for parts in others:
        for name, part in parts.items():
            total[name] = total[name] + part if name in total else part
    return total

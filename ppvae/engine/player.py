"""Players: the modules that a training step updates, each with its own loss and optimizer.

One step lets each player descend in turn on the same batch. A pair under the ELBO is one player, FactorVAE two (the
pair and a critic), GECO two (the pair and a multiplier), a generative adversarial network two without a guide.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.particles import Particles

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Tensor | Mapping[str, Tensor]


@dataclass(eq=False)
class Turn:
    """What the players of one step share.

    Attributes:
        batches: the rows of the step; of partially labelled data, the unlabelled and then the labelled rows.
        other: an independent second batch of as many parts, if a player needs it; else empty.
        step: number of the step, from 0.
        particles: the pair's replay of each batch, written by the pair's turn; critics read the same draws.
        other_draws: the guide's draws for each part of ``other``, by site, (1, B, *event), without gradient.
        log: further numbers of the step, scalars without gradient, to be averaged over the epoch.

    Example:

        >>> from ppvae.engine.batch import as_batch
        >>> turn = Turn([as_batch(torch.zeros(3, 2))], step=7)
        >>> len(turn.batches[0]), turn.step, turn.particles
        (3, 7, [])
    """

    batches: list[Batch]
    other: list[Batch] = field(default_factory=list)
    step: int = 0
    particles: list[Particles] = field(default_factory=list)
    other_draws: list[dict[str, Tensor]] = field(default_factory=list)
    log: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Player:
    """A module that is trained on its own loss by its own optimizer.

    Attributes:
        name: "pair", "critic/z" and the like; its logged loss has the same name.
        module: its trainable parameters are updated; no other parameter gets a gradient from its loss.
        loss: turn -> a scalar, or named scalars that are summed.
        optimizer: parameters -> torch optimizer.
        every: it descends in every n-th step.
        needs_other: whether its loss reads ``turn.other`` or ``turn.other_draws``.
        log: further numbers to log, such as the value of a multiplier.

    Example:

        >>> import ppvae
        >>> from ppvae.engine.batch import as_batch
        >>> network = nn.Linear(2, 1)
        >>> player = Player("network", network, lambda turn: network(turn.batches[0].x).square().mean(), ppvae.adam())
        >>> player.loss(Turn([as_batch(torch.zeros(3, 2))])).shape
        torch.Size([])
    """

    name: str
    module: nn.Module
    loss: Callable[[Turn], Loss]
    optimizer: Optimizer
    every: int = 1
    needs_other: bool = False
    log: Callable[[], dict[str, Tensor]] | None = None

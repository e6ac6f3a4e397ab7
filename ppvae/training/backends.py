"""How one player descends in one step: its loss, then backward, synchronise, update.

:class:`Eager` is the reference. Another backend derives from it and replaces one of the three methods.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from ppvae.engine.player import Loss, Player, Turn
from ppvae.errors import ContractError
from ppvae.training.device import resolve_device
from ppvae.training.optimizers import make_optimizer, schedule_of

Gradients = list[Tensor | None]
LOSS = "loss"  # the name of a loss that is a single scalar


@dataclass(eq=False)
class Descent:
    """The trainable parameters of a player and their optimizer.

    Attributes:
        player: who descends.
        parameters: by their name in the player's module.
        optimizer: of these parameters.
        base_rates: the learning rate of each group before its schedule; empty without a schedule.

    Example:

        >>> line = nn.Linear(1, 1)
        >>> backend = Eager("cpu")
        >>> backend.prepare([Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)])
        >>> list(backend.descents["line"].parameters)
        ['weight', 'bias']
    """

    player: Player
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    base_rates: list[float]

    def set_rates(self, step: int) -> None:
        """Set each group's learning rate to that of the step, if there is a schedule."""
        schedule = schedule_of(self.player.optimizer)
        if schedule is None:
            return
        factor = schedule(step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor


class Eager:
    """Each operation runs when it is reached.

    Args:
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".

    Attributes:
        descents: parameters and optimizers of the players, by the player's name.

    Example:

        >>> line = nn.Linear(1, 1)
        >>> x = torch.ones(4, 1)
        >>> player = Player("line", line, lambda turn: (line(x) - 3).square().mean(), torch.optim.Adam)
        >>> backend = Eager("cpu")
        >>> backend.prepare([player])
        >>> losses = [float(backend.descend(player, Turn([]))["loss"]) for _ in range(3)]
        >>> losses[0] > losses[1] > losses[2]
        True
    """

    def __init__(self, device: str | torch.device = "auto"):
        self.device = resolve_device(device)
        self.descents: dict[str, Descent] = {}

    def prepare(self, players: Sequence[Player]) -> None:
        """Make an optimizer for the trainable parameters of each player. Raises ContractError if a player has none."""
        self.descents = {player.name: _descent(player) for player in players}

    def descend(self, player: Player, turn: Turn) -> dict[str, Tensor]:
        """Let a player descend once.

        Returns the parts of its loss by name, scalars without gradient; a loss without parts is named "loss". Nothing
        waits for the device, and no ``.grad`` stays filled.

        Raises:
            ContractError: the loss is not a scalar, or depends on no trainable parameter of the player.
        """
        descent = self.descents[player.name]
        descent.set_rates(turn.step)
        parts = _named(player.loss(turn), player.name)
        parameters = list(descent.parameters.values())
        gradients = self.backward(reduce(operator.add, parts.values()), parameters)
        if all(gradient is None for gradient in gradients):
            raise ContractError(_without_gradient(player))
        self.update(descent.optimizer, parameters, self.synchronise(gradients))
        return {name: part.detach() for name, part in parts.items()}

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Gradients:
        """The gradient of the loss at each parameter, None where the loss does not depend on it."""
        if not loss.requires_grad:
            return [None] * len(parameters)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [_laid_out_as(p, gradient) for p, gradient in zip(parameters, gradients, strict=True)]

    def synchronise(self, gradients: Gradients) -> Gradients:
        """The gradients of the whole step, from those of this process."""
        return gradients

    def update(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Gradients
    ) -> None:
        """Move the parameters along their gradients; no ``.grad`` stays filled."""
        try:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        finally:
            for parameter in parameters:
                parameter.grad = None


def as_backend(device: str | torch.device | Eager) -> Eager:
    """A backend as it is, or the eager backend on a device.

    Example:

        >>> as_backend("cpu").device
        device(type='cpu')
    """
    return device if isinstance(device, Eager) else Eager(device)


def _descent(player: Player) -> Descent:
    parameters = {name: p for name, p in player.module.named_parameters() if p.requires_grad}
    if not parameters:
        raise ContractError(
            f"expected player {player.name!r} to have a parameter to train, got none; give its module a parameter with "
            "requires_grad (with train_model=False the guide needs one)"
        )
    optimizer = make_optimizer(player.optimizer, parameters.values())
    if schedule_of(player.optimizer) is None:
        return Descent(player, parameters, optimizer, [])
    if not all("lr" in group for group in optimizer.param_groups):
        raise ContractError(
            f"expected an optimizer with a learning rate 'lr' for a schedule, got {type(optimizer).__name__}, which "
            "has none; leave the schedule out"
        )
    return Descent(player, parameters, optimizer, [float(group["lr"]) for group in optimizer.param_groups])


def _named(loss: Loss, player: str) -> Mapping[str, Tensor]:
    parts = loss if isinstance(loss, Mapping) else {LOSS: loss}
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.dim() != 0:
            got = f"a tensor of shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
            raise ContractError(
                f"expected {name!r} of player {player!r} to be a scalar tensor, got {got}; take its mean over the batch"
            )
    if not parts:
        raise ContractError(f"expected the loss of player {player!r} to have at least one part, got none")
    return parts


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """The gradient in its parameter's memory format, on which fused updates rely."""
    if gradient is None or gradient.is_sparse or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _without_gradient(player: Player) -> str:
    return (
        f"expected the loss of player {player.name!r} to depend on a trainable parameter of its module, a "
        f"{type(player.module).__name__}; it depends on none. Where every latent is enumerated, IWAE does not depend "
        "on the guide (use ELBO); Pyro's estimators give a plain nn.Module no gradient (use ppvae.Model, ppvae.Guide "
        "or PyroModule)"
    )

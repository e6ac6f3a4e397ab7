"""Critics and multipliers start from their first state in each fit."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppvae.engine.player import Player

FIRST_STATE = "_state_before_its_first_fit"


def begin_anew(players: Sequence[Player], resumed: bool = False) -> None:
    """Put critics and multipliers back to the state that they had before their first fit.

    An objective keeps the critic or the multiplier that :func:`ppvae.fit` trains. Without this, a second fit with the
    same objective would start from the first one's and give another result.

    Args:
        players: those of the objective.
        resumed: leave the state alone, since a checkpoint replaces it.

    Warns where the state had changed.

    Example:

        >>> line = nn.Linear(1, 1)
        >>> begin_anew([Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)])
        >>> sorted(vars(line)[FIRST_STATE])
        ['bias', 'weight']
    """
    for player in players:
        first = vars(player.module).setdefault(FIRST_STATE, _copy(player.module))
        if resumed or _equal(first, player.module):
            continue
        player.module.load_state_dict(first)
        warnings.warn(
            f"{player.name} starts from its first state: this objective was trained by an earlier fit. To continue "
            "that training, resume the run, or load its checkpoint into the objective: load_checkpoint(path, model, "
            "guide, objective)",
            stacklevel=4,
        )


def forget_first_state(players: Sequence[Player]) -> None:
    """Let the next fit start from the present state.

    Example:

        >>> line = nn.Linear(1, 1)
        >>> players = [Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)]
        >>> begin_anew(players)
        >>> forget_first_state(players)
        >>> FIRST_STATE in vars(line)
        False
    """
    for player in players:
        vars(player.module).pop(FIRST_STATE, None)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _equal(state: dict[str, Tensor], module: nn.Module) -> bool:
    return all(torch.equal(state[name].to(tensor), tensor) for name, tensor in module.state_dict().items())

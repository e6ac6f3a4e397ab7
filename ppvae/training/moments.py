"""The state of optimizers in a checkpoint: moments by the name of their parameter, and the options of the groups."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import CheckpointError, ContractError
from ppvae.training.backends import Descent
from ppvae.training.checkpoint import Tensors, check_match

Options = dict[str, Any]


def optimizer_tensors(descents: Mapping[str, Descent]) -> Tensors:
    """The moments and step counts of the optimizers, by ``optimizer/player:parameter:name``.

    Example:

        >>> from ppvae.engine.player import Player, Turn
        >>> from ppvae.training.backends import Eager
        >>> line, backend = torch.nn.Linear(1, 1, bias=False), Eager("cpu")
        >>> player = Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)
        >>> backend.prepare([player])
        >>> _ = backend.descend(player, Turn([]))
        >>> sorted(optimizer_tensors(backend.descents))
        ['optimizer/line:weight:exp_avg', 'optimizer/line:weight:exp_avg_sq', 'optimizer/line:weight:step']
    """
    named: dict[str, Any] = {}
    for player, descent in descents.items():
        for name, parameter in descent.parameters.items():
            named |= _state(player, name, parameter, descent.optimizer)
    return {name: torch.as_tensor(value) for name, value in named.items()}


def group_options(optimizer: torch.optim.Optimizer) -> list[Options]:
    """The plain options of each parameter group, ready for JSON. Some optimizers change them as they go.

    Example:

        >>> group_options(torch.optim.SGD([torch.zeros(1)], lr=0.1))[0]["lr"]
        0.1
    """
    return [
        {name: _plain(value) for name, value in group.items() if name != "params" and _is_plain(value)}
        for group in optimizer.param_groups
    ]


class SavedOptimizers:
    """The optimizers of a checkpoint, compared with those of a run before anything changes.

    What an optimizer keeps is learned from a twin that takes one step on copies of the parameters.

    Args:
        tensors: what :func:`optimizer_tensors` saved.
        groups: what :func:`group_options` saved, by player.
        descents: of the run.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: a name, a shape, a type or the options of a group differ, or a moment is NaN.

    Example:

        >>> from ppvae.engine.player import Player
        >>> from ppvae.training.backends import Eager
        >>> line, backend = torch.nn.Linear(1, 1), Eager("cpu")
        >>> backend.prepare([Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)])
        >>> tensors = optimizer_tensors(backend.descents)
        >>> groups = {name: group_options(descent.optimizer) for name, descent in backend.descents.items()}
        >>> SavedOptimizers(tensors, groups, backend.descents, Path("last.safetensors")).load()
    """

    def __init__(self, tensors: Tensors, groups: Mapping[str, list[Options]], descents: dict[str, Descent], path: Path):
        self.tensors, self.groups, self.descents = tensors, groups, descents
        self.twins = {player: _twin_after_one_step(descent) for player, descent in descents.items()}
        check_match(tensors, self._expected(), path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.isnan().any():
                raise CheckpointError(f"expected finite numbers in {path}, got NaN in {name}; nothing was loaded")
        for player, descent in descents.items():
            _check_groups(player, groups.get(player), group_options(descent.optimizer), path)

    def _expected(self) -> Tensors:
        """The whole state of each parameter that has any in the file; a parameter that never moved has none."""
        expected: Tensors = {}
        for player, twin in self.twins.items():
            for name, parameter in twin.parameters.items():
                state = _state(player, name, parameter, twin.optimizer)
                if state.keys() & self.tensors.keys():
                    expected |= {key: torch.as_tensor(value) for key, value in state.items()}
        return expected

    def load(self) -> None:
        """Put the saved state into the optimizers of the run."""
        for player, descent in self.descents.items():
            twin = self.twins[player]
            for name, parameter in descent.parameters.items():
                if _state(player, name, twin.parameters[name], twin.optimizer).keys() & self.tensors.keys():
                    kept = twin.optimizer.state[twin.parameters[name]]
                    restored = {key: self._restored(f"{_prefix(player, name)}{key}", kept[key]) for key in kept}
                    descent.optimizer.state[parameter] = restored
            for group, saved in zip(descent.optimizer.param_groups, self.groups[player], strict=True):
                group.update({option: _like(group[option], value) for option, value in saved.items()})

    def _restored(self, name: str, template: Any) -> Any:
        """The saved value as the optimizer keeps it: in the memory format of its parameter, or as a number."""
        if name not in self.tensors:
            return template
        if isinstance(template, Tensor):
            return torch.empty_like(template).copy_(self.tensors[name])
        return type(template)(self.tensors[name].item())


def _prefix(player: str, parameter: str) -> str:
    return f"optimizer/{player}:{parameter}:"


def _state(player: str, name: str, parameter: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The tensors and numbers that an optimizer keeps for one parameter, by their names in the checkpoint."""
    kept = optimizer.state.get(parameter, {})
    return {
        f"{_prefix(player, name)}{key}": value
        for key, value in kept.items()
        if isinstance(value, Tensor | int | float | bool)
    }


def _twin_after_one_step(descent: Descent) -> Descent:
    twins = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in descent.parameters.items()}
    optimizer = descent.player.optimizer(list(twins.values()))
    if not {id(p) for group in optimizer.param_groups for p in group["params"]} <= set(map(id, twins.values())):
        raise ContractError(
            f"expected the optimizer factory of player {descent.player.name!r} to use the parameters that it is called "
            "with, got others; write lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
        )
    for twin in twins.values():
        twin.grad = torch.zeros_like(twin)
    optimizer.step()
    return Descent(descent.player, twins, optimizer, [])


def _check_groups(player: str, saved: Any, ours: list[Options], path: Path) -> None:
    """Raise CheckpointError unless the groups have the same options, with values of the same types."""
    theirs = saved if isinstance(saved, list) and all(isinstance(group, dict) for group in saved) else []
    if _kinds(theirs) != _kinds(ours):
        raise CheckpointError(
            f"expected {path} to hold the optimizer of player {player!r} with groups {ours}, got {saved}; nothing was "
            "loaded. Resume with the same optimizer"
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item()
    return list(map(_plain, value)) if isinstance(value, tuple | list) else value


def _kinds(groups: list[Options]) -> list[Options]:
    return [{name: _kind(value) for name, value in group.items()} for group in groups]


def _kind(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_kind, value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return ("number" if math.isfinite(value) else repr(value)) if number else type(value).__name__


def _like(template: Any, value: Any) -> Any:
    """A value from JSON in the type that the group has."""
    if isinstance(template, Tensor):
        return template.fill_(value)
    return tuple(value) if isinstance(template, tuple) else value

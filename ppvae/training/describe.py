"""The settings of a run as JSON: what must be equal for a run to be resumed."""

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from enum import Enum
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppvae.data import Dataset, LazyImages
from ppvae.data.lazy import spread
from ppvae.engine.player import Player
from ppvae.training.backends import Descent
from ppvae.training.moments import group_options
from ppvae.training.optimizers import schedule_of

SCHEDULE_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
_PYROS_OWN = {"max_plate_nesting", "ignore_jit_warnings", "strict_enumeration_warning", "jit_options", "retain_graph"}
_DEPTH = 8


def describe(value: Any, depth: int = 0) -> Any:
    """A setting as JSON. Equal settings have equal descriptions, in another process too; nothing is called.

    numpy's and torch's scalars are numbers. An array is a digest. A network is its class, its shapes and, for tensors
    that do not learn, a digest. A function is its name and a digest of its code, constants and closure. Any other
    object is its class and its public attributes, or its repr if it has none.

    Example:

        >>> import ppvae
        >>> describe([np.int64(5), ppvae.warm_up(10)])
        [5, {'class': 'Ramp', 'start': 0.0, 'end': 1.0, 'steps': 10}]
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, Tensor | np.ndarray):
        return digest(torch.as_tensor(value))
    if depth > _DEPTH:
        return type(value).__name__
    return _describe_compound(value, partial(describe, depth=depth + 1))


def _describe_compound(value: Any, inner: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): inner(part) for name, part in value.items()}
    if isinstance(value, Set):
        return sorted(map(repr, map(inner, value)))
    if isinstance(value, list | tuple):
        return list(map(inner, value))
    if isinstance(value, nn.Module):
        return {"class": type(value).__name__, "tensors": _describe_tensors(value)}
    if isinstance(value, partial):
        return {"partial": inner(value.func), "args": inner(value.args), "keywords": inner(value.keywords)}
    if isinstance(value, FunctionType):
        return {"function": value.__qualname__, "code": _digest_of_code(value, inner)}
    if isinstance(value, MethodType):
        return {"method": value.__func__.__qualname__, "of": inner(value.__self__)}
    if isinstance(value, Player):
        return {"player": value.name, "every": value.every}  # its module is in the checkpoint
    if isinstance(value, type | Path | Enum | torch.dtype | torch.device):
        return str(value)
    return _describe_object(value, inner)


def _describe_object(value: Any, inner: Callable[[Any], Any]) -> Any:
    attributes = {n: v for n, v in getattr(value, "__dict__", {}).items() if n[0] != "_" and n not in _PYROS_OWN}
    if not attributes and " at 0x" not in repr(value):
        return repr(value)
    return {"class": type(value).__name__, **{name: inner(attribute) for name, attribute in attributes.items()}}


def _describe_tensors(module: nn.Module) -> list[str]:
    """Names and shapes of learned parameters, digests of frozen ones; of a module that learns nothing buffers too."""
    parameters = dict(module.named_parameters())
    learns = any(parameter.requires_grad for parameter in parameters.values())
    fixed = {} if learns else dict(module.named_buffers())
    return [
        f"{name} {tuple(tensor.shape) if tensor.requires_grad else digest(tensor)}"
        for name, tensor in {**parameters, **fixed}.items()
    ]


def _digest_of_code(function: FunctionType, inner: Callable[[Any], Any]) -> str:
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell.cell_contents is not function]
    described = [_code(function.__code__), inner(cells), inner(function.__defaults__), inner(function.__kwdefaults__)]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]


def _code(code: CodeType) -> list[Any]:
    return [code.co_code.hex(), code.co_names, [_constant(part) for part in code.co_consts]]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def describe_players(descents: Mapping[str, Descent], epoch: int) -> list[dict[str, Any]]:
    """The optimizer of each player: its class, its groups, and its schedule by some of its values.

    Args:
        descents: of the run.
        epoch: steps of an epoch; a schedule is read at its multiples as well.

    Example:

        >>> from ppvae.training.backends import Eager
        >>> line, backend = nn.Linear(1, 1), Eager("cpu")
        >>> backend.prepare([Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)])
        >>> describe_players(backend.descents, epoch=10)[0]["optimizer"]
        'Adam'
    """
    return [
        {
            "player": name,
            "module": type(descent.player.module).__name__,
            "every": descent.player.every,
            "optimizer": type(descent.optimizer).__name__,
            "groups": _groups(descent),
            "schedule": _describe_schedule(schedule_of(descent.player.optimizer), epoch),
        }
        for name, descent in descents.items()
    ]


def _groups(descent: Descent) -> list[dict[str, Any]]:
    """Options of each group and, where there are several, the names of its parameters."""
    groups, names = group_options(descent.optimizer), {id(p): name for name, p in descent.parameters.items()}
    if len(groups) > 1:
        for group, listed in zip(groups, descent.optimizer.param_groups, strict=True):
            group["parameters"] = [names.get(id(parameter), "another") for parameter in listed["params"]]
    return groups


def _describe_schedule(schedule: Callable[[int], float] | None, epoch: int) -> list[float] | None:
    steps = sorted({*SCHEDULE_STEPS, *(epoch * number for number in (1, 2, 5))})
    return None if schedule is None else [float(schedule(step)) for step in steps]


def describe_data(data: Dataset) -> dict[str, Any]:
    """The name, the columns and a digest of each.

    Example:

        >>> described = describe_data(Dataset(torch.zeros(8, 2), name="zeros"))
        >>> described["data"], described["rows"], described["known_labels"]
        ('zeros', 8, 0)
    """
    return {
        "data": data.name,
        "rows": len(data),
        "x": digest(data.x),
        "labels": None if data.y is None else digest(data.y),
        "known_labels": len(data.rows_by_label()[0]),
        "given": {name: digest(column) for name, column in data.given.items()},
        "binarization": data.binarization,
        "levels": data.levels,
    }


def digest_of_module(module: nn.Module) -> str:
    """A digest of all parameters and buffers.

    Example:

        >>> digest_of_module(nn.Linear(1, 1)) == digest_of_module(nn.Linear(1, 1))
        False
    """
    tensors: Sequence[Tensor] = [tensor for tensor in module.state_dict().values() if isinstance(tensor, Tensor)]
    return hashlib.sha256("".join(map(digest, tensors)).encode()).hexdigest()[:16]


def digest(x: Tensor | LazyImages) -> str:
    """A digest of type, shape and values; of images made or read when they are indexed, of rows spread over all.

    Example:

        >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(torch.zeros(2)) == digest(torch.zeros(3))
        (True, False)
    """
    tensor = x[spread(x)] if isinstance(x, LazyImages) else x
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    of_form = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return hashlib.sha256(of_form + flat.numpy().tobytes()).hexdigest()[:16]

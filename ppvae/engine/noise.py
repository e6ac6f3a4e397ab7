"""Running a guide twice with the same noise.

Some estimators score the guide's draws a second time, under the noise (dropout, random views) of the first run. The
first run records every random tensor, the second one takes them in the same order. No state of a random generator is
read or set, so that a step can be traced and captured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ppvae.errors import ContractError


class Noise:
    """The random tensors of one run, in order.

    Example:

        >>> import torch
        >>> noise = Noise()
        >>> with noise.recorded():
        ...     first = torch.rand(3)
        >>> with noise.replayed():
        ...     second = torch.rand(3)
        >>> torch.equal(first, second)
        True
    """

    def __init__(self) -> None:
        self._outputs: list[tuple[Any, Any]] = []  # of each random operation: itself, and what it gave

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep what each random operation gives."""
        self._outputs.clear()
        with _Record(self._outputs):
            yield

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Make each random operation return its recorded result.

        Raises:
            ContractError: the run has other random operations than the recorded one.
        """
        outputs = iter(self._outputs)
        with _Replay(outputs):
            yield
        if next(outputs, None) is not None:
            raise ContractError(
                "expected a guide that draws the same random numbers in each run, got one that drew fewer in the "
                "second; let nothing but its arguments decide what it draws"
            )


def _is_random(function: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in function.tags


def _is_in_place(function: Any) -> bool:
    return function._schema.is_mutable


def _copy(output: Any) -> Any:
    """The same numbers in tensors of their own, which no in-place operation of the caller changes."""
    return tree_map_only(Tensor, torch.clone, output)


class _Record(TorchDispatchMode):
    def __init__(self, outputs: list[tuple[Any, Any]]):
        super().__init__()
        self.outputs = outputs

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if _is_random(function):
            self.outputs.append((function, _copy(output)))
        return output


class _Replay(TorchDispatchMode):
    def __init__(self, outputs: Iterator[tuple[Any, Any]]):
        super().__init__()
        self.outputs = outputs

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _is_random(function):
            return function(*args, **(kwargs or {}))
        recorded, output = next(self.outputs, (None, None))
        if recorded is not function:
            raise ContractError(
                "expected a guide that draws the same random tensors in the same order when it is run again on the "
                f"same data, got {function} in place of {recorded or 'none'}; let what it draws depend on x and its "
                "parameters alone"
            )
        if not _is_in_place(function):
            return _copy(output)
        target: Any = (kwargs or {}).get("out", args[0] if args else None)
        return target.copy_(output)

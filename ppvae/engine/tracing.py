"""Running a model or a guide once, as far as it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from pyro import poutine
from pyro.distributions.distribution import Distribution
from pyro.infer import config_enumerate
from pyro.poutine.indep_messenger import _DIM_ALLOCATOR
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import ContractError

LABEL = "y"
OBSERVED = "x"
PARTICLE_DIM = -2
PARTICLE_PLATE = "particles"


def trace(fn, x: Tensor, y: Tensor | None, num_particles: int):
    """A Pyro trace of ``fn(x, y)`` with its particles at dim -2."""
    with pyro.plate(PARTICLE_PLATE, num_particles, dim=PARTICLE_DIM):
        return poutine.trace(fn).get_trace(x, y)


def trace_enumerated(guide, x: Tensor, y: Tensor | None, num_particles: int):
    """:func:`trace`, with every discrete site running over all its values, left of the particles."""
    enumerated = config_enumerate(guide, default="parallel")
    return trace(poutine.enum(enumerated, first_available_dim=PARTICLE_DIM - 1), x, y, num_particles)


@contextmanager
def apart_from_handlers() -> Iterator[None]:
    """Run a pair within the run of another: no handler outside sees it, and its plates are free to be opened again."""
    stack, _DIM_ALLOCATOR._stack = _DIM_ALLOCATOR._stack, []
    try:
        with poutine.block():
            yield
    finally:
        _DIM_ALLOCATOR._stack = stack


def distribution_at(guide, name: str, x: Tensor, y: Tensor | None = None) -> Distribution:
    """The distribution at one site of a guide (or a model), q(name | x); it is run no further than there.

    Batch shape (B,). Raises ContractError if there is no such site.
    """
    try:
        with _StopAt(name):
            guide(x, y)
    except _Reached as reached:
        return reached.distribution
    given = "without labels" if y is None else "with labels"
    raise ContractError(
        f"expected a guide that draws site {name!r} when it is called {given}; it draws none. For labels, add "
        '`pyro.sample("y", Categorical(...))` where none are given, or use an objective that needs no labels'
    )


def mark_known(y: Tensor) -> Tensor:
    """Note on a tensor of labels that all are known, so that no step need ask the device (and wait for it)."""
    y.ppvae_all_known = True
    return y


def all_known(y: Tensor) -> bool:
    return getattr(y, "ppvae_all_known", False) or bool((y >= 0).all())


def require_classes(y: Tensor, classes: int) -> None:
    """Raise ContractError unless every label is one of the classes, or -1."""
    if y.min() < -1 or y.max() >= classes:
        raise ContractError(
            f"expected labels from 0 to {classes - 1}, or -1 where unknown, got {int(y.min())} to {int(y.max())}"
        )


class _Reached(Exception):
    def __init__(self, distribution: Distribution):
        self.distribution = distribution


class _StopAt(Messenger):
    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def _pyro_sample(self, msg) -> None:
        if msg["name"] == self.name:
            raise _Reached(msg["fn"])

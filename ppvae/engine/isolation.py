"""Running Pyro modules without Pyro's global parameter store.

Stock Pyro files each parameter of a PyroModule in one global store, under a name made of attribute
names. Two modules of one class, or a model and a guide which both call an attribute ``net``, share those
names, and one silently takes the other's parameters. Inside :func:`isolated` parameters are read from
the modules alone.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.nn.module import _Context
from torch import nn
from torch.func import functional_call

SEEDS = 2**63  # of torch's generators
_LOCK = threading.RLock()  # Pyro's handlers, store and settings belong to the process, not to a thread


@contextmanager
def isolated() -> Iterator[None]:
    """Read the parameters of modules from themselves; leave the global store as it was.

    One thread at a time: another thread that enters waits, because Pyro's state is global.

    Example:

        >>> from pyro.nn import PyroModule, PyroParam
        >>> module = PyroModule()
        >>> module.weight = PyroParam(torch.ones(2))
        >>> before = len(pyro.get_param_store())
        >>> with isolated():
        ...     _ = module.weight
        >>> len(pyro.get_param_store()) == before
        True
    """
    with _LOCK, pyro.settings.context(module_local_params=True), pyro.get_param_store().scope():
        yield


def _local_state(context: Any, name: str) -> Any:
    """The empty state that Pyro's local mode expects of a module, made when it is first read.

    Pyro makes it for modules that are built in that mode. Here any module may be run in it, also one that a function
    calls (``pyro.poutine.mask(model, mask)``) and that cannot be found beforehand.
    """
    if name != "param_state":
        raise AttributeError(name)
    context.param_state = {"params": {}, "constraints": {}}
    return context.param_state


_Context.__getattr__ = _local_state  # type: ignore[attr-defined]


def with_partners(module: Any) -> Iterator[nn.Module]:
    """All parts of a module, and those of modules that it holds without registering them (its ``partners``).

    Example:

        >>> [type(part).__name__ for part in with_partners(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))]
        ['Sequential', 'Linear', 'ReLU']
    """
    seen: set[int] = set()
    waiting = [module] if isinstance(module, nn.Module) else []
    while waiting:
        for part in waiting.pop().modules():
            if id(part) not in seen:
                seen.add(id(part))
                waiting += getattr(part, "partners", ())
                yield part


@contextmanager
def modes_restored(*modules: Any) -> Iterator[None]:
    """Put every part of the modules back in the mode, training or evaluation, that it was in.

    Example:

        >>> module = nn.Dropout()
        >>> with modes_restored(module):
        ...     _ = module.eval()
        >>> module.training
        True
    """
    training = [(part, part.training) for module in _modules(modules) for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in training:
            part.training = mode


@contextmanager
def evaluating(*modules: Any) -> Iterator[None]:
    """Put modules in evaluation mode (dropout off, running batch statistics) and back again.

    Example:

        >>> module = nn.Dropout()
        >>> with evaluating(module):
        ...     module.training
        False
    """
    with modes_restored(*modules):
        for module in _modules(modules):
            module.eval()
        yield


def _modules(candidates: tuple[Any, ...]) -> list[nn.Module]:
    return [candidate for candidate in candidates if isinstance(candidate, nn.Module)]


@contextmanager
def forked_randomness(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Use separate random numbers, from ``seed`` if one is given; the caller's random state is restored.

    Example:

        >>> before = torch.get_rng_state()
        >>> with forked_randomness(torch.device("cpu"), seed=0):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        if seed is not None:
            torch.default_generator.manual_seed(
                int(seed) % SEEDS
            )  # torch.manual_seed would reseed every other device too
        if seed is not None and on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(int(seed) % SEEDS)
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Compute without gradient with respect to the module's parameters.

    Example:

        >>> line = nn.Linear(1, 1)
        >>> with frozen(line):
        ...     line(torch.ones(1)).requires_grad
        False
    """
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad_(False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* because requires_grad=False")  # Pyro's store warns for each
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def with_own_statistics(module: Any) -> Callable[..., Any]:
    """The model or guide with copies of its buffers, so that batch statistics move once a step and not once a run.

    Example:

        >>> norm = nn.BatchNorm1d(2)
        >>> _ = with_own_statistics(norm)(torch.ones(3, 2))
        >>> norm.running_mean
        tensor([0., 0.])
    """
    statistics = {name: buffer.clone() for part in _modules((module,)) for name, buffer in part.named_buffers()}
    return (lambda *args, **given: functional_call(module, statistics, args, given)) if statistics else module


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Let a CPU take numbers below 1e-38 for 0.

    Arithmetic with such numbers is slow. Most gradients of a classifier that fits its labels exactly are as small.

    Example:

        >>> with denormals_flushed():
        ...     small = torch.full((1,), 1e-30) * 1e-10
        >>> torch.zeros(1).equal(small)
        True
    """
    before = _flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_denormals() -> bool:
    return (torch.full((1,), 1e-30) * 1e-10).item() == 0


@contextmanager
def evaluation_mode(*modules: Any, device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Run modules in evaluation mode and without gradients.

    The global parameter store, the modules' statistics and the caller's random state stay as they were.

    Example:

        >>> module = nn.Linear(1, 1)
        >>> with evaluation_mode(module, device=torch.device("cpu"), seed=0):
        ...     module.training, module(torch.ones(1)).requires_grad
        (False, False)
    """
    with torch.no_grad(), isolated(), evaluating(*modules), forked_randomness(device, seed):
        yield

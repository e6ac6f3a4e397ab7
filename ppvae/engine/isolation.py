"""Running Pyro modules without Pyro's global parameter store.

Stock Pyro files each parameter of a PyroModule in one global store, under a name made of attribute
names. Two modules of one class, or a model and a guide which both call an attribute ``net``, share those
names, and one silently takes the other's parameters. Inside :func:`isolated` parameters are read from
the modules alone.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn


@contextmanager
def isolated(*modules) -> Iterator[None]:
    """Read the parameters of ``modules`` from themselves; leave the global store as it was."""
    for module in modules:
        _allow_local_parameters(module)
    with pyro.settings.context(module_local_params=True), pyro.get_param_store().scope():
        yield


def _allow_local_parameters(module) -> None:
    """Give a PyroModule made in Pyro's default mode the (empty) state that its local mode expects."""
    if not isinstance(module, PyroModule):
        return
    for part in module.modules():
        if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
            part._pyro_context.param_state = {"params": {}, "constraints": {}}


@contextmanager
def modes_restored(*modules: nn.Module) -> Iterator[None]:
    """Put every part of the modules back in the mode, training or evaluation, that it was in."""
    training = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in training:
            part.training = mode


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in evaluation mode (dropout off, running batch statistics) and back again."""
    with modes_restored(*modules):
        for module in modules:
            module.eval()
        yield


@contextmanager
def forked_randomness(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Random numbers of one's own, from ``seed`` if one is given; the caller's state is put back."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every other device too
        if seed is not None and on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let no gradient into the module's parameters from what is computed inside."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad_(False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* because requires_grad=False")  # of Pyro's store, which has them
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Let a CPU take numbers below 1e-38 for 0: the gradients of a classifier that knows its labels by heart are full
    of them, and arithmetic with them is slow."""
    before = _flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_denormals() -> bool:
    return (torch.full((1,), 1e-30) * 1e-10).item() == 0


@dataclass(frozen=True)
class RandomState:
    """A state of torch's generators of one device (and of the CPU), to draw the same numbers once more."""

    device: torch.device
    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def of(cls, device: torch.device) -> "RandomState":
        on_cuda = device.type == "cuda"
        return cls(device, torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_cuda else None)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw from this state; the caller's own state is put back."""
        with forked_randomness(self.device):
            torch.default_generator.set_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield


@contextmanager
def evaluation_mode(*modules: nn.Module, device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Run modules in evaluation mode and without gradients, and leave no trace: not in the global parameter store,
    not in their statistics, not in the caller's random state."""
    with torch.no_grad(), evaluating(*modules), isolated(*modules), forked_randomness(device, seed):
        yield

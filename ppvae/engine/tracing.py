"""Running a model or a guide once, and reading its sample sites."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import config_enumerate
from pyro.poutine.indep_messenger import _DIM_ALLOCATOR
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.errors import ContractError

OBSERVED = "x"
LABEL = "y"  # the site of a batch's labels
PARTICLE_DIM = -2
PARTICLE_PLATE = "particles"
PLATE = "data"

Call = tuple[tuple[Any, ...], Mapping[str, Tensor]]  # what a model or a guide is called with


def arguments(function: Any, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """What a model or a guide is called with: (x, label), and those of the batch's conditions that it names.

    Example:

        >>> batch = Batch(torch.zeros(3, 2), given={"c": torch.zeros(3), "d": torch.zeros(3)})
        >>> positional, given = arguments(lambda x, y=None, c=None: None, batch)
        >>> len(positional), list(given)
        (2, ['c'])
    """
    if not batch.given:
        return (batch.x, batch.label), {}
    names = conditions_of(function)
    given = {name: value for name, value in batch.given.items() if names is None or name in names}
    return (batch.x, batch.label), given


def conditions_of(function: Any) -> frozenset[str] | None:
    """The conditions that a model or a guide names after x and y; None if it takes any (``**given``).

    Example:

        >>> conditions_of(lambda x, y=None, c=None: None), conditions_of(lambda x, y=None, **given: None)
        (frozenset({'c'}), None)
    """
    parameters = _after_y(function)
    if parameters is None or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def required_conditions_of(function: Any) -> frozenset[str]:
    """The conditions that have no default.

    Example:

        >>> required_conditions_of(lambda x, y, c, d=None: None)
        frozenset({'c'})
    """
    parameters = [each for each in _after_y(function) or [] if each.kind is not each.VAR_KEYWORD]
    return frozenset(each.name for each in parameters if each.default is each.empty)


def _after_y(function: Any) -> list[inspect.Parameter] | None:
    """The parameters after x and y that can be given by name; None where the signature is hidden."""
    try:
        parameters = list(signature_of(function).parameters.values())
    except (TypeError, ValueError):
        return None
    by_place = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return [each for each in parameters if each not in by_place[:2] and each.kind is not each.VAR_POSITIONAL]


def signature_of(function: Any) -> inspect.Signature:
    """The signature that names the conditions: that of the function, or of a module's ``forward``, or what the
    attribute ``conditions_named_by`` of that forward returns for the module: a function or a signature.

    Example:

        >>> str(signature_of(lambda x, y=None, c=None: None))
        '(x, y=None, c=None)'
    """
    function = getattr(function, "_orig_mod", function)  # torch.compile hides the signature
    forward = function.forward if isinstance(function, nn.Module) else function
    naming = getattr(forward, "conditions_named_by", lambda _: forward)(function)
    return naming if isinstance(naming, inspect.Signature) else inspect.signature(naming)


def trace(function: Any, call: Call, num_particles: int) -> poutine.Trace:
    """A Pyro trace of ``function`` with its particles at dim -2; ``call`` is what :func:`arguments` gives.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> trace(model, arguments(model, Batch(torch.zeros(3, 2))), num_particles=5).nodes["z"]["value"].shape
        torch.Size([5, 3, 2])
    """
    positional, given = call
    with pyro.plate(PARTICLE_PLATE, num_particles, dim=PARTICLE_DIM):
        return poutine.trace(function).get_trace(*positional, **given)


def trace_enumerated(guide: Any, call: Call, num_particles: int) -> poutine.Trace:
    """:func:`trace`, with every discrete site running over all its values, left of the particles.

    Example:

        >>> def guide(x, y=None):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("y", pyro.distributions.Categorical(torch.ones(4)))
        >>> traced = trace_enumerated(guide, arguments(guide, Batch(torch.zeros(3, 2))), num_particles=5)
        >>> traced.nodes["y"]["value"].flatten()
        tensor([0, 1, 2, 3])
    """
    enumerated = config_enumerate(guide, default="parallel")
    return trace(poutine.enum(enumerated, first_available_dim=PARTICLE_DIM - 1), call, num_particles)


def sample_nodes(traced: poutine.Trace) -> dict[str, Any]:
    """The sample statements of a Pyro trace by name, without subsampling and ``pyro.deterministic``.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> sorted(sample_nodes(trace(model, arguments(model, Batch(torch.zeros(3, 2))), num_particles=5)))
        ['x', 'z']
    """
    return {
        name: node
        for name, node in traced.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node) and not (node["infer"] or {}).get("_deterministic")
    }


def check_site(role: str, name: str, node: Any, num_particles: int, batch_size: int) -> None:
    """Raise ContractError unless a site stands in the one plate of the data, unscaled and not subsampled.

    It compares only Python numbers, which is cheap enough for every replay.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> traced = trace(model, arguments(model, Batch(torch.zeros(3, 2))), num_particles=5)
        >>> check_site("model", "z", traced.nodes["z"], num_particles=5, batch_size=3)
    """
    frames = {frame.name: frame for frame in node["cond_indep_stack"]}
    data, particles = frames.get(PLATE), frames.get(PARTICLE_PLATE)
    in_place = (
        len(frames) == 2
        and data is not None
        and (data.dim, data.size, data.full_size or data.size) == (-1, batch_size, batch_size)
        and particles is not None
        and (particles.dim, particles.size) == (PARTICLE_DIM, num_particles)
    )
    if not in_place:
        got = [
            f"{f.name!r} of size {f.size}{'' if f.full_size in (None, f.size) else f' of {f.full_size}'} at dim {f.dim}"
            for f in frames.values()
            if f.name != PARTICLE_PLATE
        ]
        raise ContractError(
            f'expected {role} site {name!r} in the one plate "{PLATE}" of size {batch_size} at dim -1, got '
            f'{", ".join(got) or "no plate"}; write `with pyro.plate("{PLATE}", len(x)):`, without subsampling'
        )
    if not isinstance(node["scale"], int | float) or node["scale"] != 1:
        raise ContractError(
            f"expected {role} site {name!r} without a scale, got {node['scale']}; a scale makes a multi-sample bound "
            "invalid. Weigh the KL by KLWeight(...); fit divides by the batch size itself"
        )


@contextmanager
def apart_from_handlers() -> Iterator[None]:
    """Run a pair within the run of another: outer handlers do not apply, and plates can be opened again.

    Example:

        >>> def inner():
        ...     with pyro.plate("data", 3):
        ...         return pyro.sample("z", pyro.distributions.Normal(0.0, 1.0)).shape
        >>> with pyro.plate("data", 5), apart_from_handlers():
        ...     inner()
        torch.Size([3])
    """
    stack, _DIM_ALLOCATOR._stack = _DIM_ALLOCATOR._stack, []
    try:
        with poutine.block():
            yield
    finally:
        _DIM_ALLOCATOR._stack = stack


def distribution_at(
    function: Any, name: str, batch: Batch, call: Call | None = None, num_draws: int | None = None
) -> TorchDistribution:
    """The distribution at one site of a guide or a model, batch shape (B,). It is run no further than there.

    Args:
        function: the guide or the model.
        name: of the site.
        batch: B data.
        call: what it is called with; by default that of the batch.
        num_draws: of the latents before the site. Where the distribution depends on one of them, its batch shape is
            (num_draws, B). If None they are drawn once.

    Raises:
        ContractError: there is no such site.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> distribution_at(model, "x", Batch(torch.zeros(3, 2))).event_shape
        torch.Size([2])
    """
    positional, given = arguments(function, batch) if call is None else call
    draws = nullcontext() if num_draws is None else pyro.plate(PARTICLE_PLATE, num_draws, dim=PARTICLE_DIM)
    try:
        with draws, _StopAt(name):
            function(*positional, **given)
    except _Reached as reached:
        return reached.distribution
    labels = "without labels" if batch.label is None else "with labels"
    raise ContractError(
        f"expected a guide that draws site {name!r} when it is called {labels}, but it does not. For labels, add "
        '`pyro.sample("y", Categorical(...))` where none are given, or use an objective that needs no labels'
    )


class At(Messenger):
    """Sites take given values.

    Args:
        values: by name.
        draw: draw each site as well, so that the same random numbers are used as in the first run.

    Example:

        >>> with At({"z": torch.tensor(2.0)}):
        ...     pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        tensor(2.)
    """

    def __init__(self, values: Mapping[str, Tensor], draw: bool = False):
        super().__init__()
        self.values, self.draw = values, draw

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            if self.draw:
                with torch.no_grad():
                    msg["fn"]()
            msg["value"], msg["done"] = self.values[msg["name"]], True


class Unobserve(Messenger):
    """Draw sites that the model observes; other observations stay.

    Example:

        >>> with Unobserve("x"):
        ...     value = pyro.sample("x", pyro.distributions.Normal(0.0, 1.0), obs=torch.tensor(2.0))
        >>> value.item() == 2.0
        False
    """

    def __init__(self, *names: str):
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names and msg["is_observed"]:
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


class _Reached(Exception):
    def __init__(self, distribution: TorchDistribution):
        self.distribution = distribution


class _StopAt(Messenger):
    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.name:
            raise _Reached(msg["fn"])

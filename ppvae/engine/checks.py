"""The single checks behind :func:`ppvae.check_pair`: each finds one way in which a pair can be wrong."""

import warnings
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import nn

from ppvae.distributions.implicit import has_density
from ppvae.engine.batch import Batch
from ppvae.engine.isolation import with_partners
from ppvae.engine.remedies import remedy
from ppvae.engine.requirements import DRAWS_GIVEN_LABEL, require_same_latents, require_some_latents
from ppvae.engine.supports import require_density
from ppvae.engine.tracing import (
    LABEL,
    OBSERVED,
    PARTICLE_DIM,
    At,
    arguments,
    check_site,
    sample_nodes,
    trace,
    trace_enumerated,
)
from ppvae.errors import ContractError

CHECKED_PARTICLES = 2  # a network that cannot take leading dimensions fails with two


def check_modules(*modules: Any) -> None:
    """Raise ContractError unless each is a module that amortizes.

    Example:

        >>> check_modules(nn.Linear(1, 1))
        >>> check_modules(nn.Linear)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected model and guide to be PyroModules...
    """
    for module in modules:
        if not isinstance(module, nn.Module):
            raise ContractError(
                f"expected model and guide to be PyroModules (their parameters are trained), got {_kind(module)}"
            )
        if isinstance(module, AutoGuide):
            raise ContractError(
                f"expected an amortized guide, a function of x, got {type(module).__name__}, which learns one "
                "posterior for fixed rows; use a guide of ppvae.guides, or derive one from ppvae.Guide"
            )


def _kind(value: Any) -> str:
    return f"the class {value.__name__} itself; make an instance" if isinstance(value, type) else type(value).__name__


def check_parameters(model: nn.Module, guide: nn.Module) -> None:
    """Raise ContractError unless both have parameters of their own.

    Example:

        >>> check_parameters(nn.Linear(1, 1), nn.Linear(1, 1))
    """
    in_model = {id(p): name for name, p in model.named_parameters()}
    for name, parameter in guide.named_parameters():
        if id(parameter) in in_model:
            raise ContractError(
                f"expected model and guide to share no parameter, got the guide's {name!r} which is the "
                f"model's {in_model[id(parameter)]!r}; give the guide a network of its own"
            )
    shared = _global_names(model) & _global_names(guide)
    if shared:
        warnings.warn(
            f"model and guide both name a parameter {sorted(shared)[0]!r} in Pyro's global store: ppvae keeps "
            "them apart, a stock SVI loop does not. Derive from ppvae.Model and ppvae.Guide, or rename one",
            stacklevel=4,
        )


def _global_names(module: nn.Module) -> set[str]:
    prefix = getattr(module, "_pyro_name", "")
    return {f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()}


def check_partners(model: nn.Module, guide: nn.Module) -> None:
    """Raise ContractError where one holds a copy of the other (a VampPrior its guide, Refined its model).

    Example:

        >>> check_partners(nn.Linear(1, 1), nn.Linear(1, 1))
    """
    inside = {id(part) for module in (model, guide) for part in module.modules()}
    for role, module in (("model", model), ("guide", guide)):
        for part in module.modules():
            for partner in getattr(part, "partners", ()):
                if id(partner) not in inside:
                    raise ContractError(
                        f"expected the {type(partner).__name__} that the {role}'s {type(part).__name__} holds to "
                        "belong to this pair, got another object, which never trains. Copy model and guide together, "
                        "copy.deepcopy((model, guide)), or build them anew"
                    )


def run(role: str, function: Any, batch: Batch, replayed: poutine.Trace | None = None) -> poutine.Trace:
    """A trace with two particles. Raises ContractError, with the first line of the error, where it fails.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> traced = run("model", LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2)))
        >>> sorted(sample_nodes(traced))
        ['x', 'z']
    """
    call = arguments(function, batch)
    try:
        if replayed is None:
            traced = trace_enumerated(function, call, CHECKED_PARTICLES)
        else:
            traced = trace(poutine.replay(function, trace=replayed), call, CHECKED_PARTICLES)
    except ContractError:
        raise
    except Exception as error:
        labels = "without labels" if batch.label is None else f"with labels of shape {tuple(batch.label.shape)}"
        raise ContractError(
            f"the {role} failed on x of shape {tuple(batch.x.shape)} {labels}, with particles at dim {PARTICLE_DIM}: "
            f"{type(error).__name__}: {_first_line(error)}. {remedy(role, function, batch, error)}"
        ) from error
    _check_owned(role, function, traced)
    return traced


def _check_owned(role: str, function: nn.Module, traced: poutine.Trace) -> None:
    owned = {id(parameter) for part in with_partners(function) for parameter in part.parameters()}
    for name, node in traced.nodes.items():
        if node["type"] == "param" and not _owns(node["value"], owned):
            raise ContractError(
                f"expected every parameter of the {role} to belong to the module, got pyro.param({name!r}); "
                "make it an nn.Parameter or a PyroParam of the module"
            )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")


def _owns(value: Any, owned: set[int]) -> bool:
    unconstrained = value.unconstrained() if hasattr(value, "unconstrained") else value
    return id(unconstrained) in owned or id(value) in owned


def check_guide_sites(traced: poutine.Trace, label_given: bool) -> None:
    """Raise ContractError where the guide observes, or draws a label that it was given.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> traced = run("guide", MeanFieldGaussian(nn.Linear(2, 4)), Batch(torch.zeros(3, 2)))
        >>> check_guide_sites(traced, label_given=False)
    """
    for name, node in sample_nodes(traced).items():
        if name == LABEL and label_given and not node["is_observed"]:
            raise ContractError(DRAWS_GIVEN_LABEL)
        if name == LABEL and node["fn"].event_shape:
            raise ContractError(
                f'expected site "{LABEL}" to be a class index, got {node["fn"]}; use Categorical, not OneHotCategorical'
            )
        if node["is_observed"]:
            raise ContractError(
                f"expected the guide to observe nothing, got site {name!r} with obs=; a guide that is given "
                "a label conditions on it without a sample statement"
            )


def check_observes(traced: poutine.Trace) -> None:
    """Raise ContractError unless the model observes x.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> check_observes(run("model", LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))))
    """
    nodes = sample_nodes(traced)
    if OBSERVED not in nodes or not nodes[OBSERVED]["is_observed"]:
        raise ContractError(
            f'expected the model to observe site "{OBSERVED}", got sites {sorted(nodes)}; '
            f'write pyro.sample("{OBSERVED}", ..., obs=x)'
        )


def likelihood_of(model: nn.Module, batch: Batch) -> Any:
    """p(x | z) of the first datum at a draw of the prior. Raises ContractError where the model fails or has none.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> likelihood_of(LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))).event_shape
        torch.Size([2])
    """
    traced = run("model", model, batch.rows(slice(0, 1)))
    check_observes(traced)
    return traced.nodes[OBSERVED]["fn"]


def check_match(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Raise ContractError unless model and guide have the same latents, over the same spaces.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> batch = Batch(torch.zeros(3, 2))
        >>> model_trace = run("model", LinearGaussian(torch.eye(2), torch.zeros(2)), batch)
        >>> check_match(model_trace, run("guide", MeanFieldGaussian(nn.Linear(2, 4)), batch))
    """
    model_nodes, guide_nodes = sample_nodes(model_trace), sample_nodes(guide_trace)
    latents = {name for name, node in model_nodes.items() if not node["is_observed"]}
    require_same_latents(latents, set(guide_nodes))
    for name in latents:
        p, q = model_nodes[name]["fn"], guide_nodes[name]["fn"]
        _check_same_event_shape(name, p, q)
        if not p.support.check(guide_nodes[name]["value"]).all():
            raise ContractError(
                f"the guide draws values of site {name!r} (support {q.support}) outside the prior's support "
                f"({p.support}); choose a guide distribution on the same space"
            )


def check_recognises(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Raise ContractError unless the guide of an implicit model can score some of its latents, at all of their values.

    Example:

        >>> from ppvae.guides import RecognitionGuide
        >>> from ppvae.models import ImplicitModel
        >>> model, guide = ImplicitModel(nn.Linear(5, 2), 0, 3, 2), RecognitionGuide(nn.Linear(2, 3), num_codes=3)
        >>> batch = Batch(torch.zeros(3, 2))
        >>> check_recognises(run("model", model, batch), run("guide", guide, batch))
    """
    latents = {name: node["fn"] for name, node in sample_nodes(model_trace).items() if not node["is_observed"]}
    recognised = {name: node["fn"] for name, node in sample_nodes(guide_trace).items()}
    require_some_latents(set(latents), set(recognised))
    for name, q in recognised.items():
        _check_same_event_shape(name, latents[name], q)
        require_density(name, q, latents[name], read_tensors=True)


def _check_same_event_shape(name: str, p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        raise ContractError(
            f"site {name!r} has event shape {tuple(p.event_shape)} in the model and {tuple(q.event_shape)} in "
            "the guide; they must agree (is a .to_event(1) missing?)"
        )


def check_plates(role: str, traced: poutine.Trace, batch_size: int) -> None:
    """Raise ContractError unless every site stands in the one plate, unscaled.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> traced = run("guide", MeanFieldGaussian(nn.Linear(2, 4)), Batch(torch.zeros(3, 2)))
        >>> check_plates("guide", traced, batch_size=3)
    """
    for name, node in sample_nodes(traced).items():
        check_site(role, name, node, CHECKED_PARTICLES, batch_size)


def check_reads_no_data(model: nn.Module, batch: Batch, latents: poutine.Trace, model_trace: poutine.Trace) -> None:
    """Raise ContractError where a density of the model, or what a generator gives, moves with x at the same latents.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> model, batch = LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))
        >>> traced = run("model", model, batch)
        >>> check_reads_no_data(model, batch, traced, traced)
    """
    held = {name: node["value"] for name, node in sample_nodes(latents).items()}
    for other in (torch.zeros_like(batch.x), torch.ones_like(batch.x), -batch.x):
        with At(held):
            moved = sample_nodes(trace(model, arguments(model, batch.with_x(other)), CHECKED_PARTICLES))
        for name, node in sample_nodes(model_trace).items():
            _check_unmoved(name, node, moved[name])


def _check_unmoved(name: str, node: Any, moved: Any) -> None:
    before, after = (fn.log_prob(node["value"]) if has_density(fn) else fn.sample() for fn in (node["fn"], moved["fn"]))
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4, equal_nan=True):
        raise ContractError(
            f"expected the model's distribution of {name!r} to be a function of latents, labels and conditions, but it "
            "moved when x changed: its density is then no p(x | z). Let what it reads be a condition, named in "
            "forward(self, x, y=None, c=None); an autoregressive decoder belongs into the distribution"
        )

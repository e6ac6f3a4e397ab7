"""The single checks behind :func:`ppvae.check_pair`: each knows one way in which a pair can be wrong."""

import warnings

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppvae.engine import pair as engine
from ppvae.engine import tracing
from ppvae.engine.tracing import LABEL, OBSERVED, PARTICLE_DIM, PARTICLE_PLATE
from ppvae.errors import ContractError

PLATE = "data"


def check_support(distribution, x: Tensor, first_row: int = 0) -> None:
    """Raise ContractError unless every element of x lies in the support of p(x | z)."""
    check_finite(x, first_row)
    if not distribution.support.check(x).all():
        raise ContractError(
            f"expected every x in the support of the likelihood ({distribution.support}), got values "
            f"from {x.min():.4g} to {x.max():.4g}; rescale the data or choose another likelihood"
        )


def check_finite(x: Tensor, first_row: int = 0) -> None:
    """Raise ContractError where x holds NaN or infinity, with the first such row."""
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
        raise ContractError(f"expected finite data, got NaN or infinity first in row {first_row + row} of x")


def check_event_shape(distribution, x: Tensor) -> None:
    """Raise ContractError unless p(x | z) is over things of the shape of a datum."""
    if tuple(distribution.event_shape) != tuple(x.shape[1:]):
        raise ContractError(
            f"expected the model to give x of shape {tuple(x.shape[1:])}, got a likelihood over shape "
            f"{tuple(distribution.event_shape)}; fit the decoder's output to the data (or add .to_event(n))"
        )


def check_input(x: Tensor, y: Tensor | None) -> None:
    """Raise ContractError unless x is a batch of finite data and y, if given, labels of it."""
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ContractError(f"expected x to be a tensor of shape (B, *event_shape) with B >= 1, got {got}")
    check_finite(x)
    if y is None:
        return
    if not isinstance(y, Tensor):
        raise ContractError(f"expected y to be a long tensor of shape ({len(x)},), got {type(y).__name__}")
    if y.shape != x.shape[:1] or y.dtype != torch.long:
        raise ContractError(
            f"expected y to be a long tensor of shape ({len(x)},), one label a row of x, "
            f"got {y.dtype} of shape {tuple(y.shape)}; convert it with y.long()"
        )


def check_label_range(model, x: Tensor, y: Tensor | None) -> None:
    """Raise ContractError where a label is none of the model's classes."""
    if y is None:
        return
    try:
        classes = len(tracing.distribution_at(model, LABEL, x).enumerate_support(expand=False))
    except Exception:  # no label site, or a model that fails: the run proper says so better
        return
    tracing.require_classes(y, classes)


def check_modules(model, guide) -> None:
    """Raise ContractError unless both are modules."""
    for role, module in (("model", model), ("guide", guide)):
        if not isinstance(module, nn.Module):
            raise ContractError(
                f"expected the {role} to be a PyroModule (its parameters are trained), got {type(module).__name__}"
            )


def to_device_of(model, x: Tensor) -> Tensor:
    """The tensor on the model's device."""
    parameter = next(model.parameters(), None)
    return x if parameter is None else x.to(parameter.device)


def check_parameters(model, guide) -> None:
    """Raise ContractError unless both have parameters of their own."""
    check_modules(model, guide)
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
            stacklevel=3,
        )


def _global_names(module) -> set[str]:
    prefix = getattr(module, "_pyro_name", "")
    return {f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()}


def run(role: str, fn, x: Tensor, given: Tensor | None, replayed=None):
    """Trace with two particles, so that a network which cannot take leading dimensions shows it."""
    try:
        if replayed is None:
            trace = tracing.trace_enumerated(fn, x, given, num_particles=2)
        else:
            trace = tracing.trace(poutine.replay(fn, trace=replayed), x, given, num_particles=2)
    except ContractError:
        raise
    except Exception as error:
        labels = "without labels" if given is None else f"with labels of shape {tuple(given.shape)}"
        raise ContractError(
            f"the {role} failed on x of shape {tuple(x.shape)} {labels}, with particles at dim {PARTICLE_DIM}: "
            f"{type(error).__name__}: {_first_line(error)}. Networks must take (..., event) and sites stand in "
            f'`pyro.plate("{PLATE}", len(x))`'
        ) from error
    strangers = [name for name, node in trace.nodes.items() if node["type"] == "param"]
    owned = {id(p) for p in fn.parameters()}
    for name in strangers:
        if not _owns(trace.nodes[name]["value"], owned):
            raise ContractError(
                f"expected every parameter of the {role} to belong to the module, got pyro.param({name!r}); "
                "make it an nn.Parameter or a PyroParam of the module"
            )
    return trace


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")


def _owns(value: Tensor, owned: set[int]) -> bool:
    unconstrained = value.unconstrained() if hasattr(value, "unconstrained") else value
    return id(unconstrained) in owned or id(value) in owned


def _sample_nodes(trace) -> dict:
    return {
        name: node for name, node in trace.nodes.items() if node["type"] == "sample" and not site_is_subsample(node)
    }


def check_guide_sites(trace, label_given: bool) -> None:
    """Raise ContractError where the guide observes, or draws a label that it was given."""
    for name, node in _sample_nodes(trace).items():
        if name == LABEL and label_given and not node["is_observed"]:
            raise ContractError(engine.DRAWS_GIVEN_LABEL)
        if name == LABEL and node["fn"].event_shape:
            raise ContractError(
                f'expected site "{LABEL}" to be a class index, got {node["fn"]}; use Categorical, not OneHotCategorical'
            )
        if node["is_observed"]:
            raise ContractError(
                f"expected the guide to observe nothing, got site {name!r} with obs=; a guide that is given "
                "a label conditions on it without a sample statement"
            )


def check_observes(trace) -> None:
    """Raise ContractError unless the model observes x."""
    nodes = _sample_nodes(trace)
    if OBSERVED not in nodes or not nodes[OBSERVED]["is_observed"]:
        raise ContractError(
            f'expected the model to observe site "{OBSERVED}", got sites {sorted(nodes)}; '
            f'write pyro.sample("{OBSERVED}", ..., obs=x)'
        )


def check_match(model_trace, guide_trace) -> None:
    """Raise ContractError unless model and guide have the same latents, over the same spaces."""
    model_nodes, drawn = _sample_nodes(model_trace), set(_sample_nodes(guide_trace))
    latent = {name for name, node in model_nodes.items() if not node["is_observed"]}
    engine.require_same_latents(latent, drawn)
    for name in latent:
        _check_same_space(name, model_nodes[name], guide_trace.nodes[name])


def _check_same_space(name: str, model_node, guide_node) -> None:
    p, q, value = model_node["fn"], guide_node["fn"], guide_node["value"]
    if p.event_shape != q.event_shape:
        raise ContractError(
            f"site {name!r} has event shape {tuple(p.event_shape)} in the model and {tuple(q.event_shape)} in "
            "the guide; they must agree (is a .to_event(1) missing?)"
        )
    if not p.support.check(value).all():
        raise ContractError(
            f"the guide draws values of site {name!r} (support {q.support}) outside the prior's support "
            f"({p.support}); choose a guide distribution on the same space"
        )


def check_plate(role: str, trace, batch_size: int) -> None:
    """Raise ContractError unless every site stands in the one plate, unscaled."""
    for name, node in _sample_nodes(trace).items():
        frames = {frame.name: frame for frame in node["cond_indep_stack"]}
        frame = frames.get(PLATE)
        if frame is None or frame.dim != -1 or frame.size != batch_size or len(frames) != 2:
            got = [f"{f.name!r} of size {f.size} at dim {f.dim}" for f in frames.values() if f.name != PARTICLE_PLATE]
            raise ContractError(
                f'expected {role} site {name!r} in the one plate "{PLATE}" of size {batch_size} at dim -1, got '
                f'{", ".join(got) or "no plate"}; write `with pyro.plate("{PLATE}", len(x)):`'
            )
        if not isinstance(node["scale"], (int, float)) or node["scale"] != 1:
            raise ContractError(
                f"expected {role} site {name!r} without a scale, got {node['scale']}; objectives divide by the "
                "batch size themselves, and a scale makes a multi-sample bound invalid"
            )


def check_weights(log_weight: Tensor, first_row: int = 0) -> None:
    """Raise ContractError where the weights of a datum, log_weight (..., B), have no finite sum, with the first row."""
    total = log_weight.detach().reshape(-1, log_weight.shape[-1]).logsumexp(0)
    bad = (~torch.isfinite(total)).nonzero()[:, 0].tolist()
    if bad:
        raise ContractError(
            f"expected finite weights, got {total[bad[0]]} for {len(bad)} of {len(total)} data, the first at row "
            f"{first_row + bad[0]}; look for NaN in the pair's parameters and for extreme data"
        )


def check_densities(model, guide, x: Tensor, y: Tensor | None) -> None:
    """Raise ContractError where a density has the wrong shape or a weight is not finite."""
    particles = engine.replay(model, guide, x, y, num_particles=2)
    for role, sites in (("guide", particles.guide), ("model", particles.model)):
        for site in sites.values():
            shape = site.log_prob.shape[-2:]
            if len(shape) != 2 or shape[0] not in (1, 2) or shape[1] not in (1, len(x)):
                raise ContractError(
                    f"expected the log density of {role} site {site.name!r} to have shape (..., 2, {len(x)}) for two "
                    f"particles, got {tuple(site.log_prob.shape)}; a .to_event(n) is missing or too much"
                )
    if not torch.isfinite(particles.log_weight).all():
        row = int((~torch.isfinite(particles.log_weight)).any(0).nonzero()[0])
        raise ContractError(f"expected finite log weights, got {particles.log_weight[:, row].tolist()} in row {row}")

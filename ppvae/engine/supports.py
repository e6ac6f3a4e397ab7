"""Whether importance weights p / q exist: q must be a density over the whole space of the prior p.

    w = p(z) / q(z)   needs   the same base measure, and q(z) > 0 wherever p(z) > 0

A point mass, a narrower support (a half-line for a line), other discrete values and a continuous relaxation of a
discrete latent have no such weights.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pyro.distributions import Delta, VonMises
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution, constraints

from ppvae.errors import ContractError

End = float | Tensor  # of an interval
Interval = tuple[End, End]


def why_no_weights(q: Any, p: Any, read_tensors: bool = False) -> str | None:
    """The reason why no weights p / q exist, as text; None if they exist.

    Args:
        q: the guide's distribution of a site.
        p: the model's.
        read_tensors: compare bounds that are tensors too, which waits for the device.

    Example:

        >>> from pyro import distributions as dist
        >>> why_no_weights(dist.LogNormal(0.0, 1.0), dist.Normal(0.0, 1.0))
        'q is positive on (0, inf) alone and p on (-inf, inf)'
        >>> why_no_weights(dist.Normal(0.0, 2.0), dist.Normal(0.0, 1.0)) is None
        True
    """
    if is_point_mass(q) != is_point_mass(p):
        return f"{'q' if is_point_mass(q) else 'p'} is a point mass, which has no density"
    q_discrete, p_discrete = _is_discrete(q), _is_discrete(p)
    if q_discrete != p_discrete:
        kinds = {True: "discrete", False: "continuous"}
        return f"q is {kinds[q_discrete]} and p is {kinds[p_discrete]}"
    if p_discrete:
        return _why_other_values(q, p)
    ours, theirs = _reach(q, read_tensors), _reach(p, read_tensors)
    if ours is None or theirs is None:  # not an interval: simplex, matrices
        same = type(_support(q)) is type(_support(p))
        return None if same else f"q has support {_support(q)} and p {_support(p)}"
    return _why_narrower(ours, theirs)


def _is_discrete(fn: Any) -> bool:
    """Whether a distribution is a set of atoms, as Pyro's Empirical is on the line."""
    return fn.support.is_discrete or getattr(fn, "has_enumerate_support", False)


def require_density(name: str, q: Any, p: Any, read_tensors: bool = False) -> None:
    """Raise ContractError unless q is a density over the whole space of p.

    Example:

        >>> require_density("z", torch.distributions.Normal(0.0, 2.0), torch.distributions.Normal(0.0, 1.0))
    """
    reason = why_no_weights(q, p, read_tensors)
    if reason is not None:
        raise ContractError(
            f"expected q({name} | x) to be a density over the whole space of the prior p({name}), but {reason}: the "
            "weights p/q do not exist. Choose a guide on the prior's space, or an objective that reads no density of q "
            "(Reconstruction, wae, adversarial_autoencoder)"
        )


def is_point_mass(fn: Any) -> bool:
    """Whether a distribution is a Delta, or a transform or a mixture of one.

    Example:

        >>> from pyro import distributions as dist
        >>> is_point_mass(dist.Delta(torch.zeros(3)).to_event(1)), is_point_mass(dist.Normal(0.0, 1.0))
        (True, False)
    """
    while fn is not None:
        if isinstance(fn, Delta):
            return True
        fn = getattr(fn, "base_dist", None) or getattr(fn, "component_distribution", None)
    return False


def _why_other_values(q: Any, p: Any) -> str | None:
    ours, theirs = num_values(q), num_values(p)
    if ours != theirs:
        return f"q has {ours or 'infinitely many'} values and p {theirs or 'infinitely many'}"
    return None


def num_values(fn: Any) -> int | None:
    """Number of values of a discrete distribution that can be enumerated, else None.

    Example:

        >>> from pyro import distributions as dist
        >>> num_values(dist.Categorical(torch.ones(3))), num_values(dist.Poisson(1.0))
        (3, None)
    """
    if not getattr(fn, "has_enumerate_support", False):
        return None
    return len(fn.enumerate_support(expand=False))


def _why_narrower(ours: Interval, theirs: Interval) -> str | None:
    if _covers(ours, theirs):
        return None
    return f"q is positive on {_written(*ours)} alone and p on {_written(*theirs)}"


def _covers(ours: Interval, theirs: Interval) -> bool:
    return _reaches(-ours[0], -theirs[0]) and _reaches(ours[1], theirs[1])


def _reaches(ours: End, theirs: End) -> bool:
    """Whether an interval that ends at ``ours`` holds one that ends at ``theirs``; NaN is an end that was not read."""
    if isinstance(ours, Tensor) or isinstance(theirs, Tensor):
        return bool((torch.as_tensor(ours) >= torch.as_tensor(theirs)).all())
    if math.isnan(ours):
        return theirs != math.inf
    return ours >= theirs or math.isnan(theirs)


def _interval(support: Any, read_tensors: bool) -> Interval | None:
    """The interval of each element, NaN where a bound is a tensor that must not be read; None for no interval."""
    if support is constraints.real or type(support) is type(constraints.real):
        return -math.inf, math.inf
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if lower is None and upper is None:
        return None
    return _end(lower, -math.inf, read_tensors), _end(upper, math.inf, read_tensors)


def _end(bound: Any, none: float, read_tensors: bool) -> End:
    if isinstance(bound, Tensor):
        return bound.detach() if read_tensors else math.nan
    return none if bound is None else float(bound)


def _written(lower: End, upper: End) -> str:
    ends = (
        lower.max().item() if isinstance(lower, Tensor) else lower,
        upper.min().item() if isinstance(upper, Tensor) else upper,
    )
    return "({}, {})".format(*("..." if math.isnan(end) else f"{end:g}" for end in ends))


def _support(fn: Any) -> Any:
    """The support of single elements, where the support is a product or a mixture of it."""
    if isinstance(_unwrapped(fn), VonMises):
        return _CIRCLE
    return _element(fn.support)


class _Circle(constraints.Constraint):
    def __repr__(self) -> str:
        return "a circle"


_CIRCLE = _Circle()  # torch says that an angle is real, and gives it a periodic density


def _reach(fn: Any, read_tensors: bool) -> Interval | None:
    """The interval that a distribution reaches, through each of its transforms in turn; None for no interval.

    The support that torch gives a transformed distribution is the codomain of its last transform, whatever the base.
    """
    fn = _unwrapped(fn)
    if type(fn).support is not TransformedDistribution.support or not fn.transforms:
        return _interval(_support(fn), read_tensors)  # torch's own families, such as LogNormal, declare the support
    reached = _reach(fn.base_dist, read_tensors)
    for transform in _flat(fn.transforms):
        reached = _image(reached, transform, read_tensors)
    return reached


def _flat(transforms: Iterable[Any]) -> Iterator[Any]:
    for transform in transforms:
        if hasattr(transform, "parts"):
            yield from _flat(transform.parts)
        else:
            yield getattr(transform, "base_transform", transform)


def _image(reached: Interval | None, transform: Any, read_tensors: bool) -> Interval | None:
    """What a transform makes of an interval: its codomain, if the interval is its whole domain."""
    domain, codomain = (_interval(_element(side), read_tensors) for side in (transform.domain, transform.codomain))
    if reached is None or domain is None or codomain is None or _covers(reached, domain):
        return codomain
    if transform.domain.event_dim or any(isinstance(end, float) and math.isnan(end) for end in reached):
        return math.nan, math.nan  # of a flow over a bounded base nothing is known but that it is bounded
    ends = torch.broadcast_tensors(*(transform(torch.as_tensor(end)) for end in reached))
    lower, upper = torch.minimum(*ends).detach(), torch.maximum(*ends).detach()
    if any(isinstance(value, Tensor) for value in (*vars(transform).values(), *reached)):
        return (lower, upper) if read_tensors else (math.nan, math.nan)
    return lower.item(), upper.item()


def _element(support: Any) -> Any:
    """A constraint of single elements, of a product or a mixture of it."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _unwrapped(fn: Any) -> Any:
    """A distribution without ``to_event``, ``expand`` and ``mask``."""
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return fn

"""Whether importance weights p / q exist: q must be a density over the whole space of the prior p.

    w = p(z) / q(z)   needs   the same base measure, and q(z) > 0 wherever p(z) > 0

A point mass, a narrower support (a half-line for a line), other discrete values and a continuous relaxation of a
discrete latent have no such weights.
"""

import math
from typing import Any

from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import constraints

LOWER = ("lower_bound",)
UPPER = ("upper_bound",)


def why_no_weights(q: Any, p: Any, read_tensors: bool = False) -> str | None:
    """Why q cannot be weighed against the prior p, in words; None if it can.

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
    if is_point_mass(q) and not is_point_mass(p):
        return "q is a point mass, which has no density"
    q_discrete, p_discrete = q.support.is_discrete, p.support.is_discrete
    if q_discrete != p_discrete:
        kinds = {True: "discrete", False: "continuous"}
        return f"q is {kinds[q_discrete]} and p is {kinds[p_discrete]}"
    if p_discrete:
        return _why_other_values(q, p)
    return _why_narrower(_base(q.support), _base(p.support), read_tensors)


def is_point_mass(fn: Any) -> bool:
    """Whether a distribution is a Delta, or a transform of one."""
    while fn is not None:
        if isinstance(fn, Delta):
            return True
        fn = getattr(fn, "base_dist", None)
    return False


def _why_other_values(q: Any, p: Any) -> str | None:
    ours, theirs = num_values(q), num_values(p)
    if ours != theirs:
        return f"q has {ours or 'infinitely many'} values and p {theirs or 'infinitely many'}"
    return None


def num_values(fn: Any) -> int | None:
    """Number of values of a discrete distribution that can be enumerated, else None."""
    if not getattr(fn, "has_enumerate_support", False):
        return None
    return len(fn.enumerate_support(expand=False))


def _why_narrower(q: Any, p: Any, read_tensors: bool) -> str | None:
    ours, theirs = _interval(q, read_tensors), _interval(p, read_tensors)
    if ours is None or theirs is None:  # not an interval: simplex, matrices
        return None if type(q) is type(p) or ours is theirs is _UNKNOWN else f"q has support {q} and p {p}"
    if _UNKNOWN in (ours, theirs):
        return None
    if ours[0] <= theirs[0] and theirs[1] <= ours[1]:
        return None
    return f"q is positive on ({ours[0]:g}, {ours[1]:g}) alone and p on ({theirs[0]:g}, {theirs[1]:g})"


_UNKNOWN = (math.nan, math.nan)  # bounds that are tensors


def _interval(support: Any, read_tensors: bool) -> tuple[float, float] | None:
    """The interval of each element; None for a support that is no interval."""
    if support is constraints.real or type(support) is type(constraints.real):
        return -math.inf, math.inf
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if lower is None and upper is None:
        return None
    bounds = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
    if any(isinstance(bound, Tensor) for bound in bounds):
        if not read_tensors:
            return _UNKNOWN
        low, high = (bound if isinstance(bound, Tensor) else Tensor([bound]) for bound in bounds)
        return low.max().item(), high.min().item()
    return float(bounds[0]), float(bounds[1])


def _base(support: Any) -> Any:
    """A constraint of single elements, where the support is a product or a mixture of it."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support

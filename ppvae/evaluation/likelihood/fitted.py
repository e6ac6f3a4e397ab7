"""Importance weights from a proposal that is fitted to the posterior of each datum.

    p(x) = sum_e p(x, e),   p(x, e) = E_q_e[p(x, e, u) / q_e(u)]

e: a joint value of the discrete latents, u: the continuous latents, unconstrained. The posterior given e usually has
one mode where that of all e together has several, so each e has a proposal of its own. Values e that hold less than
``NEGLIGIBLE`` of p(x) by the guide's weights keep the guide's draws: the mean of the weights is p(x) all the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution

from ppvae.distributions.gaussians import FullGaussian, FullStudentT, standard_normal
from ppvae.engine.batch import Batch
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Draws, Particles, add_up
from ppvae.engine.supports import is_point_mass, why_no_weights
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.coordinates import Coordinates, coordinates_of
from ppvae.evaluation.likelihood.proposals import Proposal, draws_at_once
from ppvae.evaluation.progress import blocks
from ppvae.evaluation.requirements import is_discrete

COPIES = 16  # of a datum, to see whether the support of a latent depends on another latent
START_DRAWS = 200
SHARE_DRAWS = 50  # for the shares of the discrete latents' values
NEGLIGIBLE = 1e-6  # share of p(x); small, since a poor guide misjudges it


def fittable(pair: Pair, batch: Batch) -> Coordinates:
    """Coordinates in which a proposal can be fitted to the pair's posterior.

    Raises:
        ContractError: there is no continuous latent; a discrete latent is not enumerated; a latent is a point mass,
            is masked, has a support that depends on another latent, or a support that is no image of the real line.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4)))
        >>> fittable(pair, Batch(torch.zeros(3, 2))).dim
        2
    """
    if torch.is_inference_mode_enabled():
        raise _cannot_fit("torch.inference_mode() is on, in which nothing has a gradient (torch.no_grad() is allowed)")
    with forked_randomness(batch.x.device):
        for part in batch.rows(slice(0, 1)).kinds():
            _require_fittable(pair.draw(part))
    copies = batch.rows(torch.zeros(COPIES, dtype=torch.long, device=batch.x.device))  # a support that moves shows
    coordinates = coordinates_of(pair, copies)
    with forked_randomness(batch.x.device):
        prior = pair.prior(copies, 1)
    for name, transform in coordinates.transforms.items():
        unit = Normal(torch.zeros(coordinates.shapes[name]), 1.0)
        image = TransformedDistribution(Independent(unit, transform.domain.event_dim), transform)
        reason = why_no_weights(image, prior[name].distribution)
        if reason is not None:
            raise _cannot_fit(f"the support of the latent {name!r} is no image of the real line: {reason}")
    return coordinates


def _require_fittable(particles: Particles) -> None:
    sites = particles.guide.values()
    if all(is_discrete(site.distribution) for site in sites):
        raise _cannot_fit(f"every latent of this pair is discrete: {sorted(particles.guide)}")
    for site in sites:
        if is_discrete(site.distribution) and not site.enumerated:
            raise _cannot_fit(f"the discrete site {site.name!r} is not enumerated")
        if is_point_mass(particles.model[site.name].distribution):
            raise _cannot_fit(f"the latent {site.name!r} is a point mass")
        if particles.model[site.name].mask is not None:
            raise _cannot_fit(f"the latent {site.name!r} is masked")


def _cannot_fit(reason: str) -> ContractError:
    return ContractError(
        f"expected continuous latents, to fit a proposal to their posterior, but {reason}; call log_marginal with "
        "proposal=None, for the guide's weights"
    )


@dataclass(frozen=True, eq=False)
class Problems:
    """P posteriors p(u | x, e): pairs of a datum and of a joint value of its discrete latents.

    Attributes:
        pair: model and guide.
        batch: the datum of each posterior, P rows.
        coordinates: u.
        fixed: the discrete latents by name, (P, *event_shape).
        start: N(m, diag(s^2)) with the moments of the guide's draws, batch shape (P,).

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4)))
        >>> value, row = torch.zeros(3, dtype=torch.long), torch.arange(3)
        >>> problems_of(pair.draw(Batch(torch.zeros(3, 2)), 9), pair, value, row).log_joint(torch.zeros(5, 3, 2)).shape
        torch.Size([5, 3])
    """

    pair: Pair
    batch: Batch
    coordinates: Coordinates
    fixed: Mapping[str, Tensor]
    start: FullGaussian

    def __len__(self) -> int:
        return len(self.batch)

    def log_joint(self, u: Tensor) -> Tensor:
        """log p(x, e, u) of u (draws, P, D), with the Jacobian of the coordinates; shape (draws, P)."""
        draws = len(u)
        values, log_volume = self.coordinates.constrained(u)
        values |= {name: value.expand(draws, *value.shape) for name, value in self.fixed.items()}
        return add_up(site.log_prob for site in self.pair.model_at(self.batch, values, draws).values()) + log_volume


def problems_of(particles: Particles, pair: Pair, value: Tensor, row: Tensor) -> Problems:
    """The posteriors of some data at some joint values of the discrete latents.

    Args:
        particles: draws of the guide.
        pair: that they come from, see :func:`fittable`.
        value: index of each joint value, (P,); 0 where there is no discrete latent.
        row: index of each datum, (P,).

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4)))
        >>> particles = pair.draw(Batch(torch.zeros(3, 2)), num_particles=9)
        >>> len(problems_of(particles, pair, value=torch.tensor([0, 0]), row=torch.tensor([0, 2])))
        2
    """
    batch = particles.batch.rows(row)
    coordinates = coordinates_of(pair, batch)  # a support may differ between data
    mean, spread = _moments(coordinates.unconstrained(_draws(particles, coordinates.shapes, value, row)))
    fixed = {name: each[value] for name, each in _joint_values(particles).items()}
    return Problems(pair, batch, coordinates, fixed, FullGaussian(mean, torch.diag_embed(spread)))


def _moments(u: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each element over the finite draws; 0 and 1 where there are none."""
    finite = u.isfinite()
    count = finite.sum(0)
    mean = u.where(finite, 0.0).sum(0) / count.clamp(min=1)
    spread = ((u - mean).where(finite, 0.0).square().sum(0) / (count - 1).clamp(min=1)).sqrt()
    return mean, spread.where(spread > 0, 1.0)


def _enumeration(particles: Particles) -> tuple[int, ...]:
    """The number of values of each enumerated site, by its dimension."""
    sizes = torch.broadcast_shapes(*(site.value.shape[: _leading(site)] for site in particles.guide.values()))
    return tuple(sizes)[:-2]


def _leading(site: Any) -> int:
    return site.value.dim() - len(site.distribution.event_shape)


def _not_negligible(pair: Pair, particles: Particles, chunk: int) -> Tensor:
    """Which joint values of the discrete latents are fitted, bool, (values, B)."""
    batch = particles.batch
    if not _enumeration(particles):
        return torch.ones(1, len(batch), dtype=torch.bool, device=batch.x.device)
    total = _joint_log_weights(pair, batch, SHARE_DRAWS, chunk).logsumexp(1)
    return ((total.softmax(0) >= NEGLIGIBLE) & (total > -torch.inf)).to(batch.x.device)


def _joint_values(particles: Particles) -> Draws:
    """The discrete latents by name, (values, *event_shape)."""
    sizes = (*_enumeration(particles), 1, 1)
    sites = {name: site for name, site in particles.guide.items() if site.enumerated}
    return {
        name: site.value.expand(*sizes, *site.distribution.event_shape).flatten(0, len(sizes) - 1)
        for name, site in sites.items()
    }


def _draws(particles: Particles, names: Iterable[str], value: Tensor, row: Tensor) -> Draws:
    """The guide's draws of some continuous latents at P joint values and data, each (draws, P, *event_shape)."""
    sizes = (*_enumeration(particles), particles.num_particles, particles.batch_size)
    sites = {name: particles.guide[name] for name in names}
    full = {name: site.value.expand(*sizes, *site.distribution.event_shape) for name, site in sites.items()}
    flat = {name: each.reshape(-1, *each.shape[len(sizes) - 2 :]) for name, each in full.items()}
    return {name: each[value, :, row].movedim(1, 0) for name, each in flat.items()}


def fitted_log_weight(pair: Pair, batch: Batch, proposal: Proposal, num_particles: int, chunk: int) -> Tensor:
    """log w_k of each datum under the proposal, fitted to its posteriors, (K, B), float64, on the CPU; in nats.

    The draws that are weighed are fresh, so that the mean of the weights is p(x).

    Args:
        pair: model and guide, see :func:`fittable`.
        batch: B data.
        proposal: see :mod:`ppvae.evaluation.likelihood.proposals`.
        num_particles: K.
        chunk: pairs of a draw and a posterior that are evaluated at once.

    Raises ContractError where a fitted distribution does not have the shapes of the start.

    Example:

        >>> from ppvae.evaluation.likelihood.proposals import FullRank
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4)))
        >>> fitted_log_weight(pair, Batch(torch.zeros(3, 2)), FullRank(steps=5), num_particles=7, chunk=100).shape
        torch.Size([7, 3])
    """
    particles = pair.draw(batch, START_DRAWS)
    joint = torch.full((1, num_particles, len(batch)), torch.nan, dtype=torch.float64)
    if _enumeration(particles):
        joint = _joint_log_weights(pair, batch, num_particles, chunk)
    values, rows = _not_negligible(pair, particles, chunk).nonzero(as_tuple=True)
    for block in blocks(len(rows), max(1, chunk // draws_at_once(proposal))):
        value, row = values[block], rows[block]
        problems = problems_of(particles, pair, value, row)
        with torch.enable_grad():
            q = proposal.fit(problems.log_joint, problems.start)
        _require_density(q, problems)
        fitted = _weighed(problems, q, num_particles, chunk).T
        sound = fitted.logsumexp(1).isfinite()  # where a fit diverged, the guide's draws of this joint value stay
        joint[value.cpu()[sound], :, row.cpu()[sound]] = fitted[sound]
    return joint.logsumexp(0)


def _require_density(q: Any, problems: Problems) -> None:
    """Raise ContractError unless q is one density over u for each posterior."""
    expected = (len(problems),), (problems.coordinates.dim,)
    found = tuple(getattr(q, "batch_shape", ())), tuple(getattr(q, "event_shape", ()))
    if found != expected:
        raise ContractError(
            f"expected fit to return a distribution of batch shape {expected[0]} and event shape {expected[1]}, got "
            f"{found[0]} and {found[1]} of {type(q).__name__}; the shapes are those of the start that fit is given"
        )
    reason = why_no_weights(q, standard_normal(problems.start.loc, problems.coordinates.dim))
    if reason is not None:
        raise ContractError(
            f"expected fit to return a density over all real vectors, but {reason}: the weights do not exist; return a "
            "Gaussian, for example"
        )


def _weighed(problems: Problems, q: dist.TorchDistribution, num_particles: int, chunk: int) -> Tensor:
    """log p(x, e, u) - log q(u) of fresh draws u of q, (K, P), float64, on the CPU."""
    log_weight = torch.empty(num_particles, len(problems), dtype=torch.float64)
    with torch.no_grad():
        for part in log_weight.split(max(1, chunk // len(problems))):
            u, log_q = _drawn(q, len(part))
            _require_dtype(u, problems.start.loc.dtype)
            part.copy_(problems.log_joint(u) - log_q)
    return log_weight


def _require_dtype(u: Tensor, expected: torch.dtype) -> None:
    if u.dtype != expected:
        raise ContractError(
            f"expected fit to return a distribution whose draws are {expected}, as those of the start, got {u.dtype}"
        )


def _drawn(q: dist.TorchDistribution, num_draws: int) -> tuple[Tensor, Tensor]:
    """Draws of q and their log densities, each with the draws first."""
    if isinstance(q, FullGaussian | FullStudentT):
        return q.draw(num_draws)
    u = q.sample((num_draws,))
    return u, q.log_prob(u)


def _joint_log_weights(pair: Pair, batch: Batch, num_particles: int, chunk: int) -> Tensor:
    """The guide's log weights at each joint value of the discrete latents, (values, K, B), float64, on the CPU."""
    parts, left, step = list[Tensor](), num_particles, 1
    while left:
        joint = pair.draw(batch, min(left, step)).joint_log_weight.flatten(0, -3).double().cpu()
        parts.append(joint)
        left -= joint.shape[1]
        step = max(1, chunk // (joint.shape[0] * len(batch)))
    return torch.cat(parts, 1)

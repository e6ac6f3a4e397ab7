"""Draws and moments of one latent for B different data, for terms that are statistics of a batch."""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal

from ppvae.engine.particles import Particles, Site
from ppvae.errors import ContractError


def latent(particles: Particles, name: str) -> Site:
    """The guide's site. Raises ContractError unless it is a vector, drawn once for each datum and particle."""
    site = particles.latent(name)
    if site.enumerated or site.value.dim() - site.distribution.event_dim > 2:
        raise ContractError(
            f"expected a continuous latent that depends on no enumerated one, got {name!r} of shape "
            f"{tuple(site.value.shape)}; a statistic of the batch is not defined for each of its values"
        )
    if site.distribution.event_dim != 1:
        raise ContractError(
            f"expected a latent of event shape (D,), got {name!r} of {tuple(site.distribution.event_shape)}; "
            "declare its elements by to_event(1)"
        )
    if site.mask is not None:
        raise ContractError(f"expected a latent that every datum has, got {name!r} under a mask")
    if particles.batch_size < 2:
        raise ContractError(
            f"expected a batch of at least 2 data for a statistic of {name!r} over the batch, got 1; use larger "
            "batches (batch_size, labelled_per_step)"
        )
    return site


def draws(particles: Particles, name: str) -> Tensor:
    """Draws z ~ q(z | x), shape (K, B, D): one for each datum, so that each particle is a sample of q(z)."""
    return _flat(latent(particles, name).value, particles)


def draws_of_all(parts: Sequence[Particles], name: str, of: Callable[[Particles, str], Tensor] = draws) -> Tensor:
    """:func:`draws` (or :func:`prior_draws`) of all parts of a step, one under the other: (rows, D)."""
    return torch.cat([of(part, name).flatten(0, 1) for part in parts])


def prior_draws(particles: Particles, name: str) -> Tensor:
    """As many draws z ~ p(z), (K, B, D), with their gradient into the prior.

    Raises ContractError where the prior is trainable and its draws have no gradient.
    """
    fn = prior(particles, name).expand((particles.num_particles, particles.batch_size))
    if fn.has_rsample:
        return _flat(fn.rsample(), particles)
    z = fn.sample()
    require_fixed(fn, z, name, "SteinDiscrepancy, which reads its density")
    return _flat(z, particles)


def require_fixed(fn: TorchDistribution, z: Tensor, name: str, other: str) -> None:
    """Raise ContractError where the prior p(z) is trainable; ``other`` names the terms to use instead."""
    if fn.log_prob(z.detach()).requires_grad:
        raise ContractError(
            f"expected a fixed prior of {name!r}, got a trainable one, to which this term would give no gradient; "
            f"freeze it (requires_grad_(False)), or use {other}"
        )


def prior(particles: Particles, name: str) -> TorchDistribution:
    """p(z) of a latent. Raises ContractError if it changes with other latents, at these draws and weights."""
    value = particles.latent(name).value
    latents = [site.name for site in particles.model.values() if not site.observed]
    continuous = [latent for latent in latents if not particles.guide[latent].enumerated]
    fn = particles.model[name].distribution
    own = name in continuous[:1] or (name in continuous and _depends_on_no_other(particles, name, fn, value))
    if fn.batch_shape[:-2].numel() != 1 or not own:
        raise ContractError(
            f"expected a continuous latent whose prior depends on no other, got {name!r}, which is discrete or has a "
            f"prior that changes with the draws of others; the model draws {', '.join(latents)} in this order"
        )
    return fn


_INDEPENDENT: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()  # model -> site -> the answer


def _depends_on_no_other(particles: Particles, name: str, fn: TorchDistribution, value: Tensor) -> bool:
    """Whether the prior of a latent behind others is the same at all of their draws.

    It reads numbers from the device once for each model and site, and not in every step.
    """
    answers = _INDEPENDENT.setdefault(particles.source.model, {})
    if name not in answers and not value.is_meta:
        answers[name] = _same_everywhere(fn, value)
    return answers.get(name, True)


def _same_everywhere(fn: TorchDistribution, value: Tensor) -> bool:
    """Whether each of a batch of densities gives the first of some values the same density."""
    with torch.no_grad():
        one = value.reshape(-1, *fn.event_shape)[0]
        log_prob = fn.log_prob(one.expand(fn.batch_shape + fn.event_shape))
        return torch.allclose(log_prob, log_prob.flatten()[0], rtol=1e-5, atol=1e-6, equal_nan=True)


def factors(particles: Particles, name: str) -> TorchDistribution:
    """q(z_d | x) for each element d, batch shape (..., B, D). Raises ContractError unless q(z | x) is their product."""
    fn = latent(particles, name).distribution
    if not isinstance(fn, Independent) or len(fn.base_dist.event_shape) or fn.event_dim != 1:
        raise ContractError(
            f"expected q({name} | x) as a product of densities of its elements, got {fn}; use MeanFieldGaussian, or a "
            "regulariser that reads draws alone: TotalCorrelation, MaximumMeanDiscrepancy"
        )
    return fn.base_dist


def moments(particles: Particles, name: str) -> tuple[Tensor, Tensor]:
    """E_q[z | x], shape (K, B, D), and Cov_q[z | x], shape (K, B, D, D).

    Raises ContractError if there is no formula for them, or q depends on another draw.
    """
    fn = latent(particles, name).distribution
    first = next(site.name for site in particles.guide.values() if not site.enumerated)
    if name != first:
        raise ContractError(f"expected the latent that the guide draws first, {first!r}, got {name!r}")
    if isinstance(fn, MultivariateNormal):
        mean = _flat(fn.mean, particles)
        return mean, fn.covariance_matrix.expand(*mean.shape, -1)
    try:
        q = factors(particles, name)
        return _flat(q.mean, particles), _flat(q.variance, particles).diag_embed()
    except (ContractError, NotImplementedError) as error:
        raise ContractError(
            f"expected q({name} | x) with a formula for its mean and covariance, got {fn}; use MeanFieldGaussian or "
            "FullRankGaussian, or a regulariser that reads draws alone: TotalCorrelation, MaximumMeanDiscrepancy"
        ) from error


def cross_log_prob(fn: TorchDistribution, z: Tensor) -> Tensor:
    """log q(z_i | x_j), shape (K, B, B, ...), of draws (K, B, D), i before j; ``...`` is (D,) for :func:`factors`."""
    batch = z.shape[1]
    grid = z.transpose(0, 1).unsqueeze(2).expand(-1, -1, batch, -1)  # (i, K, j, D)
    return fn.log_prob(grid).transpose(0, 1)


def _flat(value: Tensor, particles: Particles) -> Tensor:
    return value.reshape(-1, particles.batch_size, value.shape[-1]).expand(particles.num_particles, -1, -1)

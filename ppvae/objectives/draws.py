"""Draws and moments of one latent for B different data, for terms that are statistics of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal

from ppvae.engine.particles import Particles
from ppvae.engine.sites import Site
from ppvae.errors import ContractError


def vector(particles: Particles, name: str) -> Site:
    """The guide's site. Raises ContractError unless it is a vector, drawn once for each datum and particle.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> vector(ppvae.draw(model, guide, torch.zeros(1, 2)), "z").value.shape
        torch.Size([1, 1, 2])
    """
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
    return site


def latent(particles: Particles, name: str) -> Site:
    """:func:`vector` of at least two data, for a statistic of the batch.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> latent(ppvae.draw(model, guide, torch.zeros(3, 2)), "z").value.shape
        torch.Size([1, 3, 2])
    """
    site = vector(particles, name)
    if particles.batch_size < 2:
        raise ContractError(
            f"expected a batch of at least 2 data for a statistic of {name!r} over the batch, got 1; use larger "
            "batches (batch_size, labelled_per_step)"
        )
    return site


def draws(particles: Particles, name: str) -> Tensor:
    """Draws z ~ q(z | x), shape (K, B, D): one for each datum, so that each particle is a sample of q(z).

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> draws(ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5), "z").shape
        torch.Size([5, 3, 2])
    """
    return _flat(latent(particles, name).value, particles)


def draws_of_all(parts: Sequence[Particles], name: str, of: Callable[[Particles, str], Tensor] = draws) -> Tensor:
    """:func:`draws` (or :func:`prior_draws`) of all parts of a step, one under the other: (rows, D).

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> parts = [ppvae.draw(model, guide, torch.zeros(rows, 2)) for rows in (3, 4)]
        >>> draws_of_all(parts, "z").shape
        torch.Size([7, 2])
    """
    return torch.cat([of(part, name).flatten(0, 1) for part in parts])


def prior_draws(particles: Particles, name: str) -> Tensor:
    """As many draws z ~ p(z), (K, B, D), with their gradient into the prior.

    Raises ContractError where the prior is trainable and its draws have no gradient.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> prior_draws(ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5), "z").shape
        torch.Size([5, 3, 2])
    """
    fn = prior(particles, name).expand((particles.num_particles, particles.batch_size))
    if fn.has_rsample:
        return _flat(fn.rsample(), particles)
    z = fn.sample()
    require_fixed(fn, z, name, "SteinDiscrepancy, which reads its density")
    return _flat(z, particles)


def require_fixed(fn: TorchDistribution, z: Tensor, name: str, other: str) -> None:
    """Raise ContractError where the prior p(z) is trainable; ``other`` names the terms to use instead.

    Example:

        >>> require_fixed(torch.distributions.Normal(0.0, 1.0), torch.zeros(3), "z", "MaximumMeanDiscrepancy")
    """
    if fn.log_prob(z.detach()).requires_grad:
        raise ContractError(
            f"expected a fixed prior of {name!r}, got a trainable one, to which this term would give no gradient; "
            f"freeze it (requires_grad_(False)), or use {other}"
        )


def prior(particles: Particles, name: str) -> TorchDistribution:
    """p(z) of a latent. Raises ContractError if it changes with other latents, at these draws and weights.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> prior(ppvae.draw(model, guide, torch.zeros(3, 2)), "z").event_shape
        torch.Size([2])
    """
    particles.latent(name)
    latents = [site.name for site in particles.model.values() if not site.observed]
    continuous = [latent for latent in latents if not particles.guide[latent].enumerated]
    fn = particles.model[name].distribution
    own = name in continuous[:1] or (name in continuous and _is_one_density(particles, name))
    if fn.batch_shape[:-2].numel() != 1 or not own:
        raise ContractError(
            f"expected a continuous latent whose prior depends on no other, got {name!r}, which is discrete or has a "
            f"prior that changes with the draws of others; the model draws {', '.join(latents)} in this order"
        )
    return fn


def common_prior(particles: Particles, name: str) -> TorchDistribution:
    """:func:`prior`, the same for all data. Raises ContractError if it changes with labels or conditions.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> common_prior(ppvae.draw(model, guide, torch.zeros(3, 2)), "z").event_shape
        torch.Size([2])
    """
    fn, batch = prior(particles, name), particles.batch
    if (batch.given or batch.label is not None) and not _is_one_density(particles, name):
        raise ContractError(
            f"expected one prior of {name!r} for all data, got one that changes with their labels or conditions; use "
            "MaximumMeanDiscrepancy, which draws from the prior of each datum"
        )
    return fn


def _is_one_density(particles: Particles, name: str) -> bool:
    """Whether the prior of a latent is the same at all draws of other latents and for all data.

    The path of a training step does not ask: :func:`ppvae.fit` asks before the first step, and with each validation.
    """
    if not particles.source.waits:
        return True
    return _same_everywhere(particles.model[name].distribution, particles.guide[name].value)


def _same_everywhere(fn: TorchDistribution, value: Tensor) -> bool:
    """Whether each of a batch of densities gives the first of some values the same density."""
    with torch.no_grad():
        one = value.reshape(-1, *fn.event_shape)[0]
        log_prob = fn.log_prob(one.expand(fn.batch_shape + fn.event_shape))
        return torch.allclose(log_prob, log_prob.flatten()[0], rtol=1e-5, atol=1e-6, equal_nan=True)


def factors(particles: Particles, name: str) -> TorchDistribution:
    """q(z_d | x) for each element d, batch shape (..., B, D). Raises ContractError unless q(z | x) is their product.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> factors(ppvae.draw(model, guide, torch.zeros(3, 2)), "z").batch_shape[-2:]
        torch.Size([3, 2])
    """
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

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> [each.shape for each in moments(ppvae.draw(model, guide, torch.zeros(3, 2)), "z")]
        [torch.Size([1, 3, 2]), torch.Size([1, 3, 2, 2])]
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


def mean_by_formula(fn: Any, expected: str, remedy: str) -> Tensor:
    """The mean of a distribution. Raises ContractError, with what is expected and how to fix it, if it has no formula.

    Example:

        >>> mean_by_formula(torch.distributions.Normal(torch.ones(2), 3.0), "q(z | x)", "use MeanFieldGaussian")
        tensor([1., 1.])
    """
    try:
        return fn.mean
    except (NotImplementedError, AttributeError):
        raise ContractError(f"expected {expected} with a formula for its mean, got {fn}; {remedy}") from None


def cross_log_prob(fn: TorchDistribution, z: Tensor) -> Tensor:
    """log q(z_i | x_j), shape (K, B, B, ...), of draws (K, B, D), i before j; ``...`` is (D,) for :func:`factors`.

    Example:

        >>> fn = torch.distributions.Normal(torch.zeros(3, 2), 1.0)  # q(z_d | x_j) of 3 data, 2 elements
        >>> cross_log_prob(fn, torch.zeros(5, 3, 2)).shape
        torch.Size([5, 3, 3, 2])
    """
    batch = z.shape[1]
    grid = z.transpose(0, 1).unsqueeze(2).expand(-1, -1, batch, -1)  # (i, K, j, D)
    return fn.log_prob(grid).transpose(0, 1)


def _flat(value: Tensor, particles: Particles) -> Tensor:
    return value.reshape(-1, particles.batch_size, value.shape[-1]).expand(particles.num_particles, -1, -1)

"""What a guide puts into the latents: activity, rate, distortion, mutual information.

    rate = E_x KL(q(z | x) || p(z)) = I + KL(q(z) || p(z)),   q(z) = 1/N sum_n q(z | x_n)
    distortion = - E_x E_q log p(x | z)

Source: Burda et al. 2016 (active units); Alemi et al. 2018, "Fixing a Broken ELBO"; Hoffman and Johnson 2016, "ELBO
Surgery".
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pyro
import torch
from pyro.distributions.distribution import Distribution
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from ppvae.engine.checks import check_input, check_parameters, check_weights, to_device_of
from ppvae.engine.contract import check_pair
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import draw, require_can_score
from ppvae.engine.particles import Particles, Site
from ppvae.engine.tracing import distribution_at
from ppvae.errors import ContractError

ACTIVE = 0.01


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Of one latent site over N data; nats.

    Where the pair has other latents, q and p of the site depend on those drawn before it, and E_q is over them too.

    Attributes:
        variance_of_means: Var_x E_q[z_d | x], shape (D,).
        kl_per_dimension: E_x KL(q(z_d | x) || p(z_d)), shape (D,); NaN unless both are products of Normals and what
            p depends on is drawn by the guide before the site.
        rate: E_x KL(q(z | x) || p(z)); over all sites they add up to that of the pair.
        distortion: - E_x E_q log p(x | all latents).
        mutual_information: E_x E_q log q(z | x) / q(z), at most :attr:`log_n`: near it, it says only "at least". NaN
            unless the site is the first that the guide draws.
        aggregate_kl: KL(q(z) || p(z)) = rate - mutual information; NaN unless the site is also the model's first.
        log_n: log N.
    """

    variance_of_means: Tensor
    kl_per_dimension: Tensor
    rate: float
    distortion: float
    mutual_information: float
    aggregate_kl: float
    log_n: float

    @property
    def active_units(self) -> int:
        """Elements with Var_x E_q[z_d | x] > 0.01. Raises ValueError where one draw could not tell."""
        if self.variance_of_means.isnan().any():
            raise ValueError("expected num_particles of at least 2 for a latent whose mean has no formula, got 1")
        return int((self.variance_of_means > ACTIVE).sum())

    def __repr__(self) -> str:
        unknown = self.variance_of_means.isnan().any()
        return (
            f"LatentStatistics({'?' if unknown else self.active_units} of {len(self.variance_of_means)} units active, "
            f"rate {self.rate:.2f}, distortion {self.distortion:.2f}, "
            f"mutual information {self.mutual_information:.2f} (log N = {self.log_n:.2f}), "
            f"aggregate KL {self.aggregate_kl:.2f} nats)"
        )


def latent_statistics(
    model, guide, x: Tensor, *, site: str = "z", num_particles: int = 10, chunk: int = 256, seed: int = 0
) -> LatentStatistics:
    """Statistics of one continuous latent site.

    Args:
        model: generative model.
        guide: its guide, without discrete sites, which must be able to score any value.
        x: data, shape (N, *event_shape).
        site: the latent.
        num_particles: draws for each datum; the mutual information uses the first of them.
        chunk: data that are replayed at once, and draws that are scored at once against as many posteriors.
        seed: of the draws.
    """
    if num_particles < 1 or chunk < 1:
        raise ValueError(f"expected num_particles and chunk of at least 1, got {num_particles} and {chunk}")
    check_parameters(model, guide)
    check_input(x, None)
    x = to_device_of(model, x)
    check_pair(model, guide, x[:4])
    require_can_score(guide)
    blocks = [slice(start, start + chunk) for start in range(0, len(x), chunk)]
    with evaluation_mode(model, guide, device=x.device, seed=seed), pyro.validation_enabled(False):
        parts = [_of_block(model, guide, x[block], site, num_particles) for block in blocks]
        first_of_guide, first_of_model = parts[0].first_of_guide, parts[0].first_of_model
        check_weights(torch.cat([part.log_weight for part in parts], -1))
        rate, information = _mean([part.rate for part in parts]).item(), math.nan
        if first_of_guide:
            z = torch.cat([part.first_draw for part in parts])
            posteriors = (distribution_at(guide, site, x[block]) for block in blocks)
            information = _mutual_information(posteriors, z, chunk)
        means = torch.cat([part.means for part in parts])
        return LatentStatistics(
            variance_of_means=(means.var(0, correction=0) - _mean([part.noise for part in parts])).cpu(),
            kl_per_dimension=_mean([part.kl_per_dimension for part in parts]).cpu(),
            rate=rate,
            distortion=_mean([part.distortion for part in parts]).item(),
            mutual_information=information,
            aggregate_kl=rate - information if first_of_model else math.nan,
            log_n=math.log(len(x)),
        )


@dataclass(frozen=True)
class _Block:
    """What is kept of some of the data, one row a datum."""

    log_weight: Tensor
    rate: Tensor
    distortion: Tensor
    means: Tensor
    noise: Tensor
    kl_per_dimension: Tensor
    first_draw: Tensor
    first_of_guide: bool
    first_of_model: bool


def _of_block(model, guide, x: Tensor, site: str, num_particles: int) -> _Block:
    particles = draw(model, guide, x, num_particles=num_particles)
    if any(s.enumerated for s in particles.guide.values()):
        raise ContractError(f"expected a pair without discrete sites, got {list(particles.guide)}")
    rate = particles.kl(site)
    first_of_guide = site == next(iter(particles.guide))
    means, noise = _means(particles.guide[site], first_of_guide)
    return _Block(
        log_weight=particles.log_weight.logsumexp(0),
        rate=rate,
        distortion=-particles.average(particles.log_likelihood),
        means=means,
        noise=noise,
        kl_per_dimension=_kl_per_dimension(particles, site),
        first_draw=particles.guide[site].value[0].clone(),  # lest it keep all the others
        first_of_guide=first_of_guide,
        first_of_model=site == next(name for name, s in particles.model.items() if not s.observed),
    )


def _mean(parts: list[Tensor]) -> Tensor:
    """Over all data, from the rows of each block."""
    return torch.cat(parts).mean(0)


def _means(q: Site, drawn_first: bool) -> tuple[Tensor, Tensor]:
    """E_q[z_d] of each datum, (B, D): by the mean's formula, else from the draws; and what the noise of K draws adds
    to its variance."""
    try:
        means, exact = q.distribution.mean, drawn_first  # else a mean given other draws
    except NotImplementedError:
        means, exact = q.value, False
    means = means.reshape(*means.shape[:2], -1)  # of a scalar latent too
    if exact:
        return means.mean(0), torch.zeros_like(means[0])
    if len(q.value) == 1:
        return means.mean(0), torch.full_like(means[0], torch.nan)
    return means.mean(0), means.expand(len(q.value), -1, -1).var(0) / len(q.value)


def _mutual_information(posteriors: Iterable[Distribution], z: Tensor, chunk: int) -> float:
    """Mean over n of log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m), for draws z of shape (N, *event)."""
    own, total = [], z.new_full((len(z),), -torch.inf)
    for block, posterior in zip(z.split(chunk), posteriors, strict=True):
        own.append(posterior.log_prob(block))
        scores = [
            posterior.log_prob(part.unsqueeze(1).expand(-1, *block.shape)).logsumexp(1) for part in z.split(chunk)
        ]
        total = torch.logaddexp(total, torch.cat(scores))
    return (torch.cat(own) - total + math.log(len(z))).double().mean().item()


def _kl_per_dimension(particles: Particles, name: str) -> Tensor:
    """Shape (B, D)."""
    q, p = (side[name].distribution for side in (particles.guide, particles.model))
    q, p = (fn.base_dist if isinstance(fn, Independent) else fn for fn in (q, p))
    shape = particles.guide[name].value.shape[1:]
    if not isinstance(q, Normal) or not isinstance(p, Normal) or not particles.prior_drawn_before(name):
        return particles.guide[name].value.new_full((shape[0], shape[1:].numel()), torch.nan)
    return kl_divergence(q, p).expand(-1, *shape).mean(0).reshape(shape[0], -1)

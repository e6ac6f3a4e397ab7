"""What a guide puts into the latents: activity, rate, distortion, mutual information.

    rate = E_x KL(q(z | x) || p(z)) = I + KL(q(z) || p(z)),   q(z) = 1/N sum_n q(z | x_n)
    distortion = - E_x E_q log p(x | z)

Source: Burda et al. 2016 (active units); Alemi et al. 2018, "Fixing a Broken ELBO"; Hoffman and Johnson 2016, "ELBO
Surgery".
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from ppvae.checks import beside, check_input, check_parameters
from ppvae.contract import check_pair
from ppvae.errors import ContractError
from ppvae.isolation import untouched
from ppvae.particles import Particles, Site
from ppvae.replay import draw, require_can_score
from ppvae.tracing import distribution_at

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
        """Elements with Var_x E_q[z_d | x] > 0.01."""
        return int((self.variance_of_means > ACTIVE).sum())

    def __repr__(self) -> str:
        return (
            f"LatentStatistics({self.active_units} of {len(self.variance_of_means)} units active, "
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
        chunk: draws that are scored against all N posteriors at once.
        seed: of the draws.
    """
    if num_particles < 1 or chunk < 1:
        raise ValueError(f"expected num_particles and chunk of at least 1, got {num_particles} and {chunk}")
    check_parameters(model, guide)
    check_input(x, None)
    x = beside(model, x)
    check_pair(model, guide, x[:4])
    require_can_score(guide)
    with untouched(model, guide, device=x.device, seed=seed):
        particles = draw(model, guide, x, num_particles=num_particles)
        if any(s.enumerated for s in particles.guide.values()):
            raise ContractError(f"expected a pair without discrete sites, got {list(particles.guide)}")
        rate, information = particles.kl(site).mean().item(), math.nan
        drawn_first = site == next(iter(particles.guide))
        if drawn_first:
            z = particles.guide[site].value[0]
            information = _mutual_information(distribution_at(guide, site, x), z, chunk)
        first = site == next(name for name, s in particles.model.items() if not s.observed)
        return LatentStatistics(
            variance_of_means=_variance_of_means(particles.guide[site], drawn_first).cpu(),
            kl_per_dimension=_kl_per_dimension(particles, site).cpu(),
            rate=rate,
            distortion=-particles.average(particles.log_likelihood).mean().item(),
            mutual_information=information,
            aggregate_kl=rate - information if first else math.nan,
            log_n=math.log(len(x)),
        )


def _variance_of_means(q: Site, drawn_first: bool) -> Tensor:
    """Var_x E_q[z_d]: by the mean's formula, else from the draws; less what the noise of K draws adds to it."""
    try:
        means, exact = q.distribution.mean.flatten(2), drawn_first  # else a mean given other draws
    except NotImplementedError:
        means, exact = q.value.flatten(2), False
    if not exact and len(q.value) == 1:
        return torch.full(means.shape[2:], torch.nan)
    noise = 0.0 if exact else means.expand(len(q.value), -1, -1).var(0).mean(0) / len(q.value)
    return means.mean(0).var(0, correction=0) - noise


def _mutual_information(posterior, z: Tensor, chunk: int) -> float:
    """Mean over n of log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m), for draws z of shape (N, *event)."""
    own = posterior.log_prob(z)
    parts = [posterior.log_prob(part.unsqueeze(1).expand(-1, *z.shape)).logsumexp(1) for part in z.split(chunk)]
    return (own - torch.cat(parts) + math.log(len(z))).double().mean().item()


def _kl_per_dimension(particles: Particles, name: str) -> Tensor:
    q, p = particles.guide[name], particles.model[name]
    products = all(
        isinstance(s.distribution, Independent) and isinstance(s.distribution.base_dist, Normal) for s in (q, p)
    )
    if not products or not particles.prior_drawn_before(name):
        return torch.full(q.value.shape[2:], torch.nan).flatten()
    per_element = kl_divergence(q.distribution.base_dist, p.distribution.base_dist)
    return per_element.expand(-1, particles.batch_size, *q.value.shape[2:]).flatten(2).mean((0, 1))

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
from ppvae.particles import Site
from ppvae.replay import draw, require_can_score
from ppvae.tracing import distribution_at

ACTIVE = 0.01


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Of one latent site over N data; nats.

    Attributes:
        variance_of_means: Var_x E_q[z_d | x], shape (D,).
        kl_per_dimension: E_x KL(q(z_d | x) || p(z_d)), shape (D,); NaN unless both are products of Normals.
        rate: E_x KL(q(z | x) || p(z)).
        distortion: - E_x E_q log p(x | z).
        mutual_information: E_x E_q log q(z | x) / q(z), at most :attr:`log_n`: near it, it says only "at least".
        log_n: log N.
    """

    variance_of_means: Tensor
    kl_per_dimension: Tensor
    rate: float
    distortion: float
    mutual_information: float
    log_n: float

    @property
    def active_units(self) -> int:
        """Elements with Var_x E_q[z_d | x] > 0.01."""
        return int((self.variance_of_means > ACTIVE).sum())

    @property
    def aggregate_kl(self) -> float:
        """KL(q(z) || p(z)) = rate - mutual information."""
        return self.rate - self.mutual_information

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
        site: the latent; the first that the guide draws and the first of the model, so that neither q(z | x) nor
            p(z) depends on another latent.
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
        latents = [s.name for s in particles.model.values() if not s.observed]
        if any(s.enumerated for s in particles.guide.values()) or {latents[0], next(iter(particles.guide))} != {site}:
            raise ContractError(
                f"expected a pair without discrete sites of which both sides draw {site!r} first, so that its q and p "
                f"depend on no other latent; got {list(particles.guide)} and {latents}"
            )
        q, p = particles.guide[site], particles.model[site]
        return LatentStatistics(
            variance_of_means=_variance_of_means(q).cpu(),
            kl_per_dimension=_kl_per_dimension(q, p, len(x)).cpu(),
            rate=particles.kl(site).mean().item(),
            distortion=-particles.average(particles.log_likelihood).mean().item(),
            mutual_information=_mutual_information(distribution_at(guide, site, x), q.value[0], chunk),
            log_n=math.log(len(x)),
        )


def _variance_of_means(q: Site) -> Tensor:
    """Var_x E_q[z_d]: by the mean's formula, else from the draws, less what their own noise adds to it."""
    try:
        return q.distribution.mean[0].flatten(1).var(0, correction=0)
    except NotImplementedError:
        z = q.value.flatten(2)
        noise = z.var(0).mean(0) / len(z) if len(z) > 1 else torch.nan
        return z.mean(0).var(0, correction=0) - noise


def _mutual_information(posterior, z: Tensor, chunk: int) -> float:
    """Mean over n of log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m), for draws z of shape (N, *event)."""
    own = posterior.log_prob(z)
    parts = [posterior.log_prob(part.unsqueeze(1).expand(-1, *z.shape)).logsumexp(1) for part in z.split(chunk)]
    return (own - torch.cat(parts) + math.log(len(z))).double().mean().item()


def _kl_per_dimension(q: Site, p: Site, rows: int) -> Tensor:
    of = (q.distribution, p.distribution)
    if not all(isinstance(fn, Independent) and isinstance(fn.base_dist, Normal) for fn in of):
        return torch.full(q.value.shape[2:], torch.nan).flatten()
    per_element = kl_divergence(q.distribution.base_dist, p.distribution.base_dist)
    return per_element.expand(-1, rows, *q.value.shape[2:]).flatten(2).mean((0, 1))

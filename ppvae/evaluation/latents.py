"""Statistics of a latent: active units, rate, distortion, mutual information.

    rate = E_x KL(q(z | x) || p(z)) = I + KL(q(z) || p(z)),   q(z) = 1/N sum_n q(z | x_n)
    distortion = - E_x E_q log p(x | z)

Source: Burda et al. 2016 (active units); Alemi et al. 2018, "Fixing a Broken ELBO"; Hoffman and Johnson 2016, "ELBO
Surgery".
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Particles
from ppvae.engine.requirements import require_can_score
from ppvae.engine.sites import Site
from ppvae.engine.tracing import distribution_at
from ppvae.errors import ContractError
from ppvae.evaluation.progress import blocks
from ppvae.evaluation.requirements import require_known
from ppvae.objectives.base import require_count

ACTIVE = 0.01
REFERENCES = 8  # draws at which the priors of different data are compared


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Of one latent site over N data; in nats.

    Where the pair has other latents, q and p of the site depend on those drawn before it, and E_q is over them too.
    Where the pair is given labels or conditions, q and p depend on those of each datum.

    Attributes:
        variance_of_means: Var_x E_q[z_d | x], shape (D,).
        kl_per_dimension: E_x KL(q(z_d | x) || p(z_d)), shape (D,); NaN unless both are products of Normals and what
            p depends on is drawn by the guide before the site.
        rate: E_x KL(q(z | x) || p(z)); over all sites they add up to the rate of the pair.
        distortion: - E_x E_q log p(x | all latents).
        mutual_information: E_x E_q log q(z | x) / q(z), at most :attr:`log_n`; close to log N it is only a lower
            bound. NaN unless the site is the first that the guide draws.
        aggregate_kl: KL(q(z) || p(z)) = rate - mutual information; NaN unless the site is also the first of the model,
            with the same prior for all data. Where the prior depends on a condition or a label there is no single p(z),
            and the rate has no such split.
        log_n: log N.

    Example:

        >>> found = LatentStatistics(
        ...     variance_of_means=torch.tensor([0.9, 0.001]), kl_per_dimension=torch.tensor([1.0, 0.0]), rate=1.0,
        ...     distortion=5.0, mutual_information=0.8, aggregate_kl=0.2, log_n=4.6,
        ... )
        >>> found.active_units
        1
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
        """Elements with Var_x E_q[z_d | x] > 0.01. Raises ValueError where they cannot be estimated from one draw."""
        if self.variance_of_means.isnan().any():
            raise ValueError("expected num_particles of at least 2 for a latent with a mean without formula, got 1")
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
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    site: str = "z",
    num_particles: int = 10,
    chunk: int = 256,
    seed: int = 0,
    **given: Array,
) -> LatentStatistics:
    """Statistics of one continuous latent site.

    Args:
        model: generative model.
        guide: its guide, without discrete sites, which must be able to score any value.
        data: a ``Dataset``, a tensor or a numpy array of shape (N, *event_shape).
        y: labels, all known, shape (N,); or None.
        site: the latent.
        num_particles: draws for each datum; the mutual information uses the first of them.
        chunk: data that are replayed at once, and draws that are scored at once against as many posteriors.
        seed: of the draws.
        given: conditions of N rows each.

    Raises:
        ContractError: the pair or the data break the contract, a site is discrete, the guide cannot score, or the
            weights of a datum are not finite.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> ppvae.latent_statistics(model, guide, torch.randn(100, 2)).kl_per_dimension.shape
        torch.Size([2])
    """
    num_particles, chunk = require_count("num_particles", num_particles), require_count("chunk", chunk)
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        first_of_guide, first_of_model = _first_latents(pair, batch, site)
        rows = blocks(len(batch), chunk)
        found = _Rows.joined([_statistics_of(pair, batch, block, site, num_particles) for block in rows])
        rate, information, one_prior = found.rate.mean().item(), math.nan, False
        if first_of_guide == site:
            posteriors = (distribution_at(guide, site, batch.rows(block)) for block in rows)
            information = _mutual_information(posteriors, found.draw, chunk)
        if first_of_model == site:
            priors = (distribution_at(model, site, batch.rows(block)) for block in rows)
            one_prior = _are_same(priors, found.draw[:REFERENCES])
    return LatentStatistics(
        variance_of_means=(found.mean.var(0, correction=0) - found.noise.mean(0)).cpu(),
        kl_per_dimension=found.kl_per_dimension.mean(0).cpu(),
        rate=rate,
        distortion=found.distortion.mean().item(),
        mutual_information=information,
        aggregate_kl=rate - information if one_prior else math.nan,
        log_n=math.log(len(batch)),
    )


def _first_latents(pair: Pair, batch: Batch, site: str) -> tuple[str, str]:
    """The latent that the guide, and the one that the model draws first. Raises ContractError for discrete sites."""
    require_known(batch)
    require_can_score(pair.guide)
    with forked_randomness(batch.x.device):
        particles = pair.draw(batch.rows(slice(0, 1)))
        if any(latent.enumerated for latent in particles.guide.values()):
            raise ContractError(f"expected a pair without discrete sites, got {list(particles.guide)}")
        particles.latent(site)
        return next(iter(particles.guide)), next(name for name, s in particles.model.items() if not s.observed)


@dataclass(frozen=True)
class _Rows:
    """What is kept of some of the data, one row a datum."""

    rate: Tensor
    distortion: Tensor
    mean: Tensor
    noise: Tensor
    kl_per_dimension: Tensor
    draw: Tensor

    @classmethod
    def joined(cls, parts: Sequence["_Rows"]) -> "_Rows":
        """The rows of all parts."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def _statistics_of(pair: Pair, batch: Batch, block: slice, site: str, num_particles: int) -> _Rows:
    particles = pair.draw(batch.rows(block), num_particles)
    check_weights(particles.log_weight, block.start)
    q = particles.guide[site]
    mean, noise = _means(q, exact=site == next(iter(particles.guide)))
    return _Rows(
        rate=particles.kl(site),
        distortion=-particles.average(particles.log_likelihood),
        mean=mean,
        noise=noise,
        kl_per_dimension=_kl_per_dimension(particles, site),
        draw=q.value[0].clone(),  # a view would keep all of the draws in memory
    )


def _means(q: Site, exact: bool) -> tuple[Tensor, Tensor]:
    """E_q[z_d] of each datum, (B, D), and the variance that the noise of K draws adds.

    By the formula of the mean, else from the draws. ``exact`` tells whether q depends on no other draw.
    """
    try:
        means = q.distribution.mean
    except NotImplementedError:
        means, exact = q.value, False
    means = means.reshape(*means.shape[:2], -1)  # of a scalar latent too
    if exact:
        return means.mean(0), torch.zeros_like(means[0])
    if len(q.value) == 1:
        return means.mean(0), torch.full_like(means[0], torch.nan)
    return means.mean(0), means.expand(len(q.value), -1, -1).var(0) / len(q.value)


def _mutual_information(posteriors: Iterable[TorchDistribution], z: Tensor, chunk: int) -> float:
    """Mean over n of log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m), for draws z of shape (N, *event)."""
    own, total = [], z.new_full((len(z),), -torch.inf)
    for block, posterior in zip(z.split(chunk), posteriors, strict=True):
        own.append(posterior.log_prob(block))
        scores = [
            posterior.log_prob(part.unsqueeze(1).expand(-1, *block.shape)).logsumexp(1) for part in z.split(chunk)
        ]
        total = torch.logaddexp(total, torch.cat(scores))
    return (torch.cat(own) - total + math.log(len(z))).double().mean().item()


def _are_same(priors: Iterable[TorchDistribution], z: Tensor) -> bool:
    """Whether all data have the same prior, judged by its density at a few values z (R, *event)."""
    values = z.unsqueeze(1)
    log_prob = torch.cat([prior.log_prob(values).expand(len(z), *prior.batch_shape) for prior in priors], 1)
    return torch.allclose(log_prob, log_prob[:, :1].expand_as(log_prob), rtol=1e-5, atol=1e-6)


def _kl_per_dimension(particles: Particles, name: str) -> Tensor:
    """Shape (B, D)."""
    q, p = (side[name].distribution for side in (particles.guide, particles.model))
    q, p = (fn.base_dist if isinstance(fn, Independent) else fn for fn in (q, p))
    shape = particles.guide[name].value.shape[1:]
    if not isinstance(q, Normal) or not isinstance(p, Normal) or not particles.prior_drawn_before(name):
        return particles.guide[name].value.new_full((shape[0], shape[1:].numel()), torch.nan)
    return kl_divergence(q, p).expand(-1, *shape).mean(0).reshape(shape[0], -1)

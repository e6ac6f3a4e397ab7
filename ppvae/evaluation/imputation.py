"""Missing elements of data, from the model: mean and draws of p(x_missing | x_seen).

    w_k = p(x_seen, z_k) / q(z_k | x_seen),   z_k ~ q,   v_k = w_k / sum w

    E[x_missing | x_seen]  ~  sum_k v_k E[x_missing | z_k]        x_missing ~ p(x_missing | z_k),  k ~ v

Source: Mattei and Frellsen 2019, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", equations
12 and 13.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Draws, Particles
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError
from ppvae.evaluation.generation import mean_or_draw
from ppvae.evaluation.likelihood.marginal import Weights, weights_of
from ppvae.evaluation.progress import blocks, tracked
from ppvae.objectives.base import require_count


@dataclass(frozen=True, eq=False)
class Imputation:
    """The missing elements of B data given those that are seen. Made by :func:`ppvae.impute`.

    Attributes:
        mean: E[x_missing | x_seen], shape (B, *event_shape); the seen elements are those of the data.
        standard_error: Monte Carlo standard error of ``mean`` by the delta method, the same shape; 0 at seen elements,
            NaN with one particle. It is reliable only where ``weights.khat`` is at most :func:`ppvae.khat_limit` of K.
        samples: draws of p(x_missing | x_seen), shape (num_samples, B, *event_shape); the seen elements are those of
            the data. The draws of one datum are resampled from the same K draws of the guide.
        weights: the guide's weights. Their value is log p(x_seen) of each datum, in nats.

    Example:

        >>> weights = weights_of(torch.zeros(100, 1, dtype=torch.float64))
        >>> mean = torch.tensor([[0.5, 1.0]])
        >>> Imputation(mean, torch.tensor([[0.1, 0.0]]), mean.unsqueeze(0), weights)
        Imputation(1 data; 100 particles, median ess 100.0, k-hat bad in 0.0%)
    """

    mean: Tensor
    standard_error: Tensor
    samples: Tensor
    weights: Weights

    @property
    def ess(self) -> Tensor:
        """Effective sample size of each datum's weights, from 1 to K, shape (B,)."""
        return self.weights.ess

    @property
    def is_reliable(self) -> bool:
        """Whether k-hat is within its limit for 95% of the data.

        If not, means and draws lie between those of the guide and those of the posterior.
        """
        return self.weights.is_reliable

    def __repr__(self) -> str:
        found = self.weights
        return (
            f"Imputation({len(self.mean)} data; {found.num_particles} particles, median ess {found.median_ess:.1f}, "
            f"k-hat {'unknown' if math.isnan(found.khat_bad) else f'bad in {found.khat_bad:.1%}'})"
        )


def impute(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    num_samples: int = 5,
    num_particles: int = 1000,
    chunk: int = 10_000,
    seed: int = 0,
    progress: bool = False,
    **given: Array,
) -> Imputation:
    """Mean and draws of the missing elements of each datum given the seen ones, by self-normalised importance sampling.

        E[x_missing | x_seen]  ~  sum_k w_k E[x_missing | z_k] / sum_k w_k,   w_k = p(x_seen, z_k) / q(z_k | x_seen)

    NaN marks a missing element. The elements of x must be independent given the latents, as they are for likelihoods
    with ``missing=True``. Discrete sites are summed exactly in the mean. Where the distribution of x has no formula for
    its mean, a draw takes its place.

    Args:
        model: generative model.
        guide: its guide, which reads data with missing elements; see :class:`ppvae.nn.FillMissing`.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape), each row with a seen element.
        y: labels, shape (B,), -1 where unknown; or None.
        num_samples: draws of the missing elements of each datum.
        num_particles: weights of each datum, K.
        chunk: pairs of a particle and a datum that are evaluated at once; all particles of at least one datum are.
        seed: of the draws; the caller's random state does not change.
        progress: show a progress bar.
        given: conditions of B rows each.

    Raises:
        ContractError: the pair or the data break the contract, NaN where the likelihood does not take it, a row without
            a seen element, q is not a density over the prior's whole space, or the weights of a datum have no finite
            sum.
        TypeError, ValueError: arguments of a wrong type or out of range.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.ones(2, 1), torch.zeros(2), missing=True)
        >>> guide = MeanFieldGaussian(ppvae.nn.FillMissing(ppvae.nn.MLP(4, [], 2)))
        >>> found = ppvae.impute(model, guide, torch.tensor([[1.0, torch.nan], [1.0, 2.0]]), num_samples=3)
        >>> found.mean.shape, found.samples.shape, found.mean[1]
        (torch.Size([2, 2]), torch.Size([3, 2, 2]), tensor([1., 2.]))
    """
    num_samples = require_count("num_samples", num_samples)
    num_particles = require_count("num_particles", num_particles)
    rows = max(1, require_count("chunk", chunk) // num_particles)
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        _require_seen(batch.x)
        mean, error = torch.empty_like(batch.x), torch.empty_like(batch.x)
        samples = batch.x.new_empty(num_samples, *batch.x.shape)
        log_weight = torch.empty(num_particles, len(batch), dtype=torch.float64)
        for block in tracked(blocks(len(batch), rows), "impute", progress):
            part = batch.rows(block)
            particles = pair.draw(part, num_particles)
            check_weights(particles.log_weight, block.start)
            log_weight[:, block] = particles.log_weight
            share = _shares(particles)
            mean[block], error[block] = _moments(particles, share)
            samples[:, block] = _resampled(pair, particles, share, num_samples)
        missing = batch.x.isnan()
        mean, samples = (torch.where(missing, filled, batch.x) for filled in (mean, samples))
        return Imputation(mean, error.masked_fill(~missing, 0.0), samples, weights_of(log_weight))


def _require_seen(x: Tensor) -> None:
    """Raise ContractError for a row of x that is missing altogether."""
    empty = x.reshape(len(x), -1).isnan().all(1)
    if empty.any():
        raise ContractError(
            f"expected at least one seen element in each row of x, got nothing but NaN in {int(empty.sum())} of "
            f"{len(x)} rows, the first at row {int(empty.nonzero()[0])}; leave these rows out, or draw them by "
            "ppvae.sample(model, num_samples)"
        )


def _shares(particles: Particles) -> Tensor:
    """Normalised weights of each datum, shape (enumeration..., K, B), in the type of x."""
    log_weight = particles.joint_log_weight.double()
    return log_weight.flatten(0, -2).softmax(0).reshape(log_weight.shape).to(particles.batch.x.dtype)


def _moments(particles: Particles, share: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean of E[x | z] and its standard error, each (B, *event_shape).

    The error is that of a ratio of means over particles: the enumerated values of one particle are one term.
    """
    x = particles.batch.x
    values = mean_or_draw(particles.model[OBSERVED].distribution).expand(*share.shape, *x.shape[1:])
    values = values.reshape(-1, *share.shape[-2:], *x.shape[1:])  # (enumeration, K, B, *event_shape)
    share = share.reshape(*values.shape[:3], *[1] * (x.dim() - 1))
    mean = (share * values).sum((0, 1))
    count = values.shape[1]
    correction = math.sqrt(count / (count - 1)) if count > 1 else math.nan
    return mean, correction * (share * (values - mean)).sum(0).square().sum(0).sqrt()


def _resampled(pair: Pair, particles: Particles, share: Tensor, num_samples: int) -> Tensor:
    """Draws of x at latents that are drawn from the particles by their weights, (num_samples, B, *event_shape)."""
    batch = particles.batch
    chosen = torch.multinomial(share.flatten(0, -2).T, num_samples, replacement=True).T
    rows = torch.arange(len(batch), device=chosen.device)
    values: Draws = {}
    for name, site in particles.guide.items():
        event = site.distribution.event_shape
        flat = site.value.expand(*share.shape, *event).reshape(-1, len(batch), *event)
        values[name] = flat[chosen, rows]
    x = pair.model_at(batch, values, num_samples)[OBSERVED].distribution.sample()
    return x.expand(num_samples, *batch.x.shape).to(batch.x.dtype)

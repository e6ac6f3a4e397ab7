"""Codes of a whole grid of ground-truth factors: the input of every disentanglement metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from ppvae.data import Dataset, Factors
from ppvae.engine.batch import Batch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import distribution_at
from ppvae.errors import ContractError, DataError
from ppvae.evaluation.binarization import most_probable
from ppvae.evaluation.progress import tracked

FIRST_ROWS = 4  # on which the pair is checked
MEAN_DRAWS = 32  # draws of a posterior without a closed-form mean
PRIOR_DRAWS = 64  # draws of the preceding latents, for which a prior that depends on none of them must be the same

Sample = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Representation:
    """Posteriors of one latent site over a grid of factors, N rows and D dimensions.

    Attributes:
        factors: of the rows; row n is the n-th combination.
        codes: E_q[z | x_n], shape (N, D), floating and finite.
        scales: standard deviations of q(z | x_n), shape (N, D), where it is a product of Normals; else None.
        kl: E_x KL(q(z_d | x) || p(z_d)), shape (D,), nats, where both are products of Normals and p depends on no
            other latent; else None.
        prior: p(z_d), batch shape (D,), where it is a product of Normals that is the same for every datum and does not
            depend on other latents; else None.

    Raises DataError where codes, scales or kl are no floating tensors or disagree in shape, where a code is not finite
    or a KL is NaN, and where no factor has two values.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> r = Representation(grid, grid.values(torch.arange(12)).float())
        >>> r.codes.shape, r.sizes
        (torch.Size([12, 2]), (3, 4))
    """

    factors: Factors
    codes: Tensor
    scales: Tensor | None = None
    kl: Tensor | None = None
    prior: Normal | None = None

    def __post_init__(self) -> None:
        _require_floating("codes", self.codes)
        if self.codes.dim() != 2 or len(self.codes) != len(self.factors) or self.codes.shape[1] == 0:
            raise DataError(
                f"expected codes of shape ({len(self.factors)}, D), one row for each combination of factors, got "
                f"{tuple(self.codes.shape)}"
            )
        if not torch.isfinite(self.codes).all():
            row = int((~torch.isfinite(self.codes)).any(1).nonzero()[0])
            raise DataError(f"expected finite codes, got {self.codes[row].tolist()} first in row {row}")
        if max(self.factors.sizes) < 2:
            raise DataError(f"expected a factor of at least two values, got {self.factors}")
        self._check_scales_and_kl()

    def _check_scales_and_kl(self) -> None:
        if self.scales is not None:
            _require_floating("scales", self.scales)
            if self.scales.shape != self.codes.shape:
                raise DataError(f"expected scales of the shape of the codes, got {tuple(self.scales.shape)}")
        if self.kl is not None:
            _require_floating("kl", self.kl)
            if self.kl.shape != self.codes.shape[1:] or self.kl.isnan().any():
                raise DataError(
                    f"expected a KL, not NaN, for each of the {self.codes.shape[1]} dimensions, got {self.kl.tolist()}"
                )

    @cached_property
    def varying(self) -> Factors:
        """The factors of more than one value, to which all metrics are restricted. The rows keep their numbers."""
        kept = [(name, size) for name, size in zip(self.factors.names, self.factors.sizes, strict=True) if size > 1]
        return Factors(tuple(name for name, _ in kept), tuple(size for _, size in kept))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each varying factor, F of them."""
        return self.varying.sizes

    def at(self, values: np.ndarray) -> np.ndarray:
        """Codes, shape (..., D), at values (..., F) of the varying factors."""
        return self._array[np.ravel_multi_index(tuple(np.moveaxis(values, -1, 0)), self.sizes)]

    def sample(self, rows: int, rng: np.random.Generator) -> Sample:
        """Codes, float64 (rows, D), and values of the varying factors, (rows, F), of rows drawn with replacement.

        Raises ValueError for less than one row.
        """
        require_at_least(1, rows=rows)
        values = rng.integers(self.sizes, size=(rows, len(self.sizes)))
        return self.at(values).astype(np.float64), values

    def drawn(self, seed: int = 0) -> "Representation":
        """The same representation, with one draw z ~ N(codes, scales^2) of each posterior as its codes.

        Raises DataError without scales.
        """
        if self.scales is None:
            raise DataError("expected scales, to draw from q(z | x) as a product of Normals, got none")
        generator = torch.Generator(self.codes.device).manual_seed(seed)
        noise = torch.randn(self.codes.shape, generator=generator, device=self.codes.device, dtype=self.codes.dtype)
        return replace(self, codes=self.codes + self.scales * noise)

    @cached_property
    def _array(self) -> np.ndarray:
        codes = self.codes.detach().cpu()
        return (codes if codes.dtype == torch.float64 else codes.float()).numpy()  # numpy has no bfloat16


def _require_floating(name: str, value: object) -> None:
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DataError(f"expected {name} to be a floating torch tensor, got {kind}; convert it")


def require_at_least(minimum: int, **settings: int) -> None:
    """Raise ValueError unless each setting is a whole number of at least ``minimum``.

    Example:

        >>> from ppvae.evaluation.disentanglement.representation import require_at_least
        >>> require_at_least(1, num_train=0)
        Traceback (most recent call last):
        ValueError: expected a whole number of at least 1 for num_train, got 0
    """
    for name, value in settings.items():
        if not isinstance(value, Integral) or value < minimum:
            raise ValueError(f"expected a whole number of at least {minimum} for {name}, got {value!r}")


def represent(
    model: nn.Module,
    guide: nn.Module,
    data: Dataset,
    *,
    site: str = "z",
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> Representation:
    """Codes of data made from ground-truth factors, by one pass of a guide in evaluation mode.

    Args:
        model: generative model; only its prior is used.
        guide: its guide. Where ``site`` depends on other latents, q is conditioned on draws of them.
        data: with ``factors``; data with dynamic binarization are taken at their most probable binarization.
        site: the latent, which must be continuous.
        batch_size: rows at once.
        seed: of the draws: the latents before ``site``, and 32 draws for a mean without a closed form.
        progress: show a progress bar.

    Raises DataError for data without factors, ContractError where the guide does not draw ``site`` or it is discrete.

    Example:

        >>> import torch
        >>> from ppvae.data import Dataset, Factors
        >>> from ppvae.evaluation.disentanglement import represent
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> from ppvae.nn import MLP
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> data = Dataset(grid.values(torch.arange(12)).float(), factors=grid)
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2), 0.5), MeanFieldGaussian(MLP(2, [], 4))
        >>> represent(model, guide, data).codes.shape
        torch.Size([12, 2])
    """
    factors = factors_of(data)
    first = most_probable(data, torch.arange(min(FIRST_ROWS, len(data))))
    with evaluation(model, guide, first, seed=seed, reads_likelihood=False) as (pair, first):
        drawn_first = _is_first_latent(site, pair, first)
        repeated = first.rows(torch.arange(len(first)).repeat(PRIOR_DRAWS))
        prior = _prior(distribution_at(model, site, repeated))
        has_prior = drawn_first or prior is not None  # that is a function of the datum at most
        parts = []
        for index in tracked(torch.arange(len(data)).split(batch_size), "codes", progress):
            batch = most_probable(data, index).to(first.x.device)
            p = distribution_at(model, site, batch) if has_prior else None
            q = distribution_at(guide, site, batch)
            prior = prior if prior is not None and p is not None and _is_same(prior, _prior(p)) else None
            parts.append(_statistics(mean_of(q, site), q, p))
    means, scales, kls = zip(*parts, strict=True)
    kl = _joined(kls)
    return Representation(
        factors, torch.cat(means), _joined(scales), None if kl is None else kl.double().mean(0).float(), prior
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The rows of all parts; None where a part has none."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def _is_first_latent(site: str, pair: Pair, batch: Batch) -> bool:
    """Whether the model draws the site before all other latents."""
    return site == next((name for name, s in pair.prior(batch, 1).items() if not s.observed), None)


def _is_same(prior: Normal, other: Normal | None) -> bool:
    return other is not None and torch.equal(prior.loc, other.loc) and torch.equal(prior.scale, other.scale)


def factors_of(data: Dataset) -> Factors:
    """The ground-truth factors of a data set. Raises DataError without factors.

    Example:

        >>> factors_of(Dataset(torch.zeros(2, 1), factors=Factors(("a",), (2,)))).sizes
        (2,)
    """
    factors = getattr(data, "factors", None)
    if factors is None:
        got = repr(data.name) if isinstance(data, Dataset) else f"a {type(data).__name__}"
        raise DataError(
            f"expected data made from ground-truth factors, got {got} without factors; use all rows of "
            '"sprites", "dsprites" or "shapes3d", or pass Dataset(x, factors=Factors(...))'
        )
    return factors


def mean_of(q: TorchDistribution, site: str) -> Tensor:
    """E_q[z], shape (B, *event_shape): in closed form if q has one, otherwise the mean of 32 draws.

    Args:
        q: the distribution at ``site``.
        site: its name, for the error.

    Raises ContractError where q is discrete.

    Example:

        >>> import torch
        >>> from pyro import distributions as dist
        >>> from ppvae.evaluation.disentanglement.representation import mean_of
        >>> mean_of(dist.Normal(torch.ones(3, 2), 0.5).to_event(1), "z").shape
        torch.Size([3, 2])
    """
    if q.support is not None and q.support.is_discrete:
        raise ContractError(f"expected a continuous latent at site {site!r}, got a {type(q).__name__}")
    try:
        return q.mean
    except NotImplementedError:
        return q.sample((MEAN_DRAWS,)).mean(0)


def _statistics(
    mean: Tensor, q: TorchDistribution, p: TorchDistribution | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Means, scales and KL per dimension of some rows, each (B, D) or None, on the CPU."""
    base_q, base_p = _base(q), None if p is None else _base(p)
    if not isinstance(base_q, Normal):
        return _per_row(mean), None, None
    scale = _per_row(base_q.scale.expand_as(mean))
    if not isinstance(base_p, Normal):
        return _per_row(mean), scale, None
    return _per_row(mean), scale, _per_row(kl_divergence(base_q, base_p).expand_as(mean))


def _prior(p: TorchDistribution) -> Normal | None:
    """p(z_d), batch shape (D,), on the CPU; None unless it is a product of Normals and the same for every row."""
    base = _base(p)
    if not isinstance(base, Normal):
        return None
    loc, scale = (_per_row(part.expand(base.batch_shape)) for part in (base.loc, base.scale))
    same = (loc == loc[0]).all() and (scale == scale[0]).all()
    return Normal(loc[0], scale[0]) if same else None


def _base(distribution: Distribution) -> Distribution:
    """The distribution of single elements, if it was declared independent; else the distribution itself."""
    return distribution.base_dist if isinstance(distribution, Independent) else distribution


def _per_row(values: Tensor) -> Tensor:
    """Values (B, *event_shape) as (B, D), on the CPU in single precision."""
    return values.reshape(len(values), -1).float().cpu()

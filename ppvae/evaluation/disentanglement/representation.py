"""The codes of a whole grid of ground-truth factors: what every disentanglement metric is a function of."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyro
import torch
from pyro.distributions.distribution import Distribution
from rich.progress import track
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from ppvae.data import Dataset, Factors
from ppvae.engine.checks import check_parameters, to_device_of
from ppvae.engine.contract import check_pair
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import draw
from ppvae.engine.tracing import distribution_at
from ppvae.errors import ContractError, DataError

DRAWS = 32  # for the mean of a posterior that has no formula for it
AGAIN = 64  # draws of the latents before one, for which its prior must be the same to depend on none


@dataclass(frozen=True, eq=False)
class Representation:
    """Posteriors of one latent site over a grid of factors, N rows and D dimensions.

    Attributes:
        factors: of the rows; row n is their n-th combination.
        codes: E_q[z | x_n], shape (N, D).
        scales: standard deviations of q(z | x_n), shape (N, D), where it is a product of Normals; else None.
        kl: E_x KL(q(z_d | x) || p(z_d)), shape (D,), nats, where both are products of Normals and p depends on no
            other latent; else None.
        prior: p(z_d), batch shape (D,), where it is a product of Normals, the same for every datum and whatever the
            other latents are; else None.

    Raises DataError for what is no floating tensor, where shapes disagree, a code is not finite or a KL is NaN, and
    where no factor has two values.
    """

    factors: Factors
    codes: Tensor
    scales: Tensor | None = None
    kl: Tensor | None = None
    prior: Normal | None = None

    def __post_init__(self) -> None:
        for name in ("codes", "scales", "kl"):
            value = getattr(self, name)
            if not (isinstance(value, Tensor) and value.is_floating_point()) and (name == "codes" or value is not None):
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise DataError(f"expected {name} to be a floating torch tensor, got {kind}; convert it")
        if self.codes.dim() != 2 or len(self.codes) != len(self.factors) or self.codes.shape[1] == 0:
            raise DataError(
                f"expected codes of shape ({len(self.factors)}, D), one row a combination of factors, got "
                f"{tuple(self.codes.shape)}"
            )
        if self.scales is not None and self.scales.shape != self.codes.shape:
            raise DataError(f"expected scales of the codes' shape, got {tuple(self.scales.shape)}")
        if self.kl is not None and (self.kl.shape != self.codes.shape[1:] or self.kl.isnan().any()):
            raise DataError(
                f"expected a KL, not NaN, for each of the {self.codes.shape[1]} dimensions, got {self.kl.tolist()}"
            )
        if not torch.isfinite(self.codes).all():
            row = int((~torch.isfinite(self.codes)).any(1).nonzero()[0])
            raise DataError(f"expected finite codes, got {self.codes[row].tolist()} first in row {row}")
        if max(self.factors.sizes) < 2:
            raise DataError(f"expected a factor of at least two values, got {self.factors}")

    @cached_property
    def varying(self) -> Factors:
        """The factors of more than one value, the only ones that a metric sees; they number the rows as all do."""
        kept = [(name, size) for name, size in zip(self.factors.names, self.factors.sizes, strict=True) if size > 1]
        return Factors(*zip(*kept, strict=True))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each varying factor, F of them."""
        return self.varying.sizes

    def at(self, values: np.ndarray) -> np.ndarray:
        """Codes (..., D) of values (..., F) of the varying factors."""
        return self._array[np.ravel_multi_index(np.moveaxis(values, -1, 0), self.sizes)]

    def sample(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Codes, float64 (rows, D), and values of the varying factors, (rows, F), of rows drawn with replacement."""
        at_least(1, rows=rows)
        values = rng.integers(self.sizes, size=(rows, len(self.sizes)))
        return self.at(values).astype(np.float64), values

    def drawn(self, seed: int = 0) -> "Representation":
        """The same with a draw z ~ N(codes, scales^2) of each posterior for codes. Raises DataError without scales."""
        if self.scales is None:
            raise DataError("expected scales, to draw from q(z | x) as a product of Normals, got none")
        generator = torch.Generator(self.codes.device).manual_seed(seed)
        noise = torch.randn(self.codes.shape, generator=generator, device=self.codes.device, dtype=self.codes.dtype)
        return replace(self, codes=self.codes + self.scales * noise)

    @cached_property
    def _array(self) -> np.ndarray:
        codes = self.codes.detach().cpu()
        return (codes if codes.dtype == torch.float64 else codes.float()).numpy()  # numpy has no bfloat16


def at_least(least: int, **settings: int) -> None:
    """Raise ValueError where a setting is below its least."""
    for name, value in settings.items():
        if value < least:
            raise ValueError(f"expected {name} of at least {least}, got {value}")


def represent(
    model, guide, data: Dataset, *, site: str = "z", batch_size: int = 128, seed: int = 0, progress: bool = False
) -> Representation:
    """One pass of a guide, in evaluation mode, over data made from ground-truth factors.

    Args:
        model: generative model; of it only the prior is read.
        guide: its guide. Where ``site`` depends on other latents, q is the one at draws of them.
        data: with ``factors``; rows that would be binarized anew are taken at their most probable binarization.
        site: the latent.
        batch_size: rows at once.
        seed: of what is drawn: latents before ``site``, a mean without a formula (32 draws).
        progress: show a progress bar.

    Raises DataError for data without factors, ContractError where the guide does not draw ``site`` or it is discrete.
    """
    factors = _factors_of(data)
    check_parameters(model, guide)
    first = to_device_of(model, data.most_probable(torch.arange(min(4, len(data)))))
    check_pair(model, guide, first)
    blocks = torch.arange(len(data)).split(batch_size)
    with evaluation_mode(model, guide, device=first.device, seed=seed), pyro.validation_enabled(False):
        particles = draw(model, guide, first, num_particles=1)
        drawn_first = site == next((name for name, s in particles.model.items() if not s.observed), None)
        prior = _prior(distribution_at(model, site, first.repeat(AGAIN, *[1] * (first.dim() - 1))))
        has_prior = drawn_first or prior is not None  # that is a function of the datum at most
        parts = []
        for index in track(blocks, "codes") if progress else blocks:
            x = to_device_of(model, data.most_probable(index))
            p = distribution_at(model, site, x) if has_prior else None
            q = distribution_at(guide, site, x)
            parts.append(_statistics(mean_of(q, site), q, p))
    codes, scales, kl = (None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))
    return Representation(factors, codes, scales, None if kl is None else kl.double().mean(0).float(), prior)


def _factors_of(data: Dataset) -> Factors:
    """The ground-truth factors of a data set. Raises DataError where it has none."""
    factors = getattr(data, "factors", None)
    if factors is None:
        raise DataError(
            f"expected data made from ground-truth factors, got {_name_of(data)} which "
            'has none; take all of "sprites", "dsprites" or "shapes3d", or give Dataset(x, factors=Factors(...))'
        )
    return factors


def _name_of(data) -> str:
    return repr(data.name) if isinstance(data, Dataset) else f"a {type(data).__name__}"


def mean_of(q: Distribution, site: str) -> Tensor:
    """E_q[z], shape (B, *event_shape), of the distribution at ``site``: by its formula, else the mean of 32 draws.

    Raises ContractError where it is discrete.
    """
    if q.support.is_discrete:
        raise ContractError(
            f"expected a continuous site, got {site!r}, a {type(q).__name__}: its values are names, not places"
        )
    try:
        return q.mean
    except NotImplementedError:
        return q.sample((DRAWS,)).mean(0)


def _statistics(mean: Tensor, q: Distribution, p: Distribution | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Means, scales and KL per dimension of some rows, each (B, D) or None, on the CPU."""
    rows = q.batch_shape[0]
    q, p = (fn.base_dist if isinstance(fn, Independent) else fn for fn in (q, p))
    scale = q.scale.expand_as(mean) if isinstance(q, Normal) else None
    kl = kl_divergence(q, p).expand_as(mean) if isinstance(q, Normal) and isinstance(p, Normal) else None
    return tuple(None if part is None else part.reshape(rows, -1).float().cpu() for part in (mean, scale, kl))


def _prior(p: Distribution) -> Normal | None:
    """p(z_d), batch shape (D,), on the CPU; None where it is no product of Normals or not the same for every row."""
    rows, base = p.batch_shape[0], p.base_dist if isinstance(p, Independent) else p
    if not isinstance(base, Normal):
        return None
    loc, scale = (part.expand(base.batch_shape).reshape(rows, -1).float().cpu() for part in (base.loc, base.scale))
    same = (loc == loc[0]).all() and (scale == scale[0]).all()
    return Normal(loc[0], scale[0]) if same else None

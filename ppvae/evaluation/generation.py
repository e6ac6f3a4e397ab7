"""Data from the model: draws of p(x), and reconstructions, p(x | z) at the guide's z."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch, as_batch
from ppvae.engine.checks import check_modules
from ppvae.engine.data_checks import check_conditions
from ppvae.engine.evaluation import evaluation
from ppvae.engine.isolation import evaluation_mode, forked_randomness
from ppvae.engine.pair import Pair, first_parameter
from ppvae.engine.remedies import type_that_differs
from ppvae.engine.tracing import OBSERVED, arguments, sample_nodes, trace
from ppvae.errors import ContractError
from ppvae.evaluation.disentanglement.representation import mean_of
from ppvae.evaluation.progress import blocks
from ppvae.evaluation.requirements import is_discrete, require_known
from ppvae.objectives.base import require_count

PAIRS = 1000  # of a draw and a datum, decoded at once
STREAM = 1_000_003  # added to the seed: an evaluator's draws for these data, by the same seed, are independent of them
MOST_DIMENSIONS = 4  # of a datum, among which the shape of x is looked for
PROBES = (2, 3)  # sizes of the elements of x with which a model is run, to see whether it reads them
PROBED_ROWS, PROBED_PARTICLES = 5, 2  # two different numbers


def sample(
    model: Any,
    num_samples: int,
    y: Array | None = None,
    *,
    template: Batch | HasBatch | Array | None = None,
    seed: int = 0,
    **given: Array,
) -> Tensor:
    """Draws of x from the model, shape (num_samples, *event_shape).

    Args:
        model: generative model.
        num_samples: how many.
        y: labels, all known, shape (num_samples,). Without them a label that is a site of the model is drawn.
        template: data of the shape (..., *event_shape) and type to be drawn; their values and their number are not
            read. Only a model that reads the shape of x needs it; the models of ppvae do not.
        seed: of the draws; the caller's random state does not change.
        given: conditions of num_samples rows each.

    Raises:
        ContractError: the model breaks the contract, observes anything but x and labels, or reads the shape of x and
            there is no template.

    Example:

        >>> import ppvae
        >>> from ppvae.models import GaussianVAE
        >>> model = GaussianVAE(ppvae.nn.MLP(3, [8], (4, 4)), latent_dim=3)
        >>> ppvae.sample(model, 8).shape
        torch.Size([8, 4, 4])
    """
    num_samples = require_count("num_samples", num_samples)
    if template is None:
        x = _template(model, num_samples, y, given)
    else:
        like = as_batch(template).x
        x = like.new_zeros(num_samples, *like.shape[1:])
    with (
        evaluation(model, None, x, y, given, seed, simulate=True, reads_likelihood=False) as (pair, batch),
        forked_randomness(batch.x.device, seed + STREAM),
    ):
        require_known(batch)
        return pair.simulate(batch)[0].x


def reconstruct(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    **given: Array,
) -> Tensor:
    """Mean of p(x | z) at the guide's z, shape (B, *event_shape), or (num_samples, B, *event_shape).

    Where the distribution of x has no mean, it is a draw. Unknown labels are latents.

    Args:
        model: generative model.
        guide: its guide.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, shape (B,), -1 where unknown; or None.
        num_samples: draws of q(z | x) for each datum. If None, z is the mean of q(z | x), layer by layer where there
            are several latents, and the most probable value of a discrete one.
        seed: of the draws; the caller's random state does not change.
        given: conditions of B rows each.

    Raises:
        ContractError: the pair or the data break the contract.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> x = torch.zeros(3, 2)
        >>> ppvae.reconstruct(model, guide, x).shape, ppvae.reconstruct(model, guide, x, num_samples=7).shape
        (torch.Size([3, 2]), torch.Size([7, 3, 2]))
    """
    draws = 1 if num_samples is None else require_count("num_samples", num_samples)
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        found = batch.x.new_empty(draws, *batch.x.shape)
        for index in _rows_by_kind(batch, max(1, PAIRS // draws)):
            found[:, index] = _decoded(pair, batch.rows(index), draws, at_mean=num_samples is None)
    return found[0] if num_samples is None else found


def mean_or_draw(fn: TorchDistribution) -> Tensor:
    """The mean of a distribution; a draw where it has no formula for it.

    Example:

        >>> from pyro import distributions as dist
        >>> mean_or_draw(dist.Normal(torch.ones(2), 3.0))
        tensor([1., 1.])
    """
    try:
        return fn.mean
    except NotImplementedError:
        return fn.sample()


def _rows_by_kind(batch: Batch, size: int) -> Iterator[Tensor]:
    """Indices of at most ``size`` rows that are all labelled or all unlabelled."""
    known = torch.zeros(len(batch), dtype=torch.bool) if batch.known is None else batch.known.cpu()
    for kind in (known, ~known):
        rows = kind.nonzero()[:, 0].to(batch.x.device)
        yield from (rows[block] for block in blocks(len(rows), size))


def _decoded(pair: Pair, batch: Batch, draws: int, at_mean: bool) -> Tensor:
    """E[x | z], shape (draws, B, *event_shape)."""
    with _Means() if at_mean else Messenger():
        nodes = sample_nodes(trace(pair.guide, arguments(pair.guide, batch), draws))
    latents = {name: node["value"] for name, node in nodes.items()}
    x = mean_or_draw(pair.model_at(batch, latents, draws)[OBSERVED].distribution)
    return x.expand(draws, *batch.x.shape).to(batch.x.dtype)


class _Means(Messenger):
    """Sites take the mean of their distribution, or their most probable value where it is discrete."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        fn = msg["fn"]
        msg["value"], msg["done"] = _mode(fn) if is_discrete(fn) else mean_of(fn, msg["name"]), True


def _mode(fn: TorchDistribution) -> Tensor:
    values = fn.enumerate_support()
    best = fn.log_prob(values).argmax(0, keepdim=True)
    return torch.take_along_dim(values, best.reshape(*best.shape, *[1] * fn.event_dim), 0)[0]


def _template(model: Any, num_samples: int, y: Array | None, given: dict[str, Array]) -> Tensor:
    """Zeros of the shape and type of num_samples draws of x."""
    parameter = first_parameter(model)
    zeros = torch.zeros(num_samples) if parameter is None else parameter.new_zeros(num_samples)
    batch = as_batch(zeros, y, given, zeros.dtype).to(zeros.device)
    check_modules(model)
    check_conditions([model], batch)
    with evaluation_mode(model, device=zeros.device):
        return zeros.new_zeros(num_samples, *_event_shape(model, batch.rows(torch.arange(PROBED_ROWS) % num_samples)))


def _event_shape(model: Any, batch: Batch) -> torch.Size:
    """The shape of a datum that the model draws. Raises ContractError if it depends on the shape of x.

    The model is called with an x of each number of dimensions, and of two sizes. The right number is the one for which
    the batch shape of p(x | z) is that of the plates; there the shape must not change with the size.
    """
    problem = "it draws x outside the plates"
    for dimensions in range(MOST_DIMENSIONS + 1):
        try:
            shape, other = (_shape_drawn(model, batch, [size] * dimensions) for size in PROBES)
        except ContractError:
            raise
        except Exception as error:
            problem = f"it fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        if shape is not None and shape == other:
            return shape
        if shape is not None:
            problem = "what it draws depends on the shape of x"
            break
    template = "pass template=x, some data of the shape to be drawn, and the labels and conditions that the model needs"
    raise ContractError(
        f"expected a model that draws x of one shape, whatever the x that it is called with, but {problem}; "
        f"{type_that_differs(model, batch) or template}"
    )


def _shape_drawn(model: Any, batch: Batch, size: list[int]) -> torch.Size | None:
    """The event shape of p(x | z), called with an x of the given shape; None if it does not stand in the plates."""
    x = batch.x.new_zeros(len(batch), *size)
    fn = sample_nodes(trace(model, arguments(model, batch.with_x(x)), PROBED_PARTICLES))[OBSERVED]["fn"]
    return fn.event_shape if fn.event_dim == len(size) and fn.batch_shape == (PROBED_PARTICLES, len(batch)) else None

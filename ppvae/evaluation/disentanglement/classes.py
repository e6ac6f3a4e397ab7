"""A discrete latent over a whole grid of factors: its class probabilities, and their information on factors and codes.

The class y is a random variable, y ~ q(y | x) with x uniform over the N rows of the grid. All sums over rows are exact.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ppvae.data import Dataset, Factors
from ppvae.engine.batch import Batch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair, Replay
from ppvae.errors import ContractError, DataError
from ppvae.evaluation.binarization import most_probable
from ppvae.evaluation.disentanglement.representation import FIRST_ROWS, Representation, factors_of
from ppvae.evaluation.disentanglement.total_correlation import row_draws
from ppvae.evaluation.likelihood.per_datum import sampling_error
from ppvae.evaluation.progress import tracked

TOLERANCE = 1e-3  # of probabilities that add up to 1
ROWS = 2048  # scored against all draws at once


def class_probabilities(
    guide: nn.Module, data: Dataset, *, site: str = "y", batch_size: int = 128, seed: int = 0, progress: bool = False
) -> Tensor:
    """q(y | x) of each row, shape (N, C), by one pass of a guide in evaluation mode.

    Args:
        guide: a guide that draws a discrete ``site`` from x.
        data: with ``factors``; data with dynamic binarization are taken at their most probable binarization.
        site: the discrete latent.
        batch_size: rows at once.
        seed: of latents that the guide draws before ``site``.
        progress: show a progress bar.

    Raises DataError for data without factors, ContractError where the guide does not draw ``site`` or it is no class.

    Example:

        >>> from ppvae.guides import LabelGuide
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> data = Dataset(grid.values(torch.arange(12)).float(), factors=grid)
        >>> class_probabilities(LabelGuide(nn.Linear(2, 3), nn.Linear(2, 4)), data).shape
        torch.Size([12, 3])
    """
    factors_of(data)
    first = most_probable(data, torch.arange(min(FIRST_ROWS, len(data))))
    with evaluation(None, guide, first, seed=seed) as (pair, first):
        parts = [
            _probabilities(pair, most_probable(data, index).to(first.x.device), site)
            for index in tracked(torch.arange(len(data)).split(batch_size), "classes", progress)
        ]
    return torch.cat(parts)


def _probabilities(pair: Pair, batch: Batch, site: str) -> Tensor:
    q = Replay(pair, batch, 1).classify(site, noise=False)
    if not q.has_enumerate_support or q.event_shape:
        raise ContractError(f"expected a class at site {site!r}, got a {type(q).__name__}; use Categorical")
    return q.log_prob(q.enumerate_support(expand=False)).exp().T.float().cpu()


def class_information(probabilities: Tensor, factors: Factors) -> np.ndarray:
    """I(y; v_k) of the class and each factor of the grid, in nats, shape (F,). Exact.

    It is at most log C, and at most the entropy of the factor, which is the logarithm of its number of values.

    Args:
        probabilities: q(y | x_n), shape (N, C), as :func:`class_probabilities` gives.
        factors: of the N rows.

    Raises DataError for another number of rows, and for rows that are no probabilities.

    Example:

        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> shape = torch.nn.functional.one_hot(grid.values(torch.arange(12))[:, 0], 3).float()
        >>> class_information(shape, grid).round(3).tolist()  # log 3, and 0
        [1.099, 0.0]
    """
    _check(probabilities, len(factors))
    grid, overall = probabilities.double().reshape(*factors.sizes, -1), probabilities.double().mean(0)
    found = []
    for factor, size in enumerate(factors.sizes):
        given = grid.movedim(factor, 0).reshape(size, -1, len(overall)).mean(1)
        found.append(max(0.0, _divergence(given, overall).mean().item()))  # rounding gives -1e-17
    return np.array(found)


def class_code_information(
    representation: Representation, probabilities: Tensor, *, num_draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """I(z; y) under the aggregate posterior, with its standard error over draws of z, in nats.

    With q(z, y) = 1/N sum_n q(z | x_n) q(y | x_n) it is what the class adds to the total correlation:
    TC(z_1, ..., z_D, y) = TC(z_1, ..., z_D) + I(z; y). Given x, z and y are independent.

    Args:
        representation: of z, with scales.
        probabilities: q(y | x_n), shape (N, C).
        num_draws: of a row and of z, at least 2.
        seed: of the draws.

    Raises DataError without scales and for other probabilities, ValueError for fewer draws.

    Example:

        >>> from ppvae.evaluation.disentanglement import Representation
        >>> line, classes = Factors(("a",), (2,)), torch.eye(2)
        >>> known = Representation(line, torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 0.01))
        >>> round(class_code_information(known, classes, num_draws=10)[0], 3)  # log 2
        0.693
    """
    codes, scales = representation.codes.double(), representation.scales
    if scales is None:
        raise DataError("expected scales, to draw from q(z | x) as a product of Normals, got none")
    if num_draws < 2:
        raise ValueError(f"expected at least 2 draws, for the standard error, got {num_draws}")
    _check(probabilities, len(codes))
    classes, scales = probabilities.double(), scales.double()
    z, _ = row_draws(codes, scales, num_draws, torch.Generator().manual_seed(seed))
    joint = z.new_full((num_draws, classes.shape[1]), -math.inf)
    for mean, scale, share in zip(codes.split(ROWS), scales.split(ROWS), classes.split(ROWS), strict=True):
        precision = scale.reciprocal().square()  # log q(z | x) by products of matrices, in double precision
        quadratic = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(1)
        log_q = -0.5 * quadratic - scale.log().sum(1)
        top = log_q.amax(1, keepdim=True)
        joint = torch.logaddexp(joint, ((log_q - top).exp() @ share).log() + top)
    found = _divergence(joint.softmax(1), classes.mean(0))
    return found.mean().item(), sampling_error(found)


def with_classes(representation: Representation, probabilities: Tensor) -> Representation:
    """The representation with the most probable class as one further dimension, without scales, KL and prior.

    A discrete latent is one dimension, as each element of z is. Its value is the number of the class, in no meaningful
    order: metrics by votes, counts and trees (FactorVAE, MIG, modularity, DCI) do not mind for two or three classes;
    those by linear regression (Higgins, SAP, explicitness) understate more classes.

    Raises DataError for another number of rows, and for rows that are no probabilities.

    Example:

        >>> from ppvae.evaluation.disentanglement import Representation
        >>> line = Factors(("a",), (2,))
        >>> with_classes(Representation(line, torch.tensor([[0.3], [0.4]])), torch.eye(2)).codes.tolist()
        [[0.30000001192092896, 0.0], [0.4000000059604645, 1.0]]
    """
    codes = representation.codes
    _check(probabilities, len(codes))
    column = probabilities.argmax(1, keepdim=True).to(codes)
    return replace(representation, codes=torch.cat([codes, column], 1), scales=None, kl=None, prior=None)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of probabilities in the last dimension."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)


def _check(probabilities: Tensor, rows: int) -> None:
    wrong = probabilities.dim() != 2 or len(probabilities) != rows
    if wrong or (probabilities < 0).any() or ((probabilities.sum(1) - 1).abs() > TOLERANCE).any():
        raise DataError(
            f"expected class probabilities of shape ({rows}, C), each row of which adds up to 1, got shape "
            f"{tuple(probabilities.shape)}; use class_probabilities"
        )

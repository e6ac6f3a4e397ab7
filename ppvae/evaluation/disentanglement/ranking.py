"""Unsupervised disentanglement ranking (UDR): models that agree on their dimensions are likely disentangled."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from ppvae.errors import DataError
from ppvae.evaluation.disentanglement.representation import Representation
from ppvae.evaluation.disentanglement.scaling import standardised

INFORMATIVE_KL = 0.01  # nats
LASSO_PENALTY = 0.1


def relative_strength(similarity: np.ndarray) -> float:
    """How far the dimensions of two models correspond one to one, from 0 to 1.

        1 / (A + B) [ sum_b max_a R_ab^2 / sum_a R_ab + sum_a max_b R_ab^2 / sum_b R_ab ]

    A dimension without any similarity counts as 0; if either model has no dimensions, the value is 0. Some code takes
    the two means over a and over b separately, which is the same for A = B.

    Args:
        similarity: R >= 0 of the informative dimensions of both models, shape (A, B).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import relative_strength
        >>> relative_strength(np.eye(3)), relative_strength(np.ones((4, 4)))
        (1.0, 0.25)
    """
    if similarity.size == 0:
        return 0.0
    terms = []
    for axis in (0, 1):
        total, top = similarity.sum(axis), similarity.max(axis)
        terms.append(np.divide(top**2, total, out=np.zeros_like(total), where=total > 0))
    return float(np.concatenate(terms).mean())


def lasso_similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute weights of a Lasso regression (penalty 0.1) from one model's codes to the other's, shape (A, B).

    Args:
        one: predictors, shape (N, A), standardised here.
        other: targets, shape (N, B), standardised here.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.ranking import lasso_similarity
        >>> codes = np.array([[-1.0], [1.0]])
        >>> lasso_similarity(codes, -5 * codes).round(3).tolist()
        [[0.9]]
    """
    from sklearn.linear_model import Lasso

    if one.shape[1] == 0 or other.shape[1] == 0:
        return np.zeros((one.shape[1], other.shape[1]))
    weights = Lasso(alpha=LASSO_PENALTY).fit(standardised(one), standardised(other)).coef_
    return np.abs(weights.reshape(other.shape[1], one.shape[1])).T


def spearman_similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute rank correlations (Spearman) of two models' codes, shape (A, B); 0 for a constant dimension.

    Args:
        one: shape (N, A).
        other: shape (N, B).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.ranking import spearman_similarity
        >>> codes = np.array([[-1.0], [0.0], [2.0]])
        >>> spearman_similarity(codes, -codes**3).round(3).tolist()
        [[1.0]]
    """
    from scipy.stats import rankdata

    ranks = [standardised(rankdata(codes, axis=0)) for codes in (one, other)]
    return np.abs(ranks[0].T @ ranks[1]) / len(one)


def udr(
    representations: Iterable[Representation],
    *,
    form: Literal["lasso", "spearman"] = "lasso",
    num_samples: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """The score of each of M trained models: the median of its :func:`relative_strength` with the others, shape (M,).

    From 0 to 1. Models that agree up to permutation, sign and scale (up to monotone maps, in the Spearman form) have 1,
    or 0.9 in the Lasso form because of its penalty. The models should differ in their seeds only. Dimensions with
    E_x KL(q(z_d | x) || p(z_d)) of 0.01 nats or less are left out. The factors' values are not used.

    Args:
        representations: of at least two models, of the same data, with their KL per dimension.
        form: of the similarity, :func:`lasso_similarity` or :func:`spearman_similarity`.
        num_samples: rows, drawn with replacement.
        seed: of the rows.

    Raises DataError for fewer than two representations, for different data and for a representation without ``kl``;
    ValueError for another form.

    Source: Duan et al. 2020, "Unsupervised Model Selection for Variational Disentangled Representation Learning",
    equation 2; penalty and KL threshold from its authors' code.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, udr
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> codes = grid.values(torch.arange(12)).float()
        >>> kl = torch.ones(2)
        >>> models = [Representation(grid, codes, kl=kl), Representation(grid, -codes.flip(1), kl=kl)]
        >>> udr(models).round(1).tolist()
        [0.9, 0.9]
    """
    similarities = {"lasso": lasso_similarity, "spearman": spearman_similarity}
    if form not in similarities:
        raise ValueError(f'expected form "lasso" or "spearman", got {form!r}')
    representations = list(representations)
    _check(representations)
    codes = [_informative_codes(r, num_samples, seed) for r in representations]  # the same rows of each
    models = range(len(codes))
    scores = [[relative_strength(similarities[form](codes[j], codes[i])) for j in models if j != i] for i in models]
    return np.median(scores, axis=1)


def _informative_codes(representation: Representation, rows: int, seed: int) -> np.ndarray:
    """Codes of random rows in the dimensions with a KL above the threshold. Raises DataError without ``kl``."""
    if representation.kl is None:
        raise DataError(
            "expected representations with the KL of each dimension, got one without: q or p is not a product of "
            "Normals, or p depends on other latents"
        )
    informative = (representation.kl > INFORMATIVE_KL).cpu().numpy()
    return representation.sample(rows, np.random.default_rng(seed))[0][:, informative]


def _check(representations: list[Representation]) -> None:
    others = [type(r).__name__ for r in representations if not isinstance(r, Representation)]
    if others:
        raise DataError(f"expected representations, as returned by represent, got {', '.join(others)}")
    if len(representations) < 2:
        raise DataError(f"expected representations of at least two models, got {len(representations)}")
    if len({r.factors for r in representations}) > 1:
        raise DataError("expected representations of the same data, got different factors")

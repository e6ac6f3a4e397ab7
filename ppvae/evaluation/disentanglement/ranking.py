"""Unsupervised disentanglement ranking (UDR): models that agree on their dimensions are likely disentangled."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Lasso

from ppvae.errors import DataError
from ppvae.evaluation.disentanglement.representation import Representation
from ppvae.evaluation.disentanglement.scaling import standardised

INFORMATIVE = 0.01
ALPHA = 0.1


def relative_strength(similarity: np.ndarray) -> float:
    """Whether each dimension of one model answers to one of the other's, from similarities R (A, B) >= 0.

        1 / (A + B) [ sum_b max_a R_ab^2 / sum_a R_ab + sum_a max_b R_ab^2 / sum_b R_ab ]

    over informative dimensions; one without any similarity counts as 0, and no dimensions at all give 0. (Some code
    takes the mean over a and that over b for themselves; the same where A = B.)
    """
    if similarity.size == 0:
        return 0.0
    terms = []
    for axis in (0, 1):
        total, top = similarity.sum(axis), similarity.max(axis)
        terms.append(np.divide(top**2, total, out=np.zeros_like(total), where=total > 0))
    return float(np.concatenate(terms).mean())


def lasso_similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """abs of the weights (A, B) of a Lasso (penalty 0.1) from ``one`` (N, A), standardised, to ``other`` (N, B)."""
    if one.shape[1] == 0 or other.shape[1] == 0:
        return np.zeros((one.shape[1], other.shape[1]))
    weights = Lasso(alpha=ALPHA).fit(standardised(one), standardised(other)).coef_
    return np.abs(weights.reshape(other.shape[1], one.shape[1])).T


def spearman_similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """abs of Spearman's rank correlations (A, B) of codes (N, A) and (N, B); 0 for a constant."""
    ranks = [standardised(rankdata(codes, axis=0)) for codes in (one, other)]
    return np.abs(ranks[0].T @ ranks[1]) / len(one)


def udr(
    representations: Iterable[Representation],
    *,
    form: Literal["lasso", "spearman"] = "lasso",
    num_samples: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """The score of each of M trained models, shape (M,): the median of :func:`relative_strength` with the others.

    The models should differ in their seeds alone. Dimensions with E_x KL(q(z_d | x) || p(z_d)) of 0.01 nats or less
    are left out. From 0 to 1: 1 (0.9 in the Lasso form, which shrinks) where all agree up to permutation, sign and
    scale; for the Spearman form, up to monotone maps. No ground truth is used, only the rows of the grid.

    Args:
        representations: of at least two models, over the same data, with their KL per dimension.
        form: of the similarity.
        num_samples: rows.
        seed: of the rows.

    Raises DataError for fewer than two, for those of different data, and for those without ``kl``.

    Source: Duan et al. 2020, "Unsupervised Model Selection for Variational Disentangled Representation Learning",
    equation 2; penalty and threshold of its authors' code.
    """
    similarities = {"lasso": lasso_similarity, "spearman": spearman_similarity}
    if form not in similarities:
        raise ValueError(f'expected form "lasso" or "spearman", got {form!r}')
    representations = list(representations)
    _check(representations)
    codes = [r.sample(num_samples, np.random.default_rng(seed))[0] for r in representations]  # of the same rows
    kept = [c[:, (r.kl > INFORMATIVE).cpu().numpy()] for c, r in zip(codes, representations, strict=True)]
    models = range(len(kept))
    scores = [[relative_strength(similarities[form](kept[j], kept[i])) for j in models if j != i] for i in models]
    return np.median(scores, axis=1)


def _check(representations: list[Representation]) -> None:
    others = [type(r).__name__ for r in representations if not isinstance(r, Representation)]
    if others:
        raise DataError(f"expected representations, as represent gives them, got {', '.join(others)}")
    if len(representations) < 2:
        raise DataError(f"expected representations of at least two models, got {len(representations)}")
    if len({r.factors for r in representations}) > 1:
        raise DataError("expected representations of the same data, got different factors")
    if any(r.kl is None for r in representations):
        raise DataError(
            "expected the KL of each dimension, got a representation without: q or p is not Normal, or p depends on "
            "other latents"
        )

"""Metrics from the mutual information of each dimension with each factor: MIG, modularity and explicitness.

Codes are discretised into bins of equal width over the range of the sample, 20 by default; a dimension that is
constant up to rounding has one bin. Mutual information is that of the table of counts, in nats. Its bias is about
(bins - 1)(values - 1) / 2N for independent variables. Fewer bins than factor values cap it: at 20 bins a perfect code
of dSprites' grid has a MIG of 0.896.
"""

from dataclasses import dataclass

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation, require_at_least
from ppvae.evaluation.disentanglement.scaling import is_constant, standardised

BINS = 20


def discretize(codes: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each code, from 0 to bins - 1, long of shape (N, D); 0 for a constant dimension.

    The bins of a dimension have equal width, from its smallest to its largest code.

    Args:
        codes: shape (N, D).
        bins: at least 1.

    Raises ValueError for fewer bins.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.information import discretize
        >>> discretize(np.array([[0.0], [0.9], [1.0], [2.0]]), bins=2).T.tolist()
        [[0, 0, 1, 1]]
    """
    require_at_least(1, bins=bins)
    binned = np.zeros(codes.shape, dtype=int)
    for d in np.flatnonzero(~is_constant(codes)):
        binned[:, d] = np.digitize(codes[:, d], np.histogram_bin_edges(codes[:, d], bins)[:-1]) - 1
    return binned


def mutual_information(codes: np.ndarray, values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """I(z_d; v_k) in nats, shape (D, F); 0 for a constant dimension.

    Args:
        codes: z, shape (N, D), discretised into ``bins`` bins.
        values: factor values v, shape (N, F).
        bins: at least 1.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import mutual_information
        >>> values = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> mutual_information(values[:, :1].astype(float), values).round(3).tolist()
        [[0.693, 0.0]]
    """
    from sklearn.metrics import mutual_info_score

    binned = discretize(codes, bins)
    return np.array([[mutual_info_score(value, column) for value in values.T] for column in binned.T])


def entropy(values: np.ndarray) -> np.ndarray:
    """Entropy H(v_k) of the empirical distribution of factor values (N, F), in nats, shape (F,).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.information import entropy
        >>> entropy(np.array([[0, 5], [1, 5]])).round(3).tolist()
        [0.693, 0.0]
    """
    from sklearn.metrics import mutual_info_score

    return np.array([mutual_info_score(value, value) for value in values.T])


def mig_of(information: np.ndarray, entropies: np.ndarray) -> float:
    """mean_k (I_1k - I_2k) / H_k, with I_1k and I_2k the two largest of factor k; I_2k = 0 if there is one dimension.

    Args:
        information: I, shape (D, F), nats.
        entropies: H, shape (F,), nats. Factors with H_k = 0 are left out.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import mig_of
        >>> mig_of(np.array([[1.0, 0.0], [0.5, 2.0]]), np.array([1.0, 2.0]))
        0.75
    """
    ordered = np.sort(np.vstack([np.zeros_like(information[:1]), information]), axis=0)
    varied = entropies > 0
    gaps = (ordered[-1] - ordered[-2])[varied] / entropies[varied]
    return float(gaps.mean()) if varied.any() else 0.0


def mig(representation: Representation, *, num_samples: int = 10_000, bins: int = BINS, seed: int = 0) -> float:
    """Mutual information gap: :func:`mig_of` a sample of the grid.

    From 0 to 1; 0 for a constant code and for a code that holds each factor twice. Invariant to permutation, scale and
    (except for codes on the edge of a bin) sign.

    Computed on means, it ignores the noise of q(z | x): the mean of a dimension with a KL of 0.01 nats is still a
    function of x, and can close the gap of a factor that another dimension encodes. ``mig(representation.drawn())``
    includes the noise, as the paper does.

    Args:
        representation: codes of a grid.
        num_samples: rows, drawn with replacement.
        bins: of each dimension.
        seed: of the rows.

    Raises ValueError for ``num_samples`` or ``bins`` below 1.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", equation 6 (of
    draws); on means, with these bins and this sample size, in Locatello et al. 2019.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, mig
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> r = Representation(grid, grid.values(torch.arange(12)).float())
        >>> round(mig(r), 2)
        1.0
    """
    codes, values = representation.sample(num_samples, np.random.default_rng(seed))
    return mig_of(mutual_information(codes, values, bins), entropy(values))


def modularity_of(information: np.ndarray) -> float:
    """Mean over dimensions of 1 - sum_{k not max} I_dk^2 / (max_k I_dk^2 (F - 1)).

    A dimension without information counts as 0. With one factor, each informative dimension counts as 1.

    Args:
        information: I, shape (D, F), nats.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import modularity_of
        >>> modularity_of(np.array([[2.0, 0.0], [2.0, 1.0]]))
        0.875
    """
    squares = information**2
    top = squares.max(1)
    mixed = (squares.sum(1) - top) / np.where(top > 0, top, 1) / max(1, squares.shape[1] - 1)
    return float(np.where(top > 0, 1 - mixed, 0).mean())


def explicitness_of(codes: np.ndarray, values: np.ndarray, new_codes: np.ndarray, new_values: np.ndarray) -> float:
    """Mean held-out ROC area of "v_k = value" over the values of all factors; 0.5 at chance.

    The score is the probability of a logistic regression on the codes, one regression for each value against all
    others, with probabilities normalised over the values. All codes are standardised by the mean and the standard
    deviation of the training codes, since the penalty on the weights depends on their scale. Values that one of the
    samples lacks are left out.

    Args:
        codes, values: z (N, D) and v (N, F) that the regressions are fitted to.
        new_codes, new_values: z (M, D) and v (M, F) that they are scored on.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import explicitness_of
        >>> values = np.array([[0], [1]] * 5)
        >>> explicitness_of(values.astype(float), values, values.astype(float), values)
        1.0
    """
    codes, new_codes = standardised(codes), standardised(new_codes, codes)
    areas = [
        np.mean(of_factor)
        for value, new_value in zip(values.T, new_values.T, strict=True)
        if (of_factor := _roc_areas(codes, value, new_codes, new_value))
    ]
    return float(np.mean(areas)) if areas else 0.5


def _roc_areas(codes: np.ndarray, value: np.ndarray, new_codes: np.ndarray, new_value: np.ndarray) -> list[float]:
    """ROC areas of those values of one factor that both samples hold and the second does not consist of."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.multiclass import OneVsRestClassifier

    if len(np.unique(value)) < 2:
        return []
    classifier = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(codes, value)
    hits = new_value[:, None] == classifier.classes_
    seen = hits.any(0) & ~hits.all(0)
    pairs = zip(hits.T[seen], classifier.predict_proba(new_codes).T[seen], strict=True)
    return [roc_auc_score(hit, probability) for hit, probability in pairs]


@dataclass(frozen=True)
class ModularityExplicitness:
    """The two scores of :func:`modularity_explicitness`.

    Attributes:
        modularity: from 0 to 1; far above 0 at chance (0.67 for noise on dSprites' grid).
        explicitness: from 0 to 1; 0.5 at chance.

    Example:

        >>> from ppvae.evaluation.disentanglement import ModularityExplicitness
        >>> ModularityExplicitness(modularity=1.0, explicitness=0.9).modularity
        1.0
    """

    modularity: float
    explicitness: float


def modularity_explicitness(
    representation: Representation,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    bins: int = BINS,
    seed: int = 0,
) -> ModularityExplicitness:
    """:func:`modularity_of` a training sample of the grid, and :func:`explicitness_of` a training and a test sample.

    Modularity has the invariances of :func:`mig`; explicitness is invariant to permutation, sign and scale. A constant
    code has modularity 0 and explicitness 0.5. A perfect code of dSprites' grid has explicitness 0.937 (0.78 before
    the probabilities are normalised).

    Args:
        representation: codes of a grid.
        num_train: rows for the modularity, and to fit the regressions to.
        num_test: rows to score the regressions on.
        bins: of each dimension.
        seed: of the rows.

    Raises ValueError for a setting below 1.

    Source: Ridgeway and Mozer 2018, "Learning Deep Disentangled Embeddings with the F-Statistic Loss", section 3;
    bins, sample sizes and standardised codes from Locatello et al. 2019, who report the area itself rather than twice
    its excess over 0.5.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, modularity_explicitness
        >>> grid = Factors(("shape", "x"), (2, 2))
        >>> r = Representation(grid, grid.values(torch.arange(4)).float())
        >>> scores = modularity_explicitness(r, num_train=500, num_test=100)
        >>> scores.modularity > 0.99, scores.explicitness
        (True, 1.0)
    """
    rng = np.random.default_rng(seed)
    train, test = (representation.sample(rows, rng) for rows in (num_train, num_test))
    return ModularityExplicitness(
        modularity=modularity_of(mutual_information(*train, bins)),
        explicitness=explicitness_of(*train, *test),
    )

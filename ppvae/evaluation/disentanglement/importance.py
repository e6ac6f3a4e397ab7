"""Disentanglement, completeness and informativeness (DCI), from how much each dimension tells a classifier."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier

from ppvae.evaluation.disentanglement.representation import Representation, at_least


@dataclass(frozen=True, eq=False)
class DCI:
    """Each from 0 to 1.

    Attributes:
        disentanglement: :func:`disentanglement_of` the importance: does a dimension serve one factor only?
        completeness: :func:`completeness_of` it: is a factor served by one dimension only?
        informativeness: held-out accuracy of the classifiers, mean over factors.
        importance: shape (D, F).
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def disentanglement_of(importance: np.ndarray) -> float:
    """sum_d w_d (1 - H_F(P_d)), P_dk = R_dk / sum_k R_dk, w_d = sum_k R_dk / sum R, H to the base F; R (D, F) >= 0.

    0 for a matrix of zeros.
    """
    total = importance.sum()
    return 0.0 if total == 0 else float(_concentration(importance) @ importance.sum(1) / total)


def completeness_of(importance: np.ndarray) -> float:
    """mean_k (1 - H_D(P_k)), P_dk = R_dk / sum_d R_dk, H to the base D; a factor without importance counts as 0.

    Factors count alike. Some code weights them by sum_d R_dk: the same for importances that sum to 1 for each factor,
    as scikit-learn's do.
    """
    return float(_concentration(importance.T).mean())


def _concentration(importance: np.ndarray) -> np.ndarray:
    """1 - entropy of each row, to the base of the number of columns; 0 for a row of zeros."""
    total = importance.sum(1, keepdims=True)
    share = importance / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1) / np.log(max(2, importance.shape[1]))
    return np.where(total[:, 0] > 0, 1 - entropy, 0)


def gradient_boosting(seed: int) -> ClassifierMixin:
    """The reference's classifier: 100 rounds of trees of depth 3, one tree a class and round."""
    return GradientBoostingClassifier(random_state=seed)


def dci(
    representation: Representation,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
    classifier: Callable[[int], ClassifierMixin] = gradient_boosting,
    jobs: int = 1,
) -> DCI:
    """DCI with a classifier's feature importances as R, one classifier a factor.

    A constant code has 0, 0 and the accuracy of a guess. Invariant to permutation, sign and scale (trees) but for
    the classifier's own draws.

    Args:
        representation: codes of a grid.
        num_train, num_test: rows.
        seed: of rows and classifiers.
        classifier: from a seed, a classifier of scikit-learn with ``feature_importances_``. The default is that of
            the published numbers; it grows a tree for each value of each factor in each round, 11,300 on dSprites'
            grid, which takes minutes. A random forest over all features (``max_features=None``) takes seconds and
            agrees on codes that are perfect or noise, not on those between: its trees are deep, and tell more.
        jobs: classifiers fitted at once, in threads; the values do not depend on it.

    Source: Eastwood and Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled
    Representations"; classifier and samples as in Locatello et al. 2019.
    """
    at_least(1, num_train=num_train, num_test=num_test, jobs=jobs)
    rng = np.random.default_rng(seed)
    train, test = (representation.sample(rows, rng) for rows in (num_train, num_test))
    seeds = rng.integers(2**31, size=len(representation.sizes)).tolist()

    def fitted(factor: int) -> tuple[np.ndarray, float]:
        return _fitted(classifier(seeds[factor]), train, test, factor)

    with ThreadPoolExecutor(jobs) as pool:
        columns, accuracies = zip(*pool.map(fitted, range(len(seeds))), strict=True)
    importance = np.stack(columns, 1)
    return DCI(
        disentanglement=disentanglement_of(importance),
        completeness=completeness_of(importance),
        informativeness=float(np.mean(accuracies)),
        importance=importance,
    )


def _fitted(classifier: ClassifierMixin, train, test, factor: int) -> tuple[np.ndarray, float]:
    """Importances (D,) and held-out accuracy for one factor."""
    (codes, values), (new_codes, new_values) = train, test
    if len(np.unique(values[:, factor])) < 2:  # of a very small sample
        return np.zeros(codes.shape[1]), float((new_values[:, factor] == values[0, factor]).mean())
    classifier.fit(codes, values[:, factor])
    return np.abs(classifier.feature_importances_), float(classifier.score(new_codes, new_values[:, factor]))

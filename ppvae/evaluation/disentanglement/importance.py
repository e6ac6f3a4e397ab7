"""Disentanglement, completeness and informativeness (DCI), from the feature importances of classifiers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation, Sample, require_at_least

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin


@dataclass(frozen=True, eq=False)
class DCI:
    """The scores of :func:`dci`, each from 0 to 1.

    Attributes:
        disentanglement: :func:`disentanglement_of` the importance: whether each dimension encodes one factor only.
        completeness: :func:`completeness_of` the importance: whether each factor is encoded by one dimension only.
        informativeness: held-out accuracy of the classifiers, mean over factors.
        importance: feature importances R, shape (D, F).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import DCI
        >>> DCI(1.0, 1.0, 1.0, importance=np.eye(2)).importance.shape
        (2, 2)
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def disentanglement_of(importance: np.ndarray) -> float:
    """sum_d w_d (1 - H_F(P_d)), with P_dk = R_dk / sum_k R_dk, w_d = sum_k R_dk / sum R and H in base F.

    0 for a matrix of zeros.

    Args:
        importance: R >= 0, shape (D, F).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import disentanglement_of
        >>> disentanglement_of(np.array([[2.0, 0.0], [1.0, 1.0]]))
        0.5
    """
    total = importance.sum()
    return 0.0 if total == 0 else float(_concentration(importance) @ importance.sum(1) / total)


def completeness_of(importance: np.ndarray) -> float:
    """mean_k (1 - H_D(P_k)), with P_dk = R_dk / sum_d R_dk and H in base D.

    A factor without importance counts as 0. Factors have equal weight; some code weights them by sum_d R_dk, which is
    the same for importances that sum to 1 for each factor, such as scikit-learn's.

    Args:
        importance: R >= 0, shape (D, F).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import completeness_of
        >>> completeness_of(np.array([[1.0, 0.5], [0.0, 0.5]]))
        0.5
    """
    return float(_concentration(importance.T).mean())


def _concentration(importance: np.ndarray) -> np.ndarray:
    """1 minus the entropy of each row, in base of the number of columns; 0 for a row of zeros."""
    total = importance.sum(1, keepdims=True)
    share = importance / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1) / np.log(max(2, importance.shape[1]))
    return np.where(total[:, 0] > 0, 1 - entropy, 0)


def gradient_boosting(seed: int) -> "ClassifierMixin":
    """The classifier of the published numbers: 100 rounds of trees of depth 3, one tree for each class and round.

    Example:

        >>> from ppvae.evaluation.disentanglement.importance import gradient_boosting
        >>> gradient_boosting(seed=0).n_estimators
        100
    """
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(random_state=seed)


def dci(
    representation: Representation,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
    classifier: Callable[[int], "ClassifierMixin"] = gradient_boosting,
    jobs: int = 1,
) -> DCI:
    """DCI, with the feature importances of one classifier for each factor as R.

    A constant code has disentanglement and completeness 0 and the informativeness of a guess. Except for the random
    choices of the classifiers, the scores are invariant to permutation, sign and scale.

    Args:
        representation: codes of a grid.
        num_train: rows that the classifiers are fitted to.
        num_test: rows that they are scored on.
        seed: of the rows and the classifiers.
        classifier: seed -> a classifier of scikit-learn with ``feature_importances_``. The default, that of the
            published numbers, grows a tree for each value of each factor in each round: 11,300 on dSprites' grid, which
            takes minutes. A random forest over all features (``max_features=None``) takes seconds. The two agree on
            perfect codes and on noise, but not in between, since the trees of a forest are deep.
        jobs: classifiers fitted at once, in threads; the scores do not depend on it.

    Raises ValueError for a setting below 1.

    Source: Eastwood and Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled
    Representations"; classifier and sample sizes from Locatello et al. 2019.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, dci
        >>> grid = Factors(("shape", "x"), (2, 2))
        >>> r = Representation(grid, grid.values(torch.arange(4)).float())
        >>> scores = dci(r, num_train=100, num_test=50)
        >>> round(scores.disentanglement, 2), round(scores.completeness, 2), scores.informativeness
        (1.0, 1.0, 1.0)
    """
    require_at_least(1, num_train=num_train, num_test=num_test, jobs=jobs)
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


def _fitted(classifier: "ClassifierMixin", train: Sample, test: Sample, factor: int) -> tuple[np.ndarray, float]:
    """Importances (D,) and held-out accuracy for one factor."""
    (codes, values), (new_codes, new_values) = train, test
    if len(np.unique(values[:, factor])) < 2:  # a small sample can hold one value only
        return np.zeros(codes.shape[1]), float((new_values[:, factor] == values[0, factor]).mean())
    classifier.fit(codes, values[:, factor])
    return np.abs(classifier.feature_importances_), float(classifier.score(new_codes, new_values[:, factor]))

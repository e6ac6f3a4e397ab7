"""Separated attribute predictability (SAP): how much better the best dimension predicts a factor than the next."""

from typing import Literal

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation
from ppvae.evaluation.disentanglement.scaling import standardised


def sap_of(scores: np.ndarray) -> float:
    """mean_k (S_1k - S_2k), with S_1k and S_2k the two largest scores of factor k; S_2k = 0 if there is one dimension.

    Args:
        scores: shape (D, F).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement import sap_of
        >>> sap_of(np.array([[1.0, 0.25], [0.5, 0.75]]))
        0.5
    """
    ordered = np.sort(np.vstack([np.zeros_like(scores[:1]), scores]), axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


def r2_scores(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """R^2 = Cov(z_d, v_k)^2 / (Var z_d Var v_k), shape (D, F); 0 for a constant.

    Args:
        codes: z, shape (N, D).
        values: v, shape (N, F).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.predictability import r2_scores
        >>> values = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> r2_scores(-2.0 * values[:, :1], values).tolist()
        [[1.0, 0.0]]
    """
    codes, values = standardised(codes), standardised(values)
    return (codes.T @ values / len(codes)) ** 2


def classifier_scores(
    codes: np.ndarray, values: np.ndarray, new_codes: np.ndarray, new_values: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Held-out accuracy of a linear SVM (C = 0.01, balanced classes) that predicts v_k from z_d alone, shape (D, F).

    Args:
        codes, values: z (N, D) and v (N, F) that the SVM is fitted to.
        new_codes, new_values: z (M, D) and v (M, F) that it is scored on.
        seed: of the SVM.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.predictability import classifier_scores
        >>> values = np.array([[0], [1]] * 20)
        >>> classifier_scores(values.astype(float), values, values.astype(float), values).tolist()
        [[1.0]]
    """
    from sklearn.svm import LinearSVC

    def score(d: int, k: int) -> float:
        if len(np.unique(values[:, k])) < 2:  # a small sample can hold one value only
            return float((new_values[:, k] == values[0, k]).mean())
        classifier = LinearSVC(C=0.01, class_weight="balanced", dual=False, random_state=seed)
        return float(classifier.fit(codes[:, [d]], values[:, k]).score(new_codes[:, [d]], new_values[:, k]))

    return np.array([[score(d, k) for k in range(values.shape[1])] for d in range(codes.shape[1])])


def sap(
    representation: Representation,
    *,
    form: Literal["r2", "classifier"] = "r2",
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
) -> float:
    """:func:`sap_of` the scores of a sample of the grid.

    From 0 to 1; 0 for a constant code. The R^2 form is invariant to permutation, sign and scale, and gives a perfect
    code 1. The classifier form is not invariant to scale, and gives a perfect code less than 1: a linear classifier
    cannot separate one of many values along a line from the values on both sides.

    Args:
        representation: codes of a grid.
        form: "r2" (:func:`r2_scores`) for ordered factors, "classifier" (:func:`classifier_scores`) for categories.
        num_train: rows that the scores are computed from.
        num_test: further rows that classifiers are scored on.
        seed: of the rows and the classifiers.

    Raises ValueError for another form and for a sample of less than one row.

    Source: Kumar et al. 2018, "Variational Inference of Disentangled Latent Concepts", section 3; classifier and
    sample sizes from Locatello et al. 2019, who publish numbers of the classifier form.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, sap
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> r = Representation(grid, grid.values(torch.arange(12)).float())
        >>> bool(sap(r) > 0.99)
        True
    """
    if form not in ("r2", "classifier"):
        raise ValueError(f'expected form "r2" or "classifier", got {form!r}')
    rng = np.random.default_rng(seed)
    train = representation.sample(num_train, rng)
    if form == "r2":
        return sap_of(r2_scores(*train))
    return sap_of(classifier_scores(*train, *representation.sample(num_test, rng), seed=seed))

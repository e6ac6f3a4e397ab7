"""Separated attribute predictability (SAP): how far the best dimension alone predicts a factor above the next."""

from typing import Literal

import numpy as np
from sklearn.svm import LinearSVC

from ppvae.evaluation.disentanglement.representation import Representation
from ppvae.evaluation.disentanglement.scaling import standardised


def sap_of(scores: np.ndarray) -> float:
    """mean_k (S_1k - S_2k) from scores (D, F), the two greatest of factor k; with one dimension the second is 0."""
    ordered = np.sort(np.vstack([np.zeros_like(scores[:1]), scores]), axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


def r2_scores(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """R^2 = Cov(z_d, v_k)^2 / (Var z_d Var v_k), shape (D, F), of codes (N, D) and values (N, F); 0 for a constant."""
    codes, values = standardised(codes), standardised(values)
    return (codes.T @ values / len(codes)) ** 2


def classifier_scores(
    codes: np.ndarray, values: np.ndarray, new_codes: np.ndarray, new_values: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Accuracy, shape (D, F), on the last two arguments of a linear SVM (C = 0.01, classes balanced) that is given
    one dimension alone; fitted to the first two. Codes (N, D), values (N, F)."""

    def score(d: int, k: int) -> float:
        if len(np.unique(values[:, k])) < 2:  # of a very small sample
            return float((new_values[:, k] == values[0, k]).mean())
        machine = LinearSVC(C=0.01, class_weight="balanced", dual=False, random_state=seed)
        return float(machine.fit(codes[:, [d]], values[:, k]).score(new_codes[:, [d]], new_values[:, k]))

    return np.array([[score(d, k) for k in range(values.shape[1])] for d in range(codes.shape[1])])


def sap(
    representation: Representation,
    *,
    form: Literal["r2", "classifier"] = "r2",
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
) -> float:
    """:func:`sap_of` the scores of a sample: ``"r2"``, for factors with an order, or ``"classifier"``, for those with
    none.

    A constant code has 0. The R^2 form is invariant to permutation, sign and scale; the classifier's not to scale.
    A perfect code has 1 in the R^2 form, not in the other: a linear machine cannot single out one value of many
    along a line.

    Source: Kumar et al. 2018, "Variational Inference of Disentangled Latent Concepts", section 3; the machine and
    the samples as in Locatello et al. 2019, whose published numbers are of the classifier form.
    """
    if form not in ("r2", "classifier"):
        raise ValueError(f'expected form "r2" or "classifier", got {form!r}')
    rng = np.random.default_rng(seed)
    train = representation.sample(num_train, rng)
    if form == "r2":
        return sap_of(r2_scores(*train))
    return sap_of(classifier_scores(*train, *representation.sample(num_test, rng), seed=seed))

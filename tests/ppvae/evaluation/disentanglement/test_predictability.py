"""SAP: exact matrices, and codes with known scores."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ppvae.evaluation.disentanglement import Representation, sap, sap_of
from ppvae.evaluation.disentanglement.predictability import classifier_scores, r2_scores
from tests.ppvae.evaluation.disentanglement.codes import SMALL, noise, perfect, representation, transformed


def test_sap_of_matrices():
    assert sap_of(np.array([[1.0, 0.2], [0.4, 0.9], [0.1, 0.3]])) == pytest.approx(0.6)
    assert sap_of(np.array([[0.8, 0.4]])) == pytest.approx(0.6)  # one dimension: the second is 0
    assert sap_of(np.ones((4, 2))) == 0


def test_r2_scores_are_squared_correlations():
    rng = np.random.default_rng(0)
    codes, values = rng.standard_normal((200, 3)), rng.integers(5, size=(200, 2))
    expected = np.corrcoef(codes.T, values.T)[:3, 3:] ** 2
    np.testing.assert_allclose(r2_scores(codes, values), expected)
    assert not r2_scores(np.full((200, 1), 0.3), values).any()


@pytest.mark.parametrize(
    ("code", "value", "error"),
    [("perfect", 1, 2e-3), ("perfect and noise", 1, 2e-3), ("duplicated", 0, 1e-9), ("noise", 0, 1e-3)],
)
def test_sap_r2_of_known_codes(code, value, error):
    assert sap(representation(code)) == pytest.approx(value, abs=error)
    assert sap(representation("constant")) == 0


def test_sap_classifier_of_known_codes():
    """A line separates two values: 1 - 1/2 for a perfect code."""
    values = np.random.default_rng(0).integers(2, size=(2000, 2))
    scores = classifier_scores(values.astype(float), values, values.astype(float), values)
    np.testing.assert_allclose(scores, [[1, 0.5], [0.5, 1]], atol=4 * (0.25 / 2000) ** 0.5)
    sizes = {"form": "classifier", "num_train": 1000, "num_test": 1000}
    assert sap(representation("constant", SMALL), **sizes) == 0
    assert sap(representation("duplicated", SMALL), **sizes) == pytest.approx(0, abs=1e-9)
    assert sap(representation("perfect", SMALL), **sizes) > 0.2


def test_sap_is_invariant_to_permutation_sign_and_scale():
    r = Representation(SMALL, perfect(SMALL) + 0.3 * noise(SMALL, 3))
    assert sap(r) == pytest.approx(sap(transformed(r, [5.0, 0.1, 2.0])), rel=1e-5)
    sizes = {"form": "classifier", "num_train": 1000, "num_test": 1000}
    assert sap(r, **sizes) == pytest.approx(sap(transformed(r), **sizes), abs=0.01)


def test_sap_of_one_dimension_and_of_an_unknown_form():
    r = Representation(SMALL, perfect(SMALL)[:, :1])
    assert sap(r) == pytest.approx(1 / 3, abs=0.01)
    with pytest.raises(ValueError, match="got 'spline'"):
        sap(r, form="spline")
    assert torch.isfinite(torch.tensor(sap(r, form="classifier", num_train=1, num_test=5)))


def threshold(codes: np.ndarray, values: np.ndarray, c: float, balanced: bool) -> float:
    """The zero of the line that minimises (w^2 + b^2)/2 + C sum_n weight_n max(0, 1 - y_n (w z_n + b))^2."""
    sign = 2 * values - 1
    share = np.where(values == 1, values.mean(), 1 - values.mean())
    weight = c * (1 / (2 * share) if balanced else np.ones_like(share))

    def loss(line):
        slack = np.maximum(0, 1 - sign * (line[0] * codes + line[1]))
        return (line**2).sum() / 2 + weight @ slack**2

    slope, offset = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-10}).x
    return -offset / slope


def test_classifier_scores_are_those_of_the_stated_svm():
    """With 30 zeros and 10 ones, the accuracy follows from the loss of C = 0.01 with balanced classes only."""
    rng = np.random.default_rng(0)
    values = np.repeat([0, 1], [30, 10])
    codes = values + 0.5 * rng.standard_normal(40)
    new = np.linspace(-2, 3, 2001)
    places = {setting: threshold(codes, values, *setting) for setting in [(0.01, True), (1.0, True), (0.01, False)]}
    accuracy = {setting: float(((new > place) == (new > 0.5)).mean()) for setting, place in places.items()}
    found = classifier_scores(codes[:, None], values[:, None], new[:, None], (new > 0.5)[:, None].astype(int))[0, 0]
    assert found == pytest.approx(accuracy[0.01, True], abs=0.002)
    assert all(abs(found - accuracy[other]) > 0.01 for other in ((1.0, True), (0.01, False))), accuracy


def test_sap_r2_of_a_tiny_scale():
    r = representation("perfect", SMALL)
    assert sap(Representation(SMALL, r.codes * 1e-12)) == pytest.approx(sap(r))


def test_sap_refuses_samples_without_rows():
    for sizes in ({"num_train": 0}, {"num_test": 0, "form": "classifier"}):
        with pytest.raises(ValueError, match="at least 1 for rows, got 0"):
            sap(representation("perfect", SMALL), **sizes)

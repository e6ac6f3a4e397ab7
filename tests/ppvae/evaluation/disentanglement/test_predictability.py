"""SAP: exact matrices, and codes of known worth."""

import numpy as np
import pytest
import torch

from ppvae.evaluation.disentanglement import Representation, sap, sap_of
from ppvae.evaluation.disentanglement.sap import classifier_scores, r2_scores
from tests.ppvae.evaluation.disentanglement.codes import SMALL, noise, perfect, representation, transformed


def test_gap_of_matrices():
    assert sap_of(np.array([[1.0, 0.2], [0.4, 0.9], [0.1, 0.3]])) == pytest.approx(0.6)
    assert sap_of(np.array([[0.8, 0.4]])) == pytest.approx(0.6)  # one dimension: the second is 0
    assert sap_of(np.ones((4, 2))) == 0


def test_r2_is_the_squared_correlation():
    rng = np.random.default_rng(0)
    codes, values = rng.standard_normal((200, 3)), rng.integers(5, size=(200, 2))
    expected = np.corrcoef(codes.T, values.T)[:3, 3:] ** 2
    np.testing.assert_allclose(r2_scores(codes, values), expected)
    assert not r2_scores(np.full((200, 1), 0.3), values).any()


@pytest.mark.parametrize(
    ("code", "value", "error"),
    [("perfect", 1, 2e-3), ("perfect and noise", 1, 2e-3), ("duplicated", 0, 1e-9), ("noise", 0, 1e-3)],
)
def test_r2_form_of_known_codes(code, value, error):
    assert sap(representation(code)) == pytest.approx(value, abs=error)
    assert sap(representation("constant")) == 0


def test_classifier_form():
    """Of two values a line separates both: 1 - 1/2 for a perfect code."""
    values = np.random.default_rng(0).integers(2, size=(2000, 2))
    scores = classifier_scores(values.astype(float), values, values.astype(float), values)
    np.testing.assert_allclose(scores, [[1, 0.5], [0.5, 1]], atol=4 * (0.25 / 2000) ** 0.5)
    sizes = {"form": "classifier", "num_train": 1000, "num_test": 1000}
    assert sap(representation("constant", SMALL), **sizes) == 0
    assert sap(representation("duplicated", SMALL), **sizes) == pytest.approx(0, abs=1e-9)
    assert sap(representation("perfect", SMALL), **sizes) > 0.2


def test_order_sign_and_scale_leave_it_alone():
    r = Representation(SMALL, perfect(SMALL) + 0.3 * noise(SMALL, 3))
    assert sap(r) == pytest.approx(sap(transformed(r, [5.0, 0.1, 2.0])), rel=1e-5)
    sizes = {"form": "classifier", "num_train": 1000, "num_test": 1000}
    assert sap(r, **sizes) == pytest.approx(sap(transformed(r), **sizes), abs=0.01)


def test_one_dimension_and_an_unknown_form():
    r = Representation(SMALL, perfect(SMALL)[:, :1])
    assert sap(r) == pytest.approx(1 / 3, abs=0.01)
    with pytest.raises(ValueError, match="got 'spline'"):
        sap(r, form="spline")
    assert torch.isfinite(torch.tensor(sap(r, form="classifier", num_train=1, num_test=5)))

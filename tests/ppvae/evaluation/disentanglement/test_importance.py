"""DCI: exact matrices, and codes with known scores."""

import math

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from ppvae.data import Factors
from ppvae.evaluation.disentanglement import Representation, completeness_of, dci, disentanglement_of
from tests.ppvae.evaluation.disentanglement.codes import DSPRITES, SMALL, perfect, representation, transformed


def forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(10, max_features=None, random_state=seed)


def test_disentanglement_of_matrices():
    assert disentanglement_of(np.diag([1.0, 2.0, 3.0])) == 1
    assert disentanglement_of(np.vstack([np.eye(5), np.eye(5)])) == 1
    assert disentanglement_of(np.ones((4, 3))) == pytest.approx(0)
    assert disentanglement_of(np.array([[2.0, 0], [1, 1]])) == pytest.approx(0.5)  # weighted by importance
    assert disentanglement_of(np.array([[1.0, 0], [0, 0]])) == 1  # a dimension without importance has no weight
    assert disentanglement_of(np.zeros((3, 2))) == 0
    assert disentanglement_of(np.array([[1.0], [2.0]])) == 1  # one factor


def test_completeness_of_matrices():
    assert completeness_of(np.diag([1.0, 2.0, 3.0])) == 1
    assert completeness_of(np.vstack([np.eye(5), np.eye(5)])) == pytest.approx(1 - math.log(2) / math.log(10))
    assert completeness_of(np.ones((4, 3))) == pytest.approx(0)
    assert completeness_of(np.array([[1.0, 0], [0, 0]])) == 0.5  # a factor without importance counts as 0
    assert completeness_of(np.ones((1, 3))) == 1  # one dimension


KNOWN = {
    "perfect": (1, 1, 1),
    "perfect and noise": (1, 1, 1),
    "duplicated": (1, 1 - math.log(2) / math.log(10), 1),
    "constant": (0, 0, 0.115),
}


@pytest.mark.parametrize("code", KNOWN)
def test_dci_of_known_codes_with_a_forest_on_dsprites_grid(code):
    """Any trees give the same scores if every split is on the right dimension."""
    found = dci(representation(code), classifier=forest)
    error = 0.01 if code != "constant" else 4 * (0.115 / 25_000) ** 0.5 + 0.01  # the accuracy of a guess
    expected = pytest.approx(KNOWN[code], abs=error)
    assert (found.disentanglement, found.completeness, found.informativeness) == expected


@pytest.mark.parametrize("code", [*KNOWN, "noise"])
def test_dci_of_known_codes_with_gradient_boosting(code):
    # Boosting memorises noise on a grid of 60 rows, so the accuracy is not checked there. Each tree chooses one of two
    # equal dimensions at random: hence the tolerance.
    found = dci(representation(code, SMALL), num_train=600, num_test=300)
    if code in ("constant", "noise"):
        assert found.disentanglement < 0.1
        assert found.completeness < 0.1
    else:
        completeness = 1 - math.log(2) / math.log(6) if code == "duplicated" else 1
        expected = pytest.approx((1, completeness, 1), abs=0.03)
        assert (found.disentanglement, found.completeness, found.informativeness) == expected


def test_dci_of_noise_is_at_chance():
    found = dci(representation("noise"), num_train=2000, classifier=forest)
    assert found.disentanglement < 0.01
    assert found.completeness < 0.01
    guess = np.mean([1 / size for size in DSPRITES.sizes])
    assert found.informativeness == pytest.approx(guess, abs=0.01)


def test_dci_is_invariant_to_permutation_sign_and_scale():
    r = representation("rotated", SMALL)
    one, other = (
        dci(code, num_train=1000, num_test=300, classifier=forest) for code in (r, transformed(r, [5.0, 0.1, 2.0]))
    )
    np.testing.assert_allclose(one.importance, other.importance[::-1], atol=0.05)
    assert one.informativeness == pytest.approx(other.informativeness, abs=0.05)


def test_dci_does_not_depend_on_jobs():
    r = representation("rotated", SMALL)
    one, two = (dci(r, num_train=200, num_test=100, jobs=jobs) for jobs in (1, 2))
    np.testing.assert_array_equal(one.importance, two.importance)


def test_dci_of_one_factor_and_of_one_row():
    r = Representation(one := Factors(("a", "b"), (1, 4)), perfect(one)[:, 1:])
    found = dci(r, num_train=200, num_test=100)
    assert (found.disentanglement, found.completeness, found.informativeness) == (1, 1, 1)
    assert dci(representation("perfect", SMALL), num_train=1, num_test=10).disentanglement == 0


def test_dci_importance_is_that_of_the_fitted_classifiers():
    made = []

    def recorded(seed: int) -> RandomForestClassifier:
        made.append(forest(seed))
        return made[-1]

    found = dci(representation("rotated", SMALL), num_train=300, num_test=100, classifier=recorded)
    expected = np.stack([classifier.feature_importances_ for classifier in made], 1)
    np.testing.assert_array_equal(found.importance, expected)
    assert expected.max() < 0.9  # the code mixes its factors, so powers of the importances would differ
    assert len({classifier.random_state for classifier in made}) == 3


@pytest.mark.parametrize("setting", ["num_train", "num_test", "jobs"])
def test_dci_refuses_settings_below_one(setting):
    with pytest.raises(ValueError, match=f"at least 1 for {setting}, got 0"):
        dci(representation("perfect", SMALL), **{setting: 0})

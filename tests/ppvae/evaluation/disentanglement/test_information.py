"""MIG, modularity and explicitness: exact matrices, and codes with known scores."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ppvae.errors import DataError
from ppvae.evaluation.disentanglement import (
    Representation,
    explicitness_of,
    mig,
    mig_of,
    modularity_explicitness,
    modularity_of,
    mutual_information,
)
from ppvae.evaluation.disentanglement.information import discretize
from ppvae.evaluation.disentanglement.scaling import standardised
from tests.ppvae.evaluation.disentanglement.codes import (
    DSPRITES,
    SMALL,
    noise,
    perfect,
    representation,
    transformed,
)


def test_discretize_has_bins_of_equal_width_and_the_largest_code_in_the_last():
    codes = np.array([[0.0], [0.99], [1.0], [9.99], [10.0]])
    assert discretize(codes, 10)[:, 0].tolist() == [0, 0, 1, 9, 9]
    with pytest.raises(ValueError, match="at least 1 for bins, got 0"):
        discretize(codes, 0)


@pytest.mark.parametrize("value", [0.3, 0.0, -1e10])
def test_discretize_takes_differences_of_rounding_as_a_constant(value):
    codes = np.float32(value) * (1 + np.float32(1.2e-7) * np.arange(3, dtype=np.float32)).reshape(-1, 1)
    for column in (codes, codes.astype(np.float64)):
        assert discretize(column).tolist() == [[0]] * 3
        assert not standardised(column).any()
    assert len(np.unique(discretize(codes * np.array([[1.0], [1.0001], [1.0002]])))) == (3 if value else 1)


def test_mutual_information_is_in_nats():
    values = np.arange(40).reshape(-1, 1) % 8
    assert mutual_information(values.astype(float), values)[0, 0] == pytest.approx(math.log(8))
    assert mutual_information(np.zeros((40, 1)), values)[0, 0] == 0


def test_mutual_information_of_noise_has_the_bias_of_its_table():
    values = np.random.default_rng(0).integers(40, size=(10_000, 1))
    codes = np.random.default_rng(1).random((10_000, 50))
    found = mutual_information(codes, values)
    degrees = 19 * 39  # 2 N I is chi-squared
    assert found.mean() == pytest.approx(degrees / 20_000, abs=5 * (2 * degrees / 50) ** 0.5 / 20_000)


def test_mig_of_matrices():
    assert mig_of(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 2.0])) == 1
    assert mig_of(np.array([[0.5, 0.1], [0.3, 0.1]]), np.array([1.0, 1.0])) == pytest.approx(0.1)
    assert mig_of(np.array([[0.5, 0.4]]), np.array([1.0, 2.0])) == pytest.approx(0.35)  # one dimension: the second is 0
    assert mig_of(np.array([[0.0, 1.0]]), np.array([0.0, 1.0])) == 1  # only the factor that varies


@pytest.mark.parametrize(
    ("code", "value", "error"),
    [("perfect", 0.896, 0.003), ("perfect and noise", 0.895, 0.003), ("duplicated", 0, 0), ("constant", 0, 0)],
)
def test_mig_of_known_codes(code, value, error):
    assert mig(representation(code)) == pytest.approx(value, abs=error)


def test_mig_of_noise_is_at_most_the_bias():
    assert 0 < mig(representation("noise")) < 19 * 39 / 20_000 / math.log(40)


def test_mig_of_a_perfect_code_rises_with_the_bins():
    assert mig(representation("perfect"), bins=40) == pytest.approx(0.988, abs=0.003)


def test_modularity_of_matrices():
    assert modularity_of(np.array([[1.0, 0], [0, 1], [0, 0]])) == pytest.approx(2 / 3)
    assert modularity_of(np.array([[3.0, 0, 0], [0, 0, 2]])) == 1
    assert modularity_of(np.ones((4, 3))) == 0
    assert modularity_of(np.array([[2.0, 1, 0]])) == pytest.approx(1 - 1 / 8)
    assert modularity_of(np.zeros((4, 3))) == 0
    assert modularity_of(np.array([[0.7], [0.0]])) == 0.5  # one factor


def test_modularity_of_known_codes():
    """The information of noise is its bias, proportional to n_k - 1: 1 - (2^2 + 5^2 + 31^2 + 31^2) / (4 39^2) = 0.68 to
    first order, and 0.665 with a standard deviation of 0.010 over draws of the noise."""
    for code, modularity, error in (
        ("perfect", 1, 1e-3),
        ("perfect and noise", (1 + 0.665) / 2, 0.03),
        ("duplicated", 1, 1e-3),
        ("noise", 0.665, 0.04),
        ("constant", 0, 0),
    ):
        codes, values = representation(code).sample(10_000, np.random.default_rng(0))
        assert modularity_of(mutual_information(codes, values)) == pytest.approx(modularity, abs=error)


def test_explicitness_of_known_codes():
    found = {
        code: modularity_explicitness(representation(code), num_train=2000, num_test=1000).explicitness
        for code in ("perfect", "noise", "constant")
    }
    assert found["perfect"] == pytest.approx(0.915, abs=0.01)  # 0.937 with 10,000 rows
    assert found["noise"] == pytest.approx(0.5, abs=0.02)
    assert found["constant"] == 0.5


def test_explicitness_uses_one_regression_for_each_value():
    rng = np.random.default_rng(0)
    value = rng.integers(5, size=300)
    codes = np.stack([value + rng.normal(size=300), rng.normal(size=300)], 1)
    codes = (codes - codes.mean(0)) / codes.std(0)
    hits = value[:, None] == np.arange(5)
    odds = np.stack([LogisticRegression(max_iter=1000).fit(codes, hit).predict_proba(codes)[:, 1] for hit in hits.T], 1)
    areas = [roc_auc_score(hit, p) for hit, p in zip(hits.T, (odds / odds.sum(1, keepdims=True)).T, strict=True)]
    found = explicitness_of(codes, value[:, None], codes, value[:, None])
    assert found == pytest.approx(np.mean(areas), abs=1e-6)
    together = LogisticRegression(max_iter=1000).fit(codes, value).predict_proba(codes)
    assert abs(found - np.mean([roc_auc_score(hit, p) for hit, p in zip(hits.T, together.T, strict=True)])) > 1e-3


def test_explicitness_leaves_out_values_missing_from_a_sample():
    codes = np.array([[0.0], [1.0], [2.0]])
    values = np.array([[0, 3], [1, 3], [2, 3]])
    assert explicitness_of(codes, values, codes[:2], values[:2]) == 1
    assert explicitness_of(codes, values[:, 1:], codes, values[:, 1:]) == 0.5


def test_scores_are_invariant_to_permutation_sign_and_scale():
    r = Representation(SMALL, perfect(SMALL) + 0.3 * noise(SMALL, 3))
    other = transformed(r, [5.0, 0.1, 2.0])
    assert mig(r) == pytest.approx(mig(other), abs=1e-9)
    modularity = [
        modularity_of(mutual_information(*code.sample(5000, np.random.default_rng(0)))) for code in (r, other)
    ]
    assert modularity[0] == pytest.approx(modularity[1], abs=1e-9)
    far = Representation(SMALL, transformed(r, [100.0, 0.01, 2.0]).codes + 5)
    sizes = {"num_train": 1000, "num_test": 500}
    explicitness = [modularity_explicitness(code, **sizes).explicitness for code in (r, far)]
    assert explicitness[0] == pytest.approx(explicitness[1], abs=1e-3)


def test_explicitness_ignores_a_dimension_that_is_constant_in_training():
    rng = np.random.default_rng(0)
    values = rng.integers(2, size=(400, 1))
    codes = np.hstack([values + 0.1 * rng.standard_normal((400, 1)), np.full((400, 1), 0.3)])
    one = explicitness_of(codes, values, codes, values)
    moved = codes + np.array([0.0, 1.0]) * rng.standard_normal((400, 1))
    assert explicitness_of(codes, values, moved, values) == one == 1


def test_mig_of_draws_ignores_a_dimension_that_the_posterior_does_not_use():
    """The second dimension of each factor is a hundred times smaller than the noise of its posterior."""
    codes = torch.cat([perfect(DSPRITES), 0.01 * perfect(DSPRITES)], 1)
    scales = torch.cat([torch.full((len(codes), 5), 0.01), torch.ones(len(codes), 5)], 1)
    used_twice = Representation(DSPRITES, codes, scales)
    assert mig(used_twice) == pytest.approx(0.0, abs=0.01)
    assert mig(used_twice.drawn()) > 0.85
    assert torch.equal(used_twice.drawn(1).codes, used_twice.drawn(1).codes)
    assert not torch.equal(used_twice.drawn(1).codes, used_twice.drawn(2).codes)
    with pytest.raises(DataError, match="expected scales"):
        Representation(DSPRITES, codes).drawn()

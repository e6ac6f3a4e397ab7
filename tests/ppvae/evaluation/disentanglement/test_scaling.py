"""Standardised codes, and which dimensions count as constant."""

import numpy as np
import pytest

from ppvae.evaluation.disentanglement.scaling import is_constant, standardised


@pytest.mark.parametrize("value", [0.3, 0.0, -1e10])
def test_is_constant_allows_for_rounding_of_single_precision(value):
    steps = np.arange(3, dtype=np.float32).reshape(-1, 1)
    rounded = np.float32(value) * (1 + np.float32(1.2e-7) * steps)
    assert is_constant(rounded).tolist() == is_constant(rounded.astype(np.float64)).tolist() == [True]
    assert is_constant(value + (1e-4 * abs(value) + 1e-4) * steps).tolist() == [False]


def test_standardised_codes_have_mean_zero_and_unit_variance():
    codes = np.random.default_rng(0).normal(0, [1.0, 1e-6, 1e6], size=(100, 3)) + np.array([5.0, 0.0, 0.0])
    found = standardised(codes)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-8)
    np.testing.assert_allclose(found.std(0), 1)


def test_standardised_uses_the_mean_and_deviation_of_the_reference():
    reference = np.array([[0.0, 3.0], [2.0, 3.0]])  # mean 1 and standard deviation 1; constant
    np.testing.assert_allclose(standardised(np.array([[5.0, 9.0]]), reference), [[4.0, 0.0]])

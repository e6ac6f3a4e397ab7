"""k-hat of weights with a known tail, and the limit that it is compared with."""

import math

import numpy as np
import pytest

from ppvae.evaluation import pareto_khat
from ppvae.evaluation.likelihood.pareto import khat_limit


def test_pareto_khat_of_pareto_tails_is_their_shape():
    uniform = np.random.default_rng(0).uniform(size=(20, 20_000))
    for shape in (0.3, 0.6, 0.9):
        log_weight = -shape * np.log(uniform)  # weights u^-k are Pareto with shape k
        khat = pareto_khat(log_weight)
        # The fit's standard deviation at a tail of 3 sqrt(20,000) = 424 weights is (1 + k) / sqrt(424).
        assert abs(khat.mean() - shape) < 4 * (1 + shape) / np.sqrt(424 * 20)


def test_pareto_khat_leaves_its_input_unchanged():
    log_weight = np.random.default_rng(0).normal(size=(2, 100))
    before = log_weight.copy()
    pareto_khat(log_weight)
    assert (log_weight == before).all()


def test_pareto_khat_of_too_few_weights_is_nan():
    assert np.isnan(pareto_khat(np.zeros((3, 24)))).all()


def test_pareto_khat_of_equal_weights_is_minus_infinity():
    assert (pareto_khat(np.zeros((3, 100))) == -np.inf).all()


def test_pareto_khat_ignores_a_weight_of_zero():
    log_weight = np.random.default_rng(0).normal(size=(1, 2000))
    with_zero = log_weight.copy()
    with_zero[0, log_weight.argmin()] = -np.inf
    np.testing.assert_allclose(pareto_khat(with_zero), pareto_khat(log_weight))


def test_pareto_khat_of_weights_without_a_mean_is_nan():
    bad = np.zeros((3, 100))
    bad[0, 0], bad[1, 0], bad[2] = np.nan, np.inf, -np.inf
    assert np.isnan(pareto_khat(bad)).all()


@pytest.mark.parametrize(("num_particles", "limit"), [(10, 0.0), (100, 0.5), (1000, 2 / 3), (2154, 0.7), (10**6, 0.7)])
def test_khat_limit_is_that_of_the_paper(num_particles, limit):
    assert khat_limit(num_particles) == pytest.approx(limit, abs=1e-4)


def test_khat_limit_increases_with_particles_up_to_its_maximum():
    limits = [khat_limit(num_particles) for num_particles in range(1, 4000)]
    assert limits == sorted(limits)
    assert limits[0] == -math.inf
    assert max(limits) == 0.7


def test_khat_limit_refuses_less_than_one_particle():
    with pytest.raises(ValueError, match="at least 1 particle, got 0"):
        khat_limit(0)


def test_khat_limit_rejects_more_weights_without_a_mean_than_a_limit_of_07():
    """Weights 1 / u have no mean. Of 40,000 other rows of 100, 14.8% are within the limit and 38.4% below 0.7."""
    rows = 2000
    khat = pareto_khat(-np.log(np.random.default_rng(0).uniform(size=(rows, 100))))
    for limit, share in ((khat_limit(100), 0.148), (0.7, 0.384)):
        error = (share * (1 - share) * (1 / rows + 1 / 40_000)) ** 0.5
        assert (khat < limit).mean() == pytest.approx(share, abs=4 * error)

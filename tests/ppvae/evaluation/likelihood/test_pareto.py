"""k-hat of weights whose tail is known."""

import numpy as np

from ppvae.evaluation import pareto_khat


def test_of_pareto_tails_of_known_shape():
    uniform = np.random.default_rng(0).uniform(size=(20, 20_000))
    for shape in (0.3, 0.6, 0.9):
        log_weight = -shape * np.log(uniform)  # weights u^-k are Pareto with shape k
        khat = pareto_khat(log_weight)
        # The fit's standard deviation at a tail of 3 sqrt(20,000) = 424 weights is (1 + k) / sqrt(424).
        assert abs(khat.mean() - shape) < 4 * (1 + shape) / np.sqrt(424 * 20)


def test_does_not_change_its_input():
    log_weight = np.random.default_rng(0).normal(size=(2, 100))
    before = log_weight.copy()
    pareto_khat(log_weight)
    assert (log_weight == before).all()


def test_too_few_weights_have_no_khat():
    assert np.isnan(pareto_khat(np.zeros((3, 24)))).all()


def test_equal_weights_are_the_best_there_is():
    assert (pareto_khat(np.zeros((3, 100))) == -np.inf).all()


def test_a_weight_of_zero_is_no_part_of_the_tail():
    log_weight = np.random.default_rng(0).normal(size=(1, 2000))
    with_zero = log_weight.copy()
    with_zero[0, log_weight.argmin()] = -np.inf
    np.testing.assert_allclose(pareto_khat(with_zero), pareto_khat(log_weight))


def test_weights_that_are_none_have_no_khat():
    bad = np.zeros((3, 100))
    bad[0, 0], bad[1, 0], bad[2] = np.nan, np.inf, -np.inf
    assert np.isnan(pareto_khat(bad)).all()

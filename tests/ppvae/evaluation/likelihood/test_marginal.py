"""What a matrix of importance weights says: value, error, effective sample size, k-hat, bounds, text."""

import math
from dataclasses import replace

import pytest
import torch

from ppvae.evaluation import khat_limit
from ppvae.evaluation.likelihood.annealed import AnnealingCheck
from ppvae.evaluation.likelihood.marginal import Weighted, Weights, marginal_of, share_of_bad, summary, weights_of


def log_weights(particles=1000, data=5, spread=1.0):
    """log w = spread * N(0, 1) for each particle and datum, less a number for each datum."""
    return spread * torch.randn(particles, data).double() - 100.0 * torch.arange(data)


def test_summary_is_the_log_mean_with_the_error_of_the_delta_method_and_the_effective_sample_size():
    log_weight = log_weights()
    value, error, ess, _ = summary(log_weight)
    weight = (log_weight - log_weight.max(0).values).exp()
    torch.testing.assert_close(value, weight.mean(0).log() + log_weight.max(0).values)
    torch.testing.assert_close(error, weight.std(0) / weight.mean(0) / 1000**0.5)
    torch.testing.assert_close(ess, weight.sum(0).square() / weight.square().sum(0))


def test_summary_of_equal_weights_is_exact():
    value, error, ess, khat = summary(torch.full((50, 2), -1000.0).double())
    torch.testing.assert_close(value, torch.full((2,), -1000.0).double())
    torch.testing.assert_close(ess, torch.full((2,), 50.0).double())
    assert (error < 1e-6).all()
    assert (khat == -math.inf).all()


def test_summary_of_weights_one_of_which_is_zero_is_finite():
    log_weight = log_weights()
    log_weight[3] = -math.inf
    value, error, ess, khat = summary(log_weight)
    assert torch.stack([value, error, ess, khat]).isfinite().all()


def test_summary_of_no_data_is_empty():
    assert [column.shape for column in summary(torch.empty(100, 0).double())] == 4 * [(0,)]


def test_weights_of_one_particle_have_no_standard_error_and_no_khat():
    found = weights_of(log_weights(particles=1))
    assert found.standard_error.isnan().all()
    assert math.isnan(found.khat_bad)
    assert not found.is_reliable
    assert not found.failed.any()


def test_bound_is_the_mean_over_disjoint_groups():
    log_weight = log_weights(particles=7)
    groups = [log_weight[:3].logsumexp(0), log_weight[3:6].logsumexp(0)]
    found = weights_of(log_weight)
    torch.testing.assert_close(found.bound(3), torch.stack(groups).mean(0) - math.log(3))
    torch.testing.assert_close(found.bound(1), log_weight.mean(0))
    assert torch.equal(found.bound(7), found.value)


def test_bound_is_unbiased_and_its_standard_error_is_that_of_repeats():
    log_weight = log_weights(particles=600, data=4000, spread=0.5) + 100.0 * torch.arange(4000)
    found = weights_of(log_weight)
    bounds = found.bound(10)
    truth = (log_weights(10, 400_000, 0.5) + 100.0 * torch.arange(400_000)).logsumexp(0) - math.log(10)
    error = (bounds.var() / 4000 + truth.var() / 400_000) ** 0.5
    assert abs(bounds.mean() - truth.mean()) < 4 * error
    # The variance of 4000 repeats is known to 2.2%; that of 60 groups, averaged over repeats, to less.
    torch.testing.assert_close(
        found.bound_standard_error(10).square().mean(), bounds.var(), rtol=4 * (2 / 4000) ** 0.5, atol=0
    )


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "expected k of at least 1, got 0"),
        (-1, ValueError, "expected k of at least 1, got -1"),
        (51, ValueError, "from 1 to num_particles=50, got 51"),
        ("a", TypeError, "expected k to be a whole number, got 'a'"),
    ],
)
def test_bound_refuses_k_out_of_range(k, error, message):
    found = marginal_of(weights_of(log_weights(particles=50)))
    for method in (found.bound, found.bound_standard_error):
        with pytest.raises(error, match=message):
            method(k)


def test_bound_standard_error_of_all_particles_is_nan():
    assert weights_of(log_weights(particles=50)).bound_standard_error(50).isnan().all()


def test_bound_of_fewer_particles_needs_kept_weights():
    found = marginal_of(weights_of(log_weights(particles=50), keep=False))
    assert torch.equal(found.bound(50), found.value)
    with pytest.raises(ValueError, match=r"expected k=50, got 5; call log_marginal with keep_weights=True"):
        found.bound(5)


def test_bound_of_a_result_is_that_of_the_guide_whatever_decides_its_values():
    guide = weights_of(log_weights(particles=50))
    found = marginal_of(guide)
    moved = replace(found, value=found.value + 1, stage=torch.ones(5, dtype=torch.long), stages=("guide", "other"))
    for k in (1, 10, 50):
        assert torch.equal(moved.bound(k), guide.bound(k))
    torch.testing.assert_close(moved.bound_standard_error(5), guide.bound_standard_error(5))
    assert not torch.equal(moved.value, moved.bound(50))


def test_share_of_bad_is_judged_by_the_limit_of_its_number_of_particles():
    """Weights 1/u have no mean: k is 1. The limit .5 of 100 weights finds more of them than .7 would."""
    _, _, _, khat = summary(-torch.rand(100, 2000).double().log())
    bad = share_of_bad(khat, 100)
    assert bad == (khat > 0.5).double().mean().item()
    assert bad > 0.8 > (khat > 0.7).double().mean().item()


def with_khat(khat, ess, particles=1000):
    khat, ess = torch.tensor(khat), torch.tensor(ess)
    return Weighted(torch.zeros_like(khat), torch.zeros_like(khat), ess=ess, khat=khat, num_particles=particles)


def test_in_doubt_is_a_khat_above_its_limit_or_few_effective_draws():
    limit = khat_limit(1000)
    found = with_khat([limit - 0.01, limit + 0.01, 0.1, 0.1], [900.0, 900.0, 101.0, 99.0])
    assert found.in_doubt.tolist() == [False, True, False, True]
    assert found.failed.tolist() == [False, True, False, False]


def test_is_reliable_where_khat_is_within_its_limit_for_95_percent_of_the_data():
    assert with_khat([0.9] + 19 * [0.1], 20 * [900.0]).is_reliable
    assert not with_khat([0.9, 0.9] + 18 * [0.1], 20 * [900.0]).is_reliable


def result(khat, **changes):
    value = torch.tensor([-1.0, -3.0])
    guide = Weights(value, torch.tensor([0.3, 0.4]), torch.tensor([900.0, 700.0]), torch.tensor(khat), 1000)
    return replace(marginal_of(guide), **changes)


def test_repr_names_both_errors_and_the_diagnostics():
    assert repr(result([0.1, 0.2])) == (
        "LogMarginal(log p(x) -2.000 nats, simulation error 0.250, sampling error 1.000 over 2 data; 1000 particles, "
        "median ess 700.0, k-hat bad in 0.0%)"
    )


def test_repr_says_lower_bound_where_khat_is_bad():
    assert repr(result([0.1, 0.9])).startswith("LogMarginal(lower bound on log p(x) -2.000 nats")
    assert "k-hat bad in 50.0%" in repr(result([0.1, 0.9]))
    few = result([math.nan, math.nan], num_particles=10, quantity="log p(x | c)")
    assert repr(few).startswith("LogMarginal(lower bound on log p(x | c) -2.000 nats")


def test_repr_counts_the_data_of_each_proposal_and_those_that_diverged():
    found = result([0.1, 0.9], stage=torch.tensor([2, 0]), stages=("guide", "full rank", "longer"), diverged=(1,))
    assert "k-hat bad in 50.0%, 0 by full rank, 1 by longer, fit diverged for 1)" in repr(found)
    assert (found.num_fitted, found.num_failed) == (1, 1)


def test_repr_says_why_nothing_was_fitted_and_what_annealing_found():
    check = AnnealingCheck(torch.tensor([-1.4, -1.2]), torch.tensor([0.1, 0.1]))
    found = result([0.1, 0.2], not_fitted="every latent is discrete", check=check)
    assert repr(found).endswith(
        "k-hat bad in 0.0%, not fitted: every latent is discrete, "
        "AnnealingCheck(-1.300 +- 0.100 nats from AIS over 2 data, too low))"
    )

"""Estimates by annealing: their numbers and their text."""

import math

import pytest
import torch

from ppvae.evaluation.likelihood.annealed import AnnealedEstimate, AnnealingCheck, BidirectionalEstimate


def estimate(value, error, chains=4):
    value, error = torch.tensor(value), torch.tensor(error)
    return AnnealedEstimate(value, error, value.expand(chains, -1), torch.full_like(value, 0.75))


def test_annealed_estimate_states_both_errors_of_its_mean():
    found = estimate([-1.0, -3.0], [0.3, 0.4])
    assert found.mean == -2
    assert found.simulation_error == pytest.approx(math.hypot(0.3, 0.4) / 2)
    assert found.sampling_error == pytest.approx(1)
    assert repr(found) == (
        "AnnealedEstimate(log p(x) -2.000 nats, simulation error 0.250, sampling error 1.000 over 2 data; 4 chains, "
        "acceptance 0.75)"
    )


def test_bidirectional_estimate_has_the_error_of_the_paired_differences():
    lower, upper = estimate([-1.0, -3.0], [0.1, 0.1]), estimate([-0.5, -2.1], [0.1, 0.1])
    found = BidirectionalEstimate(lower, upper, torch.zeros(2, 5))
    assert found.gap == pytest.approx(0.7)
    assert found.gap_standard_error == pytest.approx(0.2)  # of the gaps 0.5 and 0.9
    assert repr(found) == ("BidirectionalEstimate(lower -2.000, upper -1.300, gap 0.700 +- 0.200 nats over 2 data)")


def test_bidirectional_estimate_of_one_datum_has_no_error():
    found = BidirectionalEstimate(estimate([-1.0], [0.1]), estimate([-0.5], [0.1]), torch.zeros(1, 5))
    assert math.isnan(found.gap_standard_error)


def check(difference, error):
    return AnnealingCheck(torch.tensor(difference), torch.tensor(error))


def test_annealing_check_has_the_error_over_data_or_of_the_simulation_whichever_is_larger():
    assert check([-1.0, -3.0], [0.1, 0.1]).error == pytest.approx(1)
    assert check([-1.0, -1.0], [0.3, 0.4]).error == pytest.approx(0.25)
    assert check([-1.0], [0.3]).error == pytest.approx(0.3)  # one datum has no error over data
    assert check([-1.0, -3.0], [math.nan, math.nan]).error == pytest.approx(1)


@pytest.mark.parametrize(
    ("mean", "verdict"), [(-0.21, "too low"), (-0.19, "agrees"), (0.0, "agrees"), (0.19, "agrees"), (0.21, "too high")]
)
def test_annealing_check_judges_by_two_errors(mean, verdict):
    found = check(2 * [mean], 2 * [0.1 * 2**0.5])
    assert found.verdict == verdict
    assert repr(found) == f"AnnealingCheck({mean:.3f} +- 0.100 nats from AIS over 2 data, {verdict})"


def test_annealing_check_without_an_error_gives_no_verdict():
    """One particle has no standard error, and one datum none over data."""
    found = check([-5.0], [math.nan])
    assert math.isnan(found.error)
    assert repr(found) == "AnnealingCheck(-5.000 +- nan nats from AIS over 1 data, no error)"

"""The two errors of a mean over data."""

import math

import torch

from ppvae.evaluation.likelihood.per_datum import PerDatum, sampling_error


def test_simulation_error_is_that_of_the_mean_of_independent_estimates():
    truth, error = torch.linspace(-3, 3, 50).double(), torch.linspace(0.1, 2, 50).double()
    means = (truth + error * torch.randn(20_000, 50).double()).mean(1)
    stated = PerDatum(truth, error).simulation_error
    assert abs(means.std().item() / stated - 1) < 4 / (2 * 20_000) ** 0.5


def test_sampling_error_is_that_of_the_mean_of_drawn_data():
    means = (2 * torch.randn(20_000, 50).double()).mean(1)
    stated = torch.tensor([PerDatum(x, x).sampling_error for x in 2 * torch.randn(2000, 50).double()])
    assert abs(means.std().item() / stated.square().mean().sqrt().item() - 1) < 0.03


def test_sampling_error_of_one_datum_is_nan():
    assert math.isnan(sampling_error(torch.ones(1)))

"""Checks of values and densities."""

import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.engine.batch import Batch
from ppvae.engine.density_checks import check_densities, check_values
from ppvae.engine.sites import Site
from tests.catalogue import PAIRS


@pytest.mark.parametrize("observed", [False, True])
def test_check_values_takes_nan_in_data_alone(observed):
    class Silent(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value.nan_to_num())

    site = Site("x", Silent(torch.zeros(1, 3), 1.0), torch.tensor([[0.0, torch.nan, 0.0]]), observed=observed)
    if observed:
        check_values([site], Batch(torch.zeros(3, 1)))
    else:
        with pytest.raises(ppvae.ContractError, match=r"NaN at site 'x' in row 1.*Look for NaN in the pair"):
            check_values([site], Batch(torch.zeros(3, 1)))


def test_check_values_takes_infinite_densities():
    outside = Site("z", dist.Uniform(torch.zeros(1, 2), 1.0, validate_args=False), torch.full((1, 2), 3.0))
    check_values([outside], Batch(torch.zeros(2, 1)))


def test_check_densities_names_the_cause_of_a_weight_that_is_not_finite():
    model, guide, x = PAIRS["gaussian_vae"].make()
    check_densities(model, guide, Batch(x))
    with torch.no_grad():
        model.decoder.layers[0].weight.fill_(torch.nan)
    with pytest.raises(ppvae.ContractError, match=r"finite log weights, got \[nan, nan\] in row 0.*pair's parameters"):
        check_densities(model, guide, Batch(x))

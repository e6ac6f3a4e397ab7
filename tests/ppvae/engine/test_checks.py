"""Each check finds one way in which a pair or its data can be wrong, and says so."""

import copy

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch import nn

import ppvae
from ppvae.engine import data_checks
from ppvae.guides import MeanFieldGaussian, Refined
from ppvae.models import LinearGaussian, VampPrior
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.engine.pairs import PLACES, Placed, guide_of, normal

BROKEN_GUIDES = {
    r"misses latent site\(s\) \['z'\]": lambda self, x: None,
    r"draws site\(s\) \['w'\] that the model does not have": lambda self, x: [
        pyro.sample(name, normal(3)) for name in "zw"
    ],
    r"event shape \(3,\) in the model and \(2,\) in the guide": lambda self, x: pyro.sample("z", normal(2)),
    r"guide to observe nothing, got site 'z'": lambda self, x: pyro.sample("z", normal(3), obs=x.new_zeros(len(x), 3)),
    r"belong to the module, got pyro.param\('free'\)": lambda self, x: pyro.sample(
        "z", dist.Normal(pyro.param("free", torch.zeros(3).double()), 1.0).to_event(1)
    ),
    r"the guide failed on x of shape \(6, 8, 8\) without labels, with particles at dim -2: RuntimeError": (
        lambda self, x: pyro.sample("z", normal(3)) @ torch.ones(7).double()
    ),
}


@pytest.mark.parametrize("message", BROKEN_GUIDES)
def test_check_pair_says_what_is_wrong_with_a_guide(message):
    model, _, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.check_pair(model, guide_of(BROKEN_GUIDES[message]), x)


@pytest.mark.parametrize("place", PLACES)
def test_check_pair_refuses_sites_outside_the_one_plate_or_scaled(place):
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = Placed(PLACES[place])
    guide.loc = nn.Parameter(torch.zeros(()).double())
    with pytest.raises(ppvae.ContractError, match=r"guide site 'z' (in the one plate|without a scale)|guide failed"):
        ppvae.check_pair(model, guide, x)


# modules


@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
def test_check_pair_refuses_pyros_autoguides_before_it_runs_them(auto):
    """AutoNormal learns one posterior for fixed rows: run on the few rows of a check, it would stay set up for them."""
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = auto(model)
    with pytest.raises(ppvae.ContractError, match=rf"expected an amortized guide.*got {auto.__name__}.*ppvae\.guides"):
        ppvae.check_pair(model, guide, x)
    assert guide.prototype_trace is None


@pytest.mark.parametrize(
    ("model", "guide", "got"),
    [
        (LinearGaussian, None, "the class LinearGaussian itself; make an instance"),
        (None, MeanFieldGaussian, "the class MeanFieldGaussian itself; make an instance"),
        (lambda x, y=None: None, None, "function"),
        (None, "flow", "str"),
    ],
)
def test_check_pair_refuses_what_is_no_module(model, guide, got):
    right_model, right_guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=f"expected model and guide to be PyroModules.*got {got}"):
        ppvae.check_pair(model or right_model, guide or right_guide, x)


def test_check_pair_refuses_a_parameter_that_model_and_guide_share():
    shared = MLP((8, 8), [16], 6).double()
    model, _, x = PAIRS["gaussian_vae"].make()
    model.extra = shared
    with pytest.raises(ppvae.ContractError, match=r"share no parameter, got the guide's 'encoder\..*model's 'extra\."):
        ppvae.check_pair(model, MeanFieldGaussian(shared), x)


def pair_with_vamp_prior():
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.prior = VampPrior(guide, x[:3])
    return model, guide, x


def refined_pair():
    model, guide, x = PAIRS["gaussian_vae"].make()
    return model, Refined(guide, model, steps=1), x


@pytest.mark.parametrize("make", [pair_with_vamp_prior, refined_pair])
def test_check_pair_refuses_a_pair_that_was_copied_apart(make):
    """A VampPrior holds the guide, and Refined the model: copied alone, each holds a hidden copy that never trains."""
    model, guide, x = make()
    ppvae.check_pair(model, guide, x)
    ppvae.check_pair(*copy.deepcopy((model, guide)), x)
    apart = copy.deepcopy(model), copy.deepcopy(guide)
    with pytest.raises(ppvae.ContractError, match=r"holds to belong to this pair.*copy\.deepcopy\(\(model, guide\)\)"):
        ppvae.check_pair(*apart, x)


def test_check_pair_refuses_the_partner_of_another_pair():
    model, _, x = PAIRS["gaussian_vae"].make()
    other_model, other_guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    with pytest.raises(ppvae.ContractError, match="the GaussianVAE that the guide's Refined holds to belong to this"):
        ppvae.check_pair(model, Refined(other_guide, other_model, steps=1), x)


# densities


def test_check_pair_refuses_a_density_of_the_wrong_shape():
    class TooMany(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value).unsqueeze(-1)

    guide = guide_of(lambda self, x: pyro.sample("z", TooMany(torch.zeros(3).double(), 1.0).to_event(1)))
    model, _, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=r"log density of guide site 'z' to have shape \(..., 2, 6\)"):
        ppvae.check_pair(model, guide, x)


def test_check_pair_names_the_row_of_a_weight_that_is_not_finite():
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = guide_of(lambda self, x: pyro.sample("z", normal(2)))
    x[3] = 1e200
    with pytest.raises(ppvae.ContractError, match=r"expected finite log weights, got \[-inf, -inf\] in row 3"):
        ppvae.check_pair(model, guide, x)


def test_check_weights_names_the_first_row_without_a_finite_sum():
    log_weight = torch.zeros(2, 4)
    log_weight[0, 1] = -torch.inf  # one weight of 0 is no fault
    data_checks.check_weights(log_weight)
    log_weight[:, 2] = -torch.inf
    log_weight[1, 3] = torch.nan
    with pytest.raises(ppvae.ContractError, match="got -inf for 2 of 4 data, the first at row 12"):
        data_checks.check_weights(log_weight, first_row=10)


@pytest.mark.parametrize(
    ("q", "reason"),
    [
        (lambda self, x: dist.LogNormal(torch.zeros(3).double(), 1.0).to_event(1), "positive on"),
        (lambda self, x: dist.Uniform(torch.full((3,), -5.0).double(), 5.0).to_event(1), "positive on"),
    ],
)
def test_check_pair_refuses_a_guide_that_is_no_density_over_the_priors_space(q, reason):
    model, _, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=rf"whole space of the prior p\(z\), but q is {reason}"):
        ppvae.check_pair(model, guide_of(lambda self, x: pyro.sample("z", q(self, x))), x)


def test_check_pair_accepts_a_point_mass_for_objectives_that_read_no_density():
    model, _, x = PAIRS["gaussian_vae"].make()
    ppvae.check_pair(model, guide_of(lambda self, x: pyro.sample("z", dist.Delta(self.loc).to_event(1))), x)

"""Annealed importance sampling and its two-sided form, against known evidence."""

import math

import numpy as np
import pytest
import torch

import ppvae
from ppvae.evaluation import Annealing
from ppvae.evaluation.likelihood import annealing as module
from ppvae.evaluation.likelihood.hmc import hmc_step
from ppvae.guides import Refined
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
def test_ais_weights_are_unbiased_however_few_the_temperatures(schedule):
    model, x = linear_gaussian()
    few = Annealing(temperatures=6, chains=4000, leapfrog_steps=3, schedule=schedule)
    estimate = ppvae.ais(model, x, annealing=few)
    ratio = (estimate.log_weight - model.log_evidence(x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / len(ratio) ** 0.5).all()
    torch.testing.assert_close(estimate.value, ratio.mean(0).log() + model.log_evidence(x).detach())
    torch.testing.assert_close(estimate.standard_error, ratio.std(0) / ratio.mean(0) / len(ratio) ** 0.5)


def test_bdmc_backward_weights_are_unbiased_for_one_over_the_evidence():
    model, x = linear_gaussian()
    one_chain = Annealing(temperatures=20, chains=1, leapfrog_steps=3)
    both = ppvae.bdmc(model, x[:1].expand(3000, -1), annealing=one_chain)
    ratio = (model.log_evidence(both.x) - both.upper.log_weight[0]).exp()
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / len(ratio) ** 0.5


def test_bdmc_brackets_the_evidence_and_narrows_as_temperatures_double():
    model, x = linear_gaussian()
    template = x[:1].expand(60, -1)
    gaps = []
    for temperatures in (10, 20, 40):
        both = ppvae.bdmc(model, template, annealing=Annealing(temperatures, chains=10, leapfrog_steps=5))
        evidence = model.log_evidence(both.x)
        low, high = both.lower.value - evidence, both.upper.value - evidence
        assert low.mean() < 4 * low.std() / 60**0.5
        assert high.mean() > -4 * high.std() / 60**0.5
        gaps.append(both.gap)
    assert gaps[0] > gaps[1] > gaps[2]


def test_ais_is_the_evidence_within_its_standard_error():
    model, x = linear_gaussian()
    estimate = ppvae.ais(model, x, annealing=Annealing(temperatures=100, chains=100))
    assert ((estimate.value - model.log_evidence(x)).abs() < 4 * estimate.standard_error).all()
    assert estimate.standard_error.max() < 0.3
    assert ((estimate.acceptance > 0.4) & (estimate.acceptance < 0.95)).all()


def test_ais_from_the_exact_posterior_gives_the_evidence_in_every_chain():
    model, x = linear_gaussian()
    estimate = ppvae.ais(model, x, guide=Exact(model), annealing=Annealing(temperatures=5, chains=3))
    torch.testing.assert_close(estimate.log_weight, model.log_evidence(x).expand(3, -1).detach())


def test_ais_weights_vary_less_from_a_good_guide_than_from_the_prior():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    short = Annealing(temperatures=10, chains=200)
    runs = [ppvae.ais(model, x, guide=start, annealing=short) for start in (None, guide)]
    assert runs[1].log_weight.std(0).mean() < runs[0].log_weight.std(0).mean()
    assert ((runs[1].value - model.log_evidence(x)).abs() < 4 * runs[1].standard_error).all()


def test_ais_of_two_latents_one_of_them_positive_agrees_with_draws_of_the_prior():
    model, _, x = PAIRS["user"].make()
    annealed = ppvae.ais(model, x, annealing=Annealing(temperatures=60, chains=60, leapfrog_steps=5))
    torch.manual_seed(0)
    shape = torch.randn(300_000, 2).double()
    size = torch.distributions.LogNormal(0.1 * shape.sum(-1), 1.0).sample()
    mean = model.net(torch.cat([shape, size.unsqueeze(-1)], -1)).detach()
    log_likelihood = torch.distributions.Normal(mean.unsqueeze(1), 0.5).log_prob(x).sum(-1)  # draws of the prior
    weight = (log_likelihood - log_likelihood.amax(0)).exp()
    exact = weight.mean(0).log() + log_likelihood.amax(0)
    error = (annealed.standard_error**2 + (weight.std(0) / weight.mean(0)) ** 2 / len(weight)).sqrt()
    assert error.max() < 0.2
    assert ((annealed.value - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("pair", ["mixture_prior", "flow_prior"])
def test_ais_runs_with_every_prior(pair):
    model, _, x = PAIRS[pair].make()
    estimate = ppvae.ais(model, x, annealing=Annealing(temperatures=20, chains=4, leapfrog_steps=3))
    assert torch.isfinite(estimate.value).all()
    assert (estimate.acceptance > 0).all()


def test_ais_rejects_a_proposal_that_diverges_and_goes_on():
    model, _, x = PAIRS["user"].make()
    large_steps = Annealing(temperatures=10, chains=3, first_step_size=50.0)
    assert torch.isfinite(ppvae.ais(model, x, annealing=large_steps).log_weight).all()


def test_ais_weights_from_a_refined_guide_are_unbiased():
    model, x = linear_gaussian()
    refined = Refined(nearly_exact(model, 2.0), model, 3, 0.3)
    estimate = ppvae.ais(model, x, guide=refined, annealing=Annealing(temperatures=5, chains=300, leapfrog_steps=2))
    ratio = (estimate.log_weight - model.log_evidence(x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / len(ratio) ** 0.5).all()


def test_ais_is_reproducible_by_seed_and_leaves_random_state_and_gradients_alone():
    model, x = linear_gaussian()
    state = torch.get_rng_state()
    first, again = (ppvae.ais(model, x, annealing=Annealing(5, chains=2), seed=7).log_weight for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_ais_refuses_a_discrete_latent_unless_it_is_given():
    model, _, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=r"discrete site\(s\) \['y'\].*give labels y"):
        ppvae.ais(model, x)
    with pytest.raises(ppvae.ContractError, match="labels that are all known"):
        ppvae.ais(model, x, LABELS)
    found = ppvae.ais(model, x, LABELS.clamp(min=0), annealing=Annealing(temperatures=3, chains=2))
    assert torch.isfinite(found.value).all()


def test_ais_warns_of_data_where_no_chain_moves():
    model, x = linear_gaussian()
    with pytest.warns(UserWarning, match="no chain of 4 data ever accepted a transition, the first at row 0"):
        ppvae.ais(model, x, annealing=Annealing(temperatures=3, chains=3, first_step_size=1e6))


def test_ais_warns_of_one_datum_where_no_chain_moves(monkeypatch):
    model, x = linear_gaussian()

    def stuck(log_density, u, *rest):
        moved, accepted = hmc_step(log_density, u, *rest)
        accepted[:, 2], moved[:, 2] = False, u[:, 2]
        return moved, accepted

    monkeypatch.setattr(module, "hmc_step", stuck)
    with pytest.warns(UserWarning, match="no chain of 1 data ever accepted a transition, the first at row 2"):
        estimate = ppvae.ais(model, x, annealing=Annealing(temperatures=5, chains=8))
    assert estimate.acceptance[2] == 0
    assert (estimate.acceptance[[0, 1, 3]] > 0).all()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperatures": 0}, ValueError, "temperatures of at least 1, got 0"),
        ({"chains": -1}, ValueError, "chains of at least 1, got -1"),
        ({"leapfrog_steps": 2.0}, TypeError, "leapfrog_steps to be a whole number, got 2.0"),
        ({"first_step_size": 0.0}, ValueError, "first_step_size above 0, got 0.0"),
        ({"schedule": "cosine"}, ValueError, 'schedule "sigmoid" or "linear", got .cosine.'),
    ],
)
def test_annealing_refuses_settings_out_of_range(settings, error, message):
    with pytest.raises(error, match=message):
        Annealing(**settings)


def test_ais_refuses_settings_as_keywords():
    model, x = linear_gaussian()
    with pytest.raises(ppvae.ContractError, match=r"options of the function, or conditions.*'temperatures', int 5"):
        ppvae.ais(model, x, temperatures=5)


def test_ais_takes_whole_numbers_of_numpy():
    model, x = linear_gaussian()
    found = ppvae.ais(model, x, annealing=Annealing(np.int64(3), np.int64(2), np.int64(1)), seed=np.int64(0))
    assert torch.equal(found.log_weight, ppvae.ais(model, x, annealing=Annealing(3, 2, 1)).log_weight)


def test_bdmc_reads_no_value_of_its_template():
    model, x = linear_gaussian()
    short = Annealing(temperatures=3, chains=2)
    found = [ppvae.bdmc(model, x * 0 + value, annealing=short) for value in (0.0, 1e6, math.nan)]
    for other in found[1:]:
        assert torch.equal(found[0].x, other.x)
        assert torch.equal(found[0].upper.value, other.upper.value)


def test_estimates_print_both_errors():
    model, x = linear_gaussian()
    found = ppvae.ais(model, x, annealing=Annealing(temperatures=3, chains=4))
    errors = f"simulation error {found.simulation_error:.3f}, sampling error {found.sampling_error:.3f} over 4 data"
    assert errors in repr(found)
    assert "over 4 data" in repr(ppvae.bdmc(model, x, annealing=Annealing(temperatures=3, chains=2)))

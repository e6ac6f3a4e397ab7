"""Every evaluator on pairs with labels or conditions, against the closed forms of linear-Gaussian models."""

import math

import numpy as np
import pytest
import torch

import ppvae
from ppvae.evaluation import Annealing, Ascent, inference_data, reconstruct, sample
from ppvae.evaluation.likelihood.proposals import FullRank, Laplace
from tests.ppvae.oracles import conditional_cases

CASES = list(conditional_cases())
ONE_LATENT = ["class", "angle"]


def case(name):
    return conditional_cases()[name]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CASES)
def test_log_marginal_is_within_three_standard_errors_of_the_evidence(name, seed):
    pair = case(name)
    found = ppvae.log_marginal(pair.model, pair.wide, pair.batch, num_particles=4000, seed=seed)
    assert ((found.value - pair.log_evidence(pair.batch.x)).abs() < 3 * found.standard_error).all()
    assert found.standard_error.max() < 0.03
    assert found.is_reliable


@pytest.mark.parametrize("name", CASES)
def test_log_marginal_of_the_exact_guide_is_the_evidence_however_the_data_are_given(name):
    pair = case(name)
    batch = pair.batch
    arrays = {key: value.numpy() for key, value in batch.given.items()}
    labels = None if batch.y is None else batch.y.numpy()
    found = [
        ppvae.log_marginal(pair.model, pair.exact, batch, num_particles=3),
        ppvae.log_marginal(pair.model, pair.exact, batch.x, batch.y, num_particles=3, **batch.given),
        ppvae.log_marginal(pair.model, pair.exact, batch.x.numpy(), labels, num_particles=3, **arrays),
        ppvae.log_marginal(pair.model, pair.exact, ppvae.Dataset(batch.x, batch.y, **batch.given), num_particles=3),
    ]
    for each in found:
        torch.testing.assert_close(each.value, pair.log_evidence(batch.x))


@pytest.mark.parametrize("name", CASES)
def test_log_marginal_of_the_fitted_posterior_is_the_evidence_under_labels_and_conditions(name):
    pair = case(name)
    evidence = pair.log_evidence(pair.batch.x)
    exact = ppvae.log_marginal(pair.model, pair.wide, pair.batch, proposal=Laplace(scale=1.0), num_particles=3)
    torch.testing.assert_close(exact.value, evidence)
    found = ppvae.log_marginal(pair.model, pair.wide, pair.batch, proposal=FullRank(steps=20))
    assert ((found.value - evidence).abs() < 4 * found.standard_error).all()
    assert found.quantity == exact.quantity != "log p(x)"


@pytest.mark.parametrize("name", CASES)
def test_ais_is_within_three_standard_errors_and_exact_from_the_exact_guide(name):
    pair = case(name)
    evidence = pair.log_evidence(pair.batch.x)
    found = ppvae.ais(pair.model, pair.batch, annealing=Annealing(temperatures=50, chains=40, leapfrog_steps=5))
    assert ((found.value - evidence).abs() < 3 * found.standard_error).all()
    assert found.standard_error.max() < 0.3
    exact = ppvae.ais(pair.model, pair.batch, guide=pair.exact, annealing=Annealing(temperatures=3, chains=2))
    torch.testing.assert_close(exact.log_weight, evidence.expand(2, -1))


@pytest.mark.parametrize("name", CASES)
def test_bdmc_brackets_the_evidence_of_data_with_the_labels_and_conditions_of_the_template(name):
    pair = case(name).of_size(60)
    both = ppvae.bdmc(pair.model, pair.batch, annealing=Annealing(temperatures=20, chains=5, leapfrog_steps=5))
    evidence = pair.log_evidence(both.x)
    low, high = both.lower.value - evidence, both.upper.value - evidence
    assert low.mean() < 4 * low.std() / 60**0.5
    assert high.mean() > -4 * high.std() / 60**0.5
    assert 0 < both.gap < 2


@pytest.mark.parametrize("name", CASES)
def test_upper_bound_is_above_the_evidence_and_equal_to_it_for_the_exact_guide(name):
    pair = case(name).of_size(600)
    found = ppvae.upper_bound(pair.model, pair.wide, pair.batch, num_particles=4)
    above = found.value - pair.log_evidence(found.x)
    assert above.mean() > -4 * above.std() / 600**0.5
    assert found.gap > 0
    exact = ppvae.upper_bound(pair.model, pair.exact, pair.batch, num_particles=3)
    torch.testing.assert_close(exact.value, pair.log_evidence(exact.x))


@pytest.mark.parametrize("name", CASES)
def test_calibration_accepts_the_exact_guide_and_rejects_a_wide_one(name):
    pair = case(name).of_size(1500)
    for guide, accepted in ((pair.exact, True), (pair.wide, False)):
        found = ppvae.calibration(pair.model, guide, pair.batch, num_particles=19)
        p_values = torch.cat([found.p_value(site) for site in found.ranks])
        assert (p_values > 1e-3).all() if accepted else (p_values < 1e-3).all()


@pytest.mark.parametrize("name", ONE_LATENT)
def test_gaps_of_the_exact_guide_are_zero(name):
    pair = case(name)
    found = ppvae.gaps(pair.model, pair.exact, pair.batch, num_particles=1000, ascent=Ascent(max_windows=1))
    torch.testing.assert_close(found.log_p.value, pair.log_evidence(pair.batch.x))
    torch.testing.assert_close(found.amortized.value, pair.log_evidence(pair.batch.x))
    assert found.approximation.value.abs().max() < 0.01
    assert found.amortization.value.abs().max() < 0.01


@pytest.mark.parametrize("name", ONE_LATENT)
def test_gaps_of_a_wide_guide_are_of_amortization(name):
    pair = case(name)
    found = ppvae.gaps(pair.model, pair.wide, pair.batch, num_particles=4000, ascent=Ascent(0.02, max_windows=2))
    kl = 2 * (0.5 * (1.3**2 - 1) - math.log(1.3))  # KL(wide || exact), the same for every datum
    assert ((found.amortization.value - kl).abs() < 4 * found.amortization.standard_error + 0.01).all()
    assert (found.approximation.value.abs() < 4 * found.approximation.standard_error + 0.01).all()


def test_gaps_refuses_a_guide_of_several_latents():
    pair = case("two_latents")
    with pytest.raises(ppvae.ContractError, match=r"expected an AmortizedGuide.*ConditionalWalkBack.*several latents"):
        ppvae.gaps(pair.model, pair.exact, pair.batch)


@pytest.mark.parametrize("name", ONE_LATENT)
def test_latent_statistics_are_the_closed_forms(name):
    pair = case(name)
    found = ppvae.latent_statistics(pair.model, pair.exact, pair.batch, num_particles=10, chunk=4)
    mean, scale = pair.model.posterior(pair.batch.x, pair.condition)
    prior = pair.condition @ pair.model.prior_shift.T
    kl = (0.5 * (scale**2 + (mean - prior) ** 2 - 1) - scale.log()).mean(0).detach()
    torch.testing.assert_close(found.kl_per_dimension, kl)
    torch.testing.assert_close(found.variance_of_means, mean.var(0, correction=0).detach())
    assert found.rate == pytest.approx(kl.sum().item())
    assert found.mutual_information > 0.5


def test_latent_statistics_has_an_aggregate_kl_only_where_the_prior_is_the_same_for_all_data():
    one_prior, many = case("class").of_size(300), case("angle").of_size(300)
    x = ppvae.upper_bound(one_prior.model, one_prior.exact, one_prior.batch, num_particles=2).x
    found = ppvae.latent_statistics(one_prior.model, one_prior.exact, one_prior.batch.with_x(x), seed=1)
    assert abs(found.aggregate_kl) < 0.1  # the exact posterior under data of the model: q(z) is the prior
    assert math.isnan(ppvae.latent_statistics(many.model, many.exact, many.batch).aggregate_kl)
    constant = {"angle": torch.ones(300, 3).double()}
    found = ppvae.latent_statistics(many.model, many.exact, many.batch.x, **constant)
    assert found.aggregate_kl == pytest.approx(found.rate - found.mutual_information)


def test_latent_statistics_of_two_latents_make_up_the_evidence():
    pair = case("two_latents")
    found = [
        ppvae.latent_statistics(pair.model, pair.exact, pair.batch, site=site, num_particles=5000)
        for site in ("z1", "z2")
    ]
    bound = -(found[0].rate + found[1].rate + found[0].distortion)
    assert bound == pytest.approx(pair.log_evidence(pair.batch.x).mean().item(), abs=0.1)


@pytest.mark.parametrize("name", CASES)
def test_compare_gives_the_difference_of_the_closed_forms(name):
    pair = case(name)
    guides, batch = {"exact": pair.exact, "wide": pair.wide}, pair.batch
    found = ppvae.compare(pair.model, guides, batch.x, batch.y, num_particles=20_000, **batch.given)
    elements = 2 if name in ONE_LATENT else 4
    kl = elements * (0.5 * (1.3**2 - 1) - math.log(1.3))  # the mean of z2 is the exact one given any z1
    assert found.difference("exact", "wide", 1)[0] == pytest.approx(kl, abs=0.02)
    exact = pair.log_evidence(pair.batch.x)
    assert found.records()["exact"]["guide_bound"] == pytest.approx(exact.mean().item())
    log_p = found.rows["exact"].marginal
    assert ((log_p.value - exact).abs() < 4 * log_p.standard_error + 1e-9).all()
    assert found.to_arviz("exact", draws=10)["log_likelihood"]["x"].shape == (1, 10, 6)


@pytest.mark.parametrize("name", CASES)
def test_inference_data_holds_draws_of_the_posterior_and_the_conditions(name):
    pair = case(name)
    found = inference_data(pair.model, pair.exact, pair.batch, draws=2000, candidates=1)
    for key, value in pair.batch.given.items():
        np.testing.assert_array_equal(found["constant_data"][key].values, value)
    if name == "two_latents":
        a, b = pair.batch.given["a"], pair.batch.given["b"]
        site, mean, scale = "z1", 2 / 3 * (pair.batch.x + (a + b) / 2), torch.full_like(a, (2 / 3) ** 0.5)
    else:
        site, (mean, scale) = "z", pair.model.posterior(pair.batch.x, pair.condition)
    draws = torch.from_numpy(np.array(found["posterior"][site].values))[0]
    assert ((draws.mean(0) - mean).abs() < 4.5 * scale * (2 / 2000) ** 0.5).all()


@pytest.mark.parametrize("name", ONE_LATENT)
def test_features_traversals_and_reconstruct_are_the_closed_forms(name):
    pair = case(name)
    mean, _ = pair.model.posterior(pair.batch.x, pair.condition)
    torch.testing.assert_close(ppvae.features(pair.exact, pair.batch), mean.detach())
    found = reconstruct(pair.model, pair.exact, pair.batch)
    torch.testing.assert_close(found, pair.model.mean(mean, pair.condition).detach())
    one = pair.batch.rows(slice(2, 3))
    images = ppvae.traversals(pair.model, pair.exact, one, values=(0.5, 2.0))
    moved = mean[2].clone()
    moved[1] = 2.0
    torch.testing.assert_close(images[1, 1], pair.model.mean(moved, pair.condition[2]).detach())


def test_represent_gives_the_posterior_means_under_the_conditions_of_the_rows():
    pair = case("angle").of_size(12)
    grid = ppvae.data.Factors(("shape", "place"), (3, 4))
    data = ppvae.Dataset(pair.batch.x, factors=grid, **pair.batch.given)
    found = ppvae.represent(pair.model, pair.exact, data, batch_size=5)
    mean, scale = pair.model.posterior(pair.batch.x, pair.condition)
    torch.testing.assert_close(found.codes, mean.detach().float())
    prior = pair.condition @ pair.model.prior_shift.T
    kl = (0.5 * (scale**2 + (mean - prior) ** 2 - 1) - scale.log()).mean(0).detach()
    torch.testing.assert_close(found.kl, kl.float())
    assert found.prior is None


def test_represent_has_no_prior_where_only_later_rows_have_another_condition():
    pair = case("angle")
    grid = ppvae.data.Factors(("shape", "place"), (3, 4))
    angle = torch.zeros(12, 3).double()
    same = ppvae.Dataset(torch.randn(12, 5).double(), factors=grid, angle=angle)
    assert ppvae.represent(pair.model, pair.exact, same, batch_size=3).prior is not None
    angle[11] = 1.0
    other = ppvae.Dataset(torch.randn(12, 5).double(), factors=grid, angle=angle)
    assert ppvae.represent(pair.model, pair.exact, other, batch_size=3).prior is None


@pytest.mark.parametrize("name", CASES)
def test_sample_has_the_mean_and_the_covariance_given_labels_and_conditions(name):
    pair = case(name)
    one = pair.batch.rows(torch.full((4000,), 3))
    x = sample(pair.model, 4000, one.y, **one.given)
    if name == "two_latents":
        mean, variance = (one.given["a"] + one.given["b"])[0], torch.full((2,), 3.0).double()
    else:
        c = pair.condition[3]
        mean = pair.model.mean(pair.model.prior_shift @ c, c).detach()
        variance = (pair.model.weight.square().sum(1) + pair.model.scale**2).detach()
    assert ((x.mean(0) - mean).abs() < 4 * (variance / 4000) ** 0.5).all()
    torch.testing.assert_close(x.var(0), variance, rtol=4 * (2 / 4000) ** 0.5, atol=0)


EVALUATORS = {
    "log_marginal": ppvae.log_marginal,
    "ais": lambda model, guide, data, y=None, **given: ppvae.ais(model, data, y, guide=guide, **given),
    "bdmc": lambda model, guide, data, y=None, **given: ppvae.bdmc(model, data, y, guide=guide, **given),
    "upper_bound": ppvae.upper_bound,
    "calibration": ppvae.calibration,
    "gaps": ppvae.gaps,
    "latent_statistics": ppvae.latent_statistics,
    "compare": lambda model, guide, data, y=None, **given: ppvae.compare(model, {"a": guide}, data, y, **given),
    "traversals": ppvae.traversals,
    "inference_data": inference_data,
    "reconstruct": reconstruct,
    "features": lambda model, guide, data, y=None, **given: ppvae.features(guide, data, y, **given),
    "sample": lambda model, guide, data, y=None, **given: sample(model, len(data), y, **given),
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluator_refuses_a_missing_condition(name):
    pair = case("angle")
    with pytest.raises(ppvae.ContractError, match=r"expected the condition\(s\) \['angle'\]|model that draws x"):
        EVALUATORS[name](pair.model, pair.exact, pair.batch.x)


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluator_refuses_a_pair_that_needs_labels_without_them(name):
    pair = case("class")
    with pytest.raises(ppvae.ContractError, match=r"needs? (a )?labels|labels and conditions that"):
        EVALUATORS[name](pair.model, pair.exact, pair.batch.x)


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluator_refuses_a_misspelt_option(name):
    pair = case("angle")
    with pytest.raises(ppvae.ContractError, match=r"num_partikels.*check the spelling"):
        EVALUATORS[name](pair.model, pair.exact, pair.batch.x, **pair.batch.given, num_partikels=5)
    with pytest.raises(ppvae.ContractError, match=r"\['angel'\].*check the spelling"):
        EVALUATORS[name](pair.model, pair.exact, pair.batch.x, **pair.batch.given, angel=pair.batch.given["angle"])

"""Comparing pairs: paired differences, gaps and annealing in common, refusals."""

import pytest
import torch

import ppvae
from ppvae.evaluation import Annealing, Ascent
from ppvae.guides import FullRankGaussian, MeanFieldGaussian
from ppvae.nn import MLP
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian, three_guides


def test_compare_gives_the_order_and_the_paired_differences_of_the_closed_forms():
    model, guides, x = three_guides()
    result = ppvae.compare(model, guides, x, num_particles=5000)
    assert result.best(1) == "exact"
    torch.testing.assert_close(result.rows["exact"].marginal.value, model.log_evidence(x).detach())
    difference, error = result.difference("wide", "exact", 1)
    variance = model.posterior(x).variance[0] * torch.tensor([1.3**2]).double()
    posterior = model.posterior(x[:1])
    q = torch.distributions.MultivariateNormal(posterior.mean, torch.diag(variance))
    kl = torch.distributions.kl_divergence(q, posterior).item()  # the same for every datum
    assert difference == pytest.approx(-kl, abs=0.03)
    assert error < 0.03
    assert result.difference("wide", "wide") == (0.0, 0.0)
    assert result.difference("wider", "wide", 1)[0] < 0


def test_compare_measures_gaps_of_one_model_from_one_log_p():
    torch.manual_seed(0)
    model, x = linear_gaussian()
    guides = {
        "mean field": MeanFieldGaussian(MLP(5, [], 4)).double(),
        "full rank": FullRankGaussian(MLP(5, [], 5), 2).double(),
    }
    result = ppvae.compare(model, guides, x, num_particles=200, ascent=Ascent(0.05, max_windows=1))
    assert all(record["amortization_gap"] > 1 for record in result.records().values())
    first, second = (row.gaps for row in result.rows.values())
    torch.testing.assert_close(first.log_p.value, second.log_p.value)  # one model, one log p(x)
    off = first.log_p.value - model.log_evidence(x)
    assert (off.abs() < 5 * first.log_p.standard_error + 1e-9).all()


def test_compare_refuses_gaps_of_guides_that_are_not_amortized():
    model, guides, x = three_guides()
    with pytest.raises(ppvae.ContractError, match=r"pair 'exact'.*AmortizedGuide"):
        ppvae.compare(model, guides, x, ascent=Ascent())


def test_compare_refuses_a_guide_of_other_latents_by_name():
    model, _, x = three_guides()
    _, stranger, _ = PAIRS["user"].make()
    with pytest.raises(ppvae.ContractError, match="pair 'stranger'"):
        ppvae.compare(model, {"stranger": stranger}, x)
    with pytest.raises(ValueError, match="at least one pair"):
        ppvae.compare(model, {}, x)
    with pytest.raises(ValueError, match="at least 2 data"):
        ppvae.compare(model, {"exact": Exact(model)}, x[:1])


def test_compare_pairs_with_different_models():
    first, second = PAIRS["gaussian_vae"].make(0), PAIRS["gaussian_vae"].make(1)
    result = ppvae.compare_pairs({"a": first[:2], "b": second[:2]}, first[2], num_particles=50)
    delta = result.rows["a"].marginal.value - result.rows["b"].marginal.value
    assert result.difference("a", "b") == pytest.approx((delta.mean().item(), (delta.std() / 6**0.5).item()))


def test_compare_draws_dynamically_binarized_data_once_for_all_pairs():
    first, second = PAIRS["gaussian_vae"].make(0), PAIRS["gaussian_vae"].make(1)
    data = ppvae.Dataset(torch.rand(6, 8, 8).double(), binarization="dynamic")
    found = ppvae.compare_pairs({"a": first[:2], "b": second[:2]}, data, num_particles=5, seed=3)
    assert set(found.batch.x.unique().tolist()) == {0.0, 1.0}
    for name, pair in found.pairs.items():
        alone = ppvae.log_marginal(*pair, found.batch, num_particles=5, seed=3)
        assert torch.equal(found.rows[name].marginal.value, alone.value)


def test_compare_refuses_annealing_of_a_discrete_latent_before_anything_is_estimated():
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=r"pair 'only': expected continuous latents.*\['y'\]"):
        ppvae.compare(model, {"only": guide}, x, num_particles=10**9, annealing=Annealing(temperatures=3))


def test_compare_takes_labels_that_are_known_in_part():
    model, guide, x = PAIRS["label"].make()
    found = ppvae.compare(model, {"only": guide}, x, LABELS, num_particles=20)
    alone = ppvae.log_marginal(model, guide, x, LABELS, num_particles=20)
    assert torch.equal(found.rows["only"].marginal.value, alone.value)

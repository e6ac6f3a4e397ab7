"""log p(x) by importance sampling, against closed forms."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.evaluation.likelihood.importance import LogMarginal, _summary
from ppvae.guides import Refined
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.oracles import Exact, gaussian_mixture, linear_gaussian, nearly_exact


@pytest.mark.parametrize("seed", range(5))
def test_log_marginal_is_within_three_standard_errors_of_the_evidence(seed):
    model, x = linear_gaussian()
    result = ppvae.log_marginal(model, nearly_exact(model), x, num_particles=4000, seed=seed)
    # The estimate is biased low by about half its variance, which is far below the error here.
    assert ((result.value - model.log_evidence(x)).abs() < 3 * result.standard_error).all()
    assert result.khat_bad == 0


def test_log_marginal_standard_error_is_that_of_repeated_estimates():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    results = [ppvae.log_marginal(model, guide, x, num_particles=200, seed=seed) for seed in range(300)]
    seen = torch.stack([result.value for result in results]).std(0)
    stated = torch.stack([result.standard_error for result in results]).mean(0)
    # A standard deviation from 300 repeats is known to 4%; four times that.
    torch.testing.assert_close(stated, seen, rtol=0.16, atol=0)


def test_log_marginal_is_exact_where_the_guide_is_the_posterior():
    model, x = linear_gaussian()
    result = ppvae.log_marginal(model, Exact(model), x, num_particles=50)
    torch.testing.assert_close(result.value, model.log_evidence(x).detach(), rtol=0, atol=1e-6)
    assert (result.standard_error < 1e-6).all()
    torch.testing.assert_close(result.ess, torch.full_like(result.ess, 50))


def test_log_marginal_is_exact_where_every_latent_is_enumerated():
    model, x = gaussian_mixture()
    guide = PAIRS["mixture"].guide().double()
    result = ppvae.log_marginal(model, guide, x, num_particles=1)
    torch.testing.assert_close(result.value, model.log_evidence(x).detach())


def test_bound_increases_with_k_from_the_elbo_to_the_value():
    model, x = linear_gaussian()
    guide = PAIRS["linear_gaussian"].guide().double()
    result = ppvae.log_marginal(model, guide, x, num_particles=6000)
    bounds = torch.stack([result.bound(k) for k in (1, 2, 5, 50, 6000)])
    assert (bounds.diff(dim=0) > 0).all()
    torch.testing.assert_close(bounds[-1], result.value)
    elbo = -ppvae.evaluate_loss(ppvae.ELBO(6000, analytic_kl=False), model, guide, ppvae.Dataset(x), seed=1)
    variance = result._relative_log_weight.double().var(0) / 6000  # of one datum's mean; two such means are compared
    assert abs(result.bound(1).mean().item() - elbo) < 4 * (2 * variance.sum()).sqrt() / len(x)


def test_log_marginal_is_reproducible_by_seed_and_leaves_the_random_state_alone():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    state = torch.get_rng_state()
    first = ppvae.log_marginal(model, guide, x, num_particles=30, seed=1).value
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, ppvae.log_marginal(model, guide, x, num_particles=30, seed=1).value)
    assert not torch.equal(first, ppvae.log_marginal(model, guide, x, num_particles=30, seed=2).value)


@pytest.mark.parametrize("chunk", [1, 7, 40, 10_000])
def test_log_marginal_agrees_whatever_the_chunk(chunk):
    model, x = linear_gaussian()
    result = ppvae.log_marginal(model, nearly_exact(model), x, num_particles=500, chunk=chunk)
    assert result.value.shape == (len(x),)
    assert ((result.value - model.log_evidence(x)).abs() < 4 * result.standard_error).all()


def test_log_marginal_evaluates_no_more_at_once_than_chunk():
    model, guide, x = PAIRS["label_style"].make()
    seen = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(output[..., 0, 0].numel()))
    ppvae.log_marginal(model, guide, x, num_particles=90, chunk=120)
    assert max(seen[-10:]) <= 120


def test_log_marginal_restores_training_modes():
    model, guide, x = PAIRS["label"].make()
    guide.classifier.eval()
    ppvae.log_marginal(model, guide, x, num_particles=2)
    assert model.training
    assert guide.training
    assert not guide.classifier.training


def test_log_marginal_of_known_labels_is_the_joint_evidence():
    model, guide, x = PAIRS["label"].make()
    joint = [
        ppvae.log_marginal(model, guide, x, torch.full((len(x),), label), num_particles=3000).value
        for label in range(4)
    ]
    total = ppvae.log_marginal(model, guide, x, num_particles=3000)
    torch.testing.assert_close(torch.stack(joint).logsumexp(0), total.value, rtol=0, atol=0.1)
    mixed = ppvae.log_marginal(model, guide, x, LABELS, num_particles=3000).value
    own = torch.stack(joint)[LABELS.clamp(min=0), range(len(x))]
    torch.testing.assert_close(mixed, torch.where(LABELS >= 0, own, total.value), rtol=0, atol=0.1)


def test_log_marginal_refuses_data_outside_the_support_in_any_row():
    model, guide, x = PAIRS["gaussian_vae"].make()
    x[-1, 0, 0] = 2.0
    with pytest.raises(ppvae.ContractError, match=r"in the support of the likelihood.*got values from 0 to 2"):
        ppvae.log_marginal(model, guide, x)
    x[-1, 0, 0] = float("nan")
    with pytest.raises(ppvae.ContractError, match=f"row {len(x) - 1}"):
        ppvae.log_marginal(model, guide, x)


def test_log_marginal_evaluates_no_more_at_once_than_chunk_whichever_rows_are_labelled():
    model, guide, x = PAIRS["label_style"].make()
    seen = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(output[..., 0, 0].numel()))
    ppvae.log_marginal(model, guide, x, LABELS, num_particles=90, chunk=120)
    assert max(seen[-10:]) <= 120


def test_log_marginal_refuses_nan_weights_with_the_row():
    model, guide, x = PAIRS["gaussian_vae"].make()
    bad = torch.zeros_like(x)
    bad[5] = 1
    guide.encoder.register_forward_hook(
        lambda module, args, out: out.where((args[0] < 1).any((-1, -2))[:, None], torch.nan)
    )
    with pytest.raises(ppvae.ContractError, match="finite weights, got nan for 1 of 6 data, the first at row 5"):
        ppvae.log_marginal(model, guide, bad, num_particles=30)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([-1, -1, -1, -1, -1, 99]), "labels from 0 to 3, or -1 where unknown, got -1 to 99"),
        (torch.tensor([0, 1, 2, 3, 0, 99]), "got 0 to 99"),
        (torch.tensor([0, 1]), r"shape \(6,\), one label a row of x"),
    ],
)
def test_log_marginal_refuses_labels_that_do_not_fit_in_any_row(y, message):
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.log_marginal(model, guide, x, y)


def test_log_marginal_refuses_a_plain_function():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="expected model and guide to be PyroModules"):
        ppvae.log_marginal(model, guide.forward, x)


def test_log_marginal_takes_whole_numbers_of_numpy_and_refuses_others():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    found = ppvae.log_marginal(model, guide, x, num_particles=np.int64(5), chunk=np.int32(7), seed=np.int64(1))
    assert torch.equal(found.value, ppvae.log_marginal(model, guide, x, num_particles=5, chunk=7, seed=1).value)
    with pytest.raises(TypeError, match=r"expected num_particles to be a whole number, got 5\.0"):
        ppvae.log_marginal(model, guide, x, num_particles=5.0)
    with pytest.raises(TypeError, match=r"expected seed to be a whole number, got 1\.5"):
        ppvae.log_marginal(model, guide, x, seed=1.5)


def test_log_marginal_ends_at_the_first_datum_without_finite_weights():
    model, _ = linear_gaussian()
    guide, x = nearly_exact(model), torch.randn(300, 5).double()
    x[7] = 1e200  # its squares are infinite
    seen = []
    guide.distribution = lambda features, of=guide.distribution: seen.append(1) or of(features)
    with pytest.raises(ppvae.ContractError, match=r"expected finite weights, got -inf for 1 of 1 data.*row 7"):
        ppvae.log_marginal(model, guide, x, num_particles=1000)
    assert len(seen) < 20


def test_log_marginal_evaluates_a_guide_that_fit_has_not_seen():
    """Parts of a Refined guide are reached through its partners; parts of a plain module through the module."""
    model, x = linear_gaussian()
    refined = Refined(nearly_exact(model, 2.0), model, steps=5, learning_rate=0.05)
    found = ppvae.log_marginal(model, refined, x, num_particles=3000)
    assert ((found.value - model.log_evidence(x)).abs() < 4 * found.standard_error).all()
    assert not list(pyro.get_param_store().keys())


def test_repr_names_both_errors_and_says_lower_bound_where_khat_is_bad():
    model, x = linear_gaussian()
    good = ppvae.log_marginal(model, nearly_exact(model), x, num_particles=1000)
    assert repr(good).startswith(f"LogMarginal(log p(x) {good.mean:.3f} nats, simulation error ")
    assert f"sampling error {good.sampling_error:.3f} over 4 data" in repr(good)
    bad = ppvae.log_marginal(model, nearly_exact(model, 0.4), x, num_particles=1000)
    assert repr(bad).startswith("LogMarginal(lower bound on log p(x) ")
    assert bad.khat_bad > 0.5
    assert f"k-hat bad in {bad.khat_bad:.1%}" in repr(bad)


QUANTITIES = {
    ("label", "unlabelled"): "log p(x)",
    ("label", "all labelled"): "log p(x, y)",
    ("label", "partly labelled"): "log p(x) (x, y where y is known)",
    ("conditional", "unlabelled"): "log p(x | c)",
    ("labelled_condition", "all labelled"): "log p(x | y)",
    ("two_conditions", "unlabelled"): "log p(x | a, b)",
}


@pytest.mark.parametrize("case", QUANTITIES)
def test_log_marginal_names_what_it_estimates(case):
    pair, kind = case
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    result = ppvae.log_marginal(model, guide, ALL_PAIRS[pair].kinds(batch)[kind], num_particles=30)
    assert result.quantity == QUANTITIES[case]
    assert QUANTITIES[case] in repr(result)


class LateNarrow(ppvae.Guide):
    """Uniform on (0, 1), and on (0, .3) for data above a half."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(x.new_zeros(()), 1.0 - 0.7 * (x > 0.5).to(x)))


class UniformModel(ppvae.Model):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_log_marginal_reads_the_bounds_of_every_datum():
    x = torch.cat([torch.zeros(20), torch.ones(1)])
    with pytest.raises(ppvae.ContractError, match=r"positive on \(0, 0.3\) alone"):
        ppvae.log_marginal(UniformModel(), LateNarrow(), x, num_particles=30)

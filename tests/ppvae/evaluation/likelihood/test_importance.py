"""log p(x) by importance sampling from the guide and from fitted proposals, against closed forms."""

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.evaluation import LogMarginal, Weights
from ppvae.evaluation.likelihood import importance
from ppvae.evaluation.likelihood.proposals import FullRank, Laplace
from ppvae.guides import Refined
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.evaluation.likelihood.known import LabelStyle, classes, estimated, small_linear, two_layers
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
    results = [ppvae.log_marginal(model, guide, x, proposal=None, num_particles=200, seed=seed) for seed in range(300)]
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
    torch.testing.assert_close(bounds[-1], result.guide.value)
    elbo = -ppvae.evaluate_loss(ppvae.ELBO(6000, analytic_kl=False), model, guide, ppvae.Dataset(x), seed=1)
    variance = (
        result.guide._relative_log_weight.double().var(0) / 6000
    )  # of one datum's mean; two such means are compared
    assert abs(result.bound(1).mean().item() - elbo) < 4 * (2 * variance.sum()).sqrt() / len(x)


def test_check_with_ais_refuses_before_it_estimates_what_ais_refuses(monkeypatch):
    known = classes(LabelStyle, "none", 4)
    monkeypatch.setattr(importance, "estimate", lambda *args: pytest.fail("too late"))
    with pytest.raises(ppvae.ContractError, match=r"expected continuous latents, got the discrete site\(s\) \['y'\]"):
        estimated(known, check_with_ais=2)
    with pytest.raises(ValueError, match="check_with_ais of at least 0, got -1"):
        estimated(known, check_with_ais=-1)
    with pytest.raises(TypeError, match=r"expected check_with_ais to be a whole number, got 2\.5"):
        estimated(known, check_with_ais=2.5)


SEEDED = {"linear": small_linear, "layers": two_layers, "classes": lambda: classes(LabelStyle, "some", 6)}


@pytest.mark.parametrize("proposal", [None, "auto", FullRank(steps=10, cover=3), Laplace()])
@pytest.mark.parametrize("name", SEEDED)
def test_log_marginal_is_reproducible_by_seed_and_leaves_the_random_state_alone(name, proposal):
    known = SEEDED[name]()
    state = torch.get_rng_state()
    one, other, third = (estimated(known, proposal=proposal, num_particles=60, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("value", "standard_error", "ess", "khat", "stage"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert not torch.equal(one.value, third.value)


@pytest.mark.parametrize("proposal", [None, "auto", FullRank(steps=10), Laplace()])
@pytest.mark.parametrize("chunk", [3, 40, 10_000])
def test_log_marginal_agrees_whatever_the_chunk(chunk, proposal):
    model, x = linear_gaussian()
    guide = nearly_exact(model) if proposal is None else nearly_exact(model, 4.0)
    result = ppvae.log_marginal(model, guide, x, num_particles=200, chunk=chunk, proposal=proposal)
    assert result.value.shape == (len(x),)
    assert ((result.value - model.log_evidence(x)).abs() < 4 * result.standard_error).all()


@pytest.mark.parametrize("y", [None, LABELS])
@pytest.mark.parametrize("proposal", [None, "auto", FullRank(steps=3), FullRank(steps=2, cover=2), Laplace()])
def test_log_marginal_evaluates_no_more_at_once_than_chunk(proposal, y):
    model, guide, x = PAIRS["label_style"].make()
    seen = []

    def forward(module, args, output):
        seen.append(output[..., 0, 0].numel())

    ppvae.log_marginal(model, guide, x, y, proposal=proposal, num_particles=90, chunk=300)
    model.decoder.register_forward_hook(forward)
    ppvae.log_marginal(model, guide, x, y, proposal=proposal, num_particles=90, chunk=300)
    assert max(seen) <= 300


@pytest.mark.parametrize("proposal", [None, "auto", FullRank(steps=3), Laplace()])
def test_log_marginal_leaves_gradients_and_what_is_trainable_alone(proposal):
    known = classes(LabelStyle, "some", 6)
    known.model.bias.requires_grad_(False)
    estimated(known, proposal=proposal, num_particles=60)
    assert known.model.weight.requires_grad
    assert not known.model.bias.requires_grad
    assert known.model.weight.grad is None
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("proposal", [None, "auto", FullRank(), Laplace()])
def test_log_marginal_of_a_float32_pair_is_the_evidence(proposal):
    model, x = linear_gaussian()
    guide = nearly_exact(model, 4.0 if proposal else 1.3).float()
    model, x = model.float(), x.float()
    found = ppvae.log_marginal(model, guide, x, proposal=proposal)
    assert {found.value.dtype, found.standard_error.dtype, found.ess.dtype} == {torch.float64}
    assert ((found.value - model.log_evidence(x)).abs() < 4 * found.standard_error + 1e-5).all()
    assert found.khat_bad == 0


def test_log_marginal_holds_the_weights_of_the_guide_beside_those_that_decide():
    known = small_linear()
    found = estimated(known, num_particles=100)
    assert isinstance(found, LogMarginal)
    assert isinstance(found.guide, Weights)
    assert not isinstance(found.guide, LogMarginal)
    assert found.guide.khat_bad > found.khat_bad
    alone = estimated(known, num_particles=100, proposal=None)
    assert torch.equal(alone.value, alone.guide.value)
    assert torch.equal(alone.value, found.guide.value)
    without = estimated(known, num_particles=100, keep_weights=False)
    assert torch.equal(without.value, found.value)
    assert torch.equal(without.bound(100), found.guide.value)


def test_log_marginal_refuses_what_is_no_proposal_before_it_estimates():
    known = small_linear()
    for choice in ("best", FullRank, 3):
        with pytest.raises(TypeError, match=r'expected proposal None, "auto" or an object with fit'):
            estimated(known, proposal=choice)


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


def test_log_marginal_says_lower_bound_where_the_guide_alone_fails_and_not_after_a_fit():
    known = small_linear(20)
    alone, found = estimated(known, proposal=None), estimated(known)
    assert repr(alone).startswith(f"LogMarginal(lower bound on log p(x) {alone.mean:.3f} nats, simulation error ")
    assert repr(found).startswith(f"LogMarginal(log p(x) {found.mean:.3f} nats, simulation error ")
    assert f"{found.num_fitted} by full rank" in repr(found)


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

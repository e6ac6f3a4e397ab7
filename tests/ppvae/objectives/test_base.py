"""Objectives, terms and their sums."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import SVI, TraceMeanField_ELBO

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.pair import Pair
from ppvae.objectives import Objective
from ppvae.objectives.base import rates, total
from tests.catalogue import ALL_PAIRS, LABELS, OBJECTIVES, PAIRS
from tests.ppvae.objectives.estimates import particles_of, plain_functions

# an objective in a stock loop


def test_svi_with_the_elbo_takes_the_path_of_pyros():
    ends = []
    for objective in (ppvae.ELBO(), TraceMeanField_ELBO(max_plate_nesting=1)):
        pyro.clear_param_store()
        model, guide, x = PAIRS["gaussian_vae"].make()
        torch.manual_seed(0)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective)
        losses = [svi.step(x) for _ in range(5)]
        ends.append((losses, [p.detach() for p in model.parameters()]))
    assert ends[0][0] == pytest.approx(ends[1][0])
    for ours, stock in zip(ends[0][1], ends[1][1], strict=True):
        torch.testing.assert_close(ours, stock)


def test_objective_is_called_as_pyro_calls_an_elbo():
    model, guide, x = PAIRS["gaussian_vae"].make()
    loss = ppvae.ELBO()(model, guide)
    assert {id(p) for p in model.parameters()} < {id(p) for p in loss.parameters()}
    assert loss(x).requires_grad


def test_losses_in_a_stock_loop_are_sums_over_the_batch():
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.IWAE(3)
    torch.manual_seed(0)
    each = objective.per_datum(ppvae.draw(model, guide, x, num_particles=3))
    torch.manual_seed(0)
    whole = objective.loss(model, guide, x)
    assert whole == pytest.approx(each.sum().item())
    torch.manual_seed(0)
    assert objective.loss_and_grads(model, guide, x) == whole
    assert all(p.grad is not None for p in guide.parameters())


def test_loss_passes_labels_and_conditions():
    model, guide, batch = ALL_PAIRS["two_conditions"].make_batch()
    objective = ppvae.IWAE(3)
    torch.manual_seed(0)
    here = objective.loss(model, guide, batch.x, **batch.given)
    torch.manual_seed(0)
    there = objective.loss(model, guide, batch.x, a=batch.given["a"] + 1, b=batch.given["b"])
    assert here != there


@pytest.mark.filterwarnings("ignore:.*requires_grad=False")
def test_loss_of_a_fixed_pair_has_nothing_to_descend():
    model, guide, x = PAIRS["gaussian_vae"].make()
    for module in (model, guide):
        module.requires_grad_(False)
    assert math.isfinite(ppvae.ELBO().loss_and_grads(model, guide, x))


def test_evaluating_a_loss_changes_no_objective():
    model, guide, x = PAIRS["label"].make()
    objective = ppvae.IWAE(2) + ppvae.ClassifierLoss(alpha=1.0)
    before = {**vars(objective), **vars(objective.objective), **vars(objective.regularisers[0])}
    objective.loss(model, guide, x, LABELS)
    assert {**vars(objective), **vars(objective.objective), **vars(objective.regularisers[0])} == before


def test_stock_loop_refuses_an_objective_with_another_player():
    model, guide, x = PAIRS["gaussian_vae"].make()
    for objective, player in ((ppvae.factor_vae(5.0, 3), "critic/z"), (ppvae.geco(5.0), "constraint/distortion")):
        pyro.clear_param_store()
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective)
        with pytest.raises(ppvae.ContractError, match=rf"also trains .{player}.*use ppvae\.fit"):
            svi.step(x)
        with pytest.raises(ppvae.ContractError, match=r"use ppvae\.fit"):
            objective(model, guide)(x)
        assert isinstance(objective.loss(model, guide, x), float)


def test_objective_has_no_pair_of_traces():
    with pytest.raises(NotImplementedError, match="reads particles"):
        ppvae.ELBO()._get_trace(None, None, (), {})


class HiddenClass(ppvae.Model):
    """A discrete latent that the guide does not draw."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(3)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z.sum(-1) + w).unsqueeze(-1), x.new_ones(5)).to_event(1), obs=x)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_refuses_a_latent_that_the_guide_does_not_draw(objective):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"guide misses latent site\(s\) \['w'\]"):
        OBJECTIVES[objective].make().differentiable_loss(HiddenClass(), guide, x)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_takes_plain_functions_or_refuses_them_in_words(objective):
    pyro.clear_param_store()
    model, guide, _, encoder = plain_functions()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), OBJECTIVES[objective].make())
    x = torch.randn(6, 5).double()
    before = [p.detach().clone() for p in encoder.parameters()]
    if OBJECTIVES[objective].generates:
        with pytest.raises(ppvae.ContractError, match="expected a model that draws site 'y'"):
            svi.step(x)
        return
    if objective in ("sticking_the_landing", "dreg", "decoder_penalties"):
        with pytest.raises(ppvae.ContractError, match=r"PyroModule.*got a function"):
            svi.step(x)
        return
    assert math.isfinite(svi.step(x))
    assert all(not torch.equal(p, b) for p, b in zip(encoder.parameters(), before, strict=True))


# counts


MULTI_SAMPLE = [
    ppvae.ELBO,
    ppvae.StickingTheLanding,
    ppvae.Reconstruction,
    ppvae.IWAE,
    ppvae.DReG,
    lambda k: ppvae.Renyi(0.5, k),
    lambda k: ppvae.ReweightedWakeSleep(k, insomnia=0.0),
]


@pytest.mark.parametrize("make", MULTI_SAMPLE)
@pytest.mark.parametrize("k", [0, -3])
def test_objective_refuses_fewer_particles_than_one(make, k):
    with pytest.raises(ValueError, match=f"num_particles of at least 1, got {k}"):
        make(k)


@pytest.mark.parametrize("make", MULTI_SAMPLE)
@pytest.mark.parametrize("k", [5.0, 2.5, "3", None, math.nan, np.float64(2)])
def test_objective_refuses_a_number_of_particles_that_is_no_whole_number(make, k):
    """``IWAE(5.0)`` is an error that names what it got; rounding would hide a mistake."""
    with pytest.raises(TypeError, match="expected num_particles to be a whole number, got"):
        make(k)


@pytest.mark.parametrize("make", MULTI_SAMPLE)
@pytest.mark.parametrize("k", [np.int64(3), np.int32(3), torch.tensor(3)])
def test_objective_takes_whole_numbers_of_numpy_and_torch(make, k):
    objective = make(k)
    assert objective.num_particles == 3
    assert type(objective.num_particles) is int


# parts


def test_total_adds_numbers_of_data_and_of_the_batch():
    parts = {"each": torch.tensor([1.0, 2.0]), "batch": torch.tensor(10.0)}
    assert total(parts, 2).tolist() == [11.0, 12.0]
    assert total({"batch": torch.tensor(10.0)}, 2).tolist() == [10.0, 10.0]


def test_rates_are_those_of_a_site_or_of_all():
    particles = particles_of("label", y=LABELS.clamp(min=0))
    parts = {"distortion": 0, "rate/z": 0, "rate/w": 0}
    assert rates(parts, None, particles) == ["rate/z", "rate/w"]
    assert rates(parts, "z", particles) == ["rate/z"]
    assert rates(parts, "y", particles) == []  # a known label
    with pytest.raises(ppvae.ContractError, match=r"expected a part 'rate/v' to replace, got \['distortion'"):
        rates(parts, "v", particles)


# the step


def test_schedule_without_a_step_is_refused_and_a_stock_loop_gives_one():
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.beta_vae(ppvae.warm_up(10))
    with pytest.raises(ppvae.ContractError, match=r"expected the training step.*svi.step\(x, step=i\)"):
        objective.loss(model, guide, x)
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective)
    assert math.isfinite(svi.step(x, step=3))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_schedule_that_leaves_the_range_of_weights_is_refused(value):
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.beta_vae(lambda step: value if step == 7 else 1.0)
    assert math.isfinite(objective.loss(model, guide, x, step=6))
    with pytest.raises(ppvae.ContractError, match=f"finite numbers of at least 0, got {value} at step 7"):
        objective.loss(model, guide, x, step=7)


def test_particles_of_an_objective_carry_the_step():
    model, guide, x = PAIRS["gaussian_vae"].make()
    for objective in (ppvae.ELBO(), ppvae.DReG(2), ppvae.StickingTheLanding(), ppvae.DReG(2) + ppvae.ClassifierLoss(1)):
        assert objective.particles(Pair(model, guide), as_batch(x), step=5).step == 5


def test_objective_of_a_users_own_trains_in_a_stock_loop():
    class SquaredError(Objective):
        def parts(self, particles):
            x, mean = particles.batch.x, particles.model["x"].distribution.mean
            return {"squared_error": (x - mean).square().flatten(2).sum(-1).mean(0)}

    pyro.clear_param_store()
    model, guide, x = PAIRS["gaussian_vae"].make()
    svi = SVI(
        model, guide, pyro.optim.Adam({"lr": 0.05}), loss=SquaredError() + ppvae.DIPPenalty(1.0, 1.0, of_draws=True)
    )
    losses = [svi.step(x) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]

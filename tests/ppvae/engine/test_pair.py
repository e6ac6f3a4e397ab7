"""The one place where a model or a guide is run."""

from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.pair import Pair, first_parameter
from tests.catalogue import ALL_PAIRS, BATCH, CLASSES, LABELS, PAIRS
from tests.ppvae.engine.pairs import TwoSensors, noisy_pair
from tests.ppvae.oracles import linear_gaussian

# draw


def test_draw_gives_every_density_the_shape_of_enumeration_particles_and_data():
    model, guide, x = PAIRS["label_style"].make()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    assert particles.log_weight.shape == (3, BATCH)
    assert particles.model["x"].log_prob.shape == (CLASSES, 3, BATCH)
    assert particles.kl("z").shape == (BATCH,)
    assert particles.guide["y"].enumerated
    assert not particles.guide["z"].enumerated


@pytest.mark.parametrize("pair", ALL_PAIRS)
def test_draw_leaves_nothing_in_the_parameter_store(pair):
    pyro.clear_param_store()
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    particles = ppvae.draw(model, guide, batch)
    assert particles.log_weight.shape == (1, BATCH)
    assert not list(pyro.get_param_store().keys())


def test_draw_takes_arrays_and_batches_and_conditions_by_name():
    model, guide, batch = ALL_PAIRS["conditional"].make_batch()
    torch.manual_seed(0)
    whole = ppvae.draw(model, guide, batch).log_weight
    torch.manual_seed(0)
    by_name = ppvae.draw(model, guide, batch.x.numpy(), c=batch.given["c"].numpy()).log_weight
    assert torch.equal(whole, by_name)


def test_draw_gives_each_part_of_a_pair_the_conditions_that_it_names():
    class Plain(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))

    model, _, batch = ALL_PAIRS["conditional"].make_batch()
    assert torch.isfinite(ppvae.draw(model, Plain(), batch).log_weight).all()


def test_draw_reads_conditions_of_any_name_where_a_function_takes_them_all():
    seen = []

    class Takes(ppvae.Guide):
        def forward(self, x, y=None, **given):
            seen.append(sorted(given))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))

    model, _, batch = ALL_PAIRS["conditional"].make_batch()
    ppvae.draw(model, Takes(), replace(batch, given={**batch.given, "d": batch.x}))
    assert seen == [["c", "d"]]


@pytest.mark.parametrize("k", [0, -3])
def test_draw_refuses_fewer_particles_than_one(k):
    model, guide, x = PAIRS["user"].make()
    with pytest.raises(ValueError, match=f"num_particles of at least 1, got {k}"):
        ppvae.draw(model, guide, x, num_particles=k)


@pytest.mark.parametrize("k", [2.0, "3", None])
def test_draw_refuses_a_number_of_particles_that_is_no_whole_number(k):
    model, guide, x = PAIRS["user"].make()
    with pytest.raises(TypeError, match="num_particles to be a whole number, got"):
        ppvae.draw(model, guide, x, num_particles=k)


def test_draw_takes_numpys_whole_numbers():
    model, guide, x = PAIRS["user"].make()
    assert ppvae.draw(model, guide, x, num_particles=np.int64(3)).log_weight.shape == (3, BATCH)


@pytest.mark.parametrize("label", [4, -2])
def test_draw_refuses_a_label_out_of_range_in_a_mixed_batch(label):
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match="labels from 0 to 3"):
        ppvae.draw(model, guide, x, torch.tensor([label, -1, 0, 0, 0, 0]))


class HiddenClass(ppvae.Model):
    """A discrete latent that the guide does not draw."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(3)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z.sum(-1) + w).unsqueeze(-1), x.new_ones(5)).to_event(1), obs=x)


def test_draw_refuses_a_latent_that_the_guide_misses():
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"guide misses latent site\(s\) \['w'\]"):
        ppvae.draw(HiddenClass(), guide, x)


def test_draw_refuses_a_latent_that_the_model_does_not_have():
    class More(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                for name in ("z", "more"):
                    pyro.sample(name, dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    model, _, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"draws site\(s\) \['more'\] that the model does not have"):
        ppvae.draw(model, More(), x)


class Recording(ppvae.Model):
    """A linear model that keeps what it computes by ``pyro.deterministic``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            mean = pyro.deterministic("mean", z.unsqueeze(-1) * self.weight, event_dim=1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


class RecordingGuide(ppvae.Guide):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 1).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            loc = pyro.deterministic("loc", self.net(x).squeeze(-1))
            pyro.sample("z", dist.Normal(loc, 0.5))


@pytest.mark.parametrize(
    "objective", [ppvae.ELBO(2), ppvae.StickingTheLanding(2), ppvae.DReG(2), ppvae.ReweightedWakeSleep(2, 0.5)]
)
def test_deterministic_sites_of_a_pair_are_no_latents_and_count_nowhere(objective):
    """``pyro.deterministic`` records a number. It is no latent, whichever of model and guide has it."""
    model, guide, x = Recording(), RecordingGuide(), torch.randn(6, 5).double()
    ppvae.check_pair(model, guide, x)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    assert set(particles.guide) == {"z"}
    assert set(particles.model) == {"z", "x"}
    objective.differentiable_loss(model, guide, x).backward()
    assert all(p.grad.abs().sum() > 0 for p in guide.parameters())
    assert Pair(model, guide).simulate(as_batch(x))[1].keys() == {"z"}


# simulate


def test_simulate_draws_x_and_latents_from_the_joint_density():
    model, _ = linear_gaussian()
    batch = as_batch(torch.zeros(20_000, 5).double())
    torch.manual_seed(0)
    simulated, values = Pair(model, None).simulate(batch)
    assert values["z"].shape == (1, 20_000, 2)
    joint = torch.cat([values["z"][0], simulated.x], -1)
    weight, noise = model.weight, (2 * model.log_scale).exp() * torch.eye(5)
    expected = torch.cat(
        [
            torch.cat([torch.eye(2).double(), weight.T], 1),
            torch.cat([weight, weight @ weight.T + noise], 1),
        ]
    )
    scale = expected.diagonal().sqrt()
    tolerance = 5 * scale.unsqueeze(-1) * scale / 20_000**0.5
    assert ((joint.T.cov() - expected).abs() < 1.5 * tolerance).all()
    assert not simulated.x.requires_grad


def test_simulate_is_in_evaluation_mode_and_puts_the_mode_back():
    model, _, x = PAIRS["gaussian_vae"].make()
    model.decoder = nn.Sequential(nn.Dropout(0.9), model.decoder)
    modes = []
    model.decoder[0].register_forward_hook(lambda module, *_: modes.append(module.training))
    Pair(model, None).simulate(as_batch(x))
    assert modes == [False]
    assert model.training
    assert model.decoder[0].training


@pytest.mark.parametrize("pair", ALL_PAIRS)
def test_simulate_keeps_the_conditions_and_the_shape_of_every_pair(pair):
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    for kind in ALL_PAIRS[pair].kinds(batch).values():
        simulated, values = Pair(model, guide).simulate(kind)
        assert simulated.x.shape == batch.x.shape
        assert simulated.x.dtype == batch.x.dtype
        assert simulated.given is kind.given
        assert all(value.shape[:2] == (1, BATCH) for value in values.values())


def test_simulate_draws_labels_where_they_are_a_site_and_asked_for():
    model, guide, x = PAIRS["label"].make()
    batch = as_batch(x.repeat(100, 1, 1), torch.zeros(100 * BATCH, dtype=torch.long))
    kept, values = Pair(model, guide).simulate(batch)
    assert kept.y is batch.y
    assert "y" not in values
    drawn, values = Pair(model, guide).simulate(batch, draw_labels=True)
    assert drawn.y is None
    assert set(values["y"].unique().tolist()) == set(range(CLASSES))
    conditional, guide, batch = ALL_PAIRS["labelled_condition"].make_batch()
    assert Pair(conditional, guide).simulate(batch, draw_labels=True)[0].y is batch.y


class LabelAfter(ppvae.Model):
    """A label that depends on the latent: with known labels, draws from the prior are no draws of the posterior."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Categorical(logits=z), obs=y)
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), x.new_ones(5)).to_event(1), obs=x)


@pytest.mark.parametrize("kind", ["after", "factor", "before"])
def test_simulate_refuses_a_model_that_observes_something_else(kind):
    """Drawn x then are no data of the model that was trained: estimates from simulation would be no bounds."""
    pair, batch = Pair(TwoSensors(kind), None), as_batch(torch.randn(4, 5))
    with pytest.raises(ppvae.ContractError, match=r"observes x alone.*got observed site\(s\) \['w'\].*log_marginal"):
        pair.simulate(batch)


def test_simulate_refuses_a_known_label_that_depends_on_a_latent_and_draws_an_unknown_one():
    pair, batch = Pair(LabelAfter(), None), as_batch(torch.randn(4, 5), torch.tensor([0, 1, 1, 0]))
    with pytest.raises(ppvae.ContractError, match=r"got observed site\(s\) \['y'\]"):
        pair.simulate(batch)
    assert pair.simulate(batch, draw_labels=True)[1].keys() == {"z", "y"}


@pytest.mark.parametrize("objective", [ppvae.ForwardKL(), ppvae.ReweightedWakeSleep(3, insomnia=0.0)])
@pytest.mark.parametrize("kind", ["after", "factor"])
def test_objectives_that_simulate_refuse_a_model_that_observes_something_else(objective, kind):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match="observes x alone"):
        objective.differentiable_loss(TwoSensors(kind), guide, x)
    assert torch.isfinite(ppvae.IWAE(3).differentiable_loss(TwoSensors(kind), guide, x))


# labels


def test_classify_is_the_guides_own_classifier():
    model, guide, x = PAIRS["label_style"].make()
    source = ppvae.draw(model, guide, x, torch.zeros(BATCH, dtype=torch.long)).source
    torch.testing.assert_close(source.classify("y", noise=False).logits, guide.classifier(x).log_softmax(-1))


def test_classify_leaves_nothing_behind_and_puts_the_mode_back():
    pyro.clear_param_store()
    model, guide, x = PAIRS["label"].make()
    source = ppvae.draw(model, guide, x, LABELS).source
    source.classify("y", noise=False)
    assert guide.training
    assert not list(pyro.get_param_store().keys())


def test_classify_says_that_a_guide_needs_its_labels():
    model, guide, batch = ALL_PAIRS["labelled_condition"].make_batch()
    with pytest.raises(ppvae.ContractError, match=r"draws site 'y' when it is called without labels.*fails without"):
        ppvae.draw(model, guide, batch).source.classify("y", noise=True)


def test_classify_passes_on_what_a_guide_without_labels_raises():
    model, guide, x = PAIRS["label"].make()
    source = ppvae.draw(model, guide, x).source
    guide.classifier = nn.Linear(3, 3).double()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        source.classify("y", noise=True)


def test_draws_for_another_batch_have_no_gradient_and_move_no_statistics():
    model, guide, x = noisy_pair()
    source = ppvae.draw(model, guide, x, num_particles=3).source
    draws = source.draws_for(as_batch(x.flip(0)))
    assert draws["z"].shape == (1, 4, 2)
    assert not draws["z"].requires_grad
    assert guide.encoder[1].num_batches_tracked == 1


# device


def test_first_parameter_skips_what_is_no_floating_point():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.index = nn.Parameter(torch.zeros(2, dtype=torch.long), requires_grad=False)
            self.weight = nn.Parameter(torch.zeros(2, device="meta"))

    module = Odd()
    assert first_parameter(None, module) is module.weight


def test_posterior_is_that_of_other_data_with_their_labels_and_conditions():
    for name in ("gaussian_vae", "labelled_condition", "conditional"):
        model, guide, batch = ALL_PAIRS[name].make_batch()
        other = batch.with_x(batch.x.flip(0).requires_grad_())
        q = ppvae.draw(model, guide, batch).source.posterior("z", other)
        encoded = guide.encode(other.x, other.label, **other.given).chunk(2, -1)[0]
        torch.testing.assert_close(q.mean, encoded)
        assert q.batch_shape == (BATCH,)
        assert torch.autograd.grad(q.mean.sum(), other.x)[0].abs().max() > 0


def test_posterior_refuses_a_site_that_the_guide_does_not_draw():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="expected a guide that draws site 'w'"):
        ppvae.draw(model, guide, x).source.posterior("w", as_batch(x))

"""One draw (x, z) ~ p for each datum, with and without a gradient, and the guide at it."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import Batch, as_batch
from ppvae.engine.pair import Pair
from ppvae.guides import MeanFieldGaussian, RecognitionGuide
from ppvae.models import ImplicitModel
from ppvae.nn import MLP
from tests.catalogue import IMPLICIT_PAIRS, PAIRS


def implicit(name="codes"):
    model, guide, batch = IMPLICIT_PAIRS[name].make_batch()
    return Pair(model, guide), batch


def test_simulation_gives_the_draw_of_simulate():
    pair, batch = implicit()
    torch.manual_seed(1)
    found = pair.simulation(batch)
    torch.manual_seed(1)
    drawn, latents = pair.simulate(batch)
    assert torch.equal(found.batch.x, drawn.x)
    assert {name: site.value.shape for name, site in found.latents.items()} == {
        name: value.shape for name, value in latents.items()
    }
    assert found.implicit
    model, guide, x = PAIRS["gaussian_vae"].make()
    assert not Pair(model, guide).simulation(as_batch(x)).implicit


def test_simulation_has_a_gradient_only_for_learning():
    pair, batch = implicit()
    assert not pair.simulation(batch).batch.x.requires_grad
    x = pair.simulation(batch, learning=True).batch.x
    x.sum().backward()
    assert all(p.grad is not None for p in pair.model.parameters())


def test_simulation_for_learning_runs_the_model_in_its_present_mode():
    model = ImplicitModel(nn.Sequential(nn.Linear(50, 40), nn.Dropout(0.5)), noise_dim=50)
    pair, batch = Pair(model, None), Batch(torch.zeros(6, 40))
    assert (pair.simulation(batch).batch.x == 0).sum() == 0
    assert (pair.simulation(batch, learning=True).batch.x == 0).sum() > 50  # of 120 expected, with a deviation of 11
    assert model.training


@pytest.mark.parametrize("shape", [(6, 8), (6, 64), (6, 8, 7)])
def test_simulation_refuses_x_of_another_shape(shape):
    pair, _ = implicit()
    with pytest.raises(ppvae.ContractError, match=r"give x of shape .*, got a likelihood over shape \(8, 8\)"):
        pair.simulation(Batch(torch.zeros(shape).double()))


def test_recognised_scores_the_codes_of_the_simulation():
    pair, batch = implicit()
    found = pair.simulation(batch)
    sites = pair.recognised(found)
    logits, means = pair.guide.network(found.batch.x).split([4, 2], -1)
    c, k = (found.latents[name].value[0] for name in ("c", "k"))
    torch.testing.assert_close(sites["c"].log_prob[0], dist.Categorical(logits=logits).log_prob(c))
    torch.testing.assert_close(sites["k"].log_prob[0], dist.Normal(means, 1.0).log_prob(k).sum(-1))


def test_recognised_needs_every_latent_unless_the_model_is_implicit():
    class TwoLatents(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                mean = torch.cat([z, w, z[..., :1]], -1)
                observed = ppvae.distributions.Implicit(mean, 1) if self.implicit else dist.Normal(mean, 1).to_event(1)
                pyro.sample("x", observed, obs=x)

    model, guide, batch = TwoLatents(), MeanFieldGaussian(MLP(5, [], 4)), Batch(torch.zeros(6, 5))
    model.implicit = True
    assert list(Pair(model, guide).simulated_guide(batch)) == ["z"]
    model.implicit = False
    with pytest.raises(ppvae.ContractError, match=r"guide misses latent site\(s\) \['w'\]"):
        Pair(model, guide).simulated_guide(batch)


def test_recognised_refuses_a_guide_of_none_of_the_latents():
    pair, batch = implicit("class_code")
    guide = RecognitionGuide(MLP(5, [], 2), num_codes=2).double()
    with pytest.raises(ppvae.ContractError, match=r"some of the latents \['c', 'noise'\].*got \['k'\]"):
        Pair(pair.model, guide).simulated_guide(batch)

"""A guide scores its draws again, or values that it did not draw."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.pair import Pair
from ppvae.guides import FlowGuide, MeanFieldGaussian, planar
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.engine.pairs import noisy_pair
from tests.ppvae.oracles import Exact, linear_gaussian


@pytest.mark.parametrize("freeze", [True, False])
def test_score_guide_has_the_noise_of_the_first_run_and_moves_no_statistics(freeze):
    model, guide, x = noisy_pair()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    assert guide.encoder[1].num_batches_tracked == 1
    state = torch.get_rng_state()
    sites = particles.source.score_guide(particles.draws, freeze)
    torch.testing.assert_close(sites["z"].log_prob, particles.guide["z"].log_prob)
    assert guide.encoder[1].num_batches_tracked == 1
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad for p in guide.parameters())


def test_score_guide_frozen_gives_a_gradient_to_the_draws_alone():
    model, guide, x = noisy_pair()
    particles = ppvae.draw(model, guide, x)
    at = particles.draws["z"].detach().requires_grad_()
    (site,) = particles.source.score_guide({"z": at}, freeze=True).values()
    site.log_prob.sum().backward()
    assert at.grad.abs().sum() > 0
    assert all(p.grad is None for p in guide.parameters())


def test_score_guide_needs_recorded_noise():
    model, guide, x = noisy_pair()
    particles = Pair(model, guide).draw(as_batch(x))
    with pytest.raises(ppvae.ContractError, match=r"particles with recorded noise.*ppvae\.draw"):
        particles.source.score_guide(particles.draws, freeze=True)


def test_score_guide_refuses_a_guide_that_declares_that_it_cannot():
    model, guide, x = PAIRS["flow_planar"].make()
    particles = ppvae.draw(model, guide, x)
    with pytest.raises(ppvae.ContractError, match=r"score values.*got FlowGuide.*without an inverse"):
        particles.source.score_guide(particles.draws, freeze=False)


def test_score_guide_finds_a_transform_without_an_inverse_that_was_not_declared():
    model, guide, x = PAIRS["flow_planar"].make()
    guide.can_score = True
    particles = ppvae.draw(model, guide, x)
    with pytest.raises(ppvae.ContractError, match="without an inverse"):
        particles.source.score_guide({"z": particles.draws["z"].clone()}, freeze=False)


class Failing(nn.Module):
    """A network that works once, and raises afterwards."""

    def __init__(self, error, *dims):
        super().__init__()
        self.error, self.calls, self.net = error, 0, nn.Linear(*dims).double()

    def forward(self, x):
        self.calls += 1
        if self.calls > 1:
            raise self.error
        return self.net(x)


@pytest.mark.parametrize("error", [KeyError("table"), NotImplementedError("a missing kernel"), RuntimeError("memory")])
def test_score_guide_passes_on_what_the_guides_own_network_raises(error):
    """A KeyError of a guide's own table, or a kernel that a device lacks, is no missing inverse."""
    model, x = linear_gaussian()
    guide = MeanFieldGaussian(Failing(error, 5, 4))
    particles = ppvae.draw(model, guide, x)
    with pytest.raises(type(error), match=str(error.args[0])):
        particles.source.score_guide(particles.draws, freeze=False)


@pytest.mark.parametrize("error", [KeyError("table"), NotImplementedError("a missing kernel")])
def test_score_guide_passes_on_what_the_network_of_a_flow_raises(error):
    """The distribution has a transform, but it is a network of the transform that fails."""

    def look_up():
        raise error

    class Step(dist.transforms.AffineTransform):
        def _inverse(self, y):
            return super()._inverse(y) + look_up()

    class Flow(MeanFieldGaussian):
        def distribution(self, features):
            return dist.TransformedDistribution(super().distribution(features), [Step(0.0, 2.0)])

    model, x = linear_gaussian()
    guide = Flow(nn.Linear(5, 4).double())
    particles = ppvae.draw(model, guide, x)
    with pytest.raises(type(error)) as caught:
        particles.source.score_guide({"z": particles.draws["z"].clone()}, freeze=False)
    assert caught.value is error


def test_model_at_and_guide_at_score_the_values_that_they_are_given():
    model, x = linear_gaussian()
    values = {"z": torch.randn(7, 4, 2).double()}
    sites = Pair(model, Exact(model)).model_at(as_batch(x), values, 7)
    expected = dist.Normal(0.0, 1.0).log_prob(values["z"]).sum(-1)
    torch.testing.assert_close(sites["z"].log_prob, expected)
    scored = Pair(model, Exact(model)).guide_at(as_batch(x), values, 7)["z"].log_prob
    joint = sites["z"].log_prob + sites["x"].log_prob
    torch.testing.assert_close(joint - scored, model.log_evidence(x).expand(7, -1))


def test_guide_at_refuses_a_guide_that_cannot_score():
    guide = FlowGuide(MLP(5, [], 7), planar(2, 3), 2).double()
    model, x = linear_gaussian()
    with pytest.raises(ppvae.ContractError, match="score values which it did not draw"):
        Pair(model, guide).guide_at(as_batch(x), {"z": torch.zeros(1, 4, 2).double()}, 1)


class Counting(ppvae.Model):
    """A decoder with batch normalisation."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.out = nn.Linear(2, 5)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            flat = self.norm(z.reshape(-1, 2)).reshape(z.shape)
            pyro.sample("x", dist.Normal(self.out(flat), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("estimator", [ppvae.ELBO(2), ppvae.DReG(2), ppvae.ReweightedWakeSleep(2)])
def test_batch_statistics_of_the_model_move_once_however_often_it_runs(estimator):
    torch.manual_seed(0)
    model, guide = Counting(), MeanFieldGaussian(nn.Linear(5, 4))
    objective = estimator + ppvae.MaximumMeanDiscrepancy(1.0)
    objective.parts(objective.particles(Pair(model, guide), as_batch(torch.randn(8, 5))))
    assert model.norm.num_batches_tracked == 1

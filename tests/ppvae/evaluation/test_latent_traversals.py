"""Traversals: codes moved one element at a time."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.nn import PyroModule

import ppvae
from ppvae.guides import FlowGuide, MeanFieldGaussian
from ppvae.guides.flow import Reversed
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from tests.catalogue import CLASSES, LATENT, PAIRS
from tests.ppvae.oracles import Meanless


def pair():
    torch.manual_seed(0)
    return GaussianVAE(MLP(3, [8], (4, 4)), 3).double(), MeanFieldGaussian(MLP((4, 4), [8], 6)).double()


def test_traversals_decode_the_code_with_one_element_moved():
    model, guide = pair()
    x = torch.rand(1, 4, 4).round().double()
    values = (-1.0, 0.5)
    images = ppvae.traversals(model, guide, x, values=values)
    assert images.shape == (3, 2, 4, 4)
    mean = ppvae.features(guide, x)[0]
    for d in range(3):
        for v, value in enumerate(values):
            z = mean.clone()
            z[d] = value
            torch.testing.assert_close(images[d, v], model.decode(z, 2).mean)


def test_traversals_move_one_latent_and_hold_the_others():
    model, guide, x = PAIRS["user"].make()
    images = ppvae.traversals(model, guide, x[:1], site="shape", values=(0.3, 0.3, 1.0))
    assert images.shape == (2, 3, 5)
    torch.testing.assert_close(images[:, 0], images[:, 1])
    assert (images[:, 0] - images[:, 2]).abs().max() > 1e-3


class Difference(PyroModule):
    """a ~ N(0, I), b ~ N(a, I), x ~ N(a - b, I)."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(a - b, 1.0).to_event(1), obs=x)


class Beside(PyroModule):
    """a anywhere, b very near it."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 5.0).to_event(1))
            pyro.sample("b", dist.Normal(a, 1e-4).to_event(1))


@pytest.mark.parametrize("seed", range(3))
def test_traversals_start_from_the_mean_given_the_draws_of_other_latents(seed):
    images = ppvae.traversals(Difference(), Beside(), torch.zeros(1, 2), site="b", values=(30.0,), seed=seed)
    assert images[0, 0, 1] == images[1, 0, 0] == 0  # the element that is not moved: a - E[b | a]
    assert (images[0, 0, 0] < -5) & (images[1, 0, 1] < -5)


def test_traversals_refuse_more_than_one_datum():
    model, guide = pair()
    with pytest.raises(ppvae.ContractError, match="expected one datum"):
        ppvae.traversals(model, guide, torch.zeros(2, 4, 4).double())


def test_traversals_take_a_mean_without_formula_from_draws_by_the_seed():
    """A flow that reverses the elements twice: the same q, without a formula for its mean."""
    model, guide = pair()
    flow = FlowGuide(guide.encoder, [Reversed(), Reversed()], 3).double()
    x = torch.rand(1, 4, 4).round().double()
    one, same, other = (ppvae.traversals(model, flow, x, values=(1.0,), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with torch.no_grad():
        mean, scale = guide.encoder(x)[0].chunk(2)
        means = mean + scale.exp() / 32**0.5 * torch.randn(500, 3, dtype=torch.float64)
        means[:, 0] = 1.0
        spread = model.decode(means, 2).mean
    assert ((one[0, 0] - spread.mean(0)).abs() < 6 * spread.std(0)).all()


def test_traversals_refuse_a_discrete_latent_by_name():
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match="expected a continuous latent at site 'y', got a Categorical"):
        ppvae.traversals(model, guide, x[:1], site="y")


def test_traversals_keep_the_class_that_the_guide_draws():
    model, guide, x = PAIRS["label"].make()
    z = guide.eval().encoder(x[:1])[0, :LATENT].detach()
    codes = torch.stack([z, z])
    codes[:, 1] = torch.tensor([-1.0, 2.0])
    by_class = [model.decode(codes, torch.full((2,), label), 2).mean for label in range(CLASSES)]
    drawn = set()
    for seed in range(10):
        images = ppvae.traversals(model, guide, x[:1], values=(-1.0, 2.0), seed=seed)[1]
        drawn |= {label for label, other in enumerate(by_class) if torch.allclose(images, other)}
    assert len(drawn) > 1


def test_traversals_refuse_a_site_that_does_not_exist():
    with pytest.raises(ppvae.ContractError, match=r"name of a latent site, got 'w'; this pair has \['z'\]"):
        ppvae.traversals(*pair(), torch.zeros(1, 4, 4).double(), site="w")


@pytest.mark.parametrize("values", [(), (0.0, float("nan")), (float("inf"),)])
def test_traversals_refuse_values_that_are_not_finite(values):
    with pytest.raises(ValueError, match="expected finite values to move an element to, at least one"):
        ppvae.traversals(*pair(), torch.zeros(1, 4, 4).double(), values=values)


def test_traversals_draw_x_where_it_has_no_mean():
    model, guide, x = Meanless(), MeanFieldGaussian(MLP(2, [], 4)), torch.zeros(1, 2)
    drawn, again, other = (ppvae.traversals(model, guide, x, values=(5.0,), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert (drawn[0, 0, 0] - 5).abs() < 0.06

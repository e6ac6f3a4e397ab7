"""Likelihoods against torch's own distributions, and as densities."""

import math

import pytest
import torch
from pyro import distributions as dist

from ppvae.likelihoods import Bernoulli, Categorical, Gaussian


def test_bernoulli_is_torchs():
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 2, 4, 3).double()
    x = torch.rand(2, 4, 3).bernoulli().double()
    ours = Bernoulli()(logits, event_dim=2)
    stock = dist.Bernoulli(logits=logits).to_event(2)
    assert ours.batch_shape == (5, 2)
    assert ours.event_shape == (4, 3)
    torch.testing.assert_close(ours.log_prob(x), stock.log_prob(x))
    torch.testing.assert_close(ours.mean, stock.mean)
    torch.testing.assert_close(ours.variance, stock.variance)
    assert ours.expand((7, 5, 2)).log_prob(x).shape == (7, 5, 2)


def test_bernoulli_is_finite_at_extreme_logits():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    log_prob = Bernoulli()(logits, 1).log_prob(torch.tensor([[0.0, 1.0]]))
    log_prob.sum().backward()
    assert log_prob.item() == -2e4
    assert logits.grad.tolist() == [[-1.0, 1.0]]


def test_bernoulli_draws_with_its_mean():
    torch.manual_seed(0)
    bernoulli = Bernoulli()(torch.tensor([[-1.0, 0.5]]), 1)
    draws = bernoulli.sample((20_000,))
    torch.testing.assert_close(draws.mean(0), bernoulli.mean, rtol=0, atol=4 * 0.5 / 20_000**0.5)


@pytest.mark.parametrize("learned", [False, True])
def test_gaussian(learned):
    mean, x = torch.randn(3, 4), torch.randn(3, 4)
    likelihood = Gaussian(0.3, learned)
    expected = dist.Normal(mean, 0.3).to_event(1).log_prob(x)
    torch.testing.assert_close(likelihood(mean, 1).log_prob(x), expected)
    assert len(list(likelihood.parameters())) == learned


def test_categorical_sums_to_one_over_its_grid():
    torch.manual_seed(0)
    likelihood = Categorical(5)(torch.randn(3, 5).double(), event_dim=0)
    grid = torch.linspace(0, 1, 5).double()
    probabilities = torch.stack([likelihood.log_prob(level.expand(3)).exp() for level in grid])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(3).double())
    torch.testing.assert_close(likelihood.mean, grid @ probabilities)
    assert likelihood.support.check(likelihood.sample()).all()


def test_categorical_of_equal_logits_is_the_log_of_the_levels_a_pixel():
    images = torch.randint(0, 256, (2, 8, 8)) / 255
    likelihood = Categorical(256)(torch.zeros(2, 8, 8, 256), event_dim=2)
    torch.testing.assert_close(likelihood.log_prob(images), torch.full((2,), -64 * math.log(256)))
    assert likelihood.support.check(images).all()
    assert not likelihood.support.check(images + 0.5 / 255).any()
    assert likelihood.expand((6, 2)).log_prob(images).shape == (6, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "scale above 0, got 0"),
        (lambda: Categorical(1), "at least 2 levels, got 1"),
        (lambda: Categorical(4)(torch.zeros(2, 3), 0), r"expected 4 logits in the last dimension, got \(2, 3\)"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Likelihoods against torch's own distributions, and as densities."""

import math

import pytest
import torch
from pyro import distributions as dist

from ppvae.distributions.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Gaussian


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


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("scale", [1e-4, 0.1, 30.0])
def test_discretized_logistic_sums_to_one_over_its_grid(levels, scale):
    torch.manual_seed(0)
    means = torch.cat([torch.linspace(-1, 2, 7), torch.tensor([-100.0, 100.0])]).double()
    likelihood = DiscretizedLogistic(levels, scale).double()(means, event_dim=0)
    grid = torch.linspace(0, 1, levels, dtype=torch.float64)
    probabilities = torch.stack([likelihood.log_prob(level.expand(9)).exp() for level in grid])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(9).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(likelihood.mean, grid @ probabilities, rtol=0, atol=1e-12)


def test_discretized_logistic_is_a_difference_of_the_logistic_distribution_function():
    torch.manual_seed(0)
    means, scales = torch.randn(3, 4).double(), torch.rand(3, 4).double() + 0.1
    likelihood = DiscretizedLogistic(6, shape=(3, 4)).double()
    likelihood.log_scale.data = scales.log()
    level = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 5], [2, 2, 3, 1]]).double()
    upper, lower = (((level + half) / 5 - means).div(scales).sigmoid() for half in (0.5, -0.5))
    expected = torch.where(level == 5, 1.0, upper) - torch.where(level == 0, 0.0, lower)
    torch.testing.assert_close(likelihood(means, 2).log_prob(level / 5), expected.log().sum())


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e4])
def test_discretized_logistic_is_finite_however_far_away_the_mean_is(scale):
    likelihood = DiscretizedLogistic(256, scale)
    means = torch.tensor([[-1e4, -3.0, 0.5, 4.0, 1e4]], requires_grad=True)
    x = torch.tensor([0.0, 1.0, 100.0, 254.0, 255.0]).unsqueeze(-1) / 255
    log_prob = likelihood(means, 0).log_prob(x)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= 0).all()
    assert torch.isfinite(means.grad).all()
    assert torch.isfinite(likelihood.log_scale.grad).all()


def test_discretized_logistic_far_away_falls_and_pulls_as_the_tail_does():
    # log P(x) is about -|x - mean| / s there: it falls by the distance and its slope is 1 / s.
    means = torch.tensor([-50.0, 50.0], requires_grad=True)
    log_prob = DiscretizedLogistic(256, 0.01)(means, 0).log_prob(torch.full((2,), 100 / 255))
    log_prob.sum().backward()
    torch.testing.assert_close(log_prob.detach(), torch.tensor([-5039.2, -4960.8]), rtol=1e-3, atol=0)
    torch.testing.assert_close(means.grad, torch.tensor([100.0, -100.0]))


def test_discretized_logistic_gradients():
    torch.manual_seed(0)
    means, x = torch.randn(6).double().requires_grad_(), torch.randint(0, 5, (6,)).double() / 4
    likelihood = DiscretizedLogistic(5, shape=(6,)).double()
    torch.autograd.gradcheck(lambda m, s: likelihood(m, 0).log_prob(x), (means, likelihood.log_scale))


def test_discretized_logistic_draws_its_levels_with_their_probabilities():
    torch.manual_seed(0)
    likelihood = DiscretizedLogistic(3, 0.2)(torch.tensor([0.2, 0.9]), event_dim=0)
    draws = likelihood.sample((20_000,))
    assert likelihood.support.check(draws).all()
    for level in (0.0, 0.5, 1.0):
        expected = likelihood.log_prob(torch.full((2,), level)).exp()
        torch.testing.assert_close((draws == level).float().mean(0), expected, rtol=0, atol=4 * 0.5 / 20_000**0.5)


def test_discretized_logistic_over_images():
    images = torch.randint(0, 256, (2, 8, 8)) / 255
    model = DiscretizedLogistic(256, shape=(8, 8))
    likelihood = model(torch.zeros(5, 2, 8, 8), event_dim=2)
    assert (likelihood.batch_shape, likelihood.event_shape) == ((5, 2), (8, 8))
    assert likelihood.log_prob(images).shape == (5, 2)
    assert likelihood.support.check(images).all()
    assert not likelihood.support.check(images + 0.5 / 255).any()
    wider = likelihood.expand((6, 5, 2))
    torch.testing.assert_close(wider.log_prob(images), likelihood.log_prob(images).expand(6, 5, 2))
    assert [p.shape for p in model.parameters()] == [(8, 8)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "scale above 0, got 0"),
        (lambda: DiscretizedLogistic(scale=-1.0), "scale above 0, got -1"),
        (lambda: DiscretizedLogistic(1), "at least 2 levels, got 1"),
        (lambda: Categorical(1), "at least 2 levels, got 1"),
        (lambda: Categorical(4)(torch.zeros(2, 3), 0), r"expected 4 logits in the last dimension, got \(2, 3\)"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("event_dim", [0, 1, 2])
def test_bernoulli_of_every_event_dimension(event_dim):
    torch.manual_seed(0)
    logits, x = torch.randn(5, 4).double(), torch.rand(5, 4).round().double()
    exact = torch.distributions.Bernoulli(logits=logits).log_prob(x)
    found = Bernoulli()(logits, event_dim).log_prob(x)
    torch.testing.assert_close(found, exact if event_dim == 0 else exact.flatten(-event_dim).sum(-1))


def test_bernoulli_keeps_its_digits_where_it_is_sure():
    logits = 15 * torch.randn(200, 784, generator=torch.Generator().manual_seed(0))
    x = (logits > 0).float()
    exact = Bernoulli()(logits.double(), 1).log_prob(x.double())
    # Each of 784 terms is rounded at the size of its logit, up to 60: 2^-24 * 60 * sqrt(784).
    assert (Bernoulli()(logits, 1).log_prob(x) - exact).abs().max() < 1e-4

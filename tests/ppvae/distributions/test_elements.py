"""Distributions of elements: torch's own distributions, sums over all levels, gradients and draws."""

import pyro
import pytest
import torch
from pyro import distributions as dist

from ppvae.distributions.elements import BernoulliElements, GreyGrid, GreyLevels, LogisticElements


def test_bernoulli_elements_equal_torch_bernoulli():
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 2, 4, 3).double()
    x = torch.rand(2, 4, 3).bernoulli().double()
    ours, stock = BernoulliElements(logits, 2), dist.Bernoulli(logits=logits).to_event(2)
    assert (ours.batch_shape, ours.event_shape) == ((5, 2), (4, 3))
    torch.testing.assert_close(ours.log_prob(x), stock.log_prob(x))
    torch.testing.assert_close(ours.mean, stock.mean)
    torch.testing.assert_close(ours.variance, stock.variance)
    assert ours.expand((7, 5, 2)).log_prob(x).shape == (7, 5, 2)


@pytest.mark.parametrize("event_dim", [0, 1, 2])
def test_to_event_moves_dimensions_into_the_event(event_dim):
    torch.manual_seed(0)
    logits, x = torch.randn(5, 4).double(), torch.rand(5, 4).round().double()
    exact = torch.distributions.Bernoulli(logits=logits).log_prob(x)
    found = BernoulliElements(logits).to_event(event_dim).log_prob(x)
    torch.testing.assert_close(found, exact if event_dim == 0 else exact.flatten(-event_dim).sum(-1))
    torch.testing.assert_close(BernoulliElements(logits).to_event().log_prob(x), exact.sum())


def test_bernoulli_elements_keep_their_digits_at_large_logits():
    logits = 15 * torch.randn(200, 784, generator=torch.Generator().manual_seed(0))
    x = (logits > 0).float()
    exact = BernoulliElements(logits.double(), 1).log_prob(x.double())
    # Each of 784 terms is rounded at the size of its logit, up to 60: 2^-24 * 60 * sqrt(784).
    assert (BernoulliElements(logits, 1).log_prob(x) - exact).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_elements_draw_with_their_mean(dtype):
    torch.manual_seed(0)
    elements = BernoulliElements(torch.tensor([-1.0, 0.5, -torch.inf, torch.inf], dtype=dtype), 1)
    draws = elements.sample((20_000,))
    assert draws.dtype == dtype
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0)[:2], elements.mean[:2], rtol=0, atol=4 * 0.5 / 20_000**0.5)
    assert draws.mean(0)[2:].tolist() == [0.0, 1.0]


def test_bernoulli_elements_draw_independently_for_each_row_of_an_expanded_batch():
    torch.manual_seed(0)
    draws = BernoulliElements(torch.zeros(1, 64), 1).expand((100,)).sample()
    assert draws.shape == (100, 64)
    assert len(draws.unique(dim=0)) == 100


def test_grey_levels_sum_to_one_over_their_grid():
    torch.manual_seed(0)
    levels = GreyLevels(logits=torch.randn(3, 5).double())
    grid = torch.linspace(0, 1, 5).double()
    probabilities = torch.stack([levels.log_prob(level.expand(3)).exp() for level in grid])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(3).double())
    torch.testing.assert_close(levels.mean, grid @ probabilities)
    assert levels.support.check(levels.sample()).all()


@pytest.mark.parametrize("top", [1, 4, 255])
@pytest.mark.parametrize("scale", [1e-4, 0.1, 30.0])
def test_logistic_elements_sum_to_one_over_their_grid(top, scale):
    means = torch.cat([torch.linspace(-1, 2, 7), torch.tensor([-100.0, 100.0])]).double()
    elements = LogisticElements(means, torch.tensor(scale).double(), top)
    grid = torch.linspace(0, 1, top + 1, dtype=torch.float64)
    probabilities = torch.stack([elements.log_prob(level.expand(9)).exp() for level in grid])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(9).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(elements.mean, grid @ probabilities, rtol=0, atol=1e-12)


@pytest.mark.parametrize("event_dim", [0, 1, 2])
def test_logistic_elements_are_differences_of_the_distribution_function(event_dim):
    torch.manual_seed(0)
    means, scales = torch.randn(3, 4).double(), torch.rand(3, 4).double() + 0.1
    level = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 5], [2, 2, 3, 1]]).double()
    upper, lower = (((level + half) / 5 - means).div(scales).sigmoid() for half in (0.5, -0.5))
    expected = (torch.where(level == 5, 1.0, upper) - torch.where(level == 0, 0.0, lower)).log()
    found = LogisticElements(means, scales, 5, event_dim).log_prob(level / 5)
    torch.testing.assert_close(found, expected if event_dim == 0 else expected.flatten(-event_dim).sum(-1))


def test_logistic_elements_share_one_scale_over_a_summed_event():
    torch.manual_seed(0)
    means, x = torch.randn(5, 2, 3).double(), torch.randint(0, 5, (2, 3)).double() / 4
    scale = torch.tensor(0.3).double()
    each = LogisticElements(means, scale.expand(5, 2, 3), 4).log_prob(x)
    torch.testing.assert_close(LogisticElements(means, scale, 4, 1).log_prob(x), each.sum(-1))


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e4])
def test_logistic_elements_and_their_gradients_are_finite_at_any_mean(scale):
    means = torch.tensor([[-1e4, -3.0, 0.5, 4.0, 1e4]], requires_grad=True)
    scales = torch.tensor(scale, requires_grad=True)
    x = torch.tensor([0.0, 1.0, 100.0, 254.0, 255.0]).unsqueeze(-1) / 255
    log_prob = LogisticElements(means, scales, 255).log_prob(x)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= 0).all()
    assert torch.isfinite(means.grad).all()
    assert torch.isfinite(scales.grad)


def test_logistic_elements_have_the_slope_of_the_tail_far_from_the_mean():
    # log P(x) is about -|x - mean| / s there: it falls by the distance over s, with slope 1 / s.
    means = torch.tensor([-50.0, 50.0], requires_grad=True)
    log_prob = LogisticElements(means, torch.tensor(0.01), 255).log_prob(torch.full((2,), 100 / 255))
    log_prob.sum().backward()
    torch.testing.assert_close(log_prob.detach(), torch.tensor([-5039.2, -4960.8]), rtol=1e-3, atol=0)
    torch.testing.assert_close(means.grad, torch.tensor([100.0, -100.0]))


def test_logistic_elements_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    means, scales = torch.randn(6).double().requires_grad_(), (torch.rand(6).double() + 0.1).requires_grad_()
    x = torch.tensor([0, 4, 1, 2, 3, 0]).double() / 4
    assert torch.autograd.gradcheck(lambda m, s: LogisticElements(m, s, 4, 1).log_prob(x), (means, scales))
    assert torch.autograd.gradgradcheck(lambda m, s: LogisticElements(m, s, 4, 1).log_prob(x), (means, scales))


def test_logistic_elements_draw_their_levels_with_their_probabilities():
    torch.manual_seed(0)
    elements = LogisticElements(torch.tensor([0.2, 0.9]), torch.tensor(0.2), 2)
    draws = elements.sample((20_000,))
    assert elements.support.check(draws).all()
    for level in (0.0, 0.5, 1.0):
        expected = elements.log_prob(torch.full((2,), level)).exp()
        torch.testing.assert_close((draws == level).float().mean(0), expected, rtol=0, atol=4 * 0.5 / 20_000**0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda output: BernoulliElements(output, 1),
        lambda output: LogisticElements(output, output.new_ones(()), 255, 1),
        lambda output: GreyLevels(logits=output.unsqueeze(-1).expand(5, 4, 3)).to_event(1),
    ],
)
def test_elements_are_scored_and_drawn_on_the_meta_device(make):
    output = torch.empty(5, 4, device="meta", requires_grad=True)
    with pyro.validation_enabled(False):  # as in a training step
        elements = make(output)
        (gradient,) = torch.autograd.grad(elements.log_prob(elements.sample()).sum(), output)
    assert gradient.shape == (5, 4)


def test_elements_refuse_values_outside_their_support():
    for elements in (
        BernoulliElements(torch.zeros(2, 3), 1),
        LogisticElements(torch.zeros(2, 3), torch.ones(()), 4, 1),
    ):
        with pytest.raises(ValueError, match="within the support"):
            elements.log_prob(torch.full((2, 3), 1.3))


def test_grey_grid_holds_levels_to_float32_rounding():
    images = torch.arange(256) / 255
    assert GreyGrid(255).check(images).all()
    assert not GreyGrid(255).check(images + 0.5 / 255).any()

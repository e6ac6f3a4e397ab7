"""Likelihoods: shapes, parameters, arguments, and missing elements of each."""

import math

import pytest
import torch
from pyro import distributions as dist

from ppvae.distributions.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    ElementwiseLikelihood,
    Gaussian,
    Likelihood,
)

LIKELIHOODS = {
    "bernoulli": lambda missing: Bernoulli(missing=missing),
    "gaussian": lambda missing: Gaussian(0.3, learned=True, missing=missing),
    "categorical": lambda missing: Categorical(4, missing=missing),
    "discretized_logistic": lambda missing: DiscretizedLogistic(4, shape=(2, 3), missing=missing),
}


def output_and_data(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    levels = (4,) if name == "categorical" else ()
    x = torch.randint(0, 4, (5, 2, 3)).double() / 3
    return torch.randn(7, 5, 2, 3, *levels).double(), x


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_sum_over_the_event(name):
    output, x = output_and_data(name)
    likelihood = LIKELIHOODS[name](False).double()
    found, each = likelihood(output, 2), likelihood(output, 0)
    assert (found.batch_shape, found.event_shape) == ((7, 5), (2, 3))
    torch.testing.assert_close(found.log_prob(x), each.log_prob(x).sum((-1, -2)))
    assert found.expand((6, 7, 5)).log_prob(x).shape == (6, 7, 5)
    assert found.sample().shape == found.mean.shape == (7, 5, 2, 3)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_missing_elements_leave_the_log_density_of_the_observed_ones(name):
    output, x = output_and_data(name)
    missing = torch.rand(x.shape) < 0.4
    each = LIKELIHOODS[name](False).double()(output, 0).log_prob(x)
    found = LIKELIHOODS[name](True).double()(output, 2)
    expected = torch.where(missing, 0.0, each).sum((-1, -2))
    torch.testing.assert_close(found.log_prob(x.masked_fill(missing, torch.nan)), expected)
    torch.testing.assert_close(found.log_prob(x), each.sum((-1, -2)))
    assert found.support.check(x.masked_fill(missing, torch.nan)).all()
    assert name == "gaussian" or not found.support.check(x.masked_fill(missing, 1.1)).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_missing_elements_give_the_gradients_of_the_observed_ones(name):
    output, x = output_and_data(name)
    missing = torch.rand(x.shape) < 0.4
    likelihood = LIKELIHOODS[name](True).double()
    output.requires_grad_()

    def gradients(total, likelihood):
        return torch.autograd.grad(total.sum(), [output, *likelihood.parameters()])

    found = gradients(likelihood(output, 2).log_prob(x.masked_fill(missing, torch.nan)), likelihood)
    complete = LIKELIHOODS[name](False).double()
    expected = gradients(torch.where(missing, 0.0, complete(output, 0).log_prob(x)), complete)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("learned", [False, True])
def test_gaussian_equals_torch_normal(learned):
    mean, x = torch.randn(3, 4), torch.randn(3, 4)
    likelihood = Gaussian(0.3, learned)
    expected = dist.Normal(mean, 0.3).to_event(1).log_prob(x)
    torch.testing.assert_close(likelihood(mean, 1).log_prob(x), expected)
    assert len(list(likelihood.parameters())) == learned


def test_categorical_with_equal_logits_has_the_log_of_the_levels_for_each_pixel():
    images = torch.randint(0, 256, (2, 8, 8)) / 255
    likelihood = Categorical(256)(torch.zeros(2, 8, 8, 256), event_dim=2)
    torch.testing.assert_close(likelihood.log_prob(images), torch.full((2,), -64 * math.log(256)))


def test_discretized_logistic_has_a_scale_of_the_given_shape():
    images = torch.randint(0, 256, (2, 8, 8)) / 255
    model = DiscretizedLogistic(256, 0.2, shape=(8, 8))
    assert [p.shape for p in model.parameters()] == [(8, 8)]
    model(torch.zeros(5, 2, 8, 8), event_dim=2).log_prob(images).sum().backward()
    assert (model.log_scale.grad != 0).all()
    one_for_all = DiscretizedLogistic(256, 0.2)(torch.zeros(5, 2, 8, 8), event_dim=2)
    torch.testing.assert_close(model(torch.zeros(5, 2, 8, 8), 2).log_prob(images), one_for_all.log_prob(images))


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
def test_likelihoods_refuse_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_base_likelihoods_name_the_method_to_define():
    with pytest.raises(NotImplementedError, match=r"Likelihood must define forward\(output, event_dim\)"):
        Likelihood()(torch.zeros(2), 1)
    with pytest.raises(NotImplementedError, match=r"ElementwiseLikelihood must define elements\(output\)"):
        ElementwiseLikelihood()(torch.zeros(2), 1)

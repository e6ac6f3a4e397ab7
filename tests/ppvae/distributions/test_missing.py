"""Observed elements of events with NaN."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch.fx.experimental.proxy_tensor import make_fx

from ppvae.distributions.likelihoods import Bernoulli
from ppvae.distributions.missing import ObservedElements

NAN = torch.nan


def base() -> dist.Normal:
    torch.manual_seed(0)
    return dist.Normal(torch.randn(4, 3, 2).double(), torch.rand(4, 3, 2).double() + 0.5)


def incomplete() -> torch.Tensor:
    x = torch.randn(3, 2).double()
    return x.masked_fill(torch.tensor([[True, False], [True, True], [False, False]]), NAN)


@pytest.mark.parametrize("event_dim", [0, 1, 2])
def test_log_prob_sums_observed_elements(event_dim):
    x = incomplete()
    each = torch.where(x.isnan(), 0.0, base().log_prob(x.nan_to_num(3.0)))
    found = ObservedElements(base(), event_dim)
    assert found.event_shape == each.shape[3 - event_dim :]
    torch.testing.assert_close(found.log_prob(x), each.flatten(3 - event_dim).sum(-1) if event_dim else each)


def test_log_prob_without_observed_elements_is_zero():
    assert (ObservedElements(base(), 2).log_prob(torch.full((3, 2), NAN).double()) == 0).all()


def test_gradients_do_not_depend_on_the_fill():
    loc, x = torch.randn(3, 2).double().requires_grad_(), incomplete().requires_grad_()
    found = []
    for fill in (0.0, 7.0):
        log_prob = ObservedElements(dist.Normal(loc, 0.5), 2, fill).log_prob(x)
        found.append(torch.autograd.grad(log_prob, [loc, x]))
    torch.testing.assert_close(*found)
    assert torch.equal(found[0][0] == 0, x.isnan())
    assert torch.equal(found[0][1] == 0, x.isnan())


def test_fill_may_be_needed_inside_the_support():
    x = torch.tensor([NAN, 2.0])
    found = ObservedElements(dist.Uniform(torch.tensor([1.0, 1.0]), 3.0), 1, fill=2.0)
    torch.testing.assert_close(found.log_prob(x), -torch.tensor(2.0).log())


def test_support_accepts_nan_among_supported_values():
    support = ObservedElements(dist.Bernoulli(torch.full((2,), 0.5)), 1).support
    x = torch.tensor([[NAN, 1.0], [NAN, NAN], [NAN, 0.5], [0.0, 1.0]])
    assert support.check(x).tolist() == [True, True, False, True]
    assert "NaN or" in repr(support)


def test_draws_are_complete_and_carry_the_gradient_of_the_base():
    loc = torch.zeros(3, 2, requires_grad=True)
    observed = ObservedElements(dist.Normal(loc, 1.0), 2)
    assert observed.has_rsample
    assert observed.rsample((5,)).shape == (5, 3, 2)
    assert observed.rsample().requires_grad
    assert not observed.sample().requires_grad
    assert not ObservedElements(dist.Bernoulli(torch.full((2,), 0.5)), 1).has_rsample
    torch.testing.assert_close((observed.mean, observed.variance), (loc, torch.ones(3, 2)))


def test_expand_keeps_the_event():
    wider = ObservedElements(base(), 2, fill=1.0).expand((6, 4))
    assert (wider.batch_shape, wider.event_shape, wider.fill) == ((6, 4), (3, 2), 1.0)
    torch.testing.assert_close(wider.log_prob(incomplete())[5], ObservedElements(base(), 2).log_prob(incomplete()))


@pytest.mark.parametrize("wrong", [dist.Normal(torch.zeros(3), 1.0).to_event(1), dist.Normal(0.0, 1.0)])
def test_a_base_without_single_elements_is_refused(wrong):
    with pytest.raises(ValueError, match=r"single elements with at least 1 batch dimensions.*leave \.to_event"):
        ObservedElements(wrong, 1)


def test_log_prob_runs_on_the_meta_device_and_can_be_captured():
    def loss_and_gradient(logits: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = Bernoulli(missing=True)(logits, 2).log_prob(x).sum()
        return loss, torch.autograd.grad(loss, logits)[0]

    def arguments(device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(4, 3, 2).to(device).requires_grad_(), incomplete().float().to(device)

    with pyro.validation_enabled(False):  # as in a training step
        assert loss_and_gradient(*arguments("meta"))[1].shape == (4, 3, 2)
        graph = make_fx(loss_and_gradient)(*arguments())
        logits, x = arguments()
        x = x.roll(1, 0).sigmoid()
        torch.testing.assert_close(graph(logits, x), loss_and_gradient(logits, x))

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch.distributions import Distribution

import ppvae
from ppvae.distributions import Implicit, has_density


def test_implicit_samples_are_the_given_tensor_with_its_gradient():
    x = torch.rand(4, 8, 8, requires_grad=True)
    fn = Implicit(x, event_dim=2)
    assert (fn.batch_shape, fn.event_shape) == ((4,), (8, 8))
    assert torch.equal(fn.sample(), x)
    assert not fn.sample().requires_grad
    fn.rsample((3,)).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))
    assert fn.mean is x


def test_implicit_expands_to_plates():
    x = torch.rand(1, 4, 5)
    with pyro.plate("particles", 3, dim=-2), pyro.plate("data", 4):
        value = pyro.sample("x", Implicit(x, event_dim=1))
    assert torch.equal(value, x.expand(3, 4, 5))


def test_log_prob_of_implicit_raises_with_its_name():
    with pytest.raises(ppvae.ContractError, match="with a density, got Implicit, the samples of a generator"):
        Implicit(torch.zeros(3, 2), event_dim=1).log_prob(torch.zeros(3, 2))


class Unfinished(dist.TorchDistribution):
    """A distribution of the user's own without log_prob."""


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (dist.Normal(torch.zeros(3), 1.0).to_event(1), True),
        (dist.LogNormal(torch.zeros(3), 1.0), True),
        (dist.Delta(torch.zeros(3)), True),
        (dist.Normal(torch.zeros(3), 1.0).mask(False), True),
        (Implicit(torch.zeros(3, 2), 1), False),
        (Implicit(torch.zeros(3, 2), 0).to_event(1), False),
        (Implicit(torch.zeros(3, 2), 1).mask(torch.ones(3, dtype=torch.bool)), False),
        (Unfinished(torch.Size([3]), validate_args=False), False),
        (Distribution(torch.Size([3]), validate_args=False), False),
    ],
)
def test_has_density_looks_through_wrappers(fn, expected):
    assert has_density(fn) is expected

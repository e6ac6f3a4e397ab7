"""The sample statements of a replay."""

import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.engine.sites import Site


def site_of(fn, value, **options):
    return Site("z", fn, value, **options)


def test_log_prob_is_computed_when_it_is_read_and_once():
    calls = []

    class Counting(dist.Normal):
        def log_prob(self, value):
            calls.append(1)
            return super().log_prob(value)

    site = site_of(Counting(torch.zeros(3), 1.0), torch.zeros(3))
    assert calls == []
    torch.testing.assert_close(site.log_prob, dist.Normal(0.0, 1.0).log_prob(torch.zeros(3)))
    _ = site.log_prob
    assert calls == [1]


@pytest.mark.parametrize("mask", [True, False, torch.tensor([True, False, True])])
def test_log_prob_is_zero_where_masked(mask):
    site = site_of(dist.Normal(torch.zeros(3), 1.0), torch.ones(3), mask=mask)
    expected = torch.where(torch.as_tensor(mask), dist.Normal(0.0, 1.0).log_prob(torch.ones(3)), 0.0)
    torch.testing.assert_close(site.log_prob, expected)


def test_log_q_is_zero_where_the_value_is_data():
    known = torch.tensor([True, False, False])
    site = site_of(dist.Normal(torch.zeros(3), 1.0), torch.ones(3), known=known, data=torch.ones(3))
    assert site.log_q.tolist() == [0.0, *site.log_prob[1:].tolist()]


def test_log_prob_has_a_gradient_if_it_was_drawn_with_one():
    loc = torch.zeros(3, requires_grad=True)
    with torch.no_grad():
        assert site_of(dist.Normal(loc, 1.0), torch.ones(3)).log_prob.requires_grad
    assert not site_of(dist.Normal(loc, 1.0), torch.ones(3), with_gradient=False).log_prob.requires_grad
    assert not site_of(dist.Normal(loc, 1.0), torch.ones(3)).detached().log_prob.requires_grad


def test_log_prob_refuses_a_distribution_without_a_density():
    class Implicit(dist.TorchDistribution):
        arg_constraints, support, has_rsample = {}, dist.constraints.real, True

        def rsample(self, sample_shape=torch.Size()):  # noqa: B008
            return torch.randn(torch.Size(sample_shape) + self.batch_shape).double()

        def expand(self, batch_shape, _instance=None):
            return Implicit(torch.Size(batch_shape), validate_args=False)

    site = site_of(Implicit((4,), validate_args=False), torch.zeros(4))
    with pytest.raises(ppvae.ContractError, match="distributions that have a density, got Implicit at site 'z'"):
        _ = site.log_prob


@pytest.mark.parametrize("error", [NotImplementedError("aten::tanh on this device"), KeyError("table")])
def test_log_prob_passes_on_what_a_network_in_the_density_raises(error):
    """A kernel that a device lacks is no missing density."""

    class Network(dist.Normal):
        def log_prob(self, value):
            raise error

    site = site_of(Network(torch.zeros(4), 1.0), torch.zeros(4))
    with pytest.raises(type(error)) as caught:
        _ = site.log_prob
    assert caught.value is error

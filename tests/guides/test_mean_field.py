"""The Gaussian guide with a diagonal covariance."""

import pytest
import torch
from pyro import poutine

from ppvae.guides import MeanFieldGaussian
from ppvae.nn import MLP


def test_mean_field_gaussian_reads_means_then_log_scales():
    q = MeanFieldGaussian(MLP(5, [], 4)).distribution(torch.tensor([[1.0, 2.0, 0.5, -0.5]]))
    assert (q.batch_shape, q.event_shape) == ((1,), (2,))
    torch.testing.assert_close(q.mean, torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(q.stddev.log(), torch.tensor([[0.5, -0.5]]))


def test_density_of_a_mean_field_gaussian_is_the_closed_form():
    torch.manual_seed(0)
    guide, x = MeanFieldGaussian(MLP(5, [], 4)).double(), torch.randn(3, 5).double()
    loc, log_scale = guide.encoder(x).chunk(2, -1)
    traced = poutine.trace(guide).get_trace(x)
    traced.compute_log_prob()
    noise = (traced.nodes["z"]["value"] - loc) / log_scale.exp()
    expected = -(0.5 * noise.square() + log_scale + 0.5 * torch.tensor(2 * torch.pi).double().log()).sum(-1)
    torch.testing.assert_close(traced.nodes["z"]["log_prob"], expected)


def test_mean_field_gaussian_ignores_labels():
    guide, x = MeanFieldGaussian(MLP(5, [], 4)), torch.randn(3, 5)
    sites = poutine.trace(guide).get_trace(x, torch.tensor([0, 1, 2])).stochastic_nodes
    assert sites == ["data", "z"]


def test_mean_field_gaussian_refuses_an_odd_number_of_features():
    with pytest.raises(ValueError, match="even number of features, means then log scales, got 3"):
        MeanFieldGaussian(MLP(5, [], 3))(torch.zeros(4, 5))

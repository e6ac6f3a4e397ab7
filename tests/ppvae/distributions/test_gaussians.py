"""Gaussians from templates and from features."""

import pytest
import torch
from torch.distributions import Normal

from ppvae.distributions.gaussians import diagonal_normal, standard_normal


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standard_normal_has_the_type_of_its_template(dtype):
    normal = standard_normal(torch.zeros(3, 5, dtype=dtype), 2)
    assert (normal.batch_shape, normal.event_shape, normal.sample().dtype) == ((), (2,), dtype)
    z = torch.randn(4, 2, dtype=dtype)
    torch.testing.assert_close(normal.log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(-1))


def test_diagonal_normal_splits_features_into_means_and_log_scales():
    torch.manual_seed(0)
    features, z = torch.randn(4, 6).double(), torch.randn(4, 3).double()
    expected = Normal(features[:, :3], features[:, 3:].exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(diagonal_normal(features).log_prob(z), expected)


def test_diagonal_normal_refuses_an_odd_number_of_features():
    with pytest.raises(ValueError, match="even number of features, means then log scales, got 5"):
        diagonal_normal(torch.zeros(2, 5))

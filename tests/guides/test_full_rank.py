"""The Gaussian guide with a full covariance."""

import pytest
import torch

from ppvae.guides import FullRankGaussian
from ppvae.nn import MLP


@pytest.mark.parametrize(("dim", "features"), [(1, 2), (2, 5), (3, 9)])
def test_full_rank_gaussian_has_a_feature_for_each_mean_and_each_element_of_l(dim, features):
    assert FullRankGaussian.num_features(dim) == features == dim + dim * (dim + 1) // 2
    q = FullRankGaussian(MLP(5, [], features), dim).distribution(torch.zeros(4, features))
    assert (q.batch_shape, q.event_shape) == ((4,), (dim,))
    torch.testing.assert_close(q.covariance_matrix, torch.eye(dim).expand(4, dim, dim))


def test_covariance_of_a_full_rank_gaussian_is_l_times_its_transpose():
    features = torch.tensor([1.0, 2.0, 3.0, 0.1, 0.2, 0.3, 4.0, 5.0, 6.0])
    q = FullRankGaussian(MLP(5, [], 9), latent_dim=3).distribution(features)
    diagonal = torch.tensor([0.1, 0.2, 0.3]).exp()
    lower = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [5.0, 6.0, 0.0]]) + diagonal.diag()
    assert q.mean.tolist() == [1.0, 2.0, 3.0]
    torch.testing.assert_close(q.covariance_matrix, lower @ lower.T)


def test_density_of_a_full_rank_gaussian_is_that_of_its_mean_and_covariance():
    torch.manual_seed(0)
    guide = FullRankGaussian(MLP(5, [], 5), latent_dim=2).double()
    q = guide.distribution(guide.encode(torch.randn(4, 5).double()))
    difference = torch.randn(4, 2).double()
    quadratic = (difference.unsqueeze(-2) @ q.covariance_matrix.inverse() @ difference.unsqueeze(-1)).flatten()
    expected = -0.5 * (quadratic + (2 * torch.pi * q.covariance_matrix).det().log())
    torch.testing.assert_close(q.log_prob(q.mean + difference), expected)


@pytest.mark.parametrize("features", [4, 6])
def test_full_rank_gaussian_refuses_another_number_of_features(features):
    guide = FullRankGaussian(MLP(5, [], features), latent_dim=2)
    with pytest.raises(ValueError, match=f"expected 5 features for z of length 2, got {features}"):
        guide(torch.zeros(4, 5))

"""Gaussians from templates, from features, and with full covariances."""

import math

import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from ppvae.distributions.gaussians import FullGaussian, diagonal_normal, standard_normal


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


def full_gaussian(data=3, dim=2, dtype=torch.float64):
    torch.manual_seed(0)
    tril = torch.randn(data, dim, dim, dtype=dtype).tril(-1) + torch.eye(dim, dtype=dtype)
    return FullGaussian(torch.randn(data, dim, dtype=dtype), tril)


def test_full_gaussian_has_the_density_of_its_covariance():
    q = full_gaussian()
    u = torch.randn(5, 3, 2).double()
    expected = MultivariateNormal(q.loc, q.scale_tril @ q.scale_tril.mT).log_prob(u)
    torch.testing.assert_close(q.log_prob(u), expected)
    assert (q.batch_shape, q.event_shape) == ((3,), (2,))


def test_full_gaussian_at_is_the_affine_map_of_each_datum():
    q = full_gaussian()
    e = torch.randn(5, 3, 2).double()
    expected = torch.stack([q.loc[b] + e[:, b] @ q.scale_tril[b].T for b in range(3)], 1)
    torch.testing.assert_close(q.at(e), expected)
    torch.testing.assert_close(q.at(e[0]), expected[0])


def test_full_gaussian_draws_have_its_moments():
    q = full_gaussian()
    u = q.sample((100_000,))
    variance = q.variance
    assert ((u.mean(0) - q.loc).abs() < 4.5 * (variance / 100_000) ** 0.5).all()
    deviation = u - q.loc
    covariance = torch.einsum("nbi,nbj->bij", deviation, deviation) / 100_000
    error = ((variance.unsqueeze(-1) * variance.unsqueeze(-2) + q.covariance_matrix.square()) / 100_000) ** 0.5
    assert ((covariance - q.covariance_matrix).abs() < 4.5 * error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample_shape", [(), (5,), (4, 5)])
def test_full_gaussian_draws_have_the_shapes_and_the_type_of_its_parameters(sample_shape, dtype):
    q = full_gaussian(dtype=dtype)
    for draw in (q.sample(sample_shape), q.rsample(sample_shape)):
        assert (draw.shape, draw.dtype) == ((*sample_shape, 3, 2), dtype)
    assert q.log_prob(q.sample(sample_shape)).shape == (*sample_shape, 3)


def test_full_gaussian_draws_pass_a_gradient_to_its_parameters():
    loc, tril = torch.zeros(3, 2, requires_grad=True), torch.eye(2).repeat(3, 1, 1).requires_grad_()
    FullGaussian(loc, tril).rsample((5,)).sum().backward()
    assert torch.equal(loc.grad, torch.full((3, 2), 5.0))
    assert (tril.grad.abs() > 0).all()


def test_full_gaussian_is_drawn_in_plates_of_more_dimensions():
    q = full_gaussian()
    with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 3, dim=-1):
        z = pyro.sample("z", q)
    assert z.shape == (5, 3, 2)
    torch.testing.assert_close(q.expand([5, 3]).log_prob(z), q.log_prob(z))


def test_full_gaussian_draw_gives_draws_and_their_densities():
    q = full_gaussian()
    u, log_q = q.draw(1000)
    assert u.shape == (1000, 3, 2)
    torch.testing.assert_close(log_q, q.log_prob(u))
    torch.manual_seed(0)
    u, _ = q.draw(7)
    torch.manual_seed(0)
    assert torch.equal(u, q.sample((7,)))


def test_full_gaussian_draw_has_exact_densities_where_the_covariance_is_badly_conditioned():
    """In float32, with nearly parallel rows of L, the density by a solve is off by nats."""
    tril = torch.tensor([[1.0, 0.0], [1.0, 1e-6]]).unsqueeze(0)
    q = FullGaussian(torch.full((1, 2), 100.0), tril)
    torch.manual_seed(1)
    e = torch.randn(1000, 1, 2)
    torch.manual_seed(1)
    u, log_q = q.draw(1000)
    expected = -0.5 * e.double().square().sum(-1) - math.log(2 * math.pi) - math.log(1e-6)
    torch.testing.assert_close(log_q.double(), expected, rtol=0, atol=1e-4)
    assert (q.log_prob(u).double() - expected).abs().max() > 1

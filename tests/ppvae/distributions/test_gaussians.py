"""The closed form of a full covariance against a diagonal one."""

import pytest
import torch
from pyro import distributions as dist
from torch.distributions import kl_divergence

import ppvae
from ppvae.distributions.gaussians import standard_normal
from tests.catalogue import PAIRS


def full_rank(*batch: int) -> dist.MultivariateNormal:
    torch.manual_seed(0)
    scale_tril = torch.randn(*batch, 3, 3).double().tril(-1) + torch.diag_embed(torch.rand(*batch, 3).double() + 0.2)
    return dist.MultivariateNormal(torch.randn(*batch, 3).double(), scale_tril=scale_tril)


@pytest.mark.parametrize("batch", [(), (7,), (2, 7)])
def test_it_is_the_kl_of_two_full_covariances(batch):
    q = full_rank(*batch)
    p = dist.Normal(torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.1) if batch else None
    p = (dist.Normal(torch.zeros(3).double(), 2.0) if p is None else p).to_event(1)
    expected = kl_divergence(q, dist.MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev)))
    torch.testing.assert_close(kl_divergence(q, p), expected)


def test_it_is_zero_of_a_diagonal_itself_and_refuses_what_is_no_normal():
    p = standard_normal(torch.zeros(()).double(), 3)
    q = dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    torch.testing.assert_close(kl_divergence(q, p), torch.zeros(()).double())
    for other in (dist.Laplace(torch.zeros(3), 1.0).to_event(1), dist.Normal(torch.zeros(2, 3), 1.0).to_event(2)):
        with pytest.raises(NotImplementedError):
            kl_divergence(q, other)


def test_particles_of_a_full_rank_guide_use_it():
    model, guide, x = PAIRS["full_rank"].make()
    q = guide.distribution(guide.encoder(x))
    prior = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    exact = kl_divergence(q, prior)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    torch.testing.assert_close(particles.kl("z"), exact)
    sampled = ppvae.draw(model, guide, x, num_particles=20_000).kl_integrand("z", analytic=False)
    assert ((sampled.mean(0) - exact).abs() < 4 * sampled.std(0) / 20_000**0.5).all()
    loss = ppvae.ELBO(2).per_datum(particles)
    torch.testing.assert_close(loss, exact - particles.log_likelihood.mean(0))

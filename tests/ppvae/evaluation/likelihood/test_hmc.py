"""Hamiltonian Monte Carlo on Gaussians."""

import torch

from ppvae.evaluation.likelihood.hmc import hmc_step, with_gradient


def test_hmc_step_leaves_its_target_invariant():
    scale = torch.tensor([0.3, 2.0]).double()
    u = torch.randn(4000, 1, 2).double() * scale

    def log_density(u):
        return -0.5 * (u / scale).square().sum(-1)

    for _ in range(20):
        u, accepted = hmc_step(log_density, u, torch.tensor([0.4]).double(), 5)
    assert 0.2 < accepted.double().mean() < 0.999
    variance = (u / scale).var((0, 1))
    assert ((variance - 1).abs() < 4 * (2 / 4000) ** 0.5).all()
    assert (u.mean((0, 1)).abs() < 4 * scale / 4000**0.5).all()


def test_hmc_step_rejects_a_proposal_of_no_finite_energy():
    u = torch.zeros(50, 1, 1)

    def finite_at_the_start_alone(u):
        return torch.where(u == 0, 0 * u, torch.nan).sum(-1)

    moved, accepted = hmc_step(finite_at_the_start_alone, u, torch.ones(1), 2)
    assert torch.equal(moved, u)
    assert not accepted.any()


def test_with_gradient_is_the_density_and_its_derivative_without_a_graph():
    u = torch.randn(4, 3, 2).double()
    for differentiable in (u, u.clone().requires_grad_()):
        with torch.no_grad():
            density, gradient = with_gradient(lambda u: (u**3).sum(-1), differentiable)
        torch.testing.assert_close(density, (u**3).sum(-1))
        torch.testing.assert_close(gradient, 3 * u.square())
        assert not density.requires_grad
        assert not gradient.requires_grad
        assert differentiable.grad is None


def test_with_gradient_of_one_chain_does_not_depend_on_the_others():
    u = torch.randn(2, 3, 2).double()
    broken = u.clone()
    broken[1, 1] = torch.nan
    results = (with_gradient(lambda u: u.sin().sum(-1), each) for each in (u, broken))
    for one, other in zip(*results, strict=True):
        kept = torch.tensor([[True, True, True], [True, False, True]])
        assert torch.equal(one[kept], other[kept])

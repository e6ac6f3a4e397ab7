"""Kernel divergences, compared with closed forms between Gaussians."""

import math

import pytest
import torch

from ppvae.objectives.kernels import RBF, InverseMultiquadratic, mmd, squared_distances, stein_discrepancy

D, REPEATS, ROWS = 3, 2000, 8
KERNELS = [RBF(1.3), RBF(), InverseMultiquadratic((0.5, 1.0, 2.0))]


def normal(loc, scale, seed):
    noise = torch.randn(REPEATS, ROWS, D, generator=torch.Generator().manual_seed(seed)).double()
    return torch.as_tensor(loc).double() + scale * noise


def expected_rbf(gap, variance, scale):
    """E exp(- |u|^2 / (2 scale^2)) for u ~ N(gap, variance I)."""
    total = scale**2 + variance
    return (scale**2 / total) ** (D / 2) * math.exp(-sum(g * g for g in gap) / (2 * total))


def assert_mean(values, expected):
    error = values.std() / len(values) ** 0.5
    assert (values.mean() - expected).abs() < 4 * error
    return error


def test_mmd_has_the_mean_of_the_closed_form():
    gap, one, other, scale = (0.5, -0.3, 0.2), 1.0, 1.5, 1.3
    estimates = mmd(normal((0, 0, 0), one, 0), normal(gap, other, 1), RBF(scale))
    expected = (
        expected_rbf((0,), 2 * one**2, scale)
        + expected_rbf((0,), 2 * other**2, scale)
        - 2 * expected_rbf(gap, one**2 + other**2, scale)
    )
    assert assert_mean(estimates, expected) < 0.1 * expected


@pytest.mark.parametrize("kernel", KERNELS, ids=["rbf", "rbf-of-dim", "inverse-multiquadratic"])
def test_divergences_of_a_density_from_itself_have_mean_zero(kernel):
    x, y = normal((0, 0, 0), 1.0, 2), normal((0, 0, 0), 1.0, 3)
    assert_mean(mmd(x, y, kernel), 0.0)
    assert_mean(stein_discrepancy(x, -x, kernel), 0.0)


def test_stein_discrepancy_of_a_shifted_normal_has_the_closed_form():
    """The scores of N(m, I) and N(0, I) differ by m everywhere, so KSD^2 = |m|^2 E k."""
    shift, scale = (0.4, 0.0, -0.3), 1.3
    x = normal(shift, 1.0, 4)
    expected = sum(s * s for s in shift) * expected_rbf((0,), 2.0, scale)
    assert assert_mean(stein_discrepancy(x, -x, RBF(scale)), expected) < 0.2 * expected


@pytest.mark.parametrize("kernel", KERNELS, ids=["rbf", "rbf-of-dim", "inverse-multiquadratic"])
def test_derivatives_equal_those_of_autodiff(kernel):
    squared = torch.linspace(0.1, 9, 20).double().requires_grad_()
    value, first, second = kernel.derivatives(squared, D)
    by_autodiff = torch.autograd.grad(value.sum(), squared, create_graph=True)[0]
    torch.testing.assert_close(first, by_autodiff)
    torch.testing.assert_close(second, torch.autograd.grad(by_autodiff.sum(), squared)[0])


@pytest.mark.parametrize("kernel", KERNELS, ids=["rbf", "rbf-of-dim", "inverse-multiquadratic"])
def test_stein_discrepancy_equals_its_four_terms_by_autodiff(kernel):
    x, s = torch.randn(2, D).double(), torch.randn(2, D).double()

    def k(a, b):
        return kernel((a - b).square().sum(), D)

    grad_a, grad_b = (torch.func.grad(k, i)(x[0], x[1]) for i in (0, 1))
    mixed = torch.func.jacfwd(torch.func.grad(k, 0), 1)(x[0], x[1]).trace()
    expected = s[0] @ s[1] * k(x[0], x[1]) + s[0] @ grad_b + s[1] @ grad_a + mixed
    torch.testing.assert_close(stein_discrepancy(x, s, kernel), expected)


def test_kernels_at_known_distances():
    squared = torch.tensor([0.0, 6.0]).double()
    torch.testing.assert_close(RBF(2.0)(squared, D), torch.tensor([1, math.exp(-6 / 8)]).double())
    torch.testing.assert_close(RBF()(squared, D), torch.tensor([1, math.exp(-2)]).double())  # scale^2 = D / 2
    ours = InverseMultiquadratic((0.5, 2.0))(squared, D)  # 2 D scale is 3 and 12
    torch.testing.assert_close(ours, torch.tensor([2, 3 / 9 + 12 / 18]).double())


@pytest.mark.parametrize("make", [lambda: RBF(0), lambda: RBF(float("nan")), lambda: InverseMultiquadratic((1, -1))])
def test_kernels_refuse_scales_that_are_not_positive(make):
    with pytest.raises(ValueError, match="above 0"):
        make()


def test_inverse_multiquadratic_refuses_no_scales():
    with pytest.raises(ValueError, match="at least one scale"):
        InverseMultiquadratic(())


@pytest.mark.parametrize("divergence", [mmd, stein_discrepancy])
def test_divergences_refuse_single_draws(divergence):
    with pytest.raises(ValueError, match="at least 2 draws of each density, got 1"):
        divergence(torch.zeros(4, 1, D), torch.zeros(4, 1, D), RBF())


def test_squared_distances_of_batches():
    x, y = torch.randn(4, 5, D).double(), torch.randn(4, 6, D).double()
    torch.testing.assert_close(squared_distances(x, y), torch.cdist(x, y).square())

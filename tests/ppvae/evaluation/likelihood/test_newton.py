"""The Laplace approximation: exact for Gaussians, sound where curvatures are negative, tiny or missing."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from ppvae.distributions.gaussians import FullGaussian, times
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.newton import DIRECTIONS, NoSecondDerivative, laplace
from tests.ppvae.evaluation.likelihood.densities import OnceDifferentiable, gaussian, standard


def test_times_is_the_matrix_product_of_each_datum():
    matrix, vectors = torch.randn(4, 3, 3).double(), torch.randn(5, 4, 3).double()
    expected = torch.stack([vectors[:, b] @ matrix[b].T for b in range(4)], 1)
    torch.testing.assert_close(times(matrix, vectors), expected)


@pytest.mark.parametrize("dim", [1, DIRECTIONS, DIRECTIONS + 3])
def test_laplace_of_gaussians_is_exact_after_one_iteration_from_anywhere(dim):
    mean, covariance, log_joint = gaussian(4, dim, spread=0.3)
    below = 0.2 * torch.randn(4, dim, dim).double().tril(-1)
    start = FullGaussian(5 * torch.randn(4, dim).double(), 0.5 * standard(4, dim).scale_tril + below)
    q = laplace(log_joint, start, iterations=1)
    torch.testing.assert_close(q.loc, mean)
    torch.testing.assert_close(q.covariance_matrix, covariance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_laplace_of_an_ill_conditioned_gaussian_is_exact_to_its_condition_number(dtype):
    """Standard deviations from 1 to 1e-3 along other axes than those of u: the condition number is 1e6."""
    axes = torch.linalg.qr(torch.randn(3, 6, 6).double()).Q
    root = (axes / torch.logspace(0, -3, 6).double()).to(dtype)  # the precision is root root'

    def log_joint(u):
        return -0.5 * torch.einsum("bij,nbi->nbj", root, u).square().sum(-1)

    q = laplace(log_joint, standard(3, 6, dtype), iterations=2)
    turned = root.double().mT @ q.scale_tril.double()  # orthogonal where q is exact
    identity = torch.eye(6).double().expand(3, 6, 6)
    torch.testing.assert_close(turned @ turned.mT, identity, rtol=0, atol=4e6 * torch.finfo(dtype).eps)


def test_laplace_lower_triangle_has_a_positive_diagonal():
    _, _, log_joint = gaussian(4, 5)
    tril = laplace(log_joint, standard(4, 5), iterations=0).scale_tril
    assert (tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.equal(tril, tril.tril())


def test_laplace_climbs_out_of_a_region_of_negative_curvature():
    """Two modes, at -3 and 3; the start is next to the saddle between them."""

    def log_joint(u):
        return torch.stack([-0.5 * (u - 3).square().sum(-1), -0.5 * (u + 3).square().sum(-1)]).logsumexp(0)

    start = FullGaussian(torch.full((1, 2), 0.05).double(), standard(1, 2).scale_tril)
    q = laplace(log_joint, start, iterations=20)
    torch.testing.assert_close(q.loc, torch.full((1, 2), 3.0).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(q.covariance_matrix, torch.eye(2).double()[None], rtol=0, atol=1e-3)


def test_laplace_never_falls():
    def log_joint(u):
        return (5 * u).cos().sum(-1) - 0.1 * u.square().sum(-1)

    start = FullGaussian(torch.randn(50, 3).double(), standard(50, 3).scale_tril)
    values = [log_joint(laplace(log_joint, start, n).loc[None])[0] for n in range(6)]
    for before, after in pairwise(values):
        assert (after >= before - 1e-12).all()


def test_laplace_keeps_the_scale_of_the_start_along_a_flat_coordinate():
    q = laplace(lambda u: -50 * u[..., 0].square(), standard(2, 2), iterations=1)
    torch.testing.assert_close(q.variance, torch.tensor([0.01, 1.0]).double().expand(2, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spread", [(1e-5, 1e-5), (1e-5, 1.0), (1e5, 1e5)])
def test_laplace_does_not_depend_on_the_scale_of_the_start(spread, dtype):
    """A start that is far too narrow must not bound the result."""
    start = FullGaussian(torch.zeros(1, 2, dtype=dtype), torch.diag(torch.tensor(spread, dtype=dtype)).unsqueeze(0))
    tilt = torch.tensor([[1.0, 0.8], [0.0, 1.0]], dtype=dtype)
    q = laplace(lambda u: -0.5 * ((u - 1) @ tilt).square().sum(-1), start, iterations=2)
    torch.testing.assert_close(q.loc, torch.ones(1, 2, dtype=dtype), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(q.precision_matrix[0], tilt @ tilt.mT, rtol=1e-3, atol=1e-3)


def test_laplace_of_a_density_that_is_not_finite_is_the_start_and_leaves_other_data_alone():
    _, _, log_joint = gaussian(3, 2)
    broken = torch.tensor([False, True, False])
    factor = torch.ones(3).double().masked_fill(broken, torch.nan)
    q = laplace(lambda u: factor * log_joint(u), standard(3, 2), iterations=2)
    alone = laplace(log_joint, standard(3, 2), iterations=2)
    for part in ("loc", "scale_tril"):
        assert torch.equal(getattr(q, part)[~broken], getattr(alone, part)[~broken])
    torch.testing.assert_close(q.loc[1], torch.zeros(2).double())
    torch.testing.assert_close(q.scale_tril[1], torch.eye(2).double())


def test_laplace_of_a_piecewise_linear_decoder_is_the_gauss_newton_approximation():
    """The curvature of a ReLU network is zero almost everywhere: J'J / s^2 + I is left."""
    decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 5)).double().requires_grad_(False)
    x = torch.randn(2, 5).double()

    def log_joint(u):
        return -0.5 * u.square().sum(-1) - 0.5 * ((x - decoder(u)) / 0.5).square().sum(-1)

    q = laplace(log_joint, standard(2, 3), iterations=8)
    for b in range(2):
        jacobian = torch.autograd.functional.jacobian(decoder, q.loc[b])
        expected = torch.linalg.inv(jacobian.T @ jacobian / 0.25 + torch.eye(3).double())
        torch.testing.assert_close(q.covariance_matrix[b], expected)


def test_laplace_refuses_a_density_that_can_be_differentiated_only_once():
    def log_joint(u):
        return -(OnceDifferentiable.apply(u) - 1).square().sum(-1)

    with pytest.raises(NoSecondDerivative, match=r"second derivative.*once_differentiable.*use FullRank\(newton=0\)"):
        laplace(log_joint, standard(2, 3), iterations=1)
    assert issubclass(NoSecondDerivative, ContractError)


def test_laplace_passes_on_that_memory_is_short():
    class Greedy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            return u.clone()

        @staticmethod
        def backward(ctx, slope):
            return Hungry.apply(slope)

    class Hungry(torch.autograd.Function):
        @staticmethod
        def forward(ctx, slope):
            return slope.clone()

        @staticmethod
        def backward(ctx, _):
            raise torch.OutOfMemoryError("no memory is left")

    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        laplace(lambda u: -Greedy.apply(u).square().sum(-1), standard(2, 3), iterations=1)

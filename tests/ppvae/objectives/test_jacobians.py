"""The squared size of a Jacobian matrix against autograd's whole matrix."""

import pytest
import torch
from torch import nn

from ppvae.objectives.jacobians import require_probes, squared_jacobian


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def exact(net, x):
    """|J|^2 of each row, from the matrix of each."""
    return torch.stack([torch.autograd.functional.jacobian(net, row).square().sum() for row in x])


def test_squared_jacobian_without_probes_is_that_of_the_whole_matrix():
    net, x = network(), torch.randn(4, 5).double().requires_grad_()
    torch.testing.assert_close(squared_jacobian(net(x), x, 1, None), exact(net, x))


def test_squared_jacobian_takes_rows_without_events():
    x = torch.randn(4).double().requires_grad_()
    torch.testing.assert_close(squared_jacobian(x.square(), x, 1, None), 4 * x.square())


def test_squared_jacobian_takes_events_and_rows_of_any_dimensions():
    net, x = network(), torch.randn(2, 4, 5).double().requires_grad_()
    output = net(x).unflatten(-1, (3, 1))
    torch.testing.assert_close(squared_jacobian(output, x, 2, None).flatten(), exact(net, x.flatten(0, 1)))


@pytest.mark.parametrize("num_probes", [1, 3])
def test_squared_jacobian_by_probes_is_unbiased(num_probes):
    net, x = network(), torch.randn(5).double()
    rows = x.expand(20_000, 5).clone().requires_grad_()
    found = squared_jacobian(net(rows), rows, 1, num_probes)
    error = found.std() / len(found) ** 0.5
    assert error > 0
    assert abs(found.mean() - exact(net, x.unsqueeze(0))[0]) < 4 * error


def test_squared_jacobian_has_the_gradient_of_the_whole_matrix():
    net, x = network(), torch.randn(4, 5).double().requires_grad_()
    found = torch.autograd.grad(squared_jacobian(net(x), x, 1, None).sum(), [net[0].weight, net[2].weight])
    matrices = [torch.autograd.functional.jacobian(net, row, create_graph=True) for row in x]
    expected = torch.autograd.grad(sum(m.square().sum() for m in matrices), [net[0].weight, net[2].weight])
    torch.testing.assert_close(found, expected)


def test_squared_jacobian_is_zero_where_the_output_ignores_its_input():
    x, other = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    assert squared_jacobian(2 * other, x, 1, 1).tolist() == [0] * 4


@pytest.mark.parametrize(("num_probes", "error"), [(0, ValueError), (1.5, TypeError)])
def test_require_probes_refuses_other_numbers(num_probes, error):
    with pytest.raises(error, match="expected num_probes"):
        require_probes(num_probes)

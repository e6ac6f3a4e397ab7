"""Sylvester's map and its parts, against autodiff and linear algebra."""

import pytest
import torch
from torch.autograd.functional import jacobian

from ppvae.distributions.sylvester import Sylvester, bounded_triangle, reflections


def transform(dim: int, width: int) -> Sylvester:
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(dim, width).double()).Q
    r, r_tilde = (bounded_triangle(3 * torch.randn(width, width).double()) for _ in range(2))
    return Sylvester(q, r, r_tilde, torch.randn(width).double())


@pytest.mark.parametrize(("dim", "width"), [(1, 1), (4, 2), (5, 5)])
def test_log_determinant_equals_that_of_the_autodiff_jacobian(dim, width):
    step, z = transform(dim, width), torch.randn(dim).double()
    exact = torch.linalg.slogdet(jacobian(step, z))
    torch.testing.assert_close(step.log_abs_det_jacobian(z, step(z)), exact.logabsdet)
    assert exact.sign == 1


def test_sylvester_keeps_a_draw_for_its_score_and_has_no_inverse():
    step, z = transform(4, 2), torch.randn(4).double()
    image = step(z)
    assert step.inv(image) is z
    with pytest.raises(NotImplementedError, match="no inverse in closed form"):
        step.inv(image.clone())


@pytest.mark.parametrize("count", [1, 3])
def test_reflections_are_orthogonal(count):
    torch.manual_seed(0)
    matrix = reflections(torch.randn(2, 4, count).double())
    identity = torch.eye(4).double().expand(2, 4, 4)
    torch.testing.assert_close(matrix @ matrix.mT, identity)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.full((2,), (-1.0) ** count).double())


def test_bounded_triangle_keeps_the_upper_part_and_bounds_the_diagonal():
    matrix = 5 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = bounded_triangle(matrix)
    torch.testing.assert_close(found.triu(1), matrix.triu(1))
    torch.testing.assert_close(found.diagonal(dim1=-2, dim2=-1), matrix.diagonal(dim1=-2, dim2=-1).tanh())
    assert (found.tril(-1) == 0).all()

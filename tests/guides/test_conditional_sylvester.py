"""Sylvester's map from a context: Q is orthonormal for every kind."""

import pytest
import torch

from ppvae.guides.conditional_sylvester import KINDS, ConditionalSylvester


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_condition_gives_orthonormal_columns_and_bounded_triangles(kind, reverse):
    torch.manual_seed(0)
    step = ConditionalSylvester(4, 3, kind, rank=2, reverse=reverse).double()
    map_ = step.condition(torch.randn(6, 3).double())
    width = 2 if kind == "orthogonal" else 4
    identity = torch.eye(width).double()
    torch.testing.assert_close((map_.q.mT @ map_.q).expand(6, width, width), identity.expand(6, width, width))
    for triangle in (map_.r, map_.r_tilde):
        assert (triangle.tril(-1) == 0).all()
        assert (triangle.diagonal(dim1=-2, dim2=-1).abs() < 1).all()


def test_triangular_kind_reverses_the_order_of_z():
    q = ConditionalSylvester(3, 2, "triangular", reverse=True).condition(torch.zeros(2)).q
    assert (q @ torch.tensor([1.0, 2.0, 3.0])).tolist() == [3.0, 2.0, 1.0]

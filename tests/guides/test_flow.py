"""Flows: log-determinants against autodiff, inverses, and which guides can score."""

import pytest
import torch
from pyro.distributions import transforms
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import ComposeTransform

from ppvae.guides import (
    FlowGuide,
    affine_coupling,
    householder,
    inverse_autoregressive,
    neural_spline,
    planar,
    radial,
    sylvester,
)
from ppvae.nn import MLP

DIM, CONTEXT = 4, 3
FAMILIES = {
    "inverse_autoregressive": inverse_autoregressive,
    "affine_coupling": affine_coupling,
    "planar": planar,
    "radial": radial,
    "householder": householder,
    "neural_spline": neural_spline,
    "sylvester_orthogonal": sylvester,
    "sylvester_householder": lambda d, c: sylvester(d, c, kind="householder"),
    "sylvester_triangular": lambda d, c: sylvester(d, c, kind="triangular"),
}
WITHOUT_INVERSE = {"planar", "radial", "sylvester_orthogonal", "sylvester_householder", "sylvester_triangular"}


def guide_of(family: str, scale: float = 1.0) -> FlowGuide:
    torch.manual_seed(0)
    guide = FlowGuide(MLP(5, [8], 2 * DIM + CONTEXT), FAMILIES[family](DIM, CONTEXT), DIM).double()
    with torch.no_grad():
        for parameter in guide.maps.parameters():
            parameter.normal_().mul_(scale)
    return guide


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_determinant_equals_that_of_the_autodiff_jacobian(family, scale):
    guide = guide_of(family, scale)
    features = torch.randn(2 * DIM + CONTEXT).double()
    for step in guide.distribution(features).transforms:
        z = torch.randn(DIM).double()
        image = step(z)
        exact = torch.linalg.slogdet(jacobian(step, z)).logabsdet
        torch.testing.assert_close(step.log_abs_det_jacobian(z, image), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_flow_guide_scores_its_draws_without_an_inverse(family, monkeypatch):
    """An autoregressive inverse takes one pass for each element of z, and loses digits in each."""
    guide = guide_of(family, 0.3)
    q = guide.distribution(guide.encoder(torch.randn(6, 5).double()))

    def inverse(self, y):
        raise AssertionError(f"{type(self).__name__} was inverted")

    for step in {type(step) for step in q.transforms} - {ComposeTransform}:
        monkeypatch.setattr(step, "_inverse", inverse)
    assert q.log_prob(q.rsample((2,))).shape == (2, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_can_score_tells_whether_a_copy_of_a_draw_can_be_scored(family):
    guide = guide_of(family, 0.3)
    x = torch.randn(6, 5).double()
    assert guide.can_score == (family not in WITHOUT_INVERSE)
    q = guide.distribution(guide.encoder(x))
    z = q.rsample((3,))
    own = q.log_prob(z)
    again = guide.distribution(guide.encoder(x))
    if guide.can_score:
        torch.testing.assert_close(again.log_prob(z.clone()), own)
    else:
        with pytest.raises((NotImplementedError, KeyError)):
            again.log_prob(z.clone())


class Doubling(nn.Module):
    """A map of a user's own, which says that it has no inverse."""

    has_inverse = False

    def condition(self, context):
        return torch.distributions.AffineTransform(0.0, 2.0)


@pytest.mark.parametrize(
    ("maps", "can_score"),
    [
        ([], True),
        (affine_coupling(4, 3), True),
        ([*affine_coupling(4, 3), *planar(4, 3, steps=1)], False),
        ([transforms.conditional_neural_autoregressive(4, 3)], False),
        ([transforms.conditional_matrix_exponential(4, 3)], True),
        ([Doubling()], False),
    ],
)
def test_can_score_needs_an_inverse_of_every_map(maps, can_score):
    assert FlowGuide(MLP(5, [], 2 * DIM + CONTEXT), maps, DIM).can_score == can_score


def test_maps_without_inverse_do_not_invert_values():
    """The list in guides/flow.py is what Pyro does."""
    for step in (transforms.conditional_neural_autoregressive(4, 3), planar(4, 3)[0], radial(4, 3)[0]):
        transform = step.condition(torch.zeros(3))
        with pytest.raises((KeyError, NotImplementedError)):
            transform.inv(transform(torch.zeros(4)).clone())


def test_sylvester_refuses_another_kind_or_rank():
    with pytest.raises(ValueError, match="expected kind out of"):
        sylvester(4, 3, kind="orthogonale")
    for rank in (0, 5):
        with pytest.raises(ValueError, match="rank from 1 to latent_dim=4"):
            sylvester(4, 3, rank=rank)

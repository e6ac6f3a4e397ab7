"""The refined guide: features, gradient and partner."""

import pytest
import torch

from ppvae.guides import FlowGuide, MeanFieldGaussian, Refined, planar
from ppvae.models import LinearGaussian
from ppvae.nn import MLP


def pair() -> tuple[LinearGaussian, MeanFieldGaussian, torch.Tensor]:
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7).double()
    return model, MeanFieldGaussian(MLP(5, [], 4)).double(), torch.randn(6, 5).double()


def test_refined_without_steps_equals_its_guide():
    model, guide, x = pair()
    torch.testing.assert_close(Refined(guide, model, steps=0).encode(x), guide.encode(x))


def test_refined_moves_the_mean_towards_the_posterior():
    model, guide, x = pair()
    exact = model.posterior(x).mean
    refined = Refined(guide, model, steps=200, learning_rate=0.05)
    before, after = (
        (q.distribution(q.encode(x)).mean - exact).square().sum(-1).sqrt().mean() for q in (guide, refined)
    )
    assert after < 0.5 * before


def test_refined_passes_the_gradient_to_the_encoder_as_a_constant_shift():
    model, guide, x = pair()
    direction = torch.randn(6, 4).double()
    found = torch.autograd.grad((Refined(guide, model, steps=3).encode(x) * direction).sum(), list(guide.parameters()))
    torch.testing.assert_close(
        found, torch.autograd.grad((guide.encode(x) * direction).sum(), list(guide.parameters()))
    )
    assert all(p.grad is None for p in model.parameters())


def test_refined_holds_its_model_as_a_partner_and_not_as_a_part():
    model, guide, _ = pair()
    refined = Refined(guide, model)
    assert refined.partners == (model,)
    assert not {id(p) for p in refined.parameters()} & {id(p) for p in model.parameters()}


def test_refined_can_score_if_its_guide_can():
    model, guide, _ = pair()
    assert Refined(guide, model).can_score
    assert not Refined(FlowGuide(MLP(5, [], 7), planar(2, 3), 2), model).can_score


@pytest.mark.parametrize("arguments", [{"steps": -1}, {"learning_rate": 0.0}])
def test_refined_refuses_arguments_out_of_range(arguments):
    model, guide, _ = pair()
    with pytest.raises(ValueError, match="steps >= 0 and learning_rate above 0"):
        Refined(guide, model, **arguments)

"""Weights of the terms: what they may be, and when."""

import math

import pyro
import pytest
import torch

import ppvae
from tests.catalogue import PAIRS


def test_a_schedule_without_a_step_is_refused():
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.beta_vae(ppvae.warm_up(10))
    with pytest.raises(ppvae.ContractError, match=r"expected the training step.*svi.step\(x, step=i\)"):
        objective.loss(model, guide, x)
    pyro.clear_param_store()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective)
    assert math.isfinite(svi.step(x, step=3))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_schedule_that_leaves_the_range_of_weights_is_refused(value):
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.beta_vae(lambda step: value if step == 7 else 1.0)
    assert math.isfinite(objective.loss(model, guide, x, step=6))
    with pytest.raises(ppvae.ContractError, match=f"finite numbers of at least 0, got {value} at step 7"):
        objective.loss(model, guide, x, step=7)


@pytest.mark.parametrize(
    "objective",
    [
        ppvae.IWAE(8) + ppvae.KLWeight(1.0),
        ppvae.IWAE(8) + ppvae.KLWeight(4.0),
        ppvae.ELBO() + ppvae.KLWeight(0.5),
        ppvae.IWAE(8) + ppvae.TCDecomposition(6, alpha=1.0, beta=2.0, gamma=1.0),
    ],
    ids=["iwae-1", "iwae-4", "elbo-half", "iwae-tc"],
)
def test_no_accepted_weight_of_the_rate_rewards_a_guide_for_leaving_the_prior(objective):
    """x tells nothing of z, so that the best guide is the prior: a wider one must not lower the loss."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = guide.encoder.layers[-1]
        layer.weight.zero_()
        losses = []
        for log_scale in (0.0, 1.0, 3.0, 5.0):
            layer.bias.copy_(torch.tensor([0.0] * 3 + [log_scale] * 3))
            torch.manual_seed(0)
            losses.append(sum(objective.loss(model, guide, x) for _ in range(50)))
    assert losses == sorted(losses)

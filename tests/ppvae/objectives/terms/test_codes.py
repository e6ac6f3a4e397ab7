"""Penalties on the code against autograd and closed forms."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import ppvae
from ppvae.guides import PointGuide
from ppvae.nn import CorruptInput, GaussianNoise
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import gradient, particles_of
from tests.ppvae.objectives.terms.autoencoders import assert_mean_is, autoencoder, penalty_of


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_code_norm_is_the_norm_to_a_power(power):
    model, guide, x = autoencoder()
    expected = 2.5 * torch.linalg.vector_norm(guide.encoder(x), power, -1) ** power / power
    torch.testing.assert_close(penalty_of(ppvae.CodeNorm(2.5, power), model, guide, x), expected)


def test_code_norm_averages_over_draws_and_takes_one_datum():
    particles = particles_of(num_particles=4)
    expected = 0.5 * particles.guide["z"].value.square().sum(-1).mean(0)
    torch.testing.assert_close(ppvae.CodeNorm(1.0).penalty(particles), expected)
    model, guide, x = autoencoder()
    torch.testing.assert_close(
        penalty_of(ppvae.CodeNorm(1.0), model, guide, x[:1]), penalty_of(ppvae.CodeNorm(1.0), model, guide, x)[:1]
    )


def test_code_norm_of_a_point_mass_is_minus_its_log_prior():
    model, guide, x = autoencoder()
    log_prior = ppvae.draw(model, guide, x).model["z"].log_prob[0]
    constant = -1.5 * torch.tensor(2 * torch.pi).double().log()
    torch.testing.assert_close(penalty_of(ppvae.CodeNorm(1.0), model, guide, x), constant - log_prior)


def test_code_sparsity_is_the_kl_of_two_coins():
    model, guide, x = autoencoder(nn.Sigmoid)
    active = guide.encoder(x).mean(0)
    coin = torch.distributions.Bernoulli
    expected = 3.0 * torch.distributions.kl_divergence(coin(torch.tensor(0.1).double()), coin(active)).sum()
    torch.testing.assert_close(penalty_of(ppvae.CodeSparsity(3.0, 0.1), model, guide, x), expected)


def test_code_sparsity_is_zero_where_each_unit_is_active_in_the_target_share():
    model, guide, x = autoencoder(nn.Sigmoid)
    nn.init.zeros_(guide.encoder[0].layers[-1].weight)
    nn.init.constant_(guide.encoder[0].layers[-1].bias, torch.tensor(0.05).logit().item())
    assert penalty_of(ppvae.CodeSparsity(3.0, 0.05), model, guide, x).abs() < 1e-12


def test_code_sparsity_is_finite_for_units_that_are_never_active():
    model, guide, x = autoencoder(nn.ReLU)
    nn.init.zeros_(guide.encoder[0].layers[-1].weight)
    nn.init.constant_(guide.encoder[0].layers[-1].bias, -1.0)
    assert penalty_of(ppvae.CodeSparsity(1.0), model, guide, x).isfinite()


def test_code_sparsity_refuses_a_code_outside_0_to_1():
    model, guide, x = autoencoder()
    with pytest.raises(ppvae.ContractError, match=r"code 'z' between 0 and 1, got values from .*Sigmoid"):
        penalty_of(ppvae.CodeSparsity(1.0), model, guide, x)


def test_code_sparsity_stops_a_training_in_which_a_code_leaves_0_to_1():
    model, guide, x = autoencoder()
    guide.encoder = nn.Sequential(guide.encoder, nn.Sigmoid(), Grow())
    with pytest.raises(ppvae.NonFiniteLossError):
        ppvae.fit(model, guide, ppvae.Reconstruction() + ppvae.CodeSparsity(1.0), x, epochs=3, progress=False)


class Grow(nn.Module):
    """Codes from 0 to 1 in evaluation mode, where they are checked, and beyond in training mode."""

    def forward(self, z):
        return 3 * z if self.training else z


@pytest.mark.parametrize("weight", [2.5, ppvae.warm_up(10, 5.0)])
def test_contractive_penalty_is_autograds_jacobian(weight):
    model, guide, x = autoencoder()
    particles = replace(ppvae.draw(model, guide, x), step=5)
    matrices = [torch.autograd.functional.jacobian(guide.encoder, row) for row in x]
    expected = 2.5 * torch.stack([matrix.square().sum() for matrix in matrices])
    torch.testing.assert_close(ppvae.ContractivePenalty(weight, num_probes=None).penalty(particles), expected)


def test_contractive_penalty_of_one_sigmoid_layer_is_the_closed_form():
    """Rifai et al. 2011: sum_d (h_d (1 - h_d))^2 |W_d|^2."""
    model, _, x = autoencoder()
    guide = PointGuide(nn.Sequential(nn.Linear(5, 3), nn.Sigmoid())).double()
    h = guide.encoder(x)
    expected = ((h * (1 - h)).square() * guide.encoder[0].weight.square().sum(-1)).sum(-1)
    torch.testing.assert_close(penalty_of(ppvae.ContractivePenalty(1.0, None), model, guide, x), expected)


def test_contractive_penalty_by_probes_has_the_exact_mean():
    assert_mean_is(ppvae.ContractivePenalty(1.0, num_probes=2), ppvae.ContractivePenalty(1.0, None))


def test_contractive_penalty_trains_the_encoder_and_nothing_else():
    model, guide, x = autoencoder()
    objective = ppvae.Reconstruction() + ppvae.ContractivePenalty(1.0, None)
    alone = gradient(objective, model, guide, x) - gradient(ppvae.Reconstruction(), model, guide, x)
    matrices = [torch.autograd.functional.jacobian(guide.encoder, row, create_graph=True) for row in x]
    expected = torch.autograd.grad(sum(m.square().sum() for m in matrices), guide.parameters(), allow_unused=True)
    expected = [p * 0 if g is None else g for g, p in zip(expected, guide.parameters(), strict=True)]
    torch.testing.assert_close(alone, torch.cat([g.flatten() for g in expected]))
    of_model = gradient(objective, model, guide, x, of=model)
    torch.testing.assert_close(of_model, gradient(ppvae.Reconstruction(), model, guide, x, of=model))


def test_contractive_penalty_of_a_gaussian_is_that_of_its_mean():
    model, guide, x = PAIRS["linear_gaussian"].make()
    expected = guide.encoder.layers[0].weight[:2].square().sum().expand(len(x))  # means, then log scales
    torch.testing.assert_close(penalty_of(ppvae.ContractivePenalty(1.0, None), model, guide, x), expected)


def test_contractive_penalty_is_taken_at_the_corrupted_input_in_training_mode():
    model, guide, x = autoencoder()
    noisy = PointGuide(CorruptInput(guide.encoder, GaussianNoise(1.0)))
    term, clean = ppvae.ContractivePenalty(1.0, None), penalty_of(ppvae.ContractivePenalty(1.0, None), model, guide, x)
    assert not torch.allclose(penalty_of(term, model, noisy, x), clean)
    torch.testing.assert_close(penalty_of(term, model, noisy.eval(), x), clean)


def test_contractive_penalty_has_a_value_without_gradient():
    model, guide, x = autoencoder()
    objective = ppvae.Reconstruction() + ppvae.ContractivePenalty(1.0, None)
    found = ppvae.evaluate_loss(objective, model, guide, x)
    assert found == pytest.approx(objective.differentiable_loss(model, guide, x).item() / len(x))


def test_contractive_penalty_refuses_a_guide_without_a_formula_for_its_mean():
    model, guide, x = PAIRS["flow_planar"].make()
    with pytest.raises(ppvae.ContractError, match=r"q\(z \| x\) with a formula for its mean, got .*use PointGuide"):
        penalty_of(ppvae.ContractivePenalty(1.0), model, guide, x)


@pytest.mark.parametrize("make", [ppvae.CodeNorm, ppvae.CodeSparsity, ppvae.ContractivePenalty])
def test_penalty_refuses_a_weight_below_zero(make):
    with pytest.raises(ValueError, match="weight of at least 0, got -1"):
        make(-1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.CodeNorm(1.0, power=0.5), "power of at least 1, got 0.5"),
        (lambda: ppvae.CodeSparsity(1.0, target=0.0), "target between 0 and 1, got 0.0"),
        (lambda: ppvae.ContractivePenalty(1.0, num_probes=0), "num_probes of at least 1, got 0"),
    ],
)
def test_penalty_refuses_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Importance-weighted bounds and their gradients, against the evidence, quadrature and Pyro."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from pyro.infer import RenyiELBO

import ppvae
from ppvae.objectives.bounds.importance import log_power_mean, normalised
from tests.catalogue import PAIRS
from tests.ppvae.objectives.bounds.test_evidence import VECTORISED, assert_same, loss_and_gradients
from tests.ppvae.objectives.estimates import (
    loss,
)
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact

# values


@pytest.mark.parametrize("pair", ["gaussian_vae", "convolutional", "learned_noise", "linear_gaussian"])
def test_iwae_has_the_loss_and_gradient_of_pyros(pair):
    stock = RenyiELBO(alpha=0, **VECTORISED)
    assert_same(loss_and_gradients(ppvae.IWAE(4), pair), loss_and_gradients(stock, pair))


def test_iwae_of_one_particle_is_the_elbo():
    model, guide, x = PAIRS["gaussian_vae"].make()
    iwae = loss(ppvae.IWAE(1), model, guide, x)
    torch.testing.assert_close(iwae, loss(ppvae.ELBO(analytic_kl=False), model, guide, x))


def test_iwae_bound_increases_with_particles_and_never_passes_the_evidence():
    model, x = linear_gaussian()
    guide = PAIRS["linear_gaussian"].guide().double()
    repeats = x.repeat_interleave(4000, 0)
    bounds, errors = [], []
    for k in (1, 2, 8, 32):
        losses = loss(ppvae.IWAE(k), model, guide, repeats).reshape(len(x), -1).detach()
        bounds.append(-losses.mean(1))
        errors.append(losses.std(1) / losses.shape[1] ** 0.5)
    evidence = model.log_evidence(x)
    for i in range(3):
        slack = 4 * (errors[i] ** 2 + errors[i + 1] ** 2).sqrt()
        assert (bounds[i + 1] > bounds[i] - slack).all()
        assert (bounds[i + 1] - bounds[i]).mean() > 0
    assert all((bound < evidence + 4 * error).all() for bound, error in zip(bounds, errors, strict=True))


@pytest.mark.parametrize(
    "objective",
    [ppvae.IWAE(1), ppvae.IWAE(20), ppvae.DReG(3), ppvae.Renyi(-1.0, 3), ppvae.Renyi(2.0, 3), ppvae.Renyi(0.999, 3)],
    ids=lambda o: type(o).__name__,
)
def test_multi_sample_bound_is_the_evidence_at_the_exact_posterior(objective):
    model, x = linear_gaussian()
    torch.testing.assert_close(-loss(objective, model, Exact(model), x), model.log_evidence(x))


def test_renyi_falls_with_alpha_between_the_largest_and_the_smallest_weight():
    model, guide, x = PAIRS["linear_gaussian"].make()
    alphas = [-math.inf, -50.0, -1.0, 0.0, 0.5, 2.0, 50.0, math.inf]
    bounds = torch.stack([-loss(ppvae.Renyi(alpha, 6), model, guide, x) for alpha in alphas])
    assert (bounds.diff(dim=0) < 0).all()
    torch.manual_seed(0)
    log_weight = ppvae.draw(model, guide, x, num_particles=6).log_weight
    torch.testing.assert_close(bounds[0], log_weight.amax(0))
    torch.testing.assert_close(bounds[-1], log_weight.amin(0))


def test_renyi_near_one_is_the_elbo():
    model, x = linear_gaussian()
    near_one = loss(ppvae.Renyi(1 - 1e-6, 6), model, nearly_exact(model), x)
    elbo = loss(ppvae.ELBO(6, analytic_kl=False), model, nearly_exact(model), x)
    torch.testing.assert_close(near_one, elbo, rtol=0, atol=1e-5)


def exact_power_mean(log_weight, power):
    """log_power_mean of each column in decimal arithmetic of 60 digits; a weight of 0 counts as its limit."""
    means = []
    with localcontext(prec=60):
        p = Decimal(power)
        for column in log_weight.T.tolist():
            if power < 0 and -math.inf in column:
                means.append(-math.inf)
                continue
            powers = [p * Decimal(w) for w in column if w > -math.inf]
            top = max(powers)
            mean = sum((each - top).exp() for each in powers) / len(column)
            means.append(float((top + mean.ln()) / p))
    return torch.tensor(means, dtype=torch.float64)


WEIGHTS = {
    "close together": torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
    "far apart": 60 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
    "very far apart": 3000 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
    "all alike": torch.full((6, 4), -321.5),
    "one of them zero": torch.tensor([[-math.inf] * 4, [1.0, -2.0, 300.0, 0.0], [0.5, -1.0, -300.0, 0.0]]),
    "all but one zero": torch.tensor([[-math.inf] * 4, [1.0, -2.0, 300.0, 0.0], [-math.inf] * 4]),
}
POWERS = [1.0, 0.5, 2.0, 0.011, 0.0099, 1e-4, 1e-6, -1.0, -0.5, -0.011, -0.0099, -1e-4, -1e-6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("power", POWERS)
def test_log_power_mean_keeps_its_digits_whatever_the_weights(power, weights, dtype):
    """One weight of 0, all but one, orders close to the ELBO's with weights far apart: finite, in float32 too."""
    log_weight = WEIGHTS[weights].to(dtype)
    exact = exact_power_mean(log_weight, power)
    found = log_power_mean(log_weight, power).double()
    size = torch.where(log_weight.isfinite(), log_weight.abs(), 0).amax(0).double() + exact.abs() + 1
    rounding = (
        4 * torch.finfo(dtype).eps * size * min(1 / abs(power), 100.0)
    )  # 1 / p where it is taken as log(mean) / p
    assert ((found == exact) | ((found - exact).abs() <= rounding)).all(), (found, exact)


@pytest.mark.parametrize("power", [2.0, 0.5, 1e-4, -1e-4, -1.0])
def test_log_power_mean_has_a_finite_gradient_where_the_mean_is_finite(power):
    least = -torch.inf if power > 0 else -400.0  # a weight of 0 adds nothing to the gradient
    log_weight = torch.tensor([[least, 1.0], [0.3, 2.0], [1.0, -5.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_power_mean(log_weight, power).sum(), log_weight)
    share = (power * log_weight).softmax(0)
    torch.testing.assert_close(slope, share, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1 - 1e-6, 1 + 1e-6, 2.0, -1.0, math.inf, -math.inf])
@pytest.mark.parametrize("zeros", [1, 3])
def test_renyi_of_a_datum_with_a_weight_of_zero_is_its_limit(alpha, zeros):
    """IWAE gives a number for a datum with one weight of 0, and so does Renyi of every order below 1."""
    model, x = linear_gaussian()
    particles = ppvae.draw(model, Exact(model), x, num_particles=4)
    log_weight = particles.log_weight.clone()
    log_weight[:zeros, 1] = -math.inf
    particles.__dict__["log_weight"] = log_weight
    bound = -ppvae.Renyi(alpha, 4).per_datum(particles)
    evidence = model.log_evidence(x)
    torch.testing.assert_close(bound[[0, 2, 3]], evidence[[0, 2, 3]])
    if alpha == -math.inf:
        torch.testing.assert_close(bound[1], evidence[1])
    elif alpha < 1:  # the mean of 4 - zeros equal weights and of zeros
        expected = evidence[1] + math.log((4 - zeros) / 4) / (1 - alpha)
        torch.testing.assert_close(bound[1], expected, rtol=1e-6, atol=1e-6)
    else:
        assert bound[1] == -math.inf
    if alpha == 0.0:
        torch.testing.assert_close(-ppvae.IWAE(4).per_datum(particles), bound)


def test_renyi_close_to_one_keeps_its_digits_in_single_precision():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    exact = loss(ppvae.Renyi(1 - 1e-5, 50), model, guide, x)
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x, num_particles=50)
    particles.__dict__["log_weight"] = particles.log_weight.float()
    torch.testing.assert_close(ppvae.Renyi(1 - 1e-5, 50).per_datum(particles).double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [1, 1.0, float("nan")])
def test_renyi_refuses_the_order_of_the_elbo(alpha):
    with pytest.raises(ValueError, match=r"alpha other than 1.*ELBO"):
        ppvae.Renyi(alpha)


def test_normalised_weights_of_a_datum_add_up_to_one():
    log_weight = torch.randn(3, 5, 4, requires_grad=True)
    share = normalised(log_weight)
    torch.testing.assert_close(share.sum((0, 1)), torch.ones(4))
    assert not share.requires_grad

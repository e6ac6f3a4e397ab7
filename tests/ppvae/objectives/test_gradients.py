"""Gradient estimators: the right mean, or the stated bias."""

import math

import numpy as np
import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import LinearGaussian
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.nn import MLP
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.objectives.estimates import Rows, assert_same_mean, gradient, gradients, loss, per_row, rows
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact


def exact_elbo_gradient(model, guide, x):
    """By the closed form of E_q [log p(x | z)] in a linear-Gaussian model."""
    scale = guide.log_scale.exp()
    residual = (x - guide.loc @ model.weight.T - model.bias).square().sum(-1)
    spread = (scale.square() @ model.weight.square().T).sum(-1)
    likelihood = -(residual + spread) / (2 * (2 * model.log_scale).exp())
    kl = 0.5 * (guide.loc.square() + scale.square() - 1 - 2 * guide.log_scale).sum(-1)
    return torch.cat(torch.autograd.grad((kl - likelihood).sum(), [guide.loc, guide.log_scale]), -1)


@pytest.mark.parametrize(
    "objective", [ppvae.ELBO(), ppvae.ELBO(2, analytic_kl=False), ppvae.StickingTheLanding(2), ppvae.DReG(1)]
)
def test_the_elbos_gradient_against_the_closed_form(objective):
    model, guide, x = rows()
    sample = per_row(objective, model, guide, x)
    exact = exact_elbo_gradient(model, guide, x)[0]
    assert ((sample.mean(0) - exact).abs() < 4 * sample.std(0) / len(x) ** 0.5).all()
    assert sample.std(0).min() > 0


@pytest.mark.parametrize("k", [2, 16])
def test_dreg_has_the_mean_of_iwaes_gradient_and_less_noise(k):
    model, guide, x = rows(20_000)
    iwae, dreg = per_row(ppvae.IWAE(k), model, guide, x), per_row(ppvae.DReG(k), model, guide, x)
    assert_same_mean(iwae, dreg, deviations=4)
    assert (dreg.var(0) < iwae.var(0)).all()


@pytest.mark.parametrize("pair", ["label_style", "label", "user"])
def test_dreg_has_the_mean_of_iwaes_gradient_with_classes_and_with_two_latents(pair):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    assert_same_mean(*(gradients(objective, model, guide, x, y) for objective in (ppvae.IWAE(3), ppvae.DReG(3))))


@pytest.mark.parametrize("pair", ["label_style", "user"])
def test_sticking_the_landing_has_the_mean_of_the_elbos_gradient(pair):
    model, guide, x = PAIRS[pair].make()
    y = LABELS if PAIRS[pair].labelled else None
    plain = gradients(ppvae.ELBO(analytic_kl=False), model, guide, x, y)
    assert_same_mean(plain, gradients(ppvae.StickingTheLanding(), model, guide, x, y))


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        (ppvae.DReG(5), ppvae.IWAE(5)),
        (ppvae.ReweightedWakeSleep(5), ppvae.IWAE(5)),
        (ppvae.ReweightedWakeSleep(5, insomnia=0.5), ppvae.IWAE(5)),
        (ppvae.Renyi(0.0, 5), ppvae.IWAE(5)),
        (ppvae.StickingTheLanding(5), ppvae.ELBO(5, analytic_kl=False)),
    ],
)
@pytest.mark.parametrize("pair", ["label_style", "label", "user", "gaussian_vae", "mixture"])
def test_value_and_model_gradient_are_those_of_the_bound(pair, ours, same):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    torch.testing.assert_close(loss(ours, model, guide, x, y), loss(same, model, guide, x, y))
    torch.testing.assert_close(
        gradient(ours, model, guide, x, y, of=model), gradient(same, model, guide, x, y, of=model)
    )


def test_the_wake_update_follows_the_posterior_and_its_bias_falls_with_k():
    model, guide, x = rows(2000)
    posterior = model.posterior(x)
    q = dist.Normal(guide.loc, guide.log_scale.exp())
    # - E_p [d log q / d phi], the gradient of the forward KL, in closed form
    shift = (posterior.mean - guide.loc) / q.scale.square()
    square = (posterior.variance + (posterior.mean - guide.loc).square()) / q.scale.square()
    exact = torch.cat([-shift, 1 - square], -1).detach()[0]
    distance = []
    for k in (2, 20, 400):
        sample = per_row(ppvae.ReweightedWakeSleep(k), model, guide, x)
        distance.append((sample.mean(0) - exact).abs().max())
    error = sample.std(0) / len(x) ** 0.5
    assert distance[0] > distance[1] > distance[2]
    assert distance[0] > 0.2
    assert ((sample.mean(0) - exact).abs() < 4 * error + 0.02).all()


def test_the_sleep_update_is_silent_on_average_at_the_exact_posterior():
    model, _ = linear_gaussian()
    guide = nearly_exact(model, widen=1.0)  # the exact mean; the marginal scales, which minimise the forward KL
    x = torch.zeros(3000, 5).double()
    with torch.no_grad():  # the best diagonal q in forward KL has the posterior's marginals
        posterior = model.posterior(x[:1])
    torch.testing.assert_close(guide.encoder(x[:1])[..., 2:].exp(), posterior.stddev)
    sample = gradients(ppvae.ForwardKL(), model, guide, x, repeats=60)
    assert (sample.mean(0).abs() < 4 * sample.std(0) / 60**0.5).all()
    entropy = torch.distributions.Normal(0.0, posterior.stddev).entropy().sum()
    cross = loss(ppvae.ForwardKL(), model, guide, x)
    assert (cross.mean() - entropy).abs() < 4 * cross.std() / len(x) ** 0.5


def test_every_estimators_bound_is_the_evidence_at_the_exact_posterior():
    model, x = linear_gaussian()
    for objective in (ppvae.StickingTheLanding(3), ppvae.DReG(3), ppvae.Renyi(-1.0, 3), ppvae.ReweightedWakeSleep(3)):
        torch.testing.assert_close(-loss(objective, model, Exact(model), x), model.log_evidence(x))


def test_renyi_falls_with_alpha_between_its_limits():
    model, guide, x = PAIRS["linear_gaussian"].make()
    alphas = [-float("inf"), -50.0, -1.0, 0.0, 0.5, 2.0, 50.0, float("inf")]
    bounds = torch.stack([-loss(ppvae.Renyi(alpha, 6), model, guide, x) for alpha in alphas])
    assert (bounds.diff(dim=0) < 0).all()
    torch.manual_seed(0)
    log_weight = ppvae.draw(model, guide, x, num_particles=6).log_weight
    torch.testing.assert_close(bounds[0], log_weight.amax(0))
    torch.testing.assert_close(bounds[-1], log_weight.amin(0))
    model, x = linear_gaussian()
    near_one = loss(ppvae.Renyi(1 - 1e-6, 6), model, nearly_exact(model), x)
    elbo = loss(ppvae.ELBO(6, analytic_kl=False), model, nearly_exact(model), x)
    torch.testing.assert_close(near_one, elbo, rtol=0, atol=1e-5)


def test_renyi_close_to_one_keeps_its_digits_in_single_precision():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    exact = loss(ppvae.Renyi(1 - 1e-5, 50), model, guide, x)
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x, num_particles=50)
    particles.__dict__["log_weight"] = particles.log_weight.float()
    torch.testing.assert_close(ppvae.Renyi(1 - 1e-5, 50).per_datum(particles).double(), exact, rtol=0, atol=1e-5)


def test_scoring_again_sees_the_same_noise_and_moves_no_statistics():
    torch.manual_seed(0)
    encoder = nn.Sequential(MLP(5, [8], 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    model, x = linear_gaussian()
    guide = MeanFieldGaussian(encoder).double()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    assert guide.encoder[1].num_batches_tracked == 1
    state = torch.get_rng_state()
    for sites in (particles.frozen_guide(), particles.detached_guide()):
        torch.testing.assert_close(sites["z"].log_prob, particles.guide["z"].log_prob)
    assert guide.encoder[1].num_batches_tracked == 1
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad for p in guide.parameters())


def one_latent(repeats=40_000):
    """One datum many times, with one latent, where integrals over draws are sums over Gauss-Hermite nodes."""
    model = LinearGaussian(torch.tensor([[1.2], [-0.4]]), torch.tensor([0.3, 0.1]), 0.8).double()
    x = torch.tensor([[1.0, -0.5]]).double()
    posterior = model.posterior(x)
    loc, scale = (posterior.mean + 0.3).detach(), (posterior.stddev * 1.4).detach()
    return model, Rows(loc.expand(repeats, -1), scale.expand(repeats, -1)), x.expand(repeats, -1)


def quadrature(model, guide, x):
    """log w at the nodes of z = loc + scale e, e ~ N(0, 1), of the first row, and the nodes' log masses."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(60)
    nodes, log_mass = torch.from_numpy(nodes), torch.from_numpy(mass / (2 * np.pi) ** 0.5).log()
    loc, log_scale = guide.loc[0], guide.log_scale[0]
    z = loc + log_scale.exp() * nodes.unsqueeze(-1)
    joint = dist.Normal(z @ model.weight.T + model.bias, model.log_scale.exp()).log_prob(x[0]).sum(-1)
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    return joint + prior - dist.Normal(loc, log_scale.exp()).log_prob(z).sum(-1), log_mass


def bound_of_two(model, guide, x, alpha):
    """E 1/(1 - alpha) log 1/2 (w_1^(1 - alpha) + w_2^(1 - alpha))."""
    log_weight, log_mass = quadrature(model, guide, x)
    powers = (1 - alpha) * log_weight
    bound = (torch.logaddexp(powers, powers.unsqueeze(-1)) - math.log(2)) / (1 - alpha)
    return (bound * (log_mass + log_mass.unsqueeze(-1)).exp()).sum()


ABOUT_TWO = [(ppvae.IWAE(2), 0.0), (ppvae.DReG(2), 0.0), (ppvae.Renyi(0.5, 2), 0.5), (ppvae.Renyi(-1.0, 2), -1.0)]


@pytest.mark.parametrize(("objective", "alpha"), ABOUT_TWO, ids=lambda o: type(o).__name__)
def test_the_gradient_of_a_bound_of_two_particles_against_quadrature(objective, alpha):
    model, guide, x = one_latent()
    exact = torch.autograd.grad(-bound_of_two(model, guide, x, alpha), [guide.loc, guide.log_scale])
    sample = per_row(objective, model, guide, x)
    error = sample.std(0) / len(x) ** 0.5
    assert ((sample.mean(0) - torch.cat(exact, -1)[0]).abs() < 4 * error).all()
    assert sample.mean(0).abs().max() > 8 * error.max()  # there is something to agree with


@pytest.mark.parametrize("objective", [ppvae.IWAE(2), ppvae.DReG(2), ppvae.ReweightedWakeSleep(2)])
def test_the_models_gradient_of_a_bound_of_two_particles_against_quadrature(objective):
    model, guide, x = one_latent(200)
    parameters = list(model.parameters())
    exact = torch.autograd.grad(-bound_of_two(model, guide, x, 0.0), parameters)
    exact = torch.cat([g.flatten() for g in exact])
    sample = gradients(objective, model, guide, x, of=model, repeats=50) / len(x)
    assert ((sample.mean(0) - exact).abs() < 4.5 * sample.std(0) / 50**0.5).all()


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.5])
def test_the_value_of_two_particles_is_biased_for_renyis_bound_and_less_so_with_more(alpha):
    """Its mean is that of its own two particles; the bound of infinitely many lies away from it."""
    model, guide, x = one_latent()
    log_weight, log_mass = quadrature(model, guide, x)
    limit = ((1 - alpha) * log_weight + log_mass).logsumexp(0) / (1 - alpha)
    two = -loss(ppvae.Renyi(alpha, 2), model, guide, x)
    error = two.std() / len(x) ** 0.5
    assert (two.mean() - bound_of_two(model, guide, x, alpha)).abs() < 4 * error
    assert (two.mean() - limit).abs() > 10 * error
    many = -loss(ppvae.Renyi(alpha, 20), model, guide, x)
    assert (many.mean() - limit).abs() < 0.5 * (two.mean() - limit).abs()


def test_the_sleep_updates_gradient_against_the_closed_form():
    """E[-log q(z | x)] of a linear guide with mean A x + c and fixed scales, x = W z + b + s e."""
    model, _ = linear_gaussian()
    guide = nearly_exact(model, widen=1.3)
    (layer,) = guide.encoder.layers
    with torch.no_grad():
        layer.bias[:2] += 0.3
    weight, bias = layer.weight, layer.bias
    residual = torch.eye(2).double() - weight[:2] @ model.weight
    noise = (2 * model.log_scale).exp() * weight[:2].square().sum(-1)
    square = residual.square().sum(-1) + noise + (weight[:2] @ model.bias + bias[:2]).square()
    cross_entropy = (bias[2:] + 0.5 * square / (2 * bias[2:]).exp()).sum()
    exact_weight, exact_bias = torch.autograd.grad(cross_entropy, [weight, bias])
    x = torch.zeros(1000, 5).double()
    sample = gradients(ppvae.ForwardKL(), model, guide, x, repeats=60) / len(x)
    for found, exact in ((sample[:, :10], exact_weight[:2].flatten()), (sample[:, 20:], exact_bias)):
        assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 60**0.5).all()
    assert (exact_bias[:2].abs() > 0.1).all()

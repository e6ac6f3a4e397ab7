"""Gradients of importance-weighted bounds, against quadrature and each other."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.contract import Guide
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.objectives.estimates import (
    assert_same_mean,
    gradient,
    gradients,
    loss,
    one_latent,
    per_row,
    plain_functions,
    rows,
)
from tests.ppvae.oracles import linear_gaussian

# quadrature: one latent


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


OF_TWO = [(ppvae.IWAE(2), 0.0), (ppvae.DReG(2), 0.0), (ppvae.Renyi(0.5, 2), 0.5), (ppvae.Renyi(-1.0, 2), -1.0)]


@pytest.mark.parametrize(("objective", "alpha"), OF_TWO, ids=lambda o: type(o).__name__)
def test_guide_gradient_of_two_particles_is_that_of_quadrature(objective, alpha):
    model, guide, x = one_latent()
    exact = torch.autograd.grad(-bound_of_two(model, guide, x, alpha), [guide.loc, guide.log_scale])
    sample = per_row(objective, model, guide, x)
    error = sample.std(0) / len(x) ** 0.5
    assert ((sample.mean(0) - torch.cat(exact, -1)[0]).abs() < 4 * error).all()
    assert sample.mean(0).abs().max() > 8 * error.max()  # there is something to agree with


@pytest.mark.parametrize("objective", [ppvae.IWAE(2), ppvae.DReG(2), ppvae.ReweightedWakeSleep(2)])
def test_model_gradient_of_two_particles_is_that_of_quadrature(objective):
    model, guide, x = one_latent(200)
    parameters = list(model.parameters())
    exact = torch.autograd.grad(-bound_of_two(model, guide, x, 0.0), parameters)
    exact = torch.cat([g.flatten() for g in exact])
    sample = gradients(objective, model, guide, x, of=model, repeats=50) / len(x)
    assert ((sample.mean(0) - exact).abs() < 4.5 * sample.std(0) / 50**0.5).all()


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.5])
def test_renyi_of_finitely_many_particles_is_biased_and_less_so_with_more(alpha):
    """Its mean is the bound of two particles, which differs from the bound of infinitely many."""
    model, guide, x = one_latent()
    log_weight, log_mass = quadrature(model, guide, x)
    limit = ((1 - alpha) * log_weight + log_mass).logsumexp(0) / (1 - alpha)
    two = -loss(ppvae.Renyi(alpha, 2), model, guide, x)
    error = two.std() / len(x) ** 0.5
    assert (two.mean() - bound_of_two(model, guide, x, alpha)).abs() < 4 * error
    assert (two.mean() - limit).abs() > 10 * error
    many = -loss(ppvae.Renyi(alpha, 20), model, guide, x)
    assert (many.mean() - limit).abs() < 0.5 * (two.mean() - limit).abs()


# DReG


@pytest.mark.parametrize("k", [2, 16])
def test_dreg_has_the_mean_gradient_of_iwae_and_less_noise(k):
    model, guide, x = rows(20_000)
    iwae, dreg = per_row(ppvae.IWAE(k), model, guide, x), per_row(ppvae.DReG(k), model, guide, x)
    assert_same_mean(iwae, dreg, deviations=4)
    assert (dreg.var(0) < iwae.var(0)).all()


@pytest.mark.parametrize("pair", ["label_style", "label", "user"])
def test_dreg_has_the_mean_gradient_of_iwae_with_classes_and_with_two_latents(pair):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    assert_same_mean(*(gradients(objective, model, guide, x, y) for objective in (ppvae.IWAE(3), ppvae.DReG(3))))


@pytest.mark.parametrize("ours", [ppvae.DReG(5), ppvae.Renyi(0.0, 5)], ids=["dreg", "renyi"])
@pytest.mark.parametrize("pair", ["label_style", "label", "user", "gaussian_vae", "mixture"])
def test_value_and_model_gradient_are_those_of_iwae(pair, ours):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    torch.testing.assert_close(loss(ours, model, guide, x, y), loss(ppvae.IWAE(5), model, guide, x, y))
    torch.testing.assert_close(
        gradient(ours, model, guide, x, y, of=model), gradient(ppvae.IWAE(5), model, guide, x, y, of=model)
    )


@pytest.mark.parametrize("objective", [ppvae.StickingTheLanding(3), ppvae.DReG(3)])
def test_gradient_without_the_score_vanishes_at_the_exact_posterior(objective):
    model, guide, x = rows(500)
    with torch.no_grad():  # orthogonal loadings, so that the posterior is diagonal
        model.weight.copy_(torch.linalg.qr(model.weight)[0])
        posterior = model.posterior(x)
        guide.loc.copy_(posterior.mean)
        guide.log_scale.copy_(posterior.stddev.log())
    assert per_row(objective, model, guide, x).abs().max() < 1e-9


class NoisyReader(ppvae.objectives.Penalty):
    """A term that declares nothing: it reads the model, and so the path from the model to the guide's draws."""

    label = "squared_error"

    def penalty(self, particles):
        x, mean = particles.batch.x, particles.model["x"].distribution.mean
        return 0.3 * (x - mean).square().flatten(2).sum(-1).mean(0)


class PriorReader(ppvae.objectives.Penalty):
    """Another one: it reads the prior's density at the draws, and a weight."""

    label = "prior"

    def penalty(self, particles):
        return -particles.model["z"].log_prob.mean(0) - 0.1 * particles.log_weight.mean(0)


UNDECLARED = {
    "squared error": NoisyReader(),
    "prior": PriorReader(),
    "moments": ppvae.DIPPenalty(1.0, 1.0, of_draws=True),
    "stein": ppvae.SteinDiscrepancy(1.0),
}


@pytest.mark.parametrize("term", UNDECLARED)
@pytest.mark.parametrize(
    "objective", [ppvae.DReG(3), ppvae.ReweightedWakeSleep(3), ppvae.IWAE(3)], ids=["dreg", "wake-sleep", "iwae"]
)
def test_term_keeps_its_whole_gradient_next_to_an_estimator_with_one_of_its_own(objective, term):
    """DReG and wake-sleep scale or stop the path of their own replay alone, whatever a term reads or declares."""
    model, guide, x = rows(50)
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x, num_particles=3)
    penalty = UNDECLARED[term].penalty(particles).expand(len(x)).sum()
    alone = torch.autograd.grad(penalty, [*guide.parameters(), *model.parameters()], allow_unused=True)
    torch.manual_seed(0)
    own = objective.differentiable_loss(model, guide, x)
    bound = torch.autograd.grad(own, [*guide.parameters(), *model.parameters()])
    torch.manual_seed(0)
    both = (objective + UNDECLARED[term]).differentiable_loss(model, guide, x)
    for found, a, b in zip(
        torch.autograd.grad(both, [*guide.parameters(), *model.parameters()]), alone, bound, strict=True
    ):
        torch.testing.assert_close(found, b if a is None else a + b)
    assert any(g is not None and g.abs().max() > 1e-3 for g in alone[: len(list(guide.parameters()))])


def test_dreg_gradient_can_be_taken_together_with_another_of_the_same_particles():
    model, guide, x = rows(50)
    parameters = [*guide.parameters()]
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x, num_particles=3)
    losses = [objective.per_datum(particles).sum() for objective in (ppvae.IWAE(3), ppvae.DReG(3))]
    apart = [torch.autograd.grad(each, parameters, retain_graph=True) for each in losses]
    together = torch.autograd.grad(sum(losses), parameters)
    for found, one, other in zip(together, *apart, strict=True):
        torch.testing.assert_close(found, one + other)
        assert not torch.allclose(one, other)


def test_dreg_refuses_latents_drawn_for_different_enumerated_sites():
    class Mixed(Guide):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 4)

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(len(x), 3)))
                loc = self.net(x)
                pyro.sample("a", dist.Normal(loc[..., 0], 1.0))
                pyro.sample("b", dist.Normal(loc[..., 1] + y, 1.0))

    class Both(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(3)), obs=y)
                a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
                b = pyro.sample("b", dist.Normal(x.new_zeros(()), 1.0))
                pyro.sample("x", dist.Normal((a + b + y).unsqueeze(-1), x.new_ones(5)).to_event(1), obs=x)

    _, x = linear_gaussian()
    with pytest.raises(ppvae.ContractError, match="all drawn for the same enumerated sites"):
        ppvae.DReG(2).differentiable_loss(Both(), Mixed().double(), x)


@pytest.mark.parametrize("hidden", [False, True])
def test_dreg_refuses_a_guide_that_cannot_score(hidden):
    model, guide, x = PAIRS["flow_planar"].make()
    guide.can_score = hidden
    with pytest.raises(ppvae.ContractError, match=r"can score values.*without an inverse"):
        ppvae.DReG(2).differentiable_loss(model, guide, x)
    ppvae.IWAE(2).differentiable_loss(model, guide, x).backward()


def test_dreg_refuses_a_guide_that_is_a_function_and_iwae_takes_it():
    pyro.clear_param_store()
    model, guide, *modules = plain_functions()
    x = torch.randn(4, 5).double()
    with pytest.raises(ppvae.ContractError, match=r"guide to be a PyroModule.*got a function; make it a class"):
        pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ppvae.DReG(2)).step(x)
    before = [p.detach().clone() for module in modules for p in module.parameters()]
    pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ppvae.IWAE(2)).step(x)
    after = [p for module in modules for p in module.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))

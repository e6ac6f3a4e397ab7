"""The evidence lower bound: against Pyro where Pyro is right, against closed forms, and its lower-variance gradient."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions.testing import fakes
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

import ppvae
from ppvae.engine.contract import Guide
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.objectives.estimates import (
    assert_same_mean,
    distortion_and_rate,
    gradient,
    gradients,
    loss,
    particles_of,
    per_row,
    plain_functions,
    rows,
)
from tests.ppvae.oracles import Exact, linear_gaussian

VECTORISED = {"num_particles": 4, "vectorize_particles": True, "max_plate_nesting": 1}
STOCK = {
    "sampled": (lambda: ppvae.ELBO(analytic_kl=False), lambda: Trace_ELBO(max_plate_nesting=1)),
    "sampled, 4 particles": (lambda: ppvae.ELBO(4, analytic_kl=False), lambda: Trace_ELBO(**VECTORISED)),
    "analytic": (ppvae.ELBO, lambda: TraceMeanField_ELBO(max_plate_nesting=1)),
    "analytic, 4 particles": (lambda: ppvae.ELBO(4), lambda: TraceMeanField_ELBO(**VECTORISED)),
}


def loss_and_gradients(objective, pair, y=None):
    pyro.clear_param_store()
    model, guide, x = PAIRS[pair].make()
    model.eval()
    guide.eval()
    torch.manual_seed(3)
    args = (x,) if y is None else (x, y)
    value = objective.loss_and_grads(model, guide, *args)
    return value, {name: p.grad for name, p in [*model.named_parameters(), *guide.named_parameters()]}


def assert_same(ours, stock):
    assert ours[0] == pytest.approx(stock[0], rel=1e-10)
    for name, theirs in stock[1].items():
        if theirs is not None:
            torch.testing.assert_close(ours[1][name], theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("pair", ["gaussian_vae", "convolutional", "learned_noise", "linear_gaussian"])
@pytest.mark.parametrize("kind", STOCK)
def test_elbo_has_the_loss_and_gradient_of_pyros(kind, pair):
    ours, stock = (make() for make in STOCK[kind])
    assert_same(loss_and_gradients(ours, pair), loss_and_gradients(stock, pair))


@pytest.mark.parametrize("pair", ["label", "label_style", "mixture"])
def test_elbo_with_enumerated_sites_has_the_loss_and_gradient_of_pyros(pair):
    ours = loss_and_gradients(ppvae.ELBO(analytic_kl=False), pair)
    assert_same(ours, loss_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), pair))


@pytest.mark.parametrize("pair", ["label", "label_style"])
def test_elbo_with_every_label_known_has_the_loss_and_gradient_of_pyros(pair):
    y = LABELS.clamp(min=0)
    ours = loss_and_gradients(ppvae.ELBO(analytic_kl=False), pair, y)
    assert_same(ours, loss_and_gradients(Trace_ELBO(max_plate_nesting=1), pair, y))


@pytest.mark.parametrize("pair", ["gaussian_vae", "bottom_up", "label", "user", "mixture"])
def test_elbo_parts_are_the_distortion_and_the_rate_of_each_latent(pair):
    particles = particles_of(pair)
    parts = ppvae.ELBO(2).parts(particles)
    distortion, rate = distortion_and_rate(particles)
    assert parts.keys() == {"distortion", *(f"rate/{name}" for name in particles.guide)}
    torch.testing.assert_close(parts.pop("distortion"), distortion)
    torch.testing.assert_close(sum(parts.values()), rate)


def test_elbo_of_a_known_label_has_no_rate_for_it():
    particles = particles_of("label", y=LABELS.clamp(min=0))
    assert ppvae.ELBO().parts(particles).keys() == {"distortion", "rate/z"}


@pytest.mark.parametrize(
    ("objective", "tolerance"),
    [
        (ppvae.ELBO(200_000), 0.03),  # a KL in closed form leaves the noise of the reconstruction
        (ppvae.ELBO(5, analytic_kl=False), 1e-6),
        (ppvae.StickingTheLanding(3), 1e-6),
    ],
)
def test_elbo_is_the_evidence_at_the_exact_posterior(objective, tolerance):
    model, x = linear_gaussian()
    bound = -loss(objective, model, Exact(model), x)
    torch.testing.assert_close(bound, model.log_evidence(x), rtol=0, atol=tolerance)


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
def test_elbo_gradient_is_that_of_the_closed_form(objective):
    model, guide, x = rows()
    sample = per_row(objective, model, guide, x)
    exact = exact_elbo_gradient(model, guide, x)[0]
    assert ((sample.mean(0) - exact).abs() < 4 * sample.std(0) / len(x) ** 0.5).all()
    assert sample.std(0).min() > 0


@pytest.mark.parametrize("pair", ["label_style", "user"])
def test_sticking_the_landing_has_the_mean_gradient_of_the_elbo(pair):
    model, guide, x = PAIRS[pair].make()
    y = LABELS if PAIRS[pair].labelled else None
    plain = gradients(ppvae.ELBO(analytic_kl=False), model, guide, x, y)
    assert_same_mean(plain, gradients(ppvae.StickingTheLanding(), model, guide, x, y))


@pytest.mark.parametrize("pair", ["label_style", "label", "user", "gaussian_vae", "mixture", "bottom_up"])
def test_sticking_the_landing_has_the_value_and_the_model_gradient_of_the_elbo(pair):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    ours, same = ppvae.StickingTheLanding(5), ppvae.ELBO(5, analytic_kl=False)
    torch.testing.assert_close(loss(ours, model, guide, x, y), loss(same, model, guide, x, y))
    torch.testing.assert_close(
        gradient(ours, model, guide, x, y, of=model), gradient(same, model, guide, x, y, of=model)
    )


def test_sticking_the_landing_parts_are_those_of_the_sampled_elbo():
    particles = particles_of("bottom_up")
    ours = ppvae.StickingTheLanding(2).parts(particles)
    theirs = ppvae.ELBO(2, analytic_kl=False).parts(particles)
    assert ours.keys() == theirs.keys()
    for name, part in theirs.items():
        torch.testing.assert_close(ours[name], part)


def test_reconstruction_is_the_distortion():
    particles = particles_of("bottom_up")
    torch.testing.assert_close(ppvae.Reconstruction().per_datum(particles), distortion_and_rate(particles)[0])


def test_sticking_the_landing_refuses_a_guide_that_cannot_score():
    model, guide, x = PAIRS["gaussian_vae"].make()
    guide.can_score = False
    with pytest.raises(ppvae.ContractError, match=r"can score.*MeanFieldGaussian.*use a guide with can_score"):
        ppvae.StickingTheLanding().differentiable_loss(model, guide, x)
    ppvae.ELBO().differentiable_loss(model, guide, x).backward()


def test_sticking_the_landing_refuses_a_guide_that_is_a_function():
    """It holds the guide's parameters fixed, which a plain function does not tell; the ELBO takes one."""
    pyro.clear_param_store()
    model, guide, decoder, encoder = plain_functions()
    x = torch.randn(4, 5).double()
    with pytest.raises(ppvae.ContractError, match=r"guide to be a PyroModule.*got a function; make it a class"):
        pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ppvae.StickingTheLanding()).step(x)
    before = [p.detach().clone() for p in (*decoder.parameters(), *encoder.parameters())]
    pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ppvae.ELBO()).step(x)
    after = [*decoder.parameters(), *encoder.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


class ScoreFunction(Guide):
    """Draws that pass no gradient on."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 2)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fakes.NonreparameterizedNormal(self.net(x), 1.0).to_event(1))


@pytest.mark.parametrize(
    "objective",
    [ppvae.ELBO(), ppvae.Reconstruction(), ppvae.IWAE(2), ppvae.DReG(2) + ppvae.ClassifierLoss(1.0)],
    ids=["elbo", "reconstruction", "iwae", "dreg and a term"],
)
@pytest.mark.filterwarnings("ignore:.*requires_grad=False")
def test_objective_refuses_draws_without_a_gradient_where_the_guide_learns_by_them(objective):
    model, x = linear_gaussian()
    guide = ScoreFunction().double()
    with pytest.raises(ppvae.ContractError, match=r"rsample.*'z'.*ReweightedWakeSleep"):
        objective.differentiable_loss(model, guide, x)
    guide.requires_grad_(False)
    assert torch.isfinite(objective.differentiable_loss(model, guide, x))


def test_objective_takes_draws_without_a_gradient_where_the_guide_learns_otherwise():
    model, x = linear_gaussian()
    guide = ScoreFunction().double()
    assert gradient(ppvae.ReweightedWakeSleep(5), model, guide, x).abs().max() > 0
    assert gradient(ppvae.ForwardKL(), model, guide, x).abs().max() > 0


def test_elbo_of_a_mask_counts_the_rows_of_the_mask():
    """Half of the data are masked out of every density."""

    class Masked(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)), pyro.poutine.mask(mask=torch.arange(len(x)) < 3):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    class MaskedGuide(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)), pyro.poutine.mask(mask=torch.arange(len(x)) < 3):
                pyro.sample("z", dist.Normal(0.3 * x, 0.5))

    losses = loss(ppvae.ELBO(), Masked(), MaskedGuide(), torch.linspace(-2, 2, 6).double())
    assert (losses[:3] > 0).all()
    assert (losses[3:] == 0).all()

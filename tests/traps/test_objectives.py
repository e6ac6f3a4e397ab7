"""Bounds, wake-sleep, and training steps that wait for the device."""

import warnings

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.nn import PyroModule

import ppvae
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import loss, per_row, rows
from tests.ppvae.oracles import Exact, Walk, WalkBack, gaussian_mixture, linear_gaussian, nearly_exact
from tests.traps.stock import VECTORISED, raises, stock


def test_stock_renyi_with_a_subsampled_plate_exceeds_the_evidence():
    model, _ = linear_gaussian()
    guide, x = nearly_exact(model), torch.randn(40, 5).double()

    def subsampling_model(index):
        with pyro.plate("data", 40, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            mean = z @ model.weight.T + model.bias
            pyro.sample("x", dist.Normal(mean, model.log_scale.exp()).to_event(1), obs=x[index])

    def subsampling_guide(index):
        with pyro.plate("data", 40, subsample=index):
            pyro.sample("z", guide.distribution(guide.encoder(x[index])))

    evidence, batches = model.log_evidence(x).sum(), torch.arange(40).split(10)
    estimator = RenyiELBO(alpha=0, num_particles=50, **VECTORISED)
    theirs = torch.tensor(
        [-estimator.loss(subsampling_model, subsampling_guide, index) for _ in range(10) for index in batches]
    )
    ours = torch.tensor([-4 * ppvae.IWAE(50).loss(model, guide, x[index]) for _ in range(10) for index in batches])
    # Each mean is over whole passes over the data, so that the spread is that of the draws alone.
    theirs, ours = theirs.reshape(10, 4).mean(1), ours.reshape(10, 4).mean(1)
    stock(theirs.mean() > evidence + 4 * theirs.std() / 10**0.5, "the scale is inside the logarithm")
    assert ours.mean() < evidence + 4 * ours.std() / 10**0.5
    assert ours.mean() > evidence - 1.0  # 50 particles of a guide that is nearly exact


def test_subsampled_plate_is_refused():
    model, _, x = PAIRS["linear_gaussian"].make()

    class Scaled(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", 2 * len(x), subsample=torch.arange(len(x))):
                pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    with pytest.raises(ppvae.ContractError, match=r"one plate|without a scale"):
        ppvae.check_pair(model, Scaled(), x)


class SampledCategorical(PyroModule):
    def __init__(self):
        super().__init__(name="sampled_categorical")
        self.network = MLP(5, [], 4).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=self.network(x)))


def test_stock_renyi_does_not_enumerate_a_discrete_site_and_gives_its_guide_no_gradient():
    model, x = gaussian_mixture()
    guide = SampledCategorical()
    estimator, evidence = RenyiELBO(alpha=0, num_particles=3, **VECTORISED), model.log_evidence(x)
    estimator.loss_and_grads(model, guide, x)
    stock(all((p.grad == 0).all() for p in guide.parameters()), "no gradient at a discrete site of the guide")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        enumerated = RenyiELBO(alpha=0, num_particles=3).loss(model, config_enumerate(guide), x)
    stock(abs(enumerated + evidence.sum()) > 1, "an enumerated site is not summed")
    # Here the site is summed: the bound is the evidence, and so is its gradient, whatever the guide.
    torch.testing.assert_close(-loss(ppvae.IWAE(3), model, guide, x), evidence)
    for alpha in (-2.0, 0.0, 3.0):
        torch.testing.assert_close(-loss(ppvae.Renyi(alpha, 3), model, Exact(model), x), evidence)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(-ppvae.IWAE(3).differentiable_loss(model, guide, x), parameters)
    exact = torch.autograd.grad(model.log_evidence(x).sum(), parameters)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b)
    mixed_model, mixed_guide, images = PAIRS["label_style"].make()
    ppvae.Renyi(0.5, 3).differentiable_loss(mixed_model, mixed_guide, images).backward()
    assert all(p.grad.abs().max() > 0 for p in mixed_guide.encoder.parameters())


@pytest.mark.parametrize("estimator", [RenyiELBO(alpha=0, num_particles=2), ReweightedWakeSleep()])
def test_stock_multi_sample_estimators_have_no_differentiable_loss(estimator):
    model, guide, x = PAIRS["linear_gaussian"].make()
    stock(raises(AttributeError, lambda: estimator(model, guide)(x)), "no differentiable_loss")
    ours = ppvae.IWAE(2) if isinstance(estimator, RenyiELBO) else ppvae.ReweightedWakeSleep(2)
    ours(model, guide)(x).backward()
    assert all(p.grad.abs().max() > 0 for p in guide.parameters())


def test_stock_wake_sleep_has_one_weight_for_the_whole_batch():
    model, x = linear_gaussian()
    guide = PAIRS["linear_gaussian"].guide().double()
    whole = ppvae.ReweightedWakeSleep(50)
    values = loss(whole, model, guide, x.repeat(500, 1)).reshape(500, 4)
    error = values.std(0) / 500**0.5
    single = torch.cat([loss(whole, model, guide, x[i : i + 1].repeat(500, 1)).mean()[None] for i in range(4)])
    assert ((values.mean(0) - single).abs() < 6 * error).all()
    estimator = ReweightedWakeSleep(num_particles=50, **VECTORISED)
    theirs = torch.stack([estimator.loss(model, guide, x)[0] for _ in range(50)])
    slack = 4 * (theirs.var() / 50 + error.square().sum()).sqrt()
    stock(theirs.mean() > values.mean(0).sum() + slack, "one weight for four data, a looser bound")
    assert (-values.mean(0) < model.log_evidence(x) + 4 * error).all()


def test_stock_wake_sleep_raises_a_key_error_for_a_flow_without_inverse():
    model, guide, x = PAIRS["flow_planar"].make()
    estimator = ReweightedWakeSleep(num_particles=3, max_plate_nesting=1)
    stock(raises(KeyError, lambda: estimator.loss(model, guide, x)), "KeyError from the transform's cache")
    with pytest.raises(ppvae.ContractError, match=r"expected a guide that can score.*got FlowGuide.*use a guide"):
        ppvae.ReweightedWakeSleep(3).loss(model, guide, x)


def test_stock_closed_form_kl_is_wrong_for_a_bottom_up_guide():
    x = torch.tensor([1.5, -2.0, 0.3]).double()
    evidence = dist.Normal(0.0, 3**0.5).log_prob(x)
    particles = ppvae.draw(Walk(), WalkBack(), x, num_particles=2000)
    kl = sum(particles.kl_integrand(name) for name in particles.guide)
    integrand = particles.log_likelihood - kl
    error = integrand.std(0) / 2000**0.5
    assert ((-ppvae.ELBO(2000).per_datum(particles) - evidence).abs() < 4 * error).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = -TraceMeanField_ELBO(num_particles=2000, **VECTORISED).loss(Walk(), WalkBack(), x)
    stock(abs(theirs - evidence.sum()) > 10 * error.sum(), "the prior of a site depends on a later draw")


def test_stock_elbo_gradient_is_noisy_at_the_exact_posterior():
    model, guide, x = rows(500)
    with torch.no_grad():  # orthogonal loadings, so that the posterior is diagonal
        model.weight.copy_(torch.linalg.qr(model.weight)[0])
        posterior = model.posterior(x)
        guide.loc.copy_(posterior.mean)
        guide.log_scale.copy_(posterior.stddev.log())
    variance = (2 * model.log_scale).exp()
    torch.testing.assert_close(posterior.covariance_matrix[0], (variance / (1 + variance)) * torch.eye(2).double())
    for objective in (ppvae.StickingTheLanding(3), ppvae.DReG(3)):
        assert per_row(objective, model, guide, x).abs().max() < 1e-9
    assert per_row(ppvae.ELBO(analytic_kl=False), model, guide, x).std() > 0.5  # the score is part of this gradient
    surrogate = Trace_ELBO().differentiable_loss(model, guide, x)
    theirs = torch.autograd.grad(surrogate, guide.log_scale)[0]
    stock(theirs.std() > 0.5, "the score of q stays in the gradient")


def test_stock_elbo_reads_a_number_from_the_device():
    model, guide, x = (part.to("meta") for part in PAIRS["gaussian_vae"].make())
    with pyro.validation_enabled(False):
        fails = raises(RuntimeError, lambda: Trace_ELBO().differentiable_loss(model, guide, x))
    stock(fails, ".item() within the loss")

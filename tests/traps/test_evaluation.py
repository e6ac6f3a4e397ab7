"""Diagnostics of weights, flows, and annealing."""

import copy
import warnings

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions import transforms
from pyro.infer.importance import psis_diagnostic, vectorized_importance_weights
from torch import nn
from torch.autograd.functional import jacobian

import ppvae
from ppvae.evaluation import Annealing
from ppvae.evaluation.likelihood import annealing
from ppvae.evaluation.likelihood.hmc import hmc_step
from ppvae.guides import FlowGuide, neural_spline, sylvester
from ppvae.nn import MLP
from ppvae.objectives.bounds.importance import normalised
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact
from tests.traps.stock import raises, stock


class UnitNormal(ppvae.Model):
    """z ~ N(0, 1), x ~ N(z, 1)."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Narrow(ppvae.Guide):
    """The posterior of :class:`UnitNormal`, too narrow by a factor f: k-hat is 1 - f^2 for each datum."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, self.factor * 0.5**0.5 * torch.ones_like(x)))


def test_stock_khat_is_one_number_for_the_batch_and_rejects_good_weights():
    model, guide, x = UnitNormal(), Narrow(0.8), torch.randn(120).double()
    theirs = psis_diagnostic(model, guide, x, num_particles=2000, max_plate_nesting=1)
    stock(isinstance(theirs, float) and theirs > 0.7, "one k-hat, of the product of all data's weights")
    ours = ppvae.log_marginal(model, guide, x, num_particles=2000)
    assert ours.khat.shape == x.shape
    assert ours.khat_bad < 0.05
    # One fit of a tail of about 130 weights has a standard deviation of .12; its prior pulls it towards .5.
    assert abs(ours.khat.mean().item() - (1 - 0.8**2)) < 0.1
    evidence = dist.Normal(0.0, 2**0.5).log_prob(x)
    assert ((ours.value - evidence).abs() < 4.5 * ours.standard_error).all()


def test_stock_normalised_weights_raise_a_type_error():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    options = {"num_samples": 5, "max_plate_nesting": 1, "normalized": True}
    fails = raises(TypeError, lambda: vectorized_importance_weights(model, guide, x, **options))
    stock(fails, "logsumexp without its dimension")
    share = normalised(ppvae.draw(model, guide, x, num_particles=5).log_weight)
    torch.testing.assert_close(share.sum(0), torch.ones(len(x)).double())
    exact = normalised(ppvae.draw(model, Exact(model), x, num_particles=5).log_weight)
    torch.testing.assert_close(exact, torch.full_like(exact, 0.2))


def log_determinants(step, z):
    """What the map says, and autodiff."""
    return step.log_abs_det_jacobian(z, step(z)), torch.linalg.slogdet(jacobian(step, z)).logabsdet


def drawn_anew(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.normal_()
    return module


def test_stock_sylvester_has_a_wrong_log_determinant_after_training():
    theirs, ours = [], []
    for z in torch.randn(10, 4).double():
        found, exact = log_determinants(drawn_anew(transforms.Sylvester(4, 1)), z)
        theirs.append((found - exact).abs())
        (step,) = sylvester(4, 3, steps=1, kind="householder", rank=1)
        ours.append(torch.stack(log_determinants(drawn_anew(step).condition(torch.randn(3).double()), z)))
    stock(max(theirs) > 0.1, "the log-determinant of another map")
    torch.testing.assert_close(*torch.stack(ours, 1), rtol=1e-8, atol=1e-8)


def test_splines_are_exact_in_single_precision_at_their_first_weights():
    """With weights several times as large float32 loses digits, up to nats, in scoring a value that it did not draw."""
    double, data = FlowGuide(MLP(5, [8], 2 * 4 + 3), neural_spline(4, 3), 4).double(), torch.randn(200, 5).double()
    for guide, x, digits in ((double, data, 1e-10), (copy.deepcopy(double).float(), data.float(), 1e-3)):
        q = guide.distribution(guide.encoder(x))
        z = q.rsample((3,))
        torch.testing.assert_close(q.log_prob(z.clone()), q.log_prob(z), rtol=0, atol=digits)


def test_step_sizes_of_a_scored_run_do_not_depend_on_its_chains(monkeypatch):
    model, x = linear_gaussian()
    temperatures, pilot = 7, 7 * annealing.PILOT_TRANSITIONS

    def sizes(reject: bool):
        seen = []

        def spy(log_density, u, step_size, *rest):
            moved, accepted = hmc_step(log_density, u, step_size, *rest)
            seen.append((step_size.clone(), accepted))
            if reject and len(seen) > pilot:
                return u, torch.zeros_like(accepted)
            return moved, accepted

        monkeypatch.setattr(annealing, "hmc_step", spy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ppvae.ais(model, x, annealing=Annealing(temperatures, chains=8, leapfrog_steps=3))
        return seen

    as_it_goes, all_rejected = sizes(False), sizes(True)
    assert len(as_it_goes) == pilot + temperatures - 1
    for (size, _), (other, _) in zip(as_it_goes, all_rejected, strict=True):
        assert torch.equal(size, other)
    assert any(not torch.equal(as_it_goes[0][0], size) for size, _ in as_it_goes)  # the pilot adapted them
    accepted = torch.stack([accepted for _, accepted in as_it_goes[pilot:]])
    assert (accepted.any(1) & ~accepted.all(1)).any()  # some chains of a datum move and others do not


def test_each_chain_accepts_separately():
    u = torch.randn(50, 3, 2).double()
    steps = torch.tensor([0.1, 1.2, 1e6]).double()
    after, accepted = hmc_step(lambda u: -0.5 * u.square().sum(-1), u, steps, 3)
    assert torch.equal((after != u).all(-1), accepted)
    assert torch.equal((after == u).all(-1), ~accepted)
    assert accepted[:, 0].double().mean() > 0.9
    assert not accepted[:, 2].any()
    assert 0 < accepted[:, 1].sum() < 50

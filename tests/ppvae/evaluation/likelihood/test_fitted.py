"""Posteriors to fit to, and the weights of proposals fitted to them: discrete latents, labels, supports, refusals."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import nn

import ppvae
from ppvae.distributions.gaussians import FullGaussian
from ppvae.engine.batch import as_batch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.isolation import frozen
from ppvae.engine.pair import Pair
from ppvae.evaluation.likelihood import fitted as module
from ppvae.evaluation.likelihood.fitted import fitted_log_weight, problems_of
from ppvae.evaluation.likelihood.proposals import FullRank, Laplace
from tests.catalogue import ALL_PAIRS, FLOWS, PAIRS, two_layer_evidence
from tests.ppvae.evaluation.likelihood.densities import HeavyTailed
from tests.ppvae.evaluation.likelihood.known import LabelStyle, OneStyle, classes, small_linear, two_layers
from tests.ppvae.evaluation.likelihood.more_known import bounded
from tests.ppvae.evaluation.likelihood.unfitted import SameSite


class Shifted:
    """The Laplace approximation, half a standard deviation off and widened: finite weights, and a poor fit."""

    def fit(self, log_joint, start):
        q = Laplace(newton=2, scale=1.0).fit(log_joint, start)
        return FullGaussian(q.at(torch.full_like(q.loc, 0.5)), 1.5 * q.scale_tril)


def log_weights(known, proposal, num_particles=50, chunk=1000):
    with evaluation(known.model, known.guide, known.batch) as (pair, batch), frozen(known.model):
        return fitted_log_weight(pair, batch, proposal, num_particles, chunk)


def posteriors(known, value, row):
    with evaluation(known.model, known.guide, known.batch) as (pair, batch):
        return problems_of(pair.draw(batch, 4000), pair, torch.tensor(value), torch.tensor(row))


def test_problem_log_joint_is_the_density_of_all_sites():
    known = two_layers(3)
    problems = posteriors(known, [0, 0], [2, 0])
    u = torch.randn(5, 2, 5).double()
    z1, z2, x = u[..., :3], u[..., 3:], known.batch.x[[2, 0]]
    if list(problems.coordinates.shapes) == ["z2", "z1"]:
        z2, z1 = u[..., :2], u[..., 2:]
    expected = (
        dist.Normal(0.0, 1.0).log_prob(z2).sum(-1)
        + dist.Normal(z2 @ known.model.above.T, 0.5).log_prob(z1).sum(-1)
        + dist.Normal(z1 @ known.model.below.T, 0.3).log_prob(x).sum(-1)
    )
    torch.testing.assert_close(problems.log_joint(u), expected)


def test_problem_starts_at_the_moments_of_the_guide():
    known = small_linear(3)
    problems = posteriors(known, [0, 0, 0], [0, 1, 2])
    posterior = known.model.posterior(known.batch.x)
    spread = (posterior.precision_matrix.diagonal(dim1=-2, dim2=-1) ** -0.5).expand(3, 2)
    assert ((problems.start.loc - posterior.mean).abs() < 4 * spread / 4000**0.5).all()
    torch.testing.assert_close(problems.start.stddev, spread, rtol=4 / (2 * 4000) ** 0.5, atol=0)


def test_problem_of_a_class_is_its_own_posterior():
    """p(x, y, z) = p(x, y) p(z | x, y): Gaussian in z, with an integral that is known."""
    known = classes(LabelStyle, "none", 6)
    joint = known.model.log_joint(known.batch.x).detach()
    problems = posteriors(known, [0, 1, 2, 1], [0, 0, 5, 3])
    assert problems.fixed["y"].tolist() == [0, 1, 2, 1]
    q = Laplace(newton=1, scale=1.0).fit(problems.log_joint, problems.start)
    u = q.sample((3,))
    expected = joint[[0, 0, 5, 3], [0, 1, 2, 1]]
    torch.testing.assert_close(problems.log_joint(u) - q.log_prob(u), expected.expand(3, 4))


@pytest.mark.parametrize("labelled", ["none", "some", "all"])
@pytest.mark.parametrize("guide", [LabelStyle, OneStyle])
def test_fitted_log_weight_is_exact_where_each_class_has_its_exact_posterior(monkeypatch, guide, labelled):
    monkeypatch.setattr(module, "NEGLIGIBLE", 0.0)
    known = classes(guide, labelled, 9)
    found = log_weights(known, Laplace(newton=1, scale=1.0), 3)
    torch.testing.assert_close(found, known.evidence.expand(3, 9))


@pytest.mark.parametrize("chunk", [16, 48, 10_000])
def test_fitted_log_weight_of_partly_labelled_data_is_exact_in_every_block(monkeypatch, chunk):
    """Blocks of labelled rows alone, of unlabelled rows alone, and of both."""
    monkeypatch.setattr(module, "NEGLIGIBLE", 0.0)
    known = classes(LabelStyle, "some", 9)
    known = known.rows([0, 2, 4, 6, 1, 3, 5, 7, 8])
    found = ppvae.log_marginal(
        known.model, known.guide, known.batch, proposal=Laplace(newton=1, scale=1.0), num_particles=3, chunk=chunk
    )
    torch.testing.assert_close(found.value, known.evidence)


class FromPrior(LabelStyle):
    """The prior as the guide: its weights are bounded."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", dist.Categorical(logits=x.new_zeros(3)))
            pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))


def test_fitted_weights_have_the_mean_p_of_x_where_one_class_alone_is_fitted(monkeypatch):
    """The other classes keep the draws of the guide."""
    monkeypatch.setattr(module, "NEGLIGIBLE", 0.5)
    known = classes(FromPrior, "none", 12)
    fits = []

    class Counted(Shifted):
        def fit(self, log_joint, start):
            fits.append(len(start.loc))
            return super().fit(log_joint, start)

    ratio = (log_weights(known, Counted(), 20_000, chunk=10**6) - known.evidence).exp()
    assert 0 < sum(fits) <= 12
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / 20_000**0.5).all()


def test_fit_of_a_discrete_latent_leaves_negligible_values_out():
    known = classes(LabelStyle, "none", 12)
    share = (known.model.log_joint(known.batch.x) - known.evidence[:, None]).exp()
    seen = []

    class Counted(Shifted):
        def fit(self, log_joint, start):
            seen.append(len(start.loc))
            return super().fit(log_joint, start)

    log_weights(known, Counted(), 2)
    certain, possible = int((share > 1e-3).sum()), int((share > 1e-9).sum())
    assert certain <= sum(seen) <= possible < 36


@pytest.mark.parametrize(
    "proposal", [Shifted(), FullRank(steps=3, particles=2, learning_rate=0.2, scale=1.5), Laplace(newton=1, scale=1.4)]
)
@pytest.mark.parametrize("make", [small_linear, lambda: classes(OneStyle, "some", 6), two_layers])
def test_fitted_weights_have_the_mean_p_of_x_whatever_the_proposal(make, proposal):
    known = make()
    ratio = (log_weights(known, proposal, 20_000, chunk=10**6) - known.evidence).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / 20_000**0.5).all()


def test_fitted_log_weight_of_a_support_that_differs_between_data_is_the_evidence():
    known = bounded()
    ratio = (log_weights(known, HeavyTailed(), 20_000, chunk=10**6) - known.evidence).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / 20_000**0.5).all()
    assert (ratio.std(0) < 5).all()


class Edge(ppvae.Model):
    """A count that is possible only where |z| < .02; a class that changes nothing."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=x.new_zeros(2)), obs=y)
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), self.one))
            pyro.sample("x", dist.Poisson((z.abs() < 0.02).to(x)), obs=x)


class Wide(ppvae.Guide):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", dist.Categorical(logits=x.new_zeros(2)))
            pyro.sample("z", dist.Normal(0 * x, 3.0))


def test_fitted_log_weight_where_most_weights_are_zero_is_the_evidence():
    """The first draws of the guide miss the posterior of most data in every class: fresh draws decide these."""
    model, x = Edge(), torch.ones(40).double()
    pair, batch = Pair(model, Wide()), as_batch(x)
    with torch.no_grad():
        possible = module._not_negligible(pair, pair.draw(batch, 10), 10**6).any(0)
        assert 0 < possible.sum() < 40
        found = fitted_log_weight(pair, batch, HeavyTailed(), 10_000, chunk=4000)
    ratio = (found + 1).exp() / math.erf(0.02 / 2**0.5)
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / 10_000**0.5).all()


def test_fit_may_differentiate_the_density_itself():
    known = small_linear()

    class ByAutograd:
        def fit(self, log_joint, start):
            mean = start.loc.clone().requires_grad_()
            for _ in range(100):
                (slope,) = torch.autograd.grad(log_joint(mean[None]).sum(), mean)
                mean = (mean + 0.02 * slope).detach().requires_grad_()
            return FullGaussian(mean, 2 * start.scale_tril)

    found = ppvae.log_marginal(known.model, known.guide, known.batch, proposal=ByAutograd())
    assert ((found.value - known.evidence).abs() < 4 * found.standard_error).all()
    assert not found.value.requires_grad


WRONG = {
    r"\(3, 2\) and \(\) of Normal": lambda start: dist.Normal(start.loc, 1.0),
    r"\(\) and \(2,\) of Independent": lambda start: dist.Normal(start.loc[0], 1.0).to_event(1),
    r"\(3,\) and \(3,\) of Independent": lambda start: dist.Normal(start.loc[:, :1].expand(3, 3), 1.0).to_event(1),
    r"\(\) and \(\) of NoneType": lambda start: None,
}


@pytest.mark.parametrize("found", WRONG)
def test_fitted_log_weight_refuses_a_distribution_of_other_shapes(found):
    class Own:
        def fit(self, log_joint, start):
            return WRONG[found](start)

    with pytest.raises(ppvae.ContractError, match=rf"batch shape \(3,\) and event shape \(2,\), got {found}"):
        log_weights(small_linear(3), Own())


class Masked(ppvae.Model):
    """z ~ N(0, I), and x ~ N(z, I) for the data that a condition shows."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None, *, shown):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), self.one).to_event(1))
            with poutine.mask(mask=shown):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_fitted_log_weight_leaves_masked_data_out():
    x, shown = torch.randn(3, 2).double(), torch.tensor([True, False, True])
    evidence = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1) * shown
    guide = SameSite(lambda x: dist.Normal(0 * x, 1.0).to_event(1))
    found = ppvae.log_marginal(Masked(), guide, x, proposal=Laplace(newton=1, scale=1.0), num_particles=3, shown=shown)
    torch.testing.assert_close(found.value, evidence)


@pytest.mark.parametrize("name", [name for name, pair in ALL_PAIRS.items() if not pair.discrete_only])
def test_fitted_log_weight_of_every_pair_is_finite_for_labelled_and_unlabelled_rows(name):
    model, guide, batch = ALL_PAIRS[name].make_batch()
    for kind in ALL_PAIRS[name].kinds(batch).values():
        with evaluation(model, guide, kind) as (pair, data), frozen(model):
            found = fitted_log_weight(pair, data, FullRank(steps=2), 4, chunk=1000)
        assert found.shape == (4, len(kind))
        assert found.isfinite().all()


LAYERS = ("bottom_up", "top_down")
LINEAR = ("linear_gaussian", "missing", "full_rank", "mixture_guide", *(f"flow_{family}" for family in FLOWS))


@pytest.mark.parametrize("name", LAYERS + LINEAR)
def test_laplace_of_a_gaussian_pair_is_exact_whatever_its_guide(name):
    """Also for guides that cannot score a value which they did not draw."""
    model, guide, x = PAIRS[name].make()
    evidence = two_layer_evidence(model, x) if name in LAYERS else model.log_evidence(x)
    found = ppvae.log_marginal(model, guide, x, proposal=Laplace(scale=1.0), num_particles=3)
    torch.testing.assert_close(found.value, evidence.detach())


def test_fitted_log_weight_refuses_draws_of_another_type():
    class Single:
        def fit(self, log_joint, start):
            return FullGaussian(start.loc.float(), start.scale_tril.float())

    with pytest.raises(ppvae.ContractError, match=r"draws are torch.float64, as those of the start, got torch.float32"):
        ppvae.log_marginal(*PAIRS["linear_gaussian"].make(), proposal=Single(), num_particles=50)


def test_fitted_log_weight_refuses_a_density_over_a_part_of_the_space():
    class Positive:
        def fit(self, log_joint, start):
            return dist.LogNormal(start.loc, 1.0).to_event(1)

    with pytest.raises(
        ppvae.ContractError, match=r"density over all real vectors, but q is positive on \(0, inf\) alone"
    ):
        log_weights(small_linear(3), Positive())

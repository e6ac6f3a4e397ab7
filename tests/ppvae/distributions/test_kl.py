"""Closed forms of the Kullback-Leibler divergence, against quadrature."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from scipy.integrate import quad
from torch.distributions import kl_divergence

import ppvae
from ppvae.distributions.gaussians import standard_normal
from ppvae.distributions.kl import closed_form_kl
from tests.catalogue import PAIRS

INF = math.inf
PAIRS_OF_FAMILIES = {
    "beta_uniform": (lambda: dist.Beta(of(2.0), of(3.0)), lambda: dist.Uniform(of(0.0), of(1.0)), (0, 1)),
    "beta_wide_uniform": (lambda: dist.Beta(of(2.0), of(3.0)), lambda: dist.Uniform(of(-1.0), of(2.0)), (0, 1)),
    "beta_beta": (lambda: dist.Beta(of(2.0), of(3.0)), lambda: dist.Beta(of(1.5), of(0.7)), (0, 1)),
    "continuous_bernoulli_uniform": (
        lambda: dist.ContinuousBernoulli(of(0.3)),
        lambda: dist.Uniform(of(0.0), of(1.0)),
        (0, 1),
    ),
    "continuous_bernoulli_wide_uniform": (
        lambda: dist.ContinuousBernoulli(of(0.8)),
        lambda: dist.Uniform(of(-0.5), of(1.5)),
        (0, 1),
    ),
    "uniform_continuous_bernoulli": (
        lambda: dist.Uniform(of(0.0), of(1.0)),
        lambda: dist.ContinuousBernoulli(of(0.3)),
        (0, 1),
    ),
    "narrow_uniform_continuous_bernoulli": (
        lambda: dist.Uniform(of(0.2), of(0.9)),
        lambda: dist.ContinuousBernoulli(logits=of(1.0)),
        (0.2, 0.9),
    ),
    "uniform_beta": (lambda: dist.Uniform(of(0.0), of(1.0)), lambda: dist.Beta(of(1.5), of(0.7)), (0, 1)),
    "uniform_gamma": (lambda: dist.Uniform(of(0.5), of(2.0)), lambda: dist.Gamma(of(2.0), of(1.0)), (0.5, 2)),
    "gamma_exponential": (lambda: dist.Gamma(of(2.0), of(1.5)), lambda: dist.Exponential(of(0.5)), (0, INF)),
    "pareto_exponential": (lambda: dist.Pareto(of(1.0), of(3.0)), lambda: dist.Exponential(of(0.5)), (1, INF)),
    "log_normal_log_normal": (
        lambda: dist.LogNormal(of(0.3), of(0.5)),
        lambda: dist.LogNormal(of(0.0), of(1.0)),
        (0, INF),
    ),
    "laplace_normal": (lambda: dist.Laplace(of(0.3), of(0.5)), lambda: dist.Normal(of(0.0), of(1.0)), (-INF, INF)),
    "normal_laplace": (lambda: dist.Normal(of(0.3), of(0.5)), lambda: dist.Laplace(of(0.0), of(1.0)), (-INF, INF)),
    "gumbel_normal": (lambda: dist.Gumbel(of(0.3), of(0.5)), lambda: dist.Normal(of(0.0), of(1.0)), (-5, 30)),
}


def of(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def by_quadrature(q, p, low: float, high: float) -> float:
    def integrand(z: float) -> float:
        log_q, log_p = (d.log_prob(torch.tensor(z).double()).item() for d in (q, p))
        return math.exp(log_q) * (log_q - log_p) if log_q > -INF else 0.0

    return quad(integrand, low, high, limit=200)[0]


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize("name", PAIRS_OF_FAMILIES)
def test_closed_form_kl_equals_quadrature(name):
    make_q, make_p, (low, high) = PAIRS_OF_FAMILIES[name]
    q, p = make_q(), make_p()
    assert closed_form_kl(q, p).item() == pytest.approx(by_quadrature(q, p, low, high), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("shapes", [((5,), ()), ((), (5,)), ((5,), (4, 1)), ((4, 1), (5,))])
@pytest.mark.parametrize("name", PAIRS_OF_FAMILIES)
def test_closed_form_kl_broadcasts(name, shapes):
    make_q, make_p, _ = PAIRS_OF_FAMILIES[name]
    q, p = make_q(), make_p()
    found = closed_form_kl(q.expand(shapes[0]), p.expand(shapes[1]))
    torch.testing.assert_close(found, closed_form_kl(q, p).expand(torch.broadcast_shapes(*shapes)))
    events = [d.expand((*shape, 3)).to_event(1) for d, shape in zip((q, p), shapes, strict=True)]
    torch.testing.assert_close(closed_form_kl(*events), 3 * found)


@pytest.mark.parametrize(
    ("make", "size"),
    [(dist.Bernoulli, ()), (dist.Geometric, ()), (dist.Categorical, (3,)), (dist.OneHotCategorical, (3,))],
)
def test_closed_form_kl_of_discrete_families_broadcasts(make, size):
    torch.manual_seed(0)
    q, p = (make(torch.rand(*shape, *size).double().clamp(0.1, 0.9)) for shape in ((4, 1), (5,)))
    wide = [d.expand((4, 5)) for d in (q, p)]
    torch.testing.assert_close(closed_form_kl(q, p), kl_divergence(*wide))


def test_closed_form_kl_of_bernoulli_equals_its_sum():
    q, p = dist.Bernoulli(torch.tensor([0.3, 0.0, 1.0, 0.5])), dist.Bernoulli(torch.tensor(0.6))
    values = torch.tensor([[0.0], [1.0]])
    terms = q.log_prob(values).exp() * (q.log_prob(values) - p.log_prob(values))
    torch.testing.assert_close(closed_form_kl(q, p), terms.nan_to_num(0.0).sum(0))


def test_closed_form_kl_is_infinite_where_p_is_zero():
    cases = [
        (dist.Beta(of(2.0), of(3.0)), dist.Uniform(of(0.1), of(1.0))),
        (dist.ContinuousBernoulli(of(0.3)), dist.Uniform(of(0.1), of(1.0))),
        (dist.Uniform(of(-0.1), of(0.5)), dist.ContinuousBernoulli(of(0.3))),
        (dist.Bernoulli(of(0.3)), dist.Bernoulli(of(0.0))),
    ]
    assert [closed_form_kl(q, p).item() for q, p in cases] == [INF] * len(cases)


def test_closed_form_kl_has_the_gradient_of_the_quadrature():
    def divergence(probs: float) -> tuple[dist.ContinuousBernoulli, dist.Uniform]:
        return dist.ContinuousBernoulli(of(probs)), dist.Uniform(of(0.0), of(1.0))

    probs = of(0.3).requires_grad_()
    closed_form_kl(dist.ContinuousBernoulli(probs), dist.Uniform(of(0.0), of(1.0))).backward()
    above, below = (by_quadrature(*divergence(0.3 + step), 0, 1) for step in (1e-4, -1e-4))
    assert probs.grad.item() == pytest.approx((above - below) / 2e-4, rel=1e-5)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Cauchy(0.0, 1.0), dist.Normal(0.0, 1.0)),
        (dist.Normal(torch.zeros(3), 1.0).to_event(1), dist.StudentT(3.0, torch.zeros(3), 1.0).to_event(1)),
        (dist.Normal(0.0, 1.0).mask(False), dist.Normal(0.0, 1.0)),
        (dist.MultivariateNormal(torch.zeros(3), torch.eye(3)), dist.Laplace(torch.zeros(3), 1.0).to_event(1)),
    ],
)
def test_closed_form_kl_is_none_if_no_formula_is_known(q, p):
    assert closed_form_kl(q, p) is None


def test_closed_form_kl_runs_on_the_meta_device():
    def on_meta(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    with pyro.validation_enabled(False):  # as in a training step
        pairs = [
            (dist.Normal(on_meta(4, 3), on_meta(4, 3)), dist.Normal(on_meta(3), on_meta(3))),
            (dist.Beta(on_meta(4, 3), on_meta(4, 3)), dist.Uniform(on_meta(3), on_meta(3))),
            (dist.Bernoulli(on_meta(4, 3)), dist.Bernoulli(on_meta(3))),
            (dist.Categorical(logits=on_meta(4, 3)), dist.Categorical(logits=on_meta(3))),
        ]
        shapes = [closed_form_kl(q, p).shape for q, p in pairs]
    assert shapes == [(4, 3), (4, 3), (4, 3), (4,)]


def test_closed_form_kl_leaves_the_distributions_unchanged():
    q, p = dist.Beta(torch.full((5,), 2.0), 3.0), dist.Uniform(torch.zeros(4, 1), 1.0)
    closed_form_kl(q, p)
    assert (q.batch_shape, p.batch_shape) == ((5,), (4, 1))


def full_rank(*batch: int) -> dist.MultivariateNormal:
    torch.manual_seed(0)
    scale_tril = torch.randn(*batch, 3, 3).double().tril(-1) + torch.diag_embed(torch.rand(*batch, 3).double() + 0.2)
    return dist.MultivariateNormal(torch.randn(*batch, 3).double(), scale_tril=scale_tril)


@pytest.mark.parametrize("batch", [(), (7,), (2, 7)])
def test_full_rank_against_diagonal_equals_the_kl_of_two_full_covariances(batch):
    q = full_rank(*batch)
    p = dist.Normal(torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.1).to_event(1)
    expected = kl_divergence(
        q.expand(batch or (7,)), dist.MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev))
    )
    torch.testing.assert_close(closed_form_kl(q, p), expected)


def test_full_rank_against_the_same_diagonal_is_zero():
    p = standard_normal(torch.zeros(()).double(), 3)
    q = dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    torch.testing.assert_close(closed_form_kl(q, p), torch.zeros(()).double())


def test_particles_of_a_full_rank_guide_use_the_closed_form():
    model, guide, x = PAIRS["full_rank"].make()
    q = guide.distribution(guide.encoder(x))
    prior = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    exact = kl_divergence(q, prior)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    torch.testing.assert_close(particles.kl("z"), exact)
    sampled = ppvae.draw(model, guide, x, num_particles=20_000).kl_integrand("z", analytic=False)
    assert ((sampled.mean(0) - exact).abs() < 4 * sampled.std(0) / 20_000**0.5).all()
    loss = ppvae.ELBO(2).per_datum(particles)
    torch.testing.assert_close(loss, exact - particles.log_likelihood.mean(0))


def test_closed_form_kl_is_none_where_a_transform_folds():
    """torch gives KL(HalfNormal || folded Normal) as that of the Normals, .405 where .241 is right."""
    folded = dist.FoldedDistribution(dist.Normal(0.5, 1.0))
    assert closed_form_kl(folded, dist.HalfNormal(1.0)) is None
    assert closed_form_kl(dist.HalfNormal(1.0), folded) is None
    assert closed_form_kl(dist.LogNormal(0.0, 1.0), dist.LogNormal(1.0, 1.0)).item() == pytest.approx(0.5)
    assert closed_form_kl(dist.HalfNormal(1.0), dist.HalfNormal(1.0)).item() == pytest.approx(0.0)

"""Gaussians that are fitted to densities: exact for Gaussians, wide enough for heavy tails, independent over data."""

import math

import pytest
import torch

from ppvae.distributions.gaussians import FullGaussian
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.proposals import (
    COVERING_PARTICLES,
    COVERING_RATE,
    FullRank,
    Laplace,
    draws_at_once,
)
from tests.ppvae.evaluation.likelihood.densities import OnceDifferentiable, gaussian, standard


def once_differentiable(u):
    """A Gaussian around 0, with a gradient that has no derivative."""
    return -(OnceDifferentiable.apply(u) - 1).square().sum(-1) + u.square().sum(-1)


def kl(q, p):
    """KL(q || p) of each datum, in nats."""
    return torch.distributions.kl_divergence(
        *(torch.distributions.MultivariateNormal(each.loc, scale_tril=each.scale_tril) for each in (q, p))
    )


def exact(mean, covariance):
    return FullGaussian(mean, torch.linalg.cholesky(covariance))


def test_full_rank_finds_a_gaussian_posterior_from_far_away():
    mean, covariance, log_joint = gaussian(4, 5)
    start, posterior = standard(4, 5), exact(mean, covariance)
    assert (kl(start, posterior) > 3).all()
    q = FullRank(scale=1.0, df=math.inf).fit(log_joint, start)
    assert (kl(q, posterior) < 1e-4).all()
    laplace = FullRank(scale=1.0, df=math.inf, steps=0).fit(log_joint, start)
    torch.testing.assert_close(laplace.loc, mean)
    torch.testing.assert_close(laplace.covariance_matrix, covariance)


def test_full_rank_without_newton_finds_a_gaussian_posterior_by_its_gradient_alone():
    mean, covariance, log_joint = gaussian(4, 3, spread=0.4)
    start = FullGaussian(mean + 0.5, standard(4, 3).scale_tril)
    q = FullRank(scale=1.0, df=math.inf, newton=0, steps=400, learning_rate=0.1).fit(log_joint, start)
    assert (kl(start, exact(mean, covariance)) > 1).all()
    assert (kl(q, exact(mean, covariance)) < 1e-4).all()


@pytest.fixture
def plain_descent(monkeypatch):
    """Steps along the gradient itself, where Adam would scale it."""
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters: torch.optim.SGD(parameters, lr=0))


@pytest.mark.parametrize("settings", [{"steps": 20}, {"steps": 0, "cover": 20}])
def test_full_rank_gradient_vanishes_for_every_draw_at_the_exact_posterior(plain_descent, settings):
    posterior_mean, covariance, log_joint = gaussian(4, 5)
    posterior = exact(posterior_mean, covariance)
    q = FullRank(scale=1.0, df=math.inf, newton=0, particles=2, learning_rate=0.5, **settings).fit(log_joint, posterior)
    torch.testing.assert_close(q.loc, posterior.loc, rtol=0, atol=1e-10)
    torch.testing.assert_close(q.scale_tril, posterior.scale_tril, rtol=0, atol=1e-10)


def test_full_rank_step_is_the_gradient_of_the_evidence_bound(plain_descent):
    """For a Gaussian posterior N(mu, P^-1), in coordinates v with u = m0 + L0 v, at v ~ N(0, I).

    d/dm = L0' P (mu - m0)        d/dL = tril(I - L0' P L0), the diagonal with respect to log L
    """
    mu, covariance, log_joint = gaussian(2, 3)
    start = FullGaussian(
        mu + 0.3, torch.tensor([[1.0, 0, 0], [0.5, 1.5, 0], [-0.2, 0.3, 0.7]]).double().expand(2, 3, 3)
    )
    rate, particles = 1e-3, 200_000
    settings = {"steps": 1, "particles": particles, "learning_rate": rate, "scale": 1.0, "newton": 0}
    q = FullRank(**settings).fit(log_joint, start)
    precision, tril = torch.linalg.inv(covariance), start.scale_tril
    whitened = tril.mT @ precision @ tril
    along_mean = (tril.mT @ precision @ (mu - start.loc).unsqueeze(-1)).squeeze(-1)
    along_tril = (torch.eye(3).double() - whitened).tril()
    moved_mean = torch.linalg.solve_triangular(tril, (q.loc - start.loc).unsqueeze(-1), upper=False).squeeze(-1) / rate
    factor = torch.linalg.solve_triangular(tril, q.scale_tril, upper=False)
    moved_tril = (factor.tril(-1) + torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1).log())) / rate
    # The gradients are sums of products of two Normals with factors of at most |P| elements.
    error = 5 * whitened.abs().sum((-2, -1)).max() / particles**0.5
    torch.testing.assert_close(moved_mean, along_mean, rtol=0, atol=error.item())
    torch.testing.assert_close(moved_tril, along_tril, rtol=0, atol=error.item())
    assert along_mean.abs().max() > 5 * error
    assert along_tril.abs().max() > 5 * error


@pytest.mark.parametrize(("dim", "factor"), [(1, 1.0), (50, 1.0), (100, 0.5**0.5), (200, 0.5)])
def test_full_rank_learning_rate_falls_with_more_than_50_latents(plain_descent, dim, factor):
    """From N(0, I) to N(3, I) the gradient of the mean is 3 for every draw."""
    proposal = FullRank(steps=1, learning_rate=0.1, newton=0, scale=1.0)
    q = proposal.fit(lambda u: -0.5 * (u - 3).square().sum(-1), standard(2, dim))
    torch.testing.assert_close(q.loc, torch.full((2, dim), 0.3 * factor).double())


@pytest.mark.parametrize(("dim", "draws"), [(1, 16), (64, 16), (100, 32), (200, 64)])
def test_full_rank_averages_more_draws_with_more_than_50_latents(dim, draws):
    """In rounds of the usual number, which bounds the memory."""
    sizes = []

    def log_joint(u):
        sizes.append(len(u))
        return -0.5 * u.square().sum(-1)

    FullRank(steps=3, particles=16, newton=0).fit(log_joint, standard(2, dim))
    assert set(sizes) == {16}
    assert sum(sizes) == 3 * draws


def test_full_rank_and_laplace_widen_by_their_scale():
    _, covariance, log_joint = gaussian(2, 3)
    for proposal in (FullRank(scale=1.5, steps=0), Laplace(scale=1.5)):
        torch.testing.assert_close(proposal.fit(log_joint, standard(2, 3)).covariance_matrix, 2.25 * covariance)


def test_full_rank_improves_the_evidence_bound_over_the_laplace_approximation():
    """u0 is the logarithm of a Gamma variate, u1 a Normal around u0^2: skewed and bent."""

    def log_joint(u):
        return 2 * u[..., 0] - u[..., 0].exp() - 0.5 * (u[..., 1] - u[..., 0].square()).square()

    def bound(q):
        u = q.sample((20_000,))
        return (log_joint(u) - q.log_prob(u)).mean(0)

    q = (
        Laplace(scale=1.0).fit(log_joint, standard(3, 2)),
        FullRank(scale=1.0, df=math.inf).fit(log_joint, standard(3, 2)),
    )
    assert (bound(q[1]) > bound(q[0]) + 0.05).all()


def student(u, scale=0.2, freedom=3):
    """A multivariate Student density, of covariance 3 scale^2 I."""
    return -0.5 * (freedom + u.shape[-1]) * (1 + (u / scale).square().sum(-1) / freedom).log()


def test_full_rank_cover_widens_a_fit_to_heavy_tails():
    def forward_kl(q):  # up to a constant
        moment = 3 * 0.2**2 * torch.eye(3).double() + q.loc.unsqueeze(-1) * q.loc.unsqueeze(-2)
        trace = (torch.linalg.inv(q.covariance_matrix) * moment).sum((-2, -1))
        return 0.5 * (trace + torch.logdet(q.covariance_matrix))

    narrow = FullRank(scale=1.0, df=math.inf).fit(student, standard(5, 3))
    covering = FullRank(scale=1.0, df=math.inf, cover=200).fit(student, standard(5, 3))
    assert covering.stddev.min() > narrow.stddev.max()
    assert (forward_kl(covering) < forward_kl(narrow) - 0.2).all()


def test_full_rank_cover_step_is_the_gradient_of_the_forward_kl(plain_descent):
    """Its mean is that of sum_k w_k d log q(u_k), with 64 self-normalised weights, by the scores of q."""
    data = 20_000
    start = FullGaussian(torch.full((data, 1), 0.1).double(), torch.full((data, 1, 1), 0.2).double())
    e = torch.randn(COVERING_PARTICLES, data, 1).double()
    u = start.at(e)
    weight = (student(u) - start.log_prob(u)).softmax(0).unsqueeze(-1)
    scores = torch.stack([(weight * e).sum(0), (weight * (e.square() - 1)).sum(0)])  # of the mean, of log L
    q = FullRank(scale=1.0, df=math.inf, steps=0, newton=0, cover=1).fit(student, start)
    moves = torch.stack([(q.loc - start.loc) / 0.2, (q.scale_tril / 0.2).log().squeeze(-1)]) / COVERING_RATE
    error = ((scores.var(1) + moves.var(1)) / data) ** 0.5
    assert ((scores.mean(1) - moves.mean(1)).abs() < 4 * error).all()
    assert (scores.mean(1).abs() > 20 * error).all()
    assert (moves.var(1) < scores.var(1)).all()


def test_full_rank_falls_back_to_the_start_where_there_is_no_second_derivative():
    start = FullGaussian(torch.ones(2, 3).double(), 0.5 * standard(2, 3).scale_tril)
    with pytest.raises(ContractError, match=r"second derivative.*use FullRank\(newton=0\)"):
        Laplace().fit(once_differentiable, start)
    unmoved = FullRank(steps=0, scale=1.0).fit(once_differentiable, start)
    assert torch.equal(unmoved.loc, start.loc)
    assert torch.equal(unmoved.scale_tril, start.scale_tril)
    torch.manual_seed(0)
    fallen_back = FullRank().fit(once_differentiable, start)
    torch.manual_seed(0)
    without = FullRank(newton=0).fit(once_differentiable, start)
    assert torch.equal(fallen_back.scale_tril, without.scale_tril)


@pytest.mark.parametrize("proposal", [FullRank(cover=20), FullRank(newton=0, steps=20), Laplace()])
def test_fit_of_one_datum_does_not_depend_on_the_others(proposal):
    """A density that is NaN, infinite or huge for the datum in the middle leaves its neighbours as they were."""
    _, _, log_joint = gaussian(3, 2)

    def fitted(factor):
        torch.manual_seed(0)
        factors = torch.tensor([1.0, factor, 1.0]).double()
        return proposal.fit(lambda u: factors * log_joint(u), standard(3, 2))

    alone = fitted(1.0)
    for factor in (math.nan, math.inf, -math.inf, 1e200, -1.0):
        q = fitted(factor)
        assert torch.equal(q.loc[[0, 2]], alone.loc[[0, 2]])
        assert torch.equal(q.scale_tril[[0, 2]], alone.scale_tril[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("proposal", [FullRank(cover=2, steps=2), Laplace()])
def test_fit_keeps_the_type_of_its_start(proposal, dtype):
    q = proposal.fit(lambda u: -0.5 * u.square().sum(-1), standard(2, 3, dtype))
    assert {each.dtype for each in (q.loc, q.scale_tril, q.sample(), q.log_prob(q.loc))} == {dtype}
    assert not q.scale_tril.requires_grad


def test_full_rank_evaluates_no_more_draws_at_once_than_it_says():
    for proposal in (FullRank(steps=2), FullRank(steps=2, particles=2), FullRank(steps=1, cover=1), Laplace()):
        seen = []

        def log_joint(u, seen=seen):
            seen.append(len(u))
            return -0.5 * u.square().sum(-1)

        proposal.fit(log_joint, standard(2, 40))
        assert max(seen) <= draws_at_once(proposal)


def test_draws_at_once_of_a_proposal_that_does_not_say_is_16():
    class Own:
        def fit(self, log_joint, start):
            return start

    assert draws_at_once(Own()) == 16


@pytest.mark.parametrize("make", [FullRank, Laplace])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_proposal_refuses_a_scale_that_is_not_positive_and_finite(make, value):
    with pytest.raises(ValueError, match=f"expected scale above 0 and finite, got {value}"):
        make(scale=value)


@pytest.mark.parametrize("setting", ["steps", "particles", "cover", "newton"])
def test_full_rank_refuses_counts_out_of_range(setting):
    least = 1 if setting == "particles" else 0
    with pytest.raises(ValueError, match=f"expected {setting} of at least {least}, got {least - 1}"):
        FullRank(**{setting: least - 1})
    with pytest.raises(TypeError, match=f"expected {setting} to be a whole number, got 2.5"):
        FullRank(**{setting: 2.5})


def test_proposal_refuses_other_settings_out_of_range():
    with pytest.raises(ValueError, match="expected learning_rate above 0 and finite, got 0"):
        FullRank(learning_rate=0)
    with pytest.raises(ValueError, match="expected newton of at least 1, got 0"):
        Laplace(newton=0)


@pytest.mark.parametrize(("dim", "df", "expected"), [(1, None, 5), (2, None, 5), (10, None, 20), (3, 7.0, 7)])
def test_full_rank_draws_from_a_student_t_whose_degrees_grow_with_the_latents(dim, df, expected):
    q = FullRank(steps=0, df=df).fit(gaussian_of_unit_scale, standard(2, dim))
    u, log_q = q.draw(5)
    assert (q.df == expected).all()
    torch.testing.assert_close(log_q, q.log_prob(u))


def gaussian_of_unit_scale(u):
    return -0.5 * u.square().sum(-1)


def test_full_rank_refuses_degrees_of_freedom_of_0():
    with pytest.raises(ValueError, match="expected df above 0 and finite, got 0"):
        FullRank(df=0)
    with pytest.raises(TypeError, match="expected df to be a number, got '5'"):
        FullRank(df="5")

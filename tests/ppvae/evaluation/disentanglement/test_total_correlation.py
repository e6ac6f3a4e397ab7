"""The exact aggregate posterior, compared with brute force and with closed forms."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

import ppvae
from ppvae.evaluation.disentanglement import aggregate_posterior, critic_correlation, minibatch_correlation
from ppvae.evaluation.disentanglement.total_correlation import _log_aggregate, row_draws
from ppvae.evaluation.likelihood.per_datum import sampling_error


def test_log_aggregate_equals_the_density_of_the_mixture():
    torch.manual_seed(0)
    codes, scales = torch.randn(7, 3).double(), 0.1 + torch.rand(7, 3).double()
    z, weights = 2 * torch.randn(5, 3).double(), Categorical(torch.ones(7).double())
    joint, marginals = _log_aggregate(z, codes, scales)
    constant = 0.5 * math.log(2 * math.pi)
    mixture = MixtureSameFamily(weights, Independent(Normal(codes, scales), 1))
    torch.testing.assert_close(joint - 3 * constant, mixture.log_prob(z))
    for d in range(3):
        mixture = MixtureSameFamily(weights, Normal(codes[:, d], scales[:, d]))
        torch.testing.assert_close(marginals[:, d] - constant, mixture.log_prob(z[:, d]))


def correlated(rho: float, rows: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Posteriors with the aggregate N(0, [[1, rho], [rho, 1]])."""
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]]) - scale**2 * torch.eye(2)
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    return noise @ torch.linalg.cholesky(covariance).T, torch.full((rows, 2), scale)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_aggregate_posterior_of_correlated_gaussians(rho):
    rows = 20_000
    found = aggregate_posterior(*correlated(rho, rows, 0.4), num_draws=2000)
    exact = -0.5 * math.log(1 - rho**2)
    # The codes are a sample: d TC / d rho = rho / (1 - rho^2), and rho has the standard error (1 - rho^2) / sqrt(N).
    error = math.hypot(found.total_correlation_error, rho / rows**0.5)
    assert found.total_correlation == pytest.approx(exact, abs=4 * error + 1e-3)
    information = 0.5 * math.log(1 - rho**2) - 2 * math.log(0.4)
    assert found.mutual_information == pytest.approx(information, abs=4 * found.mutual_information_error + 0.02)
    assert found.dimension_wise_kl == pytest.approx(0, abs=0.01)


def test_aggregate_posterior_has_parts_that_sum_to_the_rate():
    torch.manual_seed(0)
    codes, scales = torch.randn(3000, 4) * torch.tensor([2.0, 1.0, 0.5, 0.0]), 0.2 + torch.rand(3000, 4)
    found = aggregate_posterior(codes, scales, num_draws=2000)
    exact = 0.5 * (codes**2 + scales**2 - 1 - 2 * scales.log()).sum(1)
    total = found.pointwise_information + found.pointwise_correlation + found.pointwise_kl
    error = total.std().item() / 2000**0.5
    assert found.rate == pytest.approx(exact.mean().item(), abs=4 * error)


def test_aggregate_posterior_equals_brute_force_at_each_draw():
    torch.manual_seed(0)
    codes, scales = torch.randn(9, 3).double(), 0.1 + torch.rand(9, 3).double()
    found = aggregate_posterior(codes, scales, num_draws=80, seed=3)
    z, _ = row_draws(codes, scales, 80, torch.Generator().manual_seed(3))
    rows = torch.randint(9, (80,), generator=torch.Generator().manual_seed(3))
    weights = Categorical(torch.ones(9).double())
    joint = MixtureSameFamily(weights, Independent(Normal(codes, scales), 1)).log_prob(z)
    marginals = sum(MixtureSameFamily(weights, Normal(codes[:, d], scales[:, d])).log_prob(z[:, d]) for d in range(3))
    own = Independent(Normal(codes, scales), 1).log_prob(z[:, None])[torch.arange(80), rows]
    torch.testing.assert_close(found.pointwise_information, own - joint)
    torch.testing.assert_close(found.pointwise_correlation, joint - marginals)
    torch.testing.assert_close(found.pointwise_kl, marginals - Normal(0, 1).log_prob(z).sum(1))


def test_aggregate_posterior_errors_equal_the_spread_over_seeds():
    codes, scales = correlated(0.8, 200, 0.4)
    found = [aggregate_posterior(codes, scales, num_draws=200, seed=seed) for seed in range(100)]
    for name in ("total_correlation", "mutual_information"):
        spread = torch.tensor([getattr(one, name) for one in found]).std().item()
        error = sum(getattr(one, f"{name}_error") for one in found) / 100
        assert error == pytest.approx(spread, rel=4 / (2 * 99) ** 0.5)  # four standard errors


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_aggregate_posterior_takes_a_prior_on_another_device():
    codes, scales = correlated(0.5, 100, 0.4)
    prior = Normal(torch.zeros(2, device="cuda"), torch.ones(2, device="cuda"))
    for device in ("cpu", "cuda"):
        found = aggregate_posterior(codes.to(device), scales.to(device), prior, num_draws=50)
        assert found.rate == pytest.approx(aggregate_posterior(codes, scales, num_draws=50).rate, abs=1e-4)


def test_aggregate_posterior_with_another_prior_and_without_one():
    codes, scales = correlated(0.5, 500, 0.4)
    loc, scale = torch.tensor([0.5, 0.0]), torch.tensor([1.0, 2.0])
    found = aggregate_posterior(codes, scales, Normal(loc, scale), num_draws=2000)
    exact = kl_divergence(Normal(codes, scales), Normal(loc, scale)).sum(1).mean().item()
    total = found.pointwise_information + found.pointwise_correlation + found.pointwise_kl
    assert found.rate == pytest.approx(exact, abs=4 * total.std().item() / 2000**0.5)
    without = aggregate_posterior(codes, scales, None, num_draws=2000)
    assert without.total_correlation == found.total_correlation
    assert without.rate is without.dimension_wise_kl is None
    assert "rate" not in repr(without)


def test_aggregate_posterior_of_a_grid_has_no_total_correlation_and_information_log_n():
    axis = torch.arange(12.0)
    codes = torch.cartesian_prod(axis, axis)
    found = aggregate_posterior(codes, torch.full_like(codes, 1e-3))
    assert found.total_correlation == pytest.approx(0, abs=1e-6)
    assert found.mutual_information == pytest.approx(found.log_n, abs=1e-6)
    assert found.log_n == pytest.approx(math.log(144))
    assert "log N = 4.97" in repr(found)


def test_aggregate_posterior_of_a_duplicated_code_has_total_correlation_log_n():
    """With z_2 = z_1 each z_d identifies the row."""
    codes = torch.arange(50.0).unsqueeze(1).expand(-1, 2)
    found = aggregate_posterior(codes, torch.full((50, 2), 1e-3))
    assert found.total_correlation == pytest.approx(math.log(50), abs=1e-5)


def test_aggregate_posterior_depends_on_the_seed_only():
    codes, scales = correlated(0.5, 100, 0.4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, same, other = (aggregate_posterior(codes, scales, num_draws=50, seed=s).total_correlation for s in (0, 0, 1))
    assert one == same != other
    torch.testing.assert_close(torch.get_rng_state(), before)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_minibatch_correlation_has_the_mean_of_the_stratified_estimate_written_out(rho):
    codes, scales = (part.double() for part in correlated(rho, 500, 0.4))
    found = minibatch_correlation(codes, scales, batch_size=50, num_batches=200)
    expected = []
    for seed in range(200):
        torch.manual_seed(seed)
        rows = torch.randperm(500)[:50]
        q = Normal(codes[rows], scales[rows])
        z = q.sample()
        log_q = q.log_prob(z.unsqueeze(1))
        log_q_z = [0.0, 0.0]
        for i, part in enumerate((log_q.sum(-1, keepdim=True), log_q)):
            others = part.exp().masked_fill(torch.eye(50, dtype=torch.bool).unsqueeze(-1), 0.0).sum(1) / 49
            log_q_z[i] = (part.diagonal().T.exp() / 500 + others * 499 / 500).log().sum(-1)
        expected.append((log_q_z[0] - log_q_z[1]).mean())
    expected = torch.stack(expected)
    error = (found.var() / 200 + expected.var() / 200).sqrt()
    assert (found.mean() - expected.mean()).abs() < 4 * error
    assert len(found) == 200


def test_minibatch_correlation_of_one_batch_of_all_rows_is_exact():
    codes, scales = (part.double() for part in correlated(0.8, 300, 0.4))
    found = minibatch_correlation(codes, scales, batch_size=1000, num_batches=20)
    exact = aggregate_posterior(codes, scales, num_draws=6000)
    error = math.hypot(sampling_error(found), exact.total_correlation_error)
    assert found.mean().item() == pytest.approx(exact.total_correlation, abs=4 * error)


def test_critic_correlation_of_the_true_ratio_is_the_closed_form():
    codes, scales = correlated(0.8, 20_000, 0.4)
    both = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    ratio = critic_correlation(lambda z: both.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(-1), codes, scales)
    error = math.hypot(sampling_error(ratio), 0.8 / 20_000**0.5)
    assert ratio.mean().item() == pytest.approx(-0.5 * math.log(1 - 0.64), abs=4 * error)


def test_other_shapes_numbers_and_settings_are_refused():
    codes, scales = correlated(0.5, 10, 0.4)
    with pytest.raises(ppvae.DataError, match="one shape"):
        aggregate_posterior(codes, scales[:5])
    with pytest.raises(ppvae.DataError, match="first in row 3"):
        aggregate_posterior(codes, scales.index_fill(0, torch.tensor(3), 0.0))
    with pytest.raises(ppvae.DataError, match="first in row 4"):
        aggregate_posterior(codes.index_fill(0, torch.tensor(4), torch.nan), scales)
    with pytest.raises(ppvae.DataError, match="first in row 5"):  # 1 / scale is infinite
        aggregate_posterior(codes, scales.index_fill(0, torch.tensor(5), 1e-39))
    for options in ({"batch_size": 1}, {"num_batches": 1}):
        with pytest.raises(ValueError, match="at least 2 batches of at least 2 rows"):
            minibatch_correlation(codes, scales, **options)
    with pytest.raises(ValueError, match="at least 2 draws"):
        aggregate_posterior(codes, scales, num_draws=1)

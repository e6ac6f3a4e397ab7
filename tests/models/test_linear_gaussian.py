"""The linear-Gaussian oracle: closed forms on complete and incomplete data."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

import ppvae
from ppvae.models import LinearGaussian
from tests.ppvae.oracles import Exact


def oracle(missing: bool = False) -> LinearGaussian:
    torch.manual_seed(0)
    return LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7, missing).double()


def incomplete(rows: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 5, generator=generator).double()
    x = x.masked_fill(torch.rand(rows, 5, generator=generator) < 0.5, torch.nan)
    x[0], x[1] = torch.nan, torch.arange(5.0)  # nothing observed, everything observed
    return x


def covariance(model: LinearGaussian) -> torch.Tensor:
    return model.weight @ model.weight.T + (2 * model.log_scale).exp() * torch.eye(5).double()


def test_log_evidence_equals_the_marginal_gaussian():
    model, x = oracle(), torch.randn(8, 5).double()
    exact = dist.MultivariateNormal(model.bias, covariance(model)).log_prob(x)
    torch.testing.assert_close(model.log_evidence(x), exact)
    torch.testing.assert_close(oracle(missing=True).log_evidence(x), exact)


def test_log_evidence_of_incomplete_rows_equals_the_marginal_of_the_observed_elements():
    model, x = oracle(missing=True), incomplete()
    for row, found in zip(x, model.log_evidence(x), strict=True):
        seen = ~row.isnan()
        full = covariance(model)[seen][:, seen]
        exact = dist.MultivariateNormal(model.bias[seen], full).log_prob(row[seen]) if seen.any() else 0 * found
        torch.testing.assert_close(found, exact)


def test_posterior_of_incomplete_rows_is_conditioned_on_the_observed_elements():
    model, x = oracle(missing=True), incomplete()
    posterior = model.posterior(x)
    assert posterior.batch_shape == (8,)
    for index, row in enumerate(x):
        seen = ~row.isnan()
        weight = model.weight[seen]
        gain = weight.T @ torch.linalg.inv(covariance(model)[seen][:, seen])
        torch.testing.assert_close(posterior.mean[index], gain @ (row - model.bias)[seen])
        torch.testing.assert_close(posterior.covariance_matrix[index], torch.eye(2).double() - gain @ weight)


@pytest.mark.parametrize("missing", [False, True])
def test_joint_over_posterior_equals_the_evidence(missing):
    model = oracle(missing)
    x = incomplete() if missing else torch.randn(8, 5).double()
    posterior = model.posterior(x)
    z = posterior.sample()
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    joint = sum(trace.nodes[name]["fn"].log_prob(trace.nodes[name]["value"]) for name in ("z", "x"))
    torch.testing.assert_close(joint - posterior.log_prob(z), model.log_evidence(x))


def test_gradients_of_the_evidence_are_finite_and_do_not_depend_on_missing_elements():
    model, x = oracle(missing=True), incomplete()
    found = torch.autograd.grad(model.log_evidence(x).sum(), list(model.parameters()))
    one_by_one = [torch.autograd.grad(model.log_evidence(row).sum(), list(model.parameters())) for row in x.split(1)]
    torch.testing.assert_close(found, tuple(sum(parts) for parts in zip(*one_by_one, strict=True)))


def test_evidence_keeps_its_digits_with_little_noise_in_float32():
    torch.manual_seed(0)
    exact = LinearGaussian(torch.randn(30, 3).double(), torch.randn(30).double(), 0.01)
    x = torch.randn(20, 3).double() @ exact.weight.T + exact.bias + 0.01 * torch.randn(20, 30).double()
    with torch.no_grad():
        expected = exact.log_evidence(x)
        found = exact.float().log_evidence(x.float())
    # x and W z are rounded at a size of about 4: 2^-24 * 4 / 0.01 noise units in each of 30 elements.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.02)


def test_scale_and_shapes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"bias \(data_dim,\), got \(5, 2\) and \(4,\)"):
        LinearGaussian(torch.zeros(5, 2), torch.zeros(4))
    with pytest.raises(ValueError, match="scale above 0, got 0"):
        LinearGaussian(torch.zeros(5, 2), torch.zeros(5), 0.0)


def test_model_draws_complete_data():
    with pyro.plate("particles", 3, dim=-2):
        trace = poutine.trace(poutine.uncondition(oracle(missing=True))).get_trace(incomplete())
    assert trace.nodes["x"]["value"].shape == (3, 8, 5)
    assert not trace.nodes["x"]["value"].isnan().any()


@pytest.mark.parametrize("objective", [ppvae.ELBO(analytic_kl=False), ppvae.IWAE(3)])
def test_bounds_with_the_exact_posterior_equal_the_evidence_of_the_observed_elements(objective):
    model, x = oracle(missing=True), incomplete()
    ppvae.check_pair(model, Exact(model), x)
    loss = objective.per_datum(ppvae.draw(model, Exact(model), x, num_particles=objective.num_particles))
    torch.testing.assert_close(-loss, model.log_evidence(x))

"""The linear-Gaussian oracle: closed forms on complete and incomplete data."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

import ppvae
from ppvae.data import load
from ppvae.data.files import data_root
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


PCA_ERRORS = {2: 43.64, 8: 29.36, 16: 21.06, 32: 13.20, 64: 7.09, 128: 3.30}  # a test image of MNIST, exact


def correlated(rows: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, 6, generator=generator).double() @ torch.randn(6, 6, generator=generator).double() + 3


def test_fit_is_the_optimum_of_the_likelihood():
    x = correlated()
    model = LinearGaussian.fit(x, latent_dim=2)
    gradients = torch.autograd.grad(model.log_evidence(x).mean(), list(model.parameters()))
    assert all(gradient.abs().max() < 1e-10 for gradient in gradients)
    best = model.log_evidence(x).mean()
    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        other = LinearGaussian.fit(x, latent_dim=2)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter += size * torch.randn(parameter.shape, generator=generator).double()
        assert other.log_evidence(x).mean() < best


def test_fit_equals_an_ascent_of_the_likelihood():
    x = correlated()
    torch.manual_seed(1)
    model = LinearGaussian(torch.randn(6, 2), torch.zeros(6)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -model.log_evidence(x).mean()
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(loss)
    fitted = LinearGaussian.fit(x, latent_dim=2)
    assert fitted.log_evidence(x).mean().item() == pytest.approx(model.log_evidence(x).mean().item(), abs=1e-7)
    torch.testing.assert_close(fitted.weight @ fitted.weight.T, model.weight @ model.weight.T, atol=1e-3, rtol=1e-3)


def test_fit_has_columns_that_span_the_principal_components():
    x = correlated()
    weight = LinearGaussian.fit(x, latent_dim=4).weight.detach()
    _, _, directions = torch.linalg.svd(x - x.mean(0))
    for dim in (1, 2, 3, 4):
        basis = torch.linalg.qr(weight[:, :dim])[0]
        torch.testing.assert_close(basis @ basis.T, directions[:dim].T @ directions[:dim])


def test_fit_recovers_the_model_of_its_data():
    exact = oracle()
    x = ppvae.sample(exact, 100_000)
    found = LinearGaussian.fit(x, latent_dim=2)
    assert found.log_scale.exp().item() == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(found.weight @ found.weight.T, exact.weight @ exact.weight.T, atol=0.06, rtol=0.02)
    assert LinearGaussian.fit(x.float(), latent_dim=2).weight.dtype == torch.float32


def test_fit_gives_the_errors_of_principal_components_on_mnist():
    if not (data_root() / "MNIST" / "raw").exists():
        pytest.skip("MNIST is not in PPVAE_DATA")
    splits = load("mnist", binarization="none")
    train, test = (part.grey(slice(None)).flatten(1) for part in (splits.train, splits.test))
    model = LinearGaussian.fit(train, latent_dim=max(PCA_ERRORS))
    centred, directions = test - model.bias.detach(), torch.nn.functional.normalize(model.weight.detach(), dim=0)
    for dim, error in PCA_ERRORS.items():
        basis = directions[:, :dim]
        rest = centred - centred @ basis @ basis.T
        assert rest.double().square().sum(1).mean().item() == pytest.approx(error, abs=0.01)


@pytest.mark.parametrize("scale", [1e-3, 1e-5])
def test_fit_finds_noise_that_is_small_beside_the_components_in_float32(scale):
    torch.manual_seed(0)
    x = torch.randn(2000, 1) + scale * torch.randn(2000, 3)
    found = LinearGaussian.fit(x.numpy(), latent_dim=1).log_scale.exp().item()
    assert found == pytest.approx(scale, rel=4 / (2 * 4000) ** 0.5)


@pytest.mark.parametrize(
    ("x", "latent_dim", "message"),
    [
        (torch.zeros(5), 1, r"floating data of shape \(N, data_dim\) without NaN"),
        (torch.zeros(5, 3, dtype=torch.long), 1, "floating data of shape.*got torch.int64"),
        (torch.full((5, 3), torch.nan), 1, "leave out rows with missing elements"),
        (torch.randn(9, 3), 3, "latent_dim from 1 to 2, got 3"),
        (torch.randn(9, 3), 0, "latent_dim from 1 to 2, got 0"),
        (torch.randn(9, 1) * torch.ones(3), 1, "vary in more than latent_dim=1 dimensions"),
        (torch.ones(9, 3), 1, "vary in more than latent_dim=1 dimensions"),
    ],
)
def test_fit_refuses_other_data(x, latent_dim, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussian.fit(x, latent_dim)

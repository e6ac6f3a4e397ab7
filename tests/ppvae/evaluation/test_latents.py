"""Latent statistics, against closed forms."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.data import Dataset
from ppvae.distributions.likelihoods import Gaussian
from ppvae.evaluation.latents import _mutual_information
from ppvae.guides import FlowGuide, MeanFieldGaussian
from ppvae.guides.flow import Reversed
from ppvae.models import HierarchicalVAE, LinearGaussian
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.oracles import linear_gaussian, nearly_exact


def one_dead_unit():
    """A model with a second latent that does nothing, and its exact posterior as the guide."""
    model = LinearGaussian(torch.tensor([[1.5, 0.0], [0.5, 0.0]]), torch.zeros(2), 0.5).double()
    guide = MeanFieldGaussian(MLP(2, [], 4)).double()
    x = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    posterior = model.posterior(x)
    (layer,) = guide.encoder.layers
    with torch.no_grad():
        layer.bias[:2], layer.weight[2:] = posterior.mean[0], 0
        layer.weight[:2] = (posterior.mean[1:] - posterior.mean[0]).T
        layer.bias[2:] = posterior.stddev[0].log()
    return model, guide


def simulated(model, rows: int) -> torch.Tensor:
    torch.manual_seed(3)
    z = torch.randn(rows, model.weight.shape[1]).double()
    return (z @ model.weight.T + model.bias + model.log_scale.exp() * torch.randn(rows, len(model.bias))).detach()


def test_latent_statistics_of_a_model_with_one_dead_unit_are_the_closed_forms():
    model, guide = one_dead_unit()
    x = simulated(model, 3000)
    found = ppvae.latent_statistics(model, guide, x, num_particles=20)
    posterior = model.posterior(x)
    variance = posterior.variance[0]
    assert found.active_units == 1
    torch.testing.assert_close(found.variance_of_means, posterior.mean.var(0).detach(), rtol=0.05, atol=1e-3)
    kl = 0.5 * (posterior.mean.square() + variance - 1 - variance.log()).mean(0).detach()
    torch.testing.assert_close(found.kl_per_dimension, kl)
    assert found.rate == pytest.approx(kl.sum().item(), rel=1e-6)
    # At the exact posterior under the model's own data q(z) is the prior: I = H(z) - H(z | x).
    exact = -0.5 * variance.log().sum().item()
    assert found.mutual_information == pytest.approx(exact, abs=0.05)
    assert abs(found.aggregate_kl) < 0.05
    assert found.rate + found.distortion == pytest.approx(-model.log_evidence(x).mean().item(), abs=0.03)


def test_variance_of_means_subtracts_the_noise_of_draws_where_the_mean_has_no_formula():
    model, guide = one_dead_unit()
    reversed_twice = FlowGuide(guide.encoder, [Reversed(), Reversed()], 2)  # the same q, as a flow
    x = simulated(model, 3000)
    found = ppvae.latent_statistics(model, reversed_twice, x, num_particles=20)
    exact = ppvae.latent_statistics(model, guide, x).variance_of_means
    torch.testing.assert_close(found.variance_of_means, exact, rtol=0.05, atol=5e-3)
    assert found.active_units == 1


def test_mutual_information_is_at_most_log_n():
    model, _ = linear_gaussian()
    guide = nearly_exact(model)
    with torch.no_grad():
        guide.encoder.layers[0].bias[2:] = -12.0
    found = ppvae.latent_statistics(model, guide, simulated(model, 50))
    assert found.log_n == pytest.approx(math.log(50))
    assert found.mutual_information == pytest.approx(found.log_n, abs=1e-6)


def test_latent_statistics_refuses_discrete_latents_and_unknown_sites():
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match="without discrete sites"):
        ppvae.latent_statistics(model, guide, x)
    model, guide, x = PAIRS["user"].make()
    with pytest.raises(ppvae.ContractError, match="'depth'; this pair has"):
        ppvae.latent_statistics(model, guide, x, site="depth")
    assert ppvae.latent_statistics(model, guide, x, site="shape").kl_per_dimension.shape == (2,)


class TwoLayers(ppvae.Guide):
    """q(z1 | x) q(z2 | z1) with E_q[z2 | x] = 2 E_q[z1 | x] = 2 x."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x, 0.5).to_event(1))
            pyro.sample("z2", dist.Normal(2 * z1, 0.3).to_event(1))


def two_layers() -> tuple[HierarchicalVAE, TwoLayers, torch.Tensor]:
    torch.manual_seed(5)
    model = HierarchicalVAE(MLP(1, [], 1), [MLP(1, [], 2)], 1, Gaussian()).double()
    with torch.no_grad():
        model.conditionals[0].layers[0].weight[1] = 0.1  # of the log of a scale: no tails to speak of
    return model, TwoLayers(), torch.randn(2000, 1).double()


def test_latent_statistics_of_a_site_below_or_above_another():
    model, guide, x = two_layers()
    found = {site: ppvae.latent_statistics(model, guide, x, site=site, num_particles=20) for site in ("z1", "z2")}
    variance = x.var(0, correction=0)
    torch.testing.assert_close(found["z1"].variance_of_means, variance)
    torch.testing.assert_close(found["z2"].variance_of_means, 4 * variance, rtol=0.02, atol=0)  # not its noise too
    # q(z2 | x) is not what the guide draws z2 from; p(z1 | z2) depends on a later draw.
    assert math.isnan(found["z2"].mutual_information)
    assert math.isnan(found["z1"].aggregate_kl)
    assert found["z1"].kl_per_dimension.isnan().all()
    exact = 0.5 * (0.3**2 + 4 * (variance + x.mean() ** 2 + 0.25) - 1) - math.log(0.3)
    torch.testing.assert_close(found["z2"].kl_per_dimension, exact, rtol=0.02, atol=0)
    assert found["z1"].mutual_information > 0.5


def test_rates_of_all_sites_and_the_distortion_add_up_to_the_bound():
    model, guide, x = two_layers()
    found = [ppvae.latent_statistics(model, guide, x, site=site, num_particles=50) for site in ("z1", "z2")]
    loss = ppvae.evaluate_loss(ppvae.ELBO(50), model, guide, Dataset(x), seed=1)
    assert sum(each.rate for each in found) + found[0].distortion == pytest.approx(loss, rel=0.01)


def test_active_units_needs_two_draws_where_the_mean_has_no_formula():
    model, guide, x = two_layers()
    found = ppvae.latent_statistics(model, guide, x, site="z2", num_particles=1)
    assert found.variance_of_means.isnan().all()
    assert "? of 1 units active" in repr(found)
    with pytest.raises(ValueError, match="num_particles of at least 2"):
        _ = found.active_units


class ScalarModel(ppvae.Model):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)


class ShiftedPrior(ppvae.Model):
    def forward(self, x, y=None, *, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)


class ScalarGuide(ppvae.Guide):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0] / 2, 0.5**0.5))


def test_latent_statistics_of_a_scalar_latent_has_one_unit():
    x = 2**0.5 * torch.randn(3000, 1, generator=torch.Generator().manual_seed(0)).double()
    found = ppvae.latent_statistics(ScalarModel(), ScalarGuide(), x)
    assert found.active_units == 1
    assert found.kl_per_dimension.item() == pytest.approx(found.rate)
    assert found.mutual_information == pytest.approx(0.5 * math.log(2), abs=0.05)  # the exact posterior's


def test_latent_statistics_are_the_same_whatever_the_chunk():
    model, _ = linear_gaussian()
    guide, x = nearly_exact(model), simulated(model, 100)
    whole, parts = (ppvae.latent_statistics(model, guide, x, chunk=chunk, num_particles=50) for chunk in (100, 7))
    torch.testing.assert_close(parts.variance_of_means, whole.variance_of_means)
    torch.testing.assert_close(parts.kl_per_dimension, whole.kl_per_dimension)
    assert parts.rate == pytest.approx(whole.rate)
    # From other draws: both within the noise of 100 data, of standard errors of about .1 here.
    assert parts.mutual_information == pytest.approx(whole.mutual_information, abs=0.4)
    assert parts.distortion == pytest.approx(whole.distortion, abs=0.1)


def test_latent_statistics_evaluates_no_more_at_once_than_chunk():
    model, guide, x = PAIRS["gaussian_vae"].make()
    seen = {"data": [], "pairs": []}
    model.decoder.register_forward_hook(lambda module, args, out: seen["data"].append(out.shape[1]))
    distribution = guide.distribution
    guide.distribution = lambda features: seen["pairs"].append(len(features)) or distribution(features)
    ppvae.latent_statistics(model, guide, x, chunk=2)
    assert max(seen["data"][-3:]) == 2
    assert max(seen["pairs"][-3:]) == 2


def test_mutual_information_in_blocks_is_the_one_of_all_pairs_of_data():
    model, _ = linear_gaussian()
    guide, x = nearly_exact(model), simulated(model, 30)
    posterior = guide.distribution(guide.encoder(x))
    z = posterior.sample()
    scores = posterior.log_prob(z.unsqueeze(1))  # (draw, datum)
    exact = (scores.diagonal() - scores.logsumexp(1) + math.log(30)).mean().item()
    for chunk in (30, 7, 1):
        blocks = (guide.distribution(guide.encoder(part)) for part in x.split(chunk))
        assert _mutual_information(blocks, z, chunk) == pytest.approx(exact)


def test_latent_statistics_has_no_aggregate_kl_where_the_prior_depends_on_a_condition():
    """Two priors that differ in the last rows only, beyond the first block."""
    x = torch.zeros(20, 1).double()
    same = ppvae.latent_statistics(ScalarModel(), ScalarGuide(), x, chunk=4)
    assert same.aggregate_kl == pytest.approx(same.rate - same.mutual_information)
    c = torch.zeros(20).double()
    c[19] = 1.0
    found = ppvae.latent_statistics(ShiftedPrior(), ScalarGuide(), x, chunk=4, c=c)
    assert math.isnan(found.aggregate_kl)
    assert found.rate > 0

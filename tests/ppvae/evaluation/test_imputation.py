"""Imputation against exact conditionals: of linear-Gaussian models, and of mixtures of them."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.distributions.elements import SummedElements
from ppvae.distributions.gaussians import standard_normal
from ppvae.distributions.likelihoods import Bernoulli, Gaussian
from ppvae.distributions.missing import ObservedElements
from ppvae.engine.tracing import signature_of
from ppvae.guides import LabelGuide, LabelStyleGuide, MeanFieldGaussian
from ppvae.models import GaussianVAE, LinearGaussian
from ppvae.nn import MLP, FillMissing, LabelledMLP
from tests.catalogue import ALL_PAIRS, PAIRS
from tests.ppvae.oracles import Exact, NormalWithoutMean, labelled_linear, labelled_linear_moments

NAN = math.nan


def incomplete():
    """A linear-Gaussian model and six data of five elements, of which one to four are missing."""
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7, missing=True).double()
    x = torch.randn(6, 5).double()
    for row, missing in enumerate([[0], [1, 3], [0, 1, 2], [4], [0, 1, 2, 3], [2, 3]]):
        x[row, missing] = NAN
    return model, x


class Wide(Exact):
    """The posterior of an oracle with standard deviations 1.5 times too large, and a mean that is off by 0.2."""

    def forward(self, x, y=None):
        posterior = self._oracle[0].posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(posterior.mean + 0.2, 2.25 * posterior.covariance_matrix))


def conditional(mean, covariance, x):
    """Mean (M,) and covariance (M, M) of the missing elements of one datum x given the others, of a joint Gaussian."""
    out, seen = x.isnan(), ~x.isnan()
    gain = covariance[out][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
    return mean[out] + gain @ (x[seen] - mean[seen]), covariance[out][:, out] - gain @ covariance[seen][:, out]


def joint(model):
    noise = (2 * model.log_scale).exp() * torch.eye(5).double()
    return model.bias.detach(), (model.weight @ model.weight.T + noise).detach()


@pytest.mark.parametrize("guide", [Exact, Wide])
def test_impute_gives_mean_and_covariance_of_the_exact_conditional(guide):
    model, x = incomplete()
    found = ppvae.impute(model, guide(model), x, num_particles=20_000, num_samples=5000)
    assert found.is_reliable
    for row, datum in enumerate(x):
        mean, covariance = conditional(*joint(model), datum)
        missing = datum.isnan()
        error = found.standard_error[row, missing]
        assert (error > 0).all()
        assert ((found.mean[row, missing] - mean).abs() < 4 * error).all()
        draws = found.samples[:, row, missing]
        variance = covariance.diagonal()
        # 5,000 draws of 20,000 weighted particles: their error is at most twice that of independent ones
        assert ((draws.mean(0) - mean).abs() < 8 * (variance / 5000).sqrt()).all()
        spread = ((variance[:, None] * variance + covariance.square()) / 5000).sqrt()
        assert ((draws.T.cov().reshape(covariance.shape) - covariance).abs() < 8 * spread).all()


def test_impute_standard_error_is_the_deviation_over_seeds():
    model, x = incomplete()
    found = [ppvae.impute(model, Wide(model), x, num_particles=500, seed=seed) for seed in range(200)]
    means = torch.stack([each.mean for each in found])
    error = torch.stack([each.standard_error for each in found]).square().mean(0).sqrt()
    missing = x.isnan()
    ratio = means.std(0)[missing] / error[missing]
    assert ((ratio - 1).abs() < 0.2).all()  # four errors of a deviation from 200 seeds


def test_impute_weighs_draws_of_the_exact_posterior_equally():
    model, x = incomplete()
    found = ppvae.impute(model, Exact(model), x, num_particles=50)
    torch.testing.assert_close(found.ess, torch.full((6,), 50.0).double())
    torch.testing.assert_close(found.weights.value, model.log_evidence(x).detach())


def test_impute_weights_are_those_of_log_marginal():
    model, x = incomplete()
    found = ppvae.impute(model, Wide(model), x, num_particles=4000)
    evidence = ppvae.log_marginal(model, Wide(model), x, proposal=None, num_particles=4000, seed=1)
    error = (found.weights.standard_error.square() + evidence.standard_error.square()).sqrt()
    assert ((found.weights.value - evidence.value).abs() < 4 * error).all()
    assert (found.ess < 4000).all()


def test_impute_leaves_seen_elements_as_they_are():
    model, x = incomplete()
    found = ppvae.impute(model, Wide(model), x, num_samples=3, num_particles=20)
    seen = ~x.isnan()
    assert torch.equal(found.mean[seen], x[seen])
    assert (found.standard_error[seen] == 0).all()
    assert torch.equal(found.samples[:, seen], x[seen].expand(3, -1))
    assert torch.isfinite(found.samples).all()
    assert found.samples.std(0)[~seen].min() > 0


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.5)])
def test_impute_gives_complete_data_back_whether_or_not_the_likelihood_takes_missing_ones(likelihood):
    model, guide = GaussianVAE(MLP(2, [], 5), 2, likelihood), MeanFieldGaussian(MLP(5, [], 4))
    x = torch.rand(3, 5).bernoulli()
    found = ppvae.impute(model, guide, x, num_particles=10)
    assert torch.equal(found.mean, x)
    assert torch.equal(found.samples, x.expand(5, -1, -1))


class WithMissing(ppvae.Model):
    """A model of data with missing elements, from a model whose elements of x are independent given the latents."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, *args, **given):
        with _ObservedAlone():
            self.inner(x, *args, **given)

    forward.conditions_named_by = lambda module: signature_of(module.inner)


class _ObservedAlone(pyro.poutine.messenger.Messenger):
    def _pyro_sample(self, msg):
        fn = msg["fn"]
        if msg["name"] == "x":
            summed = isinstance(fn, SummedElements)
            single = fn.with_shape(fn.batch_shape + fn.event_shape, 0) if summed else fn.base_dist
            msg["fn"] = ObservedElements(single, fn.event_dim)


class OfFilled(ppvae.Guide):
    """A guide of data in which missing elements are replaced by 0."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, *args, **given):
        self.inner(x.nan_to_num(0.0), *args, **given)

    forward.conditions_named_by = lambda module: signature_of(module.inner)


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_impute_of_every_pair_has_draws_with_its_mean(name):
    """Draws are resampled from the particles that the mean is weighted over: they differ by the error of the draws."""
    pair = ALL_PAIRS[name]
    model, guide, batch = pair.make_batch()
    missing = batch.x.isnan()
    if not missing.any():
        model, guide = WithMissing(model), OfFilled(guide)
        torch.manual_seed(0)
        missing = torch.rand(batch.x.shape) < 0.3
        missing.flatten(1)[:, 0], missing.flatten(1)[:, 1] = True, False
    for kind in pair.kinds(batch.with_x(batch.x.masked_fill(missing, NAN))).values():
        found = ppvae.impute(model, guide, kind, num_samples=1000, num_particles=30)
        assert torch.equal(found.mean[~missing], kind.x[~missing])
        tolerance = 5 * (found.samples.std(0) / 1000**0.5)[missing] + 5 / 1000  # a pixel may be set in no draw
        assert ((found.samples.mean(0)[missing] - found.mean[missing]).abs() <= tolerance).all()
        assert ((found.ess > 0.99) & (found.ess < 30.01)).all()


@pytest.mark.parametrize("particles", [1, 2, 5])
def test_standard_error_is_that_of_few_particles_too(particles):
    """With the exact posterior as guide all weights are equal: the mean of the squared errors is the variance."""
    model, x = incomplete()
    found = [ppvae.impute(model, Exact(model), x, num_particles=particles, seed=seed) for seed in range(300)]
    missing = x.isnan()
    means, errors = (torch.stack([getattr(one, name)[missing] for one in found]) for name in ("mean", "standard_error"))
    if particles == 1:
        assert errors.isnan().all()
    else:
        ratio = errors.square().mean() / means.var(0).mean()
        assert ratio.item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("chunk", [1, 100, 10_000])
def test_impute_is_the_conditional_whatever_is_evaluated_at_once(chunk):
    model, x = incomplete()
    found = ppvae.impute(model, Wide(model), x, num_particles=100, chunk=chunk)
    whole = ppvae.impute(model, Wide(model), x, num_particles=20_000)
    error = (found.standard_error.square() + whole.standard_error.square()).sqrt()
    assert ((found.mean - whole.mean).abs() <= 4 * error).all()


class Filled(nn.Module):
    """A network of data, with zeros for missing elements, and of a class."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, y):
        return self.network(x.nan_to_num(0.0), y)


STYLES = {
    "one z": lambda classifier: LabelGuide(classifier, FillMissing(MLP(10, [], 4))),
    "one z for each class": lambda classifier: LabelStyleGuide(classifier, Filled(LabelledMLP(5, 3, [8], 4))),
}


def labelled(style):
    """A class that shifts a linear-Gaussian model, q(y | x) and q(z | x) or q(z | x, y), and incomplete data."""
    model, x = labelled_linear()
    model.likelihood.missing = True
    torch.manual_seed(1)
    guide = STYLES[style](FillMissing(MLP(10, [], 3))).double()
    x[0, 0], x[1, 1:4], x[2, 2], x[3, 3:], x[4, :4], x[5, 4] = 6 * [NAN]
    return model, guide, x


def mixture_conditional(model, x, classes):
    """E[x_missing | x_seen, y in classes] of one datum, by the classes' exact conditionals and their shares."""
    means, covariance = labelled_linear_moments(model)
    seen = ~x.isnan()
    density = [dist.MultivariateNormal(means[c][seen], covariance[seen][:, seen]).log_prob(x[seen]) for c in classes]
    share = torch.stack(density).softmax(0)
    return sum(share[i] * conditional(means[c], covariance, x)[0] for i, c in enumerate(classes))


@pytest.mark.parametrize("y", [None, [0, -1, 2, -1, 1, 2], [0, 1, 2, 0, 1, 2]])
@pytest.mark.parametrize("style", STYLES)
def test_impute_sums_over_unknown_labels_and_keeps_known_ones(style, y):
    model, guide, x = labelled(style)
    labels = None if y is None else torch.tensor(y)
    found = ppvae.impute(model, guide, x, labels, num_particles=20_000, num_samples=4000)
    for row, datum in enumerate(x):
        classes = range(3) if y is None or y[row] < 0 else [y[row]]
        missing = datum.isnan()
        mean, error = mixture_conditional(model, datum, classes).detach(), found.standard_error[row, missing]
        assert ((found.mean[row, missing] - mean).abs() < 4 * error).all()
        draws = found.samples[:, row, missing]
        spread = (error.square() + draws.var(0) / 4000).sqrt()
        assert ((draws.mean(0) - mean).abs() < 4 * spread).all()


class Conditional(ppvae.Model):
    """z ~ N(c, I), x ~ N(z, 0.5^2 I): a missing element of x has the mean c."""

    def forward(self, x, y=None, *, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, 1.0).to_event(1))
            pyro.sample("x", ObservedElements(dist.Normal(z, 0.5), 1), obs=x)


class OfCondition(ppvae.Guide):
    """The posterior of :class:`Conditional`."""

    def forward(self, x, y=None, *, c):
        seen = ~x.isnan()
        mean = torch.where(seen, c + 0.8 * (x.nan_to_num() - c), c)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, torch.where(seen, 0.2**0.5, 1.0)).to_event(1))


def test_impute_reads_conditions():
    torch.manual_seed(0)
    c, x = torch.randn(4, 3), torch.randn(4, 3)
    x[:, 1] = NAN
    found = ppvae.impute(Conditional(), OfCondition(), x, c=c, num_particles=4000)
    torch.testing.assert_close(found.ess, torch.full((4,), 4000.0).double(), rtol=1e-4, atol=0)
    assert ((found.mean - c)[:, 1].abs() < 4 * found.standard_error[:, 1]).all()


def test_impute_takes_images():
    model = GaussianVAE(MLP(3, [8], (4, 4)), 3, Bernoulli(missing=True))
    guide = MeanFieldGaussian(FillMissing(MLP((2, 4, 4), [8], 6)))
    x = torch.rand(5, 4, 4).bernoulli().masked_fill(torch.rand(5, 4, 4) < 0.5, NAN)
    found = ppvae.impute(model, guide, ppvae.Dataset(x), num_samples=2, num_particles=30, progress=True)
    assert found.samples.shape == (2, 5, 4, 4)
    assert ((found.mean >= 0) & (found.mean <= 1)).all()
    assert set(found.samples.unique().tolist()) == {0.0, 1.0}


class Meanless(ppvae.Model):
    """z ~ N(0, I), x ~ N(z, 0.01^2 I), of which the mean has no formula."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, 2))
            pyro.sample("x", ObservedElements(NormalWithoutMean(z, 0.01), 1), obs=x)


def test_impute_averages_draws_where_the_mean_has_no_formula():
    guide = MeanFieldGaussian(FillMissing(MLP(4, [], 4)))
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
    found = ppvae.impute(Meanless(), guide, torch.tensor([[0.5, NAN]]), num_particles=20_000)
    assert abs(found.mean[0, 1].item()) < 4 * found.standard_error[0, 1].item()


def test_impute_refuses_nan_where_the_likelihood_does_not_take_it():
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = MeanFieldGaussian(FillMissing(MLP(10, [], 4))).double()
    x[3, 1] = NAN
    with pytest.raises(ppvae.ContractError, match=r"NaN first in row 3.*likelihood with missing=True"):
        ppvae.impute(model, guide, x)


def test_impute_refuses_nan_where_the_encoder_does_not_take_it():
    _, guide, _ = PAIRS["linear_gaussian"].make()
    model, x = incomplete()
    with pytest.raises(ppvae.ContractError, match=r"FillMissing"):
        ppvae.impute(model, guide, x)


def test_impute_refuses_a_row_that_is_missing_altogether():
    model, x = incomplete()
    x[4:] = NAN
    with pytest.raises(ppvae.ContractError, match=r"in 2 of 6 rows, the first at row 4; leave these rows out"):
        ppvae.impute(model, Exact(model), x)

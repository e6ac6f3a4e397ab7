"""Weights that do not exist, closed forms of the KL, and distributions without a density."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from tests.catalogue import PAIRS


class Sites(ppvae.Model):
    """z ~ a given density, x ~ N(sum of z, 1); the same density serves as a guide's."""

    def __init__(self, density, observes=True):
        super().__init__()
        self.density, self.observes = density, observes
        self.shift = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.density())
            if self.observes:
                mean = z.reshape(*z.shape[: z.dim() - self.density().event_dim], -1).sum(-1) + self.shift
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def particles_between(q, p, rows=4, num_particles=2):
    x = torch.linspace(-1, 1, rows).double()
    return ppvae.draw(Sites(p), Sites(q, observes=False), x, num_particles=num_particles)


def number(value):
    return torch.tensor(value).double()


def classes(count):
    return lambda: dist.Categorical(torch.ones(count).double())


NO_WEIGHTS = {
    "a point mass for a normal": (lambda: dist.Delta(number(0.3)), lambda: dist.Normal(number(0.0), 1.0)),
    "2 classes of 3": (classes(2), classes(3)),
    "4 classes of 3": (classes(4), classes(3)),
    "a half-line for a line": (lambda: dist.LogNormal(number(0.0), 1.0), lambda: dist.Normal(number(0.0), 1.0)),
    "an interval for a line": (lambda: dist.Uniform(number(-9.0), 9.0), lambda: dist.Normal(number(0.0), 1.0)),
    "a relaxed class for a class": (
        lambda: dist.RelaxedOneHotCategoricalStraightThrough(number(0.5), torch.ones(3).double()),
        lambda: dist.OneHotCategorical(torch.ones(3).double()),
    ),
    "a point mass for a log-normal": (
        lambda: dist.TransformedDistribution(dist.Delta(number(0.3)), [dist.transforms.ExpTransform()]),
        lambda: dist.LogNormal(number(0.0), 1.0),
    ),
}
BOUNDS = {
    "elbo": ppvae.ELBO(2),
    "sampled elbo": ppvae.ELBO(2, analytic_kl=False),
    "sticking the landing": ppvae.StickingTheLanding(2),
    "iwae": ppvae.IWAE(2),
    "dreg": ppvae.DReG(2),
    "renyi": ppvae.Renyi(0.5, 2),
    "wake-sleep": ppvae.ReweightedWakeSleep(2),
    "forward kl": ppvae.ForwardKL(),
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_weights_of_a_guide_that_is_no_density_over_the_priors_space_are_refused(case):
    """A point mass, too few or too many classes, a half-line for a line, a relaxed class: p / q does not exist."""
    particles = particles_between(*NO_WEIGHTS[case])
    message = r"expected q\(z \| x\) to be a density over the whole space of the prior p\(z\), but q"
    with pytest.raises(ppvae.ContractError, match=message):
        _ = particles.log_weight
    with pytest.raises(ppvae.ContractError, match=message):
        particles.kl("z")


@pytest.mark.parametrize("objective", BOUNDS)
@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_objective_that_reads_a_density_of_q_refuses_such_a_guide(case, objective):
    q, p = NO_WEIGHTS[case]
    x = torch.linspace(-1, 1, 4).double()
    with pytest.raises(ppvae.ContractError, match="to be a density over the whole space of the prior"):
        BOUNDS[objective].differentiable_loss(Sites(p), Sites(q, observes=False), x)


def test_objectives_that_read_no_density_of_q_take_a_point_mass():
    vector = torch.tensor([0.3, -0.2]).double()
    particles = particles_between(
        lambda: dist.Delta(vector).to_event(1), lambda: dist.Normal(vector, 1.0).to_event(1), num_particles=1
    )
    for objective in (ppvae.Reconstruction(), ppvae.wae(), ppvae.adversarial_autoencoder(latent_dim=2)):
        assert torch.isfinite(objective.per_datum(particles)).all()


def test_check_pair_finds_bounds_of_a_support_that_are_tensors():
    """The bounds are numbers on the device: a check reads them, a training step does not."""
    narrow, wide = (lambda: dist.Uniform(number(-0.1), number(0.1))), (lambda: dist.Uniform(number(-1.0), number(1.0)))
    x = torch.linspace(-1, 1, 4).double()
    with pytest.raises(ppvae.ContractError, match=r"positive on \(-0\.1, 0\.1\) alone and p on \(-1, 1\)"):
        ppvae.check_pair(Sites(wide), Sites(narrow, observes=False), x)


CLOSED_FORMS = {
    "normal and normal": (
        lambda: dist.Normal(number([0.1, 2.0, -1.0, 0.0]), 0.3),
        lambda: dist.Normal(number(0.2), 1.5),
    ),
    "beta and uniform": (
        lambda: dist.Beta(number([2.0] * 4), number(1.5)),
        lambda: dist.Uniform(number(0.0), number(1.0)),
    ),
    "vectors of beta and uniform": (
        lambda: dist.Beta(number([2.0, 3.0]), number([1.5, 1.0])).to_event(1),
        lambda: dist.Uniform(number([0.0, 0.0]), number([1.0, 1.0])).to_event(1),
    ),
    "continuous bernoulli and uniform": (
        lambda: dist.ContinuousBernoulli(number([0.2, 0.5, 0.7, 0.9])),
        lambda: dist.Uniform(number(0.0), number(1.0)),
    ),
    "uniform and beta": (
        lambda: dist.Uniform(number([0.0] * 4), number(1.0)),
        lambda: dist.Beta(number(2.0), number(1.5)),
    ),
    "gamma and exponential": (
        lambda: dist.Gamma(number([2.0, 1.0, 3.0, 0.7]), number(1.5)),
        lambda: dist.Exponential(number(0.5)),
    ),
    "laplace and normal": (lambda: dist.Laplace(number([0.0] * 4), 1.0), lambda: dist.Normal(number(0.3), 2.0)),
    "full and diagonal covariance": (
        lambda: dist.MultivariateNormal(number([0.1, 0.2]), torch.eye(2).double() + 0.3),
        lambda: dist.Normal(number([0.0, 0.0]), number([1.0, 2.0])).to_event(1),
    ),
    "student and cauchy": (lambda: dist.StudentT(number([5.0] * 4)), lambda: dist.Cauchy(number(0.0), 1.0)),
}


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_kl_in_closed_form_has_the_mean_of_the_sampled_one(case):
    """A Beta guide with a Uniform prior trains under the default ELBO, and so do others where torch's form fails."""
    particles = particles_between(*CLOSED_FORMS[case], num_particles=20_000)
    sampled = particles.kl_integrand("z", analytic=False)
    error = sampled.std(0) / len(sampled) ** 0.5
    assert ((particles.kl("z") - sampled.mean(0)).abs() < 4.5 * error + 1e-12).all()
    assert torch.isfinite(ppvae.ELBO(20_000).per_datum(particles)).all()


def test_kl_of_beta_and_uniform_is_minus_the_entropy():
    particles = particles_between(*CLOSED_FORMS["beta and uniform"])
    torch.testing.assert_close(particles.kl("z"), -dist.Beta(number(2.0), number(1.5)).entropy().expand(4))


class Unreliable(dist.Laplace):
    """A family with a closed form that overflows for half of the data."""


@torch.distributions.register_kl(Unreliable, Unreliable)
def _overflows(q, p):
    return torch.where(torch.arange(q.batch_shape[-1]) < 2, torch.inf, 7.0).double().expand(q.batch_shape)


def test_kl_is_sampled_where_the_closed_form_is_not_finite():
    particles = particles_between(
        lambda: Unreliable(number([0.5] * 4), number(1.0)), lambda: Unreliable(number([0.0] * 4), number(1.0))
    )
    sampled = particles.kl_integrand("z", analytic=False)
    found = particles.kl_integrand("z")
    assert torch.equal(found[:, :2], sampled[:, :2])
    assert (found[:, 2:] == 7.0).all()


def test_kl_that_is_infinite_stays_so():
    """A uniform guide reaches beyond the prior's interval: both the closed form and the draws say infinity."""
    with pyro.validation_enabled(False):
        particles = particles_between(
            lambda: dist.Uniform(number([-3.0] * 4), number(3.0)), lambda: dist.Uniform(number(-1e-9), number(1e-9))
        )
        assert (particles.kl("z") == torch.inf).all()


class OneMask(ppvae.Guide):
    """A guide with a mask that its model does not have."""

    def __init__(self, by_poutine):
        super().__init__()
        self.by_poutine = by_poutine

    def forward(self, x, y=None):
        q = dist.Normal(x.new_zeros(2), 1.0).to_event(1)
        mask = torch.zeros(len(x), dtype=torch.bool)
        with pyro.plate("data", len(x)):
            if self.by_poutine:
                with pyro.poutine.mask(mask=mask):
                    pyro.sample("z", q)
            else:
                pyro.sample("z", q.expand([len(x)]).mask(mask))


@pytest.mark.parametrize("by_poutine", [True, False])
def test_log_weight_refuses_a_mask_over_one_of_two_densities(by_poutine):
    model, _, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match="the same mask over site 'z'"):
        _ = ppvae.draw(model, OneMask(by_poutine), x).log_weight

"""Latents as one unconstrained vector: exact inverses, volumes, and which supports it takes."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import Batch, as_batch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.evaluation.likelihood.coordinates import coordinates_of
from tests.catalogue import PAIRS


class ManySupports(ppvae.Model):
    """Latents on the line, the half-line, an interval that differs between data, and the simplex; and a class."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(2), self.one).to_event(1))
            b = pyro.sample("b", dist.Gamma(2 * self.one, 1.0))
            c = pyro.sample("c", dist.Uniform(-x[:, 0].abs(), 2 * self.one))
            d = pyro.sample("d", dist.Dirichlet(x.new_ones(3)))
            pyro.sample("e", dist.Categorical(logits=x.new_zeros(4)))
            pyro.sample("x", dist.Normal(a + (b + c + d[..., 0]).unsqueeze(-1), 1.0).to_event(1), obs=x)


def prior_draws(model, batch, draws):
    with torch.no_grad():
        sites = Pair(model, None).prior(batch, draws)
    return {name: site for name, site in sites.items() if name in "abcd"}


def make():
    model, batch = ManySupports(), as_batch(torch.randn(5, 2).double())
    with torch.no_grad():
        return model, batch, coordinates_of(Pair(model, None), batch)


def test_coordinates_are_of_every_continuous_latent():
    _, _, coordinates = make()
    assert dict(coordinates.shapes) == {"a": (2,), "b": (), "c": (), "d": (2,)}
    assert coordinates.dim == 6


def test_constrained_is_the_inverse_of_unconstrained():
    model, batch, coordinates = make()
    values = {
        name: site.value.expand(7, 5, *site.distribution.event_shape)
        for name, site in prior_draws(model, batch, 7).items()
    }
    u = coordinates.unconstrained(values)
    assert u.shape == (7, 5, 6)
    back, _ = coordinates.constrained(u)
    torch.testing.assert_close(back, values)
    again = coordinates.unconstrained(coordinates.constrained(torch.randn(7, 5, 6).double())[0])
    assert again.shape == (7, 5, 6)


def test_constrained_is_inside_the_supports_of_each_datum():
    model, batch, coordinates = make()
    values, _ = coordinates.constrained(10 * torch.randn(1000, 5, 6).double())
    for name, site in prior_draws(model, batch, 1).items():
        assert site.distribution.support.check(values[name]).all(), name
    low, high = values["c"].amin(0), values["c"].amax(0)
    torch.testing.assert_close(low, -batch.x[:, 0].abs(), rtol=0, atol=1e-3)
    torch.testing.assert_close(high, torch.full((5,), 2.0).double(), rtol=0, atol=1e-3)


def test_volume_is_the_determinant_of_the_jacobian():
    _, batch, coordinates = make()
    u = torch.randn(1, 5, 6).double()
    _, log_volume = coordinates.constrained(u)
    for row in range(len(batch)):

        def free(v, row=row):
            """Latents of one datum; the last number of a point of a simplex follows from the others."""
            values, _ = coordinates.constrained(torch.cat([u[:, :row], v[None, None], u[:, row + 1 :]], 1))
            parts = [values[name][0, row].reshape(-1) for name in "abcd"]
            return torch.cat([*parts[:3], parts[3][:2]])

        jacobian = torch.autograd.functional.jacobian(free, u[0, row])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_volume[0, row])


def test_density_of_the_prior_in_coordinates_integrates_to_one():
    """E_q[p(T(u)) |dT/du| / q(u)] = 1 for a wide q."""
    model, batch, coordinates = make()
    q = torch.distributions.StudentT(torch.tensor(3.0).double(), 0.0, 2.0)
    u = q.sample((200_000, 5, 6))
    values, log_volume = coordinates.constrained(u)
    prior = sum(site.distribution.log_prob(values[name]) for name, site in prior_draws(model, batch, 1).items())
    weight = (prior + log_volume - q.log_prob(u).sum(-1)).exp()
    assert ((weight.mean(0) - 1).abs() < 4 * weight.std(0) / 200_000**0.5).all()


@pytest.mark.parametrize("name", ["mixture_prior", "flow_prior"])
def test_coordinates_of_a_mixture_and_of_a_flow_are_the_latents_themselves(name):
    model, _, x = PAIRS[name].make()
    with evaluation(model, None, x) as (pair, batch):
        coordinates = coordinates_of(pair, batch)
    u = torch.randn(3, len(x), coordinates.dim).double()
    values, log_volume = coordinates.constrained(u)
    assert torch.equal(values["z"], u)
    assert not log_volume.any()


class Moving(ppvae.Model):
    """The support of the second latent ends at the first."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Uniform(torch.zeros_like(x[:, 0]), 2.0))
            below = pyro.sample("below", dist.Uniform(torch.zeros_like(top), top))
            pyro.sample("x", dist.Normal(below.unsqueeze(-1), 1.0).to_event(1), obs=x)


def test_coordinates_refuse_a_support_that_depends_on_another_latent():
    state = torch.get_rng_state()
    with pytest.raises(ppvae.ContractError, match=r"\['below'\], whose support depends on another latent"):
        coordinates_of(Pair(Moving(), None), Batch(torch.zeros(3, 1)))
    assert torch.equal(torch.get_rng_state(), state)

"""Which pairs a proposal can be fitted to, and why not to others."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.evaluation import evaluation
from ppvae.evaluation.likelihood.fitted import fittable
from ppvae.evaluation.likelihood.proposals import Laplace
from tests.catalogue import PAIRS
from tests.ppvae.evaluation.likelihood.known import LabelStyle, classes, small_linear
from tests.ppvae.evaluation.likelihood.unfitted import CountGuide, OneSite, SameSite, WithCount, angle
from tests.ppvae.oracles import gaussian_mixture


def refused(model, guide, x, y=None):
    with evaluation(model, guide, x, y) as (pair, batch), pytest.raises(ppvae.ContractError) as error:
        fittable(pair, batch)
    message = str(error.value)
    assert message.startswith("expected continuous latents, to fit a proposal to their posterior, but ")
    assert message.endswith("call log_marginal with proposal=None, for the guide's weights")
    return message


def test_fittable_refuses_discrete_latents_alone():
    model, x = gaussian_mixture()
    assert "every latent of this pair is discrete: ['z']" in refused(model, PAIRS["mixture"].guide().double(), x)


def test_fittable_refuses_a_discrete_latent_that_is_not_enumerated():
    assert "the discrete site 'n' is not enumerated" in refused(WithCount(), CountGuide(), torch.rand(3).double())


def test_fittable_refuses_an_angle():
    message = refused(OneSite(angle), SameSite(angle), torch.randn(3, 2).double())
    assert "the support of the latent 'z' is no image of the real line: q has support Real() and p a circle" in message


def test_fittable_refuses_a_point_mass():
    def point(x):
        return dist.Delta(torch.zeros_like(x)).to_event(1)

    assert "the latent 'z' is a point mass" in refused(OneSite(point), SameSite(point), torch.randn(3, 2).double())


def test_fittable_refuses_a_masked_latent():
    def masked(x):
        return dist.Normal(torch.zeros_like(x), 1.0).to_event(1).mask(torch.ones(len(x), dtype=torch.bool))

    assert "the latent 'z' is masked" in refused(OneSite(masked), SameSite(masked), torch.randn(3, 2).double())


class ByClass(ppvae.Model):
    """The interval of z ends at y + 1."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(2)), obs=y)
            top = (y + 1).to(x) * self.one
            z = pyro.sample("z", dist.Uniform(torch.zeros_like(top), top))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class ByClassGuide(ppvae.Guide):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(2)))
            top = (y + 1).to(x)
            pyro.sample("z", dist.Uniform(torch.zeros_like(top), top))


@pytest.mark.parametrize("seed", range(4))
def test_fittable_refuses_a_support_that_depends_on_a_class(seed):
    with (
        evaluation(ByClass(), ByClassGuide(), torch.rand(1).double(), seed=seed) as (pair, batch),
        pytest.raises(ppvae.ContractError, match=r"\['z'\], whose support depends on another latent"),
    ):
        fittable(pair, batch)


def test_fittable_takes_every_kind_of_row():
    """Labelled rows have no discrete latent left; unlabelled ones do."""
    for labelled in ("none", "some", "all"):
        known = classes(LabelStyle, labelled, 4)
        with evaluation(known.model, known.guide, known.batch) as (pair, batch):
            assert fittable(pair, batch).dim == 3


def test_fittable_refuses_inference_mode():
    known = small_linear(3)
    with torch.inference_mode():
        found = ppvae.log_marginal(known.model, known.guide, known.batch, num_particles=60)
        with pytest.raises(ppvae.ContractError, match=r"torch.inference_mode\(\) is on"):
            ppvae.log_marginal(known.model, known.guide, known.batch, proposal=Laplace())
    assert "torch.inference_mode() is on" in found.not_fitted
    with torch.no_grad():
        found = ppvae.log_marginal(known.model, known.guide, known.batch, proposal=Laplace(scale=1.0))
    torch.testing.assert_close(found.value, known.evidence)

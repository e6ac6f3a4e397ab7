"""The path of annealing: coordinates, densities, and which latents it takes."""

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.engine.evaluation import evaluation
from ppvae.evaluation import Annealing
from ppvae.evaluation.likelihood.path import Path
from tests.catalogue import PAIRS
from tests.ppvae.evaluation.likelihood.more_known import bounded


class Nested(ppvae.Model):
    """z ~ U(0, 2) and, within it, below ~ U(0, top)."""

    def __init__(self, moving: bool):
        super().__init__()
        self.moving = moving

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            top = pyro.sample("z", dist.Uniform(torch.zeros_like(x[:, 0]), 2.0))
            below = pyro.sample("below", dist.Uniform(torch.zeros_like(top), top if self.moving else 2.0))
            pyro.sample("x", dist.Normal((top + below).unsqueeze(-1), 1.0).to_event(1), obs=x)


def test_path_takes_a_bounded_support_that_is_fixed_and_refuses_one_that_depends_on_a_latent():
    x = torch.tensor([[0.5], [2.0]]).double()
    with pytest.raises(ppvae.ContractError, match=r"\['below'\], whose support depends on another latent"):
        ppvae.ais(Nested(moving=True), x)
    found = ppvae.ais(Nested(moving=False), x, annealing=Annealing(temperatures=30, chains=200, leapfrog_steps=5))
    grid = torch.linspace(0, 2, 401).double()[:-1] + 0.0025
    total = (grid[:, None] + grid).flatten()
    exact = dist.Normal(total, 1.0).log_prob(x).logsumexp(1) - 2 * torch.tensor(400.0).double().log()
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()


@pytest.mark.parametrize("with_guide", [False, True])
def test_path_goes_from_the_prior_or_the_guide_to_the_joint_density(with_guide):
    model, guide, x = PAIRS["user"].make()
    with evaluation(model, guide, x) as (pair, batch):
        pair = ppvae.engine.pair.Pair(model, guide if with_guide else None)
        path = Path(pair, batch, chains=3)
        u = path.start()
        assert u.shape == (3, 6, 3)
        ends = path.log_densities(u)
        for beta, end in zip((0.0, 1.0), ends, strict=True):
            torch.testing.assert_close(path.log_density(beta)(u), end)
        shape, size = u[..., :2], u[..., 2].exp()
        sites = pair.model_at(batch, {"shape": shape, "size": size}, 3)
        volume = u[..., 2]  # log |d exp(u) / du|
        torch.testing.assert_close(ends[1], sum(site.log_prob for site in sites.values()) + volume)


def test_path_takes_a_support_that_differs_between_data():
    known = bounded()
    found = ppvae.ais(known.model, known.batch, annealing=Annealing(temperatures=30, chains=200, leapfrog_steps=5))
    assert ((found.value - known.evidence).abs() < 4 * found.standard_error).all()
    assert found.standard_error.max() < 0.1

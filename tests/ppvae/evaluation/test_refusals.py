"""Bad input: every estimate is refused in words, with the datum where there is one; never a silent number."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.evaluation import annealing, inference_data
from ppvae.evaluation.likelihood.hmc import hmc_step
from tests.catalogue import PAIRS
from tests.ppvae.oracles import linear_gaussian, nearly_exact

ANNEALING = {"temperatures": 3, "chains": 2, "leapfrog_steps": 2}
ESTIMATES = {
    "log_marginal": lambda model, guide, x: ppvae.log_marginal(model, guide, x, num_particles=30),
    "ais": lambda model, guide, x: ppvae.ais(model, x, guide=guide, **ANNEALING),
    "bdmc": lambda model, guide, x: ppvae.bdmc(model, x, guide=guide, **ANNEALING),
    "upper_bound": lambda model, guide, x: ppvae.upper_bound(model, guide, x, num_particles=5),
    "calibration": lambda model, guide, x: ppvae.calibration(model, guide, x, draws=9),
    "gaps": lambda model, guide, x: ppvae.gaps(model, guide, x, num_particles=30, max_windows=1),
    "latent_statistics": ppvae.latent_statistics,
    "compare": lambda model, guide, x: ppvae.compare(model, {"only": guide}, x, num_particles=30),
    "inference_data": lambda model, guide, x: inference_data(model, guide, x, draws=5),
    "evaluate_loss": lambda model, guide, x: ppvae.evaluate_loss(ppvae.ELBO(), model, guide, ppvae.Dataset(x)),
}


@pytest.mark.parametrize("estimate", ["ais", "bdmc", "upper_bound", "latent_statistics"])
def test_a_guide_that_cannot_score_where_its_scores_are_needed(estimate):
    model, guide, x = PAIRS["flow_planar"].make()
    with pytest.raises(ppvae.ContractError, match=r"expected a guide that can score.*got FlowGuide.*use a guide with"):
        ESTIMATES[estimate](model, guide, x)


class HiddenClass(ppvae.Model):
    """A discrete latent that the guide does not know of."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 5).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(3)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z) + w.unsqueeze(-1), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_discrete_model_site_that_nobody_enumerates(estimate):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"\['w'\]"):
        ESTIMATES[estimate](HiddenClass(), guide, x)


def marked(by_row: bool):
    """A pair whose guide answers NaN for the last of six data: by its place, or by what is in it."""
    model, _ = linear_gaussian()
    guide, x = nearly_exact(model), torch.randn(6, 5).double()
    x[5, 0] = 30.0
    rows = (lambda given: torch.arange(len(given)) == 5) if by_row else (lambda given: given[:, 0] == 30.0)
    guide.encoder.register_forward_hook(
        lambda module, args, out: out.masked_fill(rows(args[0]).unsqueeze(-1), math.nan)
    )
    return model, guide, x


@pytest.mark.parametrize("estimate", sorted(set(ESTIMATES) - {"evaluate_loss"}))
def test_nan_weights_are_an_error_that_names_the_datum(estimate):
    simulated = estimate in ("bdmc", "upper_bound", "calibration")
    with pytest.raises(ppvae.ContractError, match=r"finite weights.*row 5"):
        ESTIMATES[estimate](*marked(by_row=simulated))


def test_gaps_count_the_rows_over_all_batches():
    with pytest.raises(ppvae.ContractError, match=r"finite weights.*row 5"):
        ppvae.gaps(*marked(by_row=False), num_particles=30, max_windows=1, batch_size=2)


def test_a_nan_loss_is_nan():
    assert math.isnan(ESTIMATES["evaluate_loss"](*marked(by_row=False)))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda m, g, x: ppvae.log_marginal(m, g, x, num_particles=0), "num_particles and chunk of at least 1, got 0"),
        (lambda m, g, x: ppvae.log_marginal(m, g, x, chunk=0), "of at least 1, got 1000 and 0"),
        (lambda m, g, x: ppvae.ais(m, x, chains=0), "chains.*above 0"),
        (lambda m, g, x: ppvae.bdmc(m, x, temperatures=-1), "temperatures.*above 0"),
        (lambda m, g, x: ppvae.upper_bound(m, g, x, num_particles=0), "at least 2, got 0"),
        (lambda m, g, x: ppvae.calibration(m, g, x, draws=0), "draws of at least 1, got 0"),
        (lambda m, g, x: ppvae.gaps(m, g, x, num_particles=0), "num_particles.*above 0"),
        (lambda m, g, x: ppvae.latent_statistics(m, g, x, num_particles=0), "at least 1, got 0"),
        (lambda m, g, x: ppvae.compare(m, {"only": g}, x, num_particles=0), "at least 1, got 0"),
        (lambda m, g, x: inference_data(m, g, x, draws=0), "at least 1, got 0"),
    ],
)
def test_numbers_below_one(run, message):
    with pytest.raises(ValueError, match=message):
        run(*PAIRS["linear_gaussian"].make())


def test_one_datum_whose_chains_never_accept_is_named(monkeypatch):
    model, x = linear_gaussian()

    def stuck(log_density, u, *rest):
        moved, accepted = hmc_step(log_density, u, *rest)
        accepted[:, 2], moved[:, 2] = False, u[:, 2]
        return moved, accepted

    monkeypatch.setattr(annealing, "hmc_step", stuck)
    with pytest.warns(UserWarning, match="no chain of 1 data ever accepted a transition, the first at row 2"):
        estimate = ppvae.ais(model, x, temperatures=5, chains=8)
    assert estimate.acceptance[2] == 0
    assert (estimate.acceptance[[0, 1, 3]] > 0).all()

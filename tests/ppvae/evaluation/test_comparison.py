"""Comparisons: paired differences, what is refused, JSON, and the hand-over to ArviZ."""

import json
import math

import arviz
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.distributions.gaussians import FullGaussian
from ppvae.evaluation import Annealing
from ppvae.models import LinearGaussian
from tests.catalogue import PAIRS
from tests.ppvae.oracles import linear_gaussian, nearly_exact, three_guides


def printed(found: ppvae.Comparison, capsys) -> str:
    """The table on a wide console, with single spaces."""
    found.print()
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")


def test_comparison_prints_plots_and_saves_every_pair(tmp_path, capsys):
    model, guides, x = three_guides()
    result = ppvae.compare(model, guides, x, num_particles=500, annealing=Annealing(temperatures=20, chains=4))
    result.save(tmp_path / "comparison.json")
    records = json.loads((tmp_path / "comparison.json").read_text())
    assert list(records) == list(guides)
    assert records["exact"]["elbo_from_best"] == 0
    assert records["wide"]["ais"] == records["wider"]["ais"]  # one model: annealed once
    assert records["wide"]["approximation_gap"] is None
    text = printed(result, capsys)
    assert "ELBO less the best 500-particle bound less the best log p(x) ──" in text
    assert "guide's k-hat bad guide's ESS log p(x) failed simulation error sampling error AIS seconds" in text
    assert text.count("± ") == 6
    assert "lower bound" not in text
    result.plot().savefig(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 5000


def test_records_judge_the_guide_by_its_weights_and_log_p_by_its_own():
    model, x = linear_gaussian()
    guides = {"narrow": nearly_exact(model, 0.35), "narrower": nearly_exact(model, 0.25)}
    result = ppvae.compare(model, guides, x, num_particles=1000)
    for name, record in result.records().items():
        marginal = result.rows[name].marginal
        assert record["guide_khat_bad"] == marginal.guide.khat_bad > record["log_p_failed"] == marginal.khat_bad == 0
        assert record["guide_median_ess"] == marginal.guide.median_ess < marginal.median_ess
        assert record["elbo"] == marginal.bound(1).mean().item()
        assert record["guide_bound"] == marginal.bound(1000).mean().item() < record["log_p"] == marginal.mean
        assert record["log_p_simulation_error"] == marginal.simulation_error
        assert record["log_p_sampling_error"] == marginal.sampling_error
        assert record["log_p_fitted"] == 1
        assert record["log_p_is_lower_bound"] is False
        assert record["log_p_from_best"] is None  # one model


def test_comparison_of_several_models_has_differences_of_log_p(capsys):
    first, x = linear_gaussian()
    second = LinearGaussian(0.1 * torch.ones(5, 2), torch.zeros(5), 0.7).double()
    pairs = {"first": (first, nearly_exact(first)), "second": (second, nearly_exact(second))}
    result = ppvae.compare_pairs(pairs, x, num_particles=200)
    records = result.records()
    worse = min(records, key=lambda name: records[name]["log_p"])
    (better,) = records.keys() - {worse}
    assert records[better]["log_p_from_best"] == 0
    mean, error = result.difference(worse, better)
    assert (records[worse]["log_p_from_best"], records[worse]["log_p_from_best_standard_error"]) == (mean, error)
    assert mean == pytest.approx(records[worse]["log_p"] - records[better]["log_p"])
    assert "log p(x) less the best ──" in printed(result, capsys)
    assert [handle.get_label() for handle in result.plot().axes[0].containers] == [
        "evidence bound",
        "200-particle bound",
        "log p(x)",
    ]


def test_comparison_marks_lower_bounds(capsys):
    model, x = linear_gaussian()
    guides = {"narrow": nearly_exact(model, 0.35)}
    result = ppvae.compare(model, guides, x, num_particles=1000, proposal=None)
    record = result.records()["narrow"]
    assert record["log_p_is_lower_bound"] is True
    text = printed(result, capsys)
    assert f"≥ {record['log_p']:.2f}" in text
    assert "≥: lower bound, since k-hat is bad" in text


class Folded(ppvae.Model):
    """z ~ N(0, I_2), x ~ N((z_1^2, z_2), .03^2 I): the sign of z_1 is unknown."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.shift, 1.0).to_event(1))
            mean = torch.stack([z[..., 0].square(), z[..., 1]], -1)
            pyro.sample("x", dist.Normal(mean, 0.03).to_event(1), obs=x)


class BothModes(ppvae.Guide):
    """A Gaussian that covers both signs of z_1 and all between them, which costs many effective draws."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            loc = torch.stack([torch.zeros_like(x[:, 0]), x[:, 1]], -1)
            pyro.sample("z", dist.Normal(loc, torch.tensor([1.5, 0.05]).to(x)).to_event(1))


class OneMode:
    """The Gaussian at the mode with a positive z_1."""

    def __init__(self, x):
        self.x = x

    def fit(self, log_joint, start):
        mode = torch.stack([self.x[:, 0].sqrt(), self.x[:, 1]], -1)
        scales = 0.03 / torch.stack([2 * mode[:, 0], torch.ones(3)], -1)
        return FullGaussian(mode, 1.1 * torch.diag_embed(scales))


def test_comparison_marks_a_log_p_below_the_bound_of_a_guide_that_covers_more_modes():
    x = torch.tensor([[1.0, 0.0], [1.5, 0.5], [2.0, -0.5]]).double()
    found = ppvae.compare(Folded(), {"both": BothModes()}, x, proposal=OneMode(x), num_particles=20_000)
    (record,) = found.records().values()
    assert record["log_p"] == pytest.approx(record["guide_bound"] - math.log(2), abs=0.1)
    assert record["log_p_failed"] == 0  # k-hat shows nothing
    assert record["log_p_is_lower_bound"] is True


def test_comparison_of_labelled_data_names_what_is_estimated(capsys):
    model, guide, x = PAIRS["label"].make()
    result = ppvae.compare(model, {"only": guide}, x, torch.zeros(6, dtype=torch.long), num_particles=50)
    assert result.quantity == "log p(x, y)"
    assert "log p(x, y) failed" in printed(result, capsys)


def test_to_arviz_holds_draws_of_the_posterior():
    model, guides, x = three_guides()
    data = ppvae.compare(model, guides, x, num_particles=100).to_arviz("wider", draws=4000)
    z = data["posterior"]["z"]
    assert z.shape == (1, 4000, 4, 2)
    posterior = model.posterior(x)
    mean = torch.from_numpy(z.values[0].mean(0))
    assert ((mean - posterior.mean).abs() < 5 * posterior.stddev / 1000**0.5).all()
    variance = torch.from_numpy(z.values[0].var(0))
    torch.testing.assert_close(variance, posterior.variance.detach(), rtol=0.15, atol=0)
    assert data["log_likelihood"]["x"].shape == (1, 4000, 4)
    assert abs(float(data["prior"]["z"].values.std()) - 1) < 0.05
    assert data["observed_data"]["x"].shape == (4, 5)
    assert len(arviz.summary(data, var_names=["z"])) == 8

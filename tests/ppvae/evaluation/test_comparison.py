"""Comparisons: paired differences, what is refused, JSON, and the hand-over to ArviZ."""

import json

import arviz
import torch

import ppvae
from ppvae.evaluation import Annealing
from tests.ppvae.oracles import three_guides


def test_comparison_prints_plots_and_saves_every_pair(tmp_path, capsys):
    model, guides, x = three_guides()
    result = ppvae.compare(model, guides, x, num_particles=500, annealing=Annealing(temperatures=20, chains=4))
    result.save(tmp_path / "comparison.json")
    records = json.loads((tmp_path / "comparison.json").read_text())
    assert list(records) == list(guides)
    assert records["exact"]["elbo_from_best"] == 0
    assert records["wide"]["ais"] == records["wider"]["ais"]  # one model: annealed once
    assert records["wide"]["approximation_gap"] is None
    marginal = result.rows["wide"].marginal
    assert records["wide"]["khat_bad"] == marginal.khat_bad
    assert records["wide"]["log_p_simulation_error"] == marginal.simulation_error
    assert records["wide"]["log_p_sampling_error"] == marginal.sampling_error
    result.print()
    printed = capsys.readouterr().out
    assert "wider" in printed
    assert "AIS" in printed
    assert "k-hat bad" in printed
    assert "gap" not in printed
    assert printed.count("± ") == 6
    result.plot().savefig(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 5000


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

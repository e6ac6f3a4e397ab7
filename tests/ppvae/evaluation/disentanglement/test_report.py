"""All metrics in one call."""

import json

import pytest
import torch
from rich.console import Console

import ppvae
from ppvae.evaluation.disentanglement import METRICS, Representation, critic_correlation, disentanglement, score
from ppvae.evaluation.likelihood.per_datum import sampling_error
from tests.ppvae.evaluation.disentanglement.codes import SMALL, perfect
from tests.ppvae.evaluation.disentanglement.test_representation import pair

SIZES = {"num_train": 100, "num_test": 50, "num_draws": 50}


def test_disentanglement_returns_all_scores_and_depends_on_the_seed_only():
    model, guide, data = pair()
    torch.manual_seed(5)
    found = disentanglement(model, guide, data, **SIZES)
    one = found.to_dict()
    torch.manual_seed(6)
    assert disentanglement(model, guide, data, jobs=2, **SIZES).to_dict() == one
    assert disentanglement(model, guide, data, seed=1, **SIZES).to_dict() != one
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    scores = ["higgins", "factor_vae", "mig", "mig_of_draws"]
    scores += [
        "dci_disentanglement",
        "dci_completeness",
        "dci_informativeness",
        "sap_r2",
        "sap_classifier",
        "modularity",
        "explicitness",
        "irs",
    ]
    assert list(one)[: len(scores)] == scores
    parts = score(found.representation, leave_out=METRICS[:-1], num_draws=4000).aggregate
    error = sampling_error(parts.pointwise_information + parts.pointwise_correlation + parts.pointwise_kl)
    assert parts.rate == pytest.approx(sum(one["kl_per_dimension"]), abs=4 * error)
    assert error < 0.05 * parts.rate
    assert one["aggregate"]["log_n"] == pytest.approx(4.094, abs=1e-3)
    assert len(one["kl_per_dimension"]) == 2
    assert one["rate"] == pytest.approx(sum(one["kl_per_dimension"]))


def test_table_and_plot_show_what_was_computed():
    r = Representation(SMALL, perfect(SMALL), torch.full((60, 3), 0.1))
    found = score(r, leave_out=["dci", "sap"], **SIZES)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(found.table())
    shown = capture.get()
    assert "factor vae" in shown
    assert "at most log N = 4.09" in shown
    assert "±" in shown
    assert "sap" not in shown
    assert "rate" not in shown  # the prior is not known
    axes = found.plot().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(SMALL.names)
    assert axes.images[0].get_array().argmax(0).tolist() == [0, 1, 2]


def test_disentanglement_reports_the_critics_total_correlation():
    model, guide, data = pair()
    critic = ppvae.factor_vae(5.0, latent_dim=2).players[0].module.log_ratio
    found = disentanglement(model, guide, data, critic=critic, leave_out=["dci"], **SIZES)
    codes = found.representation
    expected = critic_correlation(critic, codes.codes, codes.scales)
    assert found.to_dict()["total_correlation_by_critic"] == pytest.approx(expected.mean().item())
    console = Console(width=100)
    with console.capture() as capture:
        console.print(found.table())
    assert f"{found.to_dict()['rate']:.3f}" in capture.get()
    assert "total correlation, minibatch" in capture.get()
    assert "total correlation, critic" in capture.get()
    with pytest.raises(ppvae.DataError, match="leave out the critic"):
        score(Representation(SMALL, perfect(SMALL)), critic=critic)


def test_score_leaves_out_metrics_by_name():
    r = Representation(SMALL, perfect(SMALL), torch.full((60, 3), 0.1))
    found = score(r, leave_out=[name for name in METRICS if name != "mig"])
    assert list(found.scores) == ["mig", "mig_of_draws"]
    assert list(score(Representation(SMALL, perfect(SMALL)), leave_out=["dci"], **SIZES).scores)[2:4] == [
        "mig",
        "sap_r2",
    ]
    assert found.aggregate is None
    assert found.to_dict()["aggregate"] is None


def test_disentanglement_refuses_data_without_factors_and_unknown_metrics():
    model, guide, data = pair()
    with pytest.raises(ppvae.DataError, match="without factors"):
        disentanglement(model, guide, data.take(slice(0, 30)))
    with pytest.raises(ppvae.DataError, match="got a Tensor without factors"):
        disentanglement(model, guide, data.x)
    for wrong in (["beta"], "dci"):
        with pytest.raises(ValueError, match="a list of names among"):
            disentanglement(model, guide, data, leave_out=wrong)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_trian": 10}, TypeError, "expected settings among leave_out, num_train, .*, got num_trian"),
        ({"num_test": 0}, ValueError, "at least 1 for num_test, got 0"),
        ({"num_draws": 1}, ValueError, "at least 2 for num_draws, got 1"),
    ],
)
def test_disentanglement_checks_settings_before_it_encodes_the_data(monkeypatch, settings, error, message):
    import ppvae.evaluation.disentanglement.report as report

    monkeypatch.setattr(report, "represent", None)
    with pytest.raises(error, match=message):
        disentanglement(*pair(), **settings)


def test_score_refuses_a_critic_of_another_length_before_the_metrics(monkeypatch):
    import ppvae.evaluation.disentanglement.report as report

    monkeypatch.setattr(report, "SCORES", {"mig": None})
    r = Representation(SMALL, perfect(SMALL), torch.full((60, 3), 0.1))
    critic = ppvae.factor_vae(5.0, latent_dim=2).players[0].module.log_ratio
    with pytest.raises(ppvae.ContractError, match="expected a latent of 2 elements, got 3"):
        score(r, critic=critic)

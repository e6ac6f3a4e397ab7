"""Every metric in one call."""

import json
import sys
from importlib import import_module

import pytest
import torch
from rich.console import Console

import ppvae
from ppvae.evaluation.disentanglement import METRICS, Representation, critic_correlation, disentanglement, score
from ppvae.evaluation.likelihood.per_datum import sampling_error
from tests.ppvae.evaluation.disentanglement.codes import SMALL, perfect
from tests.ppvae.evaluation.disentanglement.test_representation import pair

SIZES = {"num_train": 100, "num_test": 50, "num_draws": 50}


def test_one_call_gives_them_all_and_the_seed_alone_decides():
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


def test_table_and_figure():
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
    assert "rate" not in shown  # no prior is known
    axes = found.plot().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(SMALL.names)
    assert axes.images[0].get_array().argmax(0).tolist() == [0, 1, 2]


def test_the_critic_is_set_beside_the_exact_total_correlation():
    model, guide, data = pair()
    objective = ppvae.factor_vae(5.0, latent_dim=2)
    found = disentanglement(model, guide, data, critic=objective.adversaries[0].log_ratio, leave_out=["dci"], **SIZES)
    codes = found.representation
    expected = critic_correlation(objective.adversaries[0].log_ratio, codes.codes, codes.scales)
    assert found.to_dict()["total_correlation_by_critic"] == pytest.approx(expected.mean().item())
    console = Console(width=100)
    with console.capture() as capture:
        console.print(found.table())
    assert f"{found.to_dict()['rate']:.3f}" in capture.get()
    assert "total correlation, minibatch" in capture.get()
    assert "total correlation, critic" in capture.get()
    with pytest.raises(ppvae.DataError, match="critic to be asked"):
        score(Representation(SMALL, perfect(SMALL)), critic=objective.adversaries[0].log_ratio)


def test_what_is_left_out_is_absent():
    r = Representation(SMALL, perfect(SMALL), torch.full((60, 3), 0.1))
    found = score(r, leave_out=[name for name in METRICS if name != "mig"])
    assert list(found.scores) == ["mig", "mig_of_draws"]
    assert list(score(Representation(SMALL, perfect(SMALL)), leave_out=["dci"], **SIZES).scores)[2:4] == [
        "mig",
        "sap_r2",
    ]
    assert found.aggregate is None
    assert found.to_dict()["aggregate"] is None


def test_a_function_and_a_package_have_names_of_their_own():
    import ppvae.evaluation.disentanglement as package

    assert package is import_module("ppvae.evaluation.disentanglement")
    assert ppvae.disentanglement is package.disentanglement
    for name in package.__all__:
        assert f"{package.__name__}.{name}" not in sys.modules, name


def test_refusals():
    model, guide, data = pair()
    with pytest.raises(ppvae.DataError, match="has none"):
        disentanglement(model, guide, data.take(slice(0, 30)))
    with pytest.raises(ppvae.DataError, match="got a Tensor which has none"):
        disentanglement(model, guide, data.x)
    for wrong in (["beta"], "dci"):
        with pytest.raises(ValueError, match="a list of names among"):
            disentanglement(model, guide, data, leave_out=wrong)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_trian": 10}, TypeError, "expected settings among num_train, .*, got num_trian"),
        ({"num_test": 0}, ValueError, "expected num_test of at least 1, got 0"),
        ({"num_draws": 1}, ValueError, "expected num_draws of at least 2, got 1"),
    ],
)
def test_settings_are_checked_before_the_data_are_encoded(monkeypatch, settings, error, message):
    import ppvae.evaluation.disentanglement.report as report

    monkeypatch.setattr(report, "represent", None)
    with pytest.raises(error, match=message):
        disentanglement(*pair(), **settings)


def test_a_critic_of_another_length_is_refused_before_the_metrics(monkeypatch):
    import ppvae.evaluation.disentanglement.report as report

    monkeypatch.setattr(report, "_SCORES", {"mig": None})
    r = Representation(SMALL, perfect(SMALL), torch.full((60, 3), 0.1))
    critic = ppvae.factor_vae(5.0, latent_dim=2).adversaries[0].log_ratio
    with pytest.raises(ppvae.ContractError, match="expected a latent of 2 elements, got 3"):
        score(r, critic=critic)

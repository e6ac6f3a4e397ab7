"""ssvae_mnist.py on the digits, with small networks."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

import ppvae
from ppvae import cli
from ppvae.data import loading
from ppvae.evaluation.likelihood.marginal import marginal_of, weights_of
from ppvae.guides import LabelGuide, LabelStyleGuide
from ppvae.training import checkpoint
from tests.experiments.scripts import EXPERIMENTS, script

ssvae_mnist, ssvae_pairs = script("ssvae_mnist"), script("ssvae_pairs")
Config = ssvae_mnist.Config
FIGURES = {"analogies", "bounds", "class_samples", "confusion", "latent_space", "learning_curves", "reconstructions"}


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setattr(ssvae_pairs, "HIDDEN", (32,))
    monkeypatch.setattr(ssvae_pairs, "AUXILIARY_DIM", 4)


@pytest.mark.parametrize("options", [{"guide": "label"}, {}, {"pair": "adgm"}, {"pair": "sdgm"}])
def test_main_writes_report_and_figures(options, tmp_path, capsys):
    report = ssvae_mnist.main(Config(data="digits", smoke=True, out=tmp_path, **options))
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["data"] == "digits"
    assert report["log_p_particles"] == 100
    assert {"labels", "seed", "epochs", "seconds", "test_accuracy", "test_elbo"} < report.keys()
    above = report["guide_bound"] - report["test_log_p"]
    error = math.hypot(report["test_log_p_simulation_error"], 0.06)  # .06: of the guide's own 100 weights
    assert report["test_log_p_is_lower_bound"] or above < 4 * error
    assert 0 < report["test_log_p_simulation_error"] < report["test_log_p_sampling_error"]
    assert 0 <= report["failed_images"] <= report["fitted_images"] <= 5
    assert report["failed_images"] == round(5 * report["khat_bad"])
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES
    assert "accuracy" in capsys.readouterr().out


def test_main_writes_null_where_a_number_is_not_defined(tmp_path, capsys):
    """One image has no error over images; one particle has no simulation error and no k-hat."""
    ssvae_mnist.main(Config(data="digits", epochs=1, log_p_images=1, log_p_particles=1, out=tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    undefined = {name for name, value in report.items() if value is None}
    assert undefined == {"test_log_p_simulation_error", "test_log_p_sampling_error", "khat_bad", "guide_khat_bad"}
    assert report["test_log_p_is_lower_bound"]
    assert "lower bound on log p(x)" in capsys.readouterr().out


def test_log_p_scores_tells_the_guide_from_the_proposal():
    """The guide's weights of the second datum are 1 and 3; a proposal gave it log p(x) = -2 by equal weights."""
    log_weight = torch.tensor([[-1.0, 0.0], [-1.0, math.log(3)]], dtype=torch.float64).repeat(50, 1)
    guide = replace(weights_of(log_weight), khat=torch.tensor([0.1, 0.9]))
    marginal = replace(
        marginal_of(guide),
        value=torch.tensor([-1.0, -2.0]),
        standard_error=torch.tensor([0.03, 0.04]),
        khat=torch.tensor([0.1, 0.2]),
        stage=torch.tensor([0, 1]),
        stages=("guide", "full rank"),
    )
    found = ssvae_mnist.log_p_scores(marginal)
    assert found["test_log_p"] == -1.5
    assert found["test_log_p_simulation_error"] == pytest.approx(0.025)
    assert found["test_log_p_sampling_error"] == pytest.approx(0.5)
    assert found["guide_bound"] == pytest.approx((-1 + math.log(2)) / 2)
    assert (found["khat_bad"], found["guide_khat_bad"]) == (0, 0.5)
    assert (found["fitted_images"], found["failed_images"], found["not_fitted"]) == (1, 0, "")
    assert found["test_log_p_is_lower_bound"] is False
    assert ssvae_mnist.log_p_scores(replace(marginal, khat=guide.khat))["test_log_p_is_lower_bound"] is True


def test_default_guide_gives_each_class_its_own_posterior():
    _, guide = built()
    assert isinstance(guide, LabelStyleGuide)
    _, guide = built(guide="label")
    assert isinstance(guide, LabelGuide)


@pytest.mark.parametrize(("pair", "skip"), [("adgm", False), ("sdgm", True)])
def test_pairs_with_an_auxiliary_variable_keep_the_contract(pair, skip):
    model, guide = built(pair=pair)
    assert model.skip == skip
    ppvae.check_pair(model, guide, torch.rand(6, 8, 8).round(), torch.tensor([0, -1, 3, -1, 9, 1]))


def built(**options):
    return ssvae_pairs.build_pair(Config(**options), (8, 8), torch.device("cpu"))


def test_prediction_averages_over_draws_of_an_auxiliary_variable_alone():
    assert ssvae_pairs.num_draws(Config()) == 1
    assert ssvae_pairs.num_draws(Config(pair="adgm")) == ssvae_pairs.num_draws(Config(pair="sdgm")) == 100


REPORT = {
    **{
        "pair": "m2",
        "data": "mnist",
        "labels": 100,
        "seed": 0,
        "test_images": 10_000,
        "log_p_images": 100,
        "log_p_particles": 1000,
    },
    **{"test_accuracy": 0.98, "test_elbo": -107.1, "training_seconds": 252.0},
    **{"test_log_p": -97.75, "test_log_p_simulation_error": 0.004, "test_log_p_sampling_error": 3.2},
    **{"test_log_p_is_lower_bound": False, "khat_bad": 0.02, "guide_bound": -98.64, "guide_khat_bad": 0.89},
    **{"fitted_images": 97, "failed_images": 2, "not_fitted": ""},
}
SIZE = "(1000 particles, 100 test images)"


def printed(capsys, **changes) -> dict[str, str]:
    """The table's values by the names of its rows."""
    ssvae_mnist.print_table(REPORT | changes)
    lines = [line.strip("│┃ ").split("│") for line in capsys.readouterr().out.splitlines()]
    return {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}


def test_table_names_each_number(capsys):
    rows = printed(capsys)
    assert rows["accuracy (10000 test images)"] == "0.9800"
    assert rows["ELBO (10000 test images)"] == "-107.10"
    assert rows[f"log p(x) {SIZE}"] == "-97.75"
    assert rows["± simulation error"] == "0.004"
    assert rows["± error over images"] == "3.20"
    assert rows["images with k-hat up to 0.67"] == "98%"
    assert rows["images with a fitted proposal"] == "97; 2 failed"
    assert rows[f"guide's bound {SIZE}"] == "-98.64"
    assert rows["its weights: images with k-hat up to 0.67"] == "11%"


def test_table_says_lower_bound_where_khat_is_bad(capsys):
    rows = printed(capsys, test_log_p_is_lower_bound=True, khat_bad=0.3)
    assert rows[f"lower bound on log p(x) {SIZE}"] == "-97.75"
    assert rows["images with k-hat up to 0.67"] == "70%"
    assert f"log p(x) {SIZE}" not in rows


def test_table_says_why_nothing_was_fitted(capsys):
    changes = {"fitted_images": 0, "failed_images": 89, "not_fitted": "no continuous latent"}
    assert printed(capsys, **changes)["images with a fitted proposal"] == "none: no continuous latent"


def test_table_says_what_a_missing_number_needs(capsys):
    keys = ("test_log_p_simulation_error", "test_log_p_sampling_error", "khat_bad", "guide_khat_bad")
    rows = printed(capsys, **dict.fromkeys(keys), log_p_particles=1)
    assert rows["± simulation error"] == "needs two particles"
    assert rows["± error over images"] == "needs two images"
    assert rows["images within the k-hat limit"] == "needs 25 particles"
    assert rows["its weights: images within the k-hat limit"] == "needs 25 particles"


def test_choose_data_warns_that_digits_replace_mnist(monkeypatch, tmp_path, capsys):
    def refuse(*args, **options):
        raise OSError("no network")

    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    name, splits = ssvae_mnist.choose_data(Config())
    assert (name, splits.train.event_shape) == ("digits", (8, 8))
    assert "NOT MNIST" in capsys.readouterr().out
    with pytest.raises(ppvae.DataError):
        ssvae_mnist.choose_data(Config(data="mnist"))


def test_run_folder_is_numbered(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = ssvae_mnist.run_folder(Config(), "digits")
    assert str(first) == "runs/ssvae-digits-100labels-seed0-1"
    first.mkdir(parents=True)
    assert ssvae_mnist.run_folder(Config(), "digits").name == "ssvae-digits-100labels-seed0-2"
    assert ssvae_mnist.run_folder(Config(resume=True), "digits") == first


def test_resumed_run_equals_an_uninterrupted_one(monkeypatch, tmp_path):
    config = {"data": "digits", "epochs": 2, "log_p_images": 5, "log_p_particles": 20}
    monkeypatch.setattr(ssvae_mnist, "save_figures", lambda *_: None)
    with monkeypatch.context() as stopping:
        stopping.setattr(ppvae, "accuracy", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or 0.0)
        with pytest.raises(ppvae.Interrupted, match=r"[Rr]esume"):
            ssvae_mnist.main(Config(**config, out=tmp_path / "stopped"))
    assert not (tmp_path / "stopped" / "report.json").exists()
    resumed = ssvae_mnist.main(Config(**config, out=tmp_path / "stopped", resume=True))
    whole = ssvae_mnist.main(Config(**config, out=tmp_path / "whole"))
    assert {key for key in whole if whole[key] != resumed[key]} <= {"seconds", "training_seconds"}
    tensors, expected = (checkpoint.read(tmp_path / run / "last.safetensors")[0] for run in ("stopped", "whole"))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_command_line_ends_with_the_status_of_a_signal(tmp_path):
    out = tmp_path / "run"
    options = ["--data", "digits", "--labels", "890", "--epochs", "10000", "--out", str(out)]  # an epoch is one step
    command = [sys.executable, EXPERIMENTS / "ssvae_mnist.py", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "resume" in text.lower()
    assert (out / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "105"], "expected num_labels to be a multiple of the 10 classes"),
        (["--labels", "2000"], "multiple of the 10 classes from 0 to 890"),
        (["--out", __file__], "run folder that can be written"),
        (["--labels", "0"], "expected --labels above 0, got 0"),
        (["--log-p-particles", "0"], "expected --log-p-particles above 0"),
        (["--alpha", "-1"], "alpha of at least 0"),
        (["--pair", "adgm", "--guide", "label"], "--guide label with --pair m2 alone, got --pair adgm"),
    ],
)
def test_errors_are_one_line_without_traceback(options, message, monkeypatch, tmp_path, capsys):
    arguments = ["ssvae_mnist.py", "--data", "digits", "--smoke", "--out", str(tmp_path / "run"), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        cli.run(ssvae_mnist.main, Config, ssvae_mnist.__doc__)
    assert stop.value.code == 1
    errors = capsys.readouterr().err
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors


@pytest.mark.slow
def test_main_runs_on_mnist(tmp_path):
    if not (loading.data_root() / "MNIST").exists():
        pytest.skip("MNIST is not in PPVAE_DATA")
    assert ssvae_mnist.main(Config(smoke=True, out=tmp_path))["data"] == "mnist"

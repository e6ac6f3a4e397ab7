"""ssvae_mnist.py on the digits, with small networks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

import ppvae
from ppvae import cli
from ppvae.data import loading
from ppvae.training import checkpoint
from tests.experiments.scripts import EXPERIMENTS, script

ssvae_mnist = script("ssvae_mnist")
Config = ssvae_mnist.Config
FIGURES = {"analogies", "class_samples", "confusion", "latent_space", "learning_curves", "reconstructions"}


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setattr(ssvae_mnist, "HIDDEN", (32,))


@pytest.mark.parametrize("guide", ["label", "label-style"])
def test_main_writes_report_and_figures(guide, tmp_path, capsys):
    report = ssvae_mnist.main(Config(data="digits", smoke=True, guide=guide, out=tmp_path))
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["data"] == "digits"
    assert report["nll_particles"] == 100
    assert {"labels", "seed", "epochs", "seconds", "test_accuracy", "test_elbo", "test_nll", "khat_bad"} < report.keys()
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES
    assert "test accuracy" in capsys.readouterr().out


def test_table_names_both_errors_and_upper_bounds(capsys):
    report = {
        **{"data": "mnist", "labels": 100, "seed": 0, "test_images": 10_000, "nll_images": 100, "nll_particles": 1000},
        **{"test_accuracy": 0.98, "test_elbo": -109.8, "test_nll": 100.5, "training_seconds": 252.0},
        **{"test_nll_simulation_error": 0.04, "test_nll_sampling_error": 3.4},
        **{"test_nll_is_upper_bound": True, "khat_bad": 0.88},
    }
    ssvae_mnist.print_table(report)
    rows = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "test NLL, upper bound, nats (1000 particles, 100 images) 100.50" in rows
    assert "± simulation error 0.04" in rows
    assert "± error over images 3.40" in rows
    assert "k-hat above 0.67 88% of the images" in rows
    ssvae_mnist.print_table(
        report | {"test_nll_is_upper_bound": False, "khat_bad": None, "test_nll_sampling_error": None}
    )
    text = " ".join(capsys.readouterr().out.split())
    assert "upper bound" not in text
    assert "k-hat │ too few particles" in text


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
    config = {"data": "digits", "epochs": 2, "nll_images": 5, "nll_particles": 20}
    monkeypatch.setattr(ssvae_mnist, "save_figures", lambda *_: None)
    with monkeypatch.context() as stopping:
        stopping.setattr(ppvae, "accuracy", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or 0.0)
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
        (["--nll-particles", "0"], "expected --nll-particles above 0"),
        (["--alpha", "-1"], "alpha of at least 0"),
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

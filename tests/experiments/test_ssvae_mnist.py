"""The experiment as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ppvae.data import loading
from ppvae.training import checkpoint

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "experiments" / "ssvae_mnist.py"
FIGURES = {"analogies", "class_samples", "confusion", "latent_space", "learning_curves", "reconstructions"}


def run(*options, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("guide", ["label", "label-style"])
def test_smoke(guide, tmp_path):
    out = tmp_path / "run"
    done = run("--data", "digits", "--smoke", "--guide", guide, "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["data"] == "digits"
    assert {"labels", "seed", "epochs", "seconds", "test_accuracy", "test_elbo", "test_nll", "khat_above_0.7"} < set(
        report
    )
    assert report["nll_particles"] == 100
    assert {path.stem for path in out.glob("*.png")} == FIGURES
    assert "test accuracy" in done.stdout


def test_without_mnist_it_says_loudly_that_it_uses_the_digits(tmp_path):
    # An empty data folder, and a proxy that answers nothing, so that nothing can be downloaded.
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NETWORK, str(SCRIPT), "--smoke"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PPVAE_DATA": str(tmp_path / "none")},
    )
    assert done.returncode == 0, done.stderr
    assert "NOT MNIST" in done.stdout
    (report,) = (tmp_path / "runs").glob("ssvae-digits-*/report.json")
    assert json.loads(report.read_text())["data"] == "digits"


_WITHOUT_NETWORK = """
import runpy, socket, sys
def refuse(*args, **kwargs): raise OSError("no network")
socket.getaddrinfo = socket.create_connection = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_signal_and_resume(tmp_path):
    out = tmp_path / "run"
    options = ["--data", "digits", "--epochs", "6", "--nll-images", "5", "--nll-particles", "20", "--out", out]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "Resume" in text
    done = run(*options, "--resume")
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    assert run(*options[:-1], whole).returncode == 0
    (tensors, values), (expected, expected_values) = (checkpoint.read(f / "last.safetensors") for f in (out, whole))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert {**values, "seconds": 0} == {**expected_values, "seconds": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "105"], "multiple of the 10 classes"),
        (["--labels", "2000"], "at least 200 rows of class"),
        (["--out", str(SCRIPT)], "run folder that can be written"),
        (["--labels", "0"], "expected --labels above 0, got 0"),
        (["--nll-particles", "0"], "expected --nll-particles above 0"),
        (["--alpha", "-1"], "alpha of at least 0"),
    ],
)
def test_errors_are_one_line_and_not_a_traceback(options, message, tmp_path):
    done = run("--data", "digits", "--smoke", "--out", tmp_path / "run", *options)
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_mnist_smoke(tmp_path):
    if not (loading.data_root() / "MNIST").exists():
        pytest.skip("MNIST is not in PPVAE_DATA")
    done = run("--smoke", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "report.json").read_text())["data"] == "mnist"

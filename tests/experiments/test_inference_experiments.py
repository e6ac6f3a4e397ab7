"""The experiments on inference, at a size at which only their laws can be told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
TINY = ("--data", "digits", "--hidden", "32", "--latent-dim", "4", "--context", "4", "--particles", "200")


def run(script: str, out: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, EXPERIMENTS / script, "--out", out, *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def iwae_mnist(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    import iwae_mnist

    return iwae_mnist


def test_the_exact_recipe_of_iwae(iwae_mnist):
    lengths = iwae_mnist.lengths(iwae_mnist.Config(exact=True))
    assert sum(lengths) == 3280
    factor = iwae_mnist.staircase(lengths, steps=10)
    assert factor(9) == 1
    assert factor(10) == factor(39) == pytest.approx(10 ** (-1 / 7))
    assert factor(32_799) == pytest.approx(0.1)


def test_the_decoder_starts_at_the_mean_image(iwae_mnist):
    mean = torch.linspace(0, 1, 64).reshape(8, 8)
    for layers in (1, 2):
        model, _ = iwae_mnist.build_pair(layers, mean)
        model.decoder.layers[-1].weight.data.zero_()
        shown = model.decode(torch.zeros(1, 50 if layers == 1 else 100), 2).mean[0]
        torch.testing.assert_close(shown, mean.clamp(0.001, 0.999))


def test_cells_of_iwaes_table(tmp_path):
    options = ("--data", "digits", "--particles", "1", "5", "--batch-size", "100", "--test-images", "20")
    done = run("iwae_mnist.py", tmp_path, "--layers", "2", *options)
    assert done.returncode == 0, done.stderr
    reports = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/report.json")}
    assert set(reports) == {"2-layer-vae-k1", "2-layer-vae-k5", "2-layer-iwae-k5"}
    assert all(-report["test_elbo"] > report["nll"] for report in reports.values())
    assert all(len(report["active_units"]) == 2 for report in reports.values())
    assert "82.90" not in done.stdout  # which is of MNIST
    assert (tmp_path / "nll.png").exists()
    before = {path: path.stat().st_mtime for path in tmp_path.glob("*/last.safetensors")}
    assert run("iwae_mnist.py", tmp_path, "--layers", "2", *options).returncode == 0
    assert before == {path: path.stat().st_mtime for path in before}  # what is finished is not run again
    refused = run("iwae_mnist.py", tmp_path, "--layers", "2", *options, "--seed", "1")
    assert "was run with seed=0, not 1" in refused.stderr


def test_guides_of_one_frozen_decoder(tmp_path):
    epochs = ("--decoder-epochs", "3", "--guide-epochs", "3", "--images", "20")
    guides = ("--guides", "mean-field", "refined", "IAF", "--gap-images", "4", "--temperatures", "5")
    done = run("frozen_decoder.py", tmp_path, *TINY, *epochs, *guides, "--gap-windows", "1")
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "comparison.json").read_text())
    assert records["refined"]["elbo"] > records["mean-field"]["elbo"]
    decoders = [load_file(tmp_path / name / "last.safetensors") for name in ("decoder", "mean-field", "IAF")]
    weights = [name for name in decoders[0] if name.startswith("model/")]
    assert weights
    assert all(torch.equal(decoders[0][name], other[name]) for other in decoders[1:] for name in weights)
    assert {"comparison.png", "gaps.png", "gaps.json"} <= {path.name for path in tmp_path.iterdir()}


def test_gaps_of_two_trainings(tmp_path):
    short = ("--epochs", "3", "--images", "10", "--temperatures", "5", "--gap-windows", "1")
    done = run("inference_gaps.py", tmp_path, *TINY, *short)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    for found in report.values():
        mean = {name: value for name, (value, _) in found.items()}
        assert mean["log p(x)"] > mean["best flow"] > mean["amortized"] - 0.5
        assert mean["log p(x)"] > mean["best Gaussian"]
        assert mean["amortization gap"] > 0
    assert report["Gaussian"]["amortized"] != report["flow"]["amortized"]
    assert "-113.54" not in done.stdout  # which is of MNIST

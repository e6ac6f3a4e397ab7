"""The table of flows, on the digits, at once: what it claims about numbers holds at any length."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parent.parent.parent / "experiments" / "flow_posteriors.py"
SMALL = [
    *("--epochs", "2", "--hidden", "16", "--latent-dim", "4", "--context-dim", "4", "--flows", "2"),
    *("--sylvester-columns", "2", "--test-images", "30", "--test-particles", "50", "--bound-particles", "5"),
]


def run(out: Path, *options: str, **environment: str):
    return subprocess.run(
        [sys.executable, SCRIPT, "--out", out, *SMALL, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("flows")
    done = run(out, "--data", "digits", "--guides", "none", "planar", "sylvester")
    assert done.returncode == 0, done.stderr
    return out / "digits"


def table(folder: Path) -> dict[str, dict]:
    return {report["guide"]: report for report in json.loads((folder / "table.json").read_text())}


def test_scores_are_those_of_the_test_images(folder):
    rows = table(folder)
    assert list(rows) == ["none", "planar", "sylvester"]
    for name, row in rows.items():
        own = load_file(folder / name / "per_datum.safetensors")
        assert (len(own["negative_elbo"]), len(own["nll"])) == (540, 30)
        for key in ("negative_elbo", "nll"):
            assert row[key] == pytest.approx(own[key].mean().item())
        # 64 pixels of a fair coin are 44.4 nats: the pair has learned something of the digits.
        assert 0 < row["nll"] < 64 * math.log(2)
        # The bound's Monte Carlo error is below the spread of the gap from image to image.
        gap = own["negative_elbo"][:30] - own["nll"]
        assert gap.mean() > -4 * gap.std() / 30**0.5


def test_differences_are_paired(folder):
    rows = table(folder)
    none, planar = (load_file(folder / name / "per_datum.safetensors") for name in ("none", "planar"))
    delta = planar["nll"] - none["nll"]
    assert rows["planar"]["nll_less_none"] == pytest.approx(delta.mean().item())
    assert rows["planar"]["nll_less_none_standard_error"] == pytest.approx(delta.std().item() / 30**0.5)
    assert rows["planar"]["nll_less_none_standard_error"] < none["nll"].std() / 30**0.5  # what pairing is for
    assert rows["none"]["nll_less_none"] == 0


def test_there_is_something_to_see(folder):
    assert (folder / "bounds.png").exists()
    assert {path.parent.name for path in folder.glob("*/images.png")} == {"none", "planar", "sylvester"}


def test_a_finished_guide_is_not_run_again_and_a_stopped_one_is_taken_up_to_the_same_numbers(folder):
    before = table(folder)
    (folder / "planar" / "report.json").unlink()
    done = run(folder.parent, "--data", "digits", "--guides", "none", "planar")
    assert done.returncode == 0, done.stderr
    assert "digits/planar" in "".join(done.stdout.split())
    assert "digits/none" not in "".join(done.stdout.split())
    assert table(folder) == before


def test_runs_of_other_settings_are_not_put_into_one_table(folder):
    done = run(folder.parent, "--data", "digits", "--guides", "none", "--flows", "3")
    assert done.returncode != 0
    assert "was run with flows=2, not 3" in done.stderr


def test_grey_images_are_scored_in_bits_a_dimension(tmp_path):
    shades = torch.linspace(0, 255, 560).reshape(1, 28, 20)
    noise = torch.randn(1965, 28, 20, generator=torch.Generator().manual_seed(0))
    images = (shades + 3 * noise).clamp(0, 255).byte().numpy()
    np.savez(tmp_path / "freyfaces.npz", images=images)
    done = run(tmp_path, "--data", "freyfaces", "--guides", "none", "--test-images", "20", PPVAE_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    row = table(tmp_path / "freyfaces")["none"]
    bits = row["nll"] / (560 * math.log(2))
    # Not below the entropy of the noise, log2(3 sqrt(2 pi e)) = 3.63 (less where it is clipped), nor above 8, that of
    # equally likely levels.
    assert 3.5 < bits < 8
    assert f"{bits:.3f}" in done.stdout
    assert "4.53" in done.stdout  # published

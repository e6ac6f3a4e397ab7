"""The table over labels and seeds, from finished runs."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "experiments" / "ssvae_table.py"


def table(out: Path, *options: str):
    command = [sys.executable, SCRIPT, "--out", out, *options]
    return subprocess.run(command, capture_output=True, text=True, env={"COLUMNS": "200", "PATH": ""})


def finished(out: Path, seed: int, accuracy: float, **changes) -> None:
    settings = {
        "guide": "label",
        "objective": "elbo",
        "alpha": 10.0,
        "consistency": 10.0,
        "augment": True,
        "epochs": 8,
        "batch_size": 100,
        "labelled_per_step": 50,
        "learning_rate": 2e-3,
        "device": "auto",
        "nll_images": 100,
        "nll_particles": 1000,
        "smoke": False,
        "data": "mnist",
    }
    scores = {"test_accuracy": accuracy, "test_nll": 100.0, "training_seconds": 600.0}
    folder = out / f"100labels-seed{seed}"
    folder.mkdir(parents=True)
    report = {"labels": 100, "seed": seed, **settings, **scores, **changes}
    (folder / "report.json").write_text(json.dumps(report))


def test_mean_and_spread_beside_the_published(tmp_path):
    finished(tmp_path, 0, 0.98)
    finished(tmp_path, 1, 0.99)
    done = table(tmp_path, "--seeds", "0", "1")
    assert done.returncode == 0, done.stderr
    assert "0.9850 +- 0.0071 (2 seeds)" in done.stdout
    assert "0.990" in done.stdout  # ADGM


def test_runs_of_other_settings_stand_in_a_row_of_their_own(tmp_path):
    finished(tmp_path, 0, 0.98)
    finished(tmp_path, 1, 0.93, augment=False)
    done = table(tmp_path, "--seeds")
    assert "0.9800 (1 seed)" in done.stdout
    assert "no augmentation" in done.stdout


def test_a_finished_run_of_other_settings_is_not_taken_for_one_of_these(tmp_path):
    finished(tmp_path, 0, 0.98, epochs=3)
    done = table(tmp_path, "--seeds", "0")
    assert done.returncode != 0
    assert "was run with epochs=3, not 8" in done.stderr

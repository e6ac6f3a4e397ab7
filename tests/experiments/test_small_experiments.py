"""The short experiments, shortened further: what they claim about numbers holds at any length."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"


def run(script: str, out: Path, *options: str) -> dict:
    command = [sys.executable, EXPERIMENTS / script, "--out", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return json.loads((out / "report.json").read_text())


def test_em_never_lowers_the_evidence(tmp_path):
    report = run("em_mixture.py", tmp_path / "em", "--iterations", "8")
    assert report["rounds"] == 8
    assert report["largest_fall"] == 0
    assert report["largest_gap_after_the_E_step"] < 1e-9
    assert report["log_evidence"] < report["scikit_learn"]
    assert (tmp_path / "em" / "evidence.png").exists()


def test_directions_of_the_kl(tmp_path):
    report = run("kl_directions.py", tmp_path / "kl", "--steps", "200", "--data", "10", "--particles", "100")
    assert len(report) == 3
    for record in report.values():
        assert record["elbo"] < record["exact_log_p"]
        assert record["exact_log_p"] == pytest.approx(next(iter(report.values()))["exact_log_p"])
    assert (tmp_path / "kl" / "posterior.png").exists()

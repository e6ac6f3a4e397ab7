"""discrete_factors.py: a class in the code of a run."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import ppvae
from tests.experiments.squares import METRICS, discrete, run, shrink, small

RECIPE = discrete.RECIPE


@pytest.fixture(autouse=True)
def squares(monkeypatch):
    return shrink(monkeypatch)


def config(**changes):
    return small(**{"recipe": RECIPE, "steps": 2, "correlations": 1, "classes": 3, "class_ramp": 2, **changes})


def test_pair_has_a_class_and_the_objective_reads_both_sites(squares):
    settings = config()
    model, guide = run.build_pair(settings, squares)
    particles = ppvae.draw(model, guide, squares.rows(slice(0, 8)))
    assert list(particles.guide) == ["y", "z"]
    assert particles.log_weight.shape == (1, 8)
    objective = run.build_objective(settings, len(squares))
    parts = objective.parts(replace(particles, step=0))
    assert parts.keys() == {"distortion", "rate/y", "rate/z", "total_correlation/z+y"}
    torch.testing.assert_close(parts["rate/y"], settings.class_weight * particles.kl("y"))
    later = objective.parts(replace(particles, step=2))
    torch.testing.assert_close(later["rate/y"], particles.kl("y"))


def test_run_reports_what_the_class_holds(tmp_path, squares, capsys):
    report = run.main(config(leave_out=("dci", "sap", "higgins"), out=tmp_path))
    assert json.loads((tmp_path / "report.json").read_text())["with_class"] == report["with_class"]
    probabilities = load_file(tmp_path / "probabilities.safetensors")["probabilities"]
    assert probabilities.shape == (60, 3)
    assert report["class_shares"] == pytest.approx(probabilities.mean(0).tolist())
    assert 0 <= report["class_rate"] <= math.log(3)
    assert len(report["class_information"]) == 3
    entropies = [math.log(size) for size in squares.factors.sizes]
    shares = zip(report["class_information"], entropies, strict=True)
    assert report["class_information_share"] == pytest.approx([found / entropy for found, entropy in shares])
    assert report["with_class"].keys() <= report.keys()
    assert {"factor_vae", "mig", "irs"} <= report["with_class"].keys()
    assert (tmp_path / "classes.png").stat().st_size > 1000
    assert report["rate"] > 0
    shown = capsys.readouterr().out
    assert "share of the factor's entropy" in shown
    assert "z and class" in shown


def test_report_of_a_class_that_is_the_size(squares):
    size = squares.factors.values(torch.arange(60))[:, 0]
    probabilities = torch.nn.functional.one_hot(size, 3).float()
    model, guide = run.build_pair(small(recipe="vae"), squares)
    codes = run.represent(model, guide, squares)
    found = discrete.report_of(probabilities, codes, run.score(codes, leave_out=METRICS), seed=0)
    assert found["class_information_share"] == pytest.approx([1, 0, 0], abs=1e-6)
    assert found["class_rate"] == pytest.approx(math.log(3))
    assert found["class_shares"] == pytest.approx([1 / 3] * 3)
    assert found["with_class"] == {}

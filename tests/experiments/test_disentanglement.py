"""factorvae_dsprites.py, disentanglement_study.py and bfloat16_codes.py on a grid of 60 images."""

import json
import math
import shlex
from dataclasses import replace

import pytest
import torch
import tyro
from filelock import FileLock
from scipy.stats import pearsonr

from ppvae.evaluation.disentanglement import metric_agreement
from ppvae.training.run_folder import RunFolderError
from tests.experiments.squares import METRICS, SLOW, both, run, shrink, small, study, totals


@pytest.fixture(autouse=True)
def squares(monkeypatch):
    return shrink(monkeypatch)


@pytest.fixture
def _without_figures(monkeypatch):
    monkeypatch.setattr(run, "save_figures", lambda *_: None)


def interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize("recipe", run.RECIPES)
def test_every_recipe_trains(recipe, tmp_path):
    config = small(recipe=recipe, steps=2, correlations=1, leave_out=METRICS, out=tmp_path)
    objective = run.build_objective(config, 60)
    rates = {p.optimizer(list(p.module.parameters())).param_groups[0]["lr"] for p in objective.players}
    assert rates == ({0.01} if recipe == "geco" else {config.critic_learning_rate} if rates else set())
    assert (run.log_ratio(objective) is not None) == (recipe == "factor-vae")
    assert math.isfinite(run.main(config)["rate"])


def test_run_without_the_aggregate_posterior_has_no_total_correlation(tmp_path):
    report = run.main(small(recipe="vae", correlations=1, leave_out=(*METRICS, "aggregate"), out=tmp_path))
    assert report["aggregate"] is None
    assert report["correlations"] == []
    assert not (tmp_path / "total_correlation.png").exists()


def test_means_and_scales_are_not_rounded_to_bfloat16(squares):
    _, guide = run.build_pair(run.Config(initial_scale=None), squares)
    features = guide.encoder(squares.rows(slice(0, 8)))
    assert (features != features.bfloat16().float()).float().mean() > 0.9


def test_initial_weights_have_the_requested_scale(squares):
    for module in run.build_pair(run.Config(initial_scale=0.3), squares):
        weights = torch.cat([p.flatten() for p in module.parameters() if p.dim() > 1])
        assert weights.std().item() == pytest.approx(0.3, rel=0.05)
        assert all((p == 0).all() for p in module.parameters() if p.dim() == 1)


@pytest.mark.parametrize("recipe", ["factor-vae", "annealed-vae"])
def test_run_writes_scores_figures_and_codes(recipe, tmp_path):
    report = run.main(small(recipe=recipe, leave_out=("dci",), out=tmp_path))
    assert json.loads((tmp_path / "report.json").read_text())["factor_vae"] == report["factor_vae"]
    for name in ("traversals.png", "traversals.gif", "reconstructions.png", "information.png", "total_correlation.png"):
        assert (tmp_path / name).stat().st_size > 1000, name
    assert report["strength"] == run.RECIPES[recipe][1]
    assert {"factor_vae", "mig", "higgins", "sap_r2", "irs"} <= report.keys()
    assert ("critic" in report["correlations"][0]) == (recipe == "factor-vae")
    assert ("total_correlation_by_critic" in report) == (recipe == "factor-vae")
    assert [row["step"] for row in report["correlations"]] == [2, 4]


@pytest.mark.usefixtures("_without_figures")
def test_interrupted_run_gives_the_report_of_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = run.main(small(out=tmp_path / "whole"))
    with monkeypatch.context() as stopping:
        stopping.setattr(totals, "aggregate_posterior", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.main(small(out=tmp_path / "stopped"))
    resumed = run.main(small(out=tmp_path / "stopped"))
    # The interruption came after the first stage, so its total correlation can still be computed.
    del whole["training_seconds"], resumed["training_seconds"]
    assert resumed == whole


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize("recipe", ["factor-vae", "annealed-vae"])
def test_lengthened_run_gives_the_report_of_a_run_of_that_length(tmp_path, recipe):
    whole = run.main(small(recipe=recipe, steps=6, correlations=3, ramp=3, out=tmp_path / "whole"))
    short = small(recipe=recipe, steps=2, correlations=1, ramp=3, out=tmp_path / "lengthened")
    run.main(short)
    lengthened = run.main(replace(short, steps=6, correlations=3))
    del whole["training_seconds"], lengthened["training_seconds"]
    assert lengthened == whole
    before = (tmp_path / "lengthened" / "report.json").read_text()
    with pytest.raises(ValueError, match="got one of 6 steps"):
        run.main(short)
    assert (tmp_path / "lengthened" / "report.json").read_text() == before


@pytest.mark.usefixtures("_without_figures")
def test_correlations_of_a_shorter_run_are_kept(tmp_path):
    short = small(recipe="vae", correlations=1, out=tmp_path)
    first = run.main(short)["correlations"]
    report = run.main(replace(short, steps=6))
    assert [row["step"] for row in report["correlations"]] == [4, 6]
    assert report["correlations"][:1] == first


@pytest.mark.usefixtures("_without_figures")
def test_run_interrupted_before_its_scores_has_no_report(tmp_path, monkeypatch):
    short = small(recipe="vae", correlations=1, out=tmp_path)
    run.main(short)
    with monkeypatch.context() as stopping:
        stopping.setattr(run, "score", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.main(replace(short, steps=6))
    assert not (tmp_path / "report.json").exists()
    assert run.main(replace(short, steps=6))["steps"] == 6


def test_settings_leave_out_what_a_recipe_does_not_read():
    for recipe, names in run.OWN_SETTINGS.items():
        for other in run.RECIPES:
            assert (set(names) <= run.settings(small(recipe=other)).keys()) == (recipe == other)
            assert recipe == other or not set(names) & run.settings(small(recipe=other)).keys()
    assert run.settings(small(recipe="vae", ramp=3)) == run.settings(small(recipe="vae", gamma=7.0))
    assert study.shared(small(recipe="annealed-vae", ramp=3)) == study.shared(small(recipe="vae"))


@pytest.mark.usefixtures("_without_figures")
def test_run_is_coded_in_both_types_and_does_not_change(tmp_path):
    report = run.main(small(recipe="vae", correlations=1, out=tmp_path))
    weights = (tmp_path / "last.safetensors").read_bytes()
    found = both.main(both.Config(run=tmp_path, leave_out=(*SLOW, "aggregate")))
    assert found["epoch"] == 2
    assert {name: report[name] for name in found["bfloat16"]} == found["bfloat16"]
    assert {"reconstruction", "factor_vae", "mig"} <= found["float32"].keys()
    assert found["float32"]["reconstruction"] != report["reconstruction"]
    assert found["float32"]["reconstruction"] == pytest.approx(report["reconstruction"], rel=1e-3)
    assert 0 < max(found["moved"]) < 0.1
    assert (tmp_path / "last.safetensors").read_bytes() == weights
    assert json.loads((tmp_path / "bfloat16.json").read_text())["float32"] == found["float32"]


@pytest.mark.usefixtures("_without_figures")
def test_folder_without_a_run_in_bfloat16_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the folder of a run of factorvae_dsprites"):
        both.main(both.Config(run=tmp_path))
    run.main(small(recipe="vae", steps=2, correlations=1, bfloat16=False, out=tmp_path))
    with pytest.raises(ValueError, match="in bfloat16, got"):
        both.main(both.Config(run=tmp_path))


@pytest.mark.usefixtures("_without_figures")
def test_run_with_other_settings_is_refused(tmp_path):
    run.main(small(steps=2, correlations=1, out=tmp_path))
    first = (tmp_path / "report.json").read_text()
    for other in ({"initial_scale": 0.3}, {"bfloat16": False}, {"seed": 1}):
        with pytest.raises(RunFolderError, match=f"run with {next(iter(other))}="):
            run.main(small(steps=2, correlations=1, out=tmp_path, **other))
    assert (tmp_path / "report.json").read_text() == first


@pytest.mark.usefixtures("_without_figures")
def test_study_runs_what_is_missing_and_tables_what_is_finished(tmp_path):
    settings = small(steps=2, correlations=1)
    config = study.Config(runs=("vae", "beta-vae:2"), seeds=(0, 1), settings=settings, out=tmp_path)
    table = study.main(config)
    assert [row["name"] for row in table] == ["beta-vae 2", "vae"]
    for row, folder in zip(table, ("beta-vae-2", "vae-1"), strict=True):
        files = [tmp_path / f"{folder}-seed{seed}" / "report.json" for seed in (0, 1)]
        scores = [json.loads(file.read_text())["factor_vae"] for file in files]
        assert row["factor_vae"][0] == pytest.approx(sum(scores) / 2)
        assert row["seeds"] == [0, 1]
        assert 0 <= row["udr"] <= 1
    assert (tmp_path / "scatter.png").stat().st_size > 1000
    (tmp_path / "scatter.png").unlink()
    before = {path: path.stat().st_mtime for path in tmp_path.glob("*/report.json")}
    study.main(config)
    assert before == {path: path.stat().st_mtime for path in tmp_path.glob("*/report.json")}
    assert (tmp_path / "scatter.png").stat().st_size > 1000


def test_table_of_the_study_does_not_break_numbers(monkeypatch, capsys):
    names = [f"annealed-vae {capacity}" for capacity in range(8)]
    values = {key: [-123.456, 0.123] for key in study.COLUMNS} | {"udr": 0.0, "irs": None}
    monkeypatch.setenv("COLUMNS", "60")
    one = {"data": "sprites", "steps": 4, "learning_rate": 5e-4}
    study.print_table([{"name": name, "seeds": [0, 1], **values} for name in names], one)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    text = "\n".join(lines)
    assert text.count("-123.5 ± 0.1") == len(names) * (len(study.COLUMNS) - 1)
    assert text.count(" 0.000 ") == len(names)
    assert "IRS" not in text
    assert "TC by a later critic" in text


@pytest.mark.usefixtures("_without_figures")
def test_study_skips_a_run_that_another_process_holds(tmp_path):
    (tmp_path / "vae-1-seed0").mkdir()
    settings = small(steps=2, correlations=1)
    config = study.Config(runs=("vae", "beta-vae:2"), settings=settings, out=tmp_path)
    with FileLock(tmp_path / "vae-1-seed0" / ".lock"):
        assert [row["name"] for row in study.main(config)] == ["beta-vae 2"]
    assert [row["name"] for row in study.main(config)] == ["beta-vae 2", "vae"]


def test_listed_commands_describe_the_same_runs(tmp_path, capsys):
    settings = small(bfloat16=False)
    config = study.Config(runs=("factor-vae:10", "vae"), list=True, settings=settings, out=tmp_path / "a folder")
    assert study.main(config) == []
    lines = capsys.readouterr().out.splitlines()
    parsed = [tyro.cli(run.Config, args=shlex.split(line)[2:]) for line in lines]
    assert parsed == study.planned(config)


@pytest.mark.usefixtures("_without_figures")
def test_metrics_left_out_are_not_in_the_table_nor_in_the_scatter(tmp_path):
    settings = small(steps=2, leave_out=METRICS, correlations=1)
    (row,) = study.main(study.Config(runs=("vae",), settings=settings, out=tmp_path))
    assert row["mig"] is row["factor_vae"] is None
    assert row["rate"] is not None
    assert not (tmp_path / "scatter.png").exists()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 3}, {"correlations": 0}])
def test_wrong_numbers_of_steps_and_correlations_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="expected at most 2 steps or a multiple of it, and correlations"):
        run.main(small(out=tmp_path, **wrong))


def test_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="expected a recipe from vae, beta-vae"):
        study.planned(study.Config(runs=("no-vae:3",)))


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize("over", ["runs", "checkpoints"])
def test_study_computes_the_agreement_of_runs_and_of_checkpoints(tmp_path, capsys, over):
    settings = small(steps=6, correlations=3, stage_scores=True)
    runs = ("vae", "beta-vae:2", "beta-vae:3")
    study.main(study.Config(runs=runs, agreement=over, settings=settings, out=tmp_path))
    found = json.loads((tmp_path / "agreement.json").read_text())
    assert found["names"] == ["FactorVAE", "MIG", "MIG of draws"]
    assert {number for row in found["num_runs"] for number in row} == ({3} if over == "runs" else {9})
    reports = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/report.json"))]
    rows = reports if over == "runs" else [row for report in reports for row in report["correlations"]]
    expected = pearsonr([row["mig"] for row in rows], [row["mig_of_draws"] for row in rows])
    assert found["pearson"][1][2] == pytest.approx(expected.statistic)
    assert found["pearson_p"][1][2] == pytest.approx(expected.pvalue)
    assert (tmp_path / "agreement.png").stat().st_size > 1000
    assert f"agreement of the metrics over {len(rows)} {over}" in capsys.readouterr().out


def test_printed_agreement_has_the_published_values(capsys):
    scores = {"FactorVAE": [0.1, 0.2, 0.3, 0.4], "Higgins": [0.2, 0.1, 0.3, 0.4]}
    study.print_agreement(metric_agreement(scores), "agreement")
    shown = " ".join(capsys.readouterr().out.split())
    assert "pearson 0.800 (published 0.404), kendall 0.667 (published 0.310), spearman 0.800 (published 0.444)" in shown

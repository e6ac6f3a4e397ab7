"""The run on dSprites and the study, on a grid of 60 images, at once."""

import json
import math
import shlex
import subprocess
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
import tyro
from filelock import FileLock

import ppvae
from ppvae.data import Dataset, Factors, Splits

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"


@pytest.fixture
def scripts(monkeypatch):
    """The two scripts, on squares of 3 sizes at 4 x 5 places."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    one, study = import_module("factorvae_dsprites"), import_module("disentanglement_study")
    factors = Factors(("size", "row", "column"), (3, 4, 5))
    x = torch.zeros(len(factors), 16, 16, dtype=torch.uint8)
    for image, (size, row, column) in zip(x, factors.values(torch.arange(len(factors))).tolist(), strict=True):
        image[3 * row : 3 * row + size + 2, 2 * column : 2 * column + size + 2] = 255
    data = Dataset(x, factors=factors)
    monkeypatch.setattr(one, "load", lambda name: Splits(data, data))
    monkeypatch.setattr(one, "IMAGES", 20)
    monkeypatch.setattr(one, "EPOCH", 2)
    followed = import_module("total_correlations")
    monkeypatch.setattr(followed, "train_critic", partial(followed.train_critic, num_steps=2, batch_size=8))
    monkeypatch.setattr(study, "SPRITES", factors)
    return one, study


def small(one, **changes):
    return replace(one.Config(steps=4, batch_size=8, correlations=2, leave_out=("dci",), initial_scale=None), **changes)


def test_every_recipe_trains(scripts, tmp_path):
    one, _ = scripts
    everything = ("higgins", "factor_vae", "mig", "dci", "sap", "modularity_explicitness", "irs")
    for recipe in one.RECIPES:
        config = small(one, recipe=recipe, steps=2, correlations=1, leave_out=everything, out=tmp_path / recipe)
        objective = one.build_objective(config, 60)
        rates = {a.optimizer(a.parameters()).param_groups[0]["lr"] for a in objective.adversaries}
        assert rates == ({0.01} if recipe == "geco" else {config.critic_learning_rate} if rates else set())
        assert (one.log_ratio(objective) is not None) == (recipe == "factor-vae")
        assert math.isfinite(one.main(config)["rate"])


def test_a_run_without_the_aggregate_posterior_has_no_total_correlation(scripts, tmp_path):
    one, _ = scripts
    report = one.main(small(one, recipe="vae", correlations=1, leave_out=("dci", "aggregate"), out=tmp_path))
    assert report["aggregate"] is None
    assert report["correlations"] == []
    assert not (tmp_path / "total_correlation.png").exists()


def test_means_and_scales_are_not_rounded_to_bfloat16(scripts):
    one, _ = scripts
    data = one.load("sprites").train
    _, guide = one.build_pair(one.Config(initial_scale=None), data)
    features = guide.encoder(data.rows(slice(0, 8)))
    assert (features != features.bfloat16().float()).float().mean() > 0.9


def test_first_weights_have_the_scale_that_was_asked_for(scripts):
    one, _ = scripts
    for module in one.build_pair(one.Config(initial_scale=0.3), one.load("sprites").train):
        weights = torch.cat([p.flatten() for p in module.parameters() if p.dim() > 1])
        assert weights.std().item() == pytest.approx(0.3, rel=0.05)
        assert all((p == 0).all() for p in module.parameters() if p.dim() == 1)


@pytest.mark.parametrize("recipe", ["factor-vae", "annealed-vae"])
def test_a_run_leaves_scores_figures_and_codes(scripts, recipe, tmp_path):
    one, _ = scripts
    report = one.main(small(one, recipe=recipe, out=tmp_path))
    assert json.loads((tmp_path / "report.json").read_text())["factor_vae"] == report["factor_vae"]
    for name in ("traversals.png", "traversals.gif", "reconstructions.png", "information.png", "total_correlation.png"):
        assert (tmp_path / name).stat().st_size > 1000, name
    assert report["strength"] == one.RECIPES[recipe][1]
    assert {"factor_vae", "mig", "higgins", "sap_r2", "irs"} <= report.keys()
    assert ("critic" in report["correlations"][0]) == (recipe == "factor-vae")
    assert ("total_correlation_by_critic" in report) == (recipe == "factor-vae")
    assert [row["step"] for row in report["correlations"]] == [2, 4]


def test_a_run_that_was_stopped_gives_the_report_of_one_that_was_not(scripts, tmp_path, monkeypatch):
    one, _ = scripts
    whole = one.main(small(one, out=tmp_path / "whole"))
    with monkeypatch.context() as stopping:
        stopping.setattr(import_module("total_correlations"), "aggregate_posterior", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            one.main(small(one, out=tmp_path / "stopped"))
    resumed = one.main(small(one, out=tmp_path / "stopped"))
    # The first stage was over when it was stopped, and its total correlation can be taken once more.
    del whole["training_seconds"], resumed["training_seconds"]
    assert resumed == whole


@pytest.mark.parametrize("recipe", ["factor-vae", "annealed-vae"])
def test_a_run_that_is_lengthened_gives_the_report_of_one_that_was_that_long(scripts, tmp_path, recipe):
    one, _ = scripts
    whole = one.main(small(one, recipe=recipe, steps=6, correlations=3, ramp=3, out=tmp_path / "whole"))
    short = small(one, recipe=recipe, steps=2, correlations=1, ramp=3, out=tmp_path / "lengthened")
    one.main(short)
    lengthened = one.main(replace(short, steps=6, correlations=3))
    del whole["training_seconds"], lengthened["training_seconds"]
    assert lengthened == whole
    before = (tmp_path / "lengthened" / "report.json").read_text()
    with pytest.raises(ValueError, match="got one that has come to 6"):
        one.main(short)
    assert (tmp_path / "lengthened" / "report.json").read_text() == before


def test_what_was_looked_at_in_a_shorter_run_is_kept(scripts, tmp_path):
    one, _ = scripts
    short = small(one, recipe="vae", correlations=1, out=tmp_path)
    first = one.main(short)["correlations"]
    report = one.main(replace(short, steps=6))
    assert [row["step"] for row in report["correlations"]] == [4, 6]
    assert report["correlations"][:1] == first


def test_a_run_stopped_between_new_codes_and_their_report_has_none(scripts, tmp_path, monkeypatch):
    one, _ = scripts
    short = small(one, recipe="vae", correlations=1, out=tmp_path)
    one.main(short)
    with monkeypatch.context() as stopping:
        stopping.setattr(one, "score", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            one.main(replace(short, steps=6))
    assert not (tmp_path / "report.json").exists()
    assert one.main(replace(short, steps=6))["steps"] == 6


def test_settings_that_a_recipe_does_not_read_are_none_of_its_own(scripts):
    one, study = scripts
    assert one.ANNEALED == ("gamma", "ramp")
    assert {"gamma", "ramp"} <= one.settings(small(one, recipe="annealed-vae")).keys()
    assert one.settings(small(one, recipe="vae", ramp=3)) == one.settings(small(one, recipe="vae", gamma=7.0))
    assert study.shared(small(one, recipe="annealed-vae", ramp=3)) == study.shared(small(one, recipe="vae"))


def test_a_run_is_coded_in_both_types_and_left_as_it_was(scripts, tmp_path, monkeypatch):
    one, _ = scripts
    both = import_module("bfloat16_codes")
    monkeypatch.setattr(both, "load", one.load)
    report = one.main(small(one, recipe="vae", correlations=1, out=tmp_path))
    weights = (tmp_path / "last.safetensors").read_bytes()
    found = both.main(both.Config(run=tmp_path, leave_out=("dci", "irs", "aggregate", "higgins")))
    assert found["epoch"] == 2
    assert {name: report[name] for name in found["bfloat16"]} == found["bfloat16"]
    assert {"reconstruction", "factor_vae", "mig"} <= found["float32"].keys()
    assert found["float32"]["reconstruction"] != report["reconstruction"]
    assert found["float32"]["reconstruction"] == pytest.approx(report["reconstruction"], rel=1e-3)
    assert 0 < max(found["moved"]) < 0.1
    assert (tmp_path / "last.safetensors").read_bytes() == weights
    assert json.loads((tmp_path / "bfloat16.json").read_text())["float32"] == found["float32"]


def test_a_folder_of_no_run_in_bfloat16_is_not_coded(scripts, tmp_path):
    one, _ = scripts
    both = import_module("bfloat16_codes")
    with pytest.raises(ValueError, match="expected the folder of a run of factorvae_dsprites"):
        both.main(both.Config(run=tmp_path))
    one.main(small(one, recipe="vae", correlations=1, bfloat16=False, out=tmp_path))
    with pytest.raises(ValueError, match="in bfloat16, got"):
        both.main(both.Config(run=tmp_path))


def _interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("other", [{"initial_scale": 0.3}, {"bfloat16": False}, {"seed": 1}])
def test_a_run_of_other_settings_is_not_taken_for_this_one(scripts, tmp_path, other):
    one, _ = scripts
    one.main(small(one, correlations=1, out=tmp_path))
    first = (tmp_path / "report.json").read_text()
    with pytest.raises(ppvae.training.run_folder.RunFolderError, match=f"run with {next(iter(other))}="):
        one.main(small(one, correlations=1, out=tmp_path, **other))
    assert (tmp_path / "report.json").read_text() == first


def test_the_study_runs_what_is_missing_and_tables_what_is_there(scripts, tmp_path):
    one, study = scripts
    config = study.Config(runs=("vae", "beta-vae:2"), seeds=(0, 1), settings=small(one), out=tmp_path)
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


def test_the_table_of_the_study_keeps_its_numbers_whole(scripts, tmp_path, monkeypatch, capsys):
    _, study = scripts
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


def test_the_study_leaves_a_run_to_the_process_that_is_at_it(scripts, tmp_path):
    one, study = scripts
    (tmp_path / "vae-1-seed0").mkdir()
    config = study.Config(runs=("vae", "beta-vae:2"), settings=small(one, correlations=1), out=tmp_path)
    with FileLock(tmp_path / "vae-1-seed0" / ".lock"):
        assert [row["name"] for row in study.main(config)] == ["beta-vae 2"]
    assert [row["name"] for row in study.main(config)] == ["beta-vae 2", "vae"]


def test_listed_commands_make_the_same_runs(scripts, tmp_path, capsys):
    one, study = scripts
    settings = small(one, bfloat16=False)
    config = study.Config(runs=("factor-vae:10", "vae"), list=True, settings=settings, out=tmp_path / "a folder")
    assert study.main(config) == []
    lines = capsys.readouterr().out.splitlines()
    parsed = [tyro.cli(one.Config, args=shlex.split(line)[2:]) for line in lines]
    assert parsed == study.planned(config)


def test_listed_commands_survive_the_shell_that_xargs_starts(scripts, tmp_path, capsys):
    _, study = scripts
    config = study.Config(runs=("vae",), list=True, out=tmp_path / "a folder")
    study.main(config)
    line = capsys.readouterr().out.replace("python ", "printf '%s\\n' ", 1)
    done = subprocess.run(
        ["xargs", "-d", r"\n", "-I", "{}", "sh", "-c", "{}"], input=line, text=True, capture_output=True
    )
    assert str(tmp_path / "a folder" / "vae-1-seed0") in done.stdout.splitlines()


def test_metrics_left_out_are_left_out_of_the_table_and_the_scatter(scripts, tmp_path):
    one, study = scripts
    settings = small(one, leave_out=("dci", "mig", "factor_vae"), correlations=1)
    (row,) = study.main(study.Config(runs=("vae",), settings=settings, out=tmp_path))
    assert row["mig"] is row["factor_vae"] is None
    assert row["rate"] is not None
    assert not (tmp_path / "scatter.png").exists()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 3}, {"correlations": 0}])
def test_numbers_of_steps_and_looks_are_checked(scripts, wrong, tmp_path):
    one, _ = scripts
    with pytest.raises(ValueError, match="expected at most 2 steps or a multiple of it, and correlations"):
        one.main(small(one, out=tmp_path, **wrong))


def test_a_recipe_that_is_none_is_refused(scripts):
    _, study = scripts
    with pytest.raises(ValueError, match="expected a recipe out of vae, beta-vae"):
        study.planned(study.Config(runs=("no-vae:3",)))

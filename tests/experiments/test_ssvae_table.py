"""ssvae_table.py, from reports of finished runs."""

import json

import pytest

from ppvae.training.run_folder import RunFolderError
from tests.experiments.scripts import script

ssvae_table = script("ssvae_table")


def write_report(out, seed: int, accuracy: float, **changes) -> None:
    settings = {
        "pair": "m2",
        "guide": "label-style",
        "objective": "elbo",
        "alpha": 10.0,
        "consistency": 10.0,
        "generated": 2.0,
        "augment": True,
        "epochs": 8,
        "batch_size": 100,
        "labelled_per_step": 50,
        "learning_rate": 2e-3,
        "device": "auto",
        "log_p_images": 100,
        "log_p_particles": 1000,
        "smoke": False,
        "data": "mnist",
    }
    scores = {"test_accuracy": accuracy, "test_log_p": -98.0, "test_log_p_is_lower_bound": False}
    folder = out / f"100labels-seed{seed}"
    folder.mkdir(parents=True)
    report = {"labels": 100, "seed": seed, "training_seconds": 600.0, **settings, **scores, **changes}
    (folder / "report.json").write_text(json.dumps(report))


def test_table_has_mean_and_deviation_and_published_values(tmp_path, capsys):
    write_report(tmp_path, 0, 0.98)
    write_report(tmp_path, 1, 0.99)
    ssvae_table.main(ssvae_table.Config(seeds=(0, 1), out=tmp_path))
    text = capsys.readouterr().out
    assert "0.9850 ± 0.0071 (2 seeds)" in text
    assert "0.990" in text  # ADGM


def test_table_marks_log_p_if_one_run_has_a_lower_bound(tmp_path, capsys):
    write_report(tmp_path, 0, 0.98, test_log_p=-97.0)
    write_report(tmp_path, 1, 0.99)
    ssvae_table.main(ssvae_table.Config(seeds=(), out=tmp_path))
    assert "│ -97.50 ± 0.71 (2 seeds)" in capsys.readouterr().out
    write_report(tmp_path, 2, 0.99, test_log_p_is_lower_bound=True)
    ssvae_table.main(ssvae_table.Config(seeds=(), out=tmp_path))
    assert "│ ≥ -97.67 ± 0.58 (3 seeds)" in capsys.readouterr().out


def test_runs_with_other_settings_have_their_own_row(tmp_path, capsys):
    write_report(tmp_path, 0, 0.98)
    write_report(tmp_path, 1, 0.93, augment=False)
    write_report(tmp_path, 2, 0.97, pair="adgm", generated=0.0)
    ssvae_table.main(ssvae_table.Config(seeds=(), out=tmp_path))
    text = capsys.readouterr().out
    assert "0.9800 (1 seed)" in text
    assert "no augmentation" in text
    assert "ppvae on mnist, adgm, elbo, warped views, consistency 10, 8 epochs, generated 0.0" in " ".join(text.split())


def test_finished_run_with_other_settings_is_refused(tmp_path):
    write_report(tmp_path, 0, 0.98, epochs=3)
    with pytest.raises(RunFolderError, match="was run with epochs=3, not 8"):
        ssvae_table.main(ssvae_table.Config(seeds=(0,), out=tmp_path))

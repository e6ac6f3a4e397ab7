"""em_mixture.py and kl_directions.py, shortened: their claims hold at any length."""

import pytest

from tests.experiments.scripts import script


def test_em_never_lowers_the_evidence(tmp_path):
    em_mixture = script("em_mixture")
    report = em_mixture.main(em_mixture.Config(iterations=8, out=tmp_path))
    assert report["rounds"] == 8
    assert report["largest_fall"] == 0
    assert report["largest_gap_after_the_E_step"] < 1e-9
    assert report["log_evidence"] < report["scikit_learn"]
    assert (tmp_path / "evidence.png").exists()
    assert (tmp_path / "report.json").exists()


def test_kl_directions_compares_with_the_exact_evidence(tmp_path, monkeypatch):
    kl_directions = script("kl_directions")
    monkeypatch.setattr(kl_directions, "BATCHES", 50)
    report = kl_directions.main(kl_directions.Config(steps=50, data=10, particles=100, out=tmp_path))
    assert len(report) == 3
    for record in report.values():
        assert record["elbo"] < record["exact_log_p"]
        assert record["exact_log_p"] == pytest.approx(next(iter(report.values()))["exact_log_p"])
        assert 0 <= record["lighter_side"] <= 0.5
    assert (tmp_path / "posterior.png").exists()

"""The benchmark of imports, with one round of cheap imports."""

from tests.experiments.scripts import script


def test_import_time_measures_both_imports_once_per_round(monkeypatch, capsys):
    benchmark = script("import_time")
    monkeypatch.setattr(benchmark, "STATEMENTS", ("import json", "import decimal"))
    runs = benchmark.main(benchmark.Config(rounds=1))
    assert list(runs) == ["import json", "import decimal"]
    for [(seconds, memory)] in runs.values():
        assert seconds > 0
        assert memory > 1  # MiB; the interpreter alone needs more
    assert "time, import json = 1" in " ".join(capsys.readouterr().out.split())

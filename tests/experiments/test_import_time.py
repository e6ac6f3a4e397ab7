"""The benchmark of imports, with one round."""

from importlib import import_module
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent.parent / "experiments" / "benchmarks"


def test_import_time_measures_both_imports_once_a_round(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = import_module("import_time")
    runs = benchmark.main(benchmark.Config(rounds=1))
    assert list(runs) == ["import torch, pyro", "import ppvae"]
    for [(seconds, memory)] in runs.values():
        assert seconds > 0
        assert memory > 50  # torch alone needs more
    assert "time, import torch, pyro = 1" in " ".join(capsys.readouterr().out.split())

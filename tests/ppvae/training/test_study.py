"""Tables of many runs."""

import json

import pytest

from ppvae.training.run_folder import RunFolderError
from ppvae.training.study import claim, finished, reports, started, withdraw_report, write_report


def test_finished_is_true_once_there_is_a_report(tmp_path):
    assert not finished(tmp_path, {"epochs": 3})
    assert not started(tmp_path)
    (tmp_path / "last.safetensors").touch()
    assert started(tmp_path)
    write_report(tmp_path, {"epochs": 3, "hidden": (5, 5), "nll": 1.5})
    assert finished(tmp_path, {"epochs": 3, "hidden": (5, 5)})  # tuples are read back as lists


def test_finished_refuses_a_run_with_other_settings(tmp_path):
    write_report(tmp_path, {"epochs": 3})
    with pytest.raises(RunFolderError, match="run with epochs=3, not 4"):
        finished(tmp_path, {"epochs": 4})
    with pytest.raises(RunFolderError, match="run with seed=None, not 0"):
        finished(tmp_path, {"seed": 0})


def test_claim_writes_the_settings_and_refuses_others(tmp_path):
    claim(tmp_path, {"epochs": -1})  # such a run was refused and left nothing
    claim(tmp_path, {"epochs": 3, "hidden": (5, 5)})
    (tmp_path / "last.safetensors").touch()
    claim(tmp_path, {"epochs": 3, "hidden": (5, 5)})
    with pytest.raises(RunFolderError, match="run with epochs=3, not 4; choose another folder"):
        claim(tmp_path, {"epochs": 4, "hidden": (5, 5)})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"epochs": 3, "hidden": [5, 5]}


def test_finished_is_false_for_a_shorter_run_that_can_be_lengthened(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_report(folder, {"steps": 10, "seed": 0})
    assert finished(folder, {"steps": 10, "seed": 0}, "steps")
    assert reports(tmp_path, {"steps": 10}, "steps") == [{"steps": 10, "seed": 0}]
    assert not finished(folder, {"steps": 20, "seed": 0}, "steps")
    assert reports(tmp_path, {"steps": 20}, "steps") == []
    for wrong in ({"steps": 5, "seed": 0}, {"steps": 10, "seed": 1}):
        with pytest.raises(RunFolderError, match=r"was run with (steps=10, not 5|seed=0, not 1)"):
            finished(folder, wrong, "steps")
    with pytest.raises(RunFolderError, match="run with steps=10, not 20"):
        finished(folder, {"steps": 20, "seed": 0})


def test_withdraw_report_removes_it(tmp_path):
    withdraw_report(tmp_path)
    write_report(tmp_path, {"seed": 0})
    withdraw_report(tmp_path)
    assert not finished(tmp_path, {"seed": 0})
    assert list(tmp_path.iterdir()) == []


def test_claim_reads_the_report_of_a_folder_without_settings(tmp_path):
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(RunFolderError, match=r"holds a run without settings.json"):
        claim(tmp_path, {"epochs": 3})
    write_report(tmp_path, {"epochs": 3, "nll": 1.5})
    claim(tmp_path, {"epochs": 3})
    with pytest.raises(RunFolderError, match="run with epochs=3, not 4"):
        claim(tmp_path, {"epochs": 4})


def test_reports_are_sorted_by_name(tmp_path):
    for name in ("b", "a", "unfinished"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        write_report(tmp_path / name, {"name": name})
    assert [report["name"] for report in reports(tmp_path, {})] == ["a", "b"]
    with pytest.raises(RunFolderError, match="name='b', not 'a'"):
        reports(tmp_path, {"name": "a"})  # a table has runs of one kind


def test_write_report_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(tmp_path, {"nll": float("nan")})


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_finished_refuses_a_report_that_is_none(content, tmp_path):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"report.json, got .*remove the file"):
        finished(tmp_path, {"seed": 0})


def test_write_report_leaves_no_temporary_and_keeps_the_old_report_where_it_fails(tmp_path):
    write_report(tmp_path, {"nll": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(tmp_path, {"nll": float("inf")})
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert json.loads((tmp_path / "report.json").read_text()) == {"nll": 1.0}

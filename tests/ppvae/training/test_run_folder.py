"""The folder of a run."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import ppvae
from ppvae.data import Dataset
from ppvae.training import Batching, RunDir, Validation, adam
from ppvae.training.run_folder import RunExistsError, RunFolderError, RunFolderInUseError
from tests.ppvae.training.runs import data_of, run


def resume(path):
    return RunDir(path, resume=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_is_not_overwritten(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    before = contents(tmp_path)
    message = (
        r"holds a run already; pass run_dir=RunDir\('.*', resume=True\) to continue it \(on a command line, --resume"
    )
    with pytest.raises(RunExistsError, match=message) as error:
        run(run_dir=tmp_path, epochs=1)
    assert isinstance(error.value, FileExistsError)
    assert contents(tmp_path) == before


def test_a_folder_in_use_by_another_process_is_left_alone(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    before = contents(tmp_path)
    with FileLock(tmp_path / ".lock"), pytest.raises(RunFolderInUseError, match="in use by another process"):
        run(run_dir=resume(tmp_path), epochs=2)
    assert contents(tmp_path) == before
    assert len(run(run_dir=resume(tmp_path), epochs=2)[2].metrics) == 2


@pytest.mark.parametrize(("number", "used"), [(errno.ENOLCK, True), (errno.ENOSYS, True), (errno.EACCES, False)])
def test_a_file_system_without_locks_is_used_without_one(number, used, tmp_path, monkeypatch):
    def refuse(self, *args, **options):
        raise OSError(number, "no")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    if used:
        run(run_dir=tmp_path, epochs=1)
    else:
        with pytest.raises(RunFolderError, match="expected a run folder that can be locked"):
            run(run_dir=tmp_path, epochs=1)


def test_an_unwritable_run_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunFolderError, match="run folder that can be written"):
        run(run_dir=tmp_path / "file" / "run")


class Network(ppvae.objectives.Penalty):
    """A term that owns a network, as a perceptual loss does."""

    label = "network"

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.network = torch.nn.Linear(64, 1).double().requires_grad_(False)
        self.function = lambda x: self.network(x.flatten(1))

    def penalty(self, particles):
        return self.function(particles.batch.x).squeeze(-1)


class Unknown(ppvae.ELBO):
    def __init__(self, value):
        super().__init__()
        self.setting = value


class Plain:
    def __init__(self, size):
        self.size = size


def schedule(slope):
    return lambda step: slope * step


BASE = {"pair": "gaussian_vae", "epochs": 1}
OTHERS = {
    "batch size": ({}, {"batch_size": 3}),
    "numpy's number of particles": ({"objective": ppvae.IWAE(np.int64(5))}, {"objective": ppvae.IWAE(np.int64(50))}),
    "a tensor as a setting": ({"objective": Unknown(torch.tensor(1.0))}, {"objective": Unknown(torch.tensor(2.0))}),
    "an array as a setting": ({"objective": Unknown(np.zeros(3))}, {"objective": Unknown(np.ones(3))}),
    "an object as a setting": ({"objective": Unknown(Plain(1))}, {"objective": Unknown(Plain(2))}),
    "a list of objects": ({"objective": Unknown([Plain(1)])}, {"objective": Unknown([Plain(2)])}),
    "a dictionary": ({"objective": Unknown({"a": 1})}, {"objective": Unknown({"a": 2})}),
    "a type": ({"objective": Unknown(torch.float32)}, {"objective": Unknown(torch.float64)}),
    "a function": ({"objective": Unknown(schedule(1))}, {"objective": Unknown(schedule(2))}),
    "a term": ({"objective": ppvae.beta_vae(4.0)}, {"objective": ppvae.ELBO()}),
    "a weight": ({"objective": ppvae.beta_vae(4.0)}, {"objective": ppvae.beta_vae(5.0)}),
    "a ramp": ({"objective": ppvae.beta_vae(ppvae.warm_up(10))}, {"objective": ppvae.beta_vae(ppvae.warm_up(90))}),
    "a schedule": ({"objective": ppvae.beta_vae(schedule(1.0))}, {"objective": ppvae.beta_vae(schedule(2.0))}),
    "a term's network": ({"objective": ppvae.ELBO() + Network(0)}, {"objective": ppvae.ELBO() + Network(1)}),
    "a learning rate": ({}, {"optimizer": adam(0.1)}),
    "a rate's schedule": ({"optimizer": adam(schedule=schedule(1.0))}, {"optimizer": adam(schedule=schedule(0.5))}),
    "groups": (
        {"optimizer": lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:], "lr": 0.5}])},
        {"optimizer": lambda p: torch.optim.Adam([{"params": p[:2]}, {"params": p[2:], "lr": 0.5}])},
    ),
    "an option of a group": (
        {"optimizer": lambda p: torch.optim.Adam([{"params": p, "betas": (0.5, 0.9)}])},
        {"optimizer": lambda p: torch.optim.Adam([{"params": p, "betas": (0.6, 0.9)}])},
    ),
    "a frozen model": ({"train_model": False}, {"train_model": True}),
    "another frozen model": ({"train_model": False}, {"train_model": False, "seed": 1}),
    "validation data": (
        {"validation": data_of("gaussian_vae")},
        {"validation": data_of("gaussian_vae").take(slice(0, 4))},
    ),
    "no validation data": ({"validation": data_of("gaussian_vae")}, {}),
    "labels": ({"pair": "label"}, {"pair": "label", "data": data_of("label").with_labels(data_of("label").y.roll(1))}),
    "a critic's optimizer": (
        {"objective": ppvae.factor_vae(5.0, 3)},
        {"objective": ppvae.factor_vae(5.0, 3, optimizer=torch.optim.SGD)},
    ),
    "steps per epoch": ({}, {"batch_size": Batching(4, steps_per_epoch=2)}),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.filterwarnings("ignore:.*starts from its first state")
def test_a_run_with_other_settings_is_not_resumed(case, tmp_path):
    one, other = ({**BASE, **options} for options in OTHERS[case])
    run(run_dir=tmp_path, **one)
    before = contents(tmp_path)
    with pytest.raises(ppvae.CheckpointError, match=r"holds a run with .*resume with the same settings"):
        run(run_dir=resume(tmp_path), **{**other, "epochs": 2})
    assert contents(tmp_path) == before
    assert len(run(run_dir=resume(tmp_path), **{**one, "epochs": 2})[2].metrics) == 2


def test_a_term_that_owns_a_network_trains_in_a_run_folder(tmp_path):
    _, _, result = run("gaussian_vae", objective=ppvae.ELBO() + Network(), run_dir=tmp_path, epochs=1)
    assert "network" in result.metrics[0]


def test_a_callable_setting_is_not_called(tmp_path):
    class Counting:
        calls = 0

        def __call__(self, *args):
            type(self).calls += 1
            return 1.0

    run("gaussian_vae", objective=Unknown(Counting()), run_dir=tmp_path, epochs=1)
    run("gaussian_vae", objective=Unknown(Counting()), run_dir=resume(tmp_path), epochs=2)
    assert Counting.calls == 0


@pytest.mark.parametrize("content", [None, "{ not json", "[]", "", "null"])
def test_a_run_folder_without_its_configuration_is_not_resumed(content, tmp_path):
    run(run_dir=tmp_path, epochs=1)
    config = tmp_path / "config.json"
    config.unlink() if content is None else config.write_text(content)
    with pytest.raises(ppvae.CheckpointError, match=r"config.json cannot be read"):
        run(run_dir=resume(tmp_path), epochs=2)


@pytest.mark.parametrize("content", [None, "", '{"epoch": 1}\n{"epo', "[1]\n", '{"epoch": 7}\n', "\n\n"])
def test_metrics_are_restored_from_the_checkpoint(content, tmp_path):
    """Whatever became of metrics.jsonl: a resumed run writes all of it again."""
    run("gaussian_vae", run_dir=tmp_path, epochs=2)
    metrics = tmp_path / "metrics.jsonl"
    expected = metrics.read_text().splitlines()
    metrics.unlink() if content is None else metrics.write_text(content)
    *_, result = run("gaussian_vae", run_dir=resume(tmp_path), epochs=3)
    lines = metrics.read_text().splitlines()
    assert lines[:2] == expected
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3] == [row["epoch"] for row in result.metrics]


def test_files_have_the_mode_of_the_umask_and_no_temporary_stays(tmp_path):
    run("gaussian_vae", run_dir=tmp_path, epochs=1)
    (tmp_path / ".last.safetensors.killed.unfinished").write_bytes(b"left by a killed process")
    run("gaussian_vae", run_dir=resume(tmp_path), epochs=2, validation=None)
    umask = os.umask(0)
    os.umask(umask)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "last.safetensors", ".lock"}
    for name in names - {".lock"}:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_a_folder_that_is_moved_away_during_training_is_an_error(tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"

    def move():
        folder.rename(moved)
        folder.mkdir()
        return {}

    with pytest.raises(RunFolderError, match="was moved or emptied during training; move it back and resume"):
        run("gaussian_vae", run_dir=folder, validation=Validation(evaluate=move))
    assert list(folder.iterdir()) == []
    folder.rmdir()
    moved.rename(folder)
    assert len(run("gaussian_vae", run_dir=resume(folder))[2].metrics) == 3


KILLED = """
import sys, torch, ppvae
from tests.ppvae.training.runs import run
from ppvae.training import RunDir, Validation
look = Validation(evaluate=lambda: print("epoch", flush=True) or {})
run("gaussian_vae", epochs=10_000, run_dir=RunDir(sys.argv[1], resume=True), validation=look)
"""


def test_kills_at_any_moment_lose_no_row_of_the_metrics(tmp_path):
    root = str(Path(__file__).parents[3])
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= 2
    model, guide, _ = run("gaussian_vae", epochs=1)
    values = ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert len(values["metrics"]) == values["epoch"] >= 4


def test_data_are_compared_by_their_values(tmp_path):
    data = data_of("gaussian_vae")
    run("gaussian_vae", data=data, run_dir=tmp_path, epochs=1)
    changed = data.x.clone()
    changed[7, 3, 3] = 1 - changed[7, 3, 3]
    with pytest.raises(ppvae.CheckpointError, match="holds a run with x="):
        run("gaussian_vae", data=Dataset(changed), run_dir=resume(tmp_path), epochs=2)

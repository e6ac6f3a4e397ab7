"""What a run leaves in its folder, how it stops, and how it goes on."""

import errno
import json
import os
import pickle
import signal

import pytest
import torch
from filelock import FileLock

import ppvae
from ppvae.data import Dataset
from ppvae.training import checkpoint
from ppvae.training.run_folder import RunFolderError, RunFolderInUseError
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, data_of, run, weights


def test_a_signal_during_the_last_evaluation_is_not_swallowed(tmp_path):
    metrics = tmp_path / "metrics.jsonl"

    def evaluate():
        if metrics.exists() and len(metrics.read_text().splitlines()) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(ppvae.Interrupted, match="epoch 4"):
        run("gaussian_vae", epochs=3, run_dir=tmp_path, evaluate=evaluate)
    assert not issubclass(ppvae.Interrupted, Exception)


def test_the_run_folder(tmp_path):
    _, _, result = run(run_dir=tmp_path, validation=data_of("label"), evaluate=lambda: {"two": 2.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.metrics
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["two"] == 2.0 and "validation_loss" in row for row in rows)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("pair", ["label", "gaussian_vae"])
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_ends(pair, tmp_path):
    whole = run(pair, epochs=5, run_dir=tmp_path / "whole", validation=data_of(pair))
    run(pair, epochs=2, run_dir=tmp_path / "halved", validation=data_of(pair))
    resumed = run(pair, seed=0, epochs=5, run_dir=tmp_path / "halved", resume=True, validation=data_of(pair))
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    for a, b in zip(whole[2].metrics, resumed[2].metrics, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


class _SignalAt(ppvae.ELBO):
    """Sends this process a signal while it takes a certain loss."""

    def __init__(self, number: int, at: int):
        super().__init__()
        self.number, self.left = number, at

    def per_datum(self, particles):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().per_datum(particles)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_from_which_the_run_goes_on_bit_for_bit(number, tmp_path):
    options = {"pair": "gaussian_vae", "epochs": 3}
    whole = run(objective=ppvae.ELBO(), run_dir=tmp_path / "whole", **options)
    before = signal.getsignal(number)
    with pytest.raises(ppvae.Interrupted, match=rf"{number.name} at step 8 .epoch 2.*Resume") as stop:
        run(objective=_SignalAt(number, at=8), run_dir=tmp_path / "cut", **options)
    assert stop.value.signal_number == number
    assert signal.getsignal(number) is before
    config = tmp_path / "cut" / "config.json"
    config.write_text((tmp_path / "whole" / "config.json").read_text())
    resumed = run(objective=ppvae.ELBO(), run_dir=tmp_path / "cut", resume=True, **options)
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    assert resumed[2].metrics[1]["loss"] == whole[2].metrics[1]["loss"]


class _TurnsNaN(ppvae.ELBO):
    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def per_datum(self, particles):
        self.left -= 1
        return super().per_datum(particles) * (1.0 if self.left >= 0 else float("nan"))


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(ppvae.NonFiniteLossError, match=r"the loss turned nan .*last\.safetensors is kept"):
        run("gaussian_vae", objective=_TurnsNaN(after=8), epochs=4, run_dir=tmp_path)
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    assert ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in weights(model, guide))


def test_a_step_that_ruins_the_parameters_is_not_checkpointed(tmp_path):
    with pytest.raises(ppvae.NonFiniteLossError):
        run("gaussian_vae", optimizer=lambda p: torch.optim.SGD(p, 1e30), run_dir=tmp_path)
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert_equal(weights(model, guide), weights(*PAIRS["gaussian_vae"].make()[:2]))


def test_a_run_is_not_overwritten(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already; pass resume=True"):
        run(run_dir=tmp_path, epochs=1)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_folder_that_another_process_is_at_is_left_to_it(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with FileLock(tmp_path / ".lock"), pytest.raises(RunFolderInUseError, match="in use by another process"):
        run(run_dir=tmp_path, epochs=2, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(run(run_dir=tmp_path, epochs=2, resume=True)[2].metrics) == 2


@pytest.mark.parametrize(("number", "kept"), [(errno.ENOLCK, True), (errno.ENOSYS, True), (errno.EACCES, False)])
def test_a_file_system_without_locks_is_gone_on_without(number, kept, tmp_path, monkeypatch):
    def refuse(self, *args, **options):
        raise OSError(number, "no")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    if kept:
        run(run_dir=tmp_path, epochs=1)
    else:
        with pytest.raises(RunFolderError, match="expected a run folder that can be locked"):
            run(run_dir=tmp_path, epochs=1)


def test_a_run_with_other_settings_is_not_resumed(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    with pytest.raises(ppvae.CheckpointError, match="run with batch_size=4, got batch_size=3"):
        run(run_dir=tmp_path, epochs=2, batch_size=3, resume=True)


def test_a_run_on_another_frozen_model_is_not_resumed(tmp_path):
    run("gaussian_vae", seed=0, run_dir=tmp_path, epochs=1, train_model=False)
    run("gaussian_vae", seed=0, run_dir=tmp_path, epochs=2, train_model=False, resume=True)
    with pytest.raises(ppvae.CheckpointError, match="run with frozen_model="):
        run("gaussian_vae", seed=1, run_dir=tmp_path, epochs=3, train_model=False, resume=True)


def test_a_run_with_another_objective_or_other_labels_is_not_resumed(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    with pytest.raises(ppvae.CheckpointError, match=r"run with objective=.*'alpha': 1.0.*got objective=.*'alpha': 2.0"):
        run(run_dir=tmp_path, epochs=2, resume=True, objective=ppvae.ELBO() + ppvae.ClassifierLoss(2.0))
    other = Dataset(data_of("label").x, data_of("label").y.roll(1), num_classes=4)
    with pytest.raises(ppvae.CheckpointError, match="run with labels="):
        run(run_dir=tmp_path, epochs=2, resume=True, data=other)
    with pytest.raises(ppvae.CheckpointError, match="run with optimizer="):
        run(run_dir=tmp_path, epochs=2, resume=True, optimizer=ppvae.adam(0.1))


@pytest.mark.parametrize("content", [None, "{ not json"])
def test_a_run_folder_without_its_configuration(content, tmp_path):
    run(run_dir=tmp_path, epochs=1)
    config = tmp_path / "config.json"
    config.unlink() if content is None else config.write_text(content)
    with pytest.raises(ppvae.CheckpointError, match=r"config.json cannot be read"):
        run(run_dir=tmp_path, epochs=2, resume=True)


def test_a_checkpoint_that_lacks_what_a_run_needs(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    tensors, values = checkpoint.read(tmp_path / "last.safetensors")
    del tensors["run/rng_cpu"]
    checkpoint.save(tmp_path / "last.safetensors", tensors, values)
    with pytest.raises(ppvae.CheckpointError, match="lacks run/rng_cpu"):
        run(run_dir=tmp_path, epochs=2, resume=True)


def test_an_unwritable_run_folder(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="run folder that can be written"):
        run(run_dir=tmp_path / "file" / "run")


def damage(path, how):
    whole = path.read_bytes()
    if how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "hostile pickle":
        path.write_bytes(pickle.dumps(_Hostile(path.parent / "executed")))


class _Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["truncated", "empty", "hostile pickle"])
def test_a_checkpoint_that_is_none(how, tmp_path):
    model, guide, _ = run(run_dir=tmp_path, epochs=1)
    before = weights(model, guide)
    damage(tmp_path / "last.safetensors", how)
    with pytest.raises(ppvae.CheckpointError, match="truncated or not a checkpoint"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    with pytest.raises(ppvae.CheckpointError, match="truncated or not a checkpoint"):
        run(run_dir=tmp_path, epochs=2, resume=True)
    assert_equal(weights(model, guide), before)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_pair(tmp_path):
    run("gaussian_vae", run_dir=tmp_path, epochs=1)
    model, guide, _ = PAIRS["label"].make()
    before = weights(model, guide)
    with pytest.raises(ppvae.CheckpointError, match=r"belongs to another pair: .* absent"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert_equal(weights(model, guide), before)


def test_a_checkpoint_that_is_not_there(tmp_path):
    model, guide, _ = PAIRS["label"].make()
    with pytest.raises(ppvae.CheckpointError, match="found none"):
        ppvae.load_checkpoint(tmp_path / "none.safetensors", model, guide)

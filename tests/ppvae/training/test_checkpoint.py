"""Checkpoint files, and loading the weights of a pair."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ppvae
from ppvae.engine.player import Player
from ppvae.training import adam, checkpoint, load_players
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, modules_of, run, weights


def factor_vae(seed=0):
    torch.manual_seed(seed)
    return ppvae.factor_vae(5.0, latent_dim=3)


OBJECTIVES = {"critic": factor_vae, "multiplier": lambda seed=0: ppvae.geco(30.0)}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_load_checkpoint_gives_the_pair_and_its_objective(objective, tmp_path):
    trained, again = OBJECTIVES[objective](), OBJECTIVES[objective](1)
    pair = run("gaussian_vae", objective=trained, run_dir=tmp_path)[:2]
    fresh = PAIRS["gaussian_vae"].make(seed=1)[:2]
    before = weights(*modules_of(again))
    values = ppvae.load_checkpoint(tmp_path / "last.safetensors", *fresh)
    assert (values["epoch"], len(values["metrics"])) == (3, 3)
    assert_equal(before, weights(*modules_of(again)))
    assert_equal(weights(*pair), weights(*fresh))
    ppvae.load_checkpoint(tmp_path / "last.safetensors", *fresh, again)
    assert_equal(weights(*modules_of(trained)), weights(*modules_of(again)))


def test_load_checkpoint_refuses_a_checkpoint_without_the_critic(tmp_path):
    run("gaussian_vae", objective=ppvae.ELBO(), run_dir=tmp_path)
    with pytest.raises(ppvae.CheckpointError, match=r"module/critic/z:.* is absent in the file"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", *PAIRS["gaussian_vae"].make()[:2], factor_vae())


def test_load_checkpoint_refuses_another_pair(tmp_path):
    run("gaussian_vae", run_dir=tmp_path, epochs=1)
    model, guide, _ = PAIRS["label"].make()
    before = weights(model, guide)
    with pytest.raises(ppvae.CheckpointError, match=r"belongs to another run or pair: .* absent"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert_equal(weights(model, guide), before)


def test_load_checkpoint_refuses_an_absent_file(tmp_path):
    model, guide, _ = PAIRS["label"].make()
    with pytest.raises(ppvae.CheckpointError, match="found none"):
        ppvae.load_checkpoint(tmp_path / "none.safetensors", model, guide)
    with pytest.raises(ppvae.CheckpointError, match="found none"):
        ppvae.load_checkpoint(tmp_path, model, guide)


class _Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def damaged(path, how):
    whole = path.read_bytes()
    if how == "hostile pickle":
        return pickle.dumps(_Hostile(path.parent / "executed"))
    if how == "another safetensors file":
        save_file({"a": torch.zeros(2)}, path)
        return path.read_bytes()
    return {
        "half": whole[: len(whole) // 2],
        "all but one byte": whole[:-1],
        "eight bytes": whole[:8],
        "empty": b"",
        "text": b"not a checkpoint",
        "a header that is too long": b"\xff" * 8 + whole[8:],
        "appended": whole + b"more",
        "an older format": whole.replace(checkpoint.FORMAT.encode(), b"ppvae-checkpoint-1"),
        "no values": whole.replace(b'"values"', b'"valued"'),
    }[how]


DAMAGES = [
    "half",
    "all but one byte",
    "eight bytes",
    "empty",
    "text",
    "a header that is too long",
    "appended",
    "an older format",
    "no values",
    "hostile pickle",
    "another safetensors file",
]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_nothing_changes(how, tmp_path):
    from ppvae.training import RunDir

    model, guide, _ = run("gaussian_vae", run_dir=tmp_path, epochs=1)
    before = weights(model, guide)
    path = tmp_path / "last.safetensors"
    path.write_bytes(damaged(path, how))
    message = "truncated or not a checkpoint|expected a checkpoint of format"
    with pytest.raises(ppvae.CheckpointError, match=message):
        ppvae.load_checkpoint(path, model, guide)
    with pytest.raises(ppvae.CheckpointError, match=message):
        run("gaussian_vae", run_dir=RunDir(tmp_path, resume=True), epochs=2)
    assert_equal(weights(model, guide), before)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("values", ["[]", "3", "null", "{", '"text"'])
def test_values_that_are_no_dictionary_are_refused(values, tmp_path):
    path = tmp_path / "last.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"format": checkpoint.FORMAT, "values": values})
    with pytest.raises(ppvae.CheckpointError, match=r"to be a dictionary|truncated or not"):
        checkpoint.read(path)


def test_save_and_read_keep_types_shapes_and_values(tmp_path):
    tensors = {
        "scalar": torch.tensor(3, dtype=torch.int64),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "expanded": torch.ones(1).expand(4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "learned": nn.Parameter(torch.ones(2, dtype=torch.float64)),
    }
    values = {"pi": 3.141592653589793, "none": None, "list": [1, 2.5]}
    checkpoint.save(tmp_path / "file", {**tensors, "shared": tensors["learned"]}, values)
    read, again = checkpoint.read(tmp_path / "file")
    assert again == values == json.loads(json.dumps(values))
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_load_players_refuses_other_players(tmp_path):
    net = nn.Linear(2, 1)
    player = Player("net", net, lambda turn: net(turn.batches[0].x).mean(), adam())
    ppvae.train([player], torch.ones(4, 2), epochs=1, run_dir=tmp_path, progress=False)
    for module, name in ((nn.Linear(3, 1), "net"), (nn.Linear(2, 1), "other"), (nn.Linear(2, 1).double(), "net")):
        before = weights(module)
        with pytest.raises(ppvae.CheckpointError, match="belongs to another run or pair"):
            load_players(tmp_path / "last.safetensors", [Player(name, module, player.loss, adam())])
        assert_equal(before, weights(module))


def test_load_players_loads_one_of_several(tmp_path):
    nets = nn.Linear(2, 1), nn.Linear(2, 1)
    players = [
        Player("net", nets[0], lambda turn: nets[0](turn.batches[0].x).mean(), adam()),
        Player("net/2", nets[1], lambda turn: nets[1](turn.batches[0].x).mean(), adam()),
    ]
    ppvae.train(players, torch.ones(4, 2), epochs=1, run_dir=tmp_path, progress=False)
    fresh = nn.Linear(2, 1)
    load_players(tmp_path / "last.safetensors", [Player("net", fresh, None, adam())])
    assert_equal(weights(nets[0]), weights(fresh))

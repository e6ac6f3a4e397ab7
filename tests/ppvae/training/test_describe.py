"""The settings of a run as JSON."""

import functools
import json
import subprocess
import sys
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ppvae
from ppvae.data import Dataset, MappedImages, lazy
from ppvae.training import Eager, adam, players_of
from ppvae.training.describe import describe, describe_data, describe_players, digest
from tests.catalogue import OBJECTIVES, PAIRS


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_describe_gives_json_that_is_equal_for_equal_objectives(objective):
    one, other = (describe(OBJECTIVES[objective].make()) for _ in range(2))
    assert json.loads(json.dumps(one)) == json.loads(json.dumps(other))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
        (torch.tensor(3), 3),
        (np.array(2.5), 2.5),
        (np.bool_(True), True),
        ((1, (2, None)), [1, [2, None]]),
        ({"a": np.int64(1)}, {"a": 1}),
        (Path("a"), "a"),
        (torch.float64, "torch.float64"),
        (Enum("Color", "RED").RED, "Color.RED"),
        (range(3), "range(0, 3)"),
        (1j, "1j"),
        (ppvae.warm_up(10), {"class": "Ramp", "start": 0.0, "end": 1.0, "steps": 10}),
    ],
)
def test_describe_gives_plain_values(value, expected):
    assert describe(value) == expected


def shifted(by):
    return lambda step: step + by


class Settings:
    def __init__(self, **settings):
        vars(self).update(settings)


DIFFERENT = [
    (torch.zeros(3), torch.zeros(4)),
    (torch.zeros(3), torch.zeros(3).double()),
    (np.zeros(3), np.ones(3)),
    (shifted(1), shifted(2)),
    (lambda x: x + 1, lambda x: x + 2),
    (lambda x: x + 1, lambda x: x * 1),
    (lambda x, y=1: x, lambda x, y=2: x),
    (lambda x, *, y=1: x, lambda x, *, y=2: x),
    (lambda x: x.sin(), lambda x: x.cos()),
    (functools.partial(pow, 2), functools.partial(pow, 3)),
    (functools.partial(pow, exp=2), functools.partial(pow, exp=3)),
    (Settings(a=1), Settings(a=2)),
    (Settings(a=Settings(b=[shifted(1)])), Settings(a=Settings(b=[shifted(2)]))),
    ({1, 2}, {1, 3}),
    (nn.Linear(2, 1), nn.Linear(3, 1)),
    (ppvae.IWAE(5), ppvae.IWAE(6)),
    (ppvae.IWAE(5), ppvae.DReG(5)),
    (ppvae.IWAE, ppvae.DReG),
    (float("nan"), 0.0),
]


@pytest.mark.parametrize("pair", DIFFERENT)
def test_describe_tells_different_settings_apart(pair):
    one, other = (json.dumps(describe(value)) for value in pair)
    assert one != other


def test_describe_compares_a_fixed_network_by_its_weights_and_a_learned_one_by_its_shapes():
    torch.manual_seed(0)
    one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    assert describe(one) == describe(other)
    assert describe(one.requires_grad_(False)) != describe(other.requires_grad_(False))


def test_describe_ends_in_a_cycle():
    settings = Settings(a=1)
    settings.own = settings
    described = json.dumps(describe(settings))
    assert described.endswith('"own": "Settings"' + described.count("}") * "}")
    assert 2 <= described.count('"a": 1') <= 20


def test_describe_calls_nothing():
    def function(*args):
        raise AssertionError

    class Called:
        def __call__(self, *args):
            raise AssertionError

    described = describe([function, Called(), Settings(f=function), functools.partial(function, 1), Called().__call__])
    assert [next(iter(each)) for each in described] == ["function", "class", "class", "partial", "method"]


def test_describe_is_the_same_in_another_process():
    """With other addresses and another hash seed."""
    script = """
import json, functools, torch, ppvae
from ppvae.training.describe import describe
class Settings: pass
s = Settings()
s.function, s.names, s.object = (lambda x: x in {"a", "b", "c"}), {"a", "b", "c"}, object()
print(json.dumps([describe(s), describe(ppvae.beta_vae(lambda step: step / 3)), describe(functools.partial(print, 1))]))
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_describe_players_has_the_groups_and_the_schedule():
    model, guide, _ = PAIRS["gaussian_vae"].make()
    players = players_of(model, guide, ppvae.geco(30.0), adam(0.1, schedule=lambda step: 1.0 / (1 + step)))
    backend = Eager("cpu")
    backend.prepare(players)
    pair, multiplier = describe_players(backend.descents, 6)
    assert (pair["player"], pair["optimizer"], pair["groups"][0]["lr"]) == ("pair", "Adam", 0.1)
    assert pair["schedule"][:2] == [1.0, 0.5]
    assert 1 / 7 in pair["schedule"]
    assert (multiplier["optimizer"], multiplier["schedule"]) == ("SGD", None)
    json.dumps([pair, multiplier])


def images(rows: int) -> torch.Tensor:
    return torch.randint(256, (rows, 2, 3), generator=torch.Generator().manual_seed(0)).byte()


def test_digest_reads_rows_spread_over_a_file(monkeypatch):
    monkeypatch.setattr(lazy, "SPREAD_ROWS", 30)
    x = images(100)
    found = digest(MappedImages(x))
    assert digest(MappedImages(x.clone())) == found
    for row, differs in ((96, True), (97, False)):
        other = x.clone()
        other[row, 1, 2] ^= 1
        assert (digest(MappedImages(other)) != found) is differs


@pytest.mark.parametrize(
    "tensor", [torch.zeros(0), torch.zeros(()), torch.ones(2, dtype=torch.bfloat16), torch.eye(2).t()]
)
def test_digest_takes_any_tensor(tensor):
    assert digest(tensor) == digest(tensor.clone())


def test_describe_data_has_every_column():
    data = Dataset(torch.zeros(4, 2), torch.tensor([0, 1, -1, -1]), angle=torch.zeros(4))
    other = Dataset(torch.zeros(4, 2), torch.tensor([0, 1, -1, -1]), angle=torch.ones(4))
    one, two = describe_data(data), describe_data(other)
    assert one["known_labels"] == 2
    assert {name for name in one if one[name] != two[name]} == {"given"}

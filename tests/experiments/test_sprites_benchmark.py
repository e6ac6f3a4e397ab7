"""The benchmark of rendering, made small."""

from importlib import import_module
from pathlib import Path

import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "experiments" / "benchmarks"


def test_each_way_is_timed_on_the_same_number_of_images(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sprites = import_module("sprites")
    read = []
    monkeypatch.setattr(
        sprites.Sprites,
        "_read",
        lambda self, index: read.append(len(index)) or torch.zeros(len(index), *self.shape[1:], dtype=torch.uint8),
    )
    seconds = sprites.main(sprites.Config(batch_size=4, batches=3, rounds=1, table_rows=12, resolution=16))
    assert list(seconds) == ["rendered", "table in memory", "training step"]
    assert read == [12, 4, 4, 4, 4]  # the table; a first batch that is not timed; the batches
    assert "images/s" in capsys.readouterr().out

"""The check of every row of a data set."""

import pytest
import torch

from ppvae.data import Dataset, MappedImages, lazy
from ppvae.evaluation import rows


class Recorded(MappedImages):
    """Records the rows that are read."""

    def __init__(self, array):
        super().__init__(array)
        self.read: list[int] = []

    def _read(self, index):
        self.read += index.tolist()
        return super()._read(index)


def images(rows: int) -> torch.Tensor:
    return torch.randint(256, (rows, 2, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("at_once", [1, 60, 6 * 999])
def test_check_rows_reads_every_row_in_memory_a_few_at_once(at_once, monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", at_once)
    x = images(100)
    parts = list(rows._blocks(Dataset(x)))
    assert torch.equal(torch.cat([part for _, part in parts]), x / 255)
    assert max(part.numel() for _, part in parts) <= max(6, at_once)
    for start, part in parts:
        assert torch.equal(part[0], x[start] / 255)


def test_check_rows_reads_rows_spread_over_a_file(monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 60)
    monkeypatch.setattr(lazy, "SPREAD_ROWS", 30)
    x = Recorded(images(100))
    data = Dataset(x)
    x.read.clear()
    parts = [part for _, part in rows._blocks(data)]
    assert x.read == list(range(0, 100, 4))
    assert torch.equal(torch.cat(parts), x.array[::4] / 255)
    assert max(map(len, parts)) == 10

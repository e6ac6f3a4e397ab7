"""Before the first step: which rows are checked, how many at once, and what tells two data sets apart."""

import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE

import ppvae
from ppvae.data import Dataset, MappedImages
from ppvae.nn import MLP
from ppvae.training import setup


class Recorded(MappedImages):
    """Notes the rows that are read."""

    def __init__(self, array):
        super().__init__(array)
        self.read: list[int] = []

    def _read(self, index):
        self.read += index.tolist()
        return super()._read(index)


def images(rows: int) -> torch.Tensor:
    return torch.randint(256, (rows, 2, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("at_once", [1, 60, 6 * 999])
def test_every_row_in_memory_is_checked_a_few_at_once(at_once, monkeypatch):
    monkeypatch.setattr(setup, "AT_ONCE", at_once)
    x = images(100)
    parts = list(setup._blocks(Dataset(x)))
    assert torch.equal(torch.cat([part for _, part in parts]), x / 255)
    assert max(part.numel() for _, part in parts) <= max(6, at_once)
    for start, part in parts:
        assert torch.equal(part[0], x[start] / 255)


def test_of_images_in_a_file_rows_over_the_whole_are_checked_a_few_at_once(monkeypatch):
    monkeypatch.setattr(setup, "AT_ONCE", 60)
    monkeypatch.setattr(setup, "ROWS", 30)
    x = Recorded(images(100))
    parts = [part for _, part in setup._blocks(Dataset(x))]
    assert x.read == list(range(0, 100, 4))
    assert torch.equal(torch.cat(parts), x.array[::4] / 255)
    assert max(map(len, parts)) == 10


def test_the_digest_is_that_of_the_rows_and_reads_no_others(monkeypatch):
    monkeypatch.setattr(setup, "ROWS", 30)
    x = Recorded(images(100))
    digest = setup._digest(x)
    assert x.read == list(range(0, 100, 4))
    assert setup._digest(MappedImages(x.array.clone())) == digest
    other = x.array.clone()
    other[96, 1, 2] ^= 1
    assert setup._digest(MappedImages(other)) != digest


def test_the_last_row_in_memory_is_checked_too(monkeypatch):
    monkeypatch.setattr(setup, "AT_ONCE", 60)
    torch.manual_seed(0)
    model, guide = GaussianVAE(MLP(2, [4], (2, 3)), 2), MeanFieldGaussian(MLP((2, 3), [4], 4))
    x = torch.rand(100, 2, 3).round()
    setup.check_data(model, guide, Dataset(x))
    x[99, 1, 2] = 1.5
    with pytest.raises(ppvae.ContractError, match=r"support of the likelihood"):
        setup.check_data(model, guide, Dataset(x))
    x[99, 1, 2] = torch.nan
    with pytest.raises(ppvae.ContractError, match=r"first in row 99 of x"):
        setup.check_data(model, guide, Dataset(x))

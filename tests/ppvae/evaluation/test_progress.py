"""Passes over data: blocks of rows and progress bars."""

import pytest
import torch

from ppvae.evaluation.progress import blocks, tracked


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (5, 2), (6, 2), (3, 10)])
def test_blocks_cover_all_rows_in_order(rows, size):
    x = torch.arange(rows)
    parts = [x[block] for block in blocks(rows, size)]
    assert torch.equal(torch.cat(parts), x)
    assert all(0 < len(part) <= size for part in parts)


@pytest.mark.parametrize("progress", [False, True])
def test_tracked_yields_the_items_in_order(progress, capsys):
    assert list(tracked([3, 1, 2], "rows", progress)) == [3, 1, 2]
    assert ("rows" in capsys.readouterr().out) == progress

"""The rows of each step."""

import numpy as np
import pytest
import torch

from ppvae.data import Dataset
from ppvae.training.batches import Batches, Batching

ROWS = Dataset(torch.arange(40.0).unsqueeze(1))
HALF = Dataset(torch.arange(40.0).unsqueeze(1), torch.arange(40).remainder(4) - 1, shift=torch.arange(40.0))


def rows_of(steps):
    return torch.cat([batch.x.flatten() for step in steps for batch in step]).tolist()


def test_batches_go_through_the_data_once_an_epoch():
    batches = Batches(ROWS, Batching(5))
    assert len(batches) == 8
    epochs = [rows_of(batches.epoch(epoch)) for epoch in (0, 1)]
    assert [sorted(rows) for rows in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1]


def test_batches_resume_within_an_epoch():
    batches = Batches(HALF, Batching(5, labelled_per_step=3))
    assert rows_of(list(batches.epoch(2))[1:]) == rows_of(batches.epoch(2, start=1))


def test_batches_are_homogeneous_and_keep_conditions():
    for unlabelled, labelled in Batches(HALF, Batching(5, labelled_per_step=3)).epoch(0):
        assert unlabelled.y is None
        assert labelled.all_known
        assert (len(unlabelled), len(labelled)) == (5, 3)
        for batch in (unlabelled, labelled):
            assert torch.equal(batch.given["shift"], batch.x.flatten())
        assert torch.equal(labelled.y, labelled.x.flatten().long().remainder(4) - 1)


def test_batches_of_fully_labelled_data_have_one_part_with_labels():
    data = Dataset(torch.arange(40.0).unsqueeze(1), torch.arange(40))
    (batch,) = next(Batches(data, Batching(7)).epoch(0))
    assert torch.equal(batch.label, batch.x.flatten().long())


@pytest.mark.parametrize(("steps", "times"), [(3, 0.375), (8, 1), (12, 1.5)])
def test_steps_per_epoch_reads_a_random_subset_or_several_passes(steps, times):
    batches = Batches(ROWS, Batching(5, steps_per_epoch=steps))
    rows = rows_of(batches.epoch(0))
    assert len(batches) == steps
    assert len(rows) == 40 * times
    counts = np.bincount(np.array(rows, dtype=int), minlength=40)
    assert counts.max() - counts.min() <= 1


def test_batch_size_is_at_most_the_number_of_rows():
    assert len(next(Batches(ROWS, Batching(1000)).epoch(0))[0]) == 40


def test_other_order_is_independent():
    batches = Batches(ROWS, Batching(5), seed=3)
    other = batches.other_order()
    assert len(other) == len(batches)
    mine, theirs = (np.array(rows_of(b.epoch(0))) for b in (batches, other))
    assert sorted(mine) == sorted(theirs) == list(range(40))
    assert (mine == theirs).mean() < 0.3


@pytest.mark.parametrize("seed", [1 << 12, 1 << 32, 1 << 40, -1])
def test_the_order_depends_on_the_whole_seed(seed):
    assert rows_of(Batches(ROWS, Batching(5), seed=0).epoch(0)) != rows_of(
        Batches(ROWS, Batching(5), seed=seed).epoch(0)
    )


@pytest.mark.parametrize("name", ["batch_size", "labelled_per_step", "steps_per_epoch"])
@pytest.mark.parametrize("value", [0, -3, 1.5, "8", float("nan")])
def test_batching_takes_whole_numbers(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"expected {name} (to be a whole number|of at least 1), got"):
        Batching(**{name: value})


def test_batching_takes_numpys_whole_numbers():
    assert Batching(np.int64(7), np.int32(2), np.int64(3)) == Batching(7, 2, 3)
    assert type(Batching(np.int64(7)).batch_size) is int

"""Data, labels and conditions as one batch."""

import numpy as np
import pytest
import torch

import ppvae
from ppvae.engine.batch import Batch, as_batch, as_labels


class Columns:
    """Something with ``batch(index)``, as a data set is."""

    def __init__(self, whole):
        self.whole = whole

    def batch(self, index=slice(None)):
        return self.whole.rows(index)


def batch(y=None):
    return as_batch(torch.arange(8.0).reshape(4, 2), y, {"c": torch.arange(4)})


@pytest.mark.parametrize(
    ("y", "all_known", "known"),
    [
        (None, False, None),
        ([0, 1, 2, 0], True, [True] * 4),
        ([0, -1, 2, -1], False, [True, False, True, False]),
        ([-1, -1, -1, -1], False, [False] * 4),
    ],
)
def test_as_batch_decides_whether_every_label_is_known(y, all_known, known):
    made = batch(None if y is None else torch.tensor(y))
    assert made.all_known is all_known
    assert (made.known if known is None else made.known.tolist()) == known
    assert (made.label is None) == (not all_known)


def test_batch_known_labels_are_taken_at_their_word():
    """The flag of a batch is not compared with its labels: that would wait for the device."""
    y = torch.tensor([0, -1])
    assert Batch(torch.zeros(2, 1), y, all_known=True).label is y
    assert Batch(torch.zeros(2, 1), torch.tensor([0, 1])).label is None


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, 3), [1, 2]),
        (torch.tensor([3, 0, 0]), [3, 0, 0]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        (slice(None, None, 2), [0, 2]),
    ],
)
def test_batch_rows_selects_the_same_rows_of_every_column(index, rows):
    part = batch(torch.tensor([0, -1, 2, -1])).rows(index)
    assert part.x[:, 0].tolist() == [2.0 * row for row in rows]
    assert part.given["c"].tolist() == rows
    assert part.y.tolist() == [[0, -1, 2, -1][row] for row in rows]
    assert len(part) == len(rows)


def test_batch_rows_finds_out_that_all_labels_of_the_part_are_known():
    assert batch(torch.tensor([0, -1, 2, -1])).rows(slice(0, 3, 2)).all_known
    assert not batch(torch.tensor([0, -1, 2, -1])).rows(slice(0, 2)).all_known
    assert batch(torch.tensor([0, 1, 2, 0])).rows(slice(0, 2)).all_known
    assert not batch().rows(slice(0, 2)).all_known


def test_batch_kinds_splits_unlabelled_from_labelled():
    x = torch.arange(4.0)
    unlabelled, labelled = as_batch(x, torch.tensor([-1, 2, -1, 0])).kinds()
    assert (unlabelled.x.tolist(), unlabelled.label) == ([0.0, 2.0], None)
    assert (labelled.x.tolist(), labelled.label.tolist()) == ([1.0, 3.0], [2, 0])
    assert len(as_batch(x).kinds()) == 1
    assert len(as_batch(x, torch.tensor([1, 2, 0, 0])).kinds()) == 1
    assert len(as_batch(x, torch.full((4,), -1)).kinds()) == 1


def test_batch_to_moves_every_column():
    moved = batch(torch.tensor([0, 1, 2, 0])).to(torch.device("meta"))
    assert {moved.x.device.type, moved.y.device.type, moved.given["c"].device.type} == {"meta"}
    assert moved.all_known


def test_batch_with_x_keeps_labels_and_conditions():
    before = batch(torch.tensor([0, 1, 2, 0]))
    after = before.with_x(torch.ones(4, 2))
    assert after.x.sum() == 8
    assert after.y is before.y
    assert after.given is before.given
    assert after.all_known


def test_as_batch_takes_numpy_arrays():
    made = as_batch(np.zeros((3, 2)), np.array([0, 1, 2]), {"c": np.ones((3, 1), dtype=np.float32)}, torch.float32)
    assert made.x.dtype == made.given["c"].dtype == torch.float32
    assert made.y.dtype == torch.long
    assert as_batch(np.zeros((3, 2))).x.dtype == torch.float32  # torch's default, as in a Dataset
    reversed_rows = np.arange(6.0).reshape(3, 2)[::-1]
    assert as_batch(reversed_rows).x[0].tolist() == [4.0, 5.0]


def test_as_batch_keeps_the_type_of_tensors():
    assert as_batch(torch.zeros(3, 2, dtype=torch.float64), dtype=torch.float32).x.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_as_labels_makes_integers_long(dtype):
    assert as_labels(torch.tensor([0, 1, 1]).to(dtype), 3).dtype == torch.long


def test_as_batch_takes_a_batch_and_data_sets_as_they_are():
    made = batch(torch.tensor([0, 1, 2, 0]))
    assert as_batch(made) is made
    assert len(as_batch(Columns(made))) == 4


@pytest.mark.parametrize("data", [batch(), Columns(batch())], ids=["batch", "data set"])
@pytest.mark.parametrize("separate", [{"y": torch.zeros(4, dtype=torch.long)}, {"given": {"c": torch.zeros(4)}}])
def test_as_batch_refuses_labels_and_conditions_next_to_data_that_have_their_own(data, separate):
    with pytest.raises(ppvae.ContractError, match=r"inside the (Batch|Columns), got some as separate arguments"):
        as_batch(data, **separate)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_batch([[0.0, 1.0]]), "expected x to be a tensor or a numpy array, got list; convert"),
        (lambda: as_batch({"x": 1}), "got dict"),
        (lambda: as_batch(np.array(["a", "b"])), "got an array of <U1"),
        (lambda: as_batch(np.array([object()])), "hold real numbers, got an array of object"),
        (lambda: as_batch(np.zeros((3, 2), dtype=np.uint8)), r"floating x, got torch.uint8; pass ppvae.Dataset\(x\)"),
        (lambda: as_batch(torch.zeros(())), r"shape \(B, \*event_shape\) with B >= 1, got \(\)"),
        (lambda: as_batch(torch.zeros(0, 3)), r"B >= 1, got \(0, 3\)"),
        (lambda: batch(torch.zeros(3, dtype=torch.long)), r"y of shape \(4,\), one label a row of x, got \(3,\)"),
        (lambda: batch(torch.zeros(4, 1, dtype=torch.long)), r"got \(4, 1\)"),
        (lambda: batch([0, 1, 2, 0]), "expected y to be a tensor or a numpy array, got list"),
        (lambda: as_batch(torch.zeros(4), given={"c": torch.zeros(3)}), r"condition 'c' to have 4 rows.*shape \(3,\)"),
        (lambda: as_batch(torch.zeros(4), given={"c": torch.tensor(1.0)}), r"'c' to have 4 rows.*got shape \(\)"),
        (
            lambda: as_batch(torch.zeros(4), given={"num_particels": 5}),
            "options of the function, or conditions of 4 rows.*got 'num_particels', int 5; check the spelling",
        ),
    ],
)
def test_as_batch_says_what_it_expected_and_what_came(make, message):
    with pytest.raises(ppvae.ContractError, match=message):
        make()


@pytest.mark.parametrize("y", [torch.tensor([0.5, 1.0, 2.0, 0.1]), np.array([0.0, 1.0, 2.0, 0.0])])
def test_as_labels_says_that_a_real_valued_y_is_a_condition(y):
    """A real-valued y is no class. The remedy is a named condition, and not ``y.long()``, which would round it."""
    with pytest.raises(
        ppvae.ContractError, match=r"class indices.*float.*pass a real-valued condition by name"
    ) as caught:
        batch(y)
    assert "long()" not in str(caught.value)


def test_as_labels_refuses_complex_numbers():
    with pytest.raises(ppvae.ContractError, match=r"real numbers, got .*complex64"):
        as_labels(torch.zeros(4, dtype=torch.complex64), 4)

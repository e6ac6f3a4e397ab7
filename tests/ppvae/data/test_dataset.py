"""Data sets: columns by index, binarization, labels known on the host."""

import copy
import pickle

import numpy as np
import pytest
import torch

from ppvae.data import Dataset, Sprites, load
from ppvae.data.lazy import MappedImages
from ppvae.engine.batch import as_batch
from ppvae.errors import DataError

LABELS = torch.tensor([0, 1, -1, 1, 0, -1])


def partial(**options):
    """Six rows of which four are labelled, with two conditions."""
    x = torch.arange(12.0).reshape(6, 2)
    return Dataset(x, LABELS, num_classes=2, angle=torch.arange(6.0), kind=torch.arange(6)[:, None], **options)


def test_batch_has_the_rows_of_every_column():
    batch = partial().batch(torch.tensor([4, 2]))
    assert batch.x.tolist() == [[8, 9], [4, 5]]
    assert batch.y.tolist() == [0, -1]
    assert batch.given["angle"].tolist() == [4, 2]
    assert batch.given["kind"].tolist() == [[4], [2]]
    assert len(partial().batch()) == 6


def test_batch_of_data_without_labels_or_conditions():
    batch = Dataset(torch.zeros(3, 2)).batch(slice(0, 2))
    assert (batch.y, batch.label, batch.known, dict(batch.given), batch.all_known) == (None, None, None, {}, False)


@pytest.mark.parametrize(
    ("index", "known"),
    [
        (slice(0, 2), True),
        (slice(0, 3), False),
        (torch.tensor([4, 0]), True),
        (torch.tensor([2, 5]), False),
        (LABELS >= 0, True),
        (np.array([3, 1]), True),
        ([3, 2], False),
    ],
)
def test_batch_says_whether_every_label_is_known(index, known):
    batch = partial().batch(index)
    assert batch.all_known is known
    assert (batch.label is not None) is known


def test_batch_takes_the_word_of_its_caller_for_known_labels():
    assert partial().batch(slice(0, 2), all_known=True).all_known
    assert not partial().batch(slice(0, 2), all_known=False).all_known
    assert not partial().unlabelled().batch(slice(0, 2), all_known=True).all_known


def test_batch_refuses_a_single_row():
    for index in (3, torch.tensor(3)):
        with pytest.raises(IndexError, match=r"an index of shape \(B,\) or a mask, got"):
            partial().batch(index)


def test_batch_never_asks_the_device():
    # On the meta device every copy to the host raises.
    index = torch.arange(4, device="meta")
    grey = torch.randint(0, 256, (6, 3, 3), generator=torch.Generator().manual_seed(0)).byte()
    for labels, known in ((LABELS, False), (LABELS.abs(), None), (None, None)):
        for binarization in ("dynamic", "none"):
            data = Dataset(grey, labels, binarization=binarization, angle=torch.zeros(6)).to("meta")
            batch = data.batch(index, all_known=known)
            assert batch.x.shape == (4, 3, 3)
            assert batch.given["angle"].device.type == batch.x.device.type == "meta"
    with_nan = Dataset(torch.tensor([[0.0, torch.nan], [1.0, 0.5]]), binarization="dynamic").to("meta")
    assert with_nan.batch(index).x.shape == (4, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_does_not_wait_for_a_cuda_device():
    grey = torch.randint(0, 256, (6, 3, 3)).byte()
    data = Dataset(grey, LABELS, binarization="dynamic", angle=torch.zeros(6)).to("cuda")
    index = torch.arange(4, device="cuda")
    data.batch(index, all_known=False)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert data.batch(index, all_known=False).x.device.type == "cuda"
        assert data.batch(slice(0, 2)).all_known
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_as_batch_of_a_data_set_is_all_of_it():
    data = partial()
    batch = as_batch(data)
    assert torch.equal(batch.x, data.x)
    assert set(batch.given) == {"angle", "kind"}


def test_take_to_and_unlabelled_keep_conditions():
    data = partial()
    part = data.take(torch.tensor([5, 0]))
    assert (part.given["angle"].tolist(), part.y.tolist(), part.num_classes) == ([5, 0], [-1, 0], 2)
    assert [rows.tolist() for rows in part.rows_by_label()] == [[1], [0]]
    assert data.to("meta").given["angle"].device.type == "meta"
    bare = data.unlabelled()
    assert (bare.y, list(bare.given)) == (None, ["angle", "kind"])
    assert [len(rows) for rows in bare.rows_by_label()] == [0, 6]
    assert data.y is not None


def test_take_of_a_slice_shares_memory():
    data = partial()
    assert data.take(slice(2, 4)).x.data_ptr() == data.x[2].data_ptr()


@pytest.mark.parametrize("index", [3, slice(0, 0), torch.zeros(6, dtype=torch.bool)])
def test_take_refuses_no_rows_or_a_single_one(index):
    with pytest.raises(DataError, match="a mask of at least one row"):
        partial().take(index)


def test_with_labels_checks_them():
    data = partial().with_labels(np.zeros(6, np.int32))
    assert data.batch().all_known
    with pytest.raises(DataError, match="labels from 0 to 1"):
        data.with_labels(torch.full((6,), 2))


def test_numpy_columns_become_tensors():
    data = Dataset(np.zeros((3, 2)), np.array([0, 1, 0], np.int32), angle=np.ones(3), kind=np.arange(3))
    batch = data.batch()
    assert (batch.x.dtype, batch.y.dtype) == (torch.float32, torch.long)
    assert (batch.given["angle"].dtype, batch.given["kind"].dtype) == (torch.float32, torch.long)
    assert Dataset(torch.zeros(3, 2).double()).rows(slice(0, 2)).dtype == torch.float64


def test_columns_move_to_the_device_of_x():
    data = Dataset(torch.zeros(3, 2)).to("meta").with_labels(LABELS[:3])
    assert data.y.device.type == "meta"
    assert not data.batch(slice(0, 3)).all_known


def test_a_data_set_does_not_change():
    data = partial()
    with pytest.raises(AttributeError, match="a Dataset does not change"):
        data.y = None


def test_a_data_set_can_be_copied_and_pickled():
    for twin in (copy.deepcopy(partial()), pickle.loads(pickle.dumps(partial()))):
        assert torch.equal(twin.batch().x, partial().x)
        assert not twin.batch().all_known


def test_repr_names_the_columns():
    assert repr(partial(name="toy")) == "Dataset('toy', 6 rows of shape (2,), y, angle, kind)"
    assert repr(Dataset(torch.zeros(1, 3, 2))) == "Dataset('data', 1 rows of shape (3, 2))"


BINARY = torch.rand(500, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.mark.parametrize("binarization", ["dynamic", "fixed", "none"])
@pytest.mark.parametrize("form", ["bool", "bytes", "packed into bytes of 255", "int64", "float", "numpy"])
def test_black_and_white_data_keep_their_mean_in_every_type(form, binarization):
    x, options = {
        "bool": (BINARY, {}),
        "bytes": (BINARY.byte(), {"levels": 2}),
        "packed into bytes of 255": (BINARY.byte() * 255, {}),
        "int64": (BINARY.long(), {"levels": 2}),
        "float": (BINARY.float(), {}),
        "numpy": (BINARY.numpy(), {}),
    }[form]
    data = Dataset(x, binarization=binarization, **options)
    for rows in (data.rows(slice(None)), data.grey(slice(None)), data.most_probable(slice(None))):
        assert torch.equal(rows, BINARY.float())
    assert torch.equal(data.binarized(0).rows(slice(None)), BINARY.float())
    assert torch.equal(data.take(slice(0, 9)).rows(slice(None)), BINARY[:9].float())


def test_bytes_of_zero_and_one_require_their_scale():
    for binarization in ("dynamic", "none"):
        with pytest.raises(DataError, match=r"the value of white is unclear; .*levels=256 .*levels=2 if white is 1"):
            Dataset(BINARY.byte(), binarization=binarization)


def test_digits_in_bytes_require_their_scale():
    digits = np.arange(17, dtype=np.uint8).reshape(1, 17)
    with pytest.raises(DataError, match="levels=17 if white is 16"):
        Dataset(digits)
    assert Dataset(digits, levels=17).rows(slice(None)).max() == 1


def test_black_rows_of_grey_data_keep_the_scale_of_the_whole():
    x = torch.zeros(4, 2, dtype=torch.uint8)
    x[3] = 255
    x[1] = 1
    part = Dataset(x).take(slice(0, 3)).take(slice(1, 3))
    assert part.levels == 256
    torch.testing.assert_close(part.rows(slice(None)), torch.tensor([[1 / 255] * 2, [0, 0]]))
    assert Dataset(x[:1], levels=256).rows(slice(None)).tolist() == [[0, 0]]


def test_deeper_grey_values_are_scaled_by_their_levels():
    x = np.array([[0, 65_535], [32_768, 1]], np.uint16)
    rows = Dataset(x, levels=65_536).rows(slice(None))
    torch.testing.assert_close(rows, torch.tensor([[0, 1], [32_768 / 65_535, 1 / 65_535]]))


def test_lazy_images_are_scaled_by_their_levels():
    lazy = MappedImages(BINARY.byte())
    with pytest.raises(DataError, match="the value of white is unclear"):
        Dataset(lazy)
    assert torch.equal(Dataset(lazy, levels=2, binarization="dynamic").rows(slice(None)), BINARY.float())
    assert set(Dataset(Sprites(8)).rows(slice(0, 500)).unique().tolist()) == {0, 1}


def test_dynamic_binarization_draws_with_the_grey_value_as_probability():
    torch.manual_seed(0)
    data = load("digits").train.take(slice(0, 5))
    draws = torch.stack([data.rows(slice(None)) for _ in range(4000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    # 4.5 standard errors of a proportion of 4,000 draws, over 320 pixels.
    torch.testing.assert_close(draws.mean(0), data.grey(slice(None)), rtol=0, atol=4.5 * 0.5 / 4000**0.5)


def test_most_probable_rounds_grey_values_under_dynamic_binarization_only():
    x = torch.tensor([[0.2, 0.5, 0.7]])
    assert Dataset(x, binarization="dynamic").most_probable(slice(None)).tolist() == [[0, 0, 1]]
    assert torch.equal(Dataset(x).most_probable(slice(None)), x)


def test_binarized_draws_once_with_the_grey_value_as_probability():
    grey = torch.tensor([0, 51, 128, 255], dtype=torch.uint8)[:, None].repeat(40, 1, 500)
    data = Dataset(grey).binarized(seed=3)
    rows = data.rows(slice(None))
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(rows, data.rows(slice(None)))
    assert torch.equal(rows, Dataset(grey).binarized(seed=3).rows(slice(None)))
    assert not torch.equal(rows, Dataset(grey).binarized(seed=4).rows(slice(None)))
    # Five standard errors of a proportion of 20,000 draws.
    torch.testing.assert_close(rows.mean((0, 2)), grey[0, :, 0] / 255, rtol=0, atol=5 * 0.5 / 20_000**0.5)
    floats = Dataset(grey / 255).binarized(seed=3)
    assert torch.equal(floats.rows(slice(None)), rows)


def test_missing_elements_stay_missing():
    x = torch.tensor([[0.0, torch.nan, 1.0], [1.0, 0.0, torch.nan]])
    for binarization in ("dynamic", "fixed", "none"):
        data = Dataset(x, binarization=binarization)
        assert data.has_missing
        for rows in (data.rows, data.most_probable, data.grey, data.binarized(0).rows, data.take(slice(0, 2)).rows):
            torch.testing.assert_close(rows(slice(None)), x, rtol=0, atol=0, equal_nan=True)


def test_missing_elements_do_not_change_the_draws_of_the_others():
    torch.manual_seed(0)
    x = torch.full((4000, 2), 0.3)
    x[::2, 1] = torch.nan
    rows = Dataset(x, binarization="dynamic").rows(slice(None))
    assert torch.equal(rows.isnan(), x.isnan())
    # Five standard errors of a proportion of 6,000 draws.
    assert rows[~x.isnan()].mean().item() == pytest.approx(0.3, abs=5 * (0.21 / 6000) ** 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset(torch.zeros(0, 3)), "N >= 1"),
        (lambda: Dataset(torch.zeros(3)), r"got \(3,\); give rows of one number as x.reshape\(-1, 1\)"),
        (lambda: Dataset(torch.tensor(3.0)), r"got \(\)$"),
        (lambda: Dataset([[1.0, 2.0]]), "x to be a tensor or a numpy array, got list"),
        (lambda: Dataset(torch.zeros(3, 2, dtype=torch.long)), "got torch.int64; state the number of grey levels"),
        (lambda: Dataset(torch.zeros(3, 2), binarization="maybe"), "got 'maybe'"),
        (lambda: Dataset(torch.zeros(3, 2), binarization=True), "got True"),
        (lambda: Dataset(torch.full((3, 2), 7.0), binarization="dynamic"), r"\[0, 1\] to binarize, got 7 in row 0"),
        (lambda: Dataset(torch.full((3, 2), 0.5), binarization="fixed"), "expected only 0 and 1 .*got 0.5 in row 0"),
        (lambda: Dataset(torch.full((3, 2), 7.0)).binarized(0), "to binarize, got 7 in row 0"),
        (lambda: Dataset(Sprites(8)).binarized(0), "data in memory to binarize once and for all, got Sprites"),
        (lambda: Dataset(torch.full((3, 2), torch.inf)), "infinity first in row 0"),
        (lambda: Dataset(np.full((3, 2), 1e300)), "infinity first in row 0"),
        (lambda: Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 2]), num_classes=2), "labels from 0 to 1"),
        (lambda: Dataset(torch.zeros(3, 2), torch.zeros(3)), "got torch.float32; pass a real-valued condition"),
        (lambda: Dataset(torch.zeros(3, 2), num_classes=2.0), "num_classes to be a whole number, got 2.0"),
        (lambda: Dataset(torch.zeros(3, 2), name=torch.zeros(3)), "name to be a string, got Tensor; call a condition"),
        (lambda: Dataset(torch.zeros(3, 2), factors=torch.zeros(3)), "factors to be ppvae.data.Factors, got Tensor"),
        (lambda: Dataset(torch.zeros(3, 2), angle=torch.zeros(2)), "condition 'angle' to have 3 rows"),
        (lambda: Dataset(torch.zeros(3, 2), binarisation="none"), "condition 'binarisation' .*got str"),
        (lambda: Dataset(torch.zeros(3, 2), step=torch.zeros(3)), "got 'step'; rename it"),
    ],
)
def test_dataset_refuses_other_columns_and_options(make, message):
    with pytest.raises(DataError, match=message):
        make()

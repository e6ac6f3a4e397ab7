"""Data sets: splits, choice of labels, binarization, damaged files."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import ppvae
from ppvae.data import Dataset, hide_labels, load, loading


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def mnist_root():
    root = loading.data_root()
    if not (root / "MNIST" / "raw").exists():
        pytest.skip("MNIST is not in PPVAE_DATA")
    return root


def test_digits_are_split_without_overlap(digits):
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1000, 257, 540]
    assert sum(len(part) for part in parts) == 1797
    again = load("digits")
    assert all(torch.equal(a.x, b.x) for a, b in zip(parts, (again.train, again.validation, again.test), strict=True))


def test_mnist(mnist_root):
    splits = load("mnist")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [50_000, 10_000, 10_000]
    assert splits.test.x.dtype == torch.uint8
    # The first test image is a seven; the mean grey value of the training images is .1307.
    assert splits.test.y[:3].tolist() == [7, 2, 1]
    everything = torch.cat([splits.train.x, splits.validation.x]).float().mean() / 255
    assert everything.item() == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize("num_labels", [0, 10, 100])
def test_labels_are_kept_in_equal_numbers(digits, num_labels):
    kept = hide_labels(digits.train, num_labels, seed=3)
    known = kept.y >= 0
    assert known.sum() == num_labels
    assert torch.bincount(kept.y[known], minlength=10).tolist() == [num_labels // 10] * 10
    assert (kept.y[known] == digits.train.y[known]).all()
    assert torch.equal(hide_labels(digits.train, num_labels, seed=3).y, kept.y)


def test_another_seed_keeps_other_labels(digits):
    assert not torch.equal(hide_labels(digits.train, 100, 0).y, hide_labels(digits.train, 100, 1).y)


@pytest.mark.parametrize(
    ("num_labels", "message"),
    [
        (105, "multiple of the 10 classes, got 105; the nearest below is 100"),
        (-10, "got -10"),
        (9000, "at least 900 rows"),
    ],
)
def test_labels_that_cannot_be_kept(digits, num_labels, message):
    with pytest.raises(ppvae.DataError, match=message):
        hide_labels(digits.train, num_labels)


def test_dynamic_binarization_draws_anew_with_the_grey_value_as_probability(digits):
    torch.manual_seed(0)
    rows = slice(0, 5)
    draws = torch.stack([digits.train.rows(rows) for _ in range(4000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    # Four standard errors of a proportion of 4,000 draws, over 320 pixels.
    torch.testing.assert_close(draws.mean(0), digits.train.grey(rows), rtol=0, atol=4.5 * 0.5 / 4000**0.5)


def test_fixed_binarization_is_drawn_once():
    first, again = load("digits", binarization="fixed").train, load("digits", binarization="fixed").train
    assert torch.equal(first.rows(slice(None)), again.rows(slice(None)))
    assert set(first.rows(slice(None)).unique().tolist()) == {0.0, 1.0}


def test_no_binarization_gives_grey_values():
    assert len(load("digits", binarization="none").train.rows(slice(None)).unique()) == 17


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset(torch.zeros(0, 3)), "N >= 1"),
        (lambda: Dataset(torch.zeros(3, 2, dtype=torch.long)), "got torch.int64"),
        (lambda: Dataset(torch.zeros(3, 2), binarization="maybe"), "got 'maybe'"),
        (lambda: Dataset(torch.full((3, 2), 7.0), binarization="dynamic"), r"values in \[0, 1\] to binarize, got 7"),
        (lambda: Dataset(torch.full((3, 2), torch.nan), binarization="dynamic"), "NaN counts as outside"),
        (lambda: Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 2]), num_classes=2), "labels from 0 to 1"),
        (lambda: Dataset(torch.zeros(3, 2), torch.tensor([0, -2, 1]), num_classes=2), "got -2"),
        (lambda: Dataset(torch.zeros(3, 2), torch.tensor([0, 1])), r"shape \(3,\)"),
        (lambda: load("nonesuch"), "out of mnist, digits; got 'nonesuch'"),
        (lambda: load("digits", validation=5000), "got 5000"),
    ],
)
def test_what_is_no_data_set(make, message):
    with pytest.raises(ppvae.DataError, match=message):
        make()


def test_a_truncated_file_is_said_to_be_damaged(mnist_root, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_root / "MNIST" / "raw", raw)
    images = raw / "t10k-images-idx3-ubyte"
    images.chmod(0o644)
    images.write_bytes(images.read_bytes()[:100_000])
    with pytest.raises(ppvae.DataError, match="damaged"):
        load("mnist", root=tmp_path)
    assert images.stat().st_size == 100_000


def test_no_network_is_said_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_reachable", lambda host: False)
    with pytest.raises(ppvae.DataError, match=r"none of its mirrors answered .*PPVAE_DATA"):
        load("mnist", root=tmp_path)


def test_a_host_that_does_not_answer_is_given_up(monkeypatch):
    waiting = loading.threading.Event()

    def hang(*args, **options):
        waiting.wait(30)
        raise OSError

    monkeypatch.setattr(loading, "PATIENCE", 0.05)
    monkeypatch.setattr(loading.socket, "create_connection", hang)
    assert not loading._reachable("a.host")
    waiting.set()


def test_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    assert loading.data_root() == tmp_path
    assert loading.data_root("here") == Path("here")
    monkeypatch.delenv("PPVAE_DATA")
    assert loading.data_root() == Path.home() / ".cache" / "ppvae"


def test_a_torchvision_that_cannot_be_imported_is_said(mnist_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ppvae.DataError, match="torchvision cannot be imported"):
        load("mnist")


def test_nothing_held_out():
    everything = load("digits", validation=0)
    assert everything.validation is None
    assert len(everything.train) == len(load("digits").train) + len(load("digits").validation)
    assert torch.equal(everything.test.x, load("digits").test.x)

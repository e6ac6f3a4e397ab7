"""Data sets: splits, choice of labels, binarization, damaged files."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ppvae
from ppvae.data import Dataset, downloads, hide_labels, load, loading


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
        (lambda: load("nonesuch"), "out of mnist, fashion_mnist, digits, .*; got 'nonesuch'"),
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
    monkeypatch.setattr(downloads, "_reachable", lambda host: False)
    with pytest.raises(ppvae.DataError, match=r"none of its mirrors answered .*PPVAE_DATA"):
        load("mnist", root=tmp_path)


def test_a_host_that_does_not_answer_is_given_up(monkeypatch):
    waiting = downloads.threading.Event()

    def hang(*args, **options):
        waiting.wait(30)
        raise OSError

    monkeypatch.setattr(downloads, "PATIENCE", 0.05)
    monkeypatch.setattr(downloads.socket, "create_connection", hang)
    assert not downloads._reachable("a.host")
    waiting.set()


def test_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    assert loading.data_root() == tmp_path
    assert loading.data_root("here") == Path("here")
    monkeypatch.setenv("PPVAE_DATA", "~/data")
    assert loading.data_root() == Path.home() / "data"
    assert loading.data_root("~") == Path.home()
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


def frey_file(root: Path, shape=(1965, 28, 20), dtype=np.uint8, name: str = "images") -> Path:
    """A file of the right form whose frame i has the grey values i mod 256 and i div 256 in its corner."""
    images = np.zeros(shape, dtype)
    images[:, 0, 0], images[:, 0, 1] = np.arange(len(images)) % 256, np.arange(len(images)) // 256
    file = root / "freyfaces.npz"
    np.savez(file, **{name: images})
    return file


def test_frey_faces_are_split_without_overlap_grey_and_without_labels(tmp_path):
    frey_file(tmp_path)
    splits = load("freyfaces", root=tmp_path)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1565, 200, 200]
    frames = torch.cat([part.x[:, 0, 0].long() + 256 * part.x[:, 0, 1].long() for part in parts])
    assert sorted(frames.tolist()) == list(range(1965))
    again = load("freyfaces", root=tmp_path, validation=0)
    assert again.validation is None
    assert torch.equal(again.test.x, splits.test.x)
    for part in parts:
        assert (part.y, part.num_classes, part.binarization, part.name) == (None, None, "none", "freyfaces")
        assert torch.equal(part.rows(slice(None)) * 255, part.x.float())


def test_frey_faces_are_binarized_where_it_is_asked_for(tmp_path):
    frey_file(tmp_path)
    assert load("freyfaces", binarization="dynamic", root=tmp_path).train.binarization == "dynamic"
    fixed = load("freyfaces", binarization="fixed", root=tmp_path).train
    assert set(fixed.rows(slice(None)).unique().tolist()) == {0.0, 1.0}


def test_the_true_frey_faces():
    if not (loading.data_root() / "freyfaces.npz").exists():
        pytest.skip("freyfaces.npz is not in PPVAE_DATA")
    splits = load("freyfaces")
    faces = splits.test.grey(slice(None))
    assert splits.test.event_shape == (28, 20)
    # A face: neither a constant nor noise, whose neighbours would be uncorrelated.
    assert torch.corrcoef(torch.stack([faces[:, 1:].flatten(), faces[:, :-1].flatten()]))[0, 1] > 0.8


def test_frey_faces_that_are_absent_are_said_with_their_place(tmp_path):
    with pytest.raises(ppvae.DataError, match=r"Put them there as freyfaces.npz, with an array `images`"):
        load("freyfaces", root=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1965, 20, 28)}, r"as uint8 \(1965, 28, 20\), got uint8 \(1965, 20, 28\)"),
        ({"shape": (100, 28, 20)}, r"got uint8 \(100, 28, 20\)"),
        ({"dtype": np.float32}, "got float32"),
        ({"name": "faces"}, "is damaged .*images"),
        ({"dtype": object}, "is damaged .*allow_pickle"),
    ],
)
def test_frey_faces_of_another_form(options, message, tmp_path):
    frey_file(tmp_path, **options)
    with pytest.raises(ppvae.DataError, match=message):
        load("freyfaces", root=tmp_path)


@pytest.mark.parametrize("kept", [0, 1000, -1000])
def test_a_truncated_file_of_frey_faces_is_said_to_be_damaged(kept, tmp_path):
    file = frey_file(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ppvae.DataError, match=r"freyfaces.npz is damaged .*put a whole copy in its place"):
        load("freyfaces", root=tmp_path)


def test_other_bytes_than_were_written_are_said_to_be_damage(tmp_path):
    file = frey_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[500_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ppvae.DataError, match="is damaged"):
        load("freyfaces", root=tmp_path)


def test_the_default_binarization_is_the_data_sets_own(digits):
    assert digits.train.binarization == "dynamic"
    assert digits.train.num_classes == 10

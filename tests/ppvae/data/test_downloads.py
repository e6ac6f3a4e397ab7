"""MNIST and its likes: read from plain and compressed files, downloaded if absent."""

import gzip
import shutil
import struct
import sys

import pytest
import torch

from ppvae.data import downloads, load
from ppvae.data.files import data_root
from ppvae.errors import DataError
from tests.ppvae.data.hazards import irregular


@pytest.fixture(scope="module")
def mnist_raw():
    raw = data_root() / "MNIST" / "raw"
    if not raw.exists():
        pytest.skip("MNIST is not in PPVAE_DATA")
    return raw


@pytest.fixture
def offline(monkeypatch):
    """No download is tried."""
    monkeypatch.setattr(downloads, "torchvision_set", lambda name: pytest.fail("a download was tried"))


@pytest.fixture
def silent(monkeypatch):
    """No host answers."""
    monkeypatch.setattr(downloads, "_reachable", lambda host: False)
    monkeypatch.setattr(downloads, "getproxies", dict)


def test_mnist(mnist_raw, offline):
    splits = load("mnist")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [50_000, 10_000, 10_000]
    assert splits.test.x.dtype == torch.uint8
    # The first test image is a seven; the mean grey value of the training images is .1307.
    assert splits.test.y[:3].tolist() == [7, 2, 1]
    everything = torch.cat([splits.train.x, splits.validation.x]).float().mean() / 255
    assert everything.item() == pytest.approx(0.1307, abs=1e-4)


def test_published_mnist_is_read_without_a_network(mnist_raw, offline, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in mnist_raw.glob("t10k-*-ubyte"):
        (raw / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))
    for file in mnist_raw.glob("train-*-ubyte"):
        (raw / file.name).symlink_to(file)
    before = sorted(raw.iterdir())
    compressed, plain = load("mnist", root=tmp_path).test, load("mnist").test
    assert torch.equal(compressed.x, plain.x)
    assert torch.equal(compressed.y, plain.y)
    assert sorted(raw.iterdir()) == before


def fashion_files(root, rows=(60_000, 10_000), compress=False, labels=10):
    """Files of Fashion-MNIST's form: black images, the label of row i is i mod 10."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in zip(("train", "t10k"), rows, strict=True):
        images = struct.pack(">iiii", 2051, n, 28, 28) + bytes(n * 784)
        targets = struct.pack(">ii", 2049, n) + bytes(i % labels for i in range(n))
        for name, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", targets)):
            if compress:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
            else:
                (raw / name).write_bytes(content)
    return raw


@pytest.mark.parametrize("compress", [False, True])
def test_fashion_mnist_is_read_like_mnist(compress, tmp_path, offline):
    fashion_files(tmp_path, compress=compress)
    splits = load("fashion_mnist", root=tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [50_000, 10_000, 10_000]
    assert (splits.test.name, splits.test.num_classes, splits.test.binarization) == ("fashion_mnist", 10, "dynamic")
    assert splits.test.y[:12].tolist() == [*range(10), 0, 1]
    assert splits.test.levels == 256  # although every image is black


def test_fashion_mnist_of_another_size(tmp_path, offline):
    fashion_files(tmp_path, (60_000, 9_000))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte is damaged .*\(9000, 28, 28\)"):
        load("fashion_mnist", root=tmp_path)


def test_labels_outside_the_classes_are_refused(tmp_path, offline):
    fashion_files(tmp_path, labels=11)
    with pytest.raises(DataError, match=r"expected labels from 0 to 9, .*got 0 to 10"):
        load("fashion_mnist", root=tmp_path)


def test_a_truncated_file_is_damaged(mnist_raw, offline, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_raw, raw)
    images = raw / "t10k-images-idx3-ubyte"
    images.chmod(0o644)
    images.write_bytes(images.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte is damaged .*remove it to download it again"):
        load("mnist", root=tmp_path)
    assert images.stat().st_size == 100_000


def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, offline):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    irregular("pipe", raw / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match="regular file"):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_no_network_is_an_error_with_its_remedy(name, folder, tmp_path, silent):
    with pytest.raises(DataError, match=rf"{folder} is not in .*none of its mirrors .*\.gz, into .*PPVAE_DATA"):
        load(name, root=tmp_path)


def test_a_silent_host_is_given_up(monkeypatch):
    waiting = downloads.threading.Event()

    def hang(*args, **options):
        waiting.wait(30)
        raise OSError

    monkeypatch.setattr(downloads, "TIMEOUT", 0.05)
    monkeypatch.setattr(downloads.socket, "create_connection", hang)
    assert not downloads._reachable("a.host")
    waiting.set()


def test_a_torchvision_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match="torchvision cannot be imported"):
        load("mnist", root=tmp_path)

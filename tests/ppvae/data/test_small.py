"""Digits and Frey faces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ppvae.data import load
from ppvae.data.files import data_root
from ppvae.data.small import digits, freyfaces
from ppvae.errors import DataError
from tests.ppvae.data.hazards import IRREGULAR, irregular, memory_limited


def test_digits_are_scaled_from_16_to_255():
    (x, y), (test, labels) = digits(Path("not read"))
    assert (len(x), len(test)) == (1257, 540)
    assert torch.cat([x, test]).unique().tolist() == [round(level * 255 / 16) for level in range(17)]
    assert torch.cat([y, labels]).unique().tolist() == list(range(10))


def frey_file(root: Path, shape=(1965, 28, 20), dtype=np.uint8, name: str = "images", save=np.savez) -> Path:
    """A file of the right form; the corner of frame i holds the grey values i mod 256 and i div 256."""
    images = np.zeros(shape, dtype)
    images[:, 0, 0], images[:, 0, 1] = np.arange(len(images)) % 256, np.arange(len(images)) // 256
    file = root / "freyfaces.npz"
    save(file, **{name: images})
    return file


def frames(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0].long() + 256 * x[:, 0, 1].long()).tolist()


def test_frey_faces_are_split_without_overlap_or_labels(tmp_path):
    frey_file(tmp_path)
    splits = load("freyfaces", root=tmp_path)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1565, 200, 200]
    assert sorted(frame for part in parts for frame in frames(part.x)) == list(range(1965))
    again = load("freyfaces", root=tmp_path, validation=0)
    assert again.validation is None
    assert torch.equal(again.test.x, splits.test.x)
    for part in parts:
        assert (part.y, part.num_classes, part.binarization, part.name) == (None, None, "none", "freyfaces")
        assert torch.equal(part.rows(slice(None)) * 255, part.x.float())


def test_frey_faces_column_by_column_are_the_same(tmp_path):
    file = frey_file(tmp_path)
    with np.load(file) as arrays:
        np.savez(file, images=np.asfortranarray(arrays["images"]))
    (x, _), (test, _) = freyfaces(tmp_path)
    assert sorted(frames(torch.cat([x, test]))) == list(range(1965))


def test_frey_faces_are_binarized_on_request(tmp_path):
    frey_file(tmp_path)
    assert load("freyfaces", binarization="dynamic", root=tmp_path).train.binarization == "dynamic"
    fixed = load("freyfaces", binarization="fixed", root=tmp_path).train
    assert set(fixed.rows(slice(None)).unique().tolist()) == {0.0, 1.0}


def test_published_frey_faces_are_faces():
    if not (data_root() / "freyfaces.npz").exists():
        pytest.skip("freyfaces.npz is not in PPVAE_DATA")
    splits = load("freyfaces")
    faces = splits.test.grey(slice(None))
    assert splits.test.event_shape == (28, 20)
    # A face is neither constant nor noise: neighbouring rows of pixels are correlated.
    assert torch.corrcoef(torch.stack([faces[:, 1:].flatten(), faces[:, :-1].flatten()]))[0, 1] > 0.8


def test_frey_faces_that_are_absent(tmp_path):
    with pytest.raises(DataError, match=r"Put them there as freyfaces.npz, with an array `images`"):
        freyfaces(tmp_path)


@pytest.mark.parametrize("kind", IRREGULAR)
def test_frey_faces_of_another_kind_of_file(kind, tmp_path):
    irregular(kind, tmp_path / "freyfaces.npz")
    with pytest.raises(DataError, match="regular file"):
        freyfaces(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1965, 20, 28)}, r"as uint8 \(1965, 28, 20\), got uint8 \(1965, 20, 28\)"),
        ({"shape": (100, 28, 20)}, r"got uint8 \(100, 28, 20\)"),
        ({"dtype": np.float32}, "got float32"),
        ({"name": "faces"}, "is damaged .*images"),
        ({"dtype": object}, "got object"),
    ],
)
def test_frey_faces_of_another_form(options, message, tmp_path):
    frey_file(tmp_path, **options)
    with pytest.raises(DataError, match=message):
        freyfaces(tmp_path)


def test_frey_faces_of_another_form_are_refused_before_they_are_read(tmp_path):
    # 110 MB in a file of 0.1 MB.
    frey_file(tmp_path, shape=(1965, 28, 2000), save=np.savez_compressed)
    with pytest.raises(DataError, match=r"got uint8 \(1965, 28, 2000\)"), memory_limited(2**26):
        freyfaces(tmp_path)


@pytest.mark.parametrize("kept", [0, 1000, -1000])
def test_frey_faces_that_are_truncated(kept, tmp_path):
    file = frey_file(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"freyfaces.npz is damaged .*put a complete copy in its place"):
        freyfaces(tmp_path)


def test_frey_faces_with_a_changed_byte(tmp_path):
    file = frey_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[500_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .*CRC"):
        freyfaces(tmp_path)

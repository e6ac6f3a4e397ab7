"""Files of data: checksums, arrays on disk, packed images."""

import hashlib

import numpy as np
import pytest
import torch

import ppvae
from ppvae.data.files import PublishedFile, array_on_disk
from ppvae.data.lazy import MappedImages, PackedImages

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def blocks():
    yield ARRAY[:3]
    yield ARRAY[3:]


def test_a_published_file_is_checked(tmp_path):
    published = PublishedFile("a.bin", hashlib.md5(b"whole").hexdigest(), "https://a.host/a.bin")
    with pytest.raises(ppvae.DataError, match=r"a.bin is not in .*Get it from https://a.host/a.bin .*PPVAE_DATA"):
        published.path(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"who")
    with pytest.raises(ppvae.DataError, match=r"a.bin is damaged or another file \(md5 .* get it again from https"):
        published.path(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"whole")
    assert published.path(tmp_path) == tmp_path / "a.bin"


def test_an_array_on_disk_is_written_once_and_never_changed(tmp_path):
    file = tmp_path / "a.npy"
    x = array_on_disk(file, ARRAY.shape, blocks)
    assert torch.equal(x[:], torch.from_numpy(ARRAY))
    x.array.zero_()
    again = array_on_disk(file, ARRAY.shape, lambda: pytest.fail("made twice"))
    assert torch.equal(again[:], torch.from_numpy(ARRAY))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_an_array_that_fails_half_way_leaves_nothing(tmp_path):
    def broken():
        yield ARRAY[:3]
        raise ppvae.DataError("a picture is damaged")

    with pytest.raises(ppvae.DataError, match="a picture is damaged"):
        array_on_disk(tmp_path / "a.npy", ARRAY.shape, broken)
    assert not list(tmp_path.iterdir())


def test_what_is_absent_is_said_before_anything_is_written(tmp_path):
    def absent():
        raise ppvae.DataError("a.zip is not there")

    with pytest.raises(ppvae.DataError, match=r"a.zip is not there"):
        array_on_disk(tmp_path / "nowhere" / "a.npy", ARRAY.shape, absent)


def test_an_array_that_cannot_be_written(tmp_path):
    with pytest.raises(ppvae.DataError, match=r"could not write .*a.npy, 0.0 GB"):
        array_on_disk(tmp_path / "nowhere" / "a.npy", ARRAY.shape, blocks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARRAY[:3], r"to hold uint8 \(4, 2, 3\), got uint8 \(3, 2, 3\); remove it"),
        (ARRAY.astype(np.float32), "got float32"),
        (np.array([None]), "is damaged .*; remove it"),
    ],
)
def test_an_array_of_another_form(content, message, tmp_path):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ppvae.DataError, match=message):
        array_on_disk(tmp_path / "a.npy", ARRAY.shape, blocks)


def test_a_truncated_array(tmp_path):
    file = tmp_path / "a.npy"
    array_on_disk(file, ARRAY.shape, blocks)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ppvae.DataError, match=r"is damaged .*remove it"):
        array_on_disk(file, ARRAY.shape, blocks)


def test_packed_images_are_those_that_were_packed():
    images = torch.rand(300, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    packed = PackedImages(torch.from_numpy(np.packbits(images.flatten(1).numpy(), axis=1)), (4, 6))
    assert packed.shape == (300, 4, 6)
    assert packed.bits.numel() * 8 == images.numel()
    index = torch.tensor([[5, 299], [-300, 5]])
    assert torch.equal(packed[index], images[index].to(torch.uint8) * 255)
    assert torch.equal(packed.to("cpu")[:], images.to(torch.uint8) * 255)
    with pytest.raises(IndexError):
        packed[300]


def test_packed_images_of_another_size():
    with pytest.raises(ValueError, match="an eighth"):
        PackedImages(torch.zeros(3, 4, dtype=torch.uint8), (4, 6))


def test_images_in_a_file_stay_there_until_they_are_indexed(tmp_path):
    x = array_on_disk(tmp_path / "a.npy", ARRAY.shape, blocks)
    assert (x.shape, x.dtype, x.dim(), x.device.type) == (ARRAY.shape, torch.uint8, 3, "cpu")
    part = x.part(slice(1, 4)).part(slice(2))
    assert isinstance(part, MappedImages)
    assert part.array.data_ptr() == x.array[1].data_ptr()
    assert torch.equal(part[:], torch.from_numpy(ARRAY[1:3]))
    assert torch.equal(x.to("cpu")[torch.tensor([[3, 0]])], torch.from_numpy(ARRAY[[[3, 0]]]))
    assert x[1:3].data_ptr() != x.array[1].data_ptr()
    taken = ppvae.Dataset(x).take(slice(1, 3)).x
    assert isinstance(taken, torch.Tensor)
    with pytest.raises(IndexError):
        x[4]


def test_images_in_a_file_are_uint8():
    with pytest.raises(ValueError, match=r"expected uint8, got torch.float32"):
        MappedImages(torch.zeros(3, 2))


@pytest.mark.parametrize("index", [(0, 1), (slice(None), 0), None, ...])
def test_what_is_no_index_of_rows(index):
    with pytest.raises(IndexError, match="expected one index, of rows, got"):
        MappedImages(torch.from_numpy(ARRAY))[index]

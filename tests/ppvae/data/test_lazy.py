"""Images that are made or read when they are indexed: packed bits and memory maps."""

import numpy as np
import pytest
import torch

from ppvae.data import Dataset
from ppvae.data.files import array_on_disk
from ppvae.data.lazy import ROWS, MappedImages, PackedImages
from ppvae.errors import DataError

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


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


def test_packed_images_refuse_bits_of_another_size():
    with pytest.raises(DataError, match=r"shape \(N, H \* W / 8\) for images of \(4, 6\), got torch.uint8 .*\(3, 4\)"):
        PackedImages(torch.zeros(3, 4, dtype=torch.uint8), (4, 6))


def test_mapped_images_stay_in_the_file_until_they_are_indexed(tmp_path):
    x = array_on_disk(tmp_path / "a.npy", ARRAY.shape, lambda: [ARRAY])
    assert (x.shape, x.dtype, x.dim(), x.device.type) == (ARRAY.shape, torch.uint8, 3, "cpu")
    part = x.part(slice(1, 4)).part(slice(2))
    assert isinstance(part, MappedImages)
    assert part.array.data_ptr() == x.array[1].data_ptr()
    assert torch.equal(part[:], torch.from_numpy(ARRAY[1:3]))
    assert torch.equal(x.to("cpu")[torch.tensor([[3, 0]])], torch.from_numpy(ARRAY[[[3, 0]]]))
    assert x[1:3].data_ptr() != x.array[1].data_ptr()
    taken = Dataset(x, levels=256).take(slice(1, 3)).x
    assert isinstance(taken, torch.Tensor)
    with pytest.raises(IndexError):
        x[4]


def test_mapped_images_are_uint8():
    with pytest.raises(DataError, match=r"expected a uint8 array, got torch.float32"):
        MappedImages(torch.zeros(3, 2))


def test_lazy_images_take_the_indices_of_a_tensor():
    array = torch.arange(3 * ROWS, dtype=torch.int32).remainder(256).byte().reshape(-1, 1)
    lazy = MappedImages(array)
    mask = torch.zeros(len(array), dtype=torch.bool)
    mask[5:700:7] = True
    many = torch.arange(len(array)).flip(0)
    for index in (
        slice(None),
        slice(3, 600, 7),
        slice(9, 9),
        many,
        many.int(),
        mask,
        [2, 5],
        7,
        -1,
        many.reshape(2, -1),
    ):
        assert torch.equal(lazy[index], array[index])
    assert lazy[torch.empty(0)].shape == (0, 1)


@pytest.mark.parametrize("index", [(0, 1), (slice(None), 0), None, ...])
def test_lazy_images_refuse_an_index_of_more_than_rows(index):
    with pytest.raises(IndexError, match="expected one index, of rows, got"):
        MappedImages(torch.from_numpy(ARRAY))[index]


def test_lazy_images_refuse_an_index_of_another_type():
    with pytest.raises(IndexError, match=r"a mask of 4 rows, got torch.float32 of shape \(1,\)"):
        MappedImages(torch.from_numpy(ARRAY))[torch.tensor([0.5])]

"""Picture files as data: a folder, CelebA."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CelebA

from ppvae.data import MappedImages, image_folder, images, load
from ppvae.errors import DataError
from tests.ppvae.data.hazards import irregular


def picture(file, height=6, width=4, mode="RGB", seed=0):
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    Image.fromarray(pixels).save(file)
    return torch.from_numpy(pixels)


def test_image_folder_is_in_the_order_of_names(tmp_path):
    first, second = picture(tmp_path / "a.png", seed=1), picture(tmp_path / "b.PNG", seed=2)
    (tmp_path / "notes.txt").write_text("not a picture")
    data = image_folder(tmp_path)
    assert torch.equal(data.x, torch.stack([first, second]).permute(0, 3, 1, 2))
    assert (data.event_shape, data.name, data.binarization) == ((3, 6, 4), tmp_path.name, "none")
    assert image_folder(tmp_path, colour=False, name="mine").event_shape == (6, 4)


def test_image_folder_scales_on_request(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 51)).save(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8), (0, 255, 0)).save(tmp_path / "b.png")
    data = image_folder(tmp_path, size=(np.int64(5), 7))
    assert data.event_shape == (3, 5, 7)
    assert (data.x[0].float().mean((1, 2)) - torch.tensor([255.0, 0, 51])).abs().max() < 3  # JPEG loses a little
    assert data.x[1].float().mean((1, 2)).tolist() == [0, 255, 0]


def test_image_folder_of_dark_pictures_keeps_the_scale_of_eight_bits(tmp_path):
    Image.new("L", (2, 2), 1).save(tmp_path / "a.png")
    data = image_folder(tmp_path, colour=False)
    assert data.levels == 256
    torch.testing.assert_close(data.rows(slice(None)), torch.full((1, 2, 2), 1 / 255))


def test_image_folder_does_not_read_folders_in_it(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    picture(tmp_path / "b.png" / "c.png")
    assert len(image_folder(tmp_path)) == 1


def broken(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    return tmp_path


def mixed(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 6, 5)
    return tmp_path


def piped(tmp_path):
    irregular("pipe", tmp_path / "a.png")
    return tmp_path


def circular(tmp_path):
    irregular("circle of links", tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: path / "none", {}, "not a folder: .*none"),
        (lambda path: path, {}, r"pictures \(.png, .jpg, .jpeg\) in .*, found none"),
        (broken, {}, "b.png cannot be read .*convert or remove it"),
        (mixed, {}, r"of one size, got 6x4 in a.png and 6x5 in b.png; give size=\(H, W\)"),
        (piped, {}, "a.png to be a regular file"),
        (circular, {}, "a.png to be a regular file"),
        (mixed, {"size": (0, 4)}, r"each side of size \(H, W\) to be a whole number of at least 1, got 0"),
        (mixed, {"size": (4.0, 4)}, "to be a whole number, got 4.0"),
        (mixed, {"size": 64}, r"size \(H, W\), two whole numbers of pixels, got 64"),
        (mixed, {"size": (4, 4, 3)}, r"got \(4, 4, 3\)"),
    ],
)
def test_image_folder_refuses_other_folders_and_sizes(make, options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        image_folder(make(tmp_path), **options)


def test_image_folder_refuses_the_first_picture_of_another_size(tmp_path):
    mixed(tmp_path)
    for name in "cdef":
        picture(tmp_path / f"{name}.png", 6, 7)
    with pytest.raises(DataError, match=r"6x5 in b.png"):
        image_folder(tmp_path)


@pytest.fixture
def small_celeba(tmp_path, monkeypatch):
    """Six faces in torchvision's layout, with lists of other checksums than the published ones."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 7)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (40 * i, 0, 0)).save(folder / "img_align_celeba" / name)
    for file, header in (("list_eval_partition", ""), ("identity_CelebA", ""), ("list_bbox_celeba", "6\nx\n")):
        (folder / f"{file}.txt").write_text(header + "".join(f"{name} {i // 4}\n" for i, name in enumerate(names)))
    for file in ("list_landmarks_align_celeba", "list_attr_celeba"):
        (folder / f"{file}.txt").write_text("6\nx\n" + "".join(f"{name} 1\n" for name in names))
    monkeypatch.setattr(CelebA, "_check_integrity", lambda self: True)
    monkeypatch.setattr(images, "CELEBA_ROWS", (4, 2))
    return tmp_path


def test_load_celeba_splits_in_its_own_order(small_celeba):
    splits = load("celeba", validation=1, root=small_celeba)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 1, 2]
    assert splits.train.event_shape == (3, 64, 64)
    red = torch.cat([part.x[:] for part in (splits.train, splits.validation, splits.test)])[:, 0].float().mean((1, 2))
    assert (red - 40 * torch.arange(6)).abs().max() < 3
    assert all(isinstance(part.x, MappedImages) for part in (splits.train, splits.validation, splits.test))
    (small_celeba / "celeba" / "img_align_celeba" / "000001.jpg").unlink()
    assert len(load("celeba", validation=0, root=small_celeba).train) == 4  # decoded once


def test_load_celeba_takes_the_square_in_the_middle(small_celeba):
    face = np.zeros((218, 178, 3), np.uint8)
    face[35:183, 15:163] = 255
    folder = small_celeba / "celeba" / "img_align_celeba"
    for file in folder.iterdir():
        Image.fromarray(face).save(file, quality=100)
    assert load("celeba", validation=0, root=small_celeba).train.x[:].min() >= 250  # JPEG loses a little


def test_load_celeba_that_is_not_complete(small_celeba, monkeypatch):
    (small_celeba / "celeba" / "img_align_celeba" / "000002.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000002.jpg cannot be read"):
        load("celeba", validation=0, root=small_celeba)
    monkeypatch.setattr(images, "CELEBA_ROWS", (40, 2))
    with pytest.raises(DataError, match=r"expected 42 pictures in the lists of .*, got 6"):
        load("celeba", validation=0, root=small_celeba)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"CelebA is not complete in .*corrupted.*mmlab.*PPVAE_DATA"):
        load("celeba", root=small_celeba)  # the lists have other checksums
    (small_celeba / "celeba" / "list_bbox_celeba.txt").unlink()
    with pytest.raises(DataError, match=r"\([^,]*list_bbox_celeba.txt not found\). Put its pictures"):
        load("celeba", root=small_celeba)


def test_load_celeba_from_a_folder_that_is_absent(tmp_path):
    missing = r"\(.*img_align_celeba, .*list_eval_partition.txt.* not found\).*mmlab.*PPVAE_DATA"
    with pytest.raises(DataError, match=missing):
        load("celeba", root=tmp_path / "absent")
    assert not list(tmp_path.iterdir())

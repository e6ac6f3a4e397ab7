"""Picture files: a folder of one's own, CelebA, Fashion-MNIST."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CelebA

import ppvae
from ppvae.data import MappedImages, downloads, image_folder, images, load


def picture(file, height=6, width=4, mode="RGB", seed=0):
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    Image.fromarray(pixels).save(file)
    return torch.from_numpy(pixels)


def test_pictures_come_in_the_order_of_their_names(tmp_path):
    first, second = picture(tmp_path / "a.png", seed=1), picture(tmp_path / "b.PNG", seed=2)
    (tmp_path / "notes.txt").write_text("not a picture")
    data = image_folder(tmp_path)
    assert torch.equal(data.x, torch.stack([first, second]).permute(0, 3, 1, 2))
    assert (data.event_shape, data.name, data.binarization) == ((3, 6, 4), tmp_path.name, "none")
    assert image_folder(tmp_path, colour=False, name="mine").event_shape == (6, 4)


def test_grey_and_transparent_pictures(tmp_path):
    grey = picture(tmp_path / "a.png", mode="L")
    assert torch.equal(image_folder(tmp_path, colour=False).x[0], grey)
    assert torch.equal(image_folder(tmp_path).x[0], grey.expand(3, 6, 4))
    clear = picture(tmp_path / "a.png", mode="RGBA")
    assert torch.equal(image_folder(tmp_path).x[0], clear[..., :3].permute(2, 0, 1))


def test_pictures_are_scaled_where_it_is_asked_for(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 51)).save(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8), (0, 255, 0)).save(tmp_path / "b.png")
    data = image_folder(tmp_path, size=(5, 7))
    assert data.event_shape == (3, 5, 7)
    assert (data.x[0].float().mean((1, 2)) - torch.tensor([255.0, 0, 51])).abs().max() < 3  # JPEG loses a little
    assert data.x[1].float().mean((1, 2)).tolist() == [0, 255, 0]


def test_a_picture_is_turned_as_its_camera_noted(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0] = 255
    picture = Image.fromarray(pixels)
    noted = picture.getexif()
    noted[0x0112] = 6  # its top is the right side of the scene
    picture.save(tmp_path / "a.png", exif=noted)
    x = image_folder(tmp_path, colour=False).x[0]
    assert x.shape == (6, 4)
    assert (x[:, 3] == 255).all()
    assert not x[:, :3].any()


def test_more_pictures_than_are_decoded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "BLOCK", 2)
    expected = [picture(tmp_path / f"{i}.png", seed=i) for i in range(5)]
    assert torch.equal(image_folder(tmp_path).x, torch.stack(expected).permute(0, 3, 1, 2))


def broken(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    return tmp_path


def mixed(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 6, 5)
    return tmp_path


def deep(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: path / "none", {}, "expected a folder of pictures"),
        (lambda path: path, {}, r"pictures \(.png, .jpg, .jpeg\) in .*, found none"),
        (broken, {}, "b.png cannot be read .*mend or remove it"),
        (mixed, {}, r"of one size, got 6x4 in a.png and 6x5 in b.png; give size=\(H, W\)"),
        (deep, {}, "eight bits a channel in .*a.png, got mode I;16"),
        (mixed, {"size": (0, 4)}, r"size \(H, W\), whole numbers of at least 1 pixel each"),
        (mixed, {"size": (4.0, 4)}, r"whole numbers .*got \(4.0, 4\)"),
        (mixed, {"size": 64}, r"whole numbers .*got 64"),
        (mixed, {"size": (4, 4, 3)}, r"got \(4, 4, 3\)"),
    ],
)
def test_folders_that_are_no_data(make, options, message, tmp_path):
    with pytest.raises(ppvae.DataError, match=message):
        image_folder(make(tmp_path), **options)


@pytest.fixture
def small_celeba(tmp_path, monkeypatch):
    """Six faces in torchvision's layout, whose lists have other checksums than the true ones."""
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


def test_celeba_is_cropped_scaled_and_split_in_its_own_order(small_celeba):
    splits = load("celeba", validation=1, root=small_celeba)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 1, 2]
    assert splits.train.event_shape == (3, 64, 64)
    red = torch.cat([part.x[:] for part in (splits.train, splits.validation, splits.test)])[:, 0].float().mean((1, 2))
    assert (red - 40 * torch.arange(6)).abs().max() < 3
    assert all(isinstance(part.x, MappedImages) for part in (splits.train, splits.validation, splits.test))
    (small_celeba / "celeba" / "img_align_celeba" / "000001.jpg").unlink()
    assert len(load("celeba", validation=0, root=small_celeba).train) == 4  # decoded once


def test_the_square_in_the_middle_is_taken(tmp_path):
    face = np.zeros((218, 178, 3), np.uint8)
    face[35:183, 15:163] = 255
    Image.fromarray(face).save(tmp_path / "a.png")
    assert images._decode(tmp_path / "a.png", (64, 64), True, images._CELEBA_BOX).min() == 255


def test_celeba_that_is_absent_or_not_whole(small_celeba, monkeypatch):
    (small_celeba / "celeba" / "img_align_celeba" / "000002.jpg").write_bytes(b"no picture")
    with pytest.raises(ppvae.DataError, match=r"000002.jpg cannot be read"):
        load("celeba", validation=0, root=small_celeba)
    monkeypatch.setattr(images, "CELEBA_ROWS", (40, 2))
    with pytest.raises(ppvae.DataError, match=r"expected 42 pictures in the lists of .*, got 6"):
        load("celeba", validation=0, root=small_celeba)
    monkeypatch.undo()
    with pytest.raises(ppvae.DataError, match=r"CelebA is not whole in .*corrupted.*mmlab.*PPVAE_DATA"):
        load("celeba", root=small_celeba)  # the lists have other checksums
    (small_celeba / "celeba" / "list_bbox_celeba.txt").unlink()
    with pytest.raises(ppvae.DataError, match=r"\([^,]*list_bbox_celeba.txt not found\). Put its pictures"):
        load("celeba", root=small_celeba)


def test_celeba_in_a_folder_that_is_absent(tmp_path):
    missing = r"\(.*img_align_celeba, .*list_eval_partition.txt.* not found\).*mmlab.*PPVAE_DATA"
    with pytest.raises(ppvae.DataError, match=missing):
        load("celeba", root=tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def fashion_files(root, rows=(60_000, 10_000)):
    """Files of Fashion-MNIST's form: black images, the label of row i is i mod 10."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in zip(("train", "t10k"), rows, strict=True):
        images_head, labels_head = struct.pack(">iiii", 2051, n, 28, 28), struct.pack(">ii", 2049, n)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images_head + bytes(n * 784))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels_head + bytes(i % 10 for i in range(n)))
    return raw


def test_fashion_mnist_is_read_as_mnist_is(tmp_path):
    fashion_files(tmp_path)
    splits = load("fashion_mnist", root=tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [50_000, 10_000, 10_000]
    assert (splits.test.name, splits.test.num_classes, splits.test.binarization) == ("fashion_mnist", 10, "dynamic")
    assert splits.test.y[:12].tolist() == [*range(10), 0, 1]


def test_fashion_mnist_of_another_size_or_absent(tmp_path, monkeypatch):
    fashion_files(tmp_path, (60_000, 9_000))
    with pytest.raises(ppvae.DataError, match=r"FashionMNIST/raw is damaged .*9000, 28, 28"):
        load("fashion_mnist", root=tmp_path)
    monkeypatch.setattr(downloads, "_reachable", lambda host: False)
    with pytest.raises(ppvae.DataError, match=r"FashionMNIST is not in .*none of its mirrors answered"):
        load("fashion_mnist", root=tmp_path / "none")

"""Data sets made of picture files: CelebA, and a folder of one's own."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ppvae.data.dataset import Dataset
from ppvae.data.downloads import torchvision_set
from ppvae.data.files import array_on_disk
from ppvae.data.parts import Part
from ppvae.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
BLOCK = 1000  # pictures decoded at once
CELEBA_ROWS = (182_637, 19_962)  # training (of which the last 19,867 are the validation part), test
_CELEBA_BOX = (15, 35, 163, 183)  # of 178x218: the square of 148 in the middle, as the literature takes it
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # eight bits; PIL would clip deeper ones to white


def image_folder(
    path: str | Path, size: tuple[int, int] | None = None, colour: bool = True, name: str | None = None
) -> Dataset:
    """The PNG and JPEG pictures of a folder, in the order of their names, in memory.

    Args:
        path: the folder; folders in it are not read. A picture is turned as its camera noted (EXIF).
        size: (H, W) to scale each picture to, whatever its proportions; None takes them as they are.
        colour: give (3, H, W), red, green and blue; else (H, W), grey. Transparency is dropped.
        name: what tables and reports call the data; by default the folder's name.

    Raises DataError for a folder that is absent or holds no picture, a picture that cannot be read or has more than
    eight bits a channel, and pictures of different sizes where ``size`` is None.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DataError(f"expected a folder of pictures, got {path}, which is none")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"expected pictures ({', '.join(SUFFIXES)}) in {path}, found none; folders in it are not read")
    if size is not None and not (
        isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise DataError(f"expected size (H, W), whole numbers of at least 1 pixel each, got {size!r}")
    images = [image for block in _decoded(files, size, colour) for image in block]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"expected pictures of one size, got {_size(images[0], colour)} in {files[0].name} and "
                f"{_size(image, colour)} in {file.name}; give size=(H, W) to scale them"
            )
    return Dataset(torch.from_numpy(np.stack(images)), name=name or path.resolve().name)


def celeba(root: Path) -> tuple[Part, Part]:
    """CelebA's faces, from ``celeba-64.npy`` (2.5 GB, read as it is used), which is made from the pictures once."""
    train, test = CELEBA_ROWS
    x = array_on_disk(root / "celeba-64.npy", (train + test, 3, 64, 64), lambda: _celeba_blocks(root))
    return (x.part(slice(train)), None), (x.part(slice(train, None)), None)


def _celeba_blocks(root: Path) -> Iterator[np.ndarray]:
    """The pictures in blocks. Raises DataError, before the first, where a list or the folder of pictures is absent."""
    pictures, dataset = root / "celeba" / "img_align_celeba", torchvision_set("CelebA")
    lists = [root / "celeba" / name for _, _, name in dataset.file_list if name.endswith(".txt")]
    absent = [str(path) for path in (pictures, *lists) if not path.exists()]
    try:
        names = dataset(root, split="all").filename  # checks the lists' checksums
    except (RuntimeError, OSError) as error:
        reason = f"{', '.join(absent)} not found" if absent else error
        raise DataError(
            f"CelebA is not whole in {root}/celeba ({reason}). Put its pictures into {pictures} and its five lists "
            "(list_eval_partition.txt and the others) beside that folder, from "
            "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html or by torchvision.datasets.CelebA(root, download=True), "
            "or set PPVAE_DATA to a folder that has them"
        ) from error
    if len(names) != sum(CELEBA_ROWS):
        raise DataError(f"expected {sum(CELEBA_ROWS)} pictures in the lists of {root}/celeba, got {len(names)}")
    return map(np.stack, _decoded([pictures / name for name in names], (64, 64), True, _CELEBA_BOX))


def _decoded(files: Sequence[Path], size, colour: bool, box=None) -> Iterator[list[np.ndarray]]:
    """The pictures in blocks, uint8 (3, H, W) or (H, W) each."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BLOCK):
            yield list(pool.map(lambda file: _decode(file, size, colour, box), files[start : start + BLOCK]))


def _decode(file: Path, size: tuple[int, int] | None, colour: bool, box) -> np.ndarray:
    from PIL import Image, ImageOps  # where they are used: torchvision brings them

    try:
        with Image.open(file) as picture:
            if picture.mode not in _MODES:
                raise DataError(f"expected eight bits a channel in {file}, got mode {picture.mode}; convert it")
            picture = ImageOps.exif_transpose(picture).convert("RGB" if colour else "L")
            if box is not None:
                picture = picture.crop(box)  # first: `resize` of a box would look beyond its border
            if size is not None:
                picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:  # PIL has many words for a damaged file
        raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}); mend or remove it") from error
    pixels = np.asarray(picture)
    return pixels.transpose(2, 0, 1) if colour else pixels


def _size(image: np.ndarray, colour: bool) -> str:
    return "x".join(str(side) for side in (image.shape[1:] if colour else image.shape))

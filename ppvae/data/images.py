"""Data sets made of picture files: CelebA, and a folder of pictures."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ppvae.data.columns import whole_number
from ppvae.data.dataset import Dataset
from ppvae.data.downloads import torchvision_set
from ppvae.data.files import array_on_disk
from ppvae.data.parts import Part
from ppvae.data.pictures import SUFFIXES, Size, decoded
from ppvae.errors import DataError

BLOCK = 1000  # faces written at once
CELEBA_ROWS = (182_637, 19_962)  # training (of which the last 19,867 are the validation part), test
_CELEBA_BOX = (15, 35, 163, 183)  # of 178x218: the square of 148 in the middle, as in the literature


def image_folder(path: str | Path, size: Size | None = None, colour: bool = True, name: str | None = None) -> Dataset:
    """The PNG and JPEG pictures of a folder, in the order of their names, in memory.

    Args:
        path: the folder. Folders in it are not read.
        size: (H, W) to scale each picture to, whatever its proportions; None keeps the sizes, which must be equal.
        colour: give (3, H, W), red, green and blue; else (H, W), grey.
        name: what tables and reports call the data; by default the folder's name.

    See :func:`~ppvae.data.pictures.decode` for what is done with each picture.

    Raises:
        DataError: the folder is absent or holds no picture; a picture cannot be read, is animated, deeper than eight
            bits a channel or too large; the pictures have different sizes and ``size`` is None.

    Example:

        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 2), 255).save(f"{folder}/a.png")
        ...     image_folder(folder, colour=False, name="mine")
        Dataset('mine', 1 rows of shape (2, 4))
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DataError(f"not a folder: {path}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.is_dir())
    if not files:
        raise DataError(f"expected pictures ({', '.join(SUFFIXES)}) in {path}, found none; folders in it are not read")
    images: list[np.ndarray] = []
    for file, image in zip(files, decoded(files, _size(size), colour), strict=True):
        images.append(image)
        if image.shape != images[0].shape:
            raise DataError(
                f"expected pictures of one size, got {_sides(images[0])} in {files[0].name} and {_sides(image)} in "
                f"{file.name}; give size=(H, W) to scale them"
            )
    return Dataset(torch.from_numpy(np.stack(images)), levels=256, name=name or path.resolve().name)


def celeba(root: Path) -> tuple[Part, Part]:
    """CelebA's faces, from ``celeba-64.npy`` (2.5 GB, read as it is used), which is made from the pictures once.

    Example:

        >>> celeba(Path("absent"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.DataError: ...
    """
    train, test = CELEBA_ROWS
    x = array_on_disk(root / "celeba-64.npy", (train + test, 3, 64, 64), lambda: _celeba_blocks(root))
    return (x.part(slice(train)), None), (x.part(slice(train, None)), None)


def _celeba_blocks(root: Path) -> Iterator[np.ndarray]:
    """The pictures in blocks. Raises DataError, before the first, if a list or the folder of pictures is absent."""
    pictures, dataset = root / "celeba" / "img_align_celeba", torchvision_set("CelebA")
    lists = [root / "celeba" / name for _, _, name in dataset.file_list if name.endswith(".txt")]
    absent = [str(path) for path in (pictures, *lists) if not path.exists()]
    try:
        names = dataset(root, split="all").filename  # compares the lists' checksums
    except (RuntimeError, OSError) as error:
        reason = f"{', '.join(absent)} not found" if absent else error
        raise DataError(
            f"CelebA is not complete in {root}/celeba ({reason}). Put its pictures into {pictures} and its five lists "
            "(list_eval_partition.txt and the others) next to that folder, from "
            "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html or by torchvision.datasets.CelebA(root, download=True), "
            "or set PPVAE_DATA to a folder that has them"
        ) from error
    if len(names) != sum(CELEBA_ROWS):
        raise DataError(f"expected {sum(CELEBA_ROWS)} pictures in the lists of {root}/celeba, got {len(names)}")
    return _blocks(decoded([pictures / name for name in names], (64, 64), True, _CELEBA_BOX))


def _blocks(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while block := list(itertools.islice(images, BLOCK)):
        yield np.stack(block)


def _size(size: Size | None) -> Size | None:
    if size is None:
        return None
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise DataError(f"expected size (H, W), two whole numbers of pixels, got {size!r}")
    height, width = (whole_number(side, "each side of size (H, W)", at_least=1) for side in size)
    return height, width


def _sides(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape[-2:]))

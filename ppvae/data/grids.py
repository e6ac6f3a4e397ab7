"""Data sets that hold one image for each combination of their factors: sprites, dSprites, 3D Shapes."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ppvae.data.factors import Factors
from ppvae.data.files import PublishedFile, array_on_disk, damaged, open_member, read_member
from ppvae.data.lazy import PackedImages
from ppvae.data.parts import Part, with_test_among
from ppvae.data.sprites import SPRITES, Sprites
from ppvae.errors import DataError

TEST_ROWS = 10_000
BLOCK = 10_000  # images read from a file at once
SHAPES3D = Factors(("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"), (10, 10, 10, 8, 4, 15))

# Several independent readers of the two files state these checksums.
DSPRITES_FILE = PublishedFile(
    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
    "7da33b31b13a06f4b04a70402ce90c2e",
    "https://github.com/deepmind/dsprites-dataset",
)
SHAPES3D_FILE = PublishedFile(
    "3dshapes.h5", "099a2078d58cec4daad0702c55d06868", "https://storage.googleapis.com/3d-shapes/3dshapes.h5"
)


def sprites(root: Path) -> tuple[Part, Part]:
    """dSprites by formula; the root is not read.

    Example:

        >>> (x, y), (test, _) = sprites(Path("unused"))
        >>> len(x), y is None
        (737280, True)
    """
    return with_test_among(Sprites(), TEST_ROWS)


def dsprites(root: Path) -> tuple[Part, Part]:
    """dSprites from its published file, held as one bit a pixel (377 MB).

    Example:

        >>> dsprites(Path("absent"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.DataError: ...
    """
    return with_test_among(read_dsprites(DSPRITES_FILE.path(root), SPRITES), TEST_ROWS)


def shapes3d(root: Path) -> tuple[Part, Part]:
    """3D Shapes, from ``3dshapes.npy`` (5.9 GB, read as it is used), which is made from ``3dshapes.h5`` once.

    The published file (267 MB) is compressed in blocks of rows: each batch of shuffled rows would unpack many blocks.

    Example:

        >>> shapes3d(Path("absent"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.DataError: ...
    """
    shape = (len(SHAPES3D), 3, 64, 64)
    x = array_on_disk(root / "3dshapes.npy", shape, lambda: read_shapes3d(SHAPES3D_FILE.path(root), SHAPES3D))
    return with_test_among(x, TEST_ROWS)


def read_dsprites(file: Path, factors: Factors) -> PackedImages:
    """The images of an archive of dSprites' form, one for each combination of the factors in their order.

    The archive holds ``imgs``, uint8 in {0, 1}, shape (N, 64, 64), and ``latents_classes``, long, shape (N, 1 + F),
    which states the order; its first column is the colour, always 0. Its ``metadata``, which is pickled code, is not
    read.

    Raises:
        DataError: the file is damaged or has another form.

    Example:

        >>> import tempfile
        >>> file, factors = Path(tempfile.mkdtemp(), "a.npz"), Factors(("scale",), (2,))
        >>> np.savez(file, imgs=np.ones((2, 64, 64), np.uint8), latents_classes=np.array([[0, 0], [0, 1]]))
        >>> read_dsprites(file, factors)[torch.tensor([1])].shape
        torch.Size([1, 64, 64])
    """
    classes = read_member(file, "latents_classes", (len(factors), 1 + len(factors.names)), np.int64)
    _check_order(file, "latents_classes", classes[:, 1:], factors)
    shape = (len(factors), 64, 64)
    with open_member(file, "imgs", shape) as (stream, by_column):
        if by_column:
            raise DataError(f"expected `imgs` in {file} row by row, got column by column; get the published file again")
        bits = np.concatenate([np.packbits(block, axis=1) for block in _black_and_white(file, stream, shape)])
    return PackedImages(torch.from_numpy(bits), shape[1:])


def _black_and_white(file: Path, stream: IO[bytes], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    pixels = shape[1] * shape[2]
    for start in range(0, shape[0], BLOCK):
        rows = min(BLOCK, shape[0] - start)
        block = np.frombuffer(stream.read(rows * pixels), np.uint8).reshape(rows, pixels)
        if block.max() > 1:
            raise DataError(f"expected `imgs` in {file} to hold 0 and 1, got up to {block.max()}")
        yield block


def read_shapes3d(file: Path, factors: Factors) -> Iterator[np.ndarray]:
    """The images of an HDF5 file of 3D Shapes' form, in blocks (n, 3, 64, 64), in the order of the factors.

    The file holds ``images``, uint8, shape (N, 64, 64, 3), one for each combination of the factors, and ``labels``,
    shape (N, F), which state the order. Requires h5py.

    Raises:
        DataError: h5py is not installed, or the file is damaged or has another form.

    Example:

        >>> next(read_shapes3d(Path("absent.h5"), SHAPES3D))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.DataError: ...
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"h5py, which reads {file.name}, cannot be imported ({error}); install it: pip install 'ppvae[shapes3d]'"
        ) from error
    try:
        with h5py.File(file, "r") as arrays:
            images, labels = arrays["images"], arrays["labels"]
            _check_form(file, images, labels, factors)
            ranks = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in labels[()].T]
            _check_order(file, "labels", np.stack(ranks, -1), factors)
            for start in range(0, len(images), BLOCK):
                yield images[start : start + BLOCK].transpose(0, 3, 1, 2)
    except DataError:
        raise
    except Exception as error:  # h5py and HDF5 raise errors of many kinds
        raise damaged(file, error) from error


def _check_form(file: Path, images: Any, labels: Any, factors: Factors) -> None:
    expected = (len(factors), 64, 64, 3)
    if tuple(images.shape) != expected or images.dtype != np.uint8:
        raise DataError(f"expected `images` in {file} as uint8 {expected}, got {images.dtype} {tuple(images.shape)}")
    if tuple(labels.shape) != (len(factors), len(factors.names)):
        raise DataError(
            f"expected `labels` in {file} of shape {(len(factors), len(factors.names))}, got {tuple(labels.shape)}"
        )


def _check_order(file: Path, name: str, values: np.ndarray, factors: Factors) -> None:
    expected: Tensor = factors.values(torch.arange(len(factors)))
    if values.shape != tuple(expected.shape) or not np.array_equal(values, expected.numpy()):
        raise DataError(
            f"expected `{name}` in {file} to go through the {len(factors)} combinations of {', '.join(factors.names)}, "
            "the last varying fastest; get the published file again"
        )

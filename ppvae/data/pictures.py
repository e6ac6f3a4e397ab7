"""Picture files as arrays of eight bits a channel.

A picture file can make a library start another program (PostScript), wait for ever (a pipe), fill the memory (a small
file of huge size) or convert in silence (16 bits a channel). All of these raise :class:`~ppvae.errors.DataError`.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppvae.data.files import is_file
from ppvae.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # Pillow tries no other, whatever a file is named
BLOCK = 1000  # pictures decoded at once
MOST_PIXELS = 2**26  # of one picture: 200 MB in colour
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_DEPTH = 24  # the byte of a PNG file that tells the bits a channel

Box = tuple[int, int, int, int]
Size = tuple[int, int]


def decoded(files: Sequence[Path], size: Size | None, colour: bool, box: Box | None = None) -> Iterator[np.ndarray]:
    """The pictures one by one, decoded in parallel; see :func:`decode`.

    Example:

        >>> import tempfile
        >>> from PIL import Image
        >>> file = Path(tempfile.mkdtemp(), "a.png")
        >>> Image.new("L", (4, 3)).save(file)
        >>> [picture.shape for picture in decoded([file], size=None, colour=False)]
        [(3, 4)]
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BLOCK):
            yield from pool.map(lambda file: decode(file, size, colour, box), files[start : start + BLOCK])


def decode(file: Path, size: Size | None = None, colour: bool = True, box: Box | None = None) -> np.ndarray:
    """A PNG or JPEG picture as uint8, shape (3, H, W) in colour, else (H, W).

    It is turned as its camera noted (EXIF), then cropped to ``box`` (left, top, right, bottom) and scaled to ``size``
    (H, W). Transparency is dropped. Colour profiles are not applied. Of a JPEG with several pictures, as some cameras
    make, the first is taken, which is the main one.

    Raises:
        DataError: the file is not such a picture, or is animated, deeper than eight bits a channel or too large.

    Example:

        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 2), (255, 0, 51)).save(f"{folder}/a.png")
        ...     decode(Path(folder, "a.png"))[:, 0, 0].tolist()
        [255, 0, 51]
    """
    from PIL import Image, ImageOps  # imported late

    if not is_file(file):
        raise DataError(f"{file} is not there")
    try:
        with file.open("rb") as stream, Image.open(stream, formats=FORMATS) as picture:
            _require_plain(file, picture)
            turned = ImageOps.exif_transpose(picture).convert("RGB" if colour else "L")
            cropped = turned if box is None else turned.crop(box)  # `resize` with a box reads pixels beyond its border
            scaled = cropped if size is None else cropped.resize(size[::-1], Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds
        raise DataError(
            f"{file} cannot be read as a PNG or JPEG picture ({type(error).__name__}: {error}); convert or remove it"
        ) from error
    pixels = np.asarray(scaled)
    return pixels.transpose(2, 0, 1) if colour else pixels


def _require_plain(file: Path, picture: "Image") -> None:
    """Raise DataError, before the pixels are read, for a picture that cannot be given as it is."""
    with file.open("rb") as stream:
        head = stream.read(_DEPTH + 1)
    if picture.width * picture.height > MOST_PIXELS:
        sides = f"{picture.width}x{picture.height}"
        raise DataError(f"expected at most {MOST_PIXELS} pixels in {file}, got {sides}; scale it down")
    if picture.format == "PNG" and head[_DEPTH] > 8:
        raise DataError(f"expected at most eight bits a channel in {file}, got {head[_DEPTH]}; convert it")
    if picture.mode not in _MODES:
        raise DataError(f"expected grey values or red, green and blue in {file}, got mode {picture.mode}; convert it")
    if picture.format == "PNG" and getattr(picture, "n_frames", 1) > 1:
        raise DataError(f"expected one picture in {file}, got an animation; save its frames as files")

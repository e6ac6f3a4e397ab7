"""Data sets by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ppvae.data.dataset import Binarization, Dataset, Splits
from ppvae.data.downloads import of_torchvision
from ppvae.data.factors import Factors
from ppvae.data.files import data_root
from ppvae.data.grids import SHAPES3D, dsprites, shapes3d, sprites
from ppvae.data.images import celeba
from ppvae.data.parts import Part, hold_out
from ppvae.data.small import digits, freyfaces
from ppvae.data.sprites import SPRITES
from ppvae.errors import DataError


def load(
    name: str,
    binarization: Binarization | None = None,
    validation: int | None = None,
    root: str | Path | None = None,
) -> Splits:
    """A data set as training, validation and test part.

    Args:
        name: grey images with labels: "mnist", "fashion_mnist" (60,000 + 10,000 of 28x28; downloaded if absent),
            "digits" (scikit-learn's 1,797 of 8x8, embedded).
            Without labels: "freyfaces" (1,965 grey frames of 28x20 of a film of one face, of which 200 are the test
            part; the file ``freyfaces.npz``, array ``images``), "celeba" (202,599 faces in colour, (3, 64, 64), the
            square of 148 in the middle scaled down; pictures and lists in the folder ``celeba``).
            Grids of factors: "sprites" (dSprites by formula, 64x64, :class:`~ppvae.data.sprites.Sprites`),
            "dsprites" (its published file), "shapes3d" (the file ``3dshapes.h5``; colour, (3, 64, 64); needs h5py).
        binarization: "dynamic", "fixed" or "none"; see :class:`Dataset`. If None, "dynamic" for grey images with
            labels and "none" for the others.
        validation: rows of the training part to hold out, 0 for none; by default 10,000 of MNIST and Fashion-MNIST,
            257 of the digits, 200 of Frey faces, 19,867 of CelebA (its own validation part; always the last rows, as
            the parts share no person), none of the grids.
        root: folder that holds the data; default ``$PPVAE_DATA``, else ``~/.cache/ppvae``; ``~`` is the home folder.

    The training part of a grid is all of it, with ``factors``, as the field trains and scores on the whole set; its
    test part is 10,000 of the same images, drawn by a fixed seed. Held-out rows would leave the grid incomplete and
    raise DataError.

    Frey faces are consecutive frames and are split at random, as in the literature: a test frame resembles training
    frames closely.

    Raises:
        DataError: the name is unknown; a file is damaged, or is absent and not downloaded; a download fails.

    Example:

        >>> splits = load("digits")
        >>> splits.train, len(splits.validation), len(splits.test)
        (Dataset('digits', 1000 rows of shape (8, 8), y), 257, 540)
    """
    if not isinstance(name, str) or name not in _SOURCES:
        raise DataError(f"expected a data set out of {', '.join(NAMES)}; got {name!r}")
    source = _SOURCES[name]
    rows = source.validation if validation is None else validation
    if source.factors is not None and rows:
        raise DataError(
            f'expected validation 0 or None for "{name}", whose training part is the whole grid, got {rows}; '
            "take rows of it yourself: data.take(index)"
        )
    (x, y), test = source.read(data_root(root))
    parts = {"train": (x, y)} if source.factors is not None else hold_out(x, y, rows, source.shuffled)
    return Splits(
        **{
            part: source.dataset(name, columns, binarization, seed, source.factors if part == "train" else None)
            for seed, (part, columns) in enumerate({**parts, "test": test}.items())
        }
    )


@dataclass(frozen=True)
class _Source:
    """A data set's reader (folder -> training part, test part), its classes, and the defaults of :func:`load`."""

    read: Callable[[Path], tuple[Part, Part]]
    validation: int = 0
    binarization: Binarization = "none"
    num_classes: int | None = None
    factors: Factors | None = None
    shuffled: bool = True

    def dataset(
        self, name: str, part: Part, binarization: Binarization | None, seed: int, factors: Factors | None
    ) -> Dataset:
        """One part of the data; every source gives grey values 0..255, however dark a part is."""
        binarization = self.binarization if binarization is None else binarization
        data = Dataset(
            *part,
            num_classes=self.num_classes,
            binarization="none" if binarization == "fixed" else binarization,
            levels=256,
            name=name,
            factors=factors,
        )
        return data.binarized(seed) if binarization == "fixed" else data


_SOURCES = {
    "mnist": _Source(of_torchvision("MNIST"), 10_000, "dynamic", num_classes=10),
    "fashion_mnist": _Source(of_torchvision("FashionMNIST"), 10_000, "dynamic", num_classes=10),
    "digits": _Source(digits, 257, "dynamic", num_classes=10),
    "freyfaces": _Source(freyfaces, 200),
    "celeba": _Source(celeba, 19_867, shuffled=False),
    "sprites": _Source(sprites, factors=SPRITES),
    "dsprites": _Source(dsprites, factors=SPRITES),
    "shapes3d": _Source(shapes3d, factors=SHAPES3D),
}
NAMES = tuple(_SOURCES)

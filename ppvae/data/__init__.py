"""Data sets as tensors: loading, splits, hiding labels, binarization, rendering."""

from ppvae.data.conversion import as_dataset
from ppvae.data.dataset import Dataset, Splits
from ppvae.data.factors import Factors
from ppvae.data.images import image_folder
from ppvae.data.labels import hide_labels
from ppvae.data.lazy import LazyImages, MappedImages
from ppvae.data.loading import NAMES, load
from ppvae.data.sprites import Sprites

__all__ = [
    "NAMES",
    "Dataset",
    "Factors",
    "LazyImages",
    "MappedImages",
    "Splits",
    "Sprites",
    "as_dataset",
    "hide_labels",
    "image_folder",
    "load",
]

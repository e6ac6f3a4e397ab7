"""Data sets as tensors: loading, splits, the choice of labelled rows, binarization."""

from ppvae.data.dataset import Dataset, Splits
from ppvae.data.labels import hide_labels
from ppvae.data.loading import NAMES, load

__all__ = ["NAMES", "Dataset", "Splits", "hide_labels", "load"]

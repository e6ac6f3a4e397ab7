"""Columns of data: tensors unchanged, numpy arrays as tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import ContractError, PpvaeError


def as_column(
    value: Any, name: str, dtype: torch.dtype | None = None, error: type[PpvaeError] = ContractError
) -> Tensor:
    """A tensor as it is, or a numpy array as a tensor.

    Floating numpy arrays become ``dtype``, or torch's default type (float32 unless it was set): numpy's own default,
    float64, is rarely chosen on purpose. Unsigned integers of more than 8 bits become signed ones, which torch can
    compute with. An array that already has the right type shares its memory, as ``torch.from_numpy`` does.

    Args:
        value: the column.
        name: what messages call it.
        dtype: floating type for arrays; tensors keep theirs.
        error: raised where the value is neither, or an array of other things than numbers.

    Example:

        >>> import numpy as np
        >>> import torch
        >>> as_column(np.zeros(3), "x").dtype, as_column(torch.zeros(3).double(), "x").dtype
        (torch.float32, torch.float64)
    """
    if isinstance(value, np.ndarray):
        return _signed(_from_numpy(value, name, dtype, error))
    if not isinstance(value, Tensor):
        raise error(
            f"expected {name} to be a tensor or a numpy array, got {type(value).__name__}; convert it, e.g. by "
            "numpy.asarray"
        )
    if value.layout != torch.strided or value.is_complex():
        raise error(f"expected {name} to be a dense tensor of real numbers, got {value.layout} of {value.dtype}")
    return _signed(value)


def _from_numpy(value: np.ndarray, name: str, dtype: torch.dtype | None, error: type[PpvaeError]) -> Tensor:
    if isinstance(value, np.ma.MaskedArray):
        raise error(
            f"expected {name} without a mask, got a masked array; mark missing elements of floating data by NaN: "
            "array.filled(numpy.nan)"
        )
    if value.dtype.kind not in "biuf":
        raise error(f"expected {name} to hold real numbers, got an array of {value.dtype}")
    long_double = value.dtype.kind == "f" and value.dtype.itemsize > 8
    native = np.dtype(np.float64) if long_double else value.dtype.newbyteorder("=")
    tensor = torch.from_numpy(np.require(value, native, ["C", "W", "E"]))
    return tensor.to(dtype or torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _signed(column: Tensor) -> Tensor:
    signed = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}.get(column.dtype)
    return column if signed is None else column.to(signed)

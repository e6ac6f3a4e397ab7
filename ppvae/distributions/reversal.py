"""The reversal of the order of a vector's elements, as a transform between the maps of a flow."""

from pyro import distributions as dist
from torch import Tensor


class Reversal(dist.transforms.Transform):
    """z <- (z_D, ..., z_1), for vectors of any length. It keeps its last draw, which is then scored without an inverse.

    Example:

        >>> import torch
        >>> Reversal()(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 2., 1.])
    """

    domain = codomain = dist.constraints.real_vector
    bijective = True
    sign = 1

    def __init__(self) -> None:
        super().__init__(cache_size=1)

    def _call(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    _inverse = _call

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero, shape (...)."""
        return x.new_zeros(x.shape[:-1])

"""Half precision in the matrix products of a network only."""

from typing import Any

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """A network with its products in a shorter floating type (``torch.autocast``), and a float32 result.

    Densities are sums over hundreds of elements and need float32: a whole pair under ``torch.autocast`` is wrong by
    nats. Parameters, gradients and draws stay in float32. The output is rounded: its error is about 2^-9 of the sizes
    that were added up for it in bfloat16. For a posterior mean of 2 this is .004 to .008, which matters if the scale is
    as small. Measure the effect on a score before you rely on it.

    Args:
        network: module of tensors (..., *in_shape) -> (..., *out_shape).
        dtype: type of the products. bfloat16 needs no scaling of the loss, float16 does.

    Example:

        >>> Autocast(nn.Linear(4, 3))(torch.zeros(2, 4)).dtype
        torch.float32
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        """The network's output for these inputs, in float32."""
        autocast: Any = torch.autocast(inputs[0].device.type, self.dtype)
        with autocast:
            output = self.network(*inputs)
        return output.float()

"""Half precision where it pays: in the matrix products of a network, and nowhere else."""

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """A network whose products run in a shorter floating type under ``torch.autocast``, with a float32 result.

    Densities are summed over hundreds of elements, so they must not be: a whole pair under ``torch.autocast`` loses
    nats. Parameters, gradients and what is drawn stay in float32. What the network gives is rounded: its error is about
    2^-9 of the sizes that were added up for it in bfloat16, of a posterior's mean of 2 some .004 to .008, which counts
    where its scale is as small. What it does to a score is for the user to look at.

    Args:
        network: module of tensors (..., *in_shape) -> (..., *out_shape).
        dtype: of the products; bfloat16 needs no scaling of the loss, float16 does.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, self.dtype):
            output = self.network(*inputs)
        return output.float()

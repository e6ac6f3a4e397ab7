"""A linear decoder with atoms of unit length."""

import math

import torch
from torch import Tensor, nn

from ppvae.nn.mlp import Shape, as_shape, flatten_event, unflatten


class Dictionary(nn.Module):
    """b + sum_d z_d a_d with |a_d| = 1: (..., code_dim) -> (..., *out_shape).

    A penalty on the size of a code (``CodeNorm``, ``ContractivePenalty``) means something with it: with another
    decoder the code can shrink while the decoder's weights grow, which changes the penalty and not the reconstruction.
    The length of the parameter's columns changes nothing, so that a penalty on the decoder's weights has no effect.

    Args:
        code_dim: length of z.
        out_shape: event shape of the output, or its length.

    Source: Olshausen and Field 1997, "Sparse Coding with an Overcomplete Basis Set" (atoms of bounded length).

    Example:

        >>> decoder = Dictionary(3, (8, 8))
        >>> decoder(torch.zeros(5, 3)).shape, decoder.atoms().detach().norm(dim=0).round(decimals=3)
        (torch.Size([5, 8, 8]), tensor([1., 1., 1.]))
    """

    def __init__(self, code_dim: int, out_shape: Shape):
        super().__init__()
        self.code_dim, self.out_shape = code_dim, as_shape(out_shape)
        size = math.prod(self.out_shape)
        self.weight = nn.Parameter(torch.randn(size, code_dim) / size**0.5)
        self.bias = nn.Parameter(torch.zeros(size))

    def atoms(self) -> Tensor:
        """The atoms a_d as columns, shape (product of out_shape, code_dim)."""
        return self.weight / self.weight.norm(dim=0)

    def forward(self, z: Tensor) -> Tensor:
        """The output for z of shape (..., code_dim)."""
        return unflatten(flatten_event(z, (self.code_dim,)) @ self.atoms().T + self.bias, self.out_shape)

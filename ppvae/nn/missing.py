"""Networks of data with missing elements."""

import torch
from torch import Tensor, nn


class FillMissing(nn.Module):
    """A network of the data with zeros for missing elements (NaN), and of a mask that is 1 where they are observed.

    The two are concatenated along the dimension after the batch. Images without a channel dimension get one. So the
    network takes twice as many features or channels:

        data (B, D)           network of (B, 2 D)
        data (B, H, W)        network of (B, 2, H, W)
        data (B, C, H, W)     network of (B, 2 C, H, W)

    No NaN of the data reaches the network or a gradient.

    Args:
        network: module of the concatenation, which takes conditions after it if there are some.

    Raises ValueError for data of other dimensions.

    Source: Mattei and Frellsen 2019, "MIWAE" (zeros); Collier et al. 2020, "VAEs in the Presence of Missing Data"
    (zeros and the mask).

    Example:

        >>> x = torch.tensor([[0.5, torch.nan]])
        >>> FillMissing(nn.Identity())(x)
        tensor([[0.5000, 0.0000, 1.0000, 0.0000]])
        >>> from ppvae.nn import ConvEncoder
        >>> encoder = FillMissing(ConvEncoder((2, 28, 28), channels=[4, 8], out_features=6))
        >>> encoder(torch.full((3, 28, 28), torch.nan)).shape
        torch.Size([3, 6])
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        """The network's output for x of shape (B, D), (B, H, W) or (B, C, H, W), and for conditions as they are."""
        if x.dim() not in (2, 3, 4):
            raise ValueError(f"expected x of shape (B, D), (B, H, W) or (B, C, H, W), got {tuple(x.shape)}")
        observed = (~x.isnan()).to(x.dtype)
        parts = [x.nan_to_num(0.0, torch.inf, -torch.inf), observed]
        return self.network(torch.cat([part.unsqueeze(1) if x.dim() == 3 else part for part in parts], 1), *conditions)

"""Guides for several layers of latent vectors, z_1 next to x.

    bottom-up:  q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1})
    top-down:   q(z_L | h_L) q(z_{L-1} | z_L, h_{L-1}) ... q(z_1 | z_2, h_1),   h_l = up_l(h_{l-1}),  h_0 = x

Source: Burda et al. 2016 (bottom-up); Sonderby et al. 2016, "Ladder Variational Autoencoders" (top-down).
"""

from collections.abc import Sequence

import pyro
import torch
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.contract import Guide


class BottomUpGuide(Guide):
    """q(z_1 | x) q(z_2 | z_1) ... with diagonal Gaussians; sites "z1" to "zL". A label y is ignored.

    Args:
        encoders: the network of x to (B, 2 * length of z_1), then those of z_l to (..., 2 * length of z_{l+1}).

    Example:

        >>> guide = BottomUpGuide([nn.Linear(5, 2 * 3), nn.Linear(3, 2 * 2)])
        >>> guide(torch.zeros(4, 5))  # inside a Pyro trace it draws z1 of length 3, then z2 of length 2
    """

    def __init__(self, encoders: Sequence[nn.Module]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw sites "z1" to "zL" for x of shape (B, *event_shape)."""
        below = x
        with pyro.plate("data", len(x)):
            for layer, encoder in enumerate(self.encoders, 1):
                below = pyro.sample(f"z{layer}", diagonal_normal(encoder(below)))


class TopDownGuide(Guide):
    """q(z_L | h_L) ... q(z_1 | z_2, h_1) with diagonal Gaussians; sites "z1" to "zL". A label y is ignored.

    Args:
        up: networks of x to h_1 (B, features), of h_1 to h_2, and so on, L in all.
        heads: for l = 1 to L - 1 the network of [z_{l+1}, h_l] to (..., 2 * length of z_l); the last one of h_L to
            (B, 2 * length of z_L).

    Raises ValueError for another number of heads than of networks up.

    Example:

        >>> up, heads = [nn.Linear(5, 8), nn.Linear(8, 8)], [nn.Linear(2 + 8, 2 * 3), nn.Linear(8, 2 * 2)]
        >>> TopDownGuide(up, heads)(torch.zeros(4, 5))  # inside a Pyro trace it draws z2 of length 2, then z1
    """

    def __init__(self, up: Sequence[nn.Module], heads: Sequence[nn.Module]):
        super().__init__()
        if len(up) != len(heads):
            raise ValueError(f"expected as many heads as networks up, got {len(heads)} and {len(up)}")
        self.up, self.heads = nn.ModuleList(up), nn.ModuleList(heads)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw sites "zL" to "z1" for x of shape (B, *event_shape)."""
        features = [x]
        for network in self.up:
            features.append(network(features[-1]))
        top = len(self.heads)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{top}", diagonal_normal(self.heads[-1](features[top])))
            for layer in range(top - 1, 0, -1):
                h = features[layer].expand(*z.shape[:-1], -1)
                z = pyro.sample(f"z{layer}", diagonal_normal(self.heads[layer - 1](torch.cat([z, h], -1))))

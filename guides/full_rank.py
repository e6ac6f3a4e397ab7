"""A Gaussian with a full covariance.

q(z | x) = N(loc(x), L(x) L(x)'),   L lower triangular with a positive diagonal

Source: Kingma and Welling 2019, "An Introduction to Variational Autoencoders", section 2.5.1.
"""

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.contract import AmortizedGuide


class FullRankGaussian(AmortizedGuide):
    """Gaussian q(z | x) with every correlation; site "z". A label y that is no condition is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, FullRankGaussian.num_features(latent_dim)): means, logs of L's
            diagonal, and the rows of L below it.
        latent_dim: length of z.
        conditions: names of what q is given besides x, "y" for the label; the encoder takes them after x.

    Raises ValueError for an encoder with another number of features.

    Example:

        >>> guide = FullRankGaussian(nn.Linear(5, FullRankGaussian.num_features(3)), latent_dim=3)
        >>> guide.distribution(guide.encode(torch.zeros(4, 5))).covariance_matrix.shape
        torch.Size([4, 3, 3])
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, conditions: str | Sequence[str] = ()):
        super().__init__(encoder, conditions)
        self.latent_dim = latent_dim

    @staticmethod
    def num_features(latent_dim: int) -> int:
        """2 D + D (D - 1) / 2 for z of length D."""
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def distribution(self, features: Tensor) -> dist.MultivariateNormal:
        """q(z; features), batch shape (B,)."""
        dim, expected = self.latent_dim, self.num_features(self.latent_dim)
        if features.shape[-1] != expected:
            raise ValueError(f"expected {expected} features for z of length {dim}, got {features.shape[-1]}")
        loc, log_diagonal, below = features.split([dim, dim, expected - 2 * dim], -1)
        row, column = torch.tril_indices(dim, dim, -1, device=features.device)
        scale_tril = torch.diag_embed(log_diagonal.exp())
        scale_tril[..., row, column] = below
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)

"""A mixture of diagonal Gaussians, for posteriors with several modes.

    q(z | x) = sum_c pi_c(x) N(z; loc_c(x), diag(scale_c(x)^2)),   [log pi, loc, log scale] = encoder(x)

Source: Morningstar et al. 2021, "Automatic Differentiation Variational Inference with Mixtures"; see
:mod:`ppvae.distributions.mixtures` for the gradient.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ppvae.distributions.mixtures import DiagonalMixture
from ppvae.engine.contract import AmortizedGuide


class MixtureGuide(AmortizedGuide):
    """Mixture of diagonal Gaussians q(z | x); site "z". A label y that is no condition is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, MixtureGuide.num_features(latent_dim, components)): logits of the
            components, then all means, then the logs of all standard deviations.
        latent_dim: length of z.
        components: number of Gaussians.
        conditions: names of what q is given besides x, "y" for the label; the encoder takes them after x.

    Raises ValueError for sizes below 1, and for an encoder with another number of features.

    Example:

        >>> import torch
        >>> guide = MixtureGuide(nn.Linear(5, MixtureGuide.num_features(2, 3)), latent_dim=2, components=3)
        >>> guide.distribution(guide.encode(torch.zeros(4, 5))).sample().shape
        torch.Size([4, 2])
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, components: int, conditions: str | Sequence[str] = ()):
        super().__init__(encoder, conditions)
        if min(latent_dim, components) < 1:
            raise ValueError(f"expected latent_dim and components of at least 1, got {latent_dim} and {components}")
        self.latent_dim, self.components = latent_dim, components

    @staticmethod
    def num_features(latent_dim: int, components: int) -> int:
        """C (1 + 2 D) for z of length D and C components."""
        return components * (1 + 2 * latent_dim)

    def distribution(self, features: Tensor) -> DiagonalMixture:
        """q(z; features), batch shape (B,)."""
        expected = self.num_features(self.latent_dim, self.components)
        if features.shape[-1] != expected:
            raise ValueError(f"expected {expected} features for {self.components} components, got {features.shape[-1]}")
        size = self.components * self.latent_dim
        logits, locs, log_scales = features.split([self.components, size, size], -1)
        shape = (self.components, self.latent_dim)
        return DiagonalMixture(logits, locs.unflatten(-1, shape), log_scales.unflatten(-1, shape).exp())

"""A mixture of diagonal Gaussians, for posteriors with several modes.

q(z | x) = sum_c pi_c(x) N(z; loc_c(x), diag(scale_c(x)^2))

The component is summed out of the density; draws are reparameterised by the mixture's own pathwise derivative.

Source: Morningstar et al. 2021, "Automatic Differentiation Variational Inference with Mixtures"; the derivative:
Jankowiak and Karaletsos 2019, "Pathwise Derivatives for Multivariate Distributions".
"""

from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.contract import AmortizedGuide


class MixtureGuide(AmortizedGuide):
    """Mixture of diagonal Gaussians q(z | x); site "z". A label y is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, components * (1 + 2 * latent_dim)): logits of the components, then
            all means, then the logs of all standard deviations.
        latent_dim: length of z, at least 2.
        components: number of Gaussians.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, components: int):
        super().__init__(encoder)
        if latent_dim < 2 or components < 1:
            raise ValueError(f"expected latent_dim >= 2 and components >= 1, got {latent_dim} and {components}")
        self.latent_dim, self.components = latent_dim, components

    @staticmethod
    def num_features(latent_dim: int, components: int) -> int:
        return components * (1 + 2 * latent_dim)

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        expected = self.num_features(self.latent_dim, self.components)
        if features.shape[-1] != expected:
            raise ValueError(f"expected {expected} features for {self.components} components, got {features.shape[-1]}")
        logits, locs, log_scales = features.split([self.components, *2 * [self.components * self.latent_dim]], -1)
        shape = (*features.shape[:-1], self.components, self.latent_dim)
        return dist.MixtureOfDiagNormals(locs.reshape(shape), log_scales.reshape(shape).exp(), logits)

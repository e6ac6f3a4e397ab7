"""A Gaussian with a diagonal covariance.

q(z | x) = N(loc(x), diag(scale(x)^2)),   [loc, log scale] = encoder(x)

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", appendix C.2.
"""

from pyro import distributions as dist
from torch import Tensor

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.contract import AmortizedGuide


class MeanFieldGaussian(AmortizedGuide):
    """Diagonal Gaussian q(z | x), or q(z | x, conditions); site "z". A label y that is no condition is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, 2 * latent_dim): means, then logs of standard deviations.
        conditions: names of what q is given besides x, "y" for the label; the encoder takes them after x.

    Example:

        >>> import torch
        >>> guide = MeanFieldGaussian(torch.nn.Linear(5, 2 * 3))
        >>> guide.distribution(guide.encode(torch.zeros(4, 5))).sample().shape
        torch.Size([4, 3])
    """

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        """q(z; features), batch shape (B,)."""
        return diagonal_normal(features)

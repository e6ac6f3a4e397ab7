"""A point mass: the deterministic code of an autoencoder.

q(z | x) = delta(z - encoder(x))

Source: Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks".
"""

from pyro import distributions as dist
from torch import Tensor

from ppvae.engine.contract import AmortizedGuide


class PointGuide(AmortizedGuide):
    """Point mass q(z | x) at the output of the encoder; site "z".

    With ``Reconstruction()`` the pair is an autoencoder. A point mass has no density: objectives and evaluators that
    weigh q (bounds, log p(x), gaps) raise ContractError. ``ppvae.features`` gives the codes, ``ppvae.reconstruct`` the
    reconstructions. ``ppvae.sample`` draws codes from the model's prior, which an autoencoder does not match; see
    :class:`ppvae.models.FullMixture` for a prior that is fitted to the codes.

    Args:
        encoder: network (B, *event_shape) -> (B, latent_dim); with conditions it takes them after x, in their order.
        conditions: names of the conditions, where "y" is the label; without it a label is ignored.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.models import GaussianVAE
        >>> model = GaussianVAE(torch.nn.Linear(2, 5), latent_dim=2, likelihood=ppvae.likelihoods.Gaussian(0.5**0.5))
        >>> guide, x = PointGuide(torch.nn.Linear(5, 2)), torch.randn(64, 5)
        >>> _ = ppvae.fit(model, guide, ppvae.Reconstruction(), x, epochs=1, progress=False)
        >>> ppvae.features(guide, x).shape, ppvae.reconstruct(model, guide, x).shape
        (torch.Size([64, 2]), torch.Size([64, 5]))
    """

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        """The point mass at the features, batch shape (B,)."""
        return dist.Delta(features).to_event(1)

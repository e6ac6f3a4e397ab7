"""Priors p(z) as objects: ``prior(like)`` gives a distribution over vectors, of the type and device of ``like``."""

import torch
from pyro import distributions as dist
from pyro.distributions.transforms import conditional_affine_autoregressive
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.engine.contract import AmortizedGuide


class StandardNormal(nn.Module):
    """N(0, I) over vectors of length ``dim``."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        return standard_normal(like, self.dim)


class MixtureOfGaussians(nn.Module):
    """sum_c pi_c N(loc_c, diag(scale_c^2)), all learned.

    Args:
        dim: length of z.
        components: number of Gaussians; their means are drawn from N(0, I) to begin with.

    Source: Dilokthanakul et al. 2016, "Deep Unsupervised Clustering with Gaussian Mixture VAEs".
    """

    def __init__(self, dim: int, components: int):
        super().__init__()
        self.locs = nn.Parameter(torch.randn(components, dim))
        self.log_scales = nn.Parameter(torch.zeros(components, dim))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        components = dist.Normal(self.locs, self.log_scales.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class VampPrior(nn.Module):
    """1/C sum_c q(z | u_c): the guide's own posteriors of learned pseudo-inputs, equally likely.

    The guide's parameters stay the guide's. They move the prior too: ``fit(train_model=False)`` does not hold it fixed,
    and a saved model needs its guide beside it.

    Args:
        guide: the guide that the model is trained with.
        pseudo_inputs: to begin with, shape (C, *event_shape), such as some training data; values in [0, 1].

    Source: Tomczak and Welling 2018, "VAE with a VampPrior", equation 9.
    """

    def __init__(self, guide: AmortizedGuide, pseudo_inputs: Tensor):
        super().__init__()
        if not isinstance(guide, AmortizedGuide) or not guide.can_score:
            raise ValueError(f"expected an AmortizedGuide that can score any value, got {type(guide).__name__}")
        self._guide = [guide]  # in a list, so that its parameters are not the model's too
        self.logits = nn.Parameter(pseudo_inputs.detach().clamp(0.01, 0.99).logit())

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        (guide,) = self._guide
        features = guide.encoder(self.logits.sigmoid())
        equal = dist.Categorical(logits=features.new_zeros(len(features)))
        return dist.MixtureSameFamily(equal, guide.distribution(features))


class AutoregressiveFlow(nn.Module):
    """N(0, I) through masked autoregressive maps: scored in one pass, drawn in one pass for each element of z.

    Args:
        dim: length of z, at least 2.
        steps: number of maps.
        hidden: width of each map's two hidden layers.

    Source: Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation"; as a prior: Chen et al.
    2017, "Variational Lossy Autoencoder".
    """

    def __init__(self, dim: int, steps: int = 2, hidden: int = 64):
        super().__init__()
        self.dim = dim
        self.maps = nn.ModuleList(
            conditional_affine_autoregressive(dim, 1, hidden_dims=[hidden, hidden]) for _ in range(steps)
        )

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        # A constant context: without one, Pyro's inverse starts from zeros of the default type, whatever z's type is.
        context = torch.ones(1, dtype=like.dtype, device=like.device)
        maps = [step.condition(context).inv for step in self.maps]
        return dist.TransformedDistribution(standard_normal(like, self.dim), maps)

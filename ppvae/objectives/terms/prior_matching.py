"""Divergences of the aggregate posterior q(z) = E_x q(z | x) from the prior p(z), read from draws alone."""

import torch
from torch import Tensor, nn

from ppvae.engine.particles import Particles
from ppvae.engine.player import Optimizer, Turn
from ppvae.nn.functional import softplus
from ppvae.objectives.base import Penalty
from ppvae.objectives.critics import Critic, critic_adam
from ppvae.objectives.draws import common_prior, draws, draws_of_all, prior, prior_draws, require_fixed
from ppvae.objectives.kernels import RBF, Kernel, mmd, stein_discrepancy
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class MaximumMeanDiscrepancy(Penalty):
    """weight MMD^2(q(z), p(z)), by its unbiased estimate from the batch and as many draws of the prior.

    A trainable prior must have reparameterised draws; a mixture does not.

    Part: "mmd/z".

    Args:
        weight: at least 0, or a schedule.
        kernel: such as ``RBF(scale)`` or ``InverseMultiquadratic(scales)``; ``RBF()`` if None.
        site: the latent.

    Source: Zhao, Song and Ermon 2019, "InfoVAE"; Tolstikhin et al. 2018, "Wasserstein Auto-Encoders".

    Example:

        >>> import ppvae
        >>> objective = ppvae.Reconstruction() + ppvae.MaximumMeanDiscrepancy(10.0)
    """

    label = "mmd"
    site: str

    def __init__(self, weight: float | Schedule, kernel: Kernel | None = None, site: str = "z"):
        require_weight("weight", weight)
        self.weight, self.kernel, self.site = weight, kernel or RBF(), site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted discrepancy, a scalar."""
        pair = draws(particles, self.site), prior_draws(particles, self.site)
        return value_at(self.weight, particles.step) * mmd(*pair, self.kernel).mean()


class SteinDiscrepancy(Penalty):
    """weight KSD^2(q(z), p(z)), the squared kernelised Stein discrepancy, by its unbiased estimate from the batch.

    It needs no draws of the prior, which must be one density for all data; its score grad log p(z) is taken by
    autodiff. (InfoVAE's Stein variant follows the Stein variational gradient instead, which is the gradient of no
    divergence in closed form.)

    Part: "stein/z".

    Args:
        weight: at least 0, or a schedule.
        kernel: as in :class:`MaximumMeanDiscrepancy`.
        site: the latent.

    Source: Liu, Lee and Jordan 2016, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests".

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.SteinDiscrepancy(10.0)
    """

    label = "stein"
    site: str

    def __init__(self, weight: float | Schedule, kernel: Kernel | None = None, site: str = "z"):
        require_weight("weight", weight)
        self.weight, self.kernel, self.site = weight, kernel or RBF(), site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted discrepancy, a scalar."""
        fn, value = common_prior(particles, self.site), particles.latent(self.site).value
        with torch.enable_grad():
            at = value if value.requires_grad else value.detach().requires_grad_()
            score = torch.autograd.grad(fn.log_prob(at).sum(), at, create_graph=True)[0]
        z = draws(particles, self.site)
        discrepancy = stein_discrepancy(z, score.reshape(z.shape), self.kernel).mean()
        return value_at(self.weight, particles.step) * discrepancy


class AdversarialDivergence(Penalty):
    """weight KL(q(z) || p(z)), with KL = E_q(z) D(z) by a critic D that learns log q(z) / p(z) from draws of both.

    With ``non_saturating`` the guide minimises E_q(z) softplus(D(z)) = - E log (1 - sigmoid(D)) instead, the loss of
    the adversarial autoencoder and of generative adversarial networks, which minimises another divergence.
    The prior must be fixed: the critic gives it no gradient.

    Part: "adversarial/z".

    Args:
        weight: at least 0, or a schedule.
        latent_dim: D, length of z.
        site: the latent.
        non_saturating: which of the two losses.
        critic: network (..., latent_dim) -> (..., 1); five layers of 1,000 units if None.
        optimizer: of the critic.

    Source: Makhzani et al. 2016, "Adversarial Autoencoders"; Mescheder, Nowozin and Geiger 2017, "Adversarial
    Variational Bayes" (the density ratio).

    Example:

        >>> from torch import nn
        >>> import ppvae
        >>> term = ppvae.AdversarialDivergence(1.0, latent_dim=2, critic=nn.Linear(2, 1))
        >>> [player.name for player in (ppvae.Reconstruction() + term).players]
        ['critic/z']
    """

    label = "adversarial"
    site: str

    def __init__(
        self,
        weight: float | Schedule,
        latent_dim: int = 10,
        site: str = "z",
        non_saturating: bool = False,
        critic: nn.Module | None = None,
        optimizer: Optimizer = critic_adam,
    ):
        require_weight("weight", weight)
        self.weight, self.site, self.non_saturating = weight, site, non_saturating
        self.critic = PriorCritic(critic, latent_dim, site)
        self.players = (self.critic.player(optimizer),)

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted estimate of each datum, (B,), averaged over particles."""
        z = draws(particles, self.site)
        require_fixed(prior(particles, self.site), z, self.site, "MaximumMeanDiscrepancy or SteinDiscrepancy")
        ratio = self.critic.log_ratio(z)
        ratio = softplus(ratio) if self.non_saturating else ratio
        return value_at(self.weight, particles.step) * ratio.mean(0)


class PriorCritic(Critic):
    """D(z) = log q(z) / p(z).

    Example:

        >>> import torch
        >>> PriorCritic(torch.nn.Linear(2, 1), latent_dim=2).log_ratio(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def loss(self, turn: Turn) -> Tensor:
        """Logistic loss of the turn's draws against draws of the prior."""
        parts, site = turn.particles, self.site
        return self.logistic_loss(draws_of_all(parts, site), draws_of_all(parts, site, of=prior_draws))

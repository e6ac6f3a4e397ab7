"""Divergences of the aggregate posterior q(z) = E_x q(z | x) from the prior p(z), read from draws alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppvae.engine.particles import Particles
from ppvae.objectives.base import Regulariser
from ppvae.objectives.critics import Critic, Draws, Optimizer, critic_adam
from ppvae.objectives.draws import draws, draws_of_all, prior, prior_draws, require_fixed
from ppvae.objectives.kernels import RBF, Kernel, mmd, stein_discrepancy
from ppvae.objectives.schedules import Schedule, now, require_weight


class MaximumMeanDiscrepancy(Regulariser):
    """weight MMD^2(q(z), p(z)), by its unbiased estimate from the batch and as many draws of the prior.

    A prior that learns must have reparameterised draws, which a mixture has not.

    Args:
        weight: at least 0, or a schedule.
        kernel: such as ``RBF(scale)`` or ``InverseMultiquadratic(scales)``; ``RBF()`` if None.
        site: the latent.

    Source: Zhao, Song and Ermon 2019, "InfoVAE"; Tolstikhin et al. 2018, "Wasserstein Auto-Encoders".
    """

    reparameterised = over_batch = True

    def __init__(self, weight: float | Schedule, kernel: Kernel | None = None, site: str = "z"):
        require_weight("weight", weight)
        self.weight, self.kernel, self.site = weight, kernel or RBF(), site

    def penalty(self, particles: Particles) -> Tensor:
        pair = draws(particles, self.site), prior_draws(particles, self.site)
        return now(self.weight, particles) * mmd(*pair, self.kernel).mean()


class SteinDiscrepancy(Regulariser):
    """weight KSD^2(q(z), p(z)), the squared kernelised Stein discrepancy, by its unbiased estimate from the batch.

    No draws of the prior are made; its score grad log p(z) is taken by autodiff. (InfoVAE's Stein variant follows the
    Stein variational gradient instead, which is no gradient of a divergence that could be written down.)

    Args:
        weight: at least 0, or a schedule.
        kernel: as in :class:`MaximumMeanDiscrepancy`.
        site: the latent.

    Source: Liu, Lee and Jordan 2016, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests".
    """

    reparameterised = over_batch = True

    def __init__(self, weight: float | Schedule, kernel: Kernel | None = None, site: str = "z"):
        require_weight("weight", weight)
        self.weight, self.kernel, self.site = weight, kernel or RBF(), site

    def penalty(self, particles: Particles) -> Tensor:
        fn, value = prior(particles, self.site), particles.latent(self.site).value
        with torch.enable_grad():
            at = value if value.requires_grad else value.detach().requires_grad_()
            score = torch.autograd.grad(fn.log_prob(at).sum(), at, create_graph=True)[0]
        z = draws(particles, self.site)
        return now(self.weight, particles) * stein_discrepancy(z, score.reshape(z.shape), self.kernel).mean()


class AdversarialDivergence(Regulariser):
    """weight KL(q(z) || p(z)), with KL = E_q(z) D(z) by a critic D that learns log q(z) / p(z) from draws of both.

    With ``non_saturating`` the guide minimises E_q(z) softplus(D(z)) = - E log (1 - sigmoid(D)) instead, the loss of
    the adversarial autoencoder, least under a divergence of its own; it is that of generative adversarial networks.
    The prior must be fixed: the critic gives it no gradient.

    Args:
        weight: at least 0, or a schedule.
        latent_dim: D, length of z.
        site: the latent.
        non_saturating: which of the two.
        critic: network (..., latent_dim) -> (..., 1); five layers of 1,000 units if None.
        optimizer: of the critic.

    Source: Makhzani et al. 2016, "Adversarial Autoencoders"; Mescheder, Nowozin and Geiger 2017, "Adversarial
    Variational Bayes" (the density ratio).
    """

    reparameterised = over_batch = True

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
        self.adversary = PriorCritic(critic, latent_dim, optimizer, site)

    def penalty(self, particles: Particles) -> Tensor:
        z = draws(particles, self.site)
        require_fixed(prior(particles, self.site), z, self.site, "MaximumMeanDiscrepancy or SteinDiscrepancy")
        ratio = self.adversary.log_ratio(z)
        ratio = nn.functional.softplus(ratio) if self.non_saturating else ratio
        return now(self.weight, particles) * ratio.mean(0)


class PriorCritic(Critic):
    """D(z) = log q(z) / p(z)."""

    def loss(self, parts: Sequence[Particles], other: Sequence[Draws] = ()) -> Tensor:
        return self.logistic_loss(draws_of_all(parts, self.site), draws_of_all(parts, self.site, of=prior_draws))

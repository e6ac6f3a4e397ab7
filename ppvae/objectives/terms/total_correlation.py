"""Total correlation of the aggregate posterior, TC = KL(q(z) || prod_d q(z_d)), by a critic and from the batch."""

import operator
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.distributions.aggregate import log_joint_and_marginals, stratified, weighted
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.particles import Particles
from ppvae.nn import MLP
from ppvae.objectives.base import Regulariser
from ppvae.objectives.critics import Critic, Draws, Optimizer, critic_adam
from ppvae.objectives.draws import cross_log_prob, draws, draws_of_all, factors, prior
from ppvae.objectives.schedules import Schedule, now, require_weight
from ppvae.objectives.terms.kl import weighed_beside


class TotalCorrelation(Regulariser):
    """gamma TC, with TC = E_q(z) D(z) by a critic D that learns log q(z) / prod_d q(z_d).

    The critic is trained on draws for one batch against draws for another whose elements are permuted over that
    batch, each element on its own. It reads draws alone, so that any guide will do. The critic's first weights come
    from torch's global random state (``torch.manual_seed``), as every network's do.

    Args:
        gamma: at least 0, or a schedule.
        latent_dim: D, length of z.
        site: the latent.
        critic: network (..., latent_dim) -> (..., 1); five layers of 1,000 units if None.
        optimizer: of the critic.

    Source: Kim and Mnih 2018, "Disentangling by Factorising", algorithm 1 (there with two logits, whose difference
    is D).
    """

    reparameterised = over_batch = True

    def __init__(
        self,
        gamma: float | Schedule,
        latent_dim: int = 10,
        site: str = "z",
        critic: nn.Module | None = None,
        optimizer: Optimizer = critic_adam,
    ):
        require_weight("gamma", gamma)
        self.gamma, self.site = gamma, site
        self.adversary = PermutationCritic(critic, latent_dim, optimizer, site)

    def penalty(self, particles: Particles) -> Tensor:
        return now(self.gamma, particles) * self.estimate(particles).mean(0)

    def estimate(self, particles: Particles) -> Tensor:
        """D(z) of each draw, shape (K, B), in nats; its mean is the critic's estimate of TC."""
        return self.adversary.log_ratio(draws(particles, self.site))


class PermutationCritic(Critic):
    """D(z) = log q(z) / prod_d q(z_d)."""

    needs_other = True

    def loss(self, parts: Sequence[Particles], other: Sequence[Draws]) -> Tensor:
        shuffled = permuted(torch.cat([part[self.site].flatten(0, -2) for part in other]))
        return self.logistic_loss(draws_of_all(parts, self.site), shuffled)


def permuted(z: Tensor) -> Tensor:
    """Each column of (B, D) in an order of its own: from draws of q(z), draws of prod_d q(z_d)."""
    return z.gather(0, torch.rand(z.shape, device=z.device).argsort(0))


def train_critic(
    z: Tensor,
    *,
    network: nn.Module | None = None,
    num_steps: int = 2000,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> PermutationCritic:
    """A critic of any pair's total correlation, trained on draws of its q(z) that stand still.

    For pairs that were not trained with one: ``disentanglement(..., critic=train_critic(z).log_ratio)``. What it finds
    is an estimate and no bound: it misses what is finer than it can draw, and learns a small set of draws by heart.

    Args:
        z: draws of q(z), shape (N, D), such as ``representation.drawn().codes``.
        network: (..., D) -> (..., 1); two layers of 256 units if None.
        num_steps: of Adam, whose rate falls to nothing in a straight line.
        batch_size: draws on either side of a step, with replacement.
        learning_rate: at the start.
        seed: of the batches and of the usual network's first weights; the caller's random state is left alone.

    Raises ValueError unless z is (N, D) and finite, with two draws and two steps at least.
    """
    if z.dim() != 2 or len(z) < 2 or not torch.isfinite(z).all() or min(num_steps, batch_size) < 2:
        raise ValueError(
            f"expected finite draws (N, D), of N, num_steps and batch_size at least 2, got {tuple(z.shape)}, "
            f"{num_steps} and {batch_size}"
        )
    with forked_randomness(z.device, seed):
        dim = z.shape[1]
        network = MLP(dim, [256, 256], 1, nn.SiLU).to(z) if network is None else network
        critic = PermutationCritic(network, dim, partial(torch.optim.Adam, lr=learning_rate))
        optimizer = critic.optimizer(critic.parameters())
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / num_steps, total_iters=num_steps)
        for _ in range(num_steps):
            rows = torch.randint(len(z), (2, batch_size), device=z.device)
            optimizer.zero_grad()
            critic.logistic_loss(z[rows[0]], permuted(z[rows[1]])).backward()
            optimizer.step()
            schedule.step()
    return critic


class TCDecomposition(Regulariser):
    """The three parts of the mean KL(q(z | x) || p(z)), each with a weight of its own; beside the ELBO, whose KL counts
    each of them once (another bound only where no weight is below 1: see :class:`KLWeight`):

        (alpha - 1) E log q(z | x) / q(z)            index-code mutual information
      + (beta - 1)  E log q(z) / prod_d q(z_d)       total correlation
      + (gamma - 1) E log prod_d q(z_d) / p(z)       dimension-wise KL

    with q(z) and q(z_d) estimated from the batch; see :mod:`ppvae.distributions.aggregate`, whose N is ``num_data``. Needs q(z | x)
    as a product over the elements of z, and so no critic.

    Args:
        num_data: N, rows (not batches) of the training set.
        alpha, beta, gamma: at least 0, or schedules.
        site: the latent.
        stratified_sampling: the stratified estimate; else the weighted one.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", equations 2 to 4.
    """

    reparameterised = reads_model = over_batch = True
    beside = ("elbo", "bound")
    sets = "rate"

    def __init__(
        self,
        num_data: int,
        alpha: float | Schedule = 1.0,
        beta: float | Schedule = 6.0,
        gamma: float | Schedule = 1.0,
        site: str = "z",
        stratified_sampling: bool = True,
    ):
        for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
            require_weight(name, value)
        self.num_data = operator.index(num_data)
        if self.num_data < 2:
            raise ValueError(f"expected num_data of at least 2, got {num_data}")
        self.site, self.stratified_sampling = site, stratified_sampling
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.beside = weighed_beside(alpha, beta, gamma)

    def penalty(self, particles: Particles) -> Tensor:
        parts = self.parts(particles)
        weights = (now(weight, particles) - 1 for weight in (self.alpha, self.beta, self.gamma))
        return sum(weight * part.mean(0) for weight, part in zip(weights, parts, strict=True) if weight)

    def parts(self, particles: Particles) -> tuple[Tensor, Tensor, Tensor]:
        """Mutual information, total correlation and dimension-wise KL of each draw, each (K, B), in nats.

        For any estimate of q(z) they add up to log q(z | x) - log p(z). As numbers those of the stratified estimate can
        be read; the weighted one's are for their gradients (see :mod:`ppvae.distributions.aggregate`)."""
        z, q = draws(particles, self.site), factors(particles, self.site)
        prior(particles, self.site)  # that there is one of z alone
        log_q = cross_log_prob(q, z)
        estimate = stratified if self.stratified_sampling else weighted
        joint, marginals = log_joint_and_marginals(log_q, estimate(particles.batch_size, self.num_data, like=log_q))
        own = log_q.sum(-1).diagonal(dim1=-2, dim2=-1)
        product = marginals.sum(-1)
        return own - joint, joint - product, product - particles.model[self.site].log_prob

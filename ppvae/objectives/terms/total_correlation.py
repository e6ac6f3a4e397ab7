"""Total correlation of the aggregate posterior, TC = KL(q(z) || prod_d q(z_d)), by a critic and from the batch."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppvae.distributions.aggregate import log_joint_and_marginals, stratified, weighted
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.particles import Particles
from ppvae.engine.player import Optimizer, Turn
from ppvae.nn import MLP
from ppvae.objectives.base import Parts, Penalty, Regulariser, rates
from ppvae.objectives.critics import Critic, critic_adam
from ppvae.objectives.draws import cross_log_prob, draws, factors, prior
from ppvae.objectives.joint import joint_code, joint_draws, permuted, permuted_code, site_names
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class TotalCorrelation(Penalty):
    """gamma TC, with TC = E_q(z) D(z) by a critic D that learns log q(z) / prod_d q(z_d).

    The critic is trained on draws for one batch against draws for another, with each element permuted over that batch
    independently. It reads draws alone, so that any guide will do. The critic's first weights come from torch's global
    random state (``torch.manual_seed``). Critics underestimate total correlation where they cannot tell fine structure.

    With several sites it is the total correlation of all of their elements together. A discrete latent of C classes is
    one element: the critic reads C indicators, and the class is permuted as a whole. The expectation over the classes
    is exact,

        TC = E_x E_q(z | x) sum_y q(y | x) D(z, y),

    so that its gradient reaches q(y | x) without a relaxation of the class.

    Part: "total_correlation/z", with two sites "total_correlation/z+y".

    Args:
        gamma: at least 0, or a schedule.
        latent_dim: D, length of z; with several sites that of all elements and classes, such as 10 + 3.
        site: the latent, or several, such as ("z", "y"). Discrete ones must be enumerated, and not observed.
        critic: network (..., latent_dim) -> (..., 1); five layers of 1,000 units if None.
        optimizer: of the critic.

    Raises ValueError for a gamma out of range and for no site or one of them twice.

    Source: Kim and Mnih 2018, "Disentangling by Factorising", algorithm 1 (there with two logits, D is their
    difference, and all latents are continuous).

    Example:

        >>> import ppvae
        >>> term = ppvae.TotalCorrelation(35.0, latent_dim=2, critic=MLP(2, [8], 1))
        >>> [player.name for player in (ppvae.ELBO() + term).players]
        ['critic/z']
        >>> ppvae.TotalCorrelation(35.0, latent_dim=2 + 3, site=("z", "y"), critic=MLP(5, [8], 1)).site
        'z+y'
    """

    label = "total_correlation"
    site: str

    def __init__(
        self,
        gamma: float | Schedule,
        latent_dim: int = 10,
        site: str | Sequence[str] = "z",
        critic: nn.Module | None = None,
        optimizer: Optimizer = critic_adam,
    ):
        require_weight("gamma", gamma)
        self.gamma = gamma
        self.critic = PermutationCritic(critic, latent_dim, site)
        self.site = self.critic.site
        self.players = (self.critic.player(optimizer, needs_other=True),)

    def penalty(self, particles: Particles) -> Tensor:
        """gamma times the expectation of D(z) for each datum, (B,)."""
        return value_at(self.gamma, particles.step) * particles.average(self.estimate(particles))

    def estimate(self, particles: Particles) -> Tensor:
        """D(z) of each draw, and at each class, shape (enumeration..., K, B), in nats.

        Its expectation is the critic's estimate of TC.
        """
        return self.critic.log_ratio(joint_code(particles, self.critic.names))


class PermutationCritic(Critic):
    """D(z) = log q(z) / prod_d q(z_d), of one latent or of several; arguments as of :class:`TotalCorrelation`.

    Example:

        >>> PermutationCritic(nn.Linear(2, 1), latent_dim=2).log_ratio(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, network: nn.Module | None, latent_dim: int, site: str | Sequence[str] = "z"):
        self.names = site_names(site)
        super().__init__(network, latent_dim, "+".join(self.names))

    def loss(self, turn: Turn) -> Tensor:
        """Logistic loss of the turn's draws against permuted draws for the second batch."""
        own = torch.cat([joint_draws(part, self.names).flatten(0, 1) for part in turn.particles])
        return self.logistic_loss(own, permuted_code(turn.particles[0], self.names, turn.other_draws))


def train_critic(
    z: Tensor,
    *,
    network: nn.Module | None = None,
    num_steps: int = 2000,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> PermutationCritic:
    """A critic of any pair's total correlation, trained on fixed draws of its q(z).

    For pairs that were trained without one: ``disentanglement(..., critic=train_critic(z).log_ratio)``. Its
    value is an estimate and no bound: too low where the structure is finer than the network can tell, too high where
    it overfits a small set of draws.

    Args:
        z: draws of q(z), shape (N, D), such as ``representation.drawn().codes``.
        network: (..., D) -> (..., 1); two layers of 256 units if None.
        num_steps: of Adam, with a rate that falls linearly to 0.
        batch_size: draws of either density a step, with replacement.
        learning_rate: at the start.
        seed: of the batches and of the default network's first weights; the caller's random state does not change.

    Raises:
        ValueError: z is not (N, D) and finite with two draws, or there are fewer than two steps.

    Example:

        >>> import torch
        >>> z = torch.randn(100, 2)
        >>> train_critic(z, network=MLP(2, [8], 1), num_steps=2).log_ratio(z).shape
        torch.Size([100])
    """
    if z.dim() != 2 or len(z) < 2 or not torch.isfinite(z).all() or min(num_steps, batch_size) < 2:
        raise ValueError(
            f"expected finite draws (N, D), and N, num_steps and batch_size of at least 2, got {tuple(z.shape)}, "
            f"{num_steps} and {batch_size}"
        )
    with forked_randomness(z.device, seed):
        dim = z.shape[1]
        network = MLP(dim, [256, 256], 1, nn.SiLU).to(z) if network is None else network
        critic = PermutationCritic(network, dim)
        optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / num_steps, total_iters=num_steps)
        for _ in range(num_steps):
            rows = torch.randint(len(z), (2, batch_size), device=z.device)
            optimizer.zero_grad()
            critic.logistic_loss(z[rows[0]], permuted(z[rows[1]])).backward()
            optimizer.step()
            schedule.step()
    return critic


class TCDecomposition(Regulariser):
    """The three parts of the mean KL(q(z | x) || p(z)), each with a weight; they replace the rate:

        alpha E log q(z | x) / q(z)               "mutual_information/z", index-code mutual information
      + beta  E log q(z) / prod_d q(z_d)          "total_correlation/z"
      + gamma E log prod_d q(z_d) / p(z)          "dimension_kl/z", dimension-wise KL

    with q(z) and q(z_d) estimated from the batch; see :mod:`ppvae.distributions.aggregate`, where N is ``num_data``.
    Requires q(z | x) to be a product over the elements of z; it needs no critic.

    The three parts with weights 1 add up to the objective's own rate: in the mutual information the closed-form rate
    takes the place of log q(z | x) - log p(z) at the draws, which has the same mean and more variance.

    Args:
        num_data: N, rows (not batches) of the training set.
        alpha, beta, gamma: at least 0, or schedules.
        site: the latent.
        stratified_sampling: the stratified estimate; else the weighted one.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", equations 2 to 4.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.TCDecomposition(num_data=60_000, beta=6.0)
    """

    completes = "rate"
    site: str
    num_data: int

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

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts, the rate replaced by its three weighted parts."""
        replaced = f"rate/{self.site}"
        if not rates(parts, self.site, particles):
            return parts
        information, correlation, dimensions = (part.mean(0) for part in self.decompose(particles))
        alpha, beta, gamma = (value_at(w, particles.step) for w in (self.alpha, self.beta, self.gamma))
        own = parts[replaced] - correlation - dimensions
        return {
            **{name: part for name, part in parts.items() if name != replaced},
            f"mutual_information/{self.site}": own + (alpha - 1) * information,
            f"total_correlation/{self.site}": beta * correlation,
            f"dimension_kl/{self.site}": gamma * dimensions,
        }

    def decompose(self, particles: Particles) -> tuple[Tensor, Tensor, Tensor]:
        """Mutual information, total correlation and dimension-wise KL of each draw, each (K, B), in nats.

        For any estimate of q(z) they add up to log q(z | x) - log p(z). The values of the stratified estimate can be
        read; the weighted estimate serves for gradients (see :mod:`ppvae.distributions.aggregate`).
        """
        z, q = draws(particles, self.site), factors(particles, self.site)
        prior(particles, self.site)  # raises unless there is one of z alone
        log_q = cross_log_prob(q, z)
        estimate = stratified if self.stratified_sampling else weighted
        log_weights = estimate(particles.batch_size, self.num_data, template=log_q)
        joint, marginals = log_joint_and_marginals(log_q, log_weights)
        own = log_q.sum(-1).diagonal(dim1=-2, dim2=-1)
        product = marginals.sum(-1)
        return own - joint, joint - product, product - particles.model[self.site].log_prob

"""Gaussians fitted to the posterior of each datum, as proposals of importance sampling.

    q(u) = N(m, L L') or a Student t,   L lower triangular,   u: the continuous latents of a datum, unconstrained

A proposal is any object with ``fit(log_joint, start)``, which returns a distribution q(u) for each datum:

    log_joint: u (draws, B, D) -> log p(x, u), shape (draws, B), in nats; differentiable
    start: a Gaussian with the mean and the standard deviations of the guide's draws, batch shape (B,)

An attribute ``draws`` says how many draws of each datum it evaluates at once, 16 without one.

The weights p(x, u) / q(u) of fresh draws of q have the mean p(x), whatever q was fitted to.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from pyro import distributions as dist
from torch import Tensor

from ppvae.distributions.gaussians import FullGaussian, FullStudentT, times
from ppvae.errors import require_count, require_positive
from ppvae.evaluation.likelihood.hmc import LogDensity, with_gradient
from ppvae.evaluation.likelihood.newton import DIRECTIONS, NoSecondDerivative, laplace
from ppvae.objectives.local import cosine

COVERING_PARTICLES = 64
COVERING_RATE = 0.01
USUAL_DIM = 50  # length of u up to which particles and learning rate apply as given
LEAST_DF = 5  # of the Student t that is drawn from
DRAWS = 16  # of a proposal without an attribute ``draws``


class Proposal(Protocol):
    """What :func:`ppvae.log_marginal` takes as ``proposal``.

    Example:

        >>> class Wider:
        ...     def fit(self, log_joint, start):
        ...         return FullGaussian(start.loc, 1.5 * start.scale_tril)
        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> ppvae.log_marginal(*pair, torch.zeros(3, 2), proposal=Wider(), num_particles=100).stages
        ('guide', 'Wider')
    """

    def fit(self, log_joint: LogDensity, start: FullGaussian) -> dist.TorchDistribution:
        """q(u) of each datum, batch shape (B,) and event shape (D,)."""


def draws_at_once(proposal: Proposal) -> int:
    """Draws of each datum that a proposal evaluates at once: its attribute ``draws``, 16 without one.

    Example:

        >>> draws_at_once(FullRank(particles=32)), draws_at_once(Laplace())
        (32, 8)
    """
    return require_count("draws of the proposal", getattr(proposal, "draws", DRAWS))


@dataclass(frozen=True)
class Laplace:
    """The Gaussian at the mode of the posterior, with the inverse of the curvature there as its covariance.

        m = argmax log p(x, u),   L L' = scale^2 (- d^2/du^2 log p(x, u) at m)^-1

    The mode is found by Newton's method with a line search; negative curvatures count by their absolute value. For a
    decoder that is piecewise linear the Hessian is the Gauss-Newton matrix.

    Args:
        newton: iterations.
        scale: factor on the standard deviations.

    Raises:
        ValueError: settings out of range.
        ContractError: in ``fit``, where log p(x, u) has no second derivative.

    Source: Tierney and Kadane 1986, "Accurate Approximations for Posterior Moments and Marginal Densities"; the
    absolute values: Dauphin et al. 2014, "Identifying and Attacking the Saddle Point Problem".

    Example:

        >>> log_joint = lambda u: -0.5 * ((u - 3) / 2).square().sum(-1)
        >>> q = Laplace(scale=1.0).fit(log_joint, FullGaussian(torch.zeros(1, 2), torch.eye(2).unsqueeze(0)))
        >>> q.loc, q.covariance_matrix.round(decimals=3)
        (tensor([[3., 3.]]), tensor([[[4., 0.],
                 [0., 4.]]]))
    """

    newton: int = 5
    scale: float = 1.1

    def __post_init__(self) -> None:
        require_count("newton", self.newton)
        require_positive("scale", self.scale)

    @property
    def draws(self) -> int:
        """Draws of each datum that are evaluated at once."""
        return DIRECTIONS

    def fit(self, log_joint: LogDensity, start: FullGaussian) -> FullGaussian:
        """q(u) of each datum."""
        return _widened(laplace(log_joint, start, self.newton), self.scale)


@dataclass(frozen=True)
class FullRank:
    """The Gaussian with the best evidence bound of each datum, slightly widened, with heavier tails.

        maximise  E_q[log p(x, u) - log q(u)]   over m, L;   then L <- scale L

    Adam with the gradient through u alone, which vanishes at the exact posterior, and a learning rate that falls on a
    cosine. It works in coordinates in which the start is N(0, I). The start is the Laplace approximation, where second
    derivatives exist. With ``cover``, steps on the forward KL(p(u | x) || q) by self-normalised weights follow, which
    widen q where it is too narrow. The draws come from a Student t with m and L: posteriors with tails heavier than a
    Gaussian's, such as that of the logarithm of a Gamma latent, give a Gaussian weights of infinite variance.

    Args:
        steps: on the bound.
        particles: draws of each step. For D above 50 latents, D / 50 times as many in rounds: the gradient's D^2
            elements need more draws.
        learning_rate: of the first step; the last has a twentieth of it. For D above 50 it is multiplied by
            sqrt(50 / D).
        scale: factor on the standard deviations at the end.
        cover: steps on the forward KL, each with 64 draws.
        newton: iterations of the Laplace approximation; 0 starts from the guide.
        df: degrees of freedom of the Student t; infinity for a Gaussian. None: 2 D, at least 5. The number grows with
            the number of latents D, since the length of a vector of the Student t varies with it.

    Raises ValueError or TypeError for settings out of range.

    Source: Roeder, Wu and Duvenaud 2017, "Sticking the Landing" (gradient); Kim et al. 2018, "Semi-Amortized
    Variational Autoencoders" (one q for each datum); Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators"
    (forward KL).

    Example:

        >>> _ = torch.manual_seed(0)
        >>> log_joint = lambda u: -0.5 * ((u - 3) / 2).square().sum(-1)
        >>> q = FullRank().fit(log_joint, FullGaussian(torch.zeros(1, 2), torch.eye(2).unsqueeze(0)))
        >>> q.loc.round(decimals=2)
        tensor([[3., 3.]])
    """

    steps: int = 150
    particles: int = 16
    learning_rate: float = 0.02
    scale: float = 1.05
    cover: int = 0
    newton: int = 3
    df: float | None = None

    def __post_init__(self) -> None:
        require_count("particles", self.particles)
        for name in ("steps", "cover", "newton"):
            require_count(name, getattr(self, name), least=0)
        for name in ("learning_rate", "scale"):
            require_positive(name, getattr(self, name))
        if self.df is not None and self.df != math.inf:
            require_positive("df", self.df)

    @property
    def draws(self) -> int:
        """Draws of each datum that are evaluated at once."""
        return max(self.particles, DIRECTIONS if self.newton else 0, COVERING_PARTICLES if self.cover else 0)

    def fit(self, log_joint: LogDensity, start: FullGaussian) -> FullGaussian | FullStudentT:
        """q(u) of each datum."""
        q = self._started(log_joint, start)
        q = _climb(log_joint, q, _evidence, _falling(self.learning_rate, self.steps), self.particles)
        q = _climb(log_joint, q, _forward, _falling(COVERING_RATE, self.cover), COVERING_PARTICLES)
        q = _widened(q, self.scale)
        df = max(LEAST_DF, 2 * q.loc.shape[-1]) if self.df is None else self.df
        return q if math.isinf(df) else FullStudentT(df, q.loc, q.scale_tril)

    def _started(self, log_joint: LogDensity, start: FullGaussian) -> FullGaussian:
        if not self.newton:
            return start
        try:
            return laplace(log_joint, start, self.newton)
        except NoSecondDerivative:
            return start


def _falling(rate: float, steps: int) -> Iterator[float]:
    """Learning rates of that many steps, on half a cosine."""
    for step in range(steps):
        yield rate * cosine(step / steps)


ParticleWeights = Callable[[Tensor], Tensor]


def _evidence(log_weight: Tensor) -> Tensor:
    """Weights of the particles' path gradients of log w for the gradient of the evidence bound, (draws, B)."""
    return torch.full_like(log_weight, 1 / len(log_weight))


def _forward(log_weight: Tensor) -> Tensor:
    """The same for - KL(p(u | x) || q), by doubly reparameterised gradients: w - w^2 of normalised weights w."""
    w = log_weight.softmax(0)
    return w - w.square()


def _climb(
    log_joint: LogDensity, start: FullGaussian, weigh: ParticleWeights, rates: Iterator[float], particles: int
) -> FullGaussian:
    """Ascent by Adam on m and L, where u = m0 + L0 v and v = m + L e, e ~ N(0, I), for a start N(m0, L0 L0').

    L is the exponential of a diagonal with numbers below it.
    """
    mean = torch.zeros_like(start.loc)
    raw = torch.zeros_like(start.scale_tril)  # log L on the diagonal, L below
    adam = torch.optim.Adam([mean, raw])
    more = max(1.0, mean.shape[-1] / USUAL_DIM)
    for rate in rates:
        adam.param_groups[0]["lr"] = rate / math.sqrt(more)  # D^2 elements that move at once move q further
        tril = _lower(raw)
        rounds = [_slopes(log_joint, start, mean, tril, weigh, particles) for _ in range(round(more))]
        slope_of_mean, slope = (torch.stack(each).mean(0) for each in zip(*rounds, strict=True))
        mean.grad = -slope_of_mean
        raw.grad = -torch.where(_diagonal(raw), slope * tril, slope)
        adam.step()
    return FullGaussian(start.at(mean), start.scale_tril @ _lower(raw))


def _slopes(
    log_joint: LogDensity, start: FullGaussian, mean: Tensor, tril: Tensor, weigh: ParticleWeights, particles: int
) -> tuple[Tensor, Tensor]:
    """The gradients by m and L of the weighted sum of log w = log p(x, u) - log q(u), through u alone."""
    e = torch.randn(particles, *mean.shape, dtype=mean.dtype, device=mean.device)
    density, gradient = with_gradient(log_joint, start.at(mean + times(tril, e)))
    log_q = -0.5 * e.square().sum(-1)  # up to a number that is the same for all draws
    path = times(start.scale_tril.mT, gradient) + _solved(tril.mT, e)  # d log w / dv
    path = path * weigh(density - log_q).unsqueeze(-1)
    return path.sum(0), torch.einsum("nbi,nbj->bij", path, e).tril()


def _lower(raw: Tensor) -> Tensor:
    return raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)


def _solved(upper: Tensor, vectors: Tensor) -> Tensor:
    """Inverses of upper triangular matrices (B, D, D) times vectors (..., B, D)."""
    return torch.linalg.solve_triangular(upper, vectors.permute(1, 2, 0), upper=True).permute(2, 0, 1)


def _widened(q: FullGaussian, scale: float) -> FullGaussian:
    return FullGaussian(q.loc, scale * q.scale_tril)

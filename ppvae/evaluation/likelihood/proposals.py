"""Gaussians fitted to the posterior of each datum, as proposals of importance sampling.

    q(u) = N(m, L L'),   L lower triangular,   u: the continuous latents of a datum, unconstrained

A proposal is any object with ``fit(log_joint, start)``, which returns a distribution q(u) for each datum:

    log_joint: u (draws, B, D) -> log p(x, u), shape (draws, B), in nats; differentiable
    start: a Gaussian with the mean and the standard deviations of the guide's draws, batch shape (B,)

The weights p(x, u) / q(u) of fresh draws of q have the mean p(x), whatever q was fitted to.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from pyro import distributions as dist
from torch import Tensor

from ppvae.distributions.gaussians import FullGaussian
from ppvae.errors import ContractError, require_count
from ppvae.evaluation.likelihood.hmc import LogDensity, with_gradient

FINAL_RATE = 0.05  # of the first learning rate
SMALLEST_CURVATURE = 1e-3  # of log p(x, u), relative to that of the start
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 0.0)  # tried by each Newton iteration
DIRECTIONS = 16  # columns of a Hessian that are computed at once
COVERING_PARTICLES = 64
COVERING_RATE = 0.01


class _NoSecondDerivative(ContractError):
    """log p(x, u) can be differentiated only once."""


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
        _require_positive("scale", self.scale)

    def fit(self, log_joint: LogDensity, start: FullGaussian) -> FullGaussian:
        """q(u) of each datum."""
        return _widened(_laplace(log_joint, start, self.newton), self.scale)


@dataclass(frozen=True)
class FullRank:
    """The Gaussian with the best evidence bound of each datum, slightly widened.

        maximise  E_q[log p(x, u) - log q(u)]   over m, L;   then L <- scale L

    Adam with the gradient through u alone, which vanishes at the exact posterior, and a learning rate that falls on a
    cosine. It works in coordinates in which the start is N(0, I). The start is the Laplace approximation, where second
    derivatives exist. With ``cover``, steps on the forward KL(p(u | x) || q) by self-normalised weights follow, which
    widen q where it is too narrow.

    Args:
        steps: on the bound.
        particles: draws of each step.
        learning_rate: of the first step; the last has a twentieth of it.
        scale: factor on the standard deviations at the end.
        cover: steps on the forward KL, each with 64 draws.
        newton: iterations of the Laplace approximation; 0 starts from the guide.

    Raises ValueError or TypeError for settings out of range.

    Source: Roeder, Wu and Duvenaud 2017, "Sticking the Landing" (gradient); Kim et al. 2018, "Semi-Amortized
    Variational Autoencoders" (one q for each datum); Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators"
    (forward KL).

    Example:

        >>> _ = torch.manual_seed(0)
        >>> log_joint = lambda u: -0.5 * ((u - 3) / 2).square().sum(-1)
        >>> q = FullRank(scale=1.0).fit(log_joint, FullGaussian(torch.zeros(1, 2), torch.eye(2).unsqueeze(0)))
        >>> q.loc.round(decimals=2)
        tensor([[3., 3.]])
    """

    steps: int = 150
    particles: int = 16
    learning_rate: float = 0.02
    scale: float = 1.05
    cover: int = 0
    newton: int = 3

    def __post_init__(self) -> None:
        require_count("particles", self.particles)
        for name in ("steps", "cover", "newton"):
            require_count(name, getattr(self, name), least=0)
        for name in ("learning_rate", "scale"):
            _require_positive(name, getattr(self, name))

    @property
    def draws(self) -> int:
        """Draws of each datum that are evaluated at once."""
        return max(self.particles, COVERING_PARTICLES if self.cover else 0)

    def fit(self, log_joint: LogDensity, start: FullGaussian) -> FullGaussian:
        """q(u) of each datum."""
        q = self._started(log_joint, start)
        q = _climb(log_joint, q, _evidence, _falling(self.learning_rate, self.steps), self.particles)
        q = _climb(log_joint, q, _forward, _falling(COVERING_RATE, self.cover), COVERING_PARTICLES)
        return _widened(q, self.scale)

    def _started(self, log_joint: LogDensity, start: FullGaussian) -> FullGaussian:
        if not self.newton:
            return start
        try:
            return _laplace(log_joint, start, self.newton)
        except _NoSecondDerivative:
            return start


def _falling(rate: float, steps: int) -> Iterator[float]:
    """Learning rates of that many steps, on half a cosine."""
    for step in range(steps):
        yield rate * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * step / steps)))


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

    L is the exponential of a diagonal with numbers below it. The gradient of log w = log p(x, u) - log q(u) is taken
    through u alone: q's own parameters are held fixed.
    """
    mean = torch.zeros_like(start.loc)
    raw = torch.zeros_like(start.scale_tril)  # log L on the diagonal, L below
    adam = torch.optim.Adam([mean, raw])
    for rate in rates:
        adam.param_groups[0]["lr"] = rate
        tril = _lower(raw)
        e = torch.randn(particles, *mean.shape, dtype=mean.dtype, device=mean.device)
        density, gradient = with_gradient(log_joint, start.at(mean + _times(tril, e)))
        log_q = -0.5 * e.square().sum(-1)  # up to a number that is the same for all draws
        path = _times(start.scale_tril.mT, gradient) + _solved(tril.mT, e)  # d log w / dv
        path = path * weigh(density - log_q).unsqueeze(-1)
        slope = torch.einsum("nbi,nbj->bij", path, e).tril()
        mean.grad = -path.sum(0)
        raw.grad = -torch.where(_diagonal(raw), slope * tril, slope)
        adam.step()
    return FullGaussian(start.at(mean), start.scale_tril @ _lower(raw))


def _lower(raw: Tensor) -> Tensor:
    return raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrices (B, D, D) times vectors (..., B, D)."""
    return torch.einsum("bij,...bj->...bi", matrix, vectors)


def _solved(upper: Tensor, vectors: Tensor) -> Tensor:
    """Inverses of upper triangular matrices (B, D, D) times vectors (..., B, D)."""
    return torch.linalg.solve_triangular(upper, vectors.permute(1, 2, 0), upper=True).permute(2, 0, 1)


def _widened(q: FullGaussian, scale: float) -> FullGaussian:
    return FullGaussian(q.loc, scale * q.scale_tril)


def _laplace(log_joint: LogDensity, start: FullGaussian, iterations: int) -> FullGaussian:
    """Newton's method with a line search, in coordinates v in which the start is N(0, I)."""

    def log_density(v: Tensor) -> Tensor:
        return log_joint(start.at(v))

    lengths = torch.tensor(STEP_LENGTHS).to(start.loc).reshape(-1, 1, 1)
    v = torch.zeros_like(start.loc)
    for _ in range(iterations):
        gradient, values, vectors = _curvature(log_density, v)
        direction = _times(vectors, _times(vectors.mT, gradient) / values)
        tried = v + lengths * direction
        found = log_density(tried).nan_to_num(nan=-torch.inf).argmax(0)  # a step of length 0 never falls
        v = tried[found, torch.arange(len(v), device=v.device)]
    _, values, vectors = _curvature(log_density, v)
    return FullGaussian(start.at(v), start.scale_tril @ _inverse_root(values, vectors))


def _inverse_root(values: Tensor, vectors: Tensor) -> Tensor:
    """Lower triangular L with L L' = V diag(1 / values) V', by a QR decomposition, which no condition number stops."""
    upper = torch.linalg.qr((vectors / values.sqrt().unsqueeze(-2)).mT, mode="r").R
    return upper.mT * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def _curvature(log_density: LogDensity, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient at v (B, D), and the absolute eigenvalues and the eigenvectors of the Hessian.

    A datum with a Hessian that is not finite has no gradient, and curvature 1 in every direction.
    """
    gradient, hessian = _derivatives(log_density, v)
    finite = hessian.isfinite().flatten(1).all(-1) & gradient.isfinite().all(-1)
    gradient = gradient.where(finite.unsqueeze(-1), 0.0)
    hessian = hessian.where(finite[:, None, None], torch.eye(v.shape[-1]).to(v))
    values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
    return gradient, values.abs().clamp(min=SMALLEST_CURVATURE), vectors


def _derivatives(log_density: LogDensity, v: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (B, D) and the Hessian (B, D, D) of log_density at v (B, D), some columns at a time."""
    columns, gradient = [], torch.empty(0)
    for directions in torch.eye(v.shape[-1]).to(v).split(DIRECTIONS):
        with torch.enable_grad():
            copies = v.expand(len(directions), *v.shape).detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_density(copies).sum(), copies, create_graph=True)
            columns.append(_derivative_of((slope * directions.unsqueeze(1)).sum(), copies))
        gradient = slope[0].detach()
    return gradient, torch.cat(columns).movedim(0, 1)


def _derivative_of(total: Tensor, u: Tensor) -> Tensor:
    if not total.requires_grad:
        return torch.zeros_like(u)
    try:
        return torch.autograd.grad(total, u, materialize_grads=True)[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _NoSecondDerivative(
            f"expected log p(x, z) with a second derivative, got {error}; use FullRank(newton=0), which needs the "
            "first alone"
        ) from error


def _require_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"expected {name} above 0 and finite, got {value}")

"""The Laplace approximation of many densities at once: Newton's method with a line search.

Negative curvatures count by their absolute value, so that each step ascends (Dauphin et al. 2014, "Identifying and
Attacking the Saddle Point Problem in High-dimensional Non-convex Optimization").
"""

import torch
from torch import Tensor

from ppvae.distributions.gaussians import FullGaussian, times
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.hmc import LogDensity

SMALLEST_CURVATURE = 1e-7  # in coordinates in which the Hessian has a diagonal of ones
NO_CURVATURE = 1e-12  # along a coordinate, which then has the curvature of the start
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 0.0)  # tried by each iteration
DIRECTIONS = 8  # columns of a Hessian that are computed at once


class NoSecondDerivative(ContractError):
    """The log density can be differentiated only once.

    Example:

        >>> str(NoSecondDerivative("no second derivative"))
        'no second derivative'
    """


def laplace(log_joint: LogDensity, start: FullGaussian, iterations: int) -> FullGaussian:
    """The Gaussian at the mode of a density, with the inverse curvature there as its covariance, batch shape (B,).

    It works in coordinates v in which the start is N(0, I).

    Args:
        log_joint: u (draws, B, D) -> log p(x, u), shape (draws, B), in nats.
        start: where to begin, batch shape (B,).
        iterations: of Newton's method.

    Raises NoSecondDerivative where the density can be differentiated only once.

    Example:

        >>> log_joint = lambda u: -0.5 * ((u - 3) / 2).square().sum(-1)
        >>> q = laplace(log_joint, FullGaussian(torch.zeros(1, 2), torch.eye(2).unsqueeze(0)), iterations=1)
        >>> q.loc, q.variance.round(decimals=3)
        (tensor([[3., 3.]]), tensor([[4., 4.]]))
    """

    def log_density(v: Tensor) -> Tensor:
        return log_joint(start.at(v))

    lengths = torch.tensor(STEP_LENGTHS).to(start.loc).reshape(-1, 1, 1)
    v = torch.zeros_like(start.loc)
    for _ in range(iterations):
        gradient, values, vectors = _curvature(log_density, v)
        direction = times(vectors, times(vectors.mT, gradient) / values)
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
    """The gradient at v (B, D), and values (B, D) above 0 and vectors W with |Hessian|^-1 = W diag(1/values) W'.

    They are the absolute eigenvalues and the scaled eigenvectors of the Hessian in coordinates in which its diagonal is
    one: a start may be far too narrow in some coordinates. A datum with a Hessian that is not finite has no gradient,
    and curvature 1 in every direction.
    """
    gradient, hessian = _derivatives(log_density, v)
    finite = hessian.isfinite().flatten(1).all(-1) & gradient.isfinite().all(-1)
    gradient = gradient.where(finite.unsqueeze(-1), 0.0)
    hessian = hessian.where(finite[:, None, None], torch.eye(v.shape[-1]).to(v))
    flat = hessian.diagonal(dim1=-2, dim2=-1).abs() < NO_CURVATURE
    hessian = hessian - torch.diag_embed(flat.to(v.dtype))
    scale = hessian.diagonal(dim1=-2, dim2=-1).abs().rsqrt().unsqueeze(-1)
    values, vectors = torch.linalg.eigh(0.5 * scale * (hessian + hessian.mT) * scale.mT)
    return gradient, values.abs().clamp(min=SMALLEST_CURVATURE), scale * vectors


def _derivatives(log_density: LogDensity, v: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (B, D) and the Hessian (B, D, D) of log_density at v (B, D), some columns at a time."""
    columns, gradient = [], torch.empty(0)
    for directions in torch.eye(v.shape[-1]).to(v).split(DIRECTIONS):
        with torch.enable_grad():
            copies = v.expand(len(directions), *v.shape).detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_density(copies).sum(), copies, create_graph=True)
            columns.append(_derivative_of(slope, directions, copies))
        gradient = slope[0].detach()
    return gradient, torch.cat(columns).movedim(0, 1)


def _derivative_of(slope: Tensor, directions: Tensor, u: Tensor) -> Tensor:
    """d slope / du along each direction, (directions, B, D)."""
    if not slope.requires_grad:
        return torch.zeros_like(u)
    try:
        if _is_cut(slope):
            raise RuntimeError("a function with @once_differentiable")
        return torch.autograd.grad((slope * directions.unsqueeze(1)).sum(), u, materialize_grads=True)[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NoSecondDerivative(
            f"expected log p(x, z) with a second derivative, but: {error}; use FullRank(newton=0), which needs the "
            "first alone"
        ) from error


def _is_cut(slope: Tensor) -> bool:
    """Whether the graph of a gradient has a node that raises when it is differentiated, which autograd.grad skips."""
    waiting, seen = [slope.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            return True
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
    return False

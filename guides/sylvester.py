"""Sylvester flows: planar flows of a higher rank, whose determinant is cheap.

    f(z) = z + Q R tanh(R~ Q' z + b)

    log |det df/dz| = sum_i log |1 + tanh'(a_i) R_ii R~_ii|,    a = R~ Q' z + b

Q has orthonormal columns (D, M), R and R~ are upper triangular (M, M). With |R_ii R~_ii| < 1, kept by a tanh on both
diagonals, every factor is positive and f is invertible, though not in closed form.

Source: van den Berg et al. 2018, "Sylvester Normalizing Flows for Variational Inference", equations 8 and 13.
"""

import torch
from pyro import distributions as dist
from pyro.distributions.transforms import Transform
from torch import Tensor, nn

KINDS = ("orthogonal", "householder", "triangular")


class ConditionalSylvester(nn.Module):
    """Sylvester's map with Q, R, R~ and b by linear layers of a context (..., context_dim).

    Args:
        latent_dim: D.
        context_dim: length of the context.
        kind: of Q: "orthogonal" (D, rank), the orthonormal factor of any matrix (its QR decomposition; the paper
            iterates, to the same end); "householder" (D, D), a
            product of ``rank`` reflections; "triangular", the identity, or the reversal where ``turned``.
        rank: number of columns, or of reflections.
        turned: see ``kind``.
    """

    def __init__(self, latent_dim: int, context_dim: int, kind: str = "orthogonal", rank: int = 1, turned=False):
        super().__init__()
        if kind not in KINDS or not 1 <= rank <= latent_dim:
            raise ValueError(
                f"expected kind out of {KINDS} and rank from 1 to latent_dim={latent_dim}, got {kind!r}, {rank}"
            )
        self.latent_dim, self.kind, self.rank, self.turned = latent_dim, kind, rank, turned
        self.width = rank if kind == "orthogonal" else latent_dim  # M
        self.triangles = nn.Linear(context_dim, 2 * self.width**2)
        self.offset = nn.Linear(context_dim, self.width)
        self.basis = None if kind == "triangular" else nn.Linear(context_dim, latent_dim * rank)

    def condition(self, context: Tensor) -> "Sylvester":
        first, second = self.triangles(context).unflatten(-1, (2, self.width, self.width)).unbind(-3)
        return Sylvester(self._orthonormal(context), _bounded(first), _bounded(second), self.offset(context))

    def _orthonormal(self, context: Tensor) -> Tensor:
        if self.basis is None:
            identity = torch.eye(self.latent_dim, dtype=context.dtype, device=context.device)
            return identity.flip(0) if self.turned else identity
        columns = self.basis(context).unflatten(-1, (self.latent_dim, self.rank))
        return torch.linalg.qr(columns).Q if self.kind == "orthogonal" else reflections(columns)


class Sylvester(Transform):
    """z + Q R tanh(R~ Q' z + b) for given Q (..., D, M), R and R~ (..., M, M), b (..., M); without an inverse."""

    domain = codomain = dist.constraints.real_vector
    bijective = True

    def __init__(self, q: Tensor, r: Tensor, r_tilde: Tensor, b: Tensor):
        super().__init__(cache_size=1)
        self.q, self.r, self.r_tilde, self.b = q, r, r_tilde, b

    def _inside(self, z: Tensor) -> Tensor:
        return _times(self.r_tilde, _times(self.q.transpose(-1, -2), z)) + self.b

    def _call(self, z: Tensor) -> Tensor:
        return z + _times(self.q, _times(self.r, self._inside(z).tanh()))

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError("a Sylvester flow has no inverse in closed form: it scores its own draws alone")

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        slope = 1 - self._inside(z).tanh().square()
        diagonal = self.r.diagonal(dim1=-2, dim2=-1) * self.r_tilde.diagonal(dim1=-2, dim2=-1)
        return torch.log1p(slope * diagonal).sum(-1)


def reflections(vectors: Tensor) -> Tensor:
    """The product of Householder reflections by the columns of (..., D, H), shape (..., D, D)."""
    v = vectors / vectors.norm(dim=-2, keepdim=True)
    product = torch.eye(v.shape[-2], dtype=v.dtype, device=v.device)
    for u in v.unbind(-1):
        product = product - 2 * (product @ u.unsqueeze(-1)) * u.unsqueeze(-2)
    return product


def _bounded(matrix: Tensor) -> Tensor:
    """Upper triangular, with a diagonal in (-1, 1)."""
    return matrix.triu(1) + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1).tanh())


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)

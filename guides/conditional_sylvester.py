"""Sylvester flows with Q, R, R~ and b from a context; see :mod:`ppvae.distributions.sylvester` for the map.

Source: van den Berg et al. 2018, "Sylvester Normalizing Flows for Variational Inference", section 4.
"""

import torch
from torch import Tensor, nn

from ppvae.distributions.sylvester import Sylvester, bounded_triangle, reflections

KINDS = ("orthogonal", "householder", "triangular")


class ConditionalSylvester(nn.Module):
    """Sylvester's map with Q, R, R~ and b by linear layers of a context (..., context_dim).

    A tanh keeps the diagonals of R and R~ in (-1, 1), so that the map is invertible.

    Args:
        latent_dim: D.
        context_dim: length of the context.
        kind: "orthogonal": Q (D, rank) is the orthonormal factor of a matrix (by QR decomposition; the paper iterates
            to the same end). "householder": Q (D, D) is a product of ``rank`` reflections. "triangular": Q (D, D) is
            the identity, or the reversal if ``reverse``.
        rank: number of columns, or of reflections; from 1 to D. Not used by "triangular".
        reverse: see ``kind``.

    Raises ValueError for another kind or rank.

    Example:

        >>> step = ConditionalSylvester(4, 3, "householder", rank=2).condition(torch.zeros(5, 3))
        >>> step(torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    has_inverse = False

    def __init__(
        self, latent_dim: int, context_dim: int, kind: str = "orthogonal", rank: int = 1, reverse: bool = False
    ):
        super().__init__()
        if kind not in KINDS or not 1 <= rank <= latent_dim:
            raise ValueError(
                f"expected kind out of {KINDS} and rank from 1 to latent_dim={latent_dim}, got {kind!r}, {rank}"
            )
        self.latent_dim, self.kind, self.rank, self.reverse = latent_dim, kind, rank, reverse
        self.width = rank if kind == "orthogonal" else latent_dim  # M
        self.triangles = nn.Linear(context_dim, 2 * self.width**2)
        self.offset = nn.Linear(context_dim, self.width)
        self.basis = None if kind == "triangular" else nn.Linear(context_dim, latent_dim * rank)

    def condition(self, context: Tensor) -> Sylvester:
        """The map for each context of (..., context_dim)."""
        first, second = self.triangles(context).unflatten(-1, (2, self.width, self.width)).unbind(-3)
        r, r_tilde = bounded_triangle(first), bounded_triangle(second)
        return Sylvester(self._orthonormal(context), r, r_tilde, self.offset(context))

    def _orthonormal(self, context: Tensor) -> Tensor:
        if self.basis is None:
            identity = torch.eye(self.latent_dim, dtype=context.dtype, device=context.device)
            return identity.flip(0) if self.reverse else identity
        columns = self.basis(context).unflatten(-1, (self.latent_dim, self.rank))
        return torch.linalg.qr(columns).Q if self.kind == "orthogonal" else reflections(columns)

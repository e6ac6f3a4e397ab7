"""The map of Sylvester flows: a planar flow of higher rank with a cheap determinant.

    f(z) = z + Q R tanh(R~ Q' z + b)

    log |det df/dz| = sum_i log |1 + tanh'(a_i) R_ii R~_ii|,    a = R~ Q' z + b

Q has orthonormal columns (D, M), R and R~ are upper triangular (M, M). With |R_ii R~_ii| < 1 every factor is positive
and f is invertible, though not in closed form.

Source: van den Berg et al. 2018, "Sylvester Normalizing Flows for Variational Inference", equations 8 and 13.
"""

import torch
from pyro import distributions as dist
from torch import Tensor


class Sylvester(dist.transforms.Transform):
    """z + Q R tanh(R~ Q' z + b) for given Q, R, R~ and b. There is no inverse in closed form.

    Args:
        q: Q, orthonormal columns, shape (..., D, M).
        r: R, upper triangular, shape (..., M, M).
        r_tilde: R~, upper triangular, shape (..., M, M); every product of two diagonal elements above -1.
        b: shape (..., M).

    Example:

        >>> identity, b = torch.eye(2), torch.zeros(2)
        >>> step = Sylvester(identity, 0.5 * identity, identity, b)
        >>> z = torch.zeros(2)
        >>> step(z), step.log_abs_det_jacobian(z, step(z))  # 2 log 1.5
        (tensor([0., 0.]), tensor(0.8109))
    """

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
        raise NotImplementedError("a Sylvester flow has no inverse in closed form: it can score its own draws only")

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        """log |det df/dz| at z, shape (...)."""
        slope = 1 - self._inside(z).tanh().square()
        diagonal = self.r.diagonal(dim1=-2, dim2=-1) * self.r_tilde.diagonal(dim1=-2, dim2=-1)
        return torch.log1p(slope * diagonal).sum(-1)


def reflections(vectors: Tensor) -> Tensor:
    """The product of Householder reflections by the columns of (..., D, H): an orthogonal matrix (..., D, D).

    Example:

        >>> reflections(torch.tensor([[1.0], [0.0]]))
        tensor([[-1.,  0.],
                [ 0.,  1.]])
    """
    v = vectors / vectors.norm(dim=-2, keepdim=True)
    product = torch.eye(v.shape[-2], dtype=v.dtype, device=v.device)
    for u in v.unbind(-1):
        product = product - 2 * (product @ u.unsqueeze(-1)) * u.unsqueeze(-2)
    return product


def bounded_triangle(matrix: Tensor) -> Tensor:
    """The upper triangle of (..., M, M), with the tanh of its diagonal.

    Example:

        >>> bounded_triangle(torch.tensor([[0.0, 2.0], [3.0, 100.0]]))
        tensor([[0., 2.],
                [0., 1.]])
    """
    return matrix.triu(1) + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1).tanh())


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)

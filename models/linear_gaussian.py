"""An oracle with a known evidence and posterior: probabilistic principal component analysis.

    z ~ N(0, I)        x ~ N(W z + b, s^2 I)

For a datum with observed elements o, and W_o, b_o, x_o their rows:

    P = I + W_o' W_o / s^2        m = P^-1 W_o' (x_o - b_o) / s^2        p(z | x_o) = N(m, P^-1)

    log p(x_o) = - 1/2 [ |x_o - b_o - W_o m|^2 / s^2 + |m|^2 + log det P + |o| log(2 pi s^2) ]

The maximum of the likelihood of complete data has a closed form: b is their mean, and with eigenvalues
l_1 >= ... >= l_D and eigenvectors u_1, ..., u_D of their covariance (divided by N)

    s^2 = mean of l_{L+1}, ..., l_D        W = [u_1 sqrt(l_1 - s^2), ..., u_L sqrt(l_L - s^2)]

Source: Tipping and Bishop 1999, "Probabilistic Principal Component Analysis", equations 4 to 8; 14 and 15 for the
maximum.
"""

import math

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.distributions.missing import ObservedElements
from ppvae.engine.batch import Array
from ppvae.engine.columns import as_column
from ppvae.engine.contract import Model


class LinearGaussian(Model):
    """Probabilistic PCA; sites "z" and "x", x of shape (B, data_dim). A label y is ignored.

    Args:
        weight: W, shape (data_dim, latent_dim).
        bias: b, shape (data_dim,).
        scale: standard deviation s of the noise, above 0.
        missing: NaN elements of x are missing.

    Raises ValueError for arguments out of range.

    Example:

        >>> model = LinearGaussian(torch.tensor([[1.0], [1.0]]), torch.zeros(2), missing=True)
        >>> x = torch.tensor([[1.0, 1.0], [torch.nan, 1.0]])
        >>> model.log_evidence(x).detach()
        tensor([-2.7205, -1.5155])
        >>> model.posterior(x).mean.detach()
        tensor([[0.6667],
                [0.5000]])
    """

    def __init__(self, weight: Tensor, bias: Tensor, scale: float = 1.0, missing: bool = False):
        super().__init__()
        if weight.dim() != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(
                "expected weight (data_dim, latent_dim) and bias (data_dim,), "
                f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
            )
        if not scale > 0:
            raise ValueError(f"expected scale above 0, got {scale}")
        self.missing = missing
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        self.log_scale = nn.Parameter(torch.full_like(bias[0].detach(), scale).log())

    @classmethod
    def fit(cls, x: Array, latent_dim: int) -> "LinearGaussian":
        """The model with the largest likelihood of complete data, in closed form.

        The columns of its weight are orthogonal, and in the order of their lengths: the first d of them span the same
        space as the first d principal components, for each d.

        Args:
            x: data, a tensor or a numpy array of shape (N, data_dim), floating and finite.
            latent_dim: L, from 1 to data_dim - 1.

        Raises ValueError for other data, and for data that lie in a space of ``latent_dim`` dimensions, for which the
        likelihood has no maximum.

        Example:

            >>> x = torch.randn(1000, 1) @ torch.tensor([[3.0, 4.0]]) + torch.randn(1000, 2)
            >>> direction = LinearGaussian.fit(x, latent_dim=1).weight[:, 0].abs()
            >>> (direction / direction.norm()).detach().round(decimals=1)
            tensor([0.6000, 0.8000])
        """
        x = as_column(x, "x")
        _check_complete(x, latent_dim)
        mean = x.double().mean(0)
        centred = x.double() - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))  # in increasing order
        noise = values[:-latent_dim].mean()
        rounding = max(torch.finfo(x.dtype).eps ** 2, x.shape[1] * torch.finfo(torch.float64).eps)
        if not noise > rounding * values[-1]:
            raise ValueError(
                f"expected data that vary in more than latent_dim={latent_dim} dimensions, but the noise would have "
                "scale 0; use a smaller latent_dim or more data"
            )
        scales = (values[-latent_dim:] - noise).clamp(min=0).sqrt()
        weight = (vectors[:, -latent_dim:] * scales).flip(1)
        return cls(weight.to(x), mean.to(x), noise.sqrt().item())

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw z and observe x (B, data_dim)."""
        weight, bias, scale = self.weight, self.bias, self.log_scale.exp()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, weight.shape[1]))
            elements = dist.Normal(z @ weight.T + bias, scale)
            pyro.sample("x", ObservedElements(elements, 1) if self.missing else elements.to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), exact, shape (B,), in nats. With ``missing``: of the observed elements."""
        deviation, observed = self._observed(x)
        posterior = self._posterior(deviation, observed)
        residual = (deviation - observed * (posterior.mean @ self.weight.T)) / self.log_scale.exp()
        square = residual.square().sum(-1) + posterior.mean.square().sum(-1)
        log_determinant = -2 * posterior.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_noise = observed.sum(-1) * (math.log(2 * math.pi) + 2 * self.log_scale)
        return -0.5 * (square + log_determinant + log_noise)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x), exact, batch shape (B,). With ``missing``: given the observed elements."""
        return self._posterior(*self._observed(x))

    def _observed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x - b, 0 where x is missing, shape (B, D); and which elements are observed, 0 or 1, shape (B or 1, D)."""
        if not self.missing:
            return x - self.bias, torch.ones_like(self.bias).unsqueeze(0)
        observed = ~x.isnan()
        return torch.where(observed, x, self.bias) - self.bias, observed.to(x.dtype)

    def _posterior(self, deviation: Tensor, observed: Tensor) -> dist.MultivariateNormal:
        variance, identity = (2 * self.log_scale).exp(), torch.eye(self.weight.shape[1]).to(self.weight)
        precision = identity + self.weight.T @ (observed.unsqueeze(-1) * self.weight) / variance  # (B or 1, L, L)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        mean = (covariance @ (deviation @ self.weight / variance).unsqueeze(-1)).squeeze(-1)
        return dist.MultivariateNormal(mean, covariance)


def _check_complete(x: Tensor, latent_dim: int) -> None:
    if x.dim() != 2 or not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(
            f"expected floating data of shape (N, data_dim) without NaN or infinity, got {x.dtype} of shape "
            f"{tuple(x.shape)}; flatten images by x.flatten(1), and leave out rows with missing elements"
        )
    if not 1 <= latent_dim < x.shape[1]:
        raise ValueError(f"expected latent_dim from 1 to {x.shape[1] - 1}, got {latent_dim}")

"""An oracle with a known evidence and posterior: probabilistic principal component analysis.

    z ~ N(0, I)        x ~ N(W z + b, s^2 I)

For a datum with observed elements o, and W_o, b_o, x_o their rows:

    P = I + W_o' W_o / s^2        m = P^-1 W_o' (x_o - b_o) / s^2        p(z | x_o) = N(m, P^-1)

    log p(x_o) = - 1/2 [ |x_o - b_o - W_o m|^2 / s^2 + |m|^2 + log det P + |o| log(2 pi s^2) ]

Source: Tipping and Bishop 1999, "Probabilistic Principal Component Analysis", equations 4 to 8.
"""

import math

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.distributions.missing import ObservedElements
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

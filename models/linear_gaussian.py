"""An oracle: probabilistic principal component analysis, whose evidence and posterior are known.

    z ~ N(0, I)        x ~ N(W z + b, s^2 I)

    p(x) = N(b, W W' + s^2 I)
    p(z | x) = N(M^-1 W' (x - b), s^2 M^-1),   M = W' W + s^2 I

Source: Tipping and Bishop 1999, "Probabilistic Principal Component Analysis", equations 4 to 8.
"""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.engine.contract import Model


class LinearGaussian(Model):
    """Probabilistic PCA; sites "z" and "x", x of shape (B, data_dim).

    Args:
        weight: W, shape (data_dim, latent_dim).
        bias: b, shape (data_dim,).
        scale: standard deviation s of the noise, above 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor, scale: float = 1.0):
        super().__init__()
        if weight.dim() != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(
                "expected weight (data_dim, latent_dim) and bias (data_dim,), "
                f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
            )
        if not scale > 0:
            raise ValueError(f"expected scale above 0, got {scale}")
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        self.log_scale = nn.Parameter(torch.full_like(bias[0].detach(), scale).log())

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        weight, bias, scale = self.weight, self.bias, self.log_scale.exp()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, weight.shape[1]))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, scale).to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), exact, shape (B,), in nats."""
        noise = (2 * self.log_scale).exp() * torch.eye(len(self.bias), dtype=x.dtype, device=x.device)
        return dist.MultivariateNormal(self.bias, self.weight @ self.weight.T + noise).log_prob(x)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x), exact, batch shape (B,)."""
        variance = (2 * self.log_scale).exp()
        identity = torch.eye(self.weight.shape[1], dtype=x.dtype, device=x.device)
        inverse = torch.linalg.inv(self.weight.T @ self.weight + variance * identity)
        return dist.MultivariateNormal((x - self.bias) @ self.weight @ inverse, variance * inverse)

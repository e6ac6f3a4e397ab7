"""An oracle with a discrete latent: a mixture of spherical Gaussians.

    z ~ Categorical(pi)        x ~ N(loc_z, s_z^2 I)

    p(x) = sum_z pi_z N(x; loc_z, s_z^2 I)        p(z | x) = pi_z N(x; loc_z, s_z^2 I) / p(x)

Source: Bishop 2006, "Pattern Recognition and Machine Learning", section 9.2.
"""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.contract import Model


class GaussianMixture(Model):
    """Mixture of spherical Gaussians; sites "z" (the component) and "x", x of shape (B, data_dim). A label is ignored.

    Args:
        locs: means, shape (components, data_dim).
        scale: initial standard deviation of every component, above 0.

    Raises ValueError for arguments out of range.

    Example:

        >>> model = GaussianMixture(torch.tensor([[-1.0], [1.0]]))
        >>> model.log_evidence(torch.zeros(1, 1)).detach(), model.posterior(torch.zeros(1, 1)).probs.detach()
        (tensor([-1.4189]), tensor([[0.5000, 0.5000]]))
    """

    def __init__(self, locs: Tensor, scale: float = 1.0):
        super().__init__()
        if locs.dim() != 2 or not scale > 0:
            raise ValueError(
                f"expected locs (components, data_dim) and scale above 0, got {tuple(locs.shape)}, {scale}"
            )
        self.locs = nn.Parameter(locs.detach().clone())
        self.logits = nn.Parameter(torch.zeros_like(locs[:, 0].detach()))
        self.log_scales = nn.Parameter(torch.full_like(locs[:, 0].detach(), scale).log())

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw z and observe x (B, data_dim)."""
        logits, locs, scales = self.logits, self.locs, self.log_scales.exp()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(logits=logits))
            pyro.sample("x", dist.Normal(locs[z], scales[z].unsqueeze(-1)).to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), exact, shape (B,), in nats."""
        return self._log_joint(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> dist.Categorical:
        """p(z | x), exact, batch shape (B,)."""
        return dist.Categorical(logits=self._log_joint(x))

    def _log_joint(self, x: Tensor) -> Tensor:
        """log p(x, z) for every z, shape (B, components)."""
        component = dist.Normal(self.locs, self.log_scales.exp().unsqueeze(-1)).to_event(1)
        return self.logits.log_softmax(-1) + component.log_prob(x.unsqueeze(-2))

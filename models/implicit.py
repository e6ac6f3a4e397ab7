"""A generator: codes and noise through a network, without a density of x.

    c ~ Categorical(1/C, ..., 1/C)      k ~ U(-1, 1)^D      noise ~ N(0, I)      x = generator([onehot(c), k, noise])

Source: Goodfellow et al. 2014, "Generative Adversarial Nets"; Chen et al. 2016, "InfoGAN: Interpretable Representation
Learning by Information Maximizing Generative Adversarial Nets" (the codes).
"""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.distributions.implicit import Implicit
from ppvae.engine.contract import Model
from ppvae.errors import require_count


class ImplicitModel(Model):
    """A generator of x from a class, continuous codes and noise; sites "c", "k", "noise" and "x". A label is ignored.

    It has no density p(x | c, k, noise), and so no log p(x) and no ELBO: what reads one raises ContractError. It is
    trained by ``ppvae.train(ppvae.info_gan(model, guide, discriminator), x)``. ``ppvae.sample`` draws from it. A site
    of length 0 does not exist.

    Args:
        generator: network (..., num_classes + num_codes + noise_dim) -> (..., *event_shape), of [onehot(c), k, noise].
        num_classes: C, values of the categorical code.
        num_codes: D, length of the continuous code.
        noise_dim: length of the noise.

    Raises ValueError if all three are 0.

    Example:

        >>> from ppvae.nn import MLP
        >>> model = ImplicitModel(MLP(10 + 2 + 5, [16], (8, 8)), num_classes=10, num_codes=2, noise_dim=5)
        >>> model.generate(c=torch.arange(10), k=torch.zeros(2), noise=torch.zeros(5)).shape
        torch.Size([10, 8, 8])
    """

    def __init__(self, generator: nn.Module, num_classes: int = 0, num_codes: int = 0, noise_dim: int = 0):
        super().__init__()
        lengths = {"num_classes": num_classes, "num_codes": num_codes, "noise_dim": noise_dim}
        self.num_classes, self.num_codes, self.noise_dim = (require_count(*each, least=0) for each in lengths.items())
        if not any(lengths.values()):
            raise ValueError("expected codes or noise for the generator, got none; give num_classes=, noise_dim=")
        self.generator = generator

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw codes and noise, and observe x (B, *event_shape)."""
        latents: dict[str, Tensor] = {}
        with pyro.plate("data", len(x)):
            if self.num_classes:
                latents["c"] = pyro.sample("c", dist.Categorical(logits=x.new_zeros(self.num_classes)))
            if self.num_codes:
                end = x.new_ones(self.num_codes)
                latents["k"] = pyro.sample("k", dist.Uniform(-end, end).to_event(1))
            if self.noise_dim:
                latents["noise"] = pyro.sample("noise", standard_normal(x, self.noise_dim))
            pyro.sample("x", self._x(latents), obs=x)

    def generate(self, **latents: Tensor) -> Tensor:
        """x, (..., *event_shape), for c (...), k (..., D) and noise (..., noise_dim), each that the model has.

        Their leading dimensions broadcast.
        """
        return self._x(latents).mean

    def _x(self, latents: dict[str, Tensor]) -> Implicit:
        """p(x | c, k, noise): what the generator gives."""
        joint = self._joint(latents)
        x = self.generator(joint)
        return Implicit(x, event_dim=x.dim() - (joint.dim() - 1))

    def _joint(self, latents: dict[str, Tensor]) -> Tensor:
        """[onehot(c), k, noise], (..., C + D + noise_dim)."""
        parts = [latents[name] for name in ("k", "noise") if name in latents]
        if "c" in latents:
            template = parts[0] if parts else next(self.generator.parameters())
            one_hot = torch.eye(self.num_classes, dtype=template.dtype, device=template.device)
            parts.insert(0, one_hot[latents["c"]])
        leading = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*leading, part.shape[-1]) for part in parts], -1)

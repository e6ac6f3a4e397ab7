"""A guide for one discrete latent.

q(z | x) = Categorical(softmax(network(x))), enumerated and summed exactly.
"""

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.contract import Guide


class CategoricalGuide(Guide):
    """Categorical q(z | x); site "z". A label y is ignored.

    Args:
        network: (B, *event_shape) -> (B, components) logits.

    Example:

        >>> import torch
        >>> CategoricalGuide(nn.Linear(5, 3))(torch.zeros(4, 5))  # inside a Pyro trace it draws z
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw site "z" for x of shape (B, *event_shape)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=self.network(x)), infer={"enumerate": "parallel"})

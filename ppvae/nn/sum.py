"""A network that adds the outputs of others."""

from torch import Tensor, nn


class Sum(nn.Module):
    """f_1(x) + f_2(x) + ...: (..., *in_shape) -> (..., *out_shape). With a linear f_2 it is f_1 with a linear shortcut.

    If the last layer of f_1 starts at 0, the sum starts as the linear map, at the principal components for example.

    Args:
        networks: networks of the same inputs with outputs of the same shape, at least one.

    Raises ValueError without a network, and for outputs of different shapes.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition".

    Example:

        >>> import torch
        >>> from ppvae.nn import MLP
        >>> Sum(MLP((8, 8), [32, 32], 4), MLP((8, 8), [], 4))(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 4])
    """

    def __init__(self, *networks: nn.Module):
        super().__init__()
        if not networks:
            raise ValueError("expected at least one network to add, got none")
        self.networks = nn.ModuleList(networks)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sum of the networks' outputs."""
        outputs = [network(*inputs) for network in self.networks]
        shapes = [tuple(output.shape) for output in outputs]
        if len(set(shapes)) > 1:
            raise ValueError(f"expected outputs of one shape, got {shapes}; give the networks the same out_shape")
        return sum(outputs[1:], start=outputs[0])

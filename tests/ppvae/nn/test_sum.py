"""A network that adds the outputs of others."""

import pytest
import torch

from ppvae.nn import MLP, Sum


def test_sum_adds_the_outputs_and_trains_every_network():
    torch.manual_seed(0)
    networks = MLP((2, 3), [7], 4), MLP((2, 3), [], 4), MLP((2, 3), [5, 5], 4)
    x = torch.randn(6, 2, 3)
    output = Sum(*networks)(x)
    torch.testing.assert_close(output, networks[0](x) + networks[1](x) + networks[2](x))
    output.sum().backward()
    assert all(parameter.grad is not None for network in networks for parameter in network.parameters())


def test_sum_with_a_last_layer_of_0_is_the_linear_map():
    network, line = MLP(3, [7], 4), MLP(3, [], 4)
    torch.nn.init.zeros_(network.layers[-1].weight)
    torch.nn.init.zeros_(network.layers[-1].bias)
    x = torch.randn(6, 3)
    torch.testing.assert_close(Sum(network, line)(x), line(x), rtol=0, atol=0)


def test_sum_refuses_outputs_of_different_shapes():
    with pytest.raises(ValueError, match=r"expected outputs of one shape, got \[\(5, 4\), \(5, 1\)\]"):
        Sum(MLP(3, [], 4), MLP(3, [], 1))(torch.zeros(5, 3))


def test_sum_refuses_no_network():
    with pytest.raises(ValueError, match="expected at least one network to add, got none"):
        Sum()

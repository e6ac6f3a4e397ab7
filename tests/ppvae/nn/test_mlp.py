"""Fully connected networks with labels."""

import pytest
import torch
from torch import nn

from ppvae.nn import LabelledLinear, LabelledMLP


def test_labelled_linear_equals_a_layer_of_the_concatenation():
    torch.manual_seed(0)
    layer = LabelledLinear(5, 3, 7)
    x, y = torch.randn(4, 5), torch.tensor([0, 2, 1, 2])
    weight = torch.cat([layer.linear.weight, layer.embedding.weight.T], 1)
    expected = torch.cat([x, nn.functional.one_hot(y, 3).float()], 1) @ weight.T + layer.linear.bias
    torch.testing.assert_close(layer(x, y), expected)


def test_labelled_mlp_multiplies_x_once_for_all_classes():
    network = LabelledMLP(5, 3, [7], 2)
    rows = []
    network.first.linear.register_forward_hook(lambda module, args, output: rows.append(args[0].numel() // 5))
    x = torch.randn(4, 5)
    output = network(x, torch.arange(3).reshape(3, 1, 1))
    assert rows == [4]
    assert output.shape == (3, 1, 4, 2)
    torch.testing.assert_close(output[1, 0], network(x, torch.ones(4, dtype=torch.long)))


def test_labelled_mlp_refuses_to_have_no_hidden_layer():
    with pytest.raises(ValueError, match="at least one hidden layer"):
        LabelledMLP(3, 2, [], 4)

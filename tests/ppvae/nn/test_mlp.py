"""Fully connected networks with labels, or with several inputs."""

import pytest
import torch
from torch import nn

from ppvae.nn import MLP, AppendLabel, Classes, ConvDecoder, JointMLP, LabelledLinear, LabelledMLP


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


def test_append_label_is_the_network_of_the_concatenation():
    torch.manual_seed(0)
    network = MLP(5 + 3, [7], (2, 2)).double()
    x, y = torch.randn(2, 4, 5).double(), torch.tensor([0, 2, 1, 2])
    label = nn.functional.one_hot(y, 3).double().expand(2, -1, -1)
    torch.testing.assert_close(AppendLabel(network, 3)(x, y), network(torch.cat([x, label], -1)))


def test_append_label_runs_a_convolutional_decoder_for_each_class():
    network = AppendLabel(ConvDecoder(2 + 3, [4, 4], (8, 8)), 3)
    z = torch.randn(6, 2)
    output = network(z, torch.arange(3).reshape(3, 1, 1))
    assert output.shape == (3, 1, 6, 8, 8)
    torch.testing.assert_close(output[1, 0], network(z, torch.ones(6, dtype=torch.long)))
    assert not torch.allclose(output[0], output[1])


def test_labelled_mlp_refuses_to_have_no_hidden_layer():
    with pytest.raises(ValueError, match="at least one hidden layer"):
        LabelledMLP(3, 2, [], 4)


@pytest.mark.parametrize("hidden", [[], [16, 8]])
def test_joint_mlp_is_the_mlp_of_the_concatenated_inputs(hidden):
    torch.manual_seed(0)
    joint, plain = JointMLP([3, (2, 4)], hidden, (2, 2)), MLP(3 + 8, hidden, (2, 2))
    first, *rest = [layer for layer in plain.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        first.weight.copy_(torch.cat([part.weight for part in joint.first], 1))
        first.bias.copy_(joint.first[0].bias)
        for mine, theirs in zip(
            rest, (part for part in joint.rest.modules() if isinstance(part, nn.Linear)), strict=True
        ):
            mine.load_state_dict(theirs.state_dict())
    z, c = torch.randn(7, 5, 3), torch.randn(5, 2, 4)
    concatenated = torch.cat([z, c.flatten(1).expand(7, 5, 8)], -1)
    torch.testing.assert_close(joint(z, c), plain(concatenated))


def test_joint_mlp_starts_in_the_range_of_the_mlp_of_the_concatenated_inputs():
    weights = torch.cat([part.weight for part in JointMLP([30, 70], [50], 1).first], 1)
    assert weights.abs().max() <= 0.1
    assert weights.abs().max() > 0.099


def test_joint_mlp_refuses_another_number_of_inputs_and_other_shapes():
    with pytest.raises(ValueError, match="expected 2 inputs, got 1"):
        JointMLP([3, 4], [8], 2)(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"expected an input of shape \(\.\.\., 2, 4\), got \(5, 8\)"):
        JointMLP([3, (2, 4)], [8], 2)(torch.zeros(5, 3), torch.zeros(5, 8))


def test_joint_mlp_of_a_class_is_the_network_of_the_one_hot_vector():
    torch.manual_seed(0)
    labelled, plain = JointMLP([3, Classes(4)], [16], 2), JointMLP([3, 4], [16], 2)
    with torch.no_grad():
        for mine, theirs in zip(plain.first, labelled.first, strict=True):
            mine.weight.copy_(theirs.weight.T if isinstance(theirs, nn.Embedding) else theirs.weight)
        plain.first[0].bias.copy_(labelled.first[0].bias)
    plain.rest.load_state_dict(labelled.rest.state_dict())
    x, y = torch.randn(5, 3), torch.tensor([0, 3, 1, 1, 2])
    torch.testing.assert_close(labelled(x, y), plain(x, nn.functional.one_hot(y, 4).float()))


def test_joint_mlp_multiplies_each_input_once_for_all_classes():
    network = JointMLP([2, (2, 3), Classes(4)], [7], 2)
    rows = []
    for layer, length in zip(network.first[:2], (2, 6), strict=True):
        layer.register_forward_hook(lambda _, args, output, n=length: rows.append(args[0].numel() // n))
    a, x = torch.randn(8, 5, 2), torch.randn(5, 2, 3)
    output = network(a, x, torch.arange(4).reshape(4, 1, 1))
    assert rows == [8 * 5, 5]
    assert output.shape == (4, 8, 5, 2)
    torch.testing.assert_close(output[1], network(a, x, torch.ones(5, dtype=torch.long)))


def test_joint_mlp_starts_in_the_range_of_the_network_of_the_one_hot_vector():
    parts = [layer.weight.flatten() for layer in JointMLP([Classes(30), 70], [50], 1).first]
    assert torch.cat(parts).abs().max() <= 0.1
    assert min(part.abs().max() for part in parts) > 0.099


def test_classes_refuses_none():
    with pytest.raises(ValueError, match="at least one class, got 0"):
        Classes(0)

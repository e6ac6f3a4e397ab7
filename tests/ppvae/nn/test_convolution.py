"""Convolutional networks: image shapes and the layout of their weights."""

import pytest
import torch
from torch import nn

from ppvae.nn import ConvClassifier, ConvDecoder, ConvEncoder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvEncoder((28, 28), [4, 4, 4], 2), r"multiples of 8, got \(28, 28\)"),
        (lambda: ConvDecoder(2, [4], (8,)), r"expected \(H, W\) or \(C, H, W\)"),
        (lambda: ConvClassifier((6, 8), 10), r"multiples of 4, got \(6, 8\)"),
    ],
)
def test_convolutions_refuse_image_shapes_that_cannot_be_halved(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("network", [ConvEncoder((8, 8), [4, 8], 6), ConvDecoder(5, [8, 4], (8, 8))])
def test_convolutions_have_contiguous_weights(network):
    """Pyro's parameter store copies weights that are not contiguous, and a stock SVI loop would train the copy."""
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_conv_decoder_normalises_before_each_nonlinearity():
    network = ConvDecoder(3, [8, 4], (8, 8), normalisation=nn.BatchNorm2d)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["Linear", "Sequential", *["BatchNorm2d", "ReLU", "ConvTranspose2d"] * 2]
    assert network(torch.randn(2, 5, 3)).shape == (2, 5, 8, 8)
    assert network.layers[2].num_batches_tracked == 1
    assert "BatchNorm2d" not in [type(layer).__name__ for layer in ConvDecoder(3, [8, 4], (8, 8)).layers]

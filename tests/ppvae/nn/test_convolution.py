"""Convolutional networks: image shapes and the layout of their weights."""

import pytest

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

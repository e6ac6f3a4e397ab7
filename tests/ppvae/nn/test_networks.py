"""Every network takes any leading dimensions and treats each event alike."""

import pytest
import torch

from ppvae.nn import MLP, ConvClassifier, ConvDecoder, ConvEncoder

NETWORKS = {
    "mlp": (lambda: MLP((4, 3), [8, 8], (2, 5)), (4, 3), (2, 5)),
    "linear": (lambda: MLP(4, [], 3), (4,), (3,)),
    "encoder 28": (lambda: ConvEncoder((28, 28), [4, 8], 6), (28, 28), (6,)),
    "encoder 8": (lambda: ConvEncoder((8, 8), [4, 8, 8], 6), (8, 8), (6,)),
    "decoder 28": (lambda: ConvDecoder(5, [8, 4], (28, 28)), (5,), (28, 28)),
    "decoder 8": (lambda: ConvDecoder(5, [8, 8, 4], (8, 8)), (5,), (8, 8)),
    "encoder of colours": (lambda: ConvEncoder((3, 8, 8), [4, 8], 6, hidden=[5]), (3, 8, 8), (6,)),
    "decoder of colours": (lambda: ConvDecoder(5, [8, 4], (3, 8, 8), hidden=[7, 6]), (5,), (3, 8, 8)),
    "classifier of colours": (lambda: ConvClassifier((3, 8, 8), 10, width=2), (3, 8, 8), (10,)),
    "classifier 28": (lambda: ConvClassifier((28, 28), 10, width=2), (28, 28), (10,)),
    "classifier 8": (lambda: ConvClassifier((8, 8), 10, width=2), (8, 8), (10,)),
}


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (4, 1, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_any_leading_dimensions(name, leading):
    make, in_shape, out_shape = NETWORKS[name]
    network = make().double().eval()
    x = torch.rand(*leading, *in_shape).double()
    output = network(x)
    assert output.shape == (*leading, *out_shape)
    one_by_one = [network(event) for event in x.reshape(-1, *in_shape)]
    torch.testing.assert_close(output.reshape(-1, *out_shape), torch.stack(one_by_one))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_refuse_an_input_of_another_shape(name):
    make, in_shape, _ = NETWORKS[name]
    with pytest.raises(ValueError, match=rf"expected an input of shape \(\.\.\., {in_shape[0]}.*got \(2, 77\)"):
        make()(torch.zeros(2, 77))

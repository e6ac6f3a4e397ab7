"""Networks take any leading dimensions, and treat each event alike."""

import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from torch import nn

import ppvae
from ppvae.nn import MLP, Autocast, ConvClassifier, ConvDecoder, ConvEncoder, LabelledLinear, LabelledMLP, RandomWarp

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
def test_any_leading_dimensions(name, leading):
    make, in_shape, out_shape = NETWORKS[name]
    network = make().double().eval()
    x = torch.rand(*leading, *in_shape).double()
    output = network(x)
    assert output.shape == (*leading, *out_shape)
    one_by_one = [network(event) for event in x.reshape(-1, *in_shape)]
    torch.testing.assert_close(output.reshape(-1, *out_shape), torch.stack(one_by_one))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_input_of_the_wrong_shape_is_named(name):
    make, in_shape, _ = NETWORKS[name]
    with pytest.raises(ValueError, match=rf"expected an input of shape \(\.\.\., {in_shape[0]}.*got \(2, 77\)"):
        make()(torch.zeros(2, 77))


def test_labelled_linear_is_the_layer_on_the_concatenation():
    torch.manual_seed(0)
    layer = LabelledLinear(5, 3, 7)
    x, y = torch.randn(4, 5), torch.tensor([0, 2, 1, 2])
    weight = torch.cat([layer.linear.weight, layer.embedding.weight.T], 1)
    expected = torch.cat([x, nn.functional.one_hot(y, 3).float()], 1) @ weight.T + layer.linear.bias
    torch.testing.assert_close(layer(x, y), expected)


def test_labelled_network_multiplies_x_once_for_all_classes():
    network = LabelledMLP(5, 3, [7], 2)
    rows = []
    network.first.linear.register_forward_hook(lambda module, args, output: rows.append(args[0].numel() // 5))
    x = torch.randn(4, 5)
    output = network(x, torch.arange(3).reshape(3, 1, 1))
    assert rows == [4]
    assert output.shape == (3, 1, 4, 2)
    torch.testing.assert_close(output[1, 0], network(x, torch.ones(4, dtype=torch.long)))


def test_a_warp_is_random_in_training_and_absent_in_evaluation():
    torch.manual_seed(0)
    warp, x = RandomWarp(), torch.rand(5, 28, 28)
    first = warp(x)
    assert first.shape == x.shape
    assert not torch.equal(first, warp(x))
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(warp.eval()(x), x)


def test_a_warp_of_nothing_is_the_identity():
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(RandomWarp(0, 0, 0, 0, 0)(x), x, rtol=0, atol=1e-5)


def test_a_shift_moves_each_image_by_itself_and_no_further_than_said():
    torch.manual_seed(0)
    x = torch.zeros(200, 28, 28)
    x[:, 14, 14] = 1
    moved = RandomWarp(0, 0, 0, shift=2 / 28, elastic=0)(x)
    rows = torch.arange(28.0)
    centre = (moved.sum(2) @ rows) / moved.sum((1, 2))
    assert (centre - 14).abs().max() < 2.01
    assert centre.std() > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelledMLP(3, 2, [], 4), "at least one hidden layer"),
        (lambda: ConvEncoder((28, 28), [4, 4, 4], 2), r"multiples of 8, got \(28, 28\)"),
        (lambda: ConvDecoder(2, [4], (8,)), r"expected \(H, W\) or \(C, H, W\)"),
    ],
)
def test_architectures_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_autocast_gives_float32_to_within_bfloat16():
    torch.manual_seed(0)
    network = MLP(20, [50], (3, 4))
    x = torch.randn(7, 20)
    short = Autocast(network)(x)
    exact = network(x)
    assert short.dtype == torch.float32
    error = (short - exact).abs().max()
    assert 0 < error < 50 * 2**-8 * exact.abs().max()  # at worst each of 50 products is off by 2^-8
    short.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_a_pair_with_an_autocast_decoder_is_scored_in_float32():
    torch.manual_seed(0)
    decoder, guide = MLP(2, [16], (8, 8)), MeanFieldGaussian(MLP((8, 8), [16], 4))
    x = torch.rand(5, 8, 8).round()
    exact, short = (
        ppvae.log_marginal(GaussianVAE(net, 2), guide, x, num_particles=100).value
        for net in (decoder, Autocast(decoder))
    )
    # a sum of about 44 nats in bfloat16 would be off by as much as 0.25 (half its spacing: 0.125)
    assert 0 < (exact - short).abs().max() < 0.05

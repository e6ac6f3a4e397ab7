"""Products in bfloat16, densities in float32."""

import torch

import ppvae
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP, Autocast


def test_autocast_gives_float32_to_within_bfloat16_rounding():
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


def test_log_marginal_with_an_autocast_decoder_is_close_to_float32():
    torch.manual_seed(0)
    decoder, guide = MLP(2, [16], (8, 8)), MeanFieldGaussian(MLP((8, 8), [16], 4))
    x = torch.rand(5, 8, 8).round()
    exact, short = (
        ppvae.log_marginal(GaussianVAE(net, 2), guide, x, num_particles=100).value
        for net in (decoder, Autocast(decoder))
    )
    # a sum of about 44 nats in bfloat16 would be off by as much as 0.25 (half its spacing: 0.125)
    assert 0 < (exact - short).abs().max() < 0.05

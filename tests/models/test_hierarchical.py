"""The model of several layers: its log joint density against the sum written by hand."""

import torch
from pyro import distributions as dist
from pyro import poutine

from ppvae.distributions.likelihoods import Gaussian
from ppvae.models import HierarchicalVAE
from ppvae.nn import MLP


def hierarchical(**options):
    torch.manual_seed(0)
    return HierarchicalVAE(MLP(3, [8], (2, 4)), [MLP(2, [8], 2 * 3), MLP(1, [], 2 * 2)], top_dim=1, **options).double()


def test_hierarchical_vae_draws_its_layers_from_the_top():
    traced = poutine.trace(hierarchical()).get_trace(torch.zeros(5, 2, 4).double())
    shapes = {name: tuple(traced.nodes[name]["value"].shape) for name in ("z3", "z2", "z1", "x")}
    assert shapes == {"z3": (5, 1), "z2": (5, 2), "z1": (5, 3), "x": (5, 2, 4)}
    assert traced.stochastic_nodes == ["data", "z3", "z2", "z1"]
    assert traced.observation_nodes == ["x"]


def test_log_joint_of_a_hierarchical_vae_is_the_sum_over_its_layers():
    model = hierarchical()
    x = torch.rand(5, 2, 4).double().round()
    z = {f"z{layer}": torch.randn(5, size).double() for layer, size in ((1, 3), (2, 2), (3, 1))}
    traced = poutine.trace(poutine.condition(model, z)).get_trace(x)
    expected = dist.Normal(0.0, 1.0).log_prob(z["z3"]).sum()
    for layer in (1, 2):
        loc, log_scale = model.conditionals[layer - 1](z[f"z{layer + 1}"]).chunk(2, -1)
        expected = expected + dist.Normal(loc, log_scale.exp()).log_prob(z[f"z{layer}"]).sum()
    p = model.decoder(z["z1"]).sigmoid()
    expected = expected + (x * p.log() + (1 - x) * (1 - p).log()).sum()
    torch.testing.assert_close(traced.log_prob_sum(), expected)


def test_hierarchical_vae_without_conditionals_has_one_layer():
    model = HierarchicalVAE(MLP(2, [], 4), [], top_dim=2)
    assert poutine.trace(model).get_trace(torch.zeros(3, 4)).stochastic_nodes == ["data", "z1"]


def test_hierarchical_vae_decodes_by_its_likelihood():
    model = hierarchical(likelihood=Gaussian(0.5))
    z = torch.randn(7, 5, 3).double()
    decoded = model.decode(z, event_dim=2)
    assert (decoded.batch_shape, decoded.event_shape) == ((7, 5), (2, 4))
    torch.testing.assert_close(decoded.mean, model.decoder(z))

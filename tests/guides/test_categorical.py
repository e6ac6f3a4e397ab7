"""The guide of one discrete latent."""

import torch
from pyro import poutine

import ppvae
from ppvae.guides import CategoricalGuide
from ppvae.models import GaussianMixture
from ppvae.nn import MLP


def test_categorical_guide_has_the_softmax_of_its_network_over_the_components():
    torch.manual_seed(0)
    guide, x = CategoricalGuide(MLP(5, [], 3)), torch.randn(4, 5)
    site = poutine.trace(guide).get_trace(x).nodes["z"]
    assert site["fn"].batch_shape == (4,)
    torch.testing.assert_close(site["fn"].probs, guide.network(x).softmax(-1))


def test_categorical_guide_enumerates_all_components():
    guide, x = CategoricalGuide(MLP(5, [], 3)), torch.randn(4, 5)
    site = poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace(x).nodes["z"]
    assert site["value"].flatten().tolist() == [0, 1, 2]


def test_elbo_of_a_categorical_guide_is_the_sum_over_the_components():
    torch.manual_seed(0)
    model, guide = GaussianMixture(torch.randn(3, 5)).double(), CategoricalGuide(MLP(5, [], 3)).double()
    x = torch.randn(4, 5).double()
    q = guide.network(x).softmax(-1)
    joint = torch.stack([log_joint(model, x, torch.full((4,), k)) for k in range(3)], -1)
    expected = -(q * (joint - q.log())).sum(-1)
    torch.testing.assert_close(ppvae.ELBO().per_datum(ppvae.draw(model, guide, x)), expected)


def log_joint(model, x, z):
    traced = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    traced.compute_log_prob()
    return traced.nodes["z"]["log_prob"] + traced.nodes["x"]["log_prob"]

"""The M2 model: its log joint density against the sum written by hand, with and without labels."""

import math

import torch
from pyro import distributions as dist
from pyro import poutine

from ppvae.models import SemiSupervisedVAE
from ppvae.nn import LabelledMLP


def semi_supervised():
    torch.manual_seed(0)
    return SemiSupervisedVAE(LabelledMLP(2, 3, [8], (2, 4)), latent_dim=2, num_classes=3).double()


X, Y = torch.linspace(0, 1, 32).double().round().reshape(4, 2, 4), torch.tensor([0, 2, 1, 2])


def test_semi_supervised_vae_observes_the_labels_that_are_given():
    unlabelled, labelled = (poutine.trace(semi_supervised()).get_trace(X, y) for y in (None, Y))
    assert unlabelled.stochastic_nodes == ["data", "y", "z"]
    assert labelled.stochastic_nodes == ["data", "z"]
    assert labelled.observation_nodes == ["y", "x"]
    assert labelled.nodes["y"]["value"] is Y


def test_log_joint_of_a_semi_supervised_vae_is_that_of_label_style_and_data():
    model = semi_supervised()
    z = torch.randn(4, 2).double()
    p = model.decoder(z, Y).sigmoid()
    expected = -4 * math.log(3) + dist.Normal(0.0, 1.0).log_prob(z).sum()
    expected = expected + (X * p.log() + (1 - X) * (1 - p).log()).sum()
    given = poutine.trace(poutine.condition(model, {"z": z})).get_trace(X, Y)
    drawn = poutine.trace(poutine.condition(model, {"z": z, "y": Y})).get_trace(X)
    for traced in (given, drawn):
        torch.testing.assert_close(traced.log_prob_sum(), expected)


def test_semi_supervised_vae_decodes_all_classes_at_once():
    model, z = semi_supervised(), torch.randn(4, 2).double()
    decoded = model.decode(z, torch.arange(3).reshape(3, 1), event_dim=2)
    assert (decoded.batch_shape, decoded.event_shape) == ((3, 4), (2, 4))
    one = model.decode(z, torch.ones(4, dtype=torch.long), event_dim=2)
    torch.testing.assert_close(decoded.mean[1], one.mean)

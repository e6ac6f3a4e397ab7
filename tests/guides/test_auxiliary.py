"""The guide of a class, a style and an auxiliary variable: which sites it draws, and from what."""

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

import ppvae
from ppvae.distributions.gaussians import diagonal_normal
from ppvae.guides import AuxiliaryGuide
from ppvae.nn import Classes, JointMLP
from tests.catalogue import PAIRS

X = torch.linspace(-1, 1, 10).reshape(2, 5)
Y = torch.tensor([0, 2])


def guide():
    torch.manual_seed(0)
    return AuxiliaryGuide(nn.Linear(5, 4), JointMLP([2, 5], [8], 3), JointMLP([2, 5, Classes(3)], [8], 6))


def latents(guide, *labels):
    """Latent sites, with all classes of y enumerated on the left of the data."""
    traced = poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace(X, *labels)
    return {name: node for name, node in traced.nodes.items() if node["type"] == "sample" and name != "data"}


def test_auxiliary_guide_draws_no_label_when_it_is_given():
    assert list(latents(guide(), Y)) == ["a", "z"]


def test_auxiliary_guide_draws_auxiliary_variable_then_label_then_style():
    q = guide()
    sites = latents(q)
    assert list(sites) == ["a", "y", "z"]
    a = sites["a"]["value"]
    assert a.shape == (2, 2)
    torch.testing.assert_close(sites["a"]["fn"].mean, diagonal_normal(q.auxiliary(X)).mean)
    assert sites["y"]["value"].flatten().tolist() == [0, 1, 2]
    torch.testing.assert_close(sites["y"]["fn"].probs, q.classifier(a, X).softmax(-1))


def test_auxiliary_guide_has_a_style_for_each_class_at_the_same_auxiliary_variable():
    q = guide()
    sites = latents(q)
    a, styles = sites["a"]["value"], sites["z"]["fn"]
    assert styles.batch_shape == (3, 2)
    for y, mean in enumerate(styles.mean):
        torch.testing.assert_close(mean, diagonal_normal(q.encoder(a, X, torch.full((2,), y))).mean)
    assert not torch.allclose(styles.mean[0], styles.mean[1])


def test_networks_read_x_once_for_all_classes_and_particles():
    _, q, x = PAIRS["adgm"].make()
    rows = []
    for network in (q.classifier, q.encoder):
        network.first[1].register_forward_hook(lambda _, args, output: rows.append(len(args[0])))
    with pyro.plate("particles", 7, dim=-2):
        traced = poutine.trace(poutine.enum(q, first_available_dim=-3)).get_trace(x)
    assert rows == [6, 6]
    assert traced.nodes["z"]["value"].shape == (4, 7, 6, 3)


def test_dreg_takes_labelled_data_and_refuses_styles_of_each_class():
    model, q, x = PAIRS["sdgm"].make()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    losses = []
    for objective in (ppvae.DReG(3), ppvae.IWAE(3)):
        torch.manual_seed(0)
        losses.append(objective.loss(model, q, x, y))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    with pytest.raises(ppvae.ContractError, match="all drawn for the same enumerated sites"):
        ppvae.DReG(3).loss(model, q, x)

"""Guides for several layers: the order of their sites, and what each layer reads."""

import pytest
import torch
from pyro import poutine
from torch import nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.guides import BottomUpGuide, TopDownGuide

X = torch.linspace(-1, 1, 20).double().reshape(4, 5)


def bottom_up():
    torch.manual_seed(0)
    return BottomUpGuide([nn.Linear(5, 2 * 3), nn.Linear(3, 2 * 2), nn.Linear(2, 2 * 1)]).double()


def top_down():
    torch.manual_seed(0)
    up = [nn.Linear(5, 8), nn.Linear(8, 7), nn.Linear(7, 6)]
    heads = [nn.Linear(2 + 8, 2 * 3), nn.Linear(1 + 7, 2 * 2), nn.Linear(6, 2 * 1)]
    return TopDownGuide(up, heads).double()


def latents(guide):
    """Latent sites of a trace, in the order in which they are drawn."""
    traced = poutine.trace(guide).get_trace(X)
    return {name: node for name, node in traced.nodes.items() if node["type"] == "sample" and name != "data"}


@pytest.mark.parametrize(("make", "order"), [(bottom_up, ["z1", "z2", "z3"]), (top_down, ["z3", "z2", "z1"])])
def test_guides_of_several_layers_draw_them_in_their_order(make, order):
    sites = latents(make())
    assert list(sites) == order
    shapes = {"z1": (4, 3), "z2": (4, 2), "z3": (4, 1)}
    assert {name: tuple(site["value"].shape) for name, site in sites.items()} == shapes


def test_layers_of_a_bottom_up_guide_depend_on_the_layer_below_alone():
    guide = bottom_up()
    sites = latents(guide)
    below = [X, sites["z1"]["value"], sites["z2"]["value"]]
    for layer, (encoder, value) in enumerate(zip(guide.encoders, below, strict=True), 1):
        assert_same_gaussian(sites[f"z{layer}"]["fn"], diagonal_normal(encoder(value)))


def test_layers_of_a_top_down_guide_depend_on_the_layer_above_and_on_their_features():
    guide = top_down()
    sites = latents(guide)
    h1 = guide.up[0](X)
    h2 = guide.up[1](h1)
    inputs = {
        "z3": guide.up[2](h2),
        "z2": torch.cat([sites["z3"]["value"], h2], -1),
        "z1": torch.cat([sites["z2"]["value"], h1], -1),
    }
    for head, name in zip(guide.heads, ("z1", "z2", "z3"), strict=True):
        assert_same_gaussian(sites[name]["fn"], diagonal_normal(head(inputs[name])))


def test_top_down_guide_refuses_another_number_of_heads():
    with pytest.raises(ValueError, match="as many heads as networks up, got 1 and 2"):
        TopDownGuide([nn.Linear(5, 8), nn.Linear(8, 8)], [nn.Linear(8, 2)])


def assert_same_gaussian(found, expected):
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.variance, expected.variance)

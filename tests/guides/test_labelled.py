"""Guides of a class and a style: which sites they draw, and from what."""

import pytest
import torch
from pyro import poutine
from torch import nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.guides import LabelGuide, LabelStyleGuide
from ppvae.guides.labelled import sample_label
from ppvae.nn import LabelledMLP

X = torch.linspace(-1, 1, 10).reshape(2, 5)
Y = torch.tensor([0, 2])
GUIDES = {
    "LabelGuide": lambda: LabelGuide(nn.Linear(5, 3), nn.Linear(5, 4)),
    "LabelStyleGuide": lambda: LabelStyleGuide(nn.Linear(5, 3), LabelledMLP(5, 3, [8], 4)),
}


def latents(guide, *labels):
    """Latent sites, with all classes of y enumerated on the left of the data."""
    traced = poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace(X, *labels)
    return {name: node for name, node in traced.nodes.items() if node["type"] == "sample" and name != "data"}


@pytest.mark.parametrize("name", GUIDES)
def test_label_guides_draw_no_label_when_it_is_given(name):
    assert list(latents(GUIDES[name](), Y)) == ["z"]


@pytest.mark.parametrize("name", GUIDES)
def test_label_guides_enumerate_the_classes_of_their_classifier(name):
    guide = GUIDES[name]()
    sites = latents(guide)
    assert list(sites) == ["y", "z"]
    assert sites["y"]["value"].flatten().tolist() == [0, 1, 2]
    torch.testing.assert_close(sites["y"]["fn"].probs, guide.classifier(X).softmax(-1))


def test_label_guide_has_one_style_for_all_classes():
    guide = GUIDES["LabelGuide"]()
    q = latents(guide)["z"]["fn"]
    assert q.batch_shape == (2,)
    torch.testing.assert_close(q.mean, diagonal_normal(guide.encoder(X)).mean)


def test_label_style_guide_has_a_style_for_each_class():
    torch.manual_seed(0)
    guide = GUIDES["LabelStyleGuide"]()
    enumerated = latents(guide)["z"]["fn"]
    assert enumerated.batch_shape == (3, 2)
    for y, mean in enumerate(enumerated.mean):
        torch.testing.assert_close(mean, latents(guide, torch.full((2,), y))["z"]["fn"].mean)
    assert not torch.allclose(enumerated.mean[0], enumerated.mean[1])


def test_sample_label_gives_back_the_labels_that_are_given():
    assert sample_label(nn.Linear(5, 3), X, Y) is Y

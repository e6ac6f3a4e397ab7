"""Codes moved one element at a time."""

import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE

import ppvae
from ppvae import plots
from ppvae.nn import MLP
from tests.catalogue import PAIRS


def pair():
    torch.manual_seed(0)
    return GaussianVAE(MLP(3, [8], (4, 4)), 3).double(), MeanFieldGaussian(MLP((4, 4), [8], 6)).double()


def test_each_image_is_the_decoders_at_the_moved_code():
    model, guide = pair()
    x = torch.rand(1, 4, 4).round().double()
    values = (-1.0, 0.5)
    images = ppvae.traversals(model, guide, x, values=values)
    assert images.shape == (3, 2, 4, 4)
    mean = ppvae.features(guide, x)[0]
    for d in range(3):
        for v, value in enumerate(values):
            z = mean.clone()
            z[d] = value
            torch.testing.assert_close(images[d, v], model.decode(z, 2).mean)


def test_a_latent_beside_others_is_moved_while_they_stay():
    model, guide, x = PAIRS["user"].make()
    images = ppvae.traversals(model, guide, x[:1], site="shape", values=(0.3, 0.3, 1.0))
    assert images.shape == (2, 3, 5)
    torch.testing.assert_close(images[:, 0], images[:, 1])
    assert (images[:, 0] - images[:, 2]).abs().max() > 1e-3


def test_more_than_one_datum_is_refused():
    model, guide = pair()
    with pytest.raises(ppvae.ContractError, match="expected one datum"):
        ppvae.traversals(model, guide, torch.zeros(2, 4, 4).double())


def test_a_posterior_without_a_formula_for_its_mean_is_refused():
    model, guide, x = PAIRS["flow_planar"].make()
    with pytest.raises(ppvae.ContractError, match="formula for its mean"):
        ppvae.traversals(model, guide, x[:1])


def test_discrete_sites_are_refused():
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match="without discrete sites"):
        ppvae.traversals(model, guide, x[:1])


@pytest.mark.parametrize("colours", [(), (3,)])
def test_an_animation_goes_there_and_back(colours, tmp_path):
    from PIL import Image

    images = torch.rand(2, 4, *colours, 5, 6)
    plots.animate(images, tmp_path / "a.gif", scale=2)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 6
        assert picture.size == (2 * 6 * 2, 5 * 2)

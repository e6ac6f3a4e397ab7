"""Images along grids and paths of codes."""

import math

import numpy as np
import pytest
import torch

from ppvae import plots
from ppvae.plots.manifold import path


def sheet(figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_latent_manifold_places_codes_at_quantiles_of_the_prior():
    seen = []
    plots.latent_manifold(lambda z: seen.append(z) or torch.zeros(len(z), 2, 2), size=5)
    (codes,) = seen
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    torch.testing.assert_close(codes.reshape(5, 5, 2)[2, :, 0], quantiles)
    torch.testing.assert_close(codes.reshape(5, 5, 2)[:, 1, 1], quantiles.flip(0))  # the first row is the highest


def test_latent_manifold_moves_to_the_codes_of_an_autoencoder():
    seen, loc, scale = [], torch.tensor([3.0, -1.0]).double(), torch.tensor([2.0, 0.5])
    plots.latent_manifold(lambda z: seen.append(z) or torch.zeros(len(z), 2, 2), size=2, loc=loc, scale=scale)
    upper = 0.6744897501960817  # the upper quartile
    expected = torch.tensor([[3 - 2 * upper, -1 + 0.5 * upper], [3 + 2 * upper, -1 - 0.5 * upper]]).double()
    torch.testing.assert_close(seen[0][[0, 3]], expected)


@pytest.mark.parametrize("colours", [(), (3,)])
def test_latent_manifold_shows_z0_to_the_right_and_z1_upwards(colours):
    def decode(z):
        return (0.5 + 0.1 * z[:, 0] + 0.01 * z[:, 1]).reshape(-1, *[1] * len(colours), 1, 1).expand(-1, *colours, 4, 4)

    figure = plots.latent_manifold(decode, size=3)
    pixels = sheet(figure)[..., 0] if colours else sheet(figure)
    assert pixels[0, 0] < pixels[0, 5] < pixels[0, 10]
    assert pixels[0, 0] > pixels[5, 0] > pixels[10, 0]
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z0", "z1")
    assert texts(axes.get_yticklabels()) == ["0.97", "0.00", "-0.97"]


@pytest.mark.parametrize(
    ("size", "loc", "scale", "error", "message"),
    [
        (0, None, None, ValueError, "size"),
        (2.5, None, None, TypeError, "size"),
        (3, torch.zeros(3), None, ValueError, r"loc \(2,\) and scale above 0"),
        (3, torch.zeros(2), torch.ones(3), ValueError, r"loc \(2,\) and scale above 0"),
        (3, None, 0.0, ValueError, r"scale above 0.*0\.0"),
        (3, None, torch.nan, ValueError, r"scale above 0.*nan"),
        (3, torch.tensor([3, -1]), 0.5, ValueError, r"loc to be floating.*int64.*loc\.float\(\)"),
    ],
)
def test_latent_manifold_refuses_other_arguments(size, loc, scale, error, message):
    with pytest.raises(error, match=message):
        plots.latent_manifold(lambda z: torch.zeros(len(z), 2, 2), size, loc, scale)


def test_path_starts_and_ends_at_the_codes():
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 10).double()
    for spherical in (False, True):
        found = path(a, b, 7, spherical)
        assert found.shape == (6, 7, 10)
        torch.testing.assert_close(found[:, 0], a)
        torch.testing.assert_close(found[:, -1], b)
    torch.testing.assert_close(path(a, b, 3)[:, 1], (a + b) / 2)


def test_path_on_a_great_circle_keeps_the_length_and_turns_by_equal_angles():
    torch.manual_seed(0)
    a, b = torch.nn.functional.normalize(torch.randn(2, 6, 10).double(), dim=-1)
    found = path(3 * a, 3 * b, 5, spherical=True)
    torch.testing.assert_close(found.norm(dim=-1), torch.full((6, 5), 3.0).double())
    cosines = (found[:, 1:] * found[:, :-1]).sum(-1) / 9
    torch.testing.assert_close(cosines, cosines[:, :1].expand(-1, 4))


def test_path_keeps_the_length_near_the_opposite_direction_in_float32():
    turned = math.pi - 1.1e-3
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(turned), math.sin(turned)]])
    torch.testing.assert_close(path(a, b, 5, spherical=True).norm(dim=-1), torch.ones(1, 5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("end", [[2.0, 0.0], [-2.0, 0.0], [1.0, 1e-5], [0.0, 0.0]])
def test_path_is_straight_where_no_great_circle_is_unique(end):
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([end])
    torch.testing.assert_close(path(a, b, 4, spherical=True), path(a, b, 4), atol=1e-4, rtol=0)


def test_interpolation_shows_two_paths_of_each_pair_between_its_images():
    a, b = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    images = torch.full((2, 2, 4, 4), 0.25)
    figure = plots.interpolation(lambda z: z.norm(dim=-1).reshape(-1, 1, 1).expand(-1, 4, 4), a, b, 3, images)
    axes = figure.axes[0]
    assert texts(axes.get_xticklabels()) == ["image", "0.00", "0.50", "1.00", "image"]
    assert texts(axes.get_yticklabels()) == ["straight", "spherical"] * 2
    pixels = sheet(figure)
    assert pixels.shape == (4 * 5 - 1, 5 * 5 - 1)
    np.testing.assert_allclose(pixels[0, ::5], [0.25, 1, 0.5**0.5, 1, 0.25], rtol=1e-6)  # straight: through the chord
    np.testing.assert_allclose(pixels[5, ::5], [0.25, 1, 1, 1, 0.25], rtol=1e-6)  # spherical: on the circle
    assert plots.interpolation(lambda z: torch.zeros(len(z), 3, 4, 4), a, b, 3).axes


def test_interpolation_refuses_other_shapes():
    def decode(z):
        return torch.zeros(len(z), 4, 4)

    codes = torch.zeros(2, 3)
    wrong = ((codes, torch.zeros(1, 3), 3), (codes, codes, 1), (codes[0], codes[0], 3), (codes[:0], codes[:0], 3))
    for starts, ends, steps in wrong:
        with pytest.raises(ValueError, match=r"starts and ends of shape \(P, D\), P >= 1, and num_steps of at least 2"):
            plots.interpolation(decode, starts, ends, steps)
    with pytest.raises(ValueError, match=r"images of shape \(2, 2, 4, 4\), got \(2, 2, 5, 5\)"):
        plots.interpolation(decode, codes, codes, 3, torch.zeros(2, 2, 5, 5))

"""Grids and animations of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from ppvae import plots


def frames(file) -> list[np.ndarray]:
    with Image.open(file) as picture:
        return [np.asarray(_frame(picture, i)) for i in range(picture.n_frames)]


def _frame(picture: Image.Image, number: int) -> Image.Image:
    picture.seek(number)
    return picture.convert("RGB")


def durations(file) -> list[int]:
    found = []
    with Image.open(file) as picture:
        for i in range(picture.n_frames):
            picture.seek(i)
            found.append(picture.info["duration"])
    return found


@pytest.mark.parametrize("channels", [(), (3,)])
def test_image_grid_separates_images_by_one_white_pixel(channels):
    images = torch.rand(2, 4, *channels, 5, 6)
    sheet = np.asarray(plots.image_grid(images, ["a", "b"]).axes[0].images[0].get_array())
    assert sheet.shape == (2 * 5 + 1, 4 * 6 + 3, *channels)
    expected = images[1, 2].movedim(0, -1) if channels else images[1, 2]
    np.testing.assert_array_equal(sheet[6:11, 14:20], expected.numpy())
    assert (sheet[5] == 1).all()
    assert (sheet[:, 6] == 1).all()


@pytest.mark.parametrize("channels", [(), (3,)])
def test_animate_plays_the_frames_forwards_and_backwards(channels, tmp_path):
    images = torch.rand(2, 4, *channels, 5, 6)
    plots.animate(images, tmp_path / "a.gif", scale=2)
    found = frames(tmp_path / "a.gif")
    assert len(found) == 6
    assert found[0].shape == (5 * 2, 2 * 6 * 2, 3)
    assert durations(tmp_path / "a.gif") == [150] * 6
    np.testing.assert_array_equal(found[4], found[2])


def test_animate_rounds_and_clips_to_256_values(tmp_path):
    values = torch.tensor([0.0, 0.4, 0.6, 99.6, 254.6, 255.0]) / 255
    plots.animate(values.reshape(1, 1, 1, 6), tmp_path / "a.gif")
    assert frames(tmp_path / "a.gif")[0][0, :, 0].tolist() == [0, 0, 1, 100, 255, 255]
    plots.animate(torch.tensor([-0.5, 1.5]).reshape(1, 1, 1, 2), tmp_path / "a.gif")
    assert frames(tmp_path / "a.gif")[0][0, :, 0].tolist() == [0, 255]


def test_animate_keeps_the_duration_of_equal_frames(tmp_path):
    images = torch.rand(1, 4, 5, 6)
    images[:, 1] = images[:, 2] = images[:, 0]
    plots.animate(images, tmp_path / "a.gif")
    assert durations(tmp_path / "a.gif") == [450, 150, 300]  # 0 1 2 | 3 | 2 1


@pytest.mark.parametrize("shape", [(2, 4, 1, 5, 6), (2, 4, 6)])
@pytest.mark.parametrize("picture", [plots.image_grid, lambda images: plots.animate(images, "never.gif")])
def test_images_of_another_shape_are_refused(picture, shape):
    with pytest.raises(ValueError, match="with 3 before H"):
        picture(torch.zeros(shape))


def test_traversal_grid_orders_dimensions_by_decreasing_kl():
    images = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4) / 2
    axes = plots.traversal_grid(images, torch.tensor([0.5, 0.01, 3.0])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z2  3.00 nats", "z0  0.50 nats", "z1  0.01 nats"]
    assert axes.images[0].get_array()[::5, 0].tolist() == [1.0, 0.0, 0.5]

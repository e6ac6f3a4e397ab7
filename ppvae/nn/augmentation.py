"""Random changes of images, for classifiers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RandomWarp(nn.Module):
    """Each image (..., H, W) under a small random affine map and elastic distortion; the identity in evaluation mode.

    In front of a classifier inside a guide this makes q(y | T(x)) with a random T. T is noise of the guide, so every
    bound stays a bound.

    Args:
        degrees: largest rotation, in degrees.
        shear: largest shear, as a slope.
        scale: largest relative change of width and of height.
        shift: largest shift in each direction, as a share of the image's side.
        elastic: standard deviation of the smooth random displacement, as a share of the image's side.

    Source: Simard, Steinkraus and Platt 2003, "Best Practices for Convolutional Neural Networks".

    Example:

        >>> warp, images = RandomWarp(), torch.rand(3, 28, 28)
        >>> torch.equal(warp(images), images), torch.equal(warp.eval()(images), images)
        (False, True)
    """

    KNOTS = 6  # of the displacement field in each direction; linear between them

    def __init__(
        self,
        degrees: float = 15.0,
        shear: float = 0.25,
        scale: float = 0.15,
        shift: float = 1 / 14,
        elastic: float = 1 / 28,
    ):
        super().__init__()
        self.degrees, self.shear, self.scale, self.shift, self.elastic = degrees, shear, scale, shift, elastic

    def forward(self, x: Tensor) -> Tensor:
        """The warped images, values in [0, 1]."""
        if not self.training:
            return x
        images = x.reshape(-1, 1, *x.shape[-2:])
        grid = F.affine_grid(self._affine(images), list(images.shape), align_corners=False)
        return (
            F.grid_sample(images, grid + self._displacement(images), align_corners=False).clamp(0, 1).reshape(x.shape)
        )

    def _affine(self, images: Tensor) -> Tensor:
        """Maps of output to input coordinates, both from -1 to 1 across the image; shape (N, 2, 3)."""
        uniform = images.new_empty(6, len(images)).uniform_(-1, 1)
        angle, shear = uniform[0] * math.radians(self.degrees), uniform[1] * self.shear
        width, height = 1 + uniform[2] * self.scale, 1 + uniform[3] * self.scale
        right, down = uniform[4] * 2 * self.shift, uniform[5] * 2 * self.shift
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos * width, shear - sin, right, sin, cos * height, down], -1).reshape(-1, 2, 3)

    def _displacement(self, images: Tensor) -> Tensor:
        """A smooth random field in the same coordinates, shape (N, H, W, 2)."""
        knots = images.new_empty(len(images), 2, self.KNOTS, self.KNOTS).normal_() * (2 * self.elastic)
        field = F.interpolate(knots, list(images.shape[-2:]), mode="bilinear", align_corners=False)
        return field.permute(0, 2, 3, 1)

"""dSprites rendered by formula: its 737,280 images without its file, at any resolution, on any device."""

import math

import torch
from torch import Tensor

from ppvae.data.columns import whole_number
from ppvae.data.factors import Factors
from ppvae.data.lazy import LazyImages

SPRITES = Factors(("shape", "scale", "orientation", "posX", "posY"), (3, 6, 40, 32, 32))
CANVAS = 64  # side of the picture, in the pixels of dSprites: the unit of every length here
AXIS = 32  # positions along each axis
_POSITIONS = AXIS * AXIS
_REACH = 9.6 * math.sqrt(2)  # the largest distance of a point of a sprite from its centre: a corner of the square
_HEART = 19.2 / 29


class Sprites(LazyImages):
    """The images of dSprites by formula: 3 shapes, 6 scales (.5 to 1), 40 orientations, 32 x 32 positions; 0 or 255.

    A pixel is 255 where its centre lies inside the shape, without antialiasing. With dx, dy (downwards) from the
    sprite's centre (16 + 32 posX, 16 + 32 posY), posX and posY from 0 to 1, on a picture of side 64,

        u = (cos t dx - sin t dy) / scale,    v = (sin t dx + cos t dy) / scale,    t = 2 pi orientation / 39,

    so that orientations 0 and 39 coincide, as they do in dSprites. The inside is |u|, |v| < 9.6 (square);
    (u/12.768)^2 + (v/7.2125)^2 < 1 (ellipse); between the two branches, s and pi - s, of the curve (heart)

        |u| = 9.6 sin^3 s,    v = -1.433 - 19.2/29 (13 cos s - 5 cos 2s - 2 cos 3s - cos 4s).

    All three are one inequality, (v - m(c2))^2 < c2 h(c2)^2 with c2 = max(0, 1 - |u/width|^power): for the heart
    c2 = cos^2 s; 13 cos s - 2 cos 3s = cos s (19 - 8 c2) changes its sign between the branches, and
    -5 cos 2s - cos 4s = 4 - 2 c2 - 8 c2^2 does not. Only the square around the sprite is computed, in float64: an
    image is the same in any batch and on any device.

    Args:
        resolution: side of the images, in pixels.
        device: where they are rendered.

    Raises:
        DataError: the resolution is not a whole number of at least 1.

    The constants were fitted to 420 published images of dSprites: 90% are equal in every pixel, and the others differ
    in a few pixels of the outline. Source: Matthey et al. 2017, https://github.com/deepmind/dsprites-dataset.

    Example:

        >>> sprites = Sprites(resolution=8)
        >>> row = sprites.factors.index(torch.tensor([0, 5, 0, 0, 0]))  # the largest square, at the top left
        >>> (sprites[row] > 0).int().sum(0)
        tensor([0, 2, 2, 0, 0, 0, 0, 0])
    """

    factors = SPRITES
    levels = 256

    def __init__(self, resolution: int = CANVAS, device: str | torch.device = "cpu"):
        self.resolution = resolution = whole_number(resolution, "resolution", at_least=1)
        self.shape = torch.Size((len(SPRITES), resolution, resolution))
        self._poses = _poses().to(device)
        self.device = self._poses.device
        first, offsets = _window(resolution)
        self._first, self._offsets = first.to(self.device), offsets.to(self.device)
        steps = torch.arange(offsets.shape[1], device=self.device)
        self._window = (steps[:, None] * resolution + steps).flatten()

    def to(self, device: torch.device | str) -> "Sprites":
        """The same images on another device."""
        return self if torch.device(device) == self.device else Sprites(self.resolution, device)

    def _read(self, index: Tensor) -> Tensor:
        # Indexing the table of poses raises IndexError for a row out of range and takes negative rows from the end.
        pose, column, row = self._poses[index // _POSITIONS], index // AXIS % AXIS, index % AXIS
        inside = _inside(pose, self._offsets[column], self._offsets[row])
        pixels = (self._first[row] * self.resolution + self._first[column])[:, None] + self._window
        canvas = torch.zeros(len(index), self.resolution**2, dtype=torch.uint8, device=self.device)
        canvas.scatter_(1, pixels, inside.flatten(1).to(torch.uint8).mul_(255))
        return canvas.reshape(len(index), *self.shape[1:])


def _inside(pose: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Which pixels are white: poses (n, 10), offsets (n, W) of columns and (n, H) of rows -> bool (n, H, W)."""
    ux, uy, vx, vy, power, m0, m1, m2, h0, h1 = pose.T[:, :, None, None]
    dx, dy = dx[:, None, :], dy[:, :, None]
    c2 = (ux * dx + uy * dy).abs_().pow_(power).neg_().add_(1).clamp_(min=0)
    v = vx * dx + vy * dy
    middle = (c2 * m2).add_(m1).mul_(c2).add_(m0)
    half = (c2 * h1).add_(h0).square_().mul_(c2)
    return v.sub_(middle).square_() < half


def _poses() -> Tensor:
    """For each shape, scale and orientation: u/width and v as functions of dx and dy, power, and m and h; float64."""
    k = _HEART
    outline = torch.tensor(  # width, power, m0, m1, m2, h0, h1
        [
            [9.6, math.inf, 0, 0, 0, 9.6, 0],
            [12.768, 2, 0, 0, 0, 7.2125, 0],
            [9.6, 2 / 3, -1.433 - 4 * k, 2 * k, 8 * k, 19 * k, -8 * k],
        ],
        dtype=torch.float64,
    )
    shape, scale, orientation = SPRITES.values(torch.arange(0, len(SPRITES), _POSITIONS))[:, :3].T
    angle = orientation % 39 * (2 * math.pi / 39)
    size = 0.5 + scale.double() / 10
    width, *rest = outline[shape].T
    cos, sin = angle.cos() / size, angle.sin() / size
    return torch.stack([cos / width, -sin / width, sin, cos, *rest], -1)


def _window(resolution: int) -> tuple[Tensor, Tensor]:
    """For each position on an axis: the first pixel that a sprite may reach, (AXIS,), and the distances from the
    sprite's centre to the centres of this and the next pixels, float64 (AXIS, W)."""
    scale = resolution / CANVAS
    centre = 16 + 32 * torch.linspace(0, 1, AXIS, dtype=torch.float64)
    width = min(resolution, math.floor(2 * _REACH * scale) + 1)
    first = ((centre - _REACH) * scale - 0.5).ceil().long().clamp(0, resolution - width)
    pixels = first[:, None] + torch.arange(width)
    return first, (pixels + 0.5) / scale - centre[:, None]

"""Images along grids and paths of codes, from a decoder."""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.errors import require_count
from ppvae.plots.images import image_grid

Decode = Callable[[Tensor], Tensor]


def latent_manifold(
    decode: Decode, size: int = 15, loc: Tensor | None = None, scale: Tensor | float | None = None
) -> Figure:
    """The images of a grid of codes of two elements, equally spaced in probability under a Gaussian:

        z_d = loc_d + scale_d Phi^-1((i + 1/2) / size),   i = 0, ..., size - 1

    z0 grows to the right and z1 upwards. The ticks give their values.

    Args:
        decode: codes (N, 2) -> images (N, H, W) or (N, 3, H, W), values in [0, 1], such as
            ``lambda z: model.decode(z, event_dim=2).mean``. It is called without gradient.
        size: codes in each direction, at least 1.
        loc: means, floating, shape (2,); (0, 0), the prior's, if None; ``codes.mean(0)`` of an autoencoder.
        scale: standard deviations, shape (2,) or a number, above 0; 1, the prior's, if None; ``codes.std(0)`` of an
            autoencoder.

    Codes have the type and device of ``loc``. Raises ValueError or TypeError for other arguments.

    Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", figure 4.

    Example:

        >>> from ppvae.plots import latent_manifold
        >>> axes = latent_manifold(lambda z: z.sigmoid().unsqueeze(1).expand(-1, 8, 2), size=3).axes[0]
        >>> [label.get_text() for label in axes.get_xticklabels()]
        ['-0.97', '0.00', '0.97']
    """
    size = require_count("size", size)
    loc = torch.zeros(2) if loc is None else _codes(loc, "loc")
    spread = torch.as_tensor(1.0 if scale is None else scale).to(loc)
    if loc.shape != (2,) or spread.shape not in ((), (2,)) or not (spread.isfinite() & (spread > 0)).all():
        raise ValueError(f"expected loc (2,) and scale above 0, (2,) or a number, got {loc} and {scale}")
    steps = (torch.arange(size).double() + 0.5) / size
    axis = torch.special.ndtri(steps).to(loc)
    right, up = (loc[d] + spread.expand(2)[d] * axis for d in range(2))
    down = up.flip(0)
    codes = torch.stack([right.expand(size, size), down.unsqueeze(-1).expand(size, size)], -1)
    figure = image_grid(_decoded(decode, codes), [f"{v:.2f}" for v in down], [f"{v:.2f}" for v in right])
    figure.axes[0].set(xlabel="z0", ylabel="z1")
    figure.axes[0].xaxis.set_label_position("top")
    return figure


def interpolation(
    decode: Decode, starts: Tensor, ends: Tensor, num_steps: int = 9, images: Tensor | None = None
) -> Figure:
    """The images on two paths between the codes of each of several pairs: a straight line and a great circle.

    Two rows for each pair, with the shares of the path above them; see :func:`path`.

    Args:
        decode: codes (N, D) -> images (N, H, W) or (N, 3, H, W), values in [0, 1]. It is called without gradient.
        starts: codes at the start, shape (P, D).
        ends: codes at the end, shape (P, D).
        num_steps: codes on a path, both ends included; at least 2.
        images: the encoded images, shape (P, 2, H, W) or (P, 2, 3, H, W), shown on the left and on the right; none if
            None.

    Raises ValueError or TypeError for other arguments.

    Example:

        >>> from ppvae.plots import interpolation
        >>> decode = lambda z: z.sigmoid().unsqueeze(1).expand(-1, 8, 2)
        >>> axes = interpolation(decode, torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]]), num_steps=3).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['straight', 'spherical']
    """
    paths = torch.stack([path(starts, ends, num_steps, spherical) for spherical in (False, True)], 1)
    shown = _decoded(decode, paths.flatten(0, 1))
    columns = [f"{share:.2f}" for share in torch.linspace(0, 1, num_steps)]
    if images is not None:
        if len(images) != len(starts) or images.shape[1] != 2 or images.shape[2:] != shown.shape[2:]:
            raise ValueError(
                f"expected images of shape {(len(starts), 2, *shown.shape[2:])}, got {tuple(images.shape)}"
            )
        first, last = images.to(shown).repeat_interleave(2, 0).split(1, 1)
        shown, columns = torch.cat([first, shown, last], 1), ["image", *columns, "image"]
    figure = image_grid(shown, ["straight", "spherical"] * len(starts), columns)
    figure.axes[0].set_xlabel("share of the path")
    figure.axes[0].xaxis.set_label_position("top")
    return figure


def path(starts: Tensor, ends: Tensor, num_steps: int, spherical: bool = False) -> Tensor:
    """Codes from starts to ends, both included, shape (P, num_steps, D), at equal shares t from 0 to 1.

        straight     (1 - t) a + t b
        spherical    [sin((1 - t) w) a + sin(t w) b] / sin w,    w the angle between a and b at 0

    Draws of N(0, I) in many dimensions lie close to a sphere, which a straight line leaves. Where a or b is 0, or
    they have the same or opposite directions, there is no single great circle, and the path is straight.

    Args:
        starts: a, floating and finite, shape (P, D), with P of at least 1.
        ends: b, as a.
        num_steps: at least 2.
        spherical: which path.

    Raises ValueError or TypeError for other arguments.

    Source: White 2016, "Sampling Generative Networks", section 2.1.

    Example:

        >>> from ppvae.plots.manifold import path
        >>> path(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 3, spherical=True)
        tensor([[[1.0000, 0.0000],
                 [0.7071, 0.7071],
                 [0.0000, 1.0000]]])
    """
    starts, ends = _codes(starts, "starts"), _codes(ends, "ends")
    if starts.dim() != 2 or starts.shape != ends.shape or len(starts) == 0 or require_count("num_steps", num_steps) < 2:
        raise ValueError(
            f"expected starts and ends of shape (P, D), P >= 1, and num_steps of at least 2, got "
            f"{tuple(starts.shape)}, {tuple(ends.shape)} and {num_steps}"
        )
    t = torch.linspace(0, 1, num_steps).to(starts).reshape(-1, 1)
    a, b = starts.unsqueeze(1), ends.unsqueeze(1)
    straight = (1 - t) * a + t * b
    if not spherical:
        return straight
    angle, share = _angle(a.double(), b.double()), t.double()  # float32 is not enough near opposite directions
    circle = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
    apart = (angle.sin() > 1e-3) & (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True) > 0)
    return torch.where(apart, circle.to(straight), straight)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """The angle between a and b, (..., D) -> (..., 1), accurate for all angles (Kahan)."""
    a, b = (torch.nn.functional.normalize(v, dim=-1) for v in (a, b))
    return 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))


def _codes(value: Tensor, name: str) -> Tensor:
    """Codes as a tensor. Raises ValueError unless they are floating and finite."""
    codes = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.get_default_dtype())
    if not codes.is_floating_point() or not codes.isfinite().all():
        raise ValueError(f"expected {name} to be floating and finite, got {codes.dtype}; pass {name}.float()")
    return codes


@torch.no_grad()
def _decoded(decode: Decode, codes: Tensor) -> Tensor:
    """The images of codes (rows, columns, D), shape (rows, columns, *image)."""
    return decode(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

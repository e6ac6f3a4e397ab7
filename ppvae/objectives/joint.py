"""The code of several latents at once: the elements of vectors, and an indicator of each class of a discrete latent."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from ppvae.engine.particles import Draws, Particles
from ppvae.engine.sites import Site
from ppvae.engine.tracing import LABEL
from ppvae.errors import ContractError
from ppvae.nn.functional import indicators
from ppvae.objectives.draws import draws


def site_names(site: str | Sequence[str]) -> tuple[str, ...]:
    """The names of one or several latents. Raises ValueError for none, or one of them twice.

    Example:

        >>> site_names("z"), site_names(["z", "y"])
        (('z',), ('z', 'y'))
    """
    names = (site,) if isinstance(site, str) else tuple(site)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected the name of a latent, or several different ones, got {site!r}")
    return names


def joint_code(particles: Particles, names: Sequence[str]) -> Tensor:
    """The code at the draws of vectors and at every class, (enumeration..., K, B, D).

    A vector counts by its elements, a latent of C classes by C indicators. ``particles.average`` of a function of the
    code is its expectation under q, exact over the classes. Without a discrete latent it is that of :func:`draws`.

    Raises ContractError for a latent that is neither a vector nor enumerated.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> from ppvae.models import SemiSupervisedVAE
        >>> model = SemiSupervisedVAE(ppvae.nn.LabelledMLP(2, 3, [8], (5,)), latent_dim=2, num_classes=3)
        >>> guide = LabelGuide(torch.nn.Linear(5, 3), torch.nn.Linear(5, 4))
        >>> joint_code(ppvae.draw(model, guide, torch.zeros(4, 5)), ["z", "y"]).shape
        torch.Size([3, 1, 4, 5])
    """
    return _joint(particles, names, lambda site: site.value)


def joint_draws(particles: Particles, names: Sequence[str]) -> Tensor:
    """One draw of the code for each datum and particle, (K, B, D), with one class of each discrete latent.

    Arguments and errors as of :func:`joint_code`. Known classes are not drawn.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> from ppvae.models import SemiSupervisedVAE
        >>> model = SemiSupervisedVAE(ppvae.nn.LabelledMLP(2, 3, [8], (5,)), latent_dim=2, num_classes=3)
        >>> guide = LabelGuide(torch.nn.Linear(5, 3), torch.nn.Linear(5, 4))
        >>> code = joint_draws(ppvae.draw(model, guide, torch.zeros(4, 5)), ["z", "y"])
        >>> code.shape, code[0, :, 2:].sum(-1).tolist()
        (torch.Size([1, 4, 5]), [1.0, 1.0, 1.0, 1.0])
    """
    return _joint(particles, names, partial(_drawn_class, particles))


def permuted_code(particles: Particles, names: Sequence[str], others: Iterable[Draws]) -> Tensor:
    """The code of given draws, with each element, and each class as a whole, permuted over all rows, (rows, D).

    Args:
        particles: of the same pair; they tell which latents are discrete.
        names: the latents.
        others: draws by name, (1, B, *event) each.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> from ppvae.models import SemiSupervisedVAE
        >>> model = SemiSupervisedVAE(ppvae.nn.LabelledMLP(2, 3, [8], (5,)), latent_dim=2, num_classes=3)
        >>> guide = LabelGuide(torch.nn.Linear(5, 3), torch.nn.Linear(5, 4))
        >>> particles = ppvae.draw(model, guide, torch.zeros(4, 5))
        >>> other = {"z": torch.zeros(1, 6, 2), "y": torch.ones(1, 6)}
        >>> permuted_code(particles, ["y", "z"], [other])[0]
        tensor([0., 1., 0., 0., 0.])
    """
    others, parts = list(others), []
    for name in names:
        site = _class_site(particles, name)
        values = torch.cat([draw[name].reshape(draw[name].shape[1], -1) for draw in others])
        parts.append(_encoded(site, permuted(values)))
    return torch.cat(parts, -1)


def permuted(z: Tensor) -> Tensor:
    """Each column of (B, D), permuted independently: from draws of q(z), draws of prod_d q(z_d).

    Example:

        >>> z = torch.arange(6).reshape(3, 2)
        >>> permuted(z).sort(0).values.equal(z)
        True
    """
    return z.gather(0, torch.rand(z.shape, device=z.device).argsort(0))


def _class_site(particles: Particles, name: str) -> Site | None:
    """The site of a discrete latent; None for a continuous one. Raises ContractError unless it is enumerated alone."""
    if name == LABEL and name not in particles.guide and particles.batch.label is not None:
        raise ContractError(
            f"expected data without labels, so that the guide draws {name!r}, got labels; leave them out: Dataset(x)"
        )
    site = particles.latent(name)
    fn = site.distribution
    if not (site.enumerated or (fn.support is not None and fn.support.is_discrete)):
        return None
    if not site.enumerated or fn.event_shape:
        raise ContractError(f"expected a discrete latent {name!r} as an enumerated class, got {fn}; use Categorical")
    if fn.batch_shape[:-2].numel() != 1:
        raise ContractError(
            f"expected q({name} | x) that depends on no other discrete site, got one of batch shape "
            f"{tuple(fn.batch_shape)}; draw it before the other discrete sites"
        )
    return site


def _joint(particles: Particles, names: Sequence[str], classes: Callable[[Site], Tensor]) -> Tensor:
    parts = []
    for name in names:
        site = _class_site(particles, name)
        parts.append(_encoded(site, draws(particles, name) if site is None else classes(site).unsqueeze(-1)))
    leading = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*leading, -1) for part in parts], -1)


def _drawn_class(particles: Particles, site: Site) -> Tensor:
    """One class of each datum and particle, (K, B); those that are known are the data."""
    fn = site.distribution
    shape = particles.num_particles, particles.batch_size
    drawn = fn.expand((*fn.batch_shape[:-2], *shape)).sample().reshape(shape)
    if site.known is None or site.data is None:
        return drawn
    return torch.where(site.known, site.data, drawn)


def _encoded(site: Site | None, at: Tensor) -> Tensor:
    """Elements (..., D) as they are; classes (..., 1) as indicators (..., C)."""
    return at if site is None else indicators(at.squeeze(-1), len(site.distribution.enumerate_support(expand=False)))

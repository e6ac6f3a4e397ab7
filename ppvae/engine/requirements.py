"""What a replay requires of a pair, with the message that explains it."""

from typing import Any

from pyro.distributions import TorchDistribution
from torch import Tensor

from ppvae.distributions.implicit import has_density
from ppvae.engine.tracing import LABEL
from ppvae.errors import ContractError


def require_same_latents(model: set[str], guide: set[str]) -> None:
    """Raise ContractError unless model and guide have latents of the same names.

    A latent that only the model has would be drawn from the prior and counted by its density: not a weight.

    Example:

        >>> require_same_latents({"z"}, {"z"})
        >>> require_same_latents({"z", "w"}, {"z"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: the guide misses latent site(s) ['w'] of the model...
    """
    if model - guide:
        raise ContractError(
            f"the guide misses latent site(s) {sorted(model - guide)} of the model; it draws {sorted(guide)}. "
            "Add a sample statement of that name to the guide"
        )
    if guide - model:
        raise ContractError(
            f"the guide draws site(s) {sorted(guide - model)} that the model does not have as latents; "
            f"the model's latents are {sorted(model)}. Remove or rename the guide's site"
        )


def require_some_latents(model: set[str], guide: set[str]) -> None:
    """Raise ContractError unless the guide recognises latents of the model, at least one, and no others.

    Example:

        >>> require_some_latents({"c", "noise"}, {"c"})
        >>> require_some_latents({"c", "noise"}, {"z"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected a guide that draws some of the latents ['c', 'noise']...
    """
    if not guide or guide - model:
        raise ContractError(
            f"expected a guide that draws some of the latents {sorted(model)} of an implicit model, got "
            f"{sorted(guide) or 'none'}; rename or remove the guide's sites"
        )


def require_likelihood(model: Any, fn: TorchDistribution) -> None:
    """Raise ContractError if the distribution of x has no density: the model is a generator, known by its samples.

    Example:

        >>> import torch
        >>> from pyro.distributions import Normal
        >>> require_likelihood(None, Normal(torch.zeros(3), 1.0))
    """
    if not has_density(fn):
        raise ContractError(
            f"expected a model with a density p(x | z), got {type(model).__name__}, an implicit model, whose samples "
            "have no density: it has no log p(x), no ELBO and no reconstruction error. Train it by "
            "ppvae.train(ppvae.info_gan(...), x) and its guide alone by ForwardKL; ppvae.sample draws from it, "
            "ppvae.represent gives the codes that its guide recognises"
        )


def require_no_other_data(observed: dict[str, bool]) -> None:
    """Raise ContractError unless a model can be simulated: all data but x come before the latents, as labels do.

    Args:
        observed: whether each site is observed, by name, in the order of the trace.

    Example:

        >>> require_no_other_data({"y": True, "z": False})
        >>> require_no_other_data({"z": False, "w": True})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected a model that observes x alone...
    """
    names = list(observed)
    first = next((index for index, name in enumerate(names) if not observed[name]), len(names))
    others = [name for index, name in enumerate(names) if observed[name] and (name != LABEL or index > first)]
    if others:
        raise ContractError(
            f"expected a model that observes x alone, and labels before its latents, to be simulated, got observed "
            f"site(s) {others}: draws of the prior are no draws of the posterior given them. Estimates that simulate "
            "(upper_bound, bdmc, calibration, sample, ForwardKL, wake-sleep) need a model without them; log_marginal "
            "and ais do not"
        )


def require_enumerated_classes(enumerated: bool, fn: TorchDistribution, y: Tensor) -> None:
    """Raise ContractError unless the label's site is enumerated over classes, and every label is one of them.

    Example:

        >>> import torch
        >>> from pyro.distributions import Categorical
        >>> require_enumerated_classes(True, Categorical(torch.ones(3)), torch.tensor([2, -1]))
    """
    if not enumerated or fn.event_shape:
        raise ContractError(
            f'expected site "{LABEL}" to be a Categorical class index, enumerated, for partly known labels; got '
            f"{fn}; use Categorical (not OneHotCategorical)"
        )
    require_classes(y, len(fn.enumerate_support(expand=False)))


def require_classes(y: Tensor, classes: int) -> None:
    """Raise ContractError unless every label is one of the classes, or -1.

    Example:

        >>> import torch
        >>> require_classes(torch.tensor([0, 3]), classes=3)
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected labels from 0 to 2, or -1 where unknown, got 0 to 3
    """
    if y.min() < -1 or y.max() >= classes:
        raise ContractError(
            f"expected labels from 0 to {classes - 1}, or -1 where unknown, got {int(y.min())} to {int(y.max())}"
        )


def require_can_score(guide: Any) -> None:
    """Raise ContractError if the guide declares that it cannot score a value that it did not draw.

    Example:

        >>> from ppvae import Guide
        >>> require_can_score(Guide())
    """
    if not getattr(guide, "can_score", True):
        raise ContractError(cannot_score(guide))


def cannot_score(guide: Any) -> str:
    """The message for a guide without ``log_prob`` at arbitrary values.

    Example:

        >>> from ppvae import Guide
        >>> "got Guide, which has a transform without an inverse" in cannot_score(Guide())
        True
    """
    return (
        f"expected a guide that can score values which it did not draw, got {type(guide).__name__}, which has a "
        "transform without an inverse; use a guide with can_score, or an objective that scores only the guide's own "
        "draws: ELBO, IWAE, Renyi"
    )


DRAWS_GIVEN_LABEL = (
    f'expected the guide not to draw site "{LABEL}" when labels are given, but it does; '
    f'write `if y is None: y = pyro.sample("{LABEL}", ...)`'
)

"""What evaluators require of a pair beyond the contract."""

from collections.abc import Mapping
from typing import Any

from pyro.distributions import TorchDistribution

from ppvae.engine.batch import Batch
from ppvae.engine.contract import AmortizedGuide, is_amortized
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.sites import Site
from ppvae.errors import ContractError


def require_continuous(sites: Mapping[str, Site]) -> None:
    """Raise ContractError if a latent is discrete.

    Example:

        >>> import torch
        >>> require_continuous({"z": Site("z", torch.distributions.Normal(0.0, 1.0), torch.zeros(()))})
    """
    discrete = [site.name for site in sites.values() if not site.observed and is_discrete(site.distribution)]
    if discrete:
        raise ContractError(
            f"expected continuous latents, got the discrete site(s) {discrete}; give labels y where they are the "
            "labels, or use log_marginal, which sums them out"
        )


def require_known(batch: Batch) -> None:
    """Raise ContractError where labels are known in part.

    Example:

        >>> import torch
        >>> require_known(Batch(torch.zeros(2, 1), y=torch.tensor([0, 1]), all_known=True))
    """
    if batch.y is not None and not batch.all_known:
        raise ContractError("expected labels that are all known, or None; run the unlabelled rows on their own")


def is_discrete(fn: TorchDistribution) -> bool:
    """Whether a distribution is over discrete values.

    Example:

        >>> from pyro import distributions as dist
        >>> is_discrete(dist.Bernoulli(0.5)), is_discrete(dist.Normal(0.0, 1.0))
        (True, False)
    """
    return fn.support is not None and fn.support.is_discrete


def require_weights(pair: Pair, batch: Batch) -> None:
    """Raise ContractError unless q is a density over the prior's whole space, so that weights p / q exist.

    Example:

        >>> import torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4)))
        >>> require_weights(pair, Batch(torch.zeros(3, 2)))
    """
    with forked_randomness(batch.x.device):
        pair.draw(batch.rows(slice(0, 1))).require_weights()


def require_amortized(guide: Any) -> AmortizedGuide:
    """The guide. Raises ContractError unless its features can be improved for each datum.

    Example:

        >>> import torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> type(require_amortized(MeanFieldGaussian(torch.nn.Linear(2, 4)))).__name__
        'MeanFieldGaussian'
    """
    if not is_amortized(guide):
        raise ContractError(
            f"expected an AmortizedGuide with its own forward, which has one latent 'z' and features that can be "
            f"improved for each datum, got {type(guide).__name__}; derive it from ppvae.AmortizedGuide and define "
            "distribution() instead of forward(). Gaps of several latents are not supported"
        )
    return guide

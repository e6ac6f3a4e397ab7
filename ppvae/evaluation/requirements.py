"""What evaluators require of a pair beyond the contract."""

from collections.abc import Mapping
from typing import Any

from pyro.distributions import TorchDistribution

from ppvae.engine.batch import Batch
from ppvae.engine.contract import AmortizedGuide, is_amortized
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Site
from ppvae.errors import ContractError


def require_continuous(sites: Mapping[str, Site]) -> None:
    """Raise ContractError if a latent is discrete."""
    discrete = [site.name for site in sites.values() if not site.observed and is_discrete(site.distribution)]
    if discrete:
        raise ContractError(
            f"expected continuous latents, got the discrete site(s) {discrete}; give labels y where they are the "
            "labels, or use log_marginal, which sums them out"
        )


def require_known(batch: Batch) -> None:
    """Raise ContractError where labels are known in part."""
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
    """Raise ContractError unless q is a density over the prior's whole space, so that weights p / q exist."""
    with forked_randomness(batch.x.device):
        pair.draw(batch.rows(slice(0, 1))).require_weights(read_tensors=True)


def require_amortized(guide: Any) -> AmortizedGuide:
    """The guide. Raises ContractError unless what it gives for a datum can be improved."""
    if not is_amortized(guide):
        raise ContractError(
            f"expected an AmortizedGuide with its own forward, which has one latent 'z' and features that can be "
            f"improved for each datum, got {type(guide).__name__}; derive it from ppvae.AmortizedGuide and define "
            "distribution() instead of forward(). Gaps of several latents are not supported"
        )
    return guide

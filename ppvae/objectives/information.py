"""A lower bound of the mutual information of a generator's codes and its samples.

    I(c; x) = H(c) - H(c | x) >= H(c) + E log q(c | x) = L_I,   (c, x) ~ p(c, x)

with equality where q is the posterior p(c | x). The entropy H(c) of the prior has a closed form. The loss - L_I is that
of :class:`~ppvae.ForwardKL` less a constant; here its gradient reaches the generator as well as the guide.

Source: Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets", equations 4 and 5.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ppvae.engine.pair import Pair, Simulation
from ppvae.engine.sites import Site
from ppvae.errors import ContractError


def information_bound(pair: Pair, found: Simulation) -> dict[str, Tensor]:
    """log q(code | x) + H(code) of each draw, (B,), in nats, by the code's name; the mean over draws is the bound.

    Of several codes the bounds add up to one of I(all codes; x).

    Args:
        pair: the generator and the guide of its codes.
        found: draws of codes and x, as ``pair.simulation(batch, learning=True)`` gives them.

    Raises:
        ContractError: the guide draws no code of the model, the standard deviation of a continuous code is learned, or
            the prior's entropy has no closed form.

    Example:

        >>> import torch
        >>> from ppvae.engine.batch import Batch
        >>> from ppvae.guides import RecognitionGuide
        >>> from ppvae.models import ImplicitModel
        >>> model, guide = ImplicitModel(torch.nn.Linear(3, 2), num_classes=3), torch.nn.Linear(2, 3)
        >>> pair = Pair(model, RecognitionGuide(guide, num_classes=3))
        >>> information_bound(pair, pair.simulation(Batch(torch.zeros(5, 2)), learning=True))["c"].shape
        torch.Size([5])
    """
    recognised = pair.recognised(found)
    _require_fixed_scales(recognised)
    return {
        name: (q.log_prob + _entropy(name, found.latents[name].distribution)).expand(1, len(found.batch))[0]
        for name, q in recognised.items()
    }


def _require_fixed_scales(recognised: Mapping[str, Site]) -> None:
    for name, q in recognised.items():
        fn: Any = q.distribution
        if not fn.support.is_discrete and _has_learned_spread(fn):
            raise ContractError(
                f"expected a fixed standard deviation of q({name} | x), got one that is learned: the codes determine "
                "x, so that the bound of the mutual information grows without limit as it falls. Fix it, as "
                "RecognitionGuide(scale=1.0) does"
            )


def _has_learned_spread(fn: Any) -> bool:
    """Whether the entropy of a continuous distribution is learned, or log q where it has no formula."""
    try:
        return fn.entropy().requires_grad
    except NotImplementedError:
        return fn.log_prob(fn.sample()).requires_grad


def _entropy(name: str, prior: Any) -> Tensor:
    """H of the prior of a code, in closed form, in nats."""
    try:
        return prior.entropy()
    except NotImplementedError:
        raise ContractError(
            f"expected a prior of the code {name!r} with a closed-form entropy, got {prior}; use Categorical, Uniform "
            "or Normal"
        ) from None

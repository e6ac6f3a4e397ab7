"""Normalizing flows: a diagonal Gaussian, carried through maps that depend on x.

    z_0 ~ N(loc(x), diag(scale(x)^2))        z = f_T(... f_1(z_0; h(x)) ...; h(x))

    log q(z | x) = log q(z_0 | x) - sum_t log |det df_t / dz|

[loc, log scale, h] = encoder(x). A family of maps is a function of (latent_dim, context_dim, steps) that gives modules
with ``condition(h)``; most are Pyro's own.

Source: Rezende and Mohamed 2015, "Variational Inference with Normalizing Flows".
"""

from collections.abc import Callable, Sequence
from typing import Any

from pyro import distributions as dist
from pyro.distributions import transforms
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.distributions.reversal import Reversal
from ppvae.engine.contract import AmortizedGuide
from ppvae.guides.conditional_sylvester import ConditionalSylvester

WITHOUT_INVERSE = (
    transforms.ConditionalNeuralAutoregressive,
    transforms.ConditionalPlanar,
    transforms.ConditionalRadial,
)


class FlowGuide(AmortizedGuide):
    """q(z | x) by a normalizing flow; site "z". A label y that is no condition is ignored.

    ``can_score`` is False if a map has no inverse in closed form (planar, radial, Sylvester): such a guide has the
    density of its own draws only. A custom map without an inverse declares ``has_inverse = False``.

    Args:
        encoder: network (B, *event_shape) -> (B, 2 * latent_dim + context_dim): means, logs of standard deviations,
            context.
        maps: modules with ``condition(context)`` that gives a Transform, such as ``inverse_autoregressive(...)``.
        latent_dim: length of z.
        conditions: names of what q is given besides x, "y" for the label; the encoder takes them after x.

    Example:

        >>> import torch
        >>> guide = FlowGuide(nn.Linear(5, 2 * 2 + 3), planar(latent_dim=2, context_dim=3), latent_dim=2)
        >>> guide.distribution(guide.encode(torch.zeros(4, 5))).sample().shape
        torch.Size([4, 2])
        >>> guide.can_score
        False
    """

    def __init__(
        self,
        encoder: nn.Module,
        maps: Sequence[nn.Module],
        latent_dim: int,
        conditions: str | Sequence[str] = (),
    ):
        super().__init__(encoder, conditions)
        self.maps, self.latent_dim = nn.ModuleList(maps), latent_dim
        self.can_score = all(map(_has_inverse, maps))

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        """q(z; features), batch shape (B,)."""
        base, context = features[..., : 2 * self.latent_dim], features[..., 2 * self.latent_dim :]
        steps: list[Any] = list(self.maps)
        return dist.TransformedDistribution(diagonal_normal(base), [step.condition(context) for step in steps])


def _has_inverse(step: nn.Module) -> bool:
    return getattr(step, "has_inverse", not isinstance(step, WITHOUT_INVERSE))


def inverse_autoregressive(latent_dim: int, context_dim: int, steps: int = 2, hidden: int = 64) -> list[nn.Module]:
    """Maps z_i <- shift_i(z_<i, h) + scale_i(z_<i, h) z_i. Draws in one pass, scores other values in latent_dim passes.

    Source: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow".

    Example:

        >>> len(inverse_autoregressive(latent_dim=4, context_dim=3, steps=2))
        2
    """
    make = transforms.conditional_affine_autoregressive
    return [make(latent_dim, context_dim, hidden_dims=[hidden, hidden]) for _ in range(steps)]


def affine_coupling(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """Maps that shift and scale half of z by a network of the other half and h; the halves swap between steps.

    Source: Dinh, Sohl-Dickstein and Bengio 2017, "Density Estimation using Real NVP".

    Example:

        >>> len(affine_coupling(latent_dim=4, context_dim=3, steps=2))  # with the reversal between them
        3
    """
    make = transforms.conditional_affine_coupling
    return _alternating(lambda: make(latent_dim, context_dim, hidden_dims=[hidden, hidden]), steps)


def planar(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """Maps z <- z + u tanh(w' z + b). No inverse in closed form.

    Source: Rezende and Mohamed 2015, equation 10.

    Example:

        >>> len(planar(latent_dim=4, context_dim=3, steps=2))
        2
    """
    return [transforms.conditional_planar(latent_dim, context_dim, hidden_dims=[hidden]) for _ in range(steps)]


def radial(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """Maps z <- z + beta (z - z_0) / (alpha + |z - z_0|). No inverse in Pyro.

    Source: Rezende and Mohamed 2015, equation 14.

    Example:

        >>> len(radial(latent_dim=4, context_dim=3, steps=2))
        2
    """
    return [transforms.conditional_radial(latent_dim, context_dim, hidden_dims=[hidden]) for _ in range(steps)]


def householder(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """Maps z <- (I - 2 v v' / |v|^2) z. With the diagonal base this is a Gaussian with correlations; volume is kept.

    Source: Tomczak and Welling 2016, "Improving Variational Auto-Encoders using Householder Flow".

    Example:

        >>> len(householder(latent_dim=4, context_dim=3, steps=2))
        2
    """
    return [transforms.conditional_householder(latent_dim, context_dim, hidden_dims=[hidden]) for _ in range(steps)]


def neural_spline(latent_dim: int, context_dim: int, steps: int = 2, hidden: int = 64) -> list[nn.Module]:
    """Autoregressive rational splines on [-5, 5], the identity outside; the order of z reverses between steps.

    The density of the flow's own draws is exact. Another value is inverted in latent_dim passes, and rounding errors
    add up from pass to pass: with weights far above the initial ones float32 loses digits, then float64.

    Source: Durkan et al. 2019, "Neural Spline Flows"; Dolatabadi et al. 2020 (linear rational splines).

    Example:

        >>> len(neural_spline(latent_dim=4, context_dim=3, steps=2))  # with the reversal between them
        3
    """
    make = transforms.conditional_spline_autoregressive
    hidden_dims = [hidden, hidden]
    return _alternating(lambda: make(latent_dim, context_dim, hidden_dims=hidden_dims, bound=5.0), steps)


def sylvester(
    latent_dim: int, context_dim: int, steps: int = 4, kind: str = "orthogonal", rank: int | None = None
) -> list[nn.Module]:
    """Maps z <- z + Q R tanh(R~ Q' z + b); see :class:`~ppvae.guides.conditional_sylvester.ConditionalSylvester`.

    Args:
        latent_dim: length of z.
        context_dim: length of the context.
        steps: number of maps.
        kind: "orthogonal" (Q has ``rank`` orthonormal columns), "householder" (Q is a product of ``rank``
            reflections) or "triangular" (Q is the identity and the reversal in turns).
        rank: see ``kind``; by default half of latent_dim. Not used by "triangular".

    Raises ValueError for another kind or rank.

    Example:

        >>> len(sylvester(latent_dim=4, context_dim=3, steps=2))
        2
    """
    rank = max(1, latent_dim // 2) if rank is None else rank
    return [ConditionalSylvester(latent_dim, context_dim, kind, rank, reverse=step % 2 == 1) for step in range(steps)]


class Reversed(nn.Module):
    """The reversal of the order of z, for any context.

    Example:

        >>> import torch
        >>> Reversed().condition(torch.zeros(2))(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 2., 1.])
    """

    def condition(self, context: Tensor) -> Reversal:
        """The reversal."""
        return Reversal()


def _alternating(make: Callable[[], nn.Module], steps: int) -> list[nn.Module]:
    """New maps with a reversal between any two."""
    maps: list[nn.Module] = []
    for step in range(steps):
        maps += [Reversed()] if step else []
        maps.append(make())
    return maps

"""Normalizing flows: a diagonal Gaussian, carried through maps that know x.

    z_0 ~ N(loc(x), diag(scale(x)^2))        z = f_T(... f_1(z_0; h(x)) ...; h(x))

    log q(z | x) = log q(z_0 | x) - sum_t log |det df_t / dz|

[loc, log scale, h] = encoder(x). A family of maps is a function of (latent_dim, context_dim, steps) that gives
modules with ``condition(h)``; most are Pyro's own.

Source: Rezende and Mohamed 2015, "Variational Inference with Normalizing Flows".
"""

from collections.abc import Sequence

from ppvae.guides.sylvester import ConditionalSylvester
from pyro import distributions as dist
from pyro.distributions import transforms
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.contract import AmortizedGuide


class FlowGuide(AmortizedGuide):
    """q(z | x) by a normalizing flow; site "z". A label y is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, 2 * latent_dim + context_dim): means, logs of standard deviations,
            context.
        maps: modules with ``condition(context)`` that gives a Transform, such as ``inverse_autoregressive(...)``.
        latent_dim: length of z.

    ``can_score`` is False where a map has no inverse in closed form (planar, radial, Sylvester): such a guide scores
    its own draws alone.
    """

    def __init__(self, encoder: nn.Module, maps: Sequence[nn.Module], latent_dim: int):
        super().__init__(encoder)
        self.maps, self.latent_dim = nn.ModuleList(maps), latent_dim
        self.can_score = not any(isinstance(step, _WITHOUT_INVERSE) for step in maps)

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        base, context = features[..., : 2 * self.latent_dim], features[..., 2 * self.latent_dim :]
        return dist.TransformedDistribution(diagonal_normal(base), [step.condition(context) for step in self.maps])


def inverse_autoregressive(latent_dim: int, context_dim: int, steps: int = 2, hidden: int = 64) -> list[nn.Module]:
    """z_i <- shift_i(z_<i, h) + scale_i(z_<i, h) z_i. Draws in one pass, scores other values in latent_dim passes.

    Source: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow".
    """
    return [
        transforms.conditional_affine_autoregressive(latent_dim, context_dim, hidden_dims=[hidden, hidden])
        for _ in range(steps)
    ]


def affine_coupling(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """Half of z is shifted and scaled by a network of the other half and h; halves change place at each step.

    Source: Dinh, Sohl-Dickstein and Bengio 2017, "Density Estimation using Real NVP".
    """
    maps: list[nn.Module] = []
    for step in range(steps):
        maps += [Reversed()] if step else []
        maps.append(transforms.conditional_affine_coupling(latent_dim, context_dim, hidden_dims=[hidden, hidden]))
    return maps


def planar(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """z <- z + u tanh(w' z + b). No inverse in closed form.

    Source: Rezende and Mohamed 2015, equation 10.
    """
    return [transforms.conditional_planar(latent_dim, context_dim, hidden_dims=[hidden]) for _ in range(steps)]


def radial(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """z <- z + beta (z - z_0) / (alpha + |z - z_0|). No inverse in Pyro.

    Source: Rezende and Mohamed 2015, equation 14.
    """
    return [transforms.conditional_radial(latent_dim, context_dim, hidden_dims=[hidden]) for _ in range(steps)]


def householder(latent_dim: int, context_dim: int, steps: int = 4, hidden: int = 64) -> list[nn.Module]:
    """z <- (I - 2 v v' / |v|^2) z: with the diagonal base a Gaussian with correlations; volume is kept.

    Source: Tomczak and Welling 2016, "Improving Variational Auto-Encoders using Householder Flow".
    """
    return [transforms.conditional_householder(latent_dim, context_dim, hidden_dims=[hidden]) for _ in range(steps)]


def neural_spline(latent_dim: int, context_dim: int, steps: int = 2, hidden: int = 64) -> list[nn.Module]:
    """Autoregressive rational splines on [-5, 5], the identity outside; the order of z turns round at each step.

    Scores its own draws exactly. Another value is inverted in latent_dim passes, each of which feeds its rounding to
    the next: with weights far above those that one begins with float32 loses digits there, then float64.

    Source: Durkan et al. 2019, "Neural Spline Flows"; Dolatabadi et al. 2020 (linear rational splines).
    """
    maps: list[nn.Module] = []
    for step in range(steps):
        maps += [Reversed()] if step else []
        maps.append(
            transforms.conditional_spline_autoregressive(
                latent_dim, context_dim, hidden_dims=[hidden, hidden], bound=5.0
            )
        )
    return maps


def sylvester(
    latent_dim: int, context_dim: int, steps: int = 4, kind: str = "orthogonal", rank: int | None = None
) -> list[nn.Module]:
    """z <- z + Q R tanh(R~ Q' z + b); see :class:`ConditionalSylvester`.

    Args:
        kind: "orthogonal" (Q has ``rank`` orthonormal columns), "householder" (Q is a product of ``rank``
            reflections) or "triangular" (Q is the identity and the reversal in turns).
        rank: see ``kind``; by default half of latent_dim. Not used by "triangular".
    """
    rank = rank or max(1, latent_dim // 2)
    return [ConditionalSylvester(latent_dim, context_dim, kind, rank, turned=step % 2 == 1) for step in range(steps)]


class Reversed(nn.Module):
    """The order of z turned round, whatever the context."""

    def condition(self, context: Tensor) -> transforms.Transform:
        return _Reversal(cache_size=1)  # else its own draws would be inverted to be scored, step by step


class _Reversal(transforms.Transform):
    domain = codomain = dist.constraints.real_vector
    bijective, sign = True, 1

    def _call(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    _inverse = _call

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


_WITHOUT_INVERSE = (transforms.ConditionalPlanar, transforms.ConditionalRadial, ConditionalSylvester)

"""Reconstructions that are compared in the features of a network instead of pixel by pixel."""

import copy
import itertools
from abc import abstractmethod

import torch
from torch import Tensor, nn

from ppvae.engine.isolation import frozen, with_own_statistics
from ppvae.engine.particles import Particles, add_up
from ppvae.engine.player import Optimizer
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError
from ppvae.nn.functional import softplus
from ppvae.objectives.base import Parts, Regulariser, unused
from ppvae.objectives.critics import critic_adam
from ppvae.objectives.discriminators import Discriminator, apart_from_guide, reconstructions, samples
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class _Reconstruction(Regulariser):
    """Parts that are added to - log p(x | z), or replace it. Log densities of labels and other data stay."""

    over_batch = False

    def __init__(self, replaces: bool):
        self.replaces = bool(replaces)
        self.completes = "distortion" if self.replaces else None

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts with those of this term."""
        x = particles.batch.x
        if particles.source.waits and x.isnan().any():
            raise ContractError(
                f"expected x without missing elements (NaN) for {type(self).__name__}, got {int(x.isnan().sum())}; "
                "impute them first (ppvae.impute), or use ELBO() alone, which scores the observed elements"
            )
        found = _without_x(parts, particles) if self.replaces else dict(parts)
        for name, part in self.compared(particles).items():
            found[unused(name, found)] = part
        return found

    @abstractmethod
    def compared(self, particles: Particles) -> Parts:
        """The parts of this term, each (B,)."""


class FeatureReconstruction(_Reconstruction):
    """weight E_q |f(x) - f(x~)|^2 / 2, where x~ is the mean of p(x | z): the distance in the features f of a network.

    It is - log N(f(x); f(x~), I / weight) up to a constant. The term keeps a copy of the network, in evaluation mode
    and without trainable parameters. The settings of a run hold a digest of it, so that a run is not resumed with
    another network; its weights are not in the checkpoint. A loss with this term is no bound of log p(x), and a learned
    noise scale of the likelihood gets no gradient from it.

    Part: "features".

    Args:
        features: (N, *event_shape) -> (N, ...), or to a list of tensors, one for each layer, whose distances are added.
            To weigh the layers, multiply each by a number in the network.
        weight: at least 0, or a schedule.
        replaces: whether the term replaces - log p(x | z); otherwise it is added.

    Raises:
        TypeError: features is not a torch.nn.Module.
        ContractError: the network gives another number of rows or no gradient; x has missing elements (NaN) or a mask;
            p(x | z) has no formula for its mean.

    Source: Hou et al. 2017, "Deep Feature Consistent Variational Autoencoder"; Johnson, Alahi and Fei-Fei 2016,
    "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", equation 2. There each layer is divided by
    its number of elements.

    Example:

        >>> import ppvae
        >>> edges = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv2d(1, 4, 3))  # (N, H, W) -> (N, 4, H - 2, W - 2)
        >>> objective = ppvae.ELBO() + ppvae.FeatureReconstruction(edges, weight=10.0)
    """

    def __init__(self, features: nn.Module, weight: float | Schedule = 1.0, replaces: bool = True):
        super().__init__(replaces)
        require_weight("weight", weight)
        if not isinstance(features, nn.Module):
            raise TypeError(f"expected features as a torch.nn.Module, got {type(features).__name__}; wrap it in one")
        self.weight, self.features = weight, copy.deepcopy(features).requires_grad_(False).eval()

    def compared(self, particles: Particles) -> Parts:
        """The weighted distance of each datum."""
        x, mean = particles.batch.x, reconstructions(particles)
        with torch.no_grad():
            of_x = self._features(x, x.dim() - 1)
        of_mean = self._features(mean, x.dim() - 1)
        if mean.requires_grad and not of_mean.requires_grad:
            raise ContractError(
                "expected features through which the gradient reaches the decoder, got a network whose output has "
                "none; take torch.no_grad() and detach() out of its forward"
            )
        return {"features": value_at(self.weight, particles.step) * particles.average(_distance(of_x, of_mean))}

    def _features(self, x: Tensor, event_dim: int) -> Tensor:
        """All features of tensors (..., *event_shape) as one vector, (..., F)."""
        leading, rows = x.shape[: x.dim() - event_dim], x.flatten(0, x.dim() - event_dim - 1)
        output = self.features(self._as_input(rows))
        layers = list(output) if isinstance(output, list | tuple) else [output]
        for layer in layers:
            got = tuple(layer.shape) if isinstance(layer, Tensor) else f"a {type(layer).__name__}"
            if not isinstance(layer, Tensor) or layer.shape[:1] != rows.shape[:1]:
                raise ContractError(
                    f"expected features of shape ({len(rows)}, ...), a row for each of {len(rows)} data, got {got}; "
                    "return a tensor, or a list of tensors, without a mean over the rows"
                )
        return torch.cat([layer.reshape(len(rows), -1) for layer in layers], 1).reshape(*leading, -1)

    def _as_input(self, rows: Tensor) -> Tensor:
        """The rows in the network's type, and the network on their device."""
        tensors = itertools.chain(self.features.parameters(), self.features.buffers())
        own = next((tensor for tensor in tensors if tensor.is_floating_point()), rows)
        if own.device != rows.device:
            self.features.to(rows.device)
        return rows.to(own.dtype)


class AdversarialReconstruction(_Reconstruction):
    """The two terms of the VAE-GAN, with a discriminator D that is trained with the pair:

        feature_weight E_q |f(x) - f(x~)|^2 / 2                       "features", f a layer of the discriminator
      + weight [E_q softplus(-D(x~)) + softplus(-D(x_p))]             "adversarial"

    x~ is the mean of p(x | z) at a draw of the guide, x_p that at a draw of the prior. The decoder gets the gradient of
    both, the guide that of the first alone, the discriminator none (:class:`Discriminator` has its loss). Since
    softplus(-D) = - log sigmoid(D), the decoder raises D where it decodes. The paper's weight gamma of the first term
    for the decoder is feature_weight / weight.

    The model runs three times a step. A loss with this term is no bound of log p(x).

    Args:
        discriminator: of x.
        weight: of the second term, at least 0, or a schedule.
        feature_weight: of the first term, at least 0, or a schedule.
        optimizer: of the discriminator.
        replaces: whether the term replaces - log p(x | z); otherwise it is added.

    Raises:
        TypeError: discriminator is not a :class:`Discriminator`.
        ContractError: x has missing elements (NaN) or a mask, or p(x | z) no formula for its mean.

    Source: Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", algorithm 1. There the
    decoder minimises log(1 - sigmoid(D)); here - log sigmoid(D), which has the same direction and does not vanish where
    the discriminator wins (Goodfellow et al. 2014, "Generative Adversarial Nets", section 3).

    Example:

        >>> import ppvae
        >>> from ppvae.objectives import Discriminator
        >>> layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.LeakyReLU(0.2))
        >>> objective = ppvae.ELBO() + ppvae.AdversarialReconstruction(Discriminator(layers, nn.Linear(64, 1)))
        >>> [player.name for player in objective.players]
        ['discriminator/x']
    """

    def __init__(
        self,
        discriminator: Discriminator,
        weight: float | Schedule = 1.0,
        feature_weight: float | Schedule = 1.0,
        optimizer: Optimizer = critic_adam,
        replaces: bool = True,
    ):
        super().__init__(replaces)
        require_weight("weight", weight)
        require_weight("feature_weight", feature_weight)
        if not isinstance(discriminator, Discriminator):
            raise TypeError(
                f"expected a Discriminator, got {type(discriminator).__name__}; use Discriminator(features, head)"
            )
        self.weight, self.feature_weight, self.discriminator = weight, feature_weight, discriminator
        self.players = (discriminator.player(optimizer),)

    def compared(self, particles: Particles) -> Parts:
        """The weighted terms of each datum."""
        x, held = particles.batch.x, apart_from_guide(particles)
        images = [x, reconstructions(particles), reconstructions(held), samples(particles)]
        with frozen(self.discriminator):
            outputs = with_own_statistics(self.discriminator)(images, x.dim() - 1)
        (of_x, _), (of_mean, _), (_, on_mean), (_, on_samples) = outputs
        adversarial = held.average(softplus(-on_mean)) + softplus(-on_samples)
        return {
            "features": value_at(self.feature_weight, particles.step) * particles.average(_distance(of_x, of_mean)),
            "adversarial": value_at(self.weight, particles.step) * adversarial,
        }


def _distance(of_x: Tensor, of_mean: Tensor) -> Tensor:
    """|f(x) - f(x~)|^2 / 2 for features (B, F) and (..., B, F); shape (..., B)."""
    return (of_x - of_mean).square().sum(-1) / 2


def _without_x(parts: Parts, particles: Particles) -> Parts:
    """The parts, the distortion without - log p(x | z)."""
    others = [value for name, value in particles.log_likelihoods.items() if name != OBSERVED]
    kept = {name: part for name, part in parts.items() if name != "distortion"}
    return {"distortion": particles.average(-add_up(others)), **kept} if others else kept

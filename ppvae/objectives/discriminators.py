"""Discriminators: networks, trained with the pair, that tell data from what the model makes of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ppvae.engine.particles import Particles
from ppvae.engine.player import Optimizer, Player, Turn
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError
from ppvae.nn.functional import softplus
from ppvae.objectives.draws import mean_by_formula

REMEDY = "use a likelihood of ppvae.likelihoods, or give the distribution a property mean"


class Discriminator(nn.Module):
    """A network D(x) = head(features(x)) that learns log p(x) / s(x) by logistic regression, p the density of the data.

    s is half the density of reconstructions x~, the means of p(x | z) at draws of the guide, and half that of samples
    x_p, the means at draws of the prior. The loss of a datum, in nats, with its minimum at D = log p / s:

        softplus(-D(x)) / 2 + E_q softplus(D(x~)) / 4 + softplus(D(x_p)) / 4

    All three go through the network as one batch.

    Args:
        features: the lower layers, (N, *event_shape) -> (N, ...); reconstructions are compared in their output.
        head: the upper layers, from that output to (N, 1).

    Raises ValueError if there is no parameter to train.

    Source: Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", section 2.3. There the
    three terms are added, which moves D by log 2.

    Example:

        >>> discriminator = Discriminator(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU()), nn.Linear(16, 1))
        >>> [(features, log_ratio)] = discriminator([torch.zeros(5, 8, 8)], event_dim=2)
        >>> features.shape, log_ratio.shape
        (torch.Size([5, 16]), torch.Size([5]))
    """

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__()
        self.features, self.head = features, head
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("expected a discriminator with parameters to train, got none")

    def forward(self, images: Sequence[Tensor], event_dim: int) -> list[tuple[Tensor, Tensor]]:
        """The features (..., F) and D (...) of each of several tensors (..., *event_shape), from one pass."""
        rows = torch.cat([each.flatten(0, each.dim() - event_dim - 1) for each in images])
        features = self.features(rows.to(next(self.parameters())))  # its type and device
        output = self.head(features)
        if output.shape != (len(rows), 1):
            raise ContractError(
                f"expected a discriminator that gives one number for each of {len(rows)} rows, shape ({len(rows)}, 1), "
                f"got {tuple(output.shape)}"
            )
        leading = [each.shape[: each.dim() - event_dim] for each in images]
        split = zip(*(each.split([size.numel() for size in leading]) for each in (features, output)), strict=True)
        return [(f.reshape(*size, -1), d.reshape(size)) for (f, d), size in zip(split, leading, strict=True)]

    def player(self, optimizer: Optimizer) -> Player:
        """The discriminator as a player of each training step."""
        return Player(f"discriminator/{OBSERVED}", self, self.loss, optimizer)

    def loss(self, turn: Turn) -> Tensor:
        """The mean of :meth:`per_datum` over the rows of a step. It gives no gradient to the pair."""
        return torch.cat([self.per_datum(particles) for particles in turn.particles]).mean()

    def per_datum(self, particles: Particles) -> Tensor:
        """The loss of each datum, shape (B,), in nats, without gradient to the pair."""
        x, held = particles.batch.x, apart_from_guide(particles)
        with torch.no_grad():
            images = [x, reconstructions(particles).detach(), samples(particles)]
        (_, on_x), (_, on_reconstructions), (_, on_samples) = self(images, x.dim() - 1)
        made = held.average(softplus(on_reconstructions)) + softplus(on_samples)
        return softplus(-on_x) / 2 + made / 4


def reconstructions(particles: Particles) -> Tensor:
    """The means x~ of p(x | z) at the guide's draws, shape (enumeration..., K, B, *event_shape).

    Raises ContractError if x is masked, or its mean has no formula.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> reconstructions(ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5)).shape
        torch.Size([5, 3, 2])
    """
    site = particles.model[OBSERVED]
    if site.mask is not None:
        raise ContractError(f"expected site {OBSERVED!r} without a mask, got one; a reconstruction has no mask")
    return mean_by_formula(site.distribution, "p(x | z)", REMEDY)


def samples(particles: Particles) -> Tensor:
    """The mean x_p of p(x | z) at one z ~ p(z) for each datum, given its labels and conditions, (B, *event_shape).

    The gradient reaches the model, and its prior where draws of it are reparameterised.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> samples(ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5)).shape
        torch.Size([3, 2])
    """
    mean = mean_by_formula(particles.source.prior()[OBSERVED].distribution, "p(x | z)", REMEDY)
    return mean.expand(1, *particles.batch.x.shape)[0]


def apart_from_guide(particles: Particles) -> Particles:
    """Particles at the same draws, of which no gradient reaches the guide. The model runs again when it is read.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> apart_from_guide(ppvae.draw(model, guide, torch.zeros(3, 2))).draws["z"].requires_grad
        False
    """
    guide = {name: site.detached() if site.enumerated else site for name, site in particles.guide.items()}
    return replace(particles, guide=guide, draws={name: draw.detach() for name, draw in particles.draws.items()})

"""The players of generative adversarial networks that learn codes: a generator with its guide, and an adversary."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ppvae.engine.batch import Batch
from ppvae.engine.checks import check_modules
from ppvae.engine.pair import Pair
from ppvae.engine.player import Optimizer, Player, Turn
from ppvae.errors import ContractError, require_count
from ppvae.objectives.adversarial import Game, Logistic, Wasserstein, require_no_batch_norm
from ppvae.objectives.base import Parts
from ppvae.objectives.information import information_bound
from ppvae.objectives.schedules import Schedule, require_weight, value_at
from ppvae.training.optimizers import adam
from ppvae.training.players import PAIR, pair_module

Weight = float | Schedule
BETAS = (0.5, 0.999)


def info_gan(
    model: nn.Module,
    guide: nn.Module,
    discriminator: nn.Module,
    lambda_: Weight | Mapping[str, Weight] = 1.0,
    *,
    optimizer: Optimizer | None = None,
    discriminator_optimizer: Optimizer | None = None,
) -> list[Player]:
    """InfoGAN: a generator whose codes are recognised in its samples, and a discriminator.

        pair            E softplus(-D(x')) - sum over codes of lambda L_I(code; x')
        discriminator   E softplus(-D(x)) + E softplus(D(x'))

    L_I is the bound of :mod:`ppvae.objectives.information`, in nats; its gradient reaches generator and guide. In the
    log "adversarial" and "information/c" (that is - lambda L_I) are the parts of the pair's loss.

    Args:
        model: generator, such as :class:`~ppvae.models.ImplicitModel`, of data of the shape of x.
        guide: of its codes, such as :class:`~ppvae.guides.RecognitionGuide`.
        discriminator: network (B, *event_shape) -> (B,) or (B, 1).
        lambda_: weight of the mutual information, at least 0, or a schedule; or one for each code by name.
        optimizer: of the pair; ``adam(1e-3, betas=(.5, .999))`` if None.
        discriminator_optimizer: ``adam(2e-4, betas=(.5, .999))`` if None.

    Returns the players of :func:`ppvae.train`. ``ppvae.load_checkpoint`` reads the pair of such a run.

    Raises:
        ContractError: model or guide is no module. In training: samples have another shape than the data, the
            discriminator does not give one number a datum, the guide draws no code of the model, a weight names none.

    Source: Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
    Adversarial Nets".

    Example:

        >>> import ppvae
        >>> from ppvae.guides import RecognitionGuide
        >>> from ppvae.models import ImplicitModel
        >>> model = ImplicitModel(ppvae.nn.MLP(5 + 2, [16], 2), num_classes=5, noise_dim=2)
        >>> guide = RecognitionGuide(ppvae.nn.MLP(2, [16], 5), num_classes=5)
        >>> players = info_gan(model, guide, ppvae.nn.MLP(2, [16], 1), lambda_=1.0)
        >>> result = ppvae.train(players, torch.randn(64, 2), epochs=1, progress=False)
        >>> sorted(result.metrics[-1].keys() - {"epoch", "step", "seconds"})[:4]
        ['adversarial', 'discriminator', 'discriminator/data', 'discriminator/samples']
    """
    return _players(model, guide, discriminator, lambda_, Logistic(), optimizer, discriminator_optimizer, every=1)


def info_wgan_gp(
    model: nn.Module,
    guide: nn.Module,
    critic: nn.Module,
    lambda_: Weight | Mapping[str, Weight] = 1.0,
    *,
    penalty: float = 10.0,
    critic_steps: int = 5,
    optimizer: Optimizer | None = None,
    critic_optimizer: Optimizer | None = None,
) -> list[Player]:
    """InfoGAN with the Wasserstein distance and a gradient penalty.

        pair     - E D(x') - sum over codes of lambda L_I(code; x')
        critic   E D(x') - E D(x) + penalty E (|grad D(x^)| - 1)^2

    Args:
        model: as in :func:`info_gan`.
        guide: as in :func:`info_gan`.
        critic: network (B, *event_shape) -> (B,) or (B, 1), without batch normalisation.
        lambda_: as in :func:`info_gan`.
        penalty: weight of the gradient penalty, at least 0.
        critic_steps: steps of the critic for each step of the pair.
        optimizer: as in :func:`info_gan`.
        critic_optimizer: ``adam(2e-4, betas=(.5, .999))`` if None.

    Returns the players of :func:`ppvae.train`.

    Raises:
        ContractError: the critic normalises over the batch; and as :func:`info_gan`.

    Source: Kim and Mnih 2018, "Disentangling by Factorising", section 5 (InfoWGAN-GP); Gulrajani et al. 2017,
    "Improved Training of Wasserstein GANs".

    Example:

        >>> import ppvae
        >>> from ppvae.guides import RecognitionGuide
        >>> from ppvae.models import ImplicitModel
        >>> model = ImplicitModel(ppvae.nn.MLP(3 + 2, [16], 2), num_codes=3, noise_dim=2)
        >>> guide = RecognitionGuide(ppvae.nn.MLP(2, [16], 3), num_codes=3)
        >>> [player.name for player in info_wgan_gp(model, guide, ppvae.nn.MLP(2, [16], 1))]
        ['pair', 'critic']
    """
    require_weight("penalty", penalty)
    require_no_batch_norm(critic)
    every = require_count("critic_steps", critic_steps)
    return _players(model, guide, critic, lambda_, Wasserstein(penalty), optimizer, critic_optimizer, every)


def _players(
    model: nn.Module,
    guide: nn.Module,
    network: nn.Module,
    lambda_: Weight | Mapping[str, Weight],
    game: Game,
    optimizer: Optimizer | None,
    adversary_optimizer: Optimizer | None,
    every: int,
) -> list[Player]:
    check_modules(model, guide)
    weights = dict(lambda_) if isinstance(lambda_, Mapping) else lambda_
    for weight in weights.values() if isinstance(weights, dict) else (weights,):
        require_weight("lambda_", weight)
    pair = Pair(model, guide, waits=False)
    return [
        Player(
            PAIR,
            pair_module(model, guide),
            GeneratorLoss(pair, network, game, weights),
            optimizer or adam(1e-3, betas=BETAS),
            every,
        ),
        Player(
            game.adversary, network, AdversaryLoss(pair, network, game), adversary_optimizer or adam(2e-4, betas=BETAS)
        ),
    ]


@dataclass(frozen=True)
class GeneratorLoss:
    """The adversarial loss of a generator, and minus the weighted bound of the mutual information of its codes.

    Example:

        >>> from ppvae.guides import RecognitionGuide
        >>> from ppvae.models import ImplicitModel
        >>> pair = Pair(ImplicitModel(nn.Linear(3, 2), num_classes=3), RecognitionGuide(nn.Linear(2, 3), num_classes=3))
        >>> loss = GeneratorLoss(pair, nn.Linear(2, 1), Logistic(), 1.0)
        >>> sorted(loss(Turn([Batch(torch.zeros(5, 2))])))
        ['adversarial', 'information/c']
    """

    pair: Pair
    network: nn.Module
    game: Game
    weights: Weight | dict[str, Weight]

    def __call__(self, turn: Turn) -> Parts:
        found = self.pair.simulation(_batch(turn), draw_labels=True, learning=True)
        bounds = information_bound(self.pair, found)
        weights = self.weights if isinstance(self.weights, dict) else dict.fromkeys(bounds, self.weights)
        if weights.keys() != bounds.keys():
            raise ContractError(
                f"expected lambda_ with a weight for each code that the guide draws, {sorted(bounds)}, got "
                f"{sorted(weights)}"
            )
        information = {
            f"information/{name}": -value_at(weights[name], turn.step) * bound.mean() for name, bound in bounds.items()
        }
        return {"adversarial": self.game.of_generator(self.network, found.batch.x), **information}


@dataclass(frozen=True)
class AdversaryLoss:
    """The loss of a discriminator or critic, on the data and as many new samples of the generator.

    Example:

        >>> from ppvae.models import ImplicitModel
        >>> pair = Pair(ImplicitModel(nn.Linear(3, 2), noise_dim=3), None)
        >>> sorted(AdversaryLoss(pair, nn.Linear(2, 1), Logistic())(Turn([Batch(torch.zeros(5, 2))])))
        ['data', 'samples']
    """

    pair: Pair
    network: nn.Module
    game: Game

    def __call__(self, turn: Turn) -> Parts:
        batch = _batch(turn)
        with torch.no_grad():
            found = self.pair.simulation(batch, draw_labels=True, learning=True)
        return self.game.of_adversary(self.network, batch.x, found.batch.x)


def _batch(turn: Turn) -> Batch:
    """The rows of a step, without labels."""
    if len(turn.batches) > 1:
        raise ContractError(
            "expected data of which no label is read, got labels that are known in part; use data.unlabelled()"
        )
    return turn.batches[0].unlabelled()

"""One step: of the pair, then of what its objective trains against it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.errors import ContractError
from ppvae.objectives import Adversary, Objective
from ppvae.training.batches import Part


class Trainer:
    """A pair, its objective and their optimizers.

    Args:
        model, guide: the pair.
        objective: of ppvae, or a ``pyro.infer.ELBO``.
        optimizer: of the pair.
    """

    def __init__(self, model, guide, objective, optimizer: torch.optim.Optimizer):
        self.model, self.guide, self.objective, self.optimizer = model, guide, objective, optimizer
        self.adversaries = adversaries(objective)
        self.adversary_optimizers = [adversary.optimizer(adversary.parameters()) for adversary in self.adversaries]

    @property
    def needs_other(self) -> bool:
        """Whether a step needs a second batch."""
        return any(adversary.needs_other for adversary in self.adversaries)

    def named_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {f"optimizer-{index}": optimizer for index, optimizer in enumerate(self.adversary_optimizers)}

    def step(self, parts: Sequence[Part], other: Sequence[Part], step: int) -> Tensor | float:
        """Train on the mean loss per datum over all parts; gives that loss, without waiting for the device.

        Args:
            parts: of the batch.
            other: as many parts of a second batch, if :attr:`needs_other`; else none.
            step: which one it is.
        """
        rows = sum(len(part[0]) for part in parts)
        self.optimizer.zero_grad(set_to_none=True)
        if not isinstance(self.objective, Objective):
            return self._stock_step(parts, rows)
        particles = [self.objective.replay(self.model, self.guide, *_pair(part), step) for part in parts]
        loss = sum(self.objective.per_datum(part).sum() for part in particles) / rows
        draws = [p.source.draws_for(*part) for p, part in zip(particles, other, strict=False)]
        self._descend(loss)
        self._train_adversaries(particles, draws)
        return loss.detach()

    def _descend(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise ContractError(
                "expected a loss that depends on a trainable parameter, got none from "
                f"{type(self.objective).__name__}; where every latent is enumerated, IWAE does not depend on the guide "
                "(use ELBO)"
            )
        loss.backward()
        self.optimizer.step()

    def _train_adversaries(self, particles: list[Particles], draws: list[dict[str, Tensor]]) -> None:
        for adversary, optimizer in zip(self.adversaries, self.adversary_optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            adversary.loss(particles, draws).backward()
            optimizer.step()

    def _stock_step(self, parts: Sequence[Part], rows: int) -> Tensor | float:
        if hasattr(self.objective, "differentiable_loss"):
            loss = sum(self.objective.differentiable_loss(self.model, self.guide, *part) for part in parts) / rows
            self._descend(loss)
            return loss.detach()
        # Some of Pyro's own, RenyiELBO for one, offer the sum's gradient only.
        loss = sum(self.objective.loss_and_grads(self.model, self.guide, *part) for part in parts) / rows
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            raise ContractError(
                f"expected a gradient at a trainable parameter, got none from {type(self.objective).__name__}, which "
                "gives none to a plain nn.Module; derive model and guide from ppvae.Model and ppvae.Guide, or "
                "PyroModule"
            )
        torch._foreach_div_(gradients, rows)
        self.optimizer.step()
        return loss


def adversaries(objective) -> tuple[Adversary, ...]:
    """What an objective trains against the pair; nothing for one of Pyro's."""
    return objective.adversaries if isinstance(objective, Objective) else ()


def named_adversaries(objective) -> dict[str, Adversary]:
    """The same by the names that checkpoints have for them."""
    return {f"adversary-{index}": adversary for index, adversary in enumerate(adversaries(objective))}


def _pair(part: Part) -> tuple[Tensor, Tensor | None]:
    return part if len(part) == 2 else (*part, None)

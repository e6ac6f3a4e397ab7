"""What is evaluated after each epoch of fit."""

from dataclasses import dataclass

import pyro.infer
from torch import nn

from ppvae.data import Dataset
from ppvae.evaluation.loss import AT_ONCE, LOSS, dataset_for, parts_over
from ppvae.objectives.base import Objective
from ppvae.training.arguments import Validation


@dataclass(frozen=True)
class PairEvaluation:
    """The numbers of the log that are taken after each epoch.

    Args:
        objective, model, guide: what is trained.
        data: on which the loss is taken; None for no loss.
        validation: what else is evaluated.
        seed: of binarization and draws.
        end: the step that training ends with. Schedules are read there, so that all epochs are measured alike.
        batch_size: of training, for a loss that depends on the batch.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> data = Dataset(torch.zeros(8, 2))
        >>> evaluation = PairEvaluation(ppvae.ELBO(), model, guide, data, Validation(), seed=0, end=10, batch_size=4)
        >>> sorted(evaluation())
        ['validation/distortion', 'validation/rate/z', 'validation_loss']
    """

    objective: pyro.infer.ELBO
    model: nn.Module
    guide: nn.Module
    data: Dataset | None
    validation: Validation
    seed: int
    end: int
    batch_size: int

    def __call__(self) -> dict[str, float]:
        """ "validation_loss", "validation/part" and the numbers of the caller's function."""
        numbers = {} if self.data is None else self._of_loss(self.data)
        return numbers if self.validation.evaluate is None else {**numbers, **self.validation.evaluate()}

    def _of_loss(self, data: Dataset) -> dict[str, float]:
        batch_size, step = AT_ONCE, None
        if isinstance(self.objective, Objective):
            batch_size, step = self.batch_size if self.objective.over_batch else AT_ONCE, self.end
        parts = parts_over(self.objective, self.model, self.guide, data, batch_size, self.seed, step)
        named = {f"validation/{name}": value for name, value in parts.items() if name != LOSS}
        return {"validation_loss": sum(parts.values()), **named}


def held_out(validation: Validation, training: Dataset, model: nn.Module, guide: nn.Module) -> Dataset | None:
    """The validation data as the pair is trained: without labels, unless every training row has one.

    Example:

        >>> import torch
        >>> training = Dataset(torch.zeros(8, 2))
        >>> len(held_out(Validation(torch.zeros(3, 2)), training, nn.Linear(2, 2), nn.Linear(2, 4)))
        3
    """
    if validation.data is None:
        return None
    data = dataset_for(validation.data, "validation", model, guide).to(training.x.device)
    return data.unlabelled() if len(training.rows_by_label()[1]) else data

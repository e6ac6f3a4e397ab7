"""An objective's loss over a whole data set."""

import pyro
import torch

from ppvae.data import Dataset
from ppvae.engine.checks import to_device_of
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.tracing import mark_known


def evaluate_loss(
    objective, model, guide, data: Dataset, *, batch_size: int = 500, seed: int = 0, step: int | None = None
) -> float:
    """Mean loss per datum, in nats, in evaluation mode; minus the bound, for a bound.

    Args:
        objective: an objective of ppvae or a ``pyro.infer.ELBO``.
        model: generative model.
        guide: its guide.
        data: every row counts once, on any device; labels are used where they are known.
        batch_size: rows evaluated at once, at most; a regulariser that is a statistic of the batch depends on it.
        seed: of binarization and draws; the caller's own random state is left alone.
        step: of the training, for an objective of ppvae with schedules.
    """
    data = data.to(to_device_of(model, data.x[:1]).device)
    total = torch.zeros((), dtype=torch.float64, device=data.x.device)
    modules = model, guide, *getattr(objective, "adversaries", ())
    with evaluation_mode(*modules, device=data.x.device, seed=seed), pyro.validation_enabled(False):
        for labelled, rows in zip((True, False), data.rows_by_label(), strict=True):
            for index in rows.tensor_split(-(-len(rows) // batch_size)) if len(rows) else ():  # no short one at the end
                part = (data.rows(index), mark_known(data.y[index])) if labelled else (data.rows(index),)
                total += objective.loss(model, guide, *part, **({} if step is None else {"step": step}))
    return total.item() / len(data)

"""The checks of data: conditions, support, shapes, labels, weights. Each finds one way in which data can be wrong."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Batch
from ppvae.engine.requirements import require_classes
from ppvae.engine.tracing import LABEL, conditions_of, distribution_at, required_conditions_of
from ppvae.errors import ContractError


def check_conditions(functions: Iterable[Any], batch: Batch, allow_others: bool = False) -> None:
    """Raise ContractError where a condition is missing, or where no part of the pair names it.

    Args:
        functions: model and guide, or one of them.
        batch: with conditions.
        allow_others: accept conditions that none of them names.

    Example:

        >>> batch = Batch(torch.zeros(2, 1), given={"c": torch.zeros(2)})
        >>> check_conditions([lambda x, y=None, c=None: None], batch)
        >>> check_conditions([lambda x, y=None: None], batch)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected conditions that the model or the guide names...
    """
    known: set[str] = set()
    for function in functions:
        missing = required_conditions_of(function) - batch.given.keys()
        if missing:
            raise ContractError(
                f"expected the condition(s) {sorted(missing)} that {type(function).__name__} names, got "
                f"{sorted(batch.given) or 'none'}; pass them by name, e.g. Dataset(x, y, {min(missing)}=...)"
            )
        names = conditions_of(function)
        if names is None:
            return
        known |= names
    strangers = sorted(batch.given.keys() - known)
    if strangers and not allow_others:
        raise ContractError(
            f"expected conditions that the model or the guide names ({sorted(known) or 'none'}), got {strangers}; "
            "check the spelling of conditions and options, or name the condition in forward(self, x, y=None, ...)"
        )


def check_support(distribution: Any, x: Tensor, first_row: int = 0) -> None:
    """Raise ContractError unless every element of x is finite and in the support of p(x | z).

    Example:

        >>> check_support(torch.distributions.Bernoulli(torch.tensor([0.5])), torch.tensor([[0.0], [1.0]]))
    """
    if torch.isinf(x).any():
        raise ContractError(
            f"expected finite data, got infinity first in row {first_row + _first(torch.isinf(x))} of x"
        )
    inside = distribution.support.check(x)
    if inside.all():
        return
    if torch.isnan(x).any():
        raise ContractError(
            f"expected data without NaN, got NaN first in row {first_row + _first(torch.isnan(x))} of x; clean the "
            "data, or let NaN mark missing elements by a likelihood with missing=True"
        )
    row = _first(~inside)
    raise ContractError(
        f"expected every x in the support of the likelihood ({distribution.support}), got values from "
        f"{x.min().item():.9g} to {x.max().item():.9g}, first outside in row {first_row + row}; rescale the data or "
        "choose another likelihood"
    )


def _first(mask: Tensor) -> int:
    return int(mask.reshape(len(mask), -1).any(1).nonzero()[0])


def check_event_shape(distribution: Any, x: Tensor) -> None:
    """Raise ContractError unless p(x | z) is over things of the shape of a datum.

    Example:

        >>> check_event_shape(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)), torch.zeros(5, 2))
    """
    if tuple(distribution.event_shape) != tuple(x.shape[1:]):
        raise ContractError(
            f"expected the model to give x of shape {tuple(x.shape[1:])}, got a likelihood over shape "
            f"{tuple(distribution.event_shape)}; fit the decoder's output to the data (or add .to_event(n))"
        )


def check_label_range(model: Any, batch: Batch) -> None:
    """Raise ContractError where a label is none of the model's classes.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> check_label_range(LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2)))
    """
    if batch.y is None:
        return
    unlabelled = Batch(batch.x, None, batch.given)
    try:
        classes = len(distribution_at(model, LABEL, unlabelled).enumerate_support(expand=False))
    except Exception:  # no label site, or a model that fails: `run` gives the better message
        if batch.y.min() < -1:
            raise ContractError(
                f"expected labels from 0, or -1 where unknown, got {int(batch.y.min())} to {int(batch.y.max())}"
            ) from None
        return
    require_classes(batch.y, classes)


def check_weights(log_weight: Tensor, first_row: int = 0) -> None:
    """Raise ContractError where the weights of a datum, log_weight (..., B), have no finite sum, with the first row.

    Example:

        >>> check_weights(torch.tensor([[0.0, torch.nan]]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected finite weights, got nan for 1 of 2 data, the first at row 1...
    """
    total = log_weight.detach().reshape(-1, log_weight.shape[-1]).logsumexp(0)
    bad = (~torch.isfinite(total)).nonzero()[:, 0].tolist()
    if bad:
        raise ContractError(
            f"expected finite weights, got {total[bad[0]]} for {len(bad)} of {len(total)} data, the first at row "
            f"{first_row + bad[0]}; look for NaN in the pair's parameters and for extreme data"
        )

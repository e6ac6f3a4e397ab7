"""What to do where a pair fails: the last sentence of an error message."""

from typing import Any

import torch

from ppvae.engine.batch import Batch
from ppvae.engine.pair import first_parameter
from ppvae.engine.tracing import PLATE


def remedy(role: str, function: Any, batch: Batch, error: Exception) -> str:
    """What most probably mends a failure of the model or the guide.

    Args:
        role: "model" or "guide".
        function: the module that failed.
        batch: what it was called with.
        error: how it failed.

    Example:

        >>> remedy("guide", torch.nn.Linear(2, 2), Batch(torch.tensor([[torch.nan, 0.0]])), RuntimeError())
        'x has missing elements (NaN): wrap the encoder in ppvae.nn.FillMissing'
    """
    if other_type := type_that_differs(function, batch):
        return other_type
    if isinstance(error, IndexError) and batch.label is not None:
        low, high = map(int, batch.label.aminmax())
        return f"The labels go from {low} to {high}: the networks may be made for fewer classes"
    for name, condition in batch.given.items():
        if condition.isnan().any():
            return f"Condition {name!r} has missing elements (NaN): the networks must take them, or fill them in"
    if role == "guide" and batch.x.isnan().any():
        return "x has missing elements (NaN): wrap the encoder in ppvae.nn.FillMissing"
    return (
        f'Networks must take (..., event), sites must stand in `pyro.plate("{PLATE}", len(x))`, and a pair that needs '
        "labels or conditions must get them"
    )


def type_that_differs(function: Any, batch: Batch) -> str | None:
    """What to do where x or a condition has another type than the parameters; None where none has.

    Example:

        >>> batch = Batch(torch.zeros(3, 2), given={"c": torch.zeros(3, dtype=torch.long)})
        >>> type_that_differs(torch.nn.Linear(2, 2), batch)
        "condition 'c' is torch.int64 and the parameters are torch.float32: pass c.float()"
    """
    parameter = first_parameter(function)
    if parameter is None:
        return None
    if parameter.dtype != batch.x.dtype:
        return f"x is {batch.x.dtype} and the parameters are {parameter.dtype}: convert one of them"
    to = {torch.float32: "float", torch.float64: "double"}.get(parameter.dtype, "to")
    for name, condition in batch.given.items():
        if condition.dtype != parameter.dtype:
            call = f"{to}()" if to != "to" else f"to({parameter.dtype})"
            return (
                f"condition {name!r} is {condition.dtype} and the parameters are {parameter.dtype}: pass {name}.{call}"
            )
    return None


def cause(one: Batch) -> str:
    """Where a value that is not finite most probably comes from, for one datum.

    Example:

        >>> cause(Batch(torch.tensor([[torch.nan, 0.0]])))
        'x has missing elements (NaN) there: wrap the encoder in ppvae.nn.FillMissing'
    """
    names = [name for name, condition in one.given.items() if condition.isnan().any()]
    if names:
        return f"The condition(s) {names} have missing elements (NaN) there, which the networks must take; fill them in"
    if one.x.isnan().any():
        return "x has missing elements (NaN) there: wrap the encoder in ppvae.nn.FillMissing"
    return "Look for NaN in the pair's parameters and for extreme data"

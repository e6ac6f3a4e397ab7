"""The conditions that a model or a guide names when it is made."""

import inspect
from collections.abc import Mapping, Sequence

from torch import Tensor

from ppvae.engine.tracing import LABEL, OBSERVED
from ppvae.errors import ContractError


class Conditions:
    """Names of conditions, in the order in which the networks of a model or a guide take them; "y" is the label.

    A module that has them takes ``forward(self, x, y=None, **given)`` and tells the engine which it needs by
    ``forward.conditions_named_by = lambda module: module.conditions.signature``.

    Args:
        names: one name, or several; different identifiers other than "x".

    Raises ValueError for other names.

    Example:

        >>> import torch
        >>> conditions = Conditions(["angle", "y"])
        >>> angle, y = conditions.values("the model", torch.tensor([2, 0]), {"angle": torch.zeros(2, 1)})
        >>> conditions.names, str(conditions.signature)
        (('angle', 'y'), '(x, y=None, *, angle)')
    """

    def __init__(self, names: str | Sequence[str] = ()):
        self.names = (names,) if isinstance(names, str) else tuple(names)
        wrong = [name for name in self.names if not isinstance(name, str) or not name.isidentifier()]
        if wrong or OBSERVED in self.names or len(set(self.names)) < len(self.names):
            raise ValueError(
                f'expected different names of conditions, such as "angle" or "y" for the label, got {self.names}'
            )

    @property
    def signature(self) -> inspect.Signature:
        """The signature of a function of x and y that requires the conditions by name."""
        by_place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        first = [inspect.Parameter(OBSERVED, by_place), inspect.Parameter(LABEL, by_place, default=None)]
        named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in self.names if name != LABEL]
        return inspect.Signature([*first, *named])

    def values(self, owner: str, y: Tensor | None, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The values of the conditions, in their order.

        Args:
            owner: what messages call the module.
            y: labels, or None.
            given: conditions by name.

        Raises:
            ContractError: one is missing.
        """
        missing = [name for name in self.names if name != LABEL and name not in given]
        if missing:
            raise ContractError(
                f"expected the condition(s) {missing} of {owner}, got {sorted(given) or 'none'}; pass them by name, "
                f"e.g. {missing[0]}=..."
            )
        if LABEL in self.names and y is None:
            raise ContractError(
                f"{owner} needs labels, since it is conditional on the class, but got none. Pass y with every "
                "label known; an objective that reads q(y | x), such as ClassifierLoss, takes another pair"
            )
        return tuple(y if name == LABEL and y is not None else given[name] for name in self.names)

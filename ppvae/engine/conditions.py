"""The conditions that a model or a guide names when it is made."""

import inspect
from collections.abc import Mapping, Sequence
from keyword import iskeyword

from torch import Tensor

from ppvae.engine.tracing import LABEL, OBSERVED
from ppvae.errors import ContractError

OPTIONS = ("num_classes", "binarization", "levels", "name", "factors")  # of a Dataset
RESERVED = frozenset({OBSERVED, LABEL, "self", "given", "step", "index", "num_particles", *OPTIONS})


def is_name(name: object) -> bool:
    """Whether a condition can have this name: an identifier that is not reserved.

    Example:

        >>> is_name("angle"), is_name("x"), is_name("class")
        (True, False, False)
    """
    return isinstance(name, str) and name.isidentifier() and not iskeyword(name) and name not in RESERVED


class Conditions:
    """Names of conditions, in the order in which the networks of a model or a guide take them; "y" is the label.

    A module that has them takes ``forward(self, x, y=None, **given)`` and tells the engine which it needs by
    ``forward.conditions_named_by = lambda module: module.conditions.signature``.

    Args:
        names: one name, or several; distinct identifiers that are not reserved: "x" is the data, and the others of
            ``RESERVED`` are options of the functions that take conditions.

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
        if not all(name == LABEL or is_name(name) for name in self.names) or len(set(self.names)) < len(self.names):
            raise ValueError(
                'expected distinct identifiers as names of conditions, such as "angle", or "y" for the label, and none '
                f"of {', '.join(sorted(RESERVED - {LABEL}))}; got {self.names}"
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
                f"{owner} needs labels, every one of them known, since it is conditional on the class; pass y without "
                "-1. An objective that reads q(y | x), such as ClassifierLoss, needs a pair that has it"
            )
        return tuple(y if name == LABEL and y is not None else given[name] for name in self.names)

"""What a model and a guide promise, and :func:`check_pair`, which says in words where a pair does not.

A model is called ``model(x, y=None)``, a guide ``guide(x, y=None)``; both are ``PyroModule`` s.

- ``x`` has shape ``(B, *event_shape)``. ``y`` is a long tensor of shape ``(B,)``, or None. To the functions
  of ppvae ``y == -1`` means unknown; the pair itself is handed either labels that are all known, or None.
- Every site stands in one plate ``"data"`` of size B at dim -1, unscaled and not subsampled.
- The observed site is ``"x"``, a label is ``"y"``; latent sites may bear any names. Given ``y``, the model
  observes site ``"y"`` and the guide does not draw it.
- Dimensions on the left belong to the engine: particles stand at dim -2, enumeration left of them.
  Networks therefore take ``(..., event)``.
- Discrete sites of a guide are enumerated in parallel and summed exactly.
- Model and guide share no parameter, and keep theirs in the module, not in ``pyro.param``.
"""

import itertools

import pyro
import torch
from pyro.distributions.distribution import Distribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppvae.engine import checks
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.tracing import OBSERVED

_instances = itertools.count()


class _UniquelyNamed(PyroModule):
    """A PyroModule whose parameters share no name with another's in Pyro's global store."""

    def __init__(self) -> None:
        super().__init__(name=self._new_name())

    def _new_name(self) -> str:
        return f"{type(self).__name__}_{next(_instances)}"

    def __setstate__(self, state) -> None:  # copy.deepcopy and unpickling come through here
        super().__setstate__(state)
        self._pyro_set_supermodule(self._new_name(), self._pyro_context)


class Model(_UniquelyNamed):
    """Base of generative models p(x, z): define ``forward(self, x, y=None)`` (see the module's text).

    It adds one thing to ``PyroModule``: a name of its own for each instance, so that two pairs of the
    same classes train apart from each other under stock ``pyro.infer.SVI``.
    """


class Guide(_UniquelyNamed):
    """Base of amortized guides q(z | x): define ``forward(self, x, y=None)`` (see the module's text).

    Attributes:
        can_score: whether q can give the density of a value that it did not draw itself.
    """

    can_score: bool = True


class AmortizedGuide(Guide):
    """A guide of one latent, z ~ q(z; encoder(x)): define :meth:`distribution`.

    Whatever belongs to one datum goes through ``encoder(x)``, so that it can be improved datum by datum
    (``ppvae.guides.Refined``, :func:`ppvae.gaps`). A label y is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, features).
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def distribution(self, features: Tensor) -> Distribution:
        """q(z; features), batch shape (B,), for features of shape (B, features)."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.distribution(self.encoder(x)))


def is_amortized(guide) -> bool:
    """Whether a guide is an :class:`AmortizedGuide` that runs as one, with a ``forward`` not its own."""
    return isinstance(guide, AmortizedGuide) and type(guide).forward is AmortizedGuide.forward


def check_pair(model, guide, x: Tensor, y: Tensor | None = None) -> None:
    """Run the pair on a few data and raise ContractError, in words, where it breaks the contract.

    Args:
        model: the generative model.
        guide: the guide that shall be trained with it.
        x: a few data, shape (B, *event_shape).
        y: their labels, shape (B,), -1 where unknown; or None.

    The model is run once alone, then the guide, then the model against it, in evaluation mode without gradients;
    where some of y are known and some not, both on the rows of each kind, and on all of them together.
    Random state, parameters and the global parameter store are left as they were.
    """
    checks.check_parameters(model, guide)
    checks.check_input(x, y)
    stray = pyro.settings.context(validate_poutine=False)  # a pyro.param of no module is ours to report
    with evaluation_mode(model, guide, device=x.device), stray:
        checks.check_label_range(model, x, y)
        known = torch.zeros(len(x), dtype=torch.bool) if y is None else y >= 0
        if not known.all():
            _check_form(model, guide, x, None)
        if known.any():
            _check_form(model, guide, x[known], y[known])
        checks.check_densities(model, guide, x, y)


def _check_form(model, guide, x: Tensor, y: Tensor | None) -> None:
    """Check the pair as it is called with every label known, or with none."""
    prior = checks.run("model", model, x, y)
    checks.check_observes(prior)
    checks.check_event_shape(prior.nodes[OBSERVED]["fn"], x)
    checks.check_support(prior.nodes[OBSERVED]["fn"], x)
    guide_trace = checks.run("guide", guide, x, y)
    checks.check_guide_sites(guide_trace, label_given=y is not None)
    checks.check_match(prior, guide_trace)
    model_trace = checks.run("model", model, x, y, replayed=guide_trace)
    checks.check_plate("guide", guide_trace, len(x))
    checks.check_plate("model", model_trace, len(x))

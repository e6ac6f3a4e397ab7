"""What a model and a guide promise, and :func:`check_pair`, which explains where a pair does not keep it.

A model is called ``model(x, y=None, **given)``, a guide ``guide(x, y=None, **given)``; both are ``PyroModule`` s.

- ``x`` has shape ``(B, *event_shape)``. ``y`` is a long tensor of shape ``(B,)``, or None. For the functions of ppvae
  ``y == -1`` means unknown; the pair itself gets either labels that are all known, or None.
- Conditions are tensors of B rows. A pair names those that it takes, after y: ``forward(self, x, y=None, c=None)``,
  or in its constructor (:class:`~ppvae.engine.conditions.Conditions`).
- Every site stands in one plate ``"data"`` of size B at dim -1, unscaled and not subsampled.
- The observed site is ``"x"``, a label is ``"y"``; latent sites have any names. Given ``y``, the model observes site
  ``"y"`` (or has none) and the guide does not draw it.
- The distribution of ``"x"`` does not read ``x``; what it depends on is declared as a condition.
- Dimensions on the left belong to the engine: particles stand at dim -2, enumeration left of them.
  Networks therefore take ``(..., event)``.
- Discrete sites of a guide are enumerated in parallel and summed exactly.
- Model and guide share no parameter, and keep theirs in the module, not in ``pyro.param``.
"""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppvae.distributions.implicit import has_density
from ppvae.engine import checks, data_checks, density_checks
from ppvae.engine.batch import Array, Batch, HasBatch, as_batch
from ppvae.engine.conditions import Conditions
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import first_parameter
from ppvae.engine.tracing import OBSERVED

_instances = itertools.count()


class _UniquelyNamed(PyroModule):
    """A PyroModule whose parameters share no name with another's in Pyro's global store."""

    def __init__(self) -> None:
        super().__init__(name=self._new_name())

    def _new_name(self) -> str:
        return f"{type(self).__name__}_{next(_instances)}"

    def __setstate__(self, state: dict[str, Any]) -> None:  # copy.deepcopy and unpickling come through here
        super().__setstate__(state)
        self._pyro_context.used = False  # Pyro forbids another name for a part, such as Refined's guide, that has run
        self._pyro_set_supermodule(self._new_name(), self._pyro_context)


class Model(_UniquelyNamed):
    """Base of generative models p(x, z): define ``forward(self, x, y=None)``; see :mod:`ppvae.engine.contract`.

    It adds one thing to ``PyroModule``: a name for each instance, so that two pairs of the same classes train
    independently under stock ``pyro.infer.SVI``.

    Example:

        >>> import pyro
        >>> import torch
        >>> from pyro import distributions as dist
        >>> class Unit(Model):
        ...     def forward(self, x, y=None):
        ...         with pyro.plate("data", len(x)):
        ...             z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        ...             pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> Unit()(torch.zeros(3))
    """


class Guide(_UniquelyNamed):
    """Base of amortized guides q(z | x): define ``forward(self, x, y=None)``; see :mod:`ppvae.engine.contract`.

    Attributes:
        can_score: whether q has ``log_prob`` at arbitrary values, and not only at its own draws.

    Example:

        >>> import pyro
        >>> from pyro import distributions as dist
        >>> class Half(Guide):
        ...     def forward(self, x, y=None):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> Half().can_score
        True
    """

    can_score: bool = True


def _naming_of(guide: "AmortizedGuide") -> Callable[..., Tensor] | inspect.Signature:
    """What names the conditions: those of the constructor, or an ``encode`` of the guide's own."""
    own = type(guide).encode is not AmortizedGuide.encode
    return guide.encode if own else guide.conditions.signature


class AmortizedGuide(Guide):
    """A guide of one latent, z ~ q(z; encode(x)): define :meth:`distribution`.

    Everything that belongs to one datum goes through :meth:`encode`, so that it can be improved datum by datum
    (``ppvae.guides.Refined``, :func:`ppvae.gaps`).

    Args:
        encoder: network (B, *event_shape) -> (B, features); with conditions it takes them after x, in their order.
        conditions: names of the conditions of q(z | x, conditions), where "y" is the label.

    Example:

        >>> import torch
        >>> from torch import nn
        >>> from pyro import distributions as dist
        >>> class Laplace(AmortizedGuide):
        ...     def distribution(self, features):
        ...         loc, log_scale = features.chunk(2, -1)
        ...         return dist.Laplace(loc, log_scale.exp()).to_event(1)
        >>> Laplace(nn.Linear(5, 4)).encode(torch.zeros(3, 5)).shape
        torch.Size([3, 4])
    """

    def __init__(self, encoder: nn.Module, conditions: str | Sequence[str] = ()):
        super().__init__()
        self.encoder, self.conditions = encoder, Conditions(conditions)

    def encode(self, x: Tensor, y: Tensor | None = None, **given: Tensor) -> Tensor:
        """The features of each datum, (B, features). A guide that overrides it names its conditions here, after y."""
        return self.encoder(x, *self.conditions.values(type(self).__name__, y, given))

    def distribution(self, features: Tensor) -> TorchDistribution:
        """q(z; features), batch shape (B,), for features of shape (B, features)."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution(features)")

    def forward(self, x: Tensor, y: Tensor | None = None, **given: Tensor) -> None:
        """Draw site "z"."""
        features = self.encode(x, y, **given)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.distribution(features))

    forward.conditions_named_by = _naming_of  # type: ignore[attr-defined]


def is_amortized(guide: Any) -> bool:
    """Whether a guide is an :class:`AmortizedGuide` with the ``forward`` of that class.

    Example:

        >>> is_amortized(AmortizedGuide(nn.Linear(2, 4))), is_amortized(Guide())
        (True, False)
    """
    return isinstance(guide, AmortizedGuide) and type(guide).forward is AmortizedGuide.forward


def check_pair(model: Any, guide: Any, data: Batch | HasBatch | Array, y: Array | None = None, **given: Array) -> None:
    """Run the pair on a few data and raise ContractError where it breaks the contract.

    Args:
        model: the generative model.
        guide: its guide.
        data: a few data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: their labels, shape (B,), -1 where unknown; or None.
        given: conditions of B rows each.

    The model runs alone, then the guide, then the model against it, in evaluation mode without gradients; where some
    labels are known and some not, on the rows of each kind, and on all of them together. Random state, parameters and
    the global parameter store stay as they were.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from torch import nn
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> check_pair(model, guide, torch.zeros(3, 2))
    """
    checks.check_modules(model, guide)
    parameter = first_parameter(model, guide)
    batch = as_batch(data, y, given, None if parameter is None else parameter.dtype)
    check_batch(model, guide, batch if parameter is None else batch.to(parameter.device))


def check_batch(model: Any, guide: Any, batch: Batch) -> None:
    """:func:`check_pair` on a batch.

    Example:

        >>> import torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> check_batch(model, guide, as_batch(torch.zeros(3, 2)))
    """
    checks.check_parameters(model, guide)
    checks.check_partners(model, guide)
    data_checks.check_conditions((model, guide), batch)
    strangers = pyro.settings.context(validate_poutine=False)  # checks.run reports a pyro.param of no module
    with evaluation_mode(model, guide, device=batch.x.device), strangers:
        data_checks.check_label_range(model, batch)
        explicit = [_check_form(model, guide, part) for part in batch.kinds()]
        if all(explicit):
            density_checks.check_densities(model, guide, batch)


def _check_form(model: Any, guide: Any, batch: Batch) -> bool:
    """Check the pair as it is called with every label known, or with none. Returns whether p(x | z) has a density."""
    prior = checks.run("model", model, batch)
    checks.check_observes(prior)
    data_checks.check_event_shape(prior.nodes[OBSERVED]["fn"], batch.x)
    data_checks.check_support(prior.nodes[OBSERVED]["fn"], batch.x)
    guide_trace = checks.run("guide", guide, batch)
    checks.check_guide_sites(guide_trace, label_given=batch.label is not None)
    checks.check_plates("guide", guide_trace, len(batch))
    explicit = has_density(prior.nodes[OBSERVED]["fn"])
    if explicit:
        checks.check_match(prior, guide_trace)
        latents, model_trace = guide_trace, checks.run("model", model, batch, replayed=guide_trace)
    else:
        checks.check_recognises(prior, guide_trace)
        latents, model_trace = prior, prior
    checks.check_plates("model", model_trace, len(batch))
    checks.check_reads_no_data(model, batch, latents, model_trace)
    return explicit

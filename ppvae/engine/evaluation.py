"""The preamble of every evaluator: check once, move to the device, evaluation mode, own random state, own store."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch

from ppvae.distributions.implicit import has_density
from ppvae.engine import checks, data_checks
from ppvae.engine.batch import Array, Batch, HasBatch, as_batch, rows_to_check
from ppvae.engine.contract import check_batch
from ppvae.engine.density_checks import check_values
from ppvae.engine.isolation import evaluation_mode, forked_randomness
from ppvae.engine.pair import Pair, first_parameter
from ppvae.engine.requirements import require_likelihood
from ppvae.engine.sites import Site, sites_of
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError


@contextmanager
def evaluation(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    given: Mapping[str, Array] | None = None,
    seed: int = 0,
    simulate: bool = False,
    reads_likelihood: bool = True,
) -> Iterator[tuple[Pair, Batch]]:
    """Check a pair and its data, and run the body of the ``with`` statement as an evaluation.

    Args:
        model: the generative model; None where the guide alone is evaluated.
        guide: its guide; None where the model alone is evaluated.
        data: a ``Dataset``, a tensor or a numpy array. Dynamically binarized data are drawn by ``seed``.
        y: labels, -1 where unknown.
        given: conditions.
        seed: of all random numbers inside; the caller's random state does not change.
        simulate: read the shape and the type of x alone, for an evaluator that replaces it by ``pair.simulate(batch)``;
            the checks run on a few data that the model draws.
        reads_likelihood: whether the evaluator reads log p(x | z), which an implicit model does not have.

    Yields the pair and all of the data on the pair's device. Inside, modules are in evaluation mode, there is no
    gradient, Pyro's parameter store is empty, and Pyro validates nothing, since the pair was checked.

    Raises:
        ContractError: the pair or the data break the contract, densities have less than 32 bits, or p(x | z) is read
            and has no density.
        TypeError: the seed is not a whole number.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> with evaluation(model, guide, torch.zeros(3, 2), seed=0) as (pair, batch):
        ...     pair.draw(batch, num_particles=5).log_weight.shape
        torch.Size([5, 3])
    """
    modules = [module for module in (model, guide) if module is not None]
    checks.check_modules(*modules)
    seed = _whole(seed)
    parameter = first_parameter(*modules)
    device = torch.device("cpu") if parameter is None else parameter.device
    with forked_randomness(device, seed):
        batch = as_batch(data, y, given, None if parameter is None else parameter.dtype)
    batch = batch if parameter is None else batch.to(device)
    of_the_other = not given and (model is None or guide is None)  # a Dataset has the conditions of the whole pair
    data_checks.check_conditions(modules, batch, allow_others=of_the_other)
    with evaluation_mode(*modules, device=device):
        check_all(model, guide, batch, simulate, reads_likelihood)
    with evaluation_mode(*modules, device=device, seed=seed), pyro.validation_enabled(False):
        yield Pair(model, guide), batch


def _whole(seed: Any) -> int:
    try:
        return seed.__index__()
    except AttributeError:
        raise TypeError(f"expected seed to be a whole number, got {seed!r}") from None


def check_all(model: Any, guide: Any, batch: Batch, simulate: bool = False, reads_likelihood: bool = True) -> None:
    """Check a pair, or one of the two, on a few rows of each kind, and every row against the likelihood.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> check_all(LinearGaussian(torch.eye(2), torch.zeros(2)), None, as_batch(torch.zeros(3, 2)))
    """
    few = batch.rows(rows_to_check(batch.y, [batch.x, *batch.given.values()]).to(batch.x.device))
    if model is None:
        for part in few.kinds():
            drawn = checks.run("guide", guide, part)
            check_values(sites_of("guide", drawn, checks.CHECKED_PARTICLES, len(part)).values(), part)
        return
    data_checks.check_label_range(model, batch)
    if simulate:
        few = _drawn(model, few)
    else:
        likelihood = checks.likelihood_of(model, batch)
        data_checks.check_event_shape(likelihood, batch.x)
        data_checks.check_support(likelihood, batch.x)
    if guide is None:
        _check_model(model, few)
    else:
        check_batch(model, guide, few)
    of_model = Pair(model, None).prior(few, 1)
    if reads_likelihood:
        require_likelihood(model, of_model[OBSERVED].distribution)
    of_guide = {} if guide is None else Pair(model, guide).draw(few).guide
    sites = [*of_model.values(), *of_guide.values()]
    _check_precision(sites)
    check_values(sites, few)


def _drawn(model: Any, few: Batch) -> Batch:
    """Data that the model draws, with the labels and conditions of ``few``."""
    prior = checks.run("model", model, few)
    checks.check_observes(prior)
    data_checks.check_event_shape(prior.nodes[OBSERVED]["fn"], few.x)
    return Pair(model, None).simulate(few)[0]


def _check_model(model: Any, few: Batch) -> None:
    """What ``check_pair`` checks of a model, without a guide: the latents are drawn from the prior."""
    for part in few.kinds():
        prior = checks.run("model", model, part)
        checks.check_observes(prior)
        data_checks.check_event_shape(prior.nodes[OBSERVED]["fn"], part.x)
        data_checks.check_support(prior.nodes[OBSERVED]["fn"], part.x)
        checks.check_plates("model", prior, len(part))
        checks.check_reads_no_data(model, part, prior, prior)


def _check_precision(sites: Iterable[Site]) -> None:
    for site in sites:
        if has_density(site.distribution) and site.log_prob.dtype.itemsize < 4:
            raise ContractError(
                f"expected densities in float32 or float64, got {site.log_prob.dtype} at site {site.name!r}: a sum of "
                "densities in that type is off by nats. Convert the pair and the data by .float(); nn.Autocast runs "
                "products of a network alone in bfloat16"
            )

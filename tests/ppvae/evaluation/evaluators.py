"""Every evaluator with short settings, and the numbers of what it returns."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch

import ppvae
from ppvae.evaluation import Annealing, Ascent, inference_data, reconstruct, sample


def first(data):
    """The first datum of a data set, a tensor or an array."""
    return data.take(slice(1)) if isinstance(data, ppvae.Dataset) else data[:1]


SHORT, CLIMB = Annealing(temperatures=3, chains=2, leapfrog_steps=2), Ascent(max_windows=1)
# All that weigh q. Of fewer than 100 weights k-hat is so noisy that rounding decides which data are fitted.
ESTIMATES = {
    "log_marginal": lambda model, guide, x: ppvae.log_marginal(model, guide, x, num_particles=100),
    "ais": lambda model, guide, x: ppvae.ais(model, x, guide=guide, annealing=SHORT),
    "bdmc": lambda model, guide, x: ppvae.bdmc(model, x, guide=guide, annealing=SHORT),
    "upper_bound": lambda model, guide, x: ppvae.upper_bound(model, guide, x, num_particles=5),
    "calibration": lambda model, guide, x: ppvae.calibration(model, guide, x, num_particles=9),
    "gaps": lambda model, guide, x: ppvae.gaps(model, guide, x, num_particles=100, ascent=CLIMB),
    "latent_statistics": ppvae.latent_statistics,
    "compare": lambda model, guide, x: ppvae.compare(model, {"only": guide}, x, num_particles=100),
    "impute": lambda model, guide, x: ppvae.impute(model, guide, x, num_particles=100),
    "inference_data": lambda model, guide, x: inference_data(model, guide, x, draws=5),
}
SIMULATE = ("bdmc", "upper_bound", "calibration")
OTHERS = {
    "traversals": lambda model, guide, x: ppvae.traversals(model, guide, first(x)),
    "reconstruct": reconstruct,
}
WITHOUT_GUIDE = {
    "ais": lambda model, x: ppvae.ais(model, x, annealing=SHORT),
    "bdmc": lambda model, x: ppvae.bdmc(model, x, annealing=SHORT),
    "sample": lambda model, x: sample(model, len(x), template=x),
}


def numbers(result, name: str = "") -> dict[str, torch.Tensor]:
    """The numbers of a result, by their place in it; without run times."""
    if isinstance(result, torch.Tensor | int | float):
        return {name: torch.as_tensor(result)}
    return {
        place: found
        for part, value in _parts(result)
        if part != "seconds"
        for place, found in numbers(value, f"{name}.{part}").items()
    }


def _parts(result) -> Iterator[tuple[str, object]]:
    if hasattr(result, "log_likelihood"):  # ArviZ's
        return (
            (f"{group}.{name}", torch.as_tensor(array.values))
            for group in ("posterior", "log_likelihood")
            for name, array in result[group].data_vars.items()
        )
    if isinstance(result, Mapping):
        return iter(result.items())
    if is_dataclass(result):
        return ((field.name, getattr(result, field.name)) for field in fields(result))
    return iter(())

"""All the disentanglement metrics of one pair, in one call."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from ppvae.data import Dataset
from ppvae.errors import DataError
from ppvae.evaluation.disentanglement.importance import dci
from ppvae.evaluation.disentanglement.information import mig, modularity_explicitness, mutual_information
from ppvae.evaluation.disentanglement.interventions import irs
from ppvae.evaluation.disentanglement.predictability import sap
from ppvae.evaluation.disentanglement.representation import Representation, at_least, represent
from ppvae.evaluation.disentanglement.total_correlation import (
    AggregatePosterior,
    aggregate_posterior,
    critic_correlation,
    minibatch_correlation,
)
from ppvae.evaluation.disentanglement.votes import factor_vae_score, higgins
from ppvae.evaluation.likelihood.per_datum import sampling_error

SAMPLES = 10_000  # of the heat map's information


@dataclass(frozen=True, eq=False)
class Disentanglement:
    """Every metric of one representation; made by :func:`disentanglement` and :func:`score`.

    Attributes:
        scores: by name, each from 0 to 1; those that were left out are absent.
        aggregate: total correlation and the other parts of the rate; None where it was left out or q is no product of
            Normals.
        estimates: of the same total correlation, a value and its standard error each, nats: "minibatch" (by stratified
            sampling, at ``batch_size``) and, where one was given, "critic".
        mutual_information: I(z_d; v_k) in nats, shape (D, F), for :func:`ppvae.plots.mutual_information_heatmap`.
        representation: the codes.
        seed: of all the draws.
    """

    scores: dict[str, float]
    aggregate: AggregatePosterior | None
    estimates: dict[str, tuple[float, float]]
    mutual_information: np.ndarray
    representation: Representation
    seed: int

    def to_dict(self) -> dict:
        """As numbers, JSON-ready; nats. What was not computed is None."""
        kl, found = self.representation.kl, self.aggregate
        return {
            **self.scores,
            "rate": None if kl is None else kl.sum().item(),
            "aggregate": None if found is None else {name: getattr(found, name) for name in _AGGREGATE},
            **{f"total_correlation_by_{name}": value for name, (value, _) in self.estimates.items()},
            "kl_per_dimension": None if kl is None else kl.tolist(),
            "factors": list(self.representation.varying.names),
            "mutual_information_by_factor": self.mutual_information.tolist(),
            "seed": self.seed,
        }

    def table(self) -> Table:
        """As a rich table: a row for each metric, then the parts of the rate."""
        codes = self.representation.codes
        table = Table(
            "", "", "", title=f"{codes.shape[1]} dimensions, {len(codes)} rows", box=SIMPLE, show_header=False
        )
        for name, value in self.scores.items():
            table.add_row(name.replace("_", " "), f"{value:.3f}", "of 1")
        if self.aggregate is not None:
            table.add_section()
            for name, of in _AGGREGATE.items():
                if of is not None and getattr(self.aggregate, name) is not None:
                    table.add_row(name.replace("_", " "), self._cell(name), of.format(self.aggregate.log_n))
            for name, (value, error) in self.estimates.items():
                table.add_row(f"total correlation, {name}", f"{value:.3f} ± {error:.3f}", "nats, biased")
        return table

    def print(self) -> None:
        """Print :meth:`table`."""
        Console().print(self.table())

    def plot(self):
        """:func:`ppvae.plots.mutual_information_heatmap`, a matplotlib figure."""
        from ppvae.plots import mutual_information_heatmap

        return mutual_information_heatmap(self.mutual_information, self.representation.varying.names)

    def _cell(self, name: str) -> str:
        if name == "rate" and self.representation.kl is not None:
            return f"{self.representation.kl.sum():.3f}"  # exact; the aggregate's is the sum of its sampled parts
        error = getattr(self.aggregate, f"{name}_error", None)
        return f"{getattr(self.aggregate, name):.3f}" + ("" if error is None else f" ± {error:.3f}")


def disentanglement(
    model,
    guide,
    data: Dataset,
    *,
    site: str = "z",
    critic: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    leave_out: Collection[str] = (),
    progress: bool = False,
    **settings,
) -> Disentanglement:
    """Measure how the codes of a guide lie to the ground-truth factors of a whole data set.

    Args:
        model: generative model; of it only the prior is read.
        guide: its guide.
        data: made from ground-truth factors, all of it.
        site: the latent.
        critic: log q(z) / prod_d q(z_d) by a network, such as ``objective.adversaries[0].log_ratio`` of
            :func:`ppvae.factor_vae`, or of :func:`ppvae.train_critic`, whose total correlation is set beside the
            exact one; None for none.
        seed: of everything drawn: the same seed gives the same numbers.
        leave_out: names of :data:`METRICS`, such as ``["dci"]``, which takes minutes where the others take seconds.
        progress: show progress bars.
        settings: of :func:`score`.

    Raises DataError for data without factors, and ValueError or TypeError for settings that are none, before the
    data are encoded.
    """
    _check(leave_out, **settings)
    representation = represent(model, guide, data, site=site, seed=seed, progress=progress)
    return score(representation, critic=critic, seed=seed, leave_out=leave_out, progress=progress, **settings)


def score(
    representation: Representation,
    *,
    critic: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    leave_out: Collection[str] = (),
    num_train: int = 10_000,
    num_test: int = 5_000,
    num_draws: int = 1000,
    batch_size: int = 64,
    jobs: int = 1,
    progress: bool = False,
) -> Disentanglement:
    """:func:`disentanglement` of codes that are at hand.

    Args:
        representation: codes of a grid.
        critic: as in :func:`disentanglement`. Not asked where the aggregate posterior is left out.
        seed: of everything drawn.
        leave_out: names of :data:`METRICS`.
        num_train, num_test: rows (or votes) that classifiers are fitted to and scored on; one sample is ``num_train``.
        num_draws: of the aggregate posterior.
        batch_size: of the estimate of the total correlation from batches.
        jobs: classifiers of DCI that are fitted at once.
        progress: show progress bars.
    """
    _check(leave_out, num_train=num_train, num_test=num_test, num_draws=num_draws, batch_size=batch_size, jobs=jobs)
    if critic is not None and representation.scales is None:
        raise DataError("expected q(z | x) as a product of Normals, for a critic to be asked at its draws, got another")
    if critic is not None and "aggregate" not in leave_out:
        critic(representation.codes[:2])  # one for codes of another length is refused now
    wanted = [name for name in _SCORES if name not in leave_out]
    scores = {}
    for name in track(wanted, "metrics") if progress else wanted:
        scores |= _SCORES[name](representation, num_train, num_test, seed, jobs)
    aggregate, estimates = None, {}
    if "aggregate" not in leave_out and representation.scales is not None:
        parts = representation.codes, representation.scales, representation.prior
        aggregate = aggregate_posterior(*parts, num_draws=num_draws, seed=seed, progress=progress)
        estimates = _estimates(*parts[:2], critic, batch_size, seed)
    sample = representation.sample(SAMPLES, np.random.default_rng(seed))
    return Disentanglement(scores, aggregate, estimates, mutual_information(*sample), representation, seed)


def _estimates(codes: Tensor, scales: Tensor, critic, batch_size: int, seed: int) -> dict[str, tuple[float, float]]:
    found = {"minibatch": minibatch_correlation(codes, scales, batch_size=batch_size, seed=seed)}
    if critic is not None:
        found["critic"] = critic_correlation(critic, codes, scales, seed=seed)
    return {name: (value.mean().item(), sampling_error(value)) for name, value in found.items()}


def _check(leave_out: Collection[str], **settings: int) -> None:
    unknown = set(leave_out) - set(METRICS)
    if isinstance(leave_out, str) or unknown:
        raise ValueError(f"expected a list of names among {METRICS} to leave out, got {leave_out!r}")
    strange = sorted(settings.keys() - _LEAST.keys())
    if strange:
        raise TypeError(f"expected settings among {', '.join(_LEAST)}, got {', '.join(strange)}")
    for name, value in settings.items():
        at_least(_LEAST[name], **{name: value})


def _mig(r, train: int, test: int, seed: int, jobs: int) -> dict[str, float]:
    scores = {"mig": mig(r, num_samples=train, seed=seed)}
    if r.scales is not None:
        scores["mig_of_draws"] = mig(r.drawn(seed), num_samples=train, seed=seed)
    return scores


def _dci(r, train: int, test: int, seed: int, jobs: int) -> dict[str, float]:
    found = dci(r, num_train=train, num_test=test, seed=seed, jobs=jobs)
    names = ("disentanglement", "completeness", "informativeness")
    return {f"dci_{name}": getattr(found, name) for name in names}


def _sap(r, train: int, test: int, seed: int, jobs: int) -> dict[str, float]:
    forms = ("r2", "classifier")
    return {f"sap_{form}": sap(r, form=form, num_train=train, num_test=test, seed=seed) for form in forms}


def _modularity(r, train: int, test: int, seed: int, jobs: int) -> dict[str, float]:
    return vars(modularity_explicitness(r, num_train=train, num_test=test, seed=seed))


_SCORES: dict[str, Callable[..., dict[str, float]]] = {
    "higgins": lambda r, train, test, seed, jobs: {"higgins": higgins(r, num_train=train, num_eval=test, seed=seed)},
    "factor_vae": lambda r, train, test, seed, jobs: {
        "factor_vae": factor_vae_score(r, num_train=train, num_eval=test, seed=seed)
    },
    "mig": _mig,
    "dci": _dci,
    "sap": _sap,
    "modularity_explicitness": _modularity,
    "irs": lambda r, train, test, seed, jobs: {"irs": irs(r, num_samples=train, seed=seed)},
}

METRICS = (*_SCORES, "aggregate")
_LEAST = {"num_train": 1, "num_test": 1, "num_draws": 2, "batch_size": 2, "jobs": 1}  # of the settings of `score`

_AGGREGATE = {  # what stands beside each in the table; None keeps it out
    "total_correlation": "nats",
    "total_correlation_error": None,
    "mutual_information": "nats, at most log N = {:.2f}",
    "mutual_information_error": None,
    "dimension_wise_kl": "nats",
    "rate": "nats",
    "log_n": None,
}

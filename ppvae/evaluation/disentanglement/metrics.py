"""Every metric by name, and the settings that they share."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any

from ppvae.evaluation.disentanglement.importance import dci
from ppvae.evaluation.disentanglement.information import mig, modularity_explicitness
from ppvae.evaluation.disentanglement.interventions import irs
from ppvae.evaluation.disentanglement.predictability import sap
from ppvae.evaluation.disentanglement.representation import Representation, require_at_least
from ppvae.evaluation.disentanglement.votes import factor_vae_score, higgins


@dataclass(frozen=True)
class Settings:
    """Which metrics are computed, and from how many rows.

    Attributes:
        leave_out: names in :data:`METRICS` that are not computed, such as ``["dci"]``, which takes minutes where the
            others take seconds.
        num_train: rows (or votes) that classifiers are fitted to; also the size of single samples.
        num_test: rows (or votes) that classifiers are scored on.
        num_draws: draws of the aggregate posterior, at least 2.
        batch_size: of the minibatch estimate of the total correlation, at least 2.
        jobs: classifiers of DCI that are fitted at once.

    Raises ValueError for unknown names and for other numbers.

    Example:

        >>> from ppvae.evaluation.disentanglement.metrics import Settings
        >>> Settings(leave_out=["dci"]).num_train
        10000
    """

    leave_out: Collection[str] = ()
    num_train: int = 10_000
    num_test: int = 5_000
    num_draws: int = 1000
    batch_size: int = 64
    jobs: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.leave_out, str) or set(self.leave_out) - set(METRICS):
            raise ValueError(f"expected a list of names among {METRICS} to leave out, got {self.leave_out!r}")
        require_at_least(1, num_train=self.num_train, num_test=self.num_test, jobs=self.jobs)
        require_at_least(2, num_draws=self.num_draws, batch_size=self.batch_size)

    @classmethod
    def named(cls, **settings: Any) -> "Settings":
        """The settings of these names. Raises TypeError for unknown names."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(settings.keys() - set(names))
        if unknown:
            raise TypeError(f"expected settings among {', '.join(names)}, got {', '.join(unknown)}")
        return cls(**settings)


def _higgins(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    return {"higgins": higgins(r, num_train=s.num_train, num_eval=s.num_test, seed=seed)}


def _factor_vae(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    return {"factor_vae": factor_vae_score(r, num_train=s.num_train, num_eval=s.num_test, seed=seed)}


def _mig(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    scores = {"mig": mig(r, num_samples=s.num_train, seed=seed)}
    if r.scales is not None:
        scores["mig_of_draws"] = mig(r.drawn(seed), num_samples=s.num_train, seed=seed)
    return scores


def _dci(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    found = dci(r, num_train=s.num_train, num_test=s.num_test, seed=seed, jobs=s.jobs)
    names = ("disentanglement", "completeness", "informativeness")
    return {f"dci_{name}": getattr(found, name) for name in names}


def _sap(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    sizes = {"num_train": s.num_train, "num_test": s.num_test, "seed": seed}
    return {"sap_r2": sap(r, form="r2", **sizes), "sap_classifier": sap(r, form="classifier", **sizes)}


def _modularity(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    return vars(modularity_explicitness(r, num_train=s.num_train, num_test=s.num_test, seed=seed))


def _irs(r: Representation, s: Settings, seed: int) -> dict[str, float]:
    return {"irs": irs(r, num_samples=s.num_train, seed=seed)}


SCORES: dict[str, Callable[[Representation, Settings, int], dict[str, float]]] = {
    "higgins": _higgins,
    "factor_vae": _factor_vae,
    "mig": _mig,
    "dci": _dci,
    "sap": _sap,
    "modularity_explicitness": _modularity,
    "irs": _irs,
}

METRICS = (*SCORES, "aggregate")

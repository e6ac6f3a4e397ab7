"""The total correlation of a run on dSprites in the course of its training.

Three values: exact, over all data; estimated by the critic that the run trains; estimated by a critic that is trained
on the finished codes. ``factorvae_dsprites.py`` writes them to correlations.json.
"""

import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ppvae import train_critic
from ppvae.evaluation.disentanglement import Disentanglement, Representation, aggregate_posterior, critic_correlation
from ppvae.objectives import TotalCorrelation


def log_ratio(objective) -> Callable[[Tensor], Tensor] | None:
    """The log density ratio of the objective's critic of the total correlation of z; None if it has no such critic."""
    terms = [term for term in getattr(objective, "regularisers", ()) if isinstance(term, TotalCorrelation)]
    return next((term.critic.log_ratio for term in terms if term.site == "z"), None)


def recorded(folder: Path) -> list[dict]:
    """The total correlations of a run so far, one row per step at which they were computed."""
    file = folder / "correlations.json"
    return json.loads(file.read_text()) if file.exists() else []


def record(folder: Path, row: dict) -> None:
    """Add a row to those of earlier steps. Rows of this step and of later ones are replaced."""
    rows = [earlier for earlier in recorded(folder) if earlier["step"] < row["step"]]
    (folder / "correlations.json").write_text(json.dumps([*rows, row], indent=2) + "\n")


def correlations(codes: Representation, objective, seed: int) -> dict[str, float]:
    """The exact total correlation and, if the objective has a critic of it, the critic's estimate; nats."""
    numbers = {"total_correlation": aggregate_posterior(codes.codes, codes.scales, None, seed=seed).total_correlation}
    ratio = log_ratio(objective)
    if ratio is not None:
        numbers["critic"] = critic_correlation(ratio, codes.codes, codes.scales, seed=seed).mean().item()
    return numbers


def final_row(steps: int, found: Disentanglement) -> dict[str, float]:
    """The row of the last step, with :func:`correlations` as the scores of the codes have them."""
    critic = {name: value for name, (value, _) in found.estimates.items() if name == "critic"}
    return {"step": steps, "total_correlation": found.aggregate.total_correlation, **critic}


def later_critic(codes: Representation, seed: int) -> float:
    """The total correlation estimated by a critic that is trained on the finished codes, for any recipe; nats."""
    later = train_critic(codes.drawn(seed).codes, seed=seed)
    return critic_correlation(later.log_ratio, codes.codes, codes.scales, seed=seed).mean().item()

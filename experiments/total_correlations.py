"""The total correlation of one run on dSprites over its training: of all data, by its critic, by a later critic.

For ``factorvae_dsprites.py``, which writes them to correlations.json.
"""

import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ppvae import train_critic
from ppvae.evaluation.disentanglement import Disentanglement, Representation, aggregate_posterior, critic_correlation
from ppvae.objectives import TotalCorrelation


def log_ratio(objective) -> Callable[[Tensor], Tensor] | None:
    """That of its critic of the total correlation; None where it has none."""
    terms = getattr(objective, "regularisers", ())
    return next((term.adversary.log_ratio for term in terms if isinstance(term, TotalCorrelation)), None)


def followed(folder: Path) -> list[dict]:
    """The total correlations of a run so far."""
    file = folder / "correlations.json"
    return json.loads(file.read_text()) if file.exists() else []


def remember(folder: Path, row: dict) -> None:
    rows = [before for before in followed(folder) if before["step"] < row["step"]]
    (folder / "correlations.json").write_text(json.dumps([*rows, row], indent=2) + "\n")


def correlations(codes: Representation, objective, seed: int) -> dict[str, float]:
    """Total correlation of the aggregate posterior of all data, and what the critic takes it for, if there is one."""
    numbers = {"total_correlation": aggregate_posterior(codes.codes, codes.scales, None, seed=seed).total_correlation}
    ratio = log_ratio(objective)
    if ratio is not None:
        numbers["critic"] = critic_correlation(ratio, codes.codes, codes.scales, seed=seed).mean().item()
    return numbers


def at_the_end(steps: int, found: Disentanglement) -> dict[str, float]:
    """:func:`correlations` of the scored codes, which have them."""
    critic = {name: value for name, (value, _) in found.estimates.items() if name == "critic"}
    return {"step": steps, "total_correlation": found.aggregate.total_correlation, **critic}


def later_critic(codes: Representation, seed: int) -> float:
    """Total correlation by a critic that is trained on the codes when they are finished, whatever the recipe."""
    later = train_critic(codes.drawn(seed).codes, seed=seed)
    return critic_correlation(later.log_ratio, codes.codes, codes.scales, seed=seed).mean().item()

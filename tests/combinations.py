"""The table of combinations in docs/, from the catalogue; ``python -m tests.combinations`` writes it."""

import re
from pathlib import Path

import ppvae
from tests.catalogue import OBJECTIVES, PAIRS

PAGE = Path(__file__).parent.parent / "docs" / "combinations.md"
MARKS = ("<!-- combinations -->", "<!-- end of combinations -->")
COLUMNS = [
    *("elbo", "sticking_the_landing", "iwae", "dreg", "renyi", "reweighted_wake_sleep", "forward_kl"),
    *("info_vae", "dip_vae_ii", "beta_tcvae"),
]


def table() -> str:
    heads = [name_of(OBJECTIVES[column].make()) for column in COLUMNS]
    lines = [f"| guide | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows = {}
    for name, pair in PAIRS.items():
        guide = type(pair.guide()).__name__
        if name.startswith("flow_") and guide == "FlowGuide":
            guide += f", {name.removeprefix('flow_').replace('_', ' ')}"
        if guide not in ("UserGuide", *rows):
            rows[guide] = ["yes" if OBJECTIVES[column].fits(pair) else "" for column in COLUMNS]
    return "\n".join([*lines, *(f"| {guide} | {' | '.join(cells)} |" for guide, cells in sorted(rows.items()))])


def name_of(objective: ppvae.Objective) -> str:
    """The class of an objective, or of the last term that is added to it."""
    terms = getattr(objective, "regularisers", [objective])
    return type(terms[-1]).__name__


def written(text: str) -> str:
    """The page's text with the present table between the marks."""
    return re.sub(f"(?s){MARKS[0]}.*{MARKS[1]}", f"{MARKS[0]}\n{table()}\n{MARKS[1]}", text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

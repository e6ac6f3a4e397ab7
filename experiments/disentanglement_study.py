r"""Recipes, strengths and seeds on dSprites: all metrics and the reconstruction error in one table and one figure.

Each run is one of ``factorvae_dsprites.py`` in its own folder, all with the same number of steps. A finished run is not
repeated; an interrupted or a shorter run is continued; a run that another process holds is skipped. ``--list`` prints
the command of each unfinished run, one per line, for a program that runs commands: xargs on one machine (below, two at
a time), GNU parallel on several machines that share the folder, or a job array.

    python experiments/disentanglement_study.py                                      # all runs, one after another
    python experiments/disentanglement_study.py --list | xargs -d '\n' -P 2 -I {} sh -c {}
    python experiments/disentanglement_study.py --runs                               # the table of the finished runs
    python experiments/disentanglement_study.py --runs vae beta-vae:4 factor-vae:35 beta-tcvae:6 \
        --settings.steps 10000 --settings.correlations 10 --settings.stage-scores --settings.leave-out dci \
        --agreement checkpoints

Claim: Kim and Mnih 2018 ("Disentangling by Factorising"): FactorVAE score .82 (gamma 40) and .73 (beta-VAE, beta 4)
after 300,000 steps. The closest reproduction reports MIG .43 (gamma 40), and .45 to .50 for beta-TCVAE. UDR needs no
factors; it compares the seeds of one row and needs at least two.

The agreement of the metrics is that of the finished runs: Pearson, Kendall and Spearman correlations with their
p-values. The same paper reports .404, .310 and .444 for the FactorVAE and the Higgins metric. With ``--agreement
checkpoints`` each checkpoint at which a run was scored (``--settings.stage-scores``) counts as a run. Checkpoints of
one run are not independent, and the p-values then mean nothing.

Writes to the run folder: a folder for each run, table.json, scatter.png, agreement.json, agreement.png.
"""

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from factorvae_dsprites import OWN_SETTINGS, RECIPES, flat, settings
from factorvae_dsprites import Config as Run
from factorvae_dsprites import main as run
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Column, Table
from safetensors.torch import load_file
from torch import tensor

from ppvae import cli, plots
from ppvae.data.sprites import SPRITES
from ppvae.evaluation.disentanglement import Agreement, Representation, metric_agreement, udr
from ppvae.training.run_folder import RunFolderInUseError
from ppvae.training.study import finished, reports

COLUMNS = {
    "reconstruction": "reconstruction",
    "factor_vae": "FactorVAE",
    "mig": "MIG",
    "mig_of_draws": "MIG of draws",
    "higgins": "Higgins",
    "dci_disentanglement": "DCI D",
    "dci_completeness": "DCI C",
    "dci_informativeness": "DCI I",
    "sap_r2": "SAP, R2",
    "sap_classifier": "SAP, classifier",
    "modularity": "modularity",
    "explicitness": "explicitness",
    "irs": "IRS",
    "total_correlation": "TC, nats",
    "total_correlation_by_minibatch": "TC by minibatches",
    "total_correlation_by_critic": "TC by its critic",
    "total_correlation_by_later_critic": "TC by a later critic",
    "rate": "rate, nats",
}
SCORES = [key for key in COLUMNS if key not in ("reconstruction", "rate") and not key.startswith("total_correlation")]
PUBLISHED = {"pearson": 0.404, "kendall": 0.310, "spearman": 0.444}  # of the FactorVAE and the Higgins metric
OWN = ("recipe", "strength", "seed", *chain(*OWN_SETTINGS.values()))  # settings in which the runs of a study differ
LENGTH = "steps"  # a run with fewer is continued


@dataclass(frozen=True)
class Config:
    """Which runs."""

    runs: tuple[str, ...] = (
        *("vae", "beta-vae:4", "factor-vae:10", "factor-vae:35", "beta-tcvae:6", "dip-vae-ii:10"),
        *("annealed-vae:25", "info-vae:1000"),
    )
    """RECIPE or RECIPE:STRENGTH."""
    seeds: tuple[int, ...] = (0,)
    agreement: Literal["runs", "checkpoints"] = "runs"
    """What the agreement of the metrics is computed over."""
    list: bool = False
    """Print the commands of the unfinished runs without running them."""
    settings: Run = field(default_factory=Run)
    """Settings of every run; recipe, strength, seed and out are set by this script."""
    out: Path = Path("runs/disentanglement")


def main(config: Config) -> list[dict]:
    if config.list:
        print("\n".join(command(one) for one in planned(config) if not finished(one.out, settings(one), LENGTH)))
        return []
    for one in planned(config):
        if not finished(one.out, settings(one), LENGTH):  # asked again: another process may have finished it
            with suppress(RunFolderInUseError):
                run(one)
    found = [flat(report) for report in reports(config.out, shared(config.settings), LENGTH)]
    if not found:
        Console().print(f"no finished run of {config.settings.steps} steps in {config.out}")
        return []
    rows = {name: [r for r in found if name_of(r) == name] for name in dict.fromkeys(map(name_of, found))}
    table = [summary(name, group, config.out) for name, group in rows.items()]
    (config.out / "table.json").write_text(json.dumps(table, indent=2, allow_nan=False) + "\n")
    figure = scatter(rows)
    if figure is not None:
        figure.savefig(config.out / "scatter.png", dpi=120)
    print_table(table, found[0])
    save_agreement(config, found)
    return table


def planned(config: Config) -> list[Run]:
    """The settings of each run, in the order of the grid."""
    found = []
    for seed in config.seeds:
        for name in config.runs:
            recipe, _, strength = name.partition(":")
            if recipe not in RECIPES:
                raise ValueError(f"expected a recipe from {', '.join(RECIPES)}, got {recipe!r}")
            value = float(strength) if strength else RECIPES[recipe][1]
            out = config.out / f"{recipe}-{value:g}-seed{seed}"
            found.append(replace(config.settings, recipe=recipe, strength=value, seed=seed, out=out))
    return found


def command(one: Run) -> str:
    """The command of one run."""
    defaults = vars(Run())
    words = ["python", str(Path(__file__).with_name("factorvae_dsprites.py"))]
    for name, value in vars(one).items():
        if value == defaults[name]:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def shared(one: Run) -> dict:
    """The settings that all runs of a table have in common."""
    return {name: value for name, value in settings(one).items() if name not in OWN}


def name_of(report: dict) -> str:
    return report["recipe"] if report["recipe"] == "vae" else f"{report['recipe']} {report['strength']:g}"


def summary(name: str, group: list[dict], out: Path) -> dict:
    """Means and standard deviations over the seeds of one row, and the mean UDR if there are at least two seeds."""
    row = {"name": name, "seeds": [report["seed"] for report in group]}
    for key in COLUMNS:
        values = [report[key] for report in group if report.get(key) is not None]
        row[key] = [mean(values), stdev(values) if len(values) > 1 else None] if values else None
    row["udr"] = float(udr([codes_of(r, out) for r in group]).mean()) if len(group) > 1 else None
    return row


def codes_of(report: dict, out: Path) -> Representation:
    folder = out / f"{report['recipe']}-{report['strength']:g}-seed{report['seed']}"
    arrays = load_file(folder / "codes.safetensors")
    return Representation(SPRITES, arrays["means"], arrays["scales"], tensor(report["kl_per_dimension"]))


def scatter(rows: dict[str, list[dict]]) -> Figure | None:
    """FactorVAE score and MIG against the reconstruction error, one point per run. None if both were left out."""
    shown = {"factor_vae": "FactorVAE score", "mig": "MIG"}
    shown = {key: label for key, label in shown.items() if all(key in r for group in rows.values() for r in group)}
    points = {name: [[r[key] for key in ("reconstruction", *shown)] for r in group] for name, group in rows.items()}
    return plots.scatter(points, "reconstruction error, nats", list(shown.values())) if shown else None


def save_agreement(config: Config, found: list[dict]) -> None:
    """Compute the agreement of the metrics, print it and write it; nothing for fewer than two metrics."""
    rows = found if config.agreement == "runs" else [row for report in found for row in report["correlations"]]
    scores = {label: [row.get(key) for row in rows] for key, label in COLUMNS.items() if key in SCORES}
    scores = {label: column for label, column in scores.items() if any(value is not None for value in column)}
    if len(scores) < 2:
        return
    agreed = metric_agreement(scores)
    (config.out / "agreement.json").write_text(json.dumps(agreed.to_dict(), indent=2, allow_nan=False) + "\n")
    agreed.plot().savefig(config.out / "agreement.png", dpi=120)
    print_agreement(agreed, f"agreement of the metrics over {len(rows)} {config.agreement}")


def print_agreement(agreed: Agreement, title: str) -> None:
    table = agreed.table()
    table.title = title
    Console().print(table)
    if {COLUMNS["factor_vae"], COLUMNS["higgins"]} <= set(agreed.names):
        ours = agreed.between(COLUMNS["factor_vae"], COLUMNS["higgins"])
        compared = ", ".join(f"{kind} {ours[kind][0]:.3f} (published {PUBLISHED[kind]:.3f})" for kind in PUBLISHED)
        Console().print(f"FactorVAE and Higgins: {compared}")


def print_table(table: list[dict], one: dict) -> None:
    """Print the recipes side by side, in as many blocks as the width of the console requires."""
    labels = {
        key: label for key, label in {**COLUMNS, "udr": "UDR"}.items() if any(row[key] is not None for row in table)
    }
    cells = [[cell(row[key]) for key in labels] + [str(len(row["seeds"]))] for row in table]
    names = [row["name"].replace("-", " ") for row in table]  # a head may break at a blank
    widest = max(len(text) for column in [*cells, *map(str.split, names)] for text in column)
    console = Console()
    room = console.width - max(map(len, labels.values())) - 4  # borders and blanks of the labels
    side_by_side = max(1, room // (widest + 3))  # a border and two blanks
    title = f"{one['data']}, {one['steps']} steps, learning rate {one['learning_rate']:g}; mean and standard deviation"
    for first in range(0, len(table), side_by_side):
        block = slice(first, first + side_by_side)
        shown = Table(Column(no_wrap=True), *names[block], title="" if first else title)
        for line in zip([*labels.values(), "seeds"], *cells[block], strict=True):
            shown.add_row(*line)
        console.print(shown)


def cell(value: list | float | None) -> str:
    if value is None:
        return ""
    middle, deviation = value if isinstance(value, list) else (value, None)
    digits = 1 if abs(middle) >= 10 else 3
    return f"{round(middle, digits) + 0.0:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)

"""Codes and scores of one trained pair on dSprites, with products in bfloat16 and in float32.

Claim: products in bfloat16 do not change the reconstruction error and the metrics of a trained pair. (Training in
float32 from the first step is another experiment: ``factorvae_dsprites.py --no-bfloat16``.)

    python experiments/factorvae_dsprites.py --recipe dip-vae-ii --steps 10000 --out runs/dip-vae
    python experiments/bfloat16_codes.py --run runs/dip-vae

Writes bfloat16.json, with the epoch of the weights, to the folder of the run. The weights do not change.
"""

import json
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path

from factorvae_dsprites import Config as Run
from factorvae_dsprites import build_pair, flat, reconstruction_error
from rich.console import Console
from rich.table import Table
from torch import nn

from ppvae import Representation, cli, load_checkpoint, represent
from ppvae.data import Dataset, load
from ppvae.evaluation.disentanglement import score
from ppvae.training import resolve_device


@dataclass(frozen=True)
class Config:
    """Which run."""

    run: Path
    """Folder of a run of factorvae_dsprites.py in bfloat16."""
    leave_out: tuple[str, ...] = ("dci", "irs", "aggregate")
    """Metrics to skip; by default the slow ones."""
    device: str = "auto"


def main(config: Config) -> dict:
    run = settings(config.run)
    data = load(run.data).train
    pair = [part.to(resolve_device(config.device)) for part in build_pair(run, data)]
    checkpoint = load_checkpoint(config.run / "last.safetensors", *pair)
    rounded, numbers = coded(config, run, *pair, data)
    plain, others = coded(config, run, *in_float32(*deepcopy(pair)), data)
    moved = ((rounded.codes - plain.codes) / plain.scales).square().mean(0).sqrt().tolist()
    found = {"epoch": checkpoint["epoch"], "bfloat16": numbers, "float32": others, "moved": moved}
    (config.run / "bfloat16.json").write_text(json.dumps(found, indent=2) + "\n")
    print_table(numbers, others, max(moved))
    return found


def settings(folder: Path) -> Run:
    """The settings of the run in a folder. Raises ValueError if there is no run, or one in float32."""
    file = folder / "settings.json"
    saved = json.loads(file.read_text()) if file.exists() else {}
    if not saved.get("bfloat16"):
        raise ValueError(f"expected the folder of a run of factorvae_dsprites.py in bfloat16, got {folder}")
    return Run(**{field.name: saved[field.name] for field in fields(Run) if field.name in saved})


def in_float32(model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The pair with its networks taken out of their :class:`ppvae.nn.Autocast`."""
    model.decoder, guide.encoder[0] = model.decoder.network, guide.encoder[0].network
    return model, guide


def coded(config: Config, run: Run, model, guide, data: Dataset) -> tuple[Representation, dict[str, float]]:
    """The codes of all data; their reconstruction error and scores."""
    codes = represent(model, guide, data, progress=True)
    found = score(codes, seed=run.seed, leave_out=config.leave_out, progress=True).to_dict()
    numbers = {name: value for name, value in flat(found).items() if isinstance(value, float)}
    return codes, {"reconstruction": reconstruction_error(model, guide, data, run.seed), **numbers}


def print_table(rounded: dict[str, float], plain: dict[str, float], moved: float) -> None:
    table = Table("", "bfloat16", "float32", "difference")
    for name, value in rounded.items():
        table.add_row(name, f"{value:.4f}", f"{plain[name]:.4f}", f"{value - plain[name]:+.4f}")
    Console().print(table)
    Console().print(
        f"means differ by {moved:.3f} of the posterior's scale (root mean square, in the dimension where it is largest)"
    )


if __name__ == "__main__":
    cli.run(main, Config, __doc__)

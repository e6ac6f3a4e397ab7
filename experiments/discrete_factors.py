"""A class in the code of a run on dSprites: does it find the shape?

Kim and Mnih 2018 ("Disentangling by Factorising") leave the discrete factor open: no method there finds the shape.
``factorvae_dsprites.py --recipe factor-vae-discrete`` adds a class y of three values to z. It is summed over exactly
under q(y | x), and the critic's total correlation is that of z and y together.

The KL of y is weighed by ``class_weight`` at the start, and by 1 from step ``class_ramp`` on. A large weight keeps y
without information until z holds the position and the size, whatever reduces the error most; then the class can take
what z does not hold. With a weight of 1 from the start the class competes with z for the position.

Written to the report: the exact mutual information of y with each factor, alone and as a share of the factor's entropy;
the rate of y; I(z; y), which y adds to the total correlation; all metrics of z with the most probable class as one more
dimension. Written to the folder: probabilities.safetensors, classes.png.
"""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor

import ppvae
from ppvae import plots
from ppvae.data import Dataset
from ppvae.evaluation.disentanglement import (
    Disentanglement,
    Representation,
    class_code_information,
    class_information,
    class_probabilities,
    score,
    with_classes,
)
from ppvae.objectives.schedules import Ramp

RECIPE = "factor-vae-discrete"
SITES = ("z", "y")


def objective(gamma: float, config, critic: dict) -> ppvae.Objective:
    """FactorVAE of both sites, with the KL of the class weighed by a ramp."""
    weight = Ramp(config.class_weight, 1.0, config.class_ramp)
    return ppvae.factor_vae(gamma, site=SITES, **critic) + ppvae.KLWeight(weight, "y")


def report_of(probabilities: Tensor, codes: Representation, found: Disentanglement, seed: int) -> dict:
    """What the class holds, in nats, and the metrics of the code with the class."""
    information = class_information(probabilities, codes.factors)
    entropies = torch.tensor(codes.factors.sizes).double().log()
    dependence, error = class_code_information(codes, probabilities, seed=seed)
    log_q = torch.special.xlogy(probabilities.double(), probabilities.double()).sum(1)
    return {
        "class_shares": probabilities.mean(0).tolist(),
        "class_rate": (log_q.mean() + torch.tensor(probabilities.shape[1]).log()).item(),
        "class_information": information.tolist(),
        "class_information_share": (information / entropies.clamp(min=1e-9).numpy()).tolist(),
        "class_code_information": dependence,
        "class_code_information_error": error,
        "with_class": found.scores,
    }


def evaluate(model, guide, data: Dataset, codes: Representation, config, folder: Path) -> dict:
    """The report of the class; writes its probabilities and figures."""
    probabilities = class_probabilities(guide, data, progress=True)
    save_file({"probabilities": probabilities}, folder / "probabilities.safetensors")
    leave_out = {*config.leave_out, "aggregate"}
    found = score(with_classes(codes, probabilities), seed=config.seed, leave_out=leave_out, progress=True)
    names = [f"z{d}" for d in range(codes.codes.shape[1])] + ["class"]
    heatmap = plots.mutual_information_heatmap(found.mutual_information, codes.varying.names, names)
    heatmap.savefig(folder / "information.png", dpi=120)
    save_classes(model, guide, data, folder)
    return report_of(probabilities, codes, found, config.seed)


def save_classes(model, guide, data: Dataset, folder: Path) -> None:
    """Images, their reconstructions, and the decoded mean of z with each class."""
    x = data.rows(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:10])
    device = next(model.parameters()).device
    z = ppvae.features(guide, x).to(device)
    with torch.no_grad():
        each = model.decode(z, torch.arange(model.num_classes, device=device).unsqueeze(-1), x.dim() - 1).mean
    rows = torch.cat([x.unsqueeze(0), ppvae.reconstruct(model, guide, x).cpu().unsqueeze(0), each.cpu()])
    labels = ["image", "reconstruction", *(f"class {label}" for label in range(model.num_classes))]
    plots.image_grid(rows, labels).savefig(folder / "classes.png", dpi=120)


def print_report(report: dict) -> None:
    """What the class holds of each factor, and the metrics without and with the class."""
    if "with_class" not in report:
        return
    table = Table("", *report["factors"], title="mutual information of the class")
    table.add_row("nats", *(f"{value:.3f}" for value in report["class_information"]))
    table.add_row("share of the factor's entropy", *(f"{value:.1%}" for value in report["class_information_share"]))
    Console().print(table)
    table = Table("", "z", "z and class")
    for name, value in report["with_class"].items():
        table.add_row(name.replace("_", " "), f"{report[name]:.3f}", f"{value:.3f}")
    Console().print(table)
    shares = ", ".join(f"{share:.2f}" for share in report["class_shares"])
    Console().print(
        f"shares of the classes {shares}; rate of the class {report['class_rate']:.3f}, I(z; class) "
        f"{report['class_code_information']:.3f} ± {report['class_code_information_error']:.3f} nats"
    )

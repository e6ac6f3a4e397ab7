"""Runs of factorvae_dsprites.py on a grid of 60 images, with small networks."""

from dataclasses import replace
from functools import partial

import torch

from ppvae.data import Dataset, Factors, Splits
from tests.experiments.scripts import script

run, study, both, totals, discrete = map(
    script,
    ("factorvae_dsprites", "disentanglement_study", "bfloat16_codes", "total_correlations", "discrete_factors"),
)
SLOW = ("higgins", "dci", "sap", "modularity_explicitness", "irs")
METRICS = (*SLOW, "factor_vae", "mig")


def shrink(monkeypatch):
    """Squares of 3 sizes at 4 x 5 places in place of dSprites, short epochs, and small networks."""
    factors = Factors(("size", "row", "column"), (3, 4, 5))
    x = torch.zeros(len(factors), 16, 16, dtype=torch.uint8)
    for image, (size, row, column) in zip(x, factors.values(torch.arange(len(factors))).tolist(), strict=True):
        image[3 * row : 3 * row + size + 2, 2 * column : 2 * column + size + 2] = 255
    data = Dataset(x, factors=factors)
    for module in (run, both):
        monkeypatch.setattr(module, "load", lambda name: Splits(data, data))
    monkeypatch.setattr(run, "CHANNELS", (4, 4, 8, 8))
    monkeypatch.setattr(run, "WIDTH", 16)
    monkeypatch.setattr(run, "IMAGES", 20)
    monkeypatch.setattr(run, "EPOCH", 2)
    monkeypatch.setattr(run, "critic_network", partial(run.critic_network, hidden=(8, 8)))
    for module in (run, both, discrete):
        sizes = {"num_train": 200, "num_test": 100, "num_draws": 50}
        monkeypatch.setattr(module, "score", partial(module.score, **sizes))
    monkeypatch.setattr(totals, "train_critic", partial(totals.train_critic, num_steps=2, batch_size=8))
    monkeypatch.setattr(study, "SPRITES", factors)
    return data


def small(**changes):
    few = {"steps": 4, "batch_size": 8, "correlations": 2, "initial_scale": 0.4, "latent_dim": 3}
    return replace(run.Config(**few, leave_out=SLOW), **changes)

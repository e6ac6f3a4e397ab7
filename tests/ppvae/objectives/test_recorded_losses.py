"""Losses and gradients of earlier code, at a fixed seed: a change of any number is seen here.

recorded_losses.json holds, for each pair and objective of the catalogue, the loss and the norms of the gradients by the
parameters of model and guide, and some random numbers of the torch version of the record. After a change that moves
numbers on purpose, ``python -m tests.ppvae.objectives.test_recorded_losses`` writes the file anew.
"""

import json
from pathlib import Path

import pyro
import pytest
import torch

from tests.catalogue import ALL_PAIRS, LABELS, OBJECTIVES

FILE = Path(__file__).with_name("recorded_losses.json")
RECORDED = json.loads(FILE.read_text())
LABELLED = " labelled"  # ends the name of an objective on partly labelled data


def random_numbers():
    """Numbers of every kind of draw that the catalogue makes."""
    torch.manual_seed(0)
    draws = [
        torch.rand(2),
        torch.randn(20)[-2:],
        torch.randn(20, dtype=torch.float64)[-2:],
        torch.empty(3).uniform_(-0.1, 0.1),
        torch.randint(1000, (2,)),
        torch.ones(9).multinomial(2),
        torch.full((40,), 0.5).bernoulli()[-4:],
        torch.randperm(5),
    ]
    return [number for draw in draws for number in draw.tolist()]


def norm(module):
    gradients = [p.grad.square().sum() for p in module.parameters() if p.grad is not None]
    return sum(gradients).sqrt().item() if gradients else 0.0


def losses_of(pair, objective):
    """The loss and the norms of the gradients by model and guide."""
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    y = LABELS if objective.endswith(LABELLED) else batch.y
    torch.manual_seed(7)
    made = OBJECTIVES[objective.removesuffix(LABELLED)].make()
    torch.manual_seed(11)
    with pyro.get_param_store().scope():
        loss = made.differentiable_loss(model, guide, batch.x, y, **batch.given)
        loss.backward()
    return [loss.item(), norm(model), norm(guide)]


def objectives_of(pair):
    fitting = [name for name, row in OBJECTIVES.items() if row.fits(ALL_PAIRS[pair])]
    kinds = ("", LABELLED) if ALL_PAIRS[pair].labelled else ("",)
    return [name + kind for name in fitting for kind in kinds]


@pytest.mark.parametrize("pair", RECORDED["losses"])
def test_losses_and_gradients_are_those_on_record(pair):
    if random_numbers() != pytest.approx(RECORDED["random numbers"], rel=1e-6):
        pytest.skip("this torch draws other random numbers from the same seed than the one of the record")
    found = {objective: losses_of(pair, objective) for objective in RECORDED["losses"][pair]}
    moved = {
        objective: (numbers, found[objective])
        for objective, numbers in RECORDED["losses"][pair].items()
        if found[objective] != pytest.approx(numbers, rel=1e-6, abs=1e-9)
    }
    assert moved == {}


def test_record_has_every_pair_and_objective_that_fit():
    recorded = {pair: sorted(objectives) for pair, objectives in RECORDED["losses"].items()}
    assert recorded == {pair: sorted(objectives_of(pair)) for pair in ALL_PAIRS}


def record():
    """Write the file."""
    losses = {pair: {objective: losses_of(pair, objective) for objective in objectives_of(pair)} for pair in ALL_PAIRS}
    lines = ",\n".join(
        f'  "{pair}": {{\n' + ",\n".join(f'    "{name}": {row}' for name, row in rows.items()) + "\n  }"
        for pair, rows in losses.items()
    )
    FILE.write_text(f'{{\n"random numbers": {random_numbers()},\n"losses": {{\n{lines}\n}}\n}}\n')


if __name__ == "__main__":
    record()

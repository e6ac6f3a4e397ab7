"""The log of an epoch: named parts, means, their names."""

import json

import pytest
import torch

import ppvae
from ppvae.engine.player import Player
from ppvae.training import Batching
from ppvae.training.tally import Tally, row_of
from tests.catalogue import OBJECTIVES, PAIRS
from tests.ppvae.training.runs import data_of, run


def test_tally_means_over_the_steps_in_which_a_group_was_added():
    tally = Tally()
    tally.add("often", {"loss": torch.tensor(1.0), "part": torch.tensor(5.0)})
    tally.add("often", {"loss": torch.tensor(2.0), "part": torch.tensor(7.0)})
    tally.add("seldom", {"loss": torch.tensor(4.0)})
    tally.add("never", {})
    assert tally.means() == {"often": {"loss": 1.5, "part": 6.0}, "seldom": {"loss": 4.0}}
    tally.clear()
    assert tally.means() == {}


def test_tally_adds_in_float64():
    tally = Tally()
    for value in (1e8, 1.0, 1.0):
        tally.add("g", {"loss": torch.tensor(value)})
    assert tally.means()["g"]["loss"] * 3 == pytest.approx(1e8 + 2, abs=0.1)


def test_row_of_names_the_losses_of_each_player():
    players = [
        Player("pair", None, None, None),
        Player("critic/z", None, None, None),
        Player("generator", None, None, None, log=lambda: {"temperature": torch.tensor(2.0)}),
        Player("idle", None, None, None),
    ]
    means = {
        "pair": {"distortion": 3.0, "rate/z": 1.0},
        "critic/z": {"loss": 0.5},
        "generator": {"fool": 1.0, "penalty": 2.0},
        "": {"unlabelled_loss": 9.0},
    }
    assert row_of(players, means) == {
        "loss": 4.0,
        "distortion": 3.0,
        "rate/z": 1.0,
        "critic/z": 0.5,
        "generator": 3.0,
        "generator/fool": 1.0,
        "generator/penalty": 2.0,
        "unlabelled_loss": 9.0,
        "temperature": 2.0,
    }


ROWS = [(p, o) for p in ("gaussian_vae", "label", "label_style") for o in OBJECTIVES if OBJECTIVES[o].fits(PAIRS[p])]


@pytest.mark.parametrize(("pair", "objective"), ROWS)
def test_fit_logs_parts_that_add_up_to_the_loss(pair, objective):
    made = ppvae.beta_tcvae(num_data=24) if objective == "beta_tcvae" else OBJECTIVES[objective].make()
    *_, result = run(pair, objective=made, epochs=2, validation=data_of(pair), batch_size=Batching(6, 6))
    model, guide, batch = PAIRS[pair].make_batch()
    engine = ppvae.engine.pair.Pair(model, guide, apart=True)
    names = {name for kind in PAIRS[pair].kinds(batch).values() for name in made.parts(made.particles(engine, kind, 0))}
    for row in result.metrics:
        assert names <= row.keys()
        prefixes = ["", "validation/"] + (["unlabelled/"] if PAIRS[pair].labelled else [])
        for prefix in prefixes:
            parts = [value for name, value in row.items() if name in [f"{prefix}{part}" for part in names]]
            total = row[f"{prefix[:-1]}_loss" if prefix else "loss"]
            assert sum(parts) == pytest.approx(total, abs=1e-5)


def test_fit_logs_the_multiplier_and_the_critics_loss(tmp_path):
    *_, result = run("gaussian_vae", objective=ppvae.geco(30.0), run_dir=tmp_path)
    values = [row["multiplier/distortion"] for row in result.metrics]
    assert values == sorted(values)  # the distortion is above 30 nats
    assert values[0] > 1
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == result.metrics


def test_fit_logs_unlabelled_rows_alone_as_the_loss_on_them():
    """With a learning rate of 0 the mean over an epoch's unlabelled rows is the loss of these rows."""
    objective = ppvae.ELBO(num_particles=4000) + ppvae.ClassifierLoss(50.0)
    still = ppvae.adam(schedule=lambda step: 0.0)
    data = data_of("label")
    model, guide, result = run("label", objective=objective, epochs=1, optimizer=still, validation=data)
    row, (_, unlabelled) = result.metrics[0], data.rows_by_label()
    rows = data.take(unlabelled).unlabelled()
    assert row["unlabelled_loss"] == pytest.approx(ppvae.evaluate_loss(objective, model, guide, rows), abs=0.15)
    assert row["loss"] > row["unlabelled_loss"] + 10  # the classifier's loss of the labelled rows

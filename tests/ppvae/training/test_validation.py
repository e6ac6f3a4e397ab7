"""What is evaluated after each epoch."""

import pytest
import torch

import ppvae
from ppvae.data import Dataset
from ppvae.evaluation.loss import evaluate_parts
from ppvae.training import Batching, Validation, adam
from tests.catalogue import CONDITIONAL_PAIRS, PAIRS
from tests.ppvae.training.runs import data_of, run


def still():
    return adam(schedule=lambda step: 0.0)


def test_validation_loss_is_evaluate_loss_with_the_parts():
    data = data_of("gaussian_vae")
    model, guide, result = run("gaussian_vae", validation=data, epochs=1, optimizer=still())
    parts = evaluate_parts(ppvae.ELBO(), model, guide, data, seed=0)
    row = result.metrics[0]
    assert {name: row[f"validation/{name}"] for name in parts} == parts
    assert row["validation_loss"] == sum(parts.values())


def test_validation_reads_no_label_where_training_rows_lack_them():
    """Then the validation loss is of one kind with the unlabelled loss of training."""
    objective, data = ppvae.ELBO() + ppvae.ClassifierLoss(50.0), data_of("label")
    model, guide, result = run("label", objective=objective, validation=data, epochs=1, optimizer=still())
    row = result.metrics[0]
    assert row["validation_loss"] == ppvae.evaluate_loss(objective, model, guide, data.unlabelled())
    assert row["validation_loss"] == pytest.approx(row["unlabelled_loss"], rel=0.05)
    assert abs(row["loss"] - row["validation_loss"]) > 5
    assert row["validation/classifier/y"] == 0


def test_validation_reads_labels_where_every_training_row_has_one():
    objective, y = ppvae.ELBO() + ppvae.ClassifierLoss(5.0), torch.arange(24).remainder(4)
    data = data_of("label").with_labels(y)
    model, guide, result = run("label", objective=objective, data=data, validation=data, epochs=1, optimizer=still())
    row = result.metrics[0]
    assert row["validation_loss"] == ppvae.evaluate_loss(objective, model, guide, data)
    assert "unlabelled_loss" not in row
    assert row["loss"] == pytest.approx(row["validation_loss"], rel=0.05)


@pytest.mark.parametrize("pair", CONDITIONAL_PAIRS)
def test_validation_of_a_pair_that_needs_labels_or_conditions(pair):
    data = data_of(pair)
    model, guide, result = run(pair, validation=data, epochs=1, optimizer=still())
    assert result.metrics[0]["validation_loss"] == ppvae.evaluate_loss(ppvae.ELBO(), model, guide, data)


def test_validation_is_measured_alike_in_each_epoch():
    losses = run("gaussian_vae", validation=data_of("gaussian_vae"), epochs=3, optimizer=still())[2].metrics
    assert len({row["validation_loss"] for row in losses}) == 1


def test_validation_reads_a_schedule_at_the_end_of_training():
    steps = []

    def schedule(step):
        steps.append(step)
        return 0.5

    validation = ppvae.Dataset(PAIRS["gaussian_vae"].make()[2])
    *_, result = run("gaussian_vae", objective=ppvae.beta_vae(schedule), validation=validation, epochs=2)
    end = result.metrics[-1]["step"]
    assert max(steps) == end
    assert steps.count(end) == 2  # once an epoch; training ends one step before


def test_a_statistic_of_the_batch_is_validated_at_the_batch_size_of_training():
    seen = []

    class Rows(ppvae.objectives.Penalty):
        label, over_batch = "rows", True

        def penalty(self, particles):
            seen.append((particles.batch_size, torch.is_grad_enabled()))
            return torch.zeros(())

    validation = Dataset(PAIRS["gaussian_vae"].make()[2].repeat(10, 1, 1))
    run("gaussian_vae", objective=ppvae.ELBO() + Rows(), validation=validation, epochs=1, batch_size=Batching(4))
    assert {rows for rows, gradient in seen if not gradient} == {4}


def test_evaluate_runs_in_evaluation_mode_and_its_numbers_are_logged():
    model, guide, x = PAIRS["gaussian_vae"].make()
    modes = []

    def evaluate():
        modes.append((model.training, guide.training, torch.is_grad_enabled(), torch.rand(()).item()))
        return {"accuracy": torch.tensor(0.5)}

    validation = Validation(evaluate=evaluate)
    result = ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=2, validation=validation, progress=False)
    assert len(set(modes)) == 1  # with the same random numbers
    assert modes[0][:3] == (False, False, False)
    assert [row["accuracy"] for row in result.metrics] == [0.5, 0.5]
    assert "validation_loss" not in result.metrics[0]


def test_best_is_the_epoch_with_the_lowest_validation_loss(tmp_path):
    model, guide, result = run(
        "gaussian_vae", validation=data_of("gaussian_vae"), epochs=6, run_dir=tmp_path, optimizer=adam(0.3)
    )
    losses = [row["validation_loss"] for row in result.metrics]
    values = ppvae.load_checkpoint(tmp_path / "best.safetensors", model, guide)
    assert values["epoch"] == 1 + losses.index(min(losses))
    assert ppvae.evaluate_loss(ppvae.ELBO(), model, guide, data_of("gaussian_vae")) == pytest.approx(min(losses))

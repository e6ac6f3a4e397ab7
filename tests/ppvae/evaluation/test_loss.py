"""An objective's loss over a data set, and its parts."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO

import ppvae
from ppvae.data import Dataset
from ppvae.evaluation.loss import evaluate_loss, evaluate_parts
from tests.catalogue import LABELS, OBJECTIVES, PAIRS
from tests.ppvae.oracles import conditional_cases
from tests.ppvae.training.runs import assert_equal, data_of, weights

CONDITIONAL = conditional_cases()


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if OBJECTIVES[name].fits(PAIRS["label"])])
def test_evaluate_parts_add_up_to_evaluate_loss(objective):
    model, guide, _ = PAIRS["label"].make()
    made, data = OBJECTIVES[objective].make(), data_of("label")
    parts = evaluate_parts(made, model, guide, data, seed=3)
    assert len(parts) >= 1
    assert sum(parts.values()) == pytest.approx(evaluate_loss(made, model, guide, data, seed=3))


def test_evaluate_parts_are_means_over_rows_of_both_kinds():
    model, guide, x = PAIRS["label"].make()
    objective, guide = ppvae.ELBO() + ppvae.ClassifierLoss(3.0), guide.eval()
    data = Dataset(x, LABELS, num_classes=4)
    parts = evaluate_parts(objective, model, guide, data)
    known, unknown = data.rows_by_label()
    each = [
        evaluate_parts(objective, model, guide, data.take(known)),
        evaluate_parts(objective, model, guide, data.take(unknown).unlabelled()),
    ]
    classifier = [part["classifier/y"] for part in each]
    assert classifier[1] == 0
    assert parts["classifier/y"] == pytest.approx(classifier[0] * len(known) / len(x))


def test_evaluate_loss_is_independent_of_the_batch_size_for_a_loss_without_noise():
    model, guide, x = PAIRS["mixture"].make()
    losses = [evaluate_loss(ppvae.ELBO(), model, guide, x, batch_size=size) for size in (1, 4, 500)]
    assert losses[1:] == [pytest.approx(losses[0], rel=1e-9)] * 2


@pytest.mark.parametrize("rows", [501, 1001])
def test_evaluate_loss_reads_no_row_alone(rows):
    sizes = []

    class Rows(ppvae.objectives.Penalty):
        label, over_batch = "rows", True

        def penalty(self, particles):
            sizes.append(particles.batch_size)
            return torch.zeros(())

    model, guide, x = PAIRS["gaussian_vae"].make()
    evaluate_loss(ppvae.ELBO() + Rows(), model, guide, x.repeat(rows // len(x) + 1, 1, 1)[:rows])
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "stock",
    [
        lambda: Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=1),
        lambda: RenyiELBO(alpha=0, num_particles=500, vectorize_particles=True, max_plate_nesting=1),
    ],
)
def test_evaluate_loss_of_stock_estimators(stock):
    model, guide, x = PAIRS["gaussian_vae"].make()
    pyro.clear_param_store()
    ours = ppvae.IWAE(500) if isinstance(stock(), RenyiELBO) else ppvae.ELBO(500)
    assert evaluate_loss(stock(), model, guide, x) == pytest.approx(evaluate_loss(ours, model, guide, x), abs=0.3)
    assert list(evaluate_parts(stock(), model, guide, x)) == ["loss"]
    assert not list(pyro.get_param_store().keys())


def test_evaluate_loss_of_a_stock_estimator_on_partly_labelled_data():
    model, guide, _ = PAIRS["label_style"].make()
    stock = TraceEnum_ELBO(max_plate_nesting=1, num_particles=200, vectorize_particles=True)
    ours = evaluate_loss(ppvae.ELBO(200, analytic_kl=False), model, guide, data_of("label_style"))
    assert evaluate_loss(stock, model, guide, data_of("label_style")) == pytest.approx(ours, abs=0.3)


def test_evaluate_loss_takes_arrays_in_the_type_of_the_pair():
    model, guide, x = PAIRS["gaussian_vae"].make()
    assert x.dtype == torch.float64
    losses = [evaluate_loss(ppvae.ELBO(), model, guide, data) for data in (x, x.numpy(), Dataset(x))]
    assert losses == [losses[0]] * 3
    assert np.isfinite(losses[0])


def test_evaluate_loss_leaves_everything_as_it_was():
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.train()
    guide.eval()
    before, state = weights(model, guide), torch.get_rng_state()
    evaluate_loss(ppvae.ELBO(), model, guide, x)
    assert_equal(before, weights(model, guide))
    assert torch.equal(state, torch.get_rng_state())
    assert (model.training, guide.training) == (True, False)


def test_evaluate_loss_reads_schedules_at_the_step():
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.beta_vae(ppvae.warm_up(10))
    losses = [evaluate_loss(objective, model, guide, x, step=step) for step in (0, 5, 10)]
    parts = evaluate_parts(ppvae.ELBO(), model, guide, x)
    expected = [parts["distortion"] + weight * parts["rate/z"] for weight in (0, 0.5, 1)]
    assert losses == pytest.approx(expected)
    with pytest.raises(ppvae.ContractError, match="step"):
        evaluate_loss(objective, model, guide, x)


def test_evaluate_parts_of_a_statistic_count_it_once_per_datum():
    class Count(ppvae.objectives.Penalty):
        label = "rows"

        def penalty(self, particles):
            return torch.tensor(float(particles.batch_size))

    model, guide, x = PAIRS["gaussian_vae"].make()
    parts = evaluate_parts(ppvae.ELBO() + Count(), model, guide, x, batch_size=3)
    assert parts["rows"] == 3


@pytest.mark.parametrize("name", CONDITIONAL)
def test_evaluate_loss_takes_the_labels_and_conditions_of_a_data_set(name):
    """The IWAE bound of the exact posterior is log p(x | labels, conditions)."""
    case = CONDITIONAL[name]
    batch = case.batch
    data = Dataset(batch.x, batch.y, **batch.given)
    expected = -case.log_evidence(batch.x).mean().item()
    assert evaluate_loss(ppvae.IWAE(2), case.model, case.exact, data, batch_size=4) == pytest.approx(expected)


class NoNumber(ppvae.ELBO):
    """A loss that is NaN."""

    def parts(self, particles):
        return {name: part + torch.nan for name, part in super().parts(particles).items()}


def test_evaluate_loss_refuses_what_gives_no_number():
    model, guide, x = PAIRS["gaussian_vae"].make()
    early = x.clone()
    early[0, 0, 0] = torch.nan
    with pytest.raises(ppvae.ContractError, match="NaN first in row 0"):
        ppvae.evaluate_loss(ppvae.ELBO(), model, guide, early)
    late = x.repeat(3, 1, 1)
    late[-1] = torch.nan
    with pytest.raises(ppvae.ContractError, match=f"NaN first in row {len(late) - 1}"):
        ppvae.evaluate_loss(ppvae.ELBO(), model, guide, late)
    with pytest.raises(ppvae.ContractError, match="a loss that is a number"):
        ppvae.evaluate_loss(NoNumber(), model, guide, x)
    with pytest.raises(TypeError, match="the class ELBO itself"):
        ppvae.evaluate_loss(ppvae.ELBO, model, guide, x)
    with pytest.raises(ValueError, match="batch_size of at least 1, got 0"):
        ppvae.evaluate_loss(ppvae.ELBO(), model, guide, x, batch_size=0)

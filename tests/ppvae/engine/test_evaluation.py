"""The preamble of every evaluator."""

from contextlib import suppress

import numpy as np
import pyro
import pytest
import torch
from torch import nn

import ppvae
from ppvae.engine.evaluation import evaluation
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_evaluation_yields_the_pair_and_all_of_the_data(name):
    model, guide, batch = ALL_PAIRS[name].make_batch()
    for kind in ALL_PAIRS[name].kinds(batch).values():
        with evaluation(model, guide, kind) as (pair, inside):
            assert (pair.model, pair.guide) == (model, guide)
            torch.testing.assert_close(inside.x, batch.x, rtol=0, atol=0, equal_nan=True)
            assert inside.given.keys() == batch.given.keys()
            assert pair.draw(inside, 2).log_weight.shape == (2, len(batch))


def test_evaluation_takes_arrays_labels_and_conditions():
    model, guide, batch = ALL_PAIRS["conditional"].make_batch()
    given = {"c": batch.given["c"].numpy().astype(np.float32)}
    with evaluation(model, guide, batch.x.numpy().astype(np.float32), given=given) as (_, inside):
        assert inside.x.dtype == inside.given["c"].dtype == torch.float64  # the pair's own
    model, guide, x = PAIRS["label"].make()
    with evaluation(model, guide, x, LABELS.numpy()) as (_, inside):
        assert not inside.all_known
        assert inside.y.tolist() == LABELS.tolist()


def test_evaluation_leaves_modes_gradients_store_and_random_state_as_they_were():
    pyro.clear_param_store()
    kept = pyro.param("kept", torch.ones(1))
    model, guide, x = PAIRS["label"].make()
    guide.classifier.eval()
    state = torch.get_rng_state()
    with suppress(RuntimeError), evaluation(model, guide, x):
        assert not guide.training
        assert not torch.is_grad_enabled()
        assert not list(pyro.get_param_store().keys())
        torch.rand(3)
        raise RuntimeError
    assert guide.training
    assert not guide.classifier.training
    assert torch.is_grad_enabled()
    assert pyro.param("kept") is kept
    assert torch.equal(state, torch.get_rng_state())


def test_evaluation_draws_the_numbers_of_its_seed():
    model, guide, x = PAIRS["gaussian_vae"].make()

    def first(seed):
        with evaluation(model, guide, x, seed=seed) as (pair, batch):
            return pair.draw(batch).log_weight

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert torch.equal(first(np.int64(3)), first(3))


@pytest.mark.parametrize("seed", [0.5, "0", None])
def test_evaluation_refuses_a_seed_that_is_no_whole_number(seed):
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(TypeError, match="expected seed to be a whole number"), evaluation(model, guide, x, seed=seed):
        pass


def test_evaluation_checks_every_row_against_the_likelihood():
    """A few rows go through the whole pair; a value out of range is found wherever it stands."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    many = x.repeat(50, 1, 1)
    many[287, 2, 2] = 1.5
    with pytest.raises(ppvae.ContractError, match="in row 287"), evaluation(model, guide, many):
        pass


def test_evaluation_checks_every_label():
    model, guide, x = PAIRS["label"].make()
    y = torch.zeros(60, dtype=torch.long)
    y[55] = 4
    with (
        pytest.raises(ppvae.ContractError, match="labels from 0 to 3"),
        evaluation(model, guide, x.repeat(10, 1, 1), y),
    ):
        pass


def test_evaluation_refuses_a_missing_condition():
    model, guide, batch = ALL_PAIRS["conditional"].make_batch()
    with pytest.raises(ppvae.ContractError, match=r"condition\(s\) \['c'\]"), evaluation(model, guide, batch.x):
        pass


def test_evaluation_refuses_what_is_no_module():
    with (
        pytest.raises(ppvae.ContractError, match="to be PyroModules"),
        evaluation(lambda x, y=None: None, nn.Identity(), torch.zeros(3)),
    ):
        pass


@pytest.mark.parametrize("missing", ["model", "guide"])
def test_evaluation_of_one_of_the_two(missing):
    model, guide, x = PAIRS["gaussian_vae"].make()
    parts = {"model": model, "guide": guide, missing: None}
    with evaluation(parts["model"], parts["guide"], x) as (pair, batch):
        assert getattr(pair, missing) is None
        assert len(batch) == len(x)

"""Critics and multipliers start from their first state in each fit."""

import copy
import warnings

import pytest
import torch

import ppvae
from ppvae.training import RunDir
from ppvae.training.anew import begin_anew
from tests.ppvae.training.runs import assert_equal, modules_of, run, weights


def factor_vae():
    torch.manual_seed(0)
    return ppvae.ELBO() + ppvae.TotalCorrelation(5.0, 3, critic=ppvae.nn.MLP(3, [8], 1))


OBJECTIVES = {"geco": lambda: ppvae.geco(3.0), "factor_vae": factor_vae}


def losses(objective, **options):
    return [row["loss"] for row in run("gaussian_vae", objective=objective, **options)[2].metrics]


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_equal_fits_with_one_objective_are_equal(make):
    objective = make()
    first = losses(objective)
    for _ in range(2):
        with pytest.warns(UserWarning, match="first state: this objective was trained by an earlier fit"):
            assert losses(objective) == first


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_copy_of_a_trained_objective_begins_anew_too(make):
    objective = make()
    first = losses(objective)
    with pytest.warns(UserWarning, match="starts from its first state"):
        assert losses(copy.deepcopy(objective)) == first


def test_a_first_fit_starts_from_the_state_that_the_caller_gave():
    objective = ppvae.geco(3.0)
    multiplier = objective.players[0].module
    with torch.no_grad():
        multiplier.log_multiplier.fill_(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = losses(objective)
    assert first != losses(ppvae.geco(3.0))
    with pytest.warns(UserWarning, match="starts from its first state"):
        assert losses(objective) == first


def test_a_resumed_fit_continues_without_a_warning(tmp_path):
    whole, halved = factor_vae(), factor_vae()
    expected = losses(whole)
    run("gaussian_vae", objective=halved, epochs=1, run_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert losses(halved, run_dir=RunDir(tmp_path, resume=True)) == expected


def test_load_checkpoint_lets_a_fit_start_from_the_loaded_state(tmp_path):
    objective = factor_vae()
    model, guide, _ = run("gaussian_vae", objective=objective, run_dir=tmp_path)
    trained = weights(*modules_of(objective))
    ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide, objective)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin_anew(objective.players)
    assert_equal(trained, weights(*modules_of(objective)))


def test_a_refused_fit_leaves_the_trained_state(tmp_path):
    objective = factor_vae()
    run("gaussian_vae", objective=objective, run_dir=tmp_path)
    trained = weights(*modules_of(objective))
    with pytest.raises(FileExistsError):
        run("gaussian_vae", objective=objective, run_dir=tmp_path)
    assert_equal(trained, weights(*modules_of(objective)))


def test_the_first_state_is_in_no_state_dict():
    objective = factor_vae()
    module = objective.players[0].module
    names = list(module.state_dict())
    losses(objective)
    assert list(module.state_dict()) == names

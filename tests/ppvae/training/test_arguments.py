"""Everyday values as arguments of fit and train: read, or refused with the remedy, and nothing changes."""

import numpy as np
import pyro
import pyro.infer
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import ppvae
from ppvae.data import Splits
from ppvae.engine.player import Player
from ppvae.training import Batching, RunDir, Validation, adam, train
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, data_of, run, weights

STOCK = [
    ("JitTrace_ELBO", "the same name without Jit"),
    ("JitTraceGraph_ELBO", "the same name without Jit"),
    ("JitTraceEnum_ELBO", "the same name without Jit"),
    ("JitTraceMeanField_ELBO", "the same name without Jit"),
    ("ReweightedWakeSleep", r"use ppvae.ReweightedWakeSleep"),
    ("EnergyDistance", r"use ppvae.wae\(\)"),
    ("TraceTailAdaptive_ELBO", "no loss value"),
]
LINEAR = torch.nn.Linear(1, 1)
X = torch.zeros(6, 8, 8)

REFUSED = {
    "epochs 0": ({"epochs": 0}, ValueError, "epochs of at least 1, got 0"),
    "epochs below 0": ({"epochs": -3}, ValueError, "epochs of at least 1, got -3"),
    "epochs 1.5": ({"epochs": 1.5}, TypeError, "epochs to be a whole number, got 1.5"),
    "epochs 2.0": ({"epochs": 2.0}, TypeError, "epochs to be a whole number, got 2.0"),
    "epochs nan": ({"epochs": float("nan")}, TypeError, "epochs to be a whole number, got nan"),
    "epochs as text": ({"epochs": "3"}, TypeError, "epochs to be a whole number, got '3'"),
    "no epochs": ({"epochs": None}, TypeError, "epochs to be a whole number, got None"),
    "batch size 0": ({"batch_size": 0}, ValueError, "batch_size of at least 1, got 0"),
    "batch size 12.5": ({"batch_size": 12.5}, TypeError, "batch_size to be a whole number, got 12.5"),
    "seed 1.5": ({"seed": 1.5}, TypeError, "seed to be a whole number, got 1.5"),
    "no seed": ({"seed": None}, TypeError, "seed to be a whole number, got None"),
    "a seed too large": ({"seed": 2**64}, ValueError, "seed from"),
    "an objective's class": ({"objective": ppvae.ELBO}, TypeError, r"the class ELBO itself; write ELBO\(\)"),
    "a stock class": ({"objective": pyro.infer.Trace_ELBO}, TypeError, r"the class Trace_ELBO itself; write"),
    "an objective's name": ({"objective": "elbo"}, TypeError, r"such as ppvae.ELBO\(\).*got 'elbo'"),
    "no objective": ({"objective": 3.0}, TypeError, r"such as ppvae.ELBO\(\).*got 3.0"),
    "a term": ({"objective": ppvae.KLWeight(2.0)}, TypeError, "such as .* got KLWeight of ppvae"),
    "a loss function": ({"objective": torch.nn.MSELoss()}, TypeError, "got MSELoss of torch"),
    "an optimizer": (
        {"optimizer": torch.optim.Adam(LINEAR.parameters())},
        TypeError,
        "function parameters -> torch optimizer, got Adam of torch; use ppvae.adam",
    ),
    "Pyro's optimizer": (
        {"optimizer": pyro.optim.Adam({"lr": 0.1})},
        TypeError,
        "got PyroOptim of pyro; use ppvae.adam",
    ),
    "an optimizer's name": ({"optimizer": "adam"}, TypeError, "got 'adam'; use ppvae.adam"),
    "a learning rate": ({"optimizer": 1e-3}, TypeError, "got 0.001; use ppvae.adam"),
    "LBFGS": ({"optimizer": torch.optim.LBFGS}, TypeError, "one gradient per step, got LBFGS"),
    "LBFGS made": ({"optimizer": torch.optim.LBFGS(LINEAR.parameters())}, TypeError, "got LBFGS"),
    "LBFGS in a function": ({"optimizer": lambda p: torch.optim.LBFGS(p)}, TypeError, "got LBFGS"),
    "no optimizer": ({"optimizer": lambda p: None}, TypeError, "to return a torch optimizer, got None"),
    "device gpu": ({"device": "gpu"}, ppvae.errors.DeviceError, "got 'gpu'; a GPU is 'cuda'"),
    "a DataLoader": ({"data": DataLoader(TensorDataset(X))}, ppvae.DataError, "got DataLoader; .*Dataset"),
    "a list": ({"data": [X[0], X[1]]}, ppvae.DataError, "got list; stack its rows"),
    "Splits": ({"data": Splits(ppvae.Dataset(X), ppvae.Dataset(X))}, ppvae.DataError, r"got Splits; pass one part"),
    "no data": ({"data": "mnist"}, ppvae.DataError, "got str; load it first"),
    "validation Splits": (
        {"validation": Splits(ppvae.Dataset(X), ppvae.Dataset(X))},
        ppvae.DataError,
        "expected validation to be a Dataset.*got Splits; pass one part of it, e.g. validation.train",
    ),
    "validation list": ({"validation": [X]}, ppvae.DataError, "expected validation to be a Dataset"),
    "a validation function": ({"validation": lambda: {}}, ppvae.DataError, "expected validation to be a Dataset"),
    "a run folder's number": ({"run_dir": 3}, TypeError, r"run_dir to be a path or RunDir\(path"),
    "a run folder that is true": ({"run_dir": True}, TypeError, r"run_dir to be a path or RunDir\(path"),
}
for name, remedy in STOCK:
    made = getattr(pyro.infer, name)(num_particles=2)
    REFUSED[f"Pyro's {name}"] = {"objective": made}, TypeError, f"got {name} of pyro; .*{remedy}"


@pytest.mark.parametrize("case", REFUSED)
def test_fit_refuses_an_argument_and_changes_nothing(case, tmp_path):
    options, error, message = REFUSED[case]
    model, guide, _ = PAIRS["gaussian_vae"].make()
    model.eval()
    before, state, store = weights(model, guide), torch.get_rng_state(), dict(pyro.get_param_store().items())
    arguments = {"objective": ppvae.ELBO(), "data": X.double(), "epochs": 1, "run_dir": tmp_path / "run", **options}
    with pytest.raises(error, match=message):
        ppvae.fit(model, guide, progress=False, **arguments)
    assert_equal(before, weights(model, guide))
    assert torch.equal(state, torch.get_rng_state())
    assert dict(pyro.get_param_store().items()) == store
    assert not model.training
    assert guide.training
    assert all(p.grad is None for p in model.parameters())
    assert not (tmp_path / "run" / "config.json").exists()


def test_validation_refuses_numbers_for_a_function():
    with pytest.raises(TypeError, match=r"evaluate to be a function \(\) -> dict of numbers, got dict"):
        Validation(evaluate={"a": 1})


@pytest.mark.parametrize("role", ["model", "guide"])
@pytest.mark.parametrize("stranger", [lambda x: x, PAIRS, "guide", 3, torch.nn.Linear])
def test_fit_refuses_pairs_that_are_no_modules(role, stranger):
    model, guide, x = PAIRS["gaussian_vae"].make()
    pair = {"model": model, "guide": guide, role: stranger}
    with pytest.raises(ppvae.ContractError, match="expected model and guide to be PyroModules"):
        ppvae.fit(**pair, objective=ppvae.ELBO(), data=x, epochs=1)


NUMPY = {"epochs": np.int64(2), "batch_size": np.int32(4), "seed": np.uint8(3)}


def test_fit_takes_numpys_whole_numbers(tmp_path):
    options = {"validation": data_of("gaussian_vae"), "objective": ppvae.IWAE(np.int64(2))}
    theirs = run("gaussian_vae", **NUMPY, **options, run_dir=tmp_path / "numpy")
    ours = run("gaussian_vae", epochs=2, batch_size=4, seed=0, **{**options, "objective": ppvae.IWAE(2)})
    assert len(theirs[2].metrics) == len(ours[2].metrics) == 2
    model, guide, _ = PAIRS["gaussian_vae"].make()
    again = ppvae.fit(
        model, guide, ppvae.IWAE(2), data_of("gaussian_vae"), epochs=2, batch_size=4, seed=3, progress=False
    )
    fresh_model, fresh_guide, _ = PAIRS["gaussian_vae"].make()
    numpys = ppvae.fit(
        fresh_model, fresh_guide, ppvae.IWAE(np.int64(2)), data_of("gaussian_vae"), **NUMPY, progress=False
    )
    assert [row["loss"] for row in again.metrics] == [row["loss"] for row in numpys.metrics]


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD, lambda p: torch.optim.SGD(p, lr=0.1)])
def test_fit_takes_optimizer_classes_and_functions(optimizer):
    model, guide, _ = run("gaussian_vae", optimizer=optimizer, epochs=1)
    started = weights(*PAIRS["gaussian_vae"].make()[:2])
    assert all(not torch.equal(one, other) for one, other in zip(weights(model, guide), started, strict=True))


@pytest.mark.parametrize("run_dir", [str, lambda path: path, RunDir, lambda path: RunDir(str(path), resume=True)])
def test_fit_takes_a_path_as_text_as_path_and_as_run_dir(run_dir, tmp_path):
    *_, result = run("gaussian_vae", run_dir=run_dir(tmp_path / "a" / "b"), epochs=1)
    assert result.run_dir == tmp_path / "a" / "b"


@pytest.mark.parametrize("data", [lambda x: x, lambda x: x.numpy(), ppvae.Dataset, TensorDataset])
def test_fit_takes_tensors_arrays_and_data_sets(data):
    model, guide, x = PAIRS["gaussian_vae"].make()
    result = ppvae.fit(model, guide, ppvae.ELBO(), data(x), epochs=1, validation=data(x), progress=False)
    model, guide, x = PAIRS["gaussian_vae"].make()
    expected = ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, validation=x, progress=False)
    for name in ("loss", "validation_loss"):
        assert result.metrics[-1][name] == expected.metrics[-1][name]


def player(name="net", **options):
    settings = {"module": LINEAR, "loss": lambda turn: LINEAR(turn.batches[0].x).mean(), "optimizer": adam(), **options}
    return Player(name, **settings)


@pytest.mark.parametrize(
    ("players", "error", "message"),
    [
        ([], TypeError, "at least one Player"),
        (player(), TypeError, "list of at least one Player.*got Player"),
        ([LINEAR], TypeError, "got Linear of torch"),
        ([player(), player()], ValueError, r"different names, without a colon, got \['net', 'net'\]"),
        ([player("a:b")], ValueError, "without a colon"),
        ([player("")], ValueError, "different names"),
        ([player(every=0)], ValueError, "every of player 'net' of at least 1, got 0"),
        ([player(every=1.5)], TypeError, "every of player 'net' to be a whole number"),
        ([player(optimizer=torch.optim.LBFGS)], TypeError, "got LBFGS"),
        ([player(optimizer=torch.optim.SGD(LINEAR.parameters(), 0.1))], TypeError, "function parameters -> torch"),
    ],
)
def test_train_refuses_players(players, error, message):
    with pytest.raises(error, match=message):
        train(players, torch.zeros(4, 1), epochs=1, progress=False)


def test_batching_reaches_fit():
    *_, result = run("label", epochs=1, batch_size=Batching(2, labelled_per_step=1, steps_per_epoch=3))
    assert result.metrics[0]["step"] == 3

"""A run: what it leaves in its folder, how it stops, and how it continues."""

import json
import math
import os
import signal
from functools import partial

import pyro
import pytest
import torch

import ppvae
from ppvae.engine.player import Player
from ppvae.errors import Interrupted
from ppvae.training import Batching, RunDir, Validation, adam, load_players, train
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, data_of, modules_of, run, weights


def factor_vae(seed=0):
    torch.manual_seed(seed)
    return ppvae.factor_vae(5.0, latent_dim=3)


def without_seconds(metrics):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in metrics]


def test_a_run_leaves_config_metrics_and_checkpoints(tmp_path):
    validation = Validation(data_of("label"), lambda: {"two": 2.0})
    _, _, result = run(run_dir=tmp_path, validation=validation)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.metrics
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["two"] == 2.0 and "validation_loss" in row for row in rows)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["seed"] == 0
    assert config["environment"]["torch"] == torch.__version__
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors", ".lock"}
    model, guide, _ = PAIRS["label"].make(seed=1)
    best = ppvae.load_checkpoint(tmp_path / "best.safetensors", model, guide)
    assert best["best"] == min(row["validation_loss"] for row in rows)


@pytest.mark.parametrize("pair", ["label", "gaussian_vae"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(pair, tmp_path):
    whole = run(pair, epochs=5, run_dir=tmp_path / "whole", validation=data_of(pair))
    run(pair, epochs=2, run_dir=tmp_path / "halved", validation=data_of(pair))
    resumed = run(pair, epochs=5, run_dir=RunDir(tmp_path / "halved", resume=True), validation=data_of(pair))
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    assert without_seconds(whole[2].metrics) == without_seconds(resumed[2].metrics)
    rows = [json.loads(line) for line in (tmp_path / "halved" / "metrics.jsonl").read_text().splitlines()]
    assert without_seconds(rows) == without_seconds(whole[2].metrics)


OBJECTIVES = {"critic": factor_vae, "multiplier": lambda: ppvae.geco(30.0)}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_resumed_run_continues_critics_and_multipliers(objective, tmp_path):
    whole, first, second = (OBJECTIVES[objective]() for _ in range(3))
    pair = run("gaussian_vae", objective=whole)[:2]
    run("gaussian_vae", objective=first, run_dir=tmp_path, epochs=1)
    again = run("gaussian_vae", objective=second, run_dir=RunDir(tmp_path, resume=True))[:2]
    assert_equal(weights(*pair, *modules_of(whole)), weights(*again, *modules_of(second)))
    assert not torch.equal(weights(*modules_of(first))[0], weights(*modules_of(second))[0])


def clipped_adam(parameters):
    return pyro.optim.clipped_adam.ClippedAdam(parameters, lr=0.05, lrd=0.9)


def decaying(parameters):
    """An optimizer with a scheduler of torch's that changes its groups after each step."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    return optimizer


CONTINUED = {
    "ClippedAdam": clipped_adam,
    "a scheduler of torch's": decaying,
    "a schedule": adam(0.05, schedule=lambda step: 1 / (1 + step)),
    "amsgrad": partial(torch.optim.Adam, lr=0.05, amsgrad=True),
    "a learning rate that is a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.05), foreach=False),
    "SGD without momentum": partial(torch.optim.SGD, lr=0.01),
    "SGD": partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, centered=True, momentum=0.5),
    "Adadelta": torch.optim.Adadelta,
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "Adafactor": torch.optim.Adafactor,
    "two groups": lambda p: torch.optim.Adam([{"params": p[:1], "lr": 0.1}, {"params": p[1:]}], lr=0.01),
    "no learning rate": lambda p: _Signs(p),
}


class _Signs(torch.optim.Optimizer):
    """Its groups have no "lr", and its state a number and a tensor."""

    def __init__(self, parameters):
        super().__init__(parameters, {"size": 0.01})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["steps"] = state.get("steps", 0) + 1
                state["sum"] = state.get("sum", torch.zeros_like(parameter)) + parameter.grad
                parameter.sub_(group["size"] / state["steps"] * state["sum"].sign())


@pytest.mark.parametrize("optimizer", CONTINUED)
def test_a_resumed_run_continues_the_optimizer_bit_for_bit(optimizer, tmp_path):
    options = {"optimizer": CONTINUED[optimizer]}
    whole = run("gaussian_vae", epochs=3, **options)
    run("gaussian_vae", epochs=1, run_dir=tmp_path, **options)
    resumed = run("gaussian_vae", epochs=3, run_dir=RunDir(tmp_path, resume=True), **options)
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))


class _SignalAt(ppvae.ELBO):
    """Sends this process a signal while it takes a certain loss."""

    def __init__(self, number: int, at: int):
        super().__init__()
        self._number, self._left = number, at

    def parts(self, particles):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)
        return super().parts(particles)


def as_run_of(folder, other):
    """Give a folder the configuration of another, so that a helper class does not count as another objective."""
    (folder / "config.json").write_text((other / "config.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_from_which_the_run_continues_bit_for_bit(number, tmp_path):
    options = {"pair": "gaussian_vae", "epochs": 3}
    whole = run(objective=ppvae.ELBO(), run_dir=tmp_path / "whole", **options)
    before = signal.getsignal(number)
    with pytest.raises(ppvae.Interrupted, match=rf"{number.name} at step 8 .epoch 2.*Resume") as stop:
        run(objective=_SignalAt(number, at=9), run_dir=tmp_path / "cut", **options)
    assert stop.value.signal_number == number
    assert signal.getsignal(number) is before
    as_run_of(tmp_path / "cut", tmp_path / "whole")
    resumed = run(objective=ppvae.ELBO(), run_dir=RunDir(tmp_path / "cut", resume=True), **options)
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    assert without_seconds(resumed[2].metrics) == without_seconds(whole[2].metrics)


def test_a_run_with_a_critic_that_was_stopped_within_an_epoch_continues_bit_for_bit(tmp_path):
    class Stopping(ppvae.Regularised):
        def parts(self, particles):
            if particles.step == 7:
                os.kill(os.getpid(), signal.SIGINT)
            return super().parts(particles)

    whole, again, cut = factor_vae(), factor_vae(), factor_vae()
    pair = run("gaussian_vae", objective=whole, run_dir=tmp_path / "whole")[:2]
    with pytest.raises(Interrupted):
        run("gaussian_vae", objective=Stopping(cut.objective, cut.regularisers), run_dir=tmp_path / "cut")
    as_run_of(tmp_path / "cut", tmp_path / "whole")
    resumed = run("gaussian_vae", objective=again, run_dir=RunDir(tmp_path / "cut", resume=True))[:2]
    assert_equal(weights(*pair, *modules_of(whole)), weights(*resumed, *modules_of(again)))


def test_a_signal_during_the_last_evaluation_is_raised(tmp_path):
    metrics = tmp_path / "metrics.jsonl"

    def evaluate():
        if metrics.exists() and len(metrics.read_text().splitlines()) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(ppvae.Interrupted, match="epoch 4"):
        run("gaussian_vae", epochs=3, run_dir=tmp_path, validation=Validation(evaluate=evaluate))
    assert not issubclass(ppvae.Interrupted, Exception)


def test_an_error_in_evaluate_keeps_the_training_of_the_epoch(tmp_path):
    whole = run("gaussian_vae", epochs=2)

    def fail():
        raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        run("gaussian_vae", epochs=2, run_dir=tmp_path, validation=Validation(evaluate=fail))
    assert ppvae.load_checkpoint(tmp_path / "last.safetensors", *PAIRS["gaussian_vae"].make()[:2])["step_in_epoch"] == 6
    resumed = run("gaussian_vae", epochs=2, run_dir=RunDir(tmp_path, resume=True))
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    assert without_seconds(resumed[2].metrics) == without_seconds(whole[2].metrics)


class _TurnsNaN(ppvae.ELBO):
    def __init__(self, after: int):
        super().__init__()
        self._left = after

    def parts(self, particles):
        self._left -= 1
        factor = 1.0 if self._left >= 0 else float("nan")
        return {name: part * factor for name, part in super().parts(particles).items()}


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(ppvae.NonFiniteLossError, match=r"the loss turned nan .*last\.safetensors is kept"):
        run("gaussian_vae", objective=_TurnsNaN(after=8), epochs=4, run_dir=tmp_path)
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    assert ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in weights(model, guide))


def test_a_non_finite_loss_of_a_critic_stops_the_run():
    net, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    players = [
        Player("pair", net, lambda turn: net(turn.batches[0].x).mean(), adam()),
        Player("critic/z", other, lambda turn: math.nan * other(turn.batches[0].x).mean(), adam()),
    ]
    with pytest.raises(ppvae.NonFiniteLossError, match=r"the loss turned nan \(critic/z: loss\)"):
        train(players, torch.ones(4, 1), epochs=1, progress=False)


def test_a_step_that_ruins_the_parameters_is_not_checkpointed(tmp_path):
    with pytest.raises(ppvae.NonFiniteLossError):
        run("gaussian_vae", optimizer=lambda p: torch.optim.SGD(p, 1e30), run_dir=tmp_path)
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert_equal(weights(model, guide), weights(*PAIRS["gaussian_vae"].make()[:2]))


def test_a_run_of_the_length_that_it_has_already_trains_nothing(tmp_path):
    model, guide, result = run("gaussian_vae", run_dir=tmp_path)
    before = weights(model, guide)
    fresh_model, fresh_guide, again = run("gaussian_vae", seed=0, run_dir=RunDir(tmp_path, resume=True))
    assert_equal(before, weights(fresh_model, fresh_guide))
    assert again.metrics == result.metrics


def test_resume_begins_a_run_where_there_is_none(tmp_path):
    assert len(run("gaussian_vae", run_dir=RunDir(tmp_path, resume=True))[2].metrics) == 3


def test_train_resumes_players_bit_for_bit(tmp_path):
    def players():
        torch.manual_seed(0)
        nets = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        losses = [lambda turn, net=net: (net(turn.batches[0].x) - 1).square().mean() for net in nets]
        return nets, [Player("a", nets[0], losses[0], adam(0.1)), Player("b", nets[1], losses[1], adam(0.1), every=3)]

    x = torch.linspace(-1, 1, 40).reshape(20, 2)
    (whole, first), (_, second), (resumed, third), (loaded, fourth) = (players() for _ in range(4))
    train(first, x, epochs=4, batch_size=4, progress=False)
    train(second, x, epochs=1, batch_size=4, run_dir=tmp_path, progress=False)
    train(third, x, epochs=4, batch_size=4, run_dir=RunDir(tmp_path, resume=True), progress=False)
    assert_equal(weights(*whole), weights(*resumed))
    assert load_players(tmp_path / "last.safetensors", fourth)["epoch"] == 4
    assert_equal(weights(*whole), weights(*loaded))


def test_steps_per_epoch_of_a_run_are_those_of_its_batching():
    *_, result = run("gaussian_vae", epochs=2, batch_size=Batching(4, steps_per_epoch=2))
    assert [row["step"] for row in result.metrics] == [2, 4]

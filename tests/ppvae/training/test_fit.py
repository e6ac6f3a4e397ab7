"""The loop: what it trains, what it leaves, how it stops and goes on."""

import json
import os
import pickle
import signal

import pyro
import pytest
import torch
from ppvae.guides import LabelGuide
from ppvae.models import GaussianVAE
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

import ppvae
from ppvae.data import Dataset
from ppvae.nn import MLP
from ppvae.training import checkpoint
from tests.catalogue import LABELS, PAIRS


def data_of(pair: str) -> Dataset:
    x = PAIRS[pair].make()[2].repeat(4, *[1] * (PAIRS[pair].make()[2].dim() - 1))
    return Dataset(x, LABELS.repeat(4) if PAIRS[pair].labelled else None, num_classes=4)


def run(pair="label", seed=0, objective=None, data=None, **options):
    model, guide, _ = PAIRS[pair].make(seed)
    objective = objective or (ppvae.SemiSupervised(ppvae.ELBO(), 1.0) if PAIRS[pair].labelled else ppvae.ELBO())
    options = {"epochs": 3, "batch_size": 4, "labelled_per_step": 5, "progress": False, **options}
    result = ppvae.fit(model, guide, objective, data_of(pair) if data is None else data, **options)
    return model, guide, result


def weights(*modules):
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


def assert_equal(one, other):
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("pair", PAIRS)
def test_training_lowers_the_loss(pair):
    _, _, result = run(pair, epochs=30)
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]


STOCK = {
    "Trace_ELBO": lambda: Trace_ELBO(num_particles=2, vectorize_particles=True),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "RenyiELBO": lambda: RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True),
    "TraceEnum_ELBO": TraceEnum_ELBO,
}


@pytest.mark.parametrize("stock", STOCK)
def test_trains_with_stock_estimators(stock):
    pair = "label_style" if stock == "TraceEnum_ELBO" else "gaussian_vae"
    pyro.clear_param_store()
    before = weights(*PAIRS[pair].make()[:2])
    model, guide, result = run(pair, objective=STOCK[stock](), epochs=20, validation=data_of(pair))
    assert result.metrics[-1]["validation_loss"] < result.metrics[0]["validation_loss"]
    assert any(not torch.equal(a, b) for a, b in zip(weights(model, guide), before, strict=True))
    assert not list(pyro.get_param_store().keys())


def test_a_stock_estimator_and_ours_walk_the_same_path():
    ours = run("gaussian_vae", objective=ppvae.ELBO())
    stock = run("gaussian_vae", objective=TraceMeanField_ELBO(max_plate_nesting=1))
    for a, b in zip(weights(*ours[:2]), weights(*stock[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_of_an_estimator_without_differentiable_loss_is_the_mean():
    ours = run("gaussian_vae", objective=ppvae.IWAE(3), optimizer=lambda p: torch.optim.SGD(p, 0.01))
    stock = RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    theirs = run("gaussian_vae", objective=stock, optimizer=lambda p: torch.optim.SGD(p, 0.01))
    for a, b in zip(weights(*ours[:2]), weights(*theirs[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_seeds_repeat_and_the_callers_random_state_is_left_alone():
    model, guide, _ = PAIRS["label"].make()
    data = data_of("label")
    state = torch.get_rng_state()
    ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(weights(*run(seed=0)[:2]), weights(*run(seed=0)[:2]))
    assert any(not torch.equal(a, b) for a, b in zip(weights(*run()[:2]), weights(*run(seed=1)[:2]), strict=True))


def test_a_frozen_model_stays_as_it_was():
    before = weights(PAIRS["label"].make()[0])
    model, guide, _ = run(train_model=False)
    assert_equal(weights(model), before)
    assert any(not torch.equal(a, b) for a, b in zip(weights(guide), weights(PAIRS["label"].make()[1]), strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_a_frozen_model_keeps_its_batch_statistics_and_modes_are_put_back():
    _, guide, x = PAIRS["gaussian_vae"].make()
    decoder = nn.Sequential(MLP(3, [], 8), _OverLeading(nn.BatchNorm1d(8)), nn.Dropout(0.5), MLP(8, [], (8, 8)))
    model = GaussianVAE(decoder, 3).double()
    guide.eval()
    before = weights(model)
    ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=2, batch_size=3, train_model=False, progress=False)
    assert_equal(weights(model), before)
    assert model.training
    assert not guide.training
    ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, batch_size=3, progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))


class _OverLeading(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def test_a_loss_that_depends_on_nothing_trainable_is_an_error():
    model, guide, x = PAIRS["mixture"].make()
    with pytest.raises(ppvae.ContractError, match="got none from IWAE"):
        ppvae.fit(model, guide, ppvae.IWAE(2), x, epochs=1, train_model=False, progress=False)


@pytest.mark.parametrize("pair", ["label", "user"])
def test_fit_leaves_nothing_in_the_global_store(pair):
    pyro.clear_param_store()
    run(pair, epochs=1)
    assert not list(pyro.get_param_store().keys())


def test_dynamic_data_leave_the_callers_random_state_alone():
    model, guide, _ = PAIRS["label"].make()
    data = Dataset(torch.rand(20, 8, 8).double(), binarization="dynamic")
    state = torch.get_rng_state()
    ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_signal_during_the_last_evaluation_is_not_swallowed(tmp_path):
    metrics = tmp_path / "metrics.jsonl"

    def evaluate():
        if metrics.exists() and len(metrics.read_text().splitlines()) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(ppvae.Interrupted, match="epoch 4"):
        run("gaussian_vae", epochs=3, run_dir=tmp_path, evaluate=evaluate)
    assert not issubclass(ppvae.Interrupted, Exception)


def test_a_guide_that_draws_a_label_it_was_given_is_refused():
    class Drawing(LabelGuide):
        def forward(self, x, y=None):
            return super().forward(x, None)

    model, guide, x = PAIRS["label"].make()
    broken = Drawing(guide.classifier, guide.encoder)
    data = Dataset(x.repeat(2, 1, 1), torch.tensor([-1] * 8 + [0, 1, 2, 3]), num_classes=4)
    with pytest.raises(ppvae.ContractError, match='not to draw site "y" when labels are given'):
        ppvae.fit(model, broken, ppvae.ELBO(), data, epochs=1, progress=False)
    with pytest.raises(ppvae.ContractError, match=r"not to draw site"):
        ppvae.draw(model, broken, x, torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize(
    ("validation", "message"),
    [(torch.zeros(5, 4, 4).double(), "got|expected"), (torch.full((5, 8, 8), 3.0).double(), "values from 3 to 3")],
)
def test_validation_data_are_checked_before_the_first_step(validation, message):
    with pytest.raises(ppvae.ContractError, match=message):
        run("gaussian_vae", validation=validation, evaluate=lambda: pytest.fail("it trained"))


def test_nothing_to_train_is_an_error():
    model, guide, x = PAIRS["linear_gaussian"].make()
    guide.requires_grad_(False)
    with pytest.raises(ppvae.ContractError, match="expected a parameter to train"):
        ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, train_model=False, progress=False)


def test_the_run_folder(tmp_path):
    _, _, result = run(run_dir=tmp_path, validation=data_of("label"), evaluate=lambda: {"two": 2.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.metrics
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["two"] == 2.0 and "validation_loss" in row for row in rows)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("pair", ["label", "gaussian_vae"])
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_ends(pair, tmp_path):
    whole = run(pair, epochs=5, run_dir=tmp_path / "whole", validation=data_of(pair))
    run(pair, epochs=2, run_dir=tmp_path / "halved", validation=data_of(pair))
    resumed = run(pair, seed=0, epochs=5, run_dir=tmp_path / "halved", resume=True, validation=data_of(pair))
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    for a, b in zip(whole[2].metrics, resumed[2].metrics, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


class _SignalAt(ppvae.ELBO):
    """Sends this process a signal while it takes a certain loss."""

    def __init__(self, number: int, at: int):
        super().__init__()
        self.number, self.left = number, at

    def per_datum(self, particles):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().per_datum(particles)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_from_which_the_run_goes_on_bit_for_bit(number, tmp_path):
    options = {"pair": "gaussian_vae", "epochs": 3}
    whole = run(objective=ppvae.ELBO(), run_dir=tmp_path / "whole", **options)
    before = signal.getsignal(number)
    with pytest.raises(ppvae.Interrupted, match=rf"{number.name} at step 8 .epoch 2.*Resume") as stop:
        run(objective=_SignalAt(number, at=8), run_dir=tmp_path / "cut", **options)
    assert stop.value.signal_number == number
    assert signal.getsignal(number) is before
    config = tmp_path / "cut" / "config.json"
    config.write_text((tmp_path / "whole" / "config.json").read_text())
    resumed = run(objective=ppvae.ELBO(), run_dir=tmp_path / "cut", resume=True, **options)
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    assert resumed[2].metrics[1]["loss"] == whole[2].metrics[1]["loss"]


class _TurnsNaN(ppvae.ELBO):
    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def per_datum(self, particles):
        self.left -= 1
        return super().per_datum(particles) * (1.0 if self.left >= 0 else float("nan"))


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(ppvae.NonFiniteLossError, match=r"the loss turned nan .*last\.safetensors is kept"):
        run("gaussian_vae", objective=_TurnsNaN(after=8), epochs=4, run_dir=tmp_path)
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    assert ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in weights(model, guide))


def test_a_step_that_ruins_the_parameters_is_not_checkpointed(tmp_path):
    with pytest.raises(ppvae.NonFiniteLossError):
        run("gaussian_vae", optimizer=lambda p: torch.optim.SGD(p, 1e30), run_dir=tmp_path)
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert_equal(weights(model, guide), weights(*PAIRS["gaussian_vae"].make()[:2]))


def test_a_run_is_not_overwritten(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already; pass resume=True"):
        run(run_dir=tmp_path, epochs=1)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_run_with_other_settings_is_not_resumed(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    with pytest.raises(ppvae.CheckpointError, match="run with batch_size=4, got batch_size=3"):
        run(run_dir=tmp_path, epochs=2, batch_size=3, resume=True)


def test_a_run_with_another_objective_or_other_labels_is_not_resumed(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    with pytest.raises(ppvae.CheckpointError, match=r"run with objective=.*'alpha': 1.0.*got objective=.*'alpha': 2.0"):
        run(run_dir=tmp_path, epochs=2, resume=True, objective=ppvae.SemiSupervised(ppvae.ELBO(), 2.0))
    other = Dataset(data_of("label").x, data_of("label").y.roll(1), num_classes=4)
    with pytest.raises(ppvae.CheckpointError, match="run with labels="):
        run(run_dir=tmp_path, epochs=2, resume=True, data=other)
    with pytest.raises(ppvae.CheckpointError, match="run with optimizer="):
        run(run_dir=tmp_path, epochs=2, resume=True, optimizer=ppvae.adam(0.1))


@pytest.mark.parametrize("content", [None, "{ not json"])
def test_a_run_folder_without_its_configuration(content, tmp_path):
    run(run_dir=tmp_path, epochs=1)
    config = tmp_path / "config.json"
    config.unlink() if content is None else config.write_text(content)
    with pytest.raises(ppvae.CheckpointError, match=r"config.json cannot be read"):
        run(run_dir=tmp_path, epochs=2, resume=True)


def test_a_checkpoint_that_lacks_what_a_run_needs(tmp_path):
    run(run_dir=tmp_path, epochs=1)
    tensors, values = checkpoint.read(tmp_path / "last.safetensors")
    del tensors["run/rng_cpu"]
    checkpoint.save(tmp_path / "last.safetensors", tensors, values)
    with pytest.raises(ppvae.CheckpointError, match="lacks run/rng_cpu"):
        run(run_dir=tmp_path, epochs=2, resume=True)


def test_an_unwritable_run_folder(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="run folder that can be written"):
        run(run_dir=tmp_path / "file" / "run")


def damage(path, how):
    whole = path.read_bytes()
    if how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "hostile pickle":
        path.write_bytes(pickle.dumps(_Hostile(path.parent / "executed")))


class _Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["truncated", "empty", "hostile pickle"])
def test_a_checkpoint_that_is_none(how, tmp_path):
    model, guide, _ = run(run_dir=tmp_path, epochs=1)
    before = weights(model, guide)
    damage(tmp_path / "last.safetensors", how)
    with pytest.raises(ppvae.CheckpointError, match="truncated or not a checkpoint"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    with pytest.raises(ppvae.CheckpointError, match="truncated or not a checkpoint"):
        run(run_dir=tmp_path, epochs=2, resume=True)
    assert_equal(weights(model, guide), before)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_pair(tmp_path):
    run("gaussian_vae", run_dir=tmp_path, epochs=1)
    model, guide, _ = PAIRS["label"].make()
    before = weights(model, guide)
    with pytest.raises(ppvae.CheckpointError, match=r"belongs to another pair: .* absent"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide)
    assert_equal(weights(model, guide), before)


def test_a_checkpoint_that_is_not_there(tmp_path):
    model, guide, _ = PAIRS["label"].make()
    with pytest.raises(ppvae.CheckpointError, match="found none"):
        ppvae.load_checkpoint(tmp_path / "none.safetensors", model, guide)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent():
    with pytest.raises(RuntimeError, match="found none; use device='cpu'"):
        run(device="cuda")


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "NaN or infinity first in row 20"), (1.5, "values from 0 to 1.5")]
)
def test_bad_data_anywhere_is_refused_before_the_first_step(value, message):
    data = data_of("gaussian_vae")
    data.x[20, 0, 0] = value
    with pytest.raises(ppvae.ContractError, match=message):
        run("gaussian_vae", data=data)


def test_labels_that_the_model_has_not_are_refused():
    data = Dataset(data_of("label").x, torch.full((24,), 7))
    with pytest.raises(ppvae.ContractError, match="labels from 0 to 3"):
        run("label", data=data)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"labelled_per_step": 0}, {"resume": True}])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match="expected"):
        run(**options)


def test_a_schedule_is_a_function_of_the_step():
    seen = []
    run("gaussian_vae", epochs=2, batch_size=6, schedule=lambda step: seen.append(step) or 0.5)
    assert seen == list(range(8))


def test_a_pair_of_the_users_own_trains_and_is_evaluated():
    model, guide, result = run("user", epochs=40)
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    _, _, x = PAIRS["user"].make()
    assert torch.isfinite(ppvae.log_marginal(model, guide, x, num_particles=50).value).all()

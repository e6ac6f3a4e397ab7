"""Resuming: everything read from a checkpoint is compared before anything changes."""

import copy

import pytest
import torch

import ppvae
from ppvae.training import RunDir, checkpoint
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, data_of, modules_of, run, weights

WEIGHT = "module/pair:model.decoder.layers.0.weight"
MOMENT = "optimizer/pair:model.decoder.layers.0.weight:exp_avg"
STEP = "optimizer/pair:model.decoder.layers.0.weight:step"
CRITIC = "module/critic/z:network.layers.0.weight"


def critic():
    torch.manual_seed(0)
    return ppvae.ELBO() + ppvae.TotalCorrelation(5.0, 3, critic=ppvae.nn.MLP(3, [4], 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run("gaussian_vae", objective=critic(), run_dir=folder, epochs=2)
    return folder


def without(name):
    return lambda tensors, values: tensors.pop(name)


def extra(name, tensor=None):
    return lambda tensors, values: tensors.update({name: torch.zeros(2) if tensor is None else tensor})


def changed(name, change):
    return lambda tensors, values: tensors.update({name: change(tensors[name])})


def renamed(name, other):
    return lambda tensors, values: tensors.update({other: tensors.pop(name)})


def valued(name, value):
    return lambda tensors, values: values.update({name: value})


def unvalued(name):
    return lambda tensors, values: values.pop(name)


def filled(number):
    return lambda tensor: torch.full_like(tensor, number)


def swapped(one, other):
    def swap(tensors, values):
        tensors[one], tensors[other] = tensors[other], tensors[one]

    return swap


def frozen_in_file(tensors, values):
    values["trainable"]["pair"].remove("model.decoder.layers.0.bias")


def grouped(change):
    def apply(tensors, values):
        change(values["groups"]["pair"])

    return apply


MANIPULATED = {
    "a weight is missing": without(WEIGHT),
    "a weight of a critic is missing": without(CRITIC),
    "a weight too many": extra("module/pair:model.decoder.layers.9.weight"),
    "a tensor of another kind": extra("stranger"),
    "a player too many": extra("module/generator:weight"),
    "a weight of another shape": changed(WEIGHT, lambda t: t[:1]),
    "a weight transposed": changed(WEIGHT, lambda t: t.t().contiguous()),
    "a weight flattened": changed(WEIGHT, torch.flatten),
    "a weight in float32": changed(WEIGHT, torch.Tensor.float),
    "a weight in bfloat16": changed(WEIGHT, torch.Tensor.bfloat16),
    "a weight in int64": changed(WEIGHT, torch.Tensor.long),
    "a weight of NaN": changed(WEIGHT, filled(float("nan"))),
    "a weight of infinity": changed(WEIGHT, filled(float("inf"))),
    "a critic's weight of NaN": changed(CRITIC, filled(float("nan"))),
    "a weight under another name": renamed(WEIGHT, WEIGHT.replace("weight", "weigth")),
    "weights swapped": swapped(WEIGHT, "module/pair:model.decoder.layers.0.bias"),
    "a moment is missing": without(MOMENT),
    "a step count is missing": without(STEP),
    "a moment too many": extra(MOMENT.replace("exp_avg", "exp_avg_cube")),
    "a moment by index": renamed(MOMENT, "optimizer/pair:0:exp_avg"),
    "a moment of another index": renamed(MOMENT, MOMENT.replace("layers.0", "layers.7")),
    "a moment of another player": renamed(MOMENT, MOMENT.replace("pair", "generator")),
    "a moment of another shape": changed(MOMENT, lambda t: t[:1]),
    "a moment broadcast": changed(MOMENT, lambda t: t[:1, :1]),
    "a moment that is a scalar": changed(MOMENT, lambda t: t[0, 0]),
    "a moment in float32": changed(MOMENT, torch.Tensor.float),
    "a moment of NaN": changed(MOMENT, filled(float("nan"))),
    "moments swapped": swapped(MOMENT, MOMENT.replace("weight", "bias")),
    "a step count of another shape": changed(STEP, lambda t: t.reshape(1)),
    "a step count in int64": changed(STEP, torch.Tensor.long),
    "no random state": without("run/rng_cpu"),
    "a random state cut off": changed("run/rng_cpu", lambda t: t[:100]),
    "a random state of another type": changed("run/rng_cpu", torch.Tensor.long),
    "a random state that is none": changed("run/rng_cpu", filled(255)),
    "a sum without a count": extra("sum/pair:loss", torch.zeros((), dtype=torch.float64)),
    "a count without a sum": valued("counts", {"pair": 3}),
    "no epoch": unvalued("epoch"),
    "no groups": unvalued("groups"),
    "no trainable parameters": unvalued("trainable"),
    "no metrics": unvalued("metrics"),
    "an epoch that is text": valued("epoch", "2"),
    "an epoch that is a fraction": valued("epoch", 1.5),
    "an epoch below 0": valued("epoch", -1),
    "an epoch that is true": valued("epoch", True),
    "another epoch": valued("epoch", 7),
    "no epoch number": valued("epoch", None),
    "a step beyond the epoch": valued("step_in_epoch", 700),
    "a step below 0": valued("step_in_epoch", -1),
    "a best loss that is text": valued("best", "low"),
    "a best loss of NaN": valued("best", float("nan")),
    "seconds below 0": valued("seconds", -1.0),
    "seconds that are a list": valued("seconds", [1]),
    "metrics that are text": valued("metrics", "rows"),
    "metrics of fewer epochs": valued("metrics", [{"epoch": 1}]),
    "metrics of other epochs": valued("metrics", [{"epoch": 1}, {"epoch": 3}]),
    "metrics that are no rows": valued("metrics", [1, 2]),
    "counts that are a list": valued("counts", [1]),
    "counts below 0": valued("counts", {"pair": -1}),
    "trainable that is a list": valued("trainable", []),
    "trainable of another player": valued("trainable", {"generator": ["weight"]}),
    "a frozen parameter": frozen_in_file,
    "groups that are a list": valued("groups", []),
    "groups of another player": valued("groups", {"generator": []}),
    "a group too many": grouped(lambda groups: groups.append(copy.deepcopy(groups[0]))),
    "no group": grouped(lambda groups: groups.clear()),
    "an option is missing": grouped(lambda groups: groups[0].pop("lr")),
    "an option too many": grouped(lambda groups: groups[0].update(momentum=0.9)),
    "an option that is text": grouped(lambda groups: groups[0].update(lr="fast")),
    "an option of NaN": grouped(lambda groups: groups[0].update(lr=float("nan"))),
    "an option that is a list": grouped(lambda groups: groups[0].update(lr=[1e-3])),
    "an option that is too short": grouped(lambda groups: groups[0].update(betas=[0.9])),
    "an option that is null": grouped(lambda groups: groups[0].update(lr=None)),
}


@pytest.mark.parametrize("case", MANIPULATED)
def test_a_manipulated_checkpoint_is_refused_and_nothing_changes(case, finished, tmp_path):
    for file in finished.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors, values = checkpoint.read(finished / "last.safetensors")
    MANIPULATED[case](tensors, values)
    checkpoint.save(tmp_path / "last.safetensors", tensors, values)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    data, objective = data_of("gaussian_vae"), critic()
    model, guide, _ = PAIRS["gaussian_vae"].make(seed=1)
    untouched, state = weights(model, guide, *modules_of(objective)), torch.get_rng_state()
    options = {"epochs": 3, "batch_size": 4, "run_dir": RunDir(tmp_path, resume=True), "progress": False}
    with pytest.raises(ppvae.CheckpointError, match=r"last.safetensors"):
        ppvae.fit(model, guide, objective, data, **options)
    assert_equal(untouched, weights(model, guide, *modules_of(objective)))
    assert torch.equal(state, torch.get_rng_state())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("player", ["model", "guide"])
def test_resume_refuses_another_set_of_trainable_parameters(player, tmp_path):
    """A moment of one parameter must never reach another: with an optimizer in C++ that could end the process."""

    def pair(frozen):
        model, guide, x = PAIRS["gaussian_vae"].make()
        layer = model.decoder.layers[0] if player == "model" else guide.encoder.layers[0]
        layer.bias.requires_grad_(not frozen)
        return model, guide, x

    for first, message in ((True, "is trained here and was not"), (False, "is not trained here and was")):
        folder = tmp_path / str(first)
        ppvae.fit(*pair(first)[:2], ppvae.ELBO(), pair(first)[2], epochs=1, run_dir=folder, progress=False)
        model, guide, x = pair(not first)
        before = weights(model, guide)
        with pytest.raises(ppvae.CheckpointError, match=rf"layers.0.bias' {message}.*set requires_grad as it was"):
            ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=2, run_dir=RunDir(folder, resume=True), progress=False)
        assert_equal(before, weights(model, guide))


def test_resume_accepts_an_unchanged_checkpoint(finished, tmp_path):
    for file in finished.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors, values = checkpoint.read(finished / "last.safetensors")
    checkpoint.save(tmp_path / "last.safetensors", tensors, values)
    *_, result = run("gaussian_vae", objective=critic(), run_dir=RunDir(tmp_path, resume=True), epochs=3)
    assert [row["epoch"] for row in result.metrics] == [1, 2, 3]


def test_resume_refuses_a_pair_in_another_precision(tmp_path):
    model, guide, x = PAIRS["gaussian_vae"].make()
    ppvae.fit(model.float(), guide.float(), ppvae.ELBO(), x.float(), epochs=1, run_dir=tmp_path, progress=False)
    double = PAIRS["gaussian_vae"].make()[:2]
    options = {"epochs": 2, "run_dir": RunDir(tmp_path, resume=True), "progress": False}
    with pytest.raises(ppvae.CheckpointError, match="holds a run with x="):
        ppvae.fit(*double, ppvae.ELBO(), x.double(), **options)
    with pytest.raises(ppvae.CheckpointError, match=r"float32 of shape .* and float64 of shape"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", *double)

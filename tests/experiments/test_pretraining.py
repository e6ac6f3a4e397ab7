"""pretraining.py on the digits, shortened."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import ppvae
from ppvae.data import Dataset, load
from ppvae.guides import MeanFieldGaussian
from ppvae.nn import MLP
from tests.experiments.scripts import script

pretraining, classifiers, autoencoders = (script(name) for name in ("pretraining", "classifiers", "autoencoders"))
KINDS = ("random", "PCA", "beta 1")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretraining")
    encoders = autoencoders.Config(data="digits", hidden=(32,), epochs=2, batch_size=100, out=out / "encoders")
    return pretraining.Config(
        kinds=KINDS, labels=(10, 100), seeds=(0, 1), depth=1, width=8, epochs=5, encoders=encoders, out=out
    )


@pytest.fixture(scope="module")
def table(config):
    return pretraining.main(config)


def test_main_gives_every_encoder_classifier_and_number_of_labels(config, table):
    cells = [(row["kind"], row["mode"], row["head"], row["labels"]) for row in table]
    assert len(set(cells)) == len(cells) == 3 * 2 * 2 * 2
    assert all(0 < row["accuracy"][0] < 1 for row in table)
    assert json.loads((config.out / "digits" / "table.json").read_text()) == json.loads(json.dumps(table))
    figures = {path.name for path in (config.out / "digits").glob("*.png")}
    assert figures == {f"{mode}-{head}.png" for mode in ("frozen", "tuned") for head in ("linear", "MLP")}


def test_main_pairs_differences_by_seed(config, table):
    reports = [json.loads(path.read_text()) for path in (config.out / "digits").glob("*/report.json")]
    runs = {(r["kind"], r["labels"], r["seed"]): r["accuracy"]["linear"] for r in reports}
    (row,) = (r for r in table if (r["kind"], r["mode"], r["head"], r["labels"]) == ("PCA", "frozen", "linear", 100))
    differences = [runs["PCA", 100, seed]["frozen"] - runs["random", 100, seed]["tuned"] for seed in (0, 1)]
    assert row["difference"] == pytest.approx([sum(differences) / 2, abs(differences[0] - differences[1]) / 2**0.5])
    base = [r for r in table if (r["kind"], r["mode"]) == ("random", "tuned")]
    assert all(r["difference"] is None for r in base)


def test_finished_runs_are_not_repeated(config, table, monkeypatch):
    monkeypatch.delattr(pretraining, "accuracies")
    assert pretraining.main(config) == table


def test_codes_are_the_means_of_the_guide():
    guide = MeanFieldGaussian(MLP((8, 8), [5], 6))
    x = torch.rand(4, 8, 8)
    torch.testing.assert_close(pretraining.Code(guide)(x), guide.encoder(x)[:, :3])
    data = Dataset(x, torch.tensor([1, 0, 2, 1]), num_classes=3)
    codes = pretraining.coded(guide, data)
    torch.testing.assert_close(codes.x, ppvae.features(guide, x))
    assert codes.y.tolist() == [1, 0, 2, 1]
    assert not codes.x.requires_grad


def test_accuracies_give_the_guide_back_as_it_was(config):
    splits = load("digits", binarization="none")
    guide = pretraining.encoder(config, splits.train.unlabelled(), "random", 0)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    pretraining.accuracies(config, splits, guide, 10, 0)
    torch.testing.assert_close(guide.state_dict(), before, rtol=0, atol=0)


def test_labelled_gives_as_many_rows_of_each_class():
    rows = pretraining.labelled(load("digits", binarization="none").train, 30, seed=1)
    assert torch.bincount(rows.y).tolist() == [3] * 10


def test_best_weights_restores_the_epoch_with_the_lowest_loss():
    network = nn.Linear(1, 2, bias=False)
    best = classifiers.BestWeights(network, Dataset(torch.ones(4, 1), torch.zeros(4, dtype=torch.long)))
    losses = {}
    for weight in (1.0, 3.0, 2.0):
        nn.init.zeros_(network.weight).data[0] = weight
        losses[weight] = best()["validation_loss"]
    assert losses[3.0] == pytest.approx(torch.tensor(-3.0).exp().log1p().item(), rel=1e-5) == min(losses.values())
    best.restore()
    assert network.weight[0].item() == 3


def test_no_labels_are_refused(config):
    with pytest.raises(ValueError, match="expected --labels with at least one value, got none"):
        pretraining.main(replace(config, labels=()))

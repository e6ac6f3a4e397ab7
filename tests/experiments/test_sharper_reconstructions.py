"""sharper_reconstructions.py on the digits, shortened, and its measures against closed forms."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import ppvae
from ppvae.data import load
from ppvae.training.study import RunFolderError
from tests.experiments.scripts import script

sharper, pairs = script("sharper_reconstructions"), script("sharper_pairs")
SMALL = sharper.Config(
    data="digits", latent_dim=3, epochs=2, classifier_epochs=2, samples=20, log_p_images=5, particles=50, columns=4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sharper")
    sharper.main(replace(SMALL, out=out))
    return out / "digits-seed0"


def test_main_writes_a_table_of_three_rows_and_the_figure(folder):
    table = json.loads((folder / "table.json").read_text())
    assert list(table) == ["data", "pixel", "features", "adversarial"]
    for kind in ("pixel", "features", "adversarial"):
        report = json.loads((folder / kind / "report.json").read_text())
        assert report == table[kind]
        assert report["rate"] > 0
        assert report["sharpness"] > 0
        assert 1 <= report["classes"] <= 10
    assert table["data"]["agreement"] > 0.2  # of ten classes, after two epochs
    assert (folder / "images.png").exists()


def test_main_keeps_finished_rows_and_refuses_other_settings(folder, capsys):
    sharper.main(replace(SMALL, out=folder.parent))
    printed = capsys.readouterr().out
    assert "epoch" not in printed.replace("2 epochs", "")
    assert "noise fitted afterwards" in printed
    with pytest.raises(RunFolderError, match="samples=20, not 21"):
        sharper.main(replace(SMALL, out=folder.parent, samples=21))


def test_error_of_the_table_is_that_of_the_saved_pair(folder):
    model, guide = pairs.pair((8, 8), SMALL.latent_dim)
    ppvae.load_checkpoint(folder / "features" / "last.safetensors", model, guide)
    x = load("digits", binarization="none").test.grey(slice(None))
    with torch.no_grad():
        mean = model.decoder(guide.encoder(x).chunk(2, -1)[0])
    expected = (mean - x).square().flatten(1).sum(1).mean().item()
    assert json.loads((folder / "table.json").read_text())["features"]["error"] == pytest.approx(expected, rel=1e-4)


def test_sharpness_is_the_variance_of_the_laplacian():
    row = torch.arange(6.0).square().expand(6, 6)
    assert sharper.sharpness(row.unsqueeze(0)).item() == pytest.approx(0, abs=1e-6)  # constant second derivative
    spike = torch.zeros(1, 5, 5)
    spike[0, 2, 2] = 1
    expected = torch.tensor([0, 1, 0, 1, -4, 1, 0, 1, 0.0]).var()
    torch.testing.assert_close(sharper.sharpness(spike), expected)


def test_sharpness_falls_with_blur():
    x = torch.rand(10, 12, 12)
    blurred = nn.functional.avg_pool2d(x, 3, stride=1)
    assert sharper.sharpness(blurred) < 0.2 * sharper.sharpness(x)


def test_read_counts_classes_and_their_confidence():
    logits = 1000 * torch.eye(10)[[0, 0, 3, 3]]
    found = sharper.read(nn.Identity(), logits)
    assert found == pytest.approx({"confidence": 1.0, "classes": 2.0})
    assert sharper.read(nn.Identity(), torch.zeros(4, 10)) == pytest.approx({"confidence": 0.1, "classes": 10.0})


def test_fit_noise_sets_the_scale_that_scores_best():
    torch.manual_seed(0)
    model, guide = pairs.pair((8, 8), 2)
    data = load("digits", binarization="none").train
    pairs.fit_noise(model, guide, data)
    x, best = data.grey(slice(None)), model.likelihood.log_scale.item()
    means = ppvae.reconstruct(model, guide, x, num_samples=1)[0]

    def score(log_scale):
        return torch.distributions.Normal(means, torch.tensor(log_scale).exp()).log_prob(x).sum()

    assert score(best) > max(score(best + 0.05), score(best - 0.05))


@pytest.mark.parametrize("settings", [{"kinds": ()}, {"samples": 0}])
def test_main_refuses_settings_out_of_range(settings, tmp_path):
    with pytest.raises(ValueError, match="expected --"):
        sharper.main(replace(SMALL, out=tmp_path, **settings))

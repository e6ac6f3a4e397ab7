"""class_samples.py on runs of ssvae_mnist.py on the digits, and its scores on decoders with known answers."""

import json

import pytest
import torch
from torch import nn

from ppvae.training import checkpoint
from tests.experiments.scripts import script

class_samples, ssvae_mnist, ssvae_pairs = (script(n) for n in ("class_samples", "ssvae_mnist", "ssvae_pairs"))
Config = class_samples.Config
CLASSES = 10


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setattr(ssvae_pairs, "HIDDEN", (32,))


class Shown(nn.Module):
    """p(x | y, z) with an image that shows y where z is above ``least``, and the next class elsewhere."""

    latent_dim, num_classes = 1, CLASSES

    def __init__(self, least: float):
        super().__init__()
        self.least = nn.Parameter(torch.tensor(least))

    def decode(self, z, y, event_dim):
        shown = torch.where(z[..., 0] > self.least, y, (y + 1) % CLASSES)
        return torch.distributions.Bernoulli(nn.functional.one_hot(shown, CLASSES).float().unsqueeze(-1))


def scored(least: float, samples: int = 400) -> dict:
    return class_samples.scores(Config(runs=(), samples=samples), nn.Flatten(-2), Shown(least))


@pytest.mark.parametrize(("least", "share"), [(-100.0, 1.0), (100.0, 0.0)])
def test_scores_are_the_share_that_shows_the_class(least, share):
    assert scored(least) == {"share": share, "standard_error": 0, "share_by_class": [share] * CLASSES}


def test_scores_have_the_binomial_error_of_the_styles():
    """Half of the styles are right in every class: the classes of one style are no independent samples."""
    found = scored(0.0)
    assert found["standard_error"] == pytest.approx(0.5 / 400**0.5, rel=0.02)
    assert found["share"] == pytest.approx(0.5, abs=4 * found["standard_error"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    options = {"label": {"guide": "label"}, "label-style": {}, "sdgm": {"pair": "sdgm"}}
    folders = tuple(tmp_path_factory.mktemp("runs") / name for name in options)
    for folder in folders:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ssvae_pairs, "HIDDEN", (32,))
            patch.setattr(ssvae_mnist, "save_figures", lambda *_: None)
            ssvae_mnist.main(ssvae_mnist.Config(data="digits", smoke=True, out=folder, **options[folder.name]))
    return folders


def test_main_reads_runs_of_several_pairs_and_keeps_the_classifier(runs, tmp_path, capsys):
    config = Config(runs=runs, samples=20, epochs=10, out=tmp_path)
    report = class_samples.main(config)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert [run["pair"] for run in report["runs"]] == ["label", "label-style", "sdgm"]
    assert report["classifier_accuracy"] > 0.8
    assert all(len(run["share_by_class"]) == CLASSES for run in report["runs"])
    first = capsys.readouterr().out
    assert "epoch 10/10" in first
    assert "± error over styles" in first
    assert class_samples.main(config) == report
    assert "epoch" not in capsys.readouterr().out


def test_decoder_has_the_weights_of_the_last_checkpoint(runs):
    run, test = class_samples.settings(runs[1]), class_samples.load("digits").test
    model = class_samples.decoder(run, runs[1], test, torch.device("cpu"))
    saved, _ = checkpoint.read(runs[1] / "last.safetensors")
    prefix = checkpoint.module_prefix("pair") + "model."
    assert all(torch.equal(saved[prefix + name], weight) for name, weight in model.state_dict().items())
    new, _ = ssvae_pairs.build_pair(run, test.event_shape, torch.device("cpu"))
    assert not torch.equal(new.decoder.first.linear.weight, model.decoder.first.linear.weight)


def test_main_refuses_folders_without_a_run_and_mixed_data(runs, tmp_path):
    with pytest.raises(ValueError, match=r"finished run of ssvae_mnist.py, got .*nothing"):
        class_samples.main(Config(runs=(tmp_path / "nothing",), out=tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text(json.dumps({"model": "VAE"}))
    with pytest.raises(ValueError, match=r"finished run of ssvae_mnist.py, got .*other"):
        class_samples.main(Config(runs=(tmp_path / "other",), out=tmp_path))
    report = json.loads((runs[0] / "report.json").read_text())
    (tmp_path / "other" / "report.json").write_text(json.dumps(report | {"data": "mnist"}))
    with pytest.raises(ValueError, match=r"one data set, got \['digits', 'mnist'\]"):
        class_samples.main(Config(runs=(*runs, tmp_path / "other"), out=tmp_path))
    with pytest.raises(ValueError, match=r"--samples of at least 2, got 1"):
        class_samples.main(Config(runs=runs, samples=1, out=tmp_path))

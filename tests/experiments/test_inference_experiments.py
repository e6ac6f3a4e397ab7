"""iwae_mnist.py, frozen_decoder.py and inference_gaps.py, at a size at which only laws can be tested."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ppvae.evaluation.likelihood.marginal import marginal_of, weights_of
from ppvae.training.run_folder import RunFolderError
from tests.experiments.scripts import script

iwae_mnist, frozen_decoder, inference_gaps = map(script, ("iwae_mnist", "frozen_decoder", "inference_gaps"))
WINDOW = "ppvae.evaluation.likelihood.inference_gaps.WINDOW"  # steps to a local optimum
TINY = {"data": "digits", "hidden": (32,), "latent_dim": 4, "context": 4, "particles": 200, "temperatures": 5}


def test_lengths_and_staircase_are_the_exact_recipe():
    lengths = iwae_mnist.lengths(iwae_mnist.Config(exact=True))
    assert sum(lengths) == 3280
    factor = iwae_mnist.staircase(lengths, 10)
    assert factor(9) == 1
    assert factor(10) == factor(39) == pytest.approx(10 ** (-1 / 7))
    assert factor(32_799) == pytest.approx(0.1)


@pytest.mark.parametrize("layers", [1, 2])
def test_decoder_starts_at_the_mean_image(layers):
    mean = torch.linspace(0, 1, 64).reshape(8, 8)
    model, _ = iwae_mnist.build_pair(layers, mean)
    model.decoder.layers[-1].weight.data.zero_()
    decoded = model.decode(torch.zeros(1, 50 if layers == 1 else 100), 2).mean[0]
    torch.testing.assert_close(decoded, mean.clamp(0.001, 0.999))


def test_cells_of_iwaes_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(iwae_mnist, "STAGES", 2)
    sizes = {"batch_size": 100, "test_images": 20, "log_p_images": 4}
    sizes["test_particles"] = 20  # too few to fit anything, which takes longer than the rest
    config = iwae_mnist.Config(layers=(2,), particles=(1, 5), data="digits", out=tmp_path, **sizes)
    found = iwae_mnist.main(config)
    reports = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/report.json")}
    assert set(reports) == {"2-layer-vae-k1", "2-layer-vae-k5", "2-layer-iwae-k5"}
    for report in reports.values():
        assert -report["test_elbo"] > report["guide_nll_bound"]
        assert report["nll"] == pytest.approx(report["guide_nll_bound"] - report["nll_below_bound"])
        assert report["nll_failed"] is None
        assert report["nll_is_upper_bound"] is True
    assert all(len(report["active_units"]) == 2 for report in reports.values())
    assert "82.90" not in capsys.readouterr().out  # a value of MNIST
    assert (tmp_path / "nll.png").exists()
    before = {path: path.stat().st_mtime for path in tmp_path.glob("*/last.safetensors")}
    assert iwae_mnist.main(config) == found
    assert before == {path: path.stat().st_mtime for path in before}  # a finished cell is not repeated
    with pytest.raises(RunFolderError, match="was run with seed=0, not 1"):
        iwae_mnist.main(iwae_mnist.Config(layers=(2,), particles=(1,), data="digits", out=tmp_path, seed=1, **sizes))


def test_iwae_nll_is_the_bound_less_the_mean_difference_on_some_images(monkeypatch):
    images = []

    def weighed(config, model, guide, x, proposal):
        images.append(x)
        guide_weights = weights_of(-x.double().repeat(1000, 1))
        return replace(marginal_of(guide_weights), value=-x.double() + 0.5 + 0.1 * x)

    monkeypatch.setattr(iwae_mnist, "weighed", weighed)
    x = torch.arange(103.0)
    bound = weighed(None, None, None, x, None)
    found = iwae_mnist.nll(iwae_mnist.Config(log_p_images=4), None, None, x, bound)
    assert images[1].tolist() == [0, 25, 50, 75]
    above = 0.5 + 0.1 * images[1].double()
    assert found["nll"] == pytest.approx(-bound.mean - above.mean().item())
    assert found["nll_below_bound_standard_error"] == pytest.approx(above.std().item() / 2)


REPORT = {
    **{"layers": 1, "objective": "vae", "particles": 1, "guide_nll_bound": 99.49, "active_units": [34]},
    **{"data": "mnist", "epochs": 8, "test_particles": 1000, "test_images": 10_000, "log_p_images": 200},
    **{"nll": 98.98, "nll_below_bound_standard_error": 0.03, "nll_failed": 0.01, "nll_is_upper_bound": False},
}


def printed(capsys, **changes) -> str:
    iwae_mnist.print_table([REPORT | changes])
    return " ".join(capsys.readouterr().out.split())


def test_iwae_table_has_the_bound_and_marks_an_nll_that_is_one(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    text = printed(capsys)
    assert "99.49 (34)" in text
    assert "98.98 ± 0.03, 1% failed" in text
    assert "≤ 98.98" not in text
    assert "84.78" in text  # published
    assert "≤ 98.98 ± 0.03, 30% failed" in printed(capsys, nll_is_upper_bound=True, nll_failed=0.3)
    assert "failed" not in printed(capsys, log_p_images=0, nll=None)


def test_guides_of_one_frozen_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(WINDOW, 40)
    epochs = {"decoder_epochs": 3, "guide_epochs": 3, "images": 20, "refined_steps": 10}
    config = frozen_decoder.Config(
        guides=("mean-field", "refined", "IAF"), gap_images=4, gap_windows=1, out=tmp_path, **TINY, **epochs
    )
    frozen_decoder.main(config)
    records = json.loads((tmp_path / "comparison.json").read_text())
    assert records["refined"]["elbo"] > records["mean-field"]["elbo"]
    assert len({record["log_p"] for record in records.values()}) == 1  # one model
    assert all(record["guide_bound"] < record["log_p"] + 0.5 for record in records.values())
    decoders = [load_file(tmp_path / name / "last.safetensors") for name in ("decoder", "mean-field", "IAF")]
    weights = [name for name in decoders[0] if "decoder" in name and "optimizer" not in name]
    assert weights
    assert all(torch.equal(decoders[0][name], other[name]) for other in decoders[1:] for name in weights)
    assert {"comparison.png", "gaps.png", "gaps.json"} <= {path.name for path in tmp_path.iterdir()}


def test_gaps_of_two_trainings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(WINDOW, 40)
    config = inference_gaps.Config(epochs=2, images=10, gap_windows=1, out=tmp_path, **TINY)
    monkeypatch.setenv("COLUMNS", "250")
    report = inference_gaps.main(config)
    text = capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text()).keys() == report.keys()
    for found in report.values():
        mean = {name: found[name][0] for name in inference_gaps.PUBLISHED}
        assert 0 <= found["log_p_failed"] <= 1
        assert mean["log p(x)"] > mean["best flow"] > mean["amortized"] - 0.5
        assert mean["log p(x)"] > mean["best Gaussian"]
        assert mean["amortization gap"] > 0
    assert report["Gaussian"]["amortized"] != report["flow"]["amortized"]
    assert "log p(x), failed" in text
    assert "-113.54" not in text  # a value of MNIST

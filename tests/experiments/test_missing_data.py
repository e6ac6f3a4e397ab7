"""missing_data.py and inpainting.py at a size at which only laws can be tested; probabilistic PCA by EM."""

import json
from itertools import pairwise

import pytest
import torch

from ppvae.data import load
from ppvae.models import LinearGaussian
from ppvae.training.run_folder import RunFolderError
from tests.experiments.scripts import script

missing_data, inpainting, probabilistic_pca = map(script, ("missing_data", "inpainting", "probabilistic_pca"))


def correlated(missing=0.4):
    torch.manual_seed(0)
    x = torch.randn(200, 2).double() @ torch.randn(2, 6).double() + 0.5 * torch.randn(200, 6).double() + 3
    return x, x.masked_fill(torch.rand(200, 6) < missing, torch.nan)


def test_em_of_probabilistic_pca_never_lowers_the_evidence():
    _, x = correlated()
    model = LinearGaussian(torch.randn(6, 2).double(), torch.zeros(6).double(), 1.0, missing=True)
    evidence = []
    for _ in range(30):
        evidence.append(model.log_evidence(x).mean().item())
        model = probabilistic_pca.maximised(model, x)
    assert all(after >= before - 1e-12 for before, after in pairwise(evidence))
    assert evidence[-1] > evidence[0] + 1


def test_em_of_probabilistic_pca_reaches_the_closed_form_on_complete_data():
    """Tipping and Bishop 1999, equations 7 and 8: s^2 is the mean of the discarded eigenvalues."""
    x, _ = correlated()
    model = probabilistic_pca.fit(x, 2, iterations=2000)
    values, vectors = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    noise = values[:-2].mean()
    weight = vectors[:, -2:] * (values[-2:] - noise).sqrt()
    exact = LinearGaussian(weight, x.mean(0), noise.sqrt().item())
    assert model.log_evidence(x).mean().item() == pytest.approx(exact.log_evidence(x).mean().item(), abs=1e-3)
    torch.testing.assert_close(model.weight @ model.weight.T, weight @ weight.T, rtol=0.02, atol=0.02)


def test_imputation_of_probabilistic_pca_is_the_exact_conditional_mean():
    _, x = correlated()
    model = probabilistic_pca.fit(x, 2, iterations=20)
    found = probabilistic_pca.imputed(model, x)
    mean, weight = model.bias.detach(), model.weight.detach()
    covariance = weight @ weight.T + (2 * model.log_scale.detach()).exp() * torch.eye(6).double()
    for datum, filled in zip(x[:20], found, strict=False):
        out, seen = datum.isnan(), ~datum.isnan()
        gain = covariance[out][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
        torch.testing.assert_close(filled[out], mean[out] + gain @ (datum[seen] - mean[seen]))
        assert torch.equal(filled[seen], datum[seen])


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine"])
def test_incomplete_data_are_scaled_by_their_observed_elements_and_fixed_by_the_seed(name):
    full, x = missing_data.incomplete(name, 0.5, seed=3)
    assert abs(x.isnan().double().mean().item() - 0.5) < 0.05
    assert not x.isnan().all(1).any()
    assert torch.equal(full[~x.isnan()], x[~x.isnan()])
    if name != "digits":
        torch.testing.assert_close(x.nanmean(0), torch.zeros(x.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(x.square().nanmean(0), torch.ones(x.shape[1]))
    assert torch.equal(x.isnan(), missing_data.incomplete(name, 0.5, seed=3)[1].isnan())
    assert not torch.equal(x.isnan()[:100], missing_data.incomplete(name, 0.5, seed=4)[1].isnan()[:100])


def test_missing_data_reports_every_method_and_repeats_no_finished_run(tmp_path, capsys):
    config = missing_data.Config(data=("wine",), seeds=(1, 2), epoch_share=0.05, imputation_particles=200, out=tmp_path)
    (row,) = missing_data.main(config)
    assert row["seeds"] == [1, 2]
    assert row["rmse"]["mean"][0] == pytest.approx(1.0, abs=0.06)
    assert row["rmse"]["PPCA"][0] < 0.95
    assert row["rmse"]["iterative"][0] < 0.98
    for other, (difference, _, ahead) in row["difference"].items():
        assert difference == pytest.approx(row["rmse"]["MIWAE"][0] - row["rmse"][other][0])
        assert 0 <= ahead <= 2
    assert (tmp_path / "rmse.png").exists()
    assert "MIWAE less the other" in capsys.readouterr().out
    written = {path: path.stat().st_mtime for path in tmp_path.glob("*/report.json")}
    assert len(written) == 2
    assert missing_data.main(config) == [row]
    assert written == {path: path.stat().st_mtime for path in written}
    with pytest.raises(RunFolderError, match=r"was run with missing=0\.5, not 0\.3"):
        missing_data.main(missing_data.Config(data=("wine",), seeds=(1,), missing=0.3, out=tmp_path))


def test_missing_data_refuses_a_share_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="expected --missing between 0 and 1, got 1"):
        missing_data.main(missing_data.Config(missing=1.0, out=tmp_path))


def test_masks_hide_what_they_are_named_after_and_are_fixed_by_the_seed():
    shape = (2000, 28, 28)
    for kind, share in {"random 50%": 0.5, "random 80%": 0.8}.items():
        missing = inpainting.mask(kind, shape, seed=0)
        assert abs(missing.double().mean().item() - share) < 0.002
        assert torch.equal(missing, inpainting.mask(kind, shape, seed=0))
        assert not torch.equal(missing, inpainting.mask(kind, shape, seed=1))
    half, box = inpainting.mask("lower half", shape, 0), inpainting.mask("centre box", shape, 0)
    assert half[:, 14:].all()
    assert not half[:, :14].any()
    assert box[:, 7:21, 7:21].all()
    assert box.double().mean() == 0.25


def test_training_images_keep_their_seen_pixels_and_have_every_kind_of_mask():
    train = load("digits").train.unlabelled()
    data = inpainting.with_masks(train, seed=0)
    missing, grey = data.x.isnan(), train.grey(slice(None))
    assert torch.equal(data.x[~missing], grey[~missing])
    half, box = inpainting.mask("lower half", (1, 8, 8), 0)[0], inpainting.mask("centre box", (1, 8, 8), 0)[0]
    for exact in (half, box):
        assert 0.2 < (missing == exact).all(-1).all(-1).double().mean() < 0.3
    assert set(data.rows(slice(None)).nan_to_num(0.0).unique().tolist()) == {0.0, 1.0}


def test_inpainting_reports_every_kind_of_mask(tmp_path):
    sizes = {"hidden": (32,), "latent_dim": 4, "epochs": 2, "guide_epochs": 2, "images": 20, "particles": 100}
    found = inpainting.main(inpainting.Config(data="digits", shown=3, out=tmp_path, **sizes))
    assert found == json.loads((tmp_path / "report.json").read_text())
    for kind in inpainting.KINDS:
        row = found[kind]
        conditional = found["log p(x)"]["mean"] - row["log p(x_seen)"]["mean"]
        assert row["log p(x_missing | x_seen)"]["mean"] == pytest.approx(conditional)
        gained = conditional - row["log p(x_missing)"]["mean"]
        assert row["gained from x_seen"]["mean"] == pytest.approx(gained)
        for guide in row["guides"].values():
            assert guide["gap"]["mean"] > guide["gap_of_K"]["mean"]
    assert len(list(tmp_path.glob("draws-*.png"))) == 4
    assert (tmp_path / "gaps.png").exists()

"""autoencoders.py on the digits, shortened: its claims about numbers hold at any length."""

import json
from dataclasses import replace

import pytest
import torch

import ppvae
from ppvae.data import load
from ppvae.models import LinearGaussian
from ppvae.training.study import RunFolderError
from tests.experiments.scripts import script

autoencoders, pairs, figures = (script(name) for name in ("autoencoders", "autoencoder_pairs", "autoencoder_figures"))
SMALL = autoencoders.Config(
    data="digits",
    widths=(2, 4),
    depths=(1,),
    hidden=(16,),
    epochs=2,
    batch_size=100,
    figure_width=3,
    filter_units=20,
    filter_epochs=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("autoencoders")
    autoencoders.main(replace(SMALL, out=out))
    return out / "digits"


def test_pca_errors_are_those_of_the_singular_vectors():
    torch.manual_seed(0)
    train, test = torch.randn(2, 50, 6)
    found = pairs.pca_errors(train, test, (1, 3))
    _, _, directions = torch.linalg.svd(train - train.mean(0))
    for width, error in found.items():
        centred = test - train.mean(0)
        rest = centred - centred @ directions[:width].T @ directions[:width]
        assert error == pytest.approx(rest.square().sum(1).mean().item(), rel=1e-4)


def test_main_writes_a_table_of_pca_and_every_run(folder):
    table = json.loads((folder / "table.json").read_text())
    assert [(row["kind"], row["width"]) for row in table] == [
        (kind, width) for kind in ("PCA", "autoencoder", "beta 0", "beta 1", "beta 4") for width in (2, 4)
    ]
    errors = {(row["kind"], row["width"]): row["error"] for row in table}
    test = load("digits", binarization="none").test.grey(slice(None))
    assert errors["PCA", 4] < errors["PCA", 2] < (test - test.mean(0)).square().flatten(1).sum(1).mean()
    assert all(row["rate"] > 0 for row in table if row["kind"].startswith("beta"))
    assert all(row["rate"] is None for row in table if row["kind"] == "autoencoder")
    assert (folder / "errors.png").exists()


def test_error_of_the_table_is_that_of_the_saved_pair(folder):
    networks = pairs.networks_of(SMALL, load("digits", binarization="none").train, 1, 4)
    model, guide = pairs.RECIPES["beta 1"].make(networks)
    ppvae.load_checkpoint(folder / pairs.name_of("beta 1", 1, 4) / "last.safetensors", model, guide)
    x = load("digits", binarization="none").test.grey(slice(None))
    with torch.no_grad():
        mean = guide.encoder(x).chunk(2, -1)[0]
        expected = (model.decoder(mean) - x).square().flatten(1).sum(1).mean().item()
    rows = json.loads((folder / "table.json").read_text())
    (found,) = (row["error"] for row in rows if (row["kind"], row["width"]) == ("beta 1", 4))
    assert found == pytest.approx(expected, rel=1e-5)


def test_main_writes_the_figures(folder):
    names = {path.name for path in (folder / "figures").iterdir()}
    planes = {
        f"{name}-{title}.png" for name in ("manifold", "codes", "interpolation") for title in ("autoencoder", "VAE")
    }
    assert names == planes | {"samples.png", "denoised.png", "filters.png", "denoised.json"}
    errors = json.loads((folder / "figures" / "denoised.json").read_text())
    assert list(errors) == ["none", "autoencoder", "denoising autoencoder"]


def test_finished_runs_are_not_repeated_and_other_settings_are_refused(folder, capsys):
    before = (folder / "table.json").read_text()
    autoencoders.main(replace(SMALL, figures=False, out=folder.parent))
    assert "run folder" not in capsys.readouterr().out
    assert (folder / "table.json").read_text() == before
    with pytest.raises(RunFolderError, match="was run with batch_size=100, not 50"):
        autoencoders.main(replace(SMALL, batch_size=50, figures=False, out=folder.parent))


@pytest.mark.parametrize("kind", ["autoencoder", "RAE", "denoising", "beta 0", "beta 1", "beta 4"])
def test_pairs_start_as_probabilistic_pca(kind):
    torch.manual_seed(0)
    x = torch.randn(300, 12) @ torch.randn(12, 12) + 3
    start = LinearGaussian.fit(x, 3)
    model, guide = pairs.RECIPES[kind].make(pairs.Networks((3, 4), (8, 5), 3, start))
    z = torch.randn(7, 3)
    torch.testing.assert_close(model.decode(z, 2).mean.flatten(1), z @ start.weight.T + start.bias)
    mean = ppvae.features(guide, x.unflatten(1, (3, 4)))
    torch.testing.assert_close(mean, start.posterior(x).mean.detach(), atol=1e-4, rtol=1e-4)


def test_vae_starts_with_the_exact_posterior_of_probabilistic_pca():
    torch.manual_seed(0)
    x = torch.randn(300, 12) @ torch.randn(12, 12) + 3
    start = LinearGaussian.fit(x, 3)
    model, guide = pairs.RECIPES["beta 1"].make(pairs.Networks((12,), (8, 5), 3, start))
    elbo = -ppvae.evaluate_loss(ppvae.ELBO(), model, guide, x)
    assert elbo == pytest.approx(start.log_evidence(x).mean().item(), abs=0.1)


def test_layer_of_filters_starts_from_the_mean_image():
    mean = torch.rand(64)
    start = LinearGaussian(torch.ones(64, 1), mean)
    for recipe in pairs.FILTERS.values():
        model, guide = recipe.make(pairs.Networks((8, 8), (), 5, start))
        first = next(part for part in guide.modules() if isinstance(part, torch.nn.Linear))
        torch.testing.assert_close(first(mean), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(model.decode(torch.zeros(1, 5), 2).mean.flatten(), mean)


def test_rectified_layers_keep_the_size_of_their_input():
    torch.manual_seed(0)
    start = LinearGaussian(torch.ones(64, 5), torch.zeros(64))
    _, guide = pairs.RECIPES["autoencoder"].make(pairs.Networks((8, 8), (2000, 2000), 5, start))
    guide.requires_grad_(False)
    x = torch.randn(500, 64)
    deep = guide.encoder.networks[0]
    first = deep.layers[:2](x)
    second = deep.layers[2:4](first)
    # E relu(h)^2 is half of Var h = 2 |x|^2 / n in each layer.
    assert first.square().mean() == pytest.approx(x.square().mean().item(), rel=0.1)
    assert second.square().mean() == pytest.approx(first.square().mean().item(), rel=0.1)


def test_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--depths from 1 to 1, the number of layers in --hidden, got \(1, 2\)"):
        autoencoders.main(replace(SMALL, depths=(1, 2), out=tmp_path))
    with pytest.raises(ValueError, match="expected --kinds with at least one value, got none"):
        autoencoders.main(replace(SMALL, kinds=(), out=tmp_path))

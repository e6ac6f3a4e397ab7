"""Figures of autoencoders.py: samples, denoised images, filters, and the plane of a code of two elements."""

import json
from dataclasses import replace

import torch
from autoencoder_pairs import (
    FILTERS,
    HIDDEN_SHARE,
    RECIPES,
    Networks,
    Pair,
    name_of,
    networks_of,
    principal,
    squared_error,
    trained,
)
from matplotlib.figure import Figure
from torch import Tensor, nn

import ppvae
from ppvae import plots
from ppvae.data import Splits
from ppvae.engine.isolation import forked_randomness
from ppvae.models import FullMixture, GaussianVAE
from ppvae.nn import MaskingNoise

COLUMNS = 12  # images in a row
PAIRS = 4  # of images, that paths run between
CODES = 5000  # test images whose codes are drawn
FITTED = 20_000  # training images whose codes a mixture is fitted to
DENOISED = 1000  # test images, of which the error is taken
SHOWN_FILTERS = 16
FILTER_BATCH = 100  # images a step
TITLES = {"autoencoder": "autoencoder", "beta 1": "VAE"}


def save_figures(config, splits: Splits) -> None:
    """Train the pairs of the figures, or read them, and write the figures and the numbers in them."""
    folder = config.out / config.data / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    pairs = {kind: of_table(config, splits, kind, config.figure_width) for kind in ("RAE", "denoising", *TITLES)}
    denoised, errors = denoised_figure(pairs, splits)
    figures = {
        "samples": samples_figure(pairs, splits),
        "denoised": denoised,
        "filters": filters_figure(config, splits),
        **{f"interpolation-{TITLES[kind]}": interpolation_figure(pairs[kind], splits) for kind in TITLES},
        **plane_figures(config, splits),
    }
    for name, figure in figures.items():
        figure.suptitle(title(config, name))
        figure.savefig(folder / f"{name}.png", dpi=120)
    (folder / "denoised.json").write_text(json.dumps(errors, indent=2, allow_nan=False) + "\n")


def title(config, name: str) -> str:
    what, _, of = name.partition("-")
    return {
        "samples": f"mean images of codes of {config.figure_width} elements, by where the codes are drawn from",
        "denoised": f"{HIDDEN_SHARE:.0%} of the pixels hidden; squared error of up to {DENOISED} test images",
        "filters": f"weights of the longest of {config.filter_units} units, each scaled to its largest; grey is 0",
        "interpolation": f"{of}, codes of {config.figure_width} elements: paths between test images",
        "manifold": f"{of}: mean images of a grid of codes",
        "codes": f"{of}: codes of test images",
    }[what]


def of_table(config, splits: Splits, kind: str, width: int) -> Pair:
    """A pair of the greatest depth, the same as in the table where it is there."""
    data, depth = splits.train, max(config.depths)
    return trained(config, RECIPES[kind], networks_of(config, data, depth, width), data, name_of(kind, depth, width))


def grey(splits: Splits, pair: Pair, rows: int) -> Tensor:
    """The first test images, on the device of a pair."""
    return splits.test.grey(slice(0, rows)).to(next(pair[0].parameters()).device)


def means(model: GaussianVAE, z: Tensor) -> Tensor:
    """E[x | z], shape (N, H, W)."""
    return model.decode(z, event_dim=2).mean


def samples_figure(pairs: dict[str, Pair], splits: Splits) -> Figure:
    """Mean images of codes from the prior, and from densities fitted to the codes of training images."""
    rows = {"autoencoder, N(0, I)": drawn(pairs["autoencoder"][0])}
    for kind, label, components in (
        ("autoencoder", "autoencoder, fitted Gaussian", 1),
        ("autoencoder", "autoencoder, fitted mixture", 10),
        ("RAE", "RAE, fitted mixture", 10),
    ):
        rows[label] = drawn(with_fitted_prior(pairs[kind], splits, components))
    rows["VAE, N(0, I)"] = drawn(pairs["beta 1"][0])
    rows["VAE, fitted mixture"] = drawn(with_fitted_prior(pairs["beta 1"], splits, 10))
    return plots.image_grid(torch.stack(list(rows.values())), list(rows))


@torch.no_grad()
def drawn(model: GaussianVAE) -> Tensor:
    """Mean images of draws of the model's prior."""
    template = next(model.parameters())
    with forked_randomness(template.device, 0):
        return means(model, model.prior(template).sample((COLUMNS,)))


def with_fitted_prior(pair: Pair, splits: Splits, components: int) -> GaussianVAE:
    """The model with a prior fitted to the codes of training images: ex-post density estimation."""
    model, guide = pair
    device = next(model.parameters()).device
    codes = ppvae.features(guide, splits.train.grey(slice(0, FITTED)).to(device))
    return GaussianVAE(model.decoder, model.latent_dim, model.likelihood, FullMixture.fit(codes, components))


def denoised_figure(pairs: dict[str, Pair], splits: Splits) -> tuple[Figure, dict[str, float]]:
    """Images with hidden pixels as two autoencoders restore them, and the mean squared errors."""
    x = grey(splits, pairs["autoencoder"], DENOISED)
    with forked_randomness(x.device, 0):
        noisy = MaskingNoise(HIDDEN_SHARE)(x)
    rows = {"image": x[:COLUMNS], "pixels hidden": noisy[:COLUMNS]}
    errors = {"none": (noisy - x).square().flatten(1).sum(1).mean().item()}
    for kind, label in (("autoencoder", "autoencoder"), ("denoising", "denoising autoencoder")):
        errors[label] = squared_error(*pairs[kind], noisy, target=x)
        rows[f"{label}, error {errors[label]:.1f}"] = ppvae.reconstruct(*pairs[kind], noisy[:COLUMNS])
    return plots.image_grid(torch.stack(list(rows.values())), list(rows)), errors


def filters_figure(config, splits: Splits) -> Figure:
    """The weights of the longest units of a layer, one row for each penalty."""
    config = replace(config, epochs=config.filter_epochs, batch_size=FILTER_BATCH)
    data = splits.train
    networks = Networks(data.event_shape, (), config.filter_units, principal(data, 1))
    rows = {
        name: filters(trained(config, recipe, networks, data, f"filters-{name.replace(', ', '-')}"), data.event_shape)
        for name, recipe in FILTERS.items()
    }
    return plots.image_grid(torch.stack(list(rows.values())), list(rows))


def filters(pair: Pair, shape: tuple[int, ...]) -> Tensor:
    """The longest weight vectors of the encoder, each scaled to values from 0 to 1."""
    layer = next(part for part in pair[1].modules() if isinstance(part, nn.Linear))
    weight = layer.weight.detach()
    longest = weight[weight.norm(dim=1).argsort(descending=True)[:SHOWN_FILTERS]]
    scaled = 0.5 + 0.5 * longest / longest.abs().amax(1, keepdim=True)
    return scaled.unflatten(1, shape).cpu()


def interpolation_figure(pair: Pair, splits: Splits) -> Figure:
    """Paths between the codes of pairs of test images."""
    model, guide = pair
    images = grey(splits, pair, 2 * PAIRS)
    starts, ends = ppvae.features(guide, images).detach().chunk(2)
    both = torch.stack(images.chunk(2), 1)
    return plots.interpolation(lambda z: means(model, z), starts, ends, images=both)


def plane_figures(config, splits: Splits) -> dict[str, Figure]:
    """The codes of test images of a pair with two latents, and the images of a grid of codes."""
    figures = {}
    for kind, title in TITLES.items():
        model, guide = of_table(config, splits, kind, 2)
        x = grey(splits, (model, guide), CODES)
        codes = ppvae.features(guide, x).detach()
        is_vae = kind == "beta 1"
        place = {} if is_vae else {"loc": codes.mean(0), "scale": codes.std(0)}
        figures[f"manifold-{title}"] = plots.latent_manifold(lambda z, model=model: means(model, z), **place, size=15)
        figures[f"codes-{title}"] = plots.latent_plane(codes, splits.test.y[: len(codes)], prior=is_vae)
    return figures

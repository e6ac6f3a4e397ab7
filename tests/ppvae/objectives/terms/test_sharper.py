"""Reconstruction in features and by a discriminator, against closed forms and brute force."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import ppvae
from ppvae.training.describe import describe
from tests.catalogue import LABELS, PAIRS, Differences, discriminator
from tests.ppvae.objectives.estimates import gradient, particles_of
from tests.ppvae.objectives.terms.autoencoders import autoencoder
from tests.ppvae.objectives.terms.test_decoder import WithoutMean

softplus = nn.functional.softplus


def linear(out=4, size=5):
    torch.manual_seed(2)
    return nn.Linear(size, out, bias=False).double()


def features_part(term, particles):
    return (ppvae.ELBO(particles.num_particles) + term).parts(particles)["features"]


def test_features_of_a_linear_network_are_a_quadratic_form():
    """|W (x - m)|^2 / 2 = (x - m)' W'W (x - m) / 2."""
    particles, network = particles_of("linear_gaussian", num_particles=3), linear()
    difference = particles.batch.x - particles.model["x"].distribution.mean
    matrix = network.weight.T @ network.weight
    expected = 2.5 * torch.einsum("kbi,ij,kbj->kb", difference, matrix, difference).mean(0) / 2
    torch.testing.assert_close(features_part(ppvae.FeatureReconstruction(network, 2.5), particles), expected)


def test_mean_of_linear_features_under_the_guide_is_the_closed_form():
    """E_q |W (x - A z - b)|^2 = |W (x - A m - b)|^2 + tr(W A S A' W') for q = N(m, S)."""
    model, guide, x = PAIRS["linear_gaussian"].make()
    network, q = linear(), ppvae.draw(model, guide, x).guide["z"].distribution
    torch.manual_seed(0)
    many = ppvae.draw(model, guide, x[:1].expand(40_000, 5))
    found = features_part(ppvae.FeatureReconstruction(network), many)
    through = network.weight @ model.weight
    mean = network.weight @ (x[0] - model.bias) - through @ q.mean.reshape(-1, len(x), 2)[0, 0]
    variance = q.variance.reshape(-1, len(x), 2)[0, 0]
    expected = (mean.square().sum() + (through.square() @ variance).sum()) / 2
    assert abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5


def test_features_by_the_identity_are_the_gaussian_distortion_and_its_gradient():
    model, guide, x = autoencoder()  # noise of variance 1/2
    objective = ppvae.Reconstruction() + ppvae.FeatureReconstruction(nn.Identity(), weight=2.0)
    constant = 2.5 * torch.tensor(torch.pi).double().log()
    particles = ppvae.draw(model, guide, x)
    torch.testing.assert_close(objective.per_datum(particles) + constant, ppvae.Reconstruction().per_datum(particles))
    for module in (model, guide):
        torch.testing.assert_close(
            gradient(objective, model, guide, x, of=module),
            gradient(ppvae.Reconstruction(), model, guide, x, of=module),
        )


def test_features_of_several_layers_are_added():
    particles = particles_of("gaussian_vae")
    x, mean = particles.batch.x.flatten(1), particles.model["x"].distribution.mean.flatten(2)
    layers = (x.sin() - mean.sin()).square().sum(-1) + (x - mean).diff(dim=-1).square().sum(-1)
    torch.testing.assert_close(features_part(ppvae.FeatureReconstruction(Differences()), particles), layers.mean(0) / 2)


@pytest.mark.parametrize("y", [None, LABELS, LABELS.clamp(min=0)], ids=["unlabelled", "partly", "labelled"])
def test_features_of_an_enumerated_label_are_the_expectation_under_q(y):
    particles = particles_of("label", num_particles=2, y=y)
    found = features_part(ppvae.FeatureReconstruction(Differences()), particles)
    for row in range(6):
        known = y is not None and y[row] >= 0
        if y is not None and bool((y >= 0).all()):
            mean = particles.model["x"].distribution.mean[:, row]
            weight = torch.ones(1)
            means = mean.unsqueeze(0)
        else:
            means = particles.model["x"].distribution.mean[:, :, row]
            q = particles.guide["y"].distribution.probs.reshape(-1, 6, 4)[0, row]
            weight = nn.functional.one_hot(y[row], 4) if known else q
        x = particles.batch.x[row].flatten()
        distance = sum(
            (a - b).square().sum(-1)
            for a, b in zip(_layers(x.expand(*means.shape[:2], -1)), _layers(means), strict=True)
        )
        torch.testing.assert_close(found[row], weight.double() @ distance.mean(1) / 2)


def _layers(x):
    flat = x.flatten(2) if x.dim() > 3 else x
    return flat.sin(), flat.diff(dim=-1)


@pytest.mark.parametrize("term", [lambda **options: ppvae.FeatureReconstruction(Differences(), **options)])
def test_replacing_term_keeps_the_log_density_of_labels(term):
    particles = particles_of("label", y=LABELS)
    log_p_y = torch.where(LABELS >= 0, -torch.tensor(4.0).double().log(), 0.0)  # uniform over four classes
    parts = (ppvae.ELBO(2) + term()).parts(particles)
    torch.testing.assert_close(parts["distortion"], -log_p_y)
    assert "distortion" not in (ppvae.ELBO(2) + term()).parts(particles_of("gaussian_vae"))


def test_added_term_leaves_the_other_parts():
    particles = particles_of("gaussian_vae")
    added = ppvae.FeatureReconstruction(Differences(), 0.5, replaces=False)
    parts, own = (ppvae.ELBO(2) + added).parts(particles), ppvae.ELBO(2).parts(particles)
    assert parts.keys() == own.keys() | {"features"}
    assert all(torch.equal(parts[name], part) for name, part in own.items())
    both = ppvae.ELBO(2) + added + ppvae.AdversarialReconstruction(discriminator())
    assert both.parts(particles).keys() == {"rate/z", "features", "features#2", "adversarial"}


def test_replacing_term_is_refused_where_there_is_no_distortion_or_another_replaces_it():
    features, other = (ppvae.FeatureReconstruction(Differences()) for _ in range(2))
    with pytest.raises(ppvae.ContractError, match="with a distortion for FeatureReconstruction to complete"):
        ppvae.IWAE(3) + features
    with pytest.raises(ppvae.ContractError, match="one term to complete the distortion"):
        ppvae.ELBO() + features + other
    with pytest.raises(ppvae.ContractError, match="one term to complete the distortion"):
        ppvae.geco(3.0) + ppvae.AdversarialReconstruction(discriminator())


def test_features_follow_a_schedule():
    particles = replace(particles_of(), step=5)
    scheduled = ppvae.FeatureReconstruction(Differences(), ppvae.warm_up(10, 4.0))
    torch.testing.assert_close(
        features_part(scheduled, particles), features_part(ppvae.FeatureReconstruction(Differences(), 2.0), particles)
    )


def test_features_are_a_frozen_copy_in_evaluation_mode():
    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).double()
    term = ppvae.FeatureReconstruction(network)
    model, guide, x = PAIRS["linear_gaussian"].make()
    particles = ppvae.draw(model, guide, x)
    before = features_part(term, particles)
    with torch.no_grad():
        network[0].weight.add_(1.0)
    assert all(p.requires_grad for p in network.parameters())
    assert network.training
    term.features.requires_grad_(False)
    found = features_part(term, particles)
    torch.testing.assert_close(found, before)  # neither dropout nor the change of the original
    found.sum().backward()
    assert all(p.grad is None for p in (*network.parameters(), *term.features.parameters()))
    assert torch.equal(term.features[1].running_mean, torch.zeros(8).double())
    assert all(p.grad.abs().sum() > 0 for p in (model.weight, model.bias, *guide.parameters()))


def test_features_stay_as_they_are_in_fit():
    model, guide, x = PAIRS["linear_gaussian"].make()
    term = ppvae.FeatureReconstruction(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)))
    before = {name: tensor.clone() for name, tensor in term.features.state_dict().items()}
    ppvae.fit(model, guide, ppvae.ELBO() + term, x, epochs=2, batch_size=3, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in term.features.state_dict().items())
    assert not term.features.training


def test_run_is_not_resumed_with_other_features(tmp_path):
    model, guide, x = PAIRS["linear_gaussian"].make()
    settings = {"batch_size": 3, "progress": False}
    ppvae.fit(
        model, guide, ppvae.ELBO() + ppvae.FeatureReconstruction(linear()), x, epochs=1, run_dir=tmp_path, **settings
    )
    resumed = ppvae.RunDir(tmp_path, resume=True)
    same = ppvae.ELBO() + ppvae.FeatureReconstruction(linear())
    result = ppvae.fit(model, guide, same, x, epochs=2, run_dir=resumed, **settings)
    assert len(result.metrics) == 2
    other = linear()
    with torch.no_grad():
        other.weight[0, 0] += 1e-3
    changed = ppvae.ELBO() + ppvae.FeatureReconstruction(other)
    assert describe(changed) != describe(same)
    with pytest.raises(ppvae.CheckpointError):
        ppvae.fit(model, guide, changed, x, epochs=3, run_dir=resumed, **settings)


class Wrong(nn.Module):
    """Features that break their contract."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "cut off":
            return x.detach()
        return {"mean": x.mean(0), "scalar": x.mean(), "fewer": [x, x[:-1]], "text": "features"}[self.how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("mean", r"features of shape \(6, ...\), a row for each of 6 data, got \(5,\)"),
        ("scalar", r"features of shape \(6, ...\), a row for each of 6 data, got \(\)"),
        ("fewer", r"features of shape \(6, ...\), a row for each of 6 data, got \(5, 5\)"),
        ("text", r"features of shape \(6, ...\), a row for each of 6 data, got a str"),
        ("cut off", r"features through which the gradient reaches the decoder.*torch.no_grad"),
    ],
)
def test_features_refuse_a_network_that_gives_something_else(how, message):
    with pytest.raises(ppvae.ContractError, match=message):
        features_part(ppvae.FeatureReconstruction(Wrong(how)), particles_of("linear_gaussian"))


TERMS = {
    "FeatureReconstruction": lambda: ppvae.FeatureReconstruction(Differences()),
    "AdversarialReconstruction": lambda: ppvae.AdversarialReconstruction(discriminator()),
}


@pytest.mark.parametrize("term", TERMS)
def test_term_refuses_missing_elements(term):
    with pytest.raises(ppvae.ContractError, match=rf"without missing elements \(NaN\) for {term}, got .*impute"):
        (ppvae.ELBO(2) + TERMS[term]()).parts(particles_of("missing"))


@pytest.mark.parametrize("term", TERMS)
def test_fit_refuses_missing_elements_beyond_the_first_rows(term):
    model, guide, _ = PAIRS["missing"].make()
    x = torch.randn(50, 5).double()
    x[40, 2] = torch.nan
    with pytest.raises(ppvae.ContractError, match=rf"without missing elements \(NaN\) for {term}, got 1;"):
        ppvae.fit(model, guide, ppvae.ELBO() + TERMS[term](), x, epochs=1, progress=False)


@pytest.mark.parametrize("term", TERMS)
def test_term_refuses_a_likelihood_without_a_formula_for_its_mean(term):
    _, guide, x = autoencoder()
    with pytest.raises(ppvae.ContractError, match=r"p\(x \| z\) with a formula for its mean, got .*ppvae.likelihoods"):
        (ppvae.Reconstruction() + TERMS[term]()).parts(ppvae.draw(WithoutMean(), guide, x))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ppvae.FeatureReconstruction(torch.sin), TypeError, "features as a torch.nn.Module, got builtin"),
        (lambda: ppvae.FeatureReconstruction(Differences(), -1.0), ValueError, "weight of at least 0, got -1"),
        (lambda: ppvae.AdversarialReconstruction(nn.Linear(5, 1)), TypeError, "Discriminator, got Linear; use"),
        (lambda: ppvae.AdversarialReconstruction(discriminator(), -1.0), ValueError, "weight of at least 0, got -1"),
        (
            lambda: ppvae.AdversarialReconstruction(discriminator(), 1.0, -2.0),
            ValueError,
            "feature_weight of at least 0, got -2",
        ),
    ],
)
def test_terms_refuse_arguments_out_of_range(make, error, message):
    with pytest.raises(error, match=message):
        make()

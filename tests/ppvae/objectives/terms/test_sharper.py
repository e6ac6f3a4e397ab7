"""Reconstruction in features and by a discriminator, against closed forms and brute force."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import ppvae
from ppvae.engine.batch import Batch
from ppvae.engine.isolation import isolated
from ppvae.engine.player import Turn
from ppvae.nn import MLP
from ppvae.objectives.discriminators import samples
from ppvae.training import pair_player
from ppvae.training.describe import describe
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS, POINT_PAIRS, Differences, discriminator
from tests.ppvae.objectives.estimates import gradient, particles_of
from tests.ppvae.objectives.terms.autoencoders import autoencoder
from tests.ppvae.objectives.terms.test_decoder import WithoutMean

softplus = nn.functional.softplus
FITTING = [name for name in ALL_PAIRS if name != "missing"]


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


def test_adversarial_reconstruction_is_the_distance_and_the_softplus():
    particles, network = particles_of("gaussian_vae", num_particles=3), discriminator()
    objective = ppvae.ELBO(3) + ppvae.AdversarialReconstruction(network, weight=3.0, feature_weight=0.5)
    torch.manual_seed(0)
    parts = objective.parts(particles)
    torch.manual_seed(0)
    drawn = samples(particles).float()
    x, mean = particles.batch.x.float(), particles.model["x"].distribution.mean.float()
    of_mean = torch.stack([network.features(each) for each in mean])
    distance = (network.features(x) - of_mean).square().sum(-1).mean(0) / 2
    on_mean, on_drawn = (network.head(f).squeeze(-1) for f in (of_mean, network.features(drawn)))
    torch.testing.assert_close(parts["features"], 0.5 * distance)
    torch.testing.assert_close(parts["adversarial"], 3 * (softplus(-on_mean).mean(0) + softplus(-on_drawn)))


def alone(model, guide, x, y=None, num_particles=2, **weights):
    """The parts of the pair's loss in a training step, with the gradient of each."""
    term = ppvae.AdversarialReconstruction(discriminator(), **weights)
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x, y, num_particles)
    return term, (ppvae.ELBO(num_particles) + term).parts(particles)


@pytest.mark.parametrize(("pair", "y"), [("gaussian_vae", None), ("label", None), ("label", LABELS)])
def test_guide_gets_the_distance_and_the_rate_and_not_the_adversarial_part(pair, y):
    model, guide, x = PAIRS[pair].make()
    guide.eval()  # without dropout in the classifier
    term, parts = alone(model, guide, x, y)
    of_model = torch.autograd.grad(parts["adversarial"].sum(), [*model.parameters()], retain_graph=True)
    assert all(g.abs().sum() > 0 for g in of_model)
    assert all(size == 0 for size in _sizes(parts["adversarial"], guide))
    assert all(size > 0 for size in _sizes(parts["features"], guide))
    assert all(size == 0 for part in parts.values() for size in _sizes(part, term.discriminator))


def _sizes(part, module):
    """The sum of the absolute gradient at each parameter of a module; 0 where there is no gradient."""
    parameters = list(module.parameters())
    if not part.requires_grad:  # log p(y)
        return [0.0] * len(parameters)
    gradients = torch.autograd.grad(part.sum(), parameters, retain_graph=True, allow_unused=True)
    return [0.0 if gradient is None else gradient.abs().sum().item() for gradient in gradients]


def test_adversarial_gradient_of_the_decoder_is_autograds_at_fixed_codes():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term, parts = alone(model, guide, x)
    found = torch.autograd.grad(parts["adversarial"].sum(), [*model.parameters()])
    torch.manual_seed(0)
    z = ppvae.draw(model, guide, x, num_particles=2).draws["z"].detach()
    prior = torch.randn(1, len(x), 3, dtype=torch.float64)
    ratio = [term.discriminator([model.decode(codes, 2).mean], 2)[0][1] for codes in (z, prior)]
    loss = softplus(-ratio[0]).mean(0) + softplus(-ratio[1])[0]
    for ours, theirs in zip(found, torch.autograd.grad(loss.sum(), [*model.parameters()]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_descent_of_the_adversarial_part_raises_the_discriminators_ratio_of_what_is_decoded():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term, parts = alone(model, guide, x)
    gradients = torch.autograd.grad(parts["adversarial"].sum(), [*model.parameters()])
    z = torch.randn(500, 3).double()

    def ratio():
        return term.discriminator([model.decode(z, 2).mean], 2)[0][1].mean().item()

    before = ratio()
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), gradients, strict=True):
            parameter -= 1e-3 * slope
    assert ratio() > before


def test_step_gives_each_player_the_gradient_of_its_own_loss():
    """The pair's turn, then that of the discriminator on the same draws, as in fit."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.ELBO() + ppvae.AdversarialReconstruction(discriminator())
    turn, (player,) = Turn([Batch(x)]), objective.players
    with isolated():
        parts = pair_player(model, guide, objective, ppvae.adam()).loss(turn)
        assert parts.keys() == {"rate/z", "features", "adversarial"}
        sum(parts.values()).backward()
        assert all(p.grad is None for p in player.module.parameters())
        before = [p.grad.clone() for p in (*model.parameters(), *guide.parameters())]
        player.loss(turn).backward()
    assert all(p.grad.abs().sum() > 0 for p in player.module.parameters())
    after = [p.grad for p in (*model.parameters(), *guide.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_parts_leave_the_statistics_of_the_discriminator_alone():
    network = ppvae.Discriminator(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4)), nn.Linear(4, 1))
    (ppvae.ELBO() + ppvae.AdversarialReconstruction(network)).parts(particles_of())
    assert torch.equal(network.features[2].running_mean, torch.zeros(4))


@pytest.mark.parametrize("pair", [*FITTING, *POINT_PAIRS])
def test_fit_trains_every_pair_and_its_discriminator(pair, tmp_path):
    row = (ALL_PAIRS | POINT_PAIRS)[pair]
    model, guide, batch = row.make_batch()
    y = LABELS if row.labelled else batch.y
    data = ppvae.Dataset(batch.x, y, num_classes=4, **batch.given)
    term = ppvae.AdversarialReconstruction(discriminator())
    objective = (ppvae.Reconstruction() if pair in POINT_PAIRS else ppvae.ELBO()) + term
    network = term.discriminator
    before = [p.detach().clone() for p in network.parameters()]
    first = [p.detach().clone() for p in guide.parameters() if p.requires_grad]
    result = ppvae.fit(model, guide, objective, data, epochs=1, batch_size=3, run_dir=tmp_path, progress=False)
    assert torch.isfinite(torch.tensor([result.metrics[-1][name] for name in ("adversarial", "discriminator/x")])).all()
    assert all(not torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))
    assert any(not torch.equal(p, b) for p, b in zip(guide.parameters(), first, strict=True))
    again = ppvae.AdversarialReconstruction(ppvae.Discriminator(*_changed(network)))
    ppvae.load_checkpoint(tmp_path / "last.safetensors", model, guide, ppvae.ELBO() + again)
    for ours, theirs in zip(again.discriminator.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _changed(network):
    other = discriminator()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    return other.features, other.head


def test_adversarial_reconstruction_makes_samples_like_the_data():
    """Data N(3, 1), a decoder a z + b: the discriminator alone moves b to 3."""
    torch.manual_seed(0)
    data = torch.randn(2000, 1) + 3
    model = ppvae.models.GaussianVAE(MLP(1, [], 1), 1, ppvae.likelihoods.Gaussian(1.0))
    nn.init.ones_(model.decoder.layers[0].weight)
    nn.init.zeros_(model.decoder.layers[0].bias)
    guide = ppvae.guides.MeanFieldGaussian(MLP(1, [], 2))
    term = ppvae.AdversarialReconstruction(
        ppvae.Discriminator(nn.Identity(), nn.Linear(1, 1)), 1.0, feature_weight=0.0, optimizer=ppvae.adam(0.05)
    )
    ppvae.fit(
        model, guide, ppvae.ELBO() + term, data, epochs=20, batch_size=100, optimizer=ppvae.adam(0.02), progress=False
    )
    z = torch.randn(5000, 1)
    assert model.decoder(z).mean().item() == pytest.approx(3.0, abs=0.6)


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


def test_stock_loop_refuses_a_term_with_a_discriminator():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="also trains 'discriminator/x'"):
        (ppvae.ELBO() + TERMS["AdversarialReconstruction"]()).differentiable_loss(model, guide, x)

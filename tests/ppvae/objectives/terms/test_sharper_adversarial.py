"""The adversarial reconstruction: its value, where its gradients flow, and its training."""

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
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS, POINT_PAIRS, discriminator
from tests.ppvae.objectives.estimates import particles_of

softplus = nn.functional.softplus
FITTING = [name for name in ALL_PAIRS if name != "missing"]


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


def test_stock_loop_refuses_a_term_with_a_discriminator():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="also trains 'discriminator/x'"):
        (ppvae.ELBO() + ppvae.AdversarialReconstruction(discriminator())).differentiable_loss(model, guide, x)

"""The discriminator of reconstructions and samples."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.player import Turn
from ppvae.objectives.discriminators import apart_from_guide, reconstructions, samples
from ppvae.training import adam
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS, discriminator
from tests.ppvae.objectives.estimates import particles_of

softplus = nn.functional.softplus


def ratio(network, x):
    return network.head(network.features(x.float())).squeeze(-1).double()


def by_hand(particles, network):
    """The loss of each datum, with a pass of the network for each class and particle."""
    x, mean = particles.batch.x, particles.model["x"].distribution.mean
    drawn = samples(particles)
    classes = mean.reshape(-1, particles.num_particles, *x.shape)
    on_mean = torch.stack([torch.stack([softplus(ratio(network, one)) for one in draws]) for draws in classes])
    enumerated = [site.distribution.probs for site in particles.guide.values() if site.enumerated]
    weight = enumerated[0].expand(1, len(x), -1).permute(2, 0, 1) if enumerated else torch.ones(1, 1, 1)
    reconstructed = (weight * on_mean).sum(0).mean(0)
    return softplus(-ratio(network, x)) / 2 + reconstructed / 4 + softplus(ratio(network, drawn)) / 4


@pytest.mark.parametrize("pair", ["gaussian_vae", "label", "mixture", "conditional"])
def test_per_datum_is_the_logistic_loss_of_data_reconstructions_and_samples(pair):
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    particles, network = ppvae.draw(model, guide, batch, num_particles=3), discriminator()
    torch.manual_seed(0)
    found = network.per_datum(particles)
    torch.manual_seed(0)
    torch.testing.assert_close(found.double(), by_hand(particles, network), rtol=1e-5, atol=1e-6)


def test_loss_counts_the_rows_of_all_parts_of_a_step_alike():
    model, guide, x = PAIRS["gaussian_vae"].make()
    parts = [ppvae.draw(model, guide, part) for part in x.split((4, 2))]
    network = discriminator()
    torch.manual_seed(0)
    loss = network.loss(Turn([], particles=parts))
    torch.manual_seed(0)
    rows = torch.cat([network.per_datum(part) for part in parts])
    assert rows.shape == (6,)
    torch.testing.assert_close(loss, rows.mean())


@pytest.mark.parametrize(("pair", "y"), [("learned_noise", None), ("label", None), ("label", LABELS)])
def test_loss_gives_the_discriminator_a_gradient_and_the_pair_none(pair, y):
    model, guide, x = PAIRS[pair].make()
    network = discriminator()
    network.loss(Turn([], particles=[ppvae.draw(model, guide, x, y, num_particles=2)])).backward()
    assert all(p.grad is None for module in (model, guide) for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_loss_is_least_at_the_log_ratio_of_data_to_made_data():
    """N(1, 1) against means that are N(0, 1) from the guide and from the prior: the log ratio is x - 1/2, a line."""
    torch.manual_seed(0)
    rows = 40_000
    model = ppvae.models.LinearGaussian(torch.eye(1), torch.zeros(1)).double()
    guide = ppvae.guides.MeanFieldGaussian(nn.Linear(1, 2)).double()
    nn.init.zeros_(guide.encoder.weight)
    nn.init.zeros_(guide.encoder.bias)  # q(z | x) = N(0, 1)
    particles = ppvae.draw(model, guide, torch.randn(rows, 1).double() + 1)
    network = ppvae.Discriminator(nn.Identity(), nn.Linear(1, 1)).double()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=50)

    def closure():
        optimizer.zero_grad()
        torch.manual_seed(1)  # the same samples in each evaluation
        loss = network.per_datum(particles).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    # the standard error of either coefficient is about 3 / sqrt(rows)
    assert network.head.weight.item() == pytest.approx(1.0, abs=0.05)
    assert network.head.bias.item() == pytest.approx(-0.5, abs=0.05)


def test_samples_are_means_of_the_model_at_draws_of_the_prior():
    particles = particles_of("gaussian_vae", num_particles=4)
    torch.manual_seed(5)
    found = samples(particles)
    torch.manual_seed(5)
    z = torch.randn(1, len(particles.batch), 3, dtype=torch.float64)
    torch.testing.assert_close(found, particles.source.model.decode(z, 2).mean[0])


def test_samples_have_the_labels_and_the_conditions_of_their_data():
    model, guide, x = PAIRS["label"].make()
    y = LABELS.clamp(min=0)
    particles = ppvae.draw(model, guide, x, y)
    torch.manual_seed(5)
    found = samples(particles)
    torch.manual_seed(5)
    z = torch.randn(1, len(x), 3, dtype=torch.float64)
    torch.testing.assert_close(found, model.decode(z, y, 2).mean[0])


def test_samples_give_a_gradient_to_the_decoder_and_none_to_the_guide():
    model, guide, x = PAIRS["convolutional"].make()
    samples(ppvae.draw(model, guide, x)).sum().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert all(p.grad is None for p in guide.parameters())


def test_samples_leave_batch_statistics_of_the_model_alone():
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.decoder = nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm1d(3), model.decoder, nn.Unflatten(0, (1, -1))).double()
    particles = ppvae.draw(model, guide, x)
    before = model.decoder[1].running_mean.clone()
    samples(particles)
    reconstructions(apart_from_guide(particles))
    assert torch.equal(model.decoder[1].running_mean, before)


@pytest.mark.parametrize("pair", ["gaussian_vae", "label", "flow_planar"])
def test_apart_from_guide_has_the_same_numbers_and_no_gradient_to_the_guide(pair):
    particles = particles_of(pair, num_particles=2)
    held = apart_from_guide(particles)
    torch.testing.assert_close(held.log_likelihood, particles.log_likelihood)
    average = held.average(held.log_likelihood)
    torch.testing.assert_close(average, particles.average(particles.log_likelihood))
    average.sum().backward()
    guide, model = particles.source.pair.guide, particles.source.model
    assert all(p.grad is None for p in guide.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_discriminator_gives_features_and_ratio_of_each_leading_shape():
    network = discriminator()
    x, mean = torch.rand(5, 8, 8), torch.rand(4, 2, 5, 8, 8)
    (of_x, on_x), (of_mean, on_mean) = network([x, mean], 2)
    assert (of_x.shape, on_x.shape) == ((5, 6), (5,))
    assert (of_mean.shape, on_mean.shape) == ((4, 2, 5, 6), (4, 2, 5))
    torch.testing.assert_close(on_mean[3, 1, 2], network.head(network.features(mean[3, 1, 2:3]))[0, 0])


def test_player_of_the_discriminator_moves_all_of_it():
    network = discriminator()
    player = network.player(adam(1e-3))
    assert (player.name, player.module, player.needs_other) == ("discriminator/x", network, False)


@pytest.mark.parametrize(
    "parts", [(nn.Flatten(), nn.ReLU()), (nn.Linear(5, 1).requires_grad_(False), nn.Identity())], ids=["none", "frozen"]
)
def test_discriminator_refuses_networks_without_a_parameter_to_train(parts):
    with pytest.raises(ValueError, match="discriminator with parameters to train, got none"):
        ppvae.Discriminator(*parts)


@pytest.mark.parametrize("outputs", [2, 0])
def test_discriminator_refuses_a_head_with_another_number_of_outputs(outputs):
    head = nn.Linear(25, outputs) if outputs else nn.Sequential(nn.Linear(25, 1), nn.Flatten(0))
    network = ppvae.Discriminator(nn.Linear(5, 25), head)
    with pytest.raises(ppvae.ContractError, match=r"one number for each of 3 rows, shape \(3, 1\), got"):
        network([torch.zeros(3, 5)], 1)


class Masked(ppvae.Model):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            with pyro.poutine.mask(mask=x[:, 0] > 0):
                pyro.sample("x", dist.Normal(z[..., :1].expand(*z.shape[:-1], 5), 1.0).to_event(1), obs=x)


def test_reconstructions_refuse_a_masked_x():
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match="site 'x' without a mask"):
        reconstructions(ppvae.draw(Masked(), guide, x))

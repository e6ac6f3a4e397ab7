import pyro
import pytest
import torch
from torch import nn

import ppvae
from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.guides import MeanFieldGaussian, RecognitionGuide
from ppvae.models import ImplicitModel, LinearGaussian
from ppvae.nn import MLP
from tests.catalogue import GANS, IMPLICIT_PAIRS


def parts_of(gan, pair="codes", **options):
    """Model, guide, network, x and the players."""
    model, guide, x = IMPLICIT_PAIRS[pair].make()
    network = MLP(tuple(x.shape[1:]), [8], 1).double()
    return model, guide, network, x, GANS[gan](model, guide, network, **options)


def loss_of(player, x, step=0):
    return player.loss(ppvae.Turn([Batch(x)], step=step))


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, retain_graph=True)


@pytest.mark.parametrize("gan", GANS)
def test_players_give_a_gradient_to_their_own_module_alone(gan):
    model, guide, network, x, (pair, adversary) = parts_of(gan)
    of_pair, of_adversary = (sum(loss_of(player, x).values()) for player in (pair, adversary))
    assert all(gradient is not None for gradient in gradients(of_pair, pair.module))
    assert all(gradient is None for gradient in gradients(of_pair, network))
    assert all(gradient is None for module in (model, guide) for gradient in gradients(of_adversary, module))
    assert sum(gradient is not None for gradient in gradients(of_adversary, network)) >= 3


@pytest.mark.parametrize("gan", GANS)
def test_information_gives_a_gradient_to_the_trunk_of_the_generator(gan):
    model, guide, _, x, (pair, _) = parts_of(gan)
    parts = loss_of(pair, x)
    for name in ("information/c", "information/k"):
        assert gradients(parts[name], model.generator)[0].abs().sum() > 0
        assert gradients(parts[name], guide)[0].abs().sum() > 0
    assert all(gradient is None for gradient in gradients(parts["adversarial"], guide))


@pytest.mark.parametrize("gan", GANS)
def test_lambda_weighs_the_information_of_each_code(gan):
    def information(lambda_, step=0):
        *_, x, (pair, _) = parts_of(gan, lambda_=lambda_)
        torch.manual_seed(1)
        parts = loss_of(pair, x, step)
        return torch.stack([parts["information/c"], parts["information/k"]])

    one = information(1.0)
    torch.testing.assert_close(information(0.5), 0.5 * one)
    torch.testing.assert_close(information({"c": 2.0, "k": 0.0}), one * torch.tensor([2.0, 0.0]).double())
    torch.testing.assert_close(information(ppvae.warm_up(10), step=3), 0.3 * one)


def test_lambda_out_of_range_or_of_other_codes_is_refused():
    with pytest.raises(ValueError, match=r"expected lambda_ of at least 0, got -1\.0"):
        parts_of("info_gan", lambda_=-1.0)
    *_, x, (pair, _) = parts_of("info_gan", lambda_={"c": 1.0})
    with pytest.raises(ppvae.ContractError, match=r"for each code that the guide draws, \['c', 'k'\], got \['c'"):
        loss_of(pair, x)


def test_info_wgan_gp_refuses_batch_normalisation_and_lets_the_critic_take_more_steps():
    model, guide, _ = IMPLICIT_PAIRS["class_code"].make()
    with pytest.raises(ppvae.ContractError, match="without batch normalisation, got BatchNorm1d"):
        ppvae.info_wgan_gp(model, guide, nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)))
    with pytest.raises(ValueError, match="critic_steps of at least 1, got 0"):
        ppvae.info_wgan_gp(model, guide, nn.Linear(5, 1), critic_steps=0)
    with pytest.raises(ValueError, match="penalty of at least 0, got -1"):
        ppvae.info_wgan_gp(model, guide, nn.Linear(5, 1), penalty=-1.0)
    pair, critic = ppvae.info_wgan_gp(model, guide, nn.Linear(5, 1), critic_steps=3)
    assert (pair.every, critic.every) == (3, 1)


@pytest.mark.parametrize("gan", GANS)
def test_train_refuses_a_generator_of_another_shape_and_a_discriminator_of_many_numbers(gan):
    model, guide, _, _, players = parts_of(gan)
    with pytest.raises(ppvae.ContractError, match=r"give x of shape \(8, 7\), got a likelihood over shape \(8, 8\)"):
        ppvae.train(players, torch.rand(6, 8, 7).double(), epochs=1, progress=False)
    players = GANS[gan](model, guide, MLP((8, 8), [8], 2).double())
    with pytest.raises(ppvae.ContractError, match="expected a discriminator of one number a datum"):
        ppvae.train(players, torch.rand(6, 8, 8).double(), epochs=1, progress=False)


def test_info_gan_refuses_what_is_no_module_and_labels_that_are_known_in_part():
    with pytest.raises(ppvae.ContractError, match="expected model and guide to be PyroModules"):
        ppvae.info_gan(ImplicitModel, RecognitionGuide(nn.Linear(2, 1), 0, 1), nn.Linear(2, 1))
    *_, x, players = parts_of("info_gan")
    data = ppvae.Dataset(x, torch.tensor([0, -1, 1, -1, 0, 1]), num_classes=2)
    with pytest.raises(ppvae.ContractError, match="labels that are known in part"):
        ppvae.train(players, data, epochs=1, batch_size=4, progress=False)
    ppvae.train(players, data.unlabelled(), epochs=1, batch_size=4, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("gan", GANS)
def test_the_generator_moves_to_the_data(gan):
    """x = bias + noise, and the data are N((2, -1), I)."""
    torch.manual_seed(0)
    generator, network = nn.Linear(3, 2), MLP(2, [16], 1, nn.Tanh)
    nn.init.zeros_(generator.bias)
    generator.weight.data = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    model, guide = ImplicitModel(generator, num_codes=1, noise_dim=2), RecognitionGuide(MLP(2, [8], 1), num_codes=1)
    adversary = "critic" if gan == "info_wgan_gp" else "discriminator"
    options = {name: ppvae.adam(0.01, betas=(0.5, 0.9)) for name in ("optimizer", f"{adversary}_optimizer")}
    data = torch.tensor([2.0, -1.0]) + torch.randn(1024, 2)
    players = GANS[gan](model, guide, network, 0.0, **options)
    ppvae.train(players, data, epochs=40, batch_size=64, progress=False)
    torch.testing.assert_close(ppvae.sample(model, 1000).mean(0), torch.tensor([2.0, -1.0]), atol=0.4, rtol=0)


def test_batch_statistics_of_the_generator_are_those_of_training():
    model, guide, x = IMPLICIT_PAIRS["class_code"].make()
    norm = nn.BatchNorm1d(5, affine=False).double()
    generator = model.generator
    model.generator = Leading(nn.Sequential(generator, norm))
    found = Pair(model, guide).simulation(Batch(x), learning=True)
    torch.testing.assert_close(found.batch.x.mean(0), torch.zeros(5).double(), atol=1e-6, rtol=0)
    assert norm.num_batches_tracked == 1
    found = Pair(model, guide).simulation(Batch(x))
    assert found.batch.x.mean(0).abs().max() > 1e-3
    assert norm.num_batches_tracked == 1


class Leading(nn.Module):
    """A network of (N, features) for inputs (..., features)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        return self.network(z.flatten(0, -2)).unflatten(0, z.shape[:-1])


class Scaled(ppvae.Model):
    """A model with a density: its reparameterised samples train it as an implicit model's do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 5).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(self.net(z), 0.1).to_event(1), obs=x)


class FixedScale(MeanFieldGaussian):
    def distribution(self, features):
        return pyro.distributions.Normal(features, 1.0).to_event(1)


def test_info_gan_trains_a_model_with_a_density_as_well():
    x = torch.randn(6, 5).double()
    model, guide = Scaled(), FixedScale(MLP(5, [8], 2)).double()
    players = ppvae.info_gan(model, guide, MLP(5, [8], 1).double())
    before = model.net.weight.detach().clone()
    row = ppvae.train(players, x, epochs=2, batch_size=3, progress=False).metrics[-1]
    assert {"loss", "adversarial", "information/z"} <= row.keys()
    assert not torch.equal(before, model.net.weight)
    guide = MeanFieldGaussian(MLP(5, [8], 4)).double()
    with pytest.raises(ppvae.ContractError, match="expected a fixed standard deviation"):
        ppvae.train(ppvae.info_gan(model, guide, MLP(5, [8], 1).double()), x, epochs=1, progress=False)


def test_info_gan_refuses_a_guide_of_other_latents():
    model, _, x = IMPLICIT_PAIRS["class_code"].make()
    guide = MeanFieldGaussian(MLP(5, [8], 4)).double()
    players = ppvae.info_gan(model, guide, MLP(5, [8], 1).double())
    with pytest.raises(ppvae.ContractError, match=r"some of the latents \['c', 'noise'\].*got \['z'\]"):
        ppvae.train(players, x, epochs=1, progress=False)
    explicit = LinearGaussian(torch.eye(5), torch.zeros(5)).double()
    guide = RecognitionGuide(MLP(5, [8], 3), num_classes=3).double()
    with pytest.raises(ppvae.ContractError, match=r"guide misses latent site\(s\) \['z'\]"):
        ppvae.train(ppvae.info_gan(explicit, guide, MLP(5, [8], 1).double()), x, epochs=1, progress=False)

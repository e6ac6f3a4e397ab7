"""Networks that learn a log density ratio."""

import pytest
import torch
from torch import nn

import ppvae
from ppvae.nn import MLP
from ppvae.objectives import Critic, critic_adam, critic_network
from tests.ppvae.objectives.estimates import particles_of


class Fixed(Critic):
    def loss(self, turn):
        raise NotImplementedError


def test_critic_network_has_five_leaky_layers_of_a_thousand():
    network = critic_network(3)
    sizes = [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)]
    slopes = [layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)]
    assert sizes == [1000] * 5 + [1]
    assert slopes == [0.2] * 5


def test_critic_adam_has_the_settings_of_the_paper():
    optimizer = critic_adam(nn.Linear(3, 1).parameters())
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (1e-4, (0.5, 0.9))


def test_logistic_loss_is_least_at_the_log_ratio():
    """N(1, 1) against N(0, 1): log r - log s = z - 1/2, a line."""
    torch.manual_seed(0)
    of_r, of_s = torch.randn(200_000, 1) + 1, torch.randn(200_000, 1)
    critic = Fixed(nn.Linear(1, 1), 1)
    weight, bias = critic.network.weight, critic.network.bias
    optimizer = torch.optim.LBFGS(critic.parameters(), max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = critic.logistic_loss(of_r, of_s)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert weight.item() == pytest.approx(1.0, abs=0.02)
    assert bias.item() == pytest.approx(-0.5, abs=0.02)


def test_log_ratio_gives_a_gradient_to_z_and_none_to_the_network():
    critic = Fixed(MLP(3, [8], 1), 3)
    z = torch.randn(5, 3, requires_grad=True)
    critic.log_ratio(z).sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())


def test_log_ratio_runs_in_the_type_of_the_network():
    critic = Fixed(MLP(3, [8], 1), 3)
    assert critic.log_ratio(torch.randn(2, 5, 3).double()).dtype == torch.float32
    assert critic.log_ratio(torch.randn(2, 5, 3).double()).shape == (2, 5)


def test_logistic_loss_runs_both_kinds_of_draws_through_the_network_as_one_batch():
    rows = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, z):
            rows.append(len(z))
            return self.net(z)

    Fixed(Counting(), 3).logistic_loss(torch.randn(2, 4, 3), torch.randn(5, 3))
    assert rows == [13]


def test_player_of_a_critic_has_its_site_and_moves_its_network():
    critic = Fixed(None, 3, site="style")
    player = critic.player(critic_adam, needs_other=True)
    assert (player.name, player.module, player.needs_other) == ("critic/style", critic, True)
    assert {id(p) for p in player.module.parameters()} == {id(p) for p in critic.network.parameters()}


def test_critic_refuses_a_latent_of_another_length():
    with pytest.raises(ppvae.ContractError, match="expected a latent of 10 elements, got 3; give latent_dim=3"):
        ppvae.factor_vae(5.0).per_datum(particles_of())


def test_critic_refuses_a_network_with_several_outputs():
    with pytest.raises(ppvae.ContractError, match=r"one number a code, got \(2,\)"):
        ppvae.TotalCorrelation(1.0, 3, critic=nn.Linear(3, 2)).penalty(particles_of())


def test_critic_refuses_a_network_without_parameters():
    with pytest.raises(ValueError, match="parameters to train"):
        ppvae.TotalCorrelation(1.0, critic=nn.ReLU())

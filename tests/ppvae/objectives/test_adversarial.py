import math
from functools import partial

import pytest
import torch
from torch import nn

import ppvae
from ppvae.nn import MLP
from ppvae.objectives.adversarial import Logistic, Wasserstein, gradient_penalty, require_no_batch_norm, score


class Identity(nn.Module):
    """D(x) = weight x of data that are numbers."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x


REAL, GENERATED = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [0.5]])


def test_logistic_losses_are_cross_entropies():
    parts = Logistic().of_adversary(Identity(), REAL, GENERATED)
    data = sum(math.log(1 + math.exp(-d)) for d in (1.0, 2.0)) / 2
    samples = sum(math.log(1 + math.exp(d)) for d in (-1.0, 0.5)) / 2
    assert parts["data"].item() == pytest.approx(data, rel=1e-5)
    assert parts["samples"].item() == pytest.approx(samples, rel=1e-5)
    of_generator = sum(math.log(1 + math.exp(-d)) for d in (-1.0, 0.5)) / 2
    assert Logistic().of_generator(Identity(), GENERATED).item() == pytest.approx(of_generator, rel=1e-5)


def test_wasserstein_losses_are_differences_of_means():
    parts = Wasserstein(penalty=2.0).of_adversary(Identity(3.0), REAL, GENERATED)
    assert parts["distance"].item() == pytest.approx(-3 * (1.5 - -0.25))
    assert parts["gradient_penalty"].item() == pytest.approx(2 * (3 - 1) ** 2)
    assert Wasserstein().of_generator(Identity(3.0), GENERATED).item() == pytest.approx(3 * 0.25)


@pytest.mark.parametrize("game", [Logistic(), Wasserstein()])
def test_generator_lowers_its_loss_towards_what_the_adversary_takes_for_data(game):
    """D rises with x, and so do the samples; D itself gets no gradient."""
    network, shift = Identity(), torch.zeros(1, requires_grad=True)
    game.of_generator(network, GENERATED + shift).backward()
    assert shift.grad.item() < 0
    assert network.weight.grad is None
    assert network.weight.requires_grad


@pytest.mark.parametrize("game", [Logistic(), Wasserstein()])
def test_adversary_lowers_its_loss_by_telling_data_from_samples_without_a_gradient_to_the_samples(game):
    """The data lie above the samples: the slope of D from 0 rises."""
    network, generated = Identity(0.0), GENERATED.clone().requires_grad_()
    sum(game.of_adversary(network, REAL, generated).values()).backward()
    assert network.weight.grad.item() < 0
    assert generated.grad is None


def test_gradient_penalty_of_a_linear_critic_is_that_of_its_norm():
    line = nn.Linear(12, 1).double()
    with torch.no_grad():
        line.weight.copy_(torch.randn(1, 12))
    norm = line.weight.detach().norm()
    penalty = gradient_penalty(nn.Sequential(nn.Flatten(), line), *torch.randn(2, 7, 3, 4).double())
    torch.testing.assert_close(penalty, (norm - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(line.weight.grad[0], 2 * (norm - 1) * line.weight.detach()[0] / norm)


def test_gradient_penalty_is_that_of_the_jacobian_between_the_pairs():
    torch.manual_seed(0)
    network = nn.Sequential(MLP((3, 4), [16, 8], 1, nn.Tanh)).double()
    real, generated = torch.randn(2, 6, 3, 4).double()
    torch.manual_seed(1)
    found = gradient_penalty(network, real, generated)
    torch.manual_seed(1)
    share = torch.rand(6, 1, 1, dtype=torch.float64)
    terms = []
    for row in range(6):
        at = share[row] * real[row] + (1 - share[row]) * generated[row]
        slope = torch.autograd.functional.jacobian(lambda x: network(x).squeeze(), at, create_graph=True)
        terms.append((slope.square().sum().sqrt() - 1) ** 2)
    expected = sum(terms) / 6
    torch.testing.assert_close(found, expected)
    parameters = [p for name, p in network.named_parameters() if not name.endswith("4.bias")]
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradient_penalty_of_a_constant_critic_is_one_with_a_finite_gradient():
    line = nn.Linear(5, 1)
    nn.init.zeros_(line.weight)
    penalty = gradient_penalty(line, torch.randn(3, 5), torch.randn(3, 5))
    assert penalty.item() == 1.0
    penalty.backward()
    assert torch.isfinite(line.weight.grad).all()


def test_gradient_penalty_is_taken_between_data_and_samples():
    class Recording(nn.Linear):
        def forward(self, x):
            self.seen = x.detach()
            return super().forward(x)

    network = Recording(2, 1)
    gradient_penalty(network, torch.zeros(1000, 2), torch.ones(1000, 2))
    share = 1 - network.seen
    assert torch.equal(share[:, 0], share[:, 1])  # one for each pair
    assert share.min() < 0.01
    assert share.max() > 0.99
    assert share.mean().item() == pytest.approx(0.5, abs=0.04)  # 4 standard errors of a uniform mean


def test_critic_with_batch_normalisation_is_refused():
    for layer in (nn.BatchNorm1d(4), nn.SyncBatchNorm(4), nn.LazyBatchNorm2d()):
        with pytest.raises(ppvae.ContractError, match=f"without batch normalisation, got {type(layer).__name__}"):
            require_no_batch_norm(nn.Sequential(nn.Linear(2, 4), layer))
    require_no_batch_norm(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4)))


@pytest.mark.parametrize("network", [nn.Linear(3, 2), nn.Identity(), nn.Flatten(0)])
def test_score_refuses_a_network_of_another_output(network):
    with pytest.raises(ppvae.ContractError, match=r"one number a datum, of shape \(5,\) or \(5, 1\), got"):
        score(network, torch.zeros(5, 3))
    assert score(nn.Linear(3, 1), torch.zeros(5, 3)).shape == (5,)
    assert score(partial(torch.sum, dim=1), torch.ones(5, 3)).tolist() == [3.0] * 5

"""A second run with the random tensors of the first."""

import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.noise import Noise

OPERATIONS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(2, 3),
    "randn_like": lambda: torch.randn_like(torch.zeros(4)),
    "randint": lambda: torch.randint(100, (5,)),
    "randperm": lambda: torch.randperm(20),
    "bernoulli": lambda: torch.full((99,), 0.5).bernoulli(),
    "multinomial": lambda: torch.ones(7).multinomial(4),
    "normal_": lambda: torch.empty(4).normal_(),
    "uniform_": lambda: torch.empty(4).uniform_(),
    "exponential_": lambda: torch.empty(4).exponential_(),
    "dropout": lambda: nn.functional.dropout(torch.ones(30), 0.5),
    "dropout2d": lambda: nn.functional.dropout2d(torch.ones(1, 30, 2, 2), 0.5),
    "categorical": lambda: dist.Categorical(torch.ones(9)).sample((5,)),
    "gamma": lambda: dist.Gamma(torch.ones(3), 1.0).rsample(),
    "beta": lambda: dist.Beta(torch.ones(3), 1.0).rsample(),
    "dirichlet": lambda: dist.Dirichlet(torch.ones(3)).rsample(),
    "poisson": lambda: dist.Poisson(torch.full((9,), 4.0)).sample(),
    "student": lambda: dist.StudentT(torch.full((3,), 4.0)).rsample(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_noise_replayed_gives_the_numbers_of_the_recorded_run(operation):
    torch.manual_seed(0)
    draw, noise = OPERATIONS[operation], Noise()
    with noise.recorded():
        first = [draw(), draw()]
    assert not torch.equal(*first)
    for _ in range(2):  # as often as it is asked for
        with noise.replayed():
            again = [draw(), draw()]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_noise_replayed_leaves_the_random_state_where_it_was():
    noise = Noise()
    with noise.recorded():
        torch.rand(3)
    state = torch.get_rng_state()
    with noise.replayed():
        torch.rand(3)
    assert torch.equal(state, torch.get_rng_state())


def test_noise_recorded_draws_what_it_would_draw_anyway():
    torch.manual_seed(0)
    expected = torch.rand(3), torch.empty(2).normal_()
    torch.manual_seed(0)
    with Noise().recorded():
        drawn = torch.rand(3), torch.empty(2).normal_()
    assert all(torch.equal(a, b) for a, b in zip(expected, drawn, strict=True))


def test_noise_of_an_in_place_operation_survives_later_changes():
    noise = Noise()
    with noise.recorded():
        first = torch.empty(4).normal_()
        kept = first.clone()
        first.mul_(100.0)
    with noise.replayed():
        assert torch.equal(torch.empty(4).normal_(), kept)


def test_noise_replayed_is_not_changed_by_what_its_reader_does_in_place():
    noise = Noise()
    with noise.recorded():
        first = torch.rand(3).mul_(2.0).clone()
    for _ in range(2):
        with noise.replayed():
            assert torch.equal(torch.rand(3).mul_(2.0), first)


def test_noise_recorded_anew_forgets_the_run_before():
    noise = Noise()
    with noise.recorded():
        torch.rand(3)
    with noise.recorded():
        second = torch.rand(3)
    with noise.replayed():
        assert torch.equal(torch.rand(3), second)


def test_noise_passes_gradients_through_reparameterised_draws():
    noise, loc = Noise(), torch.zeros(3, requires_grad=True)
    with noise.recorded():
        dist.Normal(loc, 1.0).rsample()
    with noise.replayed():
        dist.Normal(loc, 1.0).rsample().sum().backward()
    assert loc.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("second", [lambda: torch.randn(3), lambda: [torch.rand(3), torch.rand(3)]])
def test_noise_replayed_refuses_a_run_with_other_random_operations(second):
    noise = Noise()
    with noise.recorded():
        torch.rand(3)
    with noise.replayed(), pytest.raises(ppvae.ContractError, match=r"same random tensors.*got aten\.rand"):
        second()

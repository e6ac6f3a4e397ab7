"""Optimizer factories and learning-rate schedules."""

import pytest
import torch
from torch import nn

from ppvae.engine.player import Player, Turn
from ppvae.errors import ContractError
from ppvae.training import Eager, Scheduled, adam


def parameter():
    return nn.Parameter(torch.ones(3))


def test_adam_makes_a_fused_adam_with_its_options():
    optimizer = adam(0.02, betas=(0.5, 0.9), weight_decay=0.1)([parameter()])
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"], group["fused"]) == (0.02, (0.5, 0.9), 0.1, True)


def test_adam_takes_its_own_options_before_the_defaults():
    assert adam(fused=False)([parameter()]).param_groups[0]["fused"] is False


@pytest.mark.parametrize("make", [adam(0.1, schedule=lambda s: 1 / (1 + s)), None], ids=["adam", "scheduled"])
def test_schedule_equals_torchs_scheduler(make):
    make = make or Scheduled(lambda p: torch.optim.SGD(p, 0.1, momentum=0.5), lambda s: 1 / (1 + s))
    ours, theirs = parameter(), parameter()
    module = nn.ParameterList([ours])
    player = Player("p", module, lambda turn: ours.square().sum(), make)
    backend = Eager("cpu")
    backend.prepare([player])
    optimizer = make([theirs])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 / (1 + s))
    for step in range(5):
        backend.descend(player, Turn([], step=step))
        optimizer.zero_grad()
        theirs.square().sum().backward()
        optimizer.step()
        scheduler.step()
        torch.testing.assert_close(ours, theirs)


def test_a_schedule_fills_a_learning_rate_that_is_a_tensor():
    rate = torch.tensor(0.5)
    make = Scheduled(lambda p: torch.optim.Adam(p, lr=rate, capturable=False, foreach=False), lambda step: 0.1)
    module = nn.ParameterList([parameter()])
    player = Player("p", module, lambda turn: module[0].sum(), make)
    backend = Eager("cpu")
    backend.prepare([player])
    for _ in range(2):
        backend.descend(player, Turn([]))
        assert backend.descents["p"].optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == pytest.approx(0.05)


def test_a_schedule_needs_an_optimizer_with_a_learning_rate():
    class Sign(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"size": 0.1})

        def step(self, closure=None):
            pass

    player = Player("p", nn.ParameterList([parameter()]), lambda turn: None, Scheduled(Sign, lambda step: 1.0))
    with pytest.raises(ContractError, match="learning rate 'lr' for a schedule, got Sign"):
        Eager("cpu").prepare([player])
    Eager("cpu").prepare([Player("p", player.module, player.loss, Sign)])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD([parameter()], 0.1), "adam", 0.1])
def test_the_optimizer_of_a_critic_must_be_a_function(optimizer):
    with pytest.raises(TypeError, match="function parameters -> torch optimizer"):
        Eager("cpu").prepare([Player("critic", nn.ParameterList([parameter()]), lambda turn: None, optimizer)])

"""The state of optimizers by the name of their parameter."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ppvae.engine.player import Player, Turn
from ppvae.errors import CheckpointError, ContractError
from ppvae.training import Eager, adam
from ppvae.training.moments import SavedOptimizers, group_options, optimizer_tensors

X = torch.ones(4, 3)
PATH = Path("file")


def trained(optimizer=None, steps=2, names=("a", "b")):
    torch.manual_seed(0)
    nets = nn.ModuleDict({name: nn.Linear(3, 1) for name in names})
    player = Player("net", nets, lambda turn: sum(nets[name](X).square().mean() for name in names), optimizer or adam())
    backend = Eager("cpu")
    backend.prepare([player])
    for _ in range(steps):
        backend.descend(player, Turn([]))
    return backend.descents


def groups_of(descents):
    return {name: group_options(descent.optimizer) for name, descent in descents.items()}


def test_optimizer_tensors_are_named_by_parameter():
    names = optimizer_tensors(trained()).keys()
    assert "optimizer/net:a.weight:exp_avg" in names
    assert len(names) == 4 * 3
    assert not optimizer_tensors(trained(steps=0))


def test_load_restores_moments_and_groups():
    saved, fresh = trained(), trained(steps=0)
    SavedOptimizers(optimizer_tensors(saved), groups_of(saved), fresh, PATH).load()
    one, other = (descents["net"].optimizer.state_dict() for descents in (saved, fresh))
    assert one["param_groups"] == other["param_groups"]
    for index, state in one["state"].items():
        assert all(torch.equal(state[name], other["state"][index][name]) for name in state)


def test_load_restores_by_name_where_the_order_differs():
    saved, fresh = trained(), trained(steps=0, names=("b", "a"))
    SavedOptimizers(optimizer_tensors(saved), groups_of(saved), fresh, PATH).load()
    for name, parameter in fresh["net"].parameters.items():
        theirs = saved["net"].optimizer.state[saved["net"].parameters[name]]
        assert torch.equal(fresh["net"].optimizer.state[parameter]["exp_avg"], theirs["exp_avg"])


def test_a_parameter_that_never_moved_has_no_state():
    torch.manual_seed(0)
    nets = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    player = Player("net", nets, lambda turn: nets[0](X).mean(), adam())
    backend, fresh = Eager("cpu"), Eager("cpu")
    for each in (backend, fresh):
        each.prepare([player])
    backend.descend(player, Turn([]))
    tensors = optimizer_tensors(backend.descents)
    assert len(tensors) == 2 * 3
    SavedOptimizers(tensors, groups_of(backend.descents), fresh.descents, PATH).load()
    assert len(fresh.descents["net"].optimizer.state) == 2


def test_moments_keep_the_memory_format_of_their_parameter():
    def made(steps):
        net = nn.Module()
        net.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        player = Player("net", net, lambda turn: (net.weight**2).sum(), adam())
        backend = Eager("cpu")
        backend.prepare([player])
        for _ in range(steps):
            backend.descend(player, Turn([]))
        return backend.descents

    saved, fresh = made(2), made(0)
    tensors = {name: tensor.contiguous() for name, tensor in optimizer_tensors(saved).items()}
    SavedOptimizers(tensors, groups_of(saved), fresh, PATH).load()
    weight = fresh["net"].parameters["weight"]
    assert fresh["net"].optimizer.state[weight]["exp_avg"].stride() == weight.stride() == (1, 3)


@pytest.mark.parametrize("other", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), torch.optim.Adamax])
def test_moments_of_another_optimizer_are_refused(other):
    saved, fresh = trained(), trained(other, steps=0)
    with pytest.raises(CheckpointError, match=r"belongs to another run or pair|optimizer of player"):
        SavedOptimizers(optimizer_tensors(saved), groups_of(saved), fresh, PATH)


def test_an_optimizer_of_other_parameters_cannot_be_resumed():
    nets = nn.Linear(3, 1)
    fixed = trained(lambda parameters: torch.optim.SGD(nets.parameters(), 0.1), steps=0)
    with pytest.raises(ContractError, match="to use the parameters that it is called with"):
        SavedOptimizers({}, groups_of(fixed), fixed, PATH)


def test_comparing_moments_moves_no_parameter():
    saved, fresh = trained(), trained(steps=0)
    before = [p.clone() for p in fresh["net"].parameters.values()]
    SavedOptimizers(optimizer_tensors(saved), groups_of(saved), fresh, PATH)
    assert all(torch.equal(a, b) for a, b in zip(before, fresh["net"].parameters.values(), strict=True))
    assert not fresh["net"].optimizer.state

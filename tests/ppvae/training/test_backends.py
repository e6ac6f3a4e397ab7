"""One player's descent: backward, synchronise, update."""

import pyro
import pytest
import torch
from torch import nn

import ppvae
from ppvae.engine.isolation import isolated
from ppvae.engine.player import Player, Turn
from ppvae.training.backends import Eager
from ppvae.training.optimizers import Scheduled, adam
from ppvae.training.players import players_of
from ppvae.training.tally import Tally
from tests.catalogue import OBJECTIVES, PAIRS


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


X = torch.linspace(-1, 1, 15).reshape(5, 3)
OPTIMIZERS = {
    "adam": adam(0.05),
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_descend_is_bit_for_bit_a_step_of_backward(optimizer):
    ours, theirs = network(), network()
    backend, player = Eager("cpu"), Player("net", ours, lambda turn: ours(X).square().mean(), OPTIMIZERS[optimizer])
    backend.prepare([player])
    reference = OPTIMIZERS[optimizer](theirs.parameters())
    for _ in range(5):
        reference.zero_grad()
        loss = theirs(X).square().mean()
        loss.backward()
        reference.step()
        assert torch.equal(backend.descend(player, Turn([]))["loss"], loss)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_descend_touches_no_gradient_but_the_players_own():
    ours, other = network(), network(1)
    other[0].weight.grad = torch.full_like(other[0].weight, 7.0)
    player = Player("net", ours, lambda turn: (ours(X) * other(X)).mean(), adam())
    backend = Eager("cpu")
    backend.prepare([player])
    before = [p.clone() for p in other.parameters()]
    backend.descend(player, Turn([]))
    assert (other[0].weight.grad == 7.0).all()
    assert other[0].bias.grad is None
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))
    assert all(p.grad is None for p in ours.parameters())


def test_descend_minimises_the_sum_of_the_parts():
    summed, parted = network(), network()
    players = [
        Player("summed", summed, lambda turn: summed(X).square().mean() + summed(X).mean(), adam()),
        Player("parted", parted, lambda turn: {"a": parted(X).square().mean(), "b": parted(X).mean()}, adam()),
    ]
    backend = Eager("cpu")
    backend.prepare(players)
    loss, parts = (backend.descend(player, Turn([])) for player in players)
    assert list(parts) == ["a", "b"]
    torch.testing.assert_close(loss["loss"], parts["a"] + parts["b"])
    assert not parts["a"].requires_grad
    assert all(torch.equal(a, b) for a, b in zip(summed.parameters(), parted.parameters(), strict=True))


def test_descend_gives_an_unused_parameter_no_update():
    net = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    before = [p.clone() for p in net[1].parameters()]
    player = Player("net", net, lambda turn: net[0](X).mean(), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.5))
    backend = Eager("cpu")
    backend.prepare([player])
    backend.descend(player, Turn([]))
    assert all(torch.equal(a, b) for a, b in zip(before, net[1].parameters(), strict=True))


def test_descend_brings_gradients_into_the_memory_format_of_their_parameters():
    net = nn.Module()
    net.weight = nn.Parameter(torch.randn(3, 4).t())
    seen = []

    class Look(torch.optim.SGD):
        def step(self, closure=None):
            seen.extend((p.grad.stride(), p.stride()) for p in net.parameters())
            return super().step(closure)

    player = Player("net", net, lambda turn: net.weight.sum(), lambda p: Look(p, 0.1))
    backend = Eager("cpu")
    backend.prepare([player])
    backend.descend(player, Turn([]))
    assert [grad for grad, _ in seen] == [own for _, own in seen]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda net: net(X), r"'loss' of player 'net' to be a scalar tensor, got a tensor of shape \(5, 1\)"),
        (lambda net: 3.0, "to be a scalar tensor, got a float"),
        (lambda net: {}, "at least one part, got none"),
        (lambda net: torch.zeros(()), "to depend on a trainable parameter"),
        (lambda net: (X * nn.Parameter(torch.ones(3))).sum(), "to depend on a trainable parameter"),
    ],
)
def test_descend_refuses_a_loss_that_cannot_be_minimised(loss, message):
    net = network()
    player = Player("net", net, lambda turn: loss(net), adam())
    backend = Eager("cpu")
    backend.prepare([player])
    with pytest.raises(ppvae.ContractError, match=message):
        backend.descend(player, Turn([]))
    assert all(p.grad is None for p in net.parameters())


def test_prepare_refuses_a_player_without_trainable_parameters():
    with pytest.raises(ppvae.ContractError, match="player 'net' to have a parameter to train"):
        Eager("cpu").prepare([Player("net", network().requires_grad_(False), lambda turn: None, adam())])


def test_descend_sets_the_learning_rate_of_the_step():
    net = network()
    optimizer = Scheduled(
        lambda p: torch.optim.SGD([{"params": p[:2]}, {"params": p[2:], "lr": 0.2}], 0.1), lambda s: s
    )
    player = Player("net", net, lambda turn: net(X).mean(), optimizer)
    backend = Eager("cpu")
    backend.prepare([player])
    for step in (3, 5):
        backend.descend(player, Turn([], step=step))
        assert [group["lr"] for group in backend.descents["net"].optimizer.param_groups] == [0.1 * step, 0.2 * step]


def test_a_backend_that_averages_over_processes_replaces_synchronise_alone():
    class Halved(Eager):
        def synchronise(self, gradients):
            return [None if gradient is None else gradient / 2 for gradient in gradients]

    nets = network(), network()
    for net, backend, rate in zip(nets, (Halved("cpu"), Eager("cpu")), (0.2, 0.1), strict=True):
        player = Player("n", net, lambda turn, net=net: net(X).mean(), lambda p, r=rate: torch.optim.SGD(p, r))
        backend.prepare([player])
        backend.descend(player, Turn([]))
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(a, b)


STEPS = [
    (pair, objective)
    for pair in ("gaussian_vae", "label", "label_style", "top_down", "mixture_guide")
    for objective in OBJECTIVES
    if OBJECTIVES[objective].fits(PAIRS[pair])
]


@pytest.mark.parametrize(("pair", "objective"), STEPS)
def test_descend_reads_no_number_from_the_device(pair, objective):
    """On torch's meta device there are no numbers: .item(), `if tensor` and copies to the host raise."""
    model, guide, batch = PAIRS[pair].make_batch()
    batches = [batch, PAIRS[pair].kinds(batch)["all labelled"]] if PAIRS[pair].labelled else [batch]
    players = players_of(model, guide, OBJECTIVES[objective].make(), adam())
    for player in players:
        player.module.to("meta")
    backend = Eager("meta")
    backend.prepare(players)
    turn = Turn([each.to(torch.device("meta")) for each in batches])
    tally = Tally()
    with pyro.validation_enabled(False), isolated():  # as in fit
        for player in players:
            tally.add(player.name, backend.descend(player, turn))
    tally.add("", turn.log)
    assert tally.sums.keys() >= {player.name for player in players}
    assert all(total.is_meta for sums in tally.sums.values() for total in sums.values())

"""Players and turns: what a player is, by one whose loss is a quadratic."""

import torch
from torch import nn

from ppvae.engine.batch import as_batch
from ppvae.engine.player import Player, Turn
from ppvae.training import Batching, train


class Point(nn.Module):
    """A parameter that looks for the mean of the data."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))

    def loss(self, turn):
        return 0.5 * (turn.batches[0].x - self.at).square().sum(-1).mean()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


X = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # with mean (2, 4)


def test_gradient_of_a_players_loss_is_that_of_the_quadratic():
    point = Point()
    Player("point", point, point.loss, sgd).loss(Turn([as_batch(X)])).backward()
    torch.testing.assert_close(point.at.grad, -X.mean(0))


def test_player_with_a_quadratic_loss_halves_its_distance_in_each_step():
    point = Point()
    train([Player("point", point, point.loss, sgd)], X, epochs=3, batch_size=2, progress=False)
    torch.testing.assert_close(point.at.detach(), X.mean(0) * (1 - 0.5**3))


def test_player_of_every_second_step_descends_half_as_often():
    always, seldom = Point(), Point()
    players = [Player("always", always, always.loss, sgd), Player("seldom", seldom, seldom.loss, sgd, every=2)]
    train(players, X, epochs=4, batch_size=Batching(2), progress=False)
    torch.testing.assert_close(always.at.detach(), X.mean(0) * (1 - 0.5**4))
    torch.testing.assert_close(seldom.at.detach(), X.mean(0) * (1 - 0.5**2))


def test_named_losses_of_a_player_are_summed():
    point, other = Point(), Point()

    def parts(turn):
        return {"first": 0.25 * point.loss(turn), "second": 0.75 * point.loss(turn)}

    for module, loss in ((point, parts), (other, other.loss)):
        train([Player("point", module, loss, sgd)], X, epochs=2, batch_size=2, progress=False)
    torch.testing.assert_close(point.at, other.at)


def test_players_share_nothing_by_default():
    one, two = Turn([as_batch(X)]), Turn([as_batch(X)])
    one.log["loss"] = torch.zeros(())
    one.other.append(as_batch(X))
    assert (two.step, two.other, two.particles, two.other_draws, two.log) == (0, [], [], [], {})
    player = Player("point", nn.Linear(1, 1), lambda turn: torch.zeros(()), sgd)
    assert (player.every, player.needs_other, player.log) == (1, False, None)

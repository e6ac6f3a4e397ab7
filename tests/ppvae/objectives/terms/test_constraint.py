"""The Lagrange multiplier of a constraint on the distortion."""

import math

import pytest
import torch

import ppvae
from ppvae.engine.player import Turn
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import distortion_and_rate, particles_of


def turn_of(sizes=(4, 2)):
    """A step on rows of two kinds."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    torch.manual_seed(0)
    x = torch.cat([x[: sizes[0]], 1 - x[: sizes[1]]])
    particles = [ppvae.draw(model, guide, part) for part in x.split(sizes)]
    return Turn([part.batch for part in particles], particles=particles)


def distortion_of(turn):
    return torch.cat([-part.log_likelihood[0] for part in turn.particles])


def multiplier_of(objective):
    (player,) = objective.players
    return player.module


def test_constrained_reconstruction_is_the_lagrangian():
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    objective = ppvae.geco(tolerance=30.0)
    torch.testing.assert_close(objective.per_datum(particles), rate + distortion - 30.0)
    with torch.no_grad():
        multiplier_of(objective).log_multiplier.fill_(math.log(5.0))
    torch.testing.assert_close(objective.per_datum(particles), rate + 5 * (distortion - 30.0))
    parts = objective.parts(particles)
    assert list(parts) == ["distortion", "rate/z", "constraint"]
    torch.testing.assert_close(parts["distortion"], distortion)


def test_constrained_reconstruction_gives_the_multiplier_no_gradient_from_the_pairs_loss():
    objective = ppvae.geco(tolerance=30.0)
    objective.per_datum(particles_of()).sum().backward()
    assert multiplier_of(objective).log_multiplier.grad is None


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_multiplier_rises_by_its_speed_where_the_distortion_is_above_the_tolerance(factor):
    turn = turn_of()
    tolerance = factor * distortion_of(turn).mean().item()
    objective = ppvae.geco(tolerance, speed=0.01)
    (player,) = objective.players
    optimizer = player.optimizer(list(player.module.parameters()))
    player.loss(turn).backward()
    optimizer.step()
    violation = (distortion_of(turn).mean().item() - tolerance) / tolerance
    expected = 0.01 * max(-1.0, min(1.0, violation))
    assert player.module.log_multiplier.item() == pytest.approx(expected)
    assert player.log()["multiplier/distortion"].item() == pytest.approx(math.exp(expected))


def stepped(player, turn, steps):
    """The multiplier after some steps on the same draws."""
    optimizer = player.optimizer(list(player.module.parameters()))
    for _ in range(steps):
        optimizer.zero_grad()
        player.loss(turn).backward()
        optimizer.step()
    return player.module.value().item()


def test_multiplier_far_from_its_tolerance_stays_bounded_and_comes_back():
    turn = turn_of()
    distortion = distortion_of(turn).mean().item()
    (player,) = ppvae.geco(distortion / 4).players
    assert stepped(player, turn, 1000) == pytest.approx(100.0)  # for as long as the pair is far
    player.module.tolerance = distortion / 0.9  # the distortion is now a tenth below it
    assert stepped(player, turn, 4000) < 4


def test_multiplier_follows_the_mean_over_all_rows_of_a_step():
    turn = turn_of()
    multiplier = multiplier_of(ppvae.geco(30.0))
    multiplier.loss(turn)
    assert len(distortion_of(turn)) == 6
    torch.testing.assert_close(multiplier.average / multiplier.weight, distortion_of(turn).mean())


def test_multiplier_averages_the_distortion_over_steps():
    """An exponential average, without the bias of its start at 0."""
    multiplier = multiplier_of(ppvae.ELBO() + ppvae.ConstrainedReconstruction(30.0, decay=0.75))
    turns = [turn_of(), turn_of((2, 4))]
    for turn in turns:
        multiplier.loss(turn)
    first, second = (distortion_of(turn).mean() for turn in turns)
    expected = (0.75 * 0.25 * first + 0.25 * second) / (0.75 * 0.25 + 0.25)
    torch.testing.assert_close(multiplier.average / multiplier.weight, expected)


def test_multiplier_gives_the_pair_no_gradient():
    model, guide, x = PAIRS["gaussian_vae"].make()
    turn = Turn([], particles=[ppvae.draw(model, guide, x)])
    multiplier_of(ppvae.geco(30.0)).loss(turn).backward()
    assert all(p.grad is None for module in (model, guide) for p in module.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.geco(0.0), "tolerance finite and other than 0"),
        (lambda: ppvae.geco(math.inf), "tolerance finite and other than 0"),
        (lambda: ppvae.geco(5.0, speed=0.0), "speed above 0"),
        (lambda: ppvae.ConstrainedReconstruction(5.0, limit=1.0), "limit above 1 and finite, got 1.0"),
        (lambda: ppvae.ConstrainedReconstruction(5.0, decay=1.0), r"decay in \[0, 1\)"),
    ],
)
def test_constrained_reconstruction_refuses_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()

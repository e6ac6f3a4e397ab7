"""The players of a pair: the pair, critics, multipliers."""

import math
from functools import partial

import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.engine.batch import as_batch
from ppvae.engine.isolation import isolated
from ppvae.engine.player import Turn
from ppvae.evaluation.loss import evaluate_parts
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import adam, pair_player, players_of
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.training.runs import assert_equal, modules_of, run, weights


def factor_vae(seed=0):
    torch.manual_seed(seed)
    return ppvae.factor_vae(5.0, latent_dim=3)


def turn_of(pair, sizes=(4, 2)):
    """A turn of unlabelled and labelled rows, at one step."""
    _, _, batch = PAIRS[pair].make_batch()
    unlabelled = as_batch(batch.x[: sizes[0]])
    labelled = as_batch(batch.x[: sizes[1]], LABELS.clamp(min=0)[: sizes[1]])
    return Turn([unlabelled, labelled], step=3)


def test_pair_players_loss_is_the_mean_per_datum():
    model, guide, batch = PAIRS["gaussian_vae"].make_batch()
    player = pair_player(model, guide, ppvae.ELBO(), adam())
    torch.manual_seed(1)
    parts = player.loss(Turn([batch]))
    torch.manual_seed(1)
    loss = ppvae.ELBO().differentiable_loss(model, guide, batch.x) / len(batch)
    torch.testing.assert_close(parts["distortion"] + parts["rate/z"], loss)


def test_pair_player_weighs_all_rows_alike_and_logs_the_unlabelled_ones():
    model, guide, _ = PAIRS["label"].make()
    guide.eval()  # without dropout in the classifier
    objective, turn = ppvae.ELBO() + ppvae.ClassifierLoss(3.0), turn_of("label")
    player = pair_player(model, guide, objective, adam())
    with isolated():
        parts = player.loss(turn)
        each = [objective.per_datum(particles) for particles in turn.particles]
    assert [len(loss) for loss in each] == [4, 2]
    torch.testing.assert_close(sum(parts.values()), torch.cat(each).mean())
    torch.testing.assert_close(turn.log["unlabelled_loss"], each[0].mean())
    unlabelled = {name: value for name, value in turn.log.items() if name.startswith("unlabelled/")}
    torch.testing.assert_close(sum(unlabelled.values()), turn.log["unlabelled_loss"])
    assert not any(value.requires_grad for value in turn.log.values())


def test_pair_player_gives_every_datum_the_whole_statistic_of_its_batch():
    class Count(ppvae.objectives.Penalty):
        label = "rows"

        def penalty(self, particles):
            return torch.tensor(float(particles.batch_size))

    model, guide, _ = PAIRS["label"].make()
    turn = turn_of("label")
    with isolated():
        parts = pair_player(model, guide, ppvae.ELBO() + Count(), adam()).loss(turn)
    assert parts["rows"].item() == pytest.approx((4 * 4 + 2 * 2) / 6)
    assert turn.log["unlabelled/rows"] == 4


@pytest.mark.parametrize(
    "stock",
    [
        lambda: Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1),
        lambda: RenyiELBO(alpha=0, num_particles=2, vectorize_particles=True, max_plate_nesting=1),
    ],
)
def test_pair_player_of_a_stock_estimator_has_its_loss_and_gradient(stock):
    model, guide, _ = PAIRS["gaussian_vae"].make()
    turn = turn_of("gaussian_vae")
    parameters = [*model.parameters(), *guide.parameters()]
    with isolated():
        torch.manual_seed(0)
        expected = sum(stock().loss_and_grads(model, guide, batch.x) for batch in turn.batches) / 6
        gradients = [parameter.grad / 6 for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        turn.batches = [as_batch(batch.x) for batch in turn.batches]
        torch.manual_seed(0)
        loss = pair_player(model, guide, stock(), adam()).loss(turn)
        found = torch.autograd.grad(loss, parameters)
    assert loss.item() == pytest.approx(expected)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert all((parameter.grad == 1).all() for parameter in parameters)
    assert "unlabelled_loss" in turn.log


def test_players_of_gives_two_critics_of_one_site_different_names():
    model, guide, _ = PAIRS["gaussian_vae"].make()
    objective = ppvae.ELBO() + ppvae.TotalCorrelation(1.0, 3) + ppvae.AdversarialDivergence(1.0, 3)
    names = [player.name for player in players_of(model, guide, objective, adam())]
    assert names == ["pair", "critic/z", "critic/z#2"]
    run("gaussian_vae", objective=objective, epochs=1)


def test_fit_trains_the_critic():
    objective = factor_vae()
    before = weights(*modules_of(objective))
    *_, result = run("gaussian_vae", objective=objective)
    assert all((a - b).abs().max() > 0 for a, b in zip(before, weights(*modules_of(objective)), strict=True))
    assert all(row["critic/z"] == pytest.approx(math.log(2), abs=0.05) for row in result.metrics)


def test_fit_trains_a_critic_on_partly_labelled_data():
    objective = ppvae.ELBO() + ppvae.ClassifierLoss(1.0) + ppvae.TotalCorrelation(1.0, latent_dim=3)
    before = weights(*modules_of(objective))
    run("label", objective=objective, epochs=1)
    assert not torch.equal(before[0], weights(*modules_of(objective))[0])


def test_fit_moves_the_pair_alike_whether_the_critic_learns_or_not():
    """The critic's turn comes after the pair's and moves no parameter of it."""
    pairs = []
    for rate in (1e-4, 0.0):
        torch.manual_seed(0)
        critic = ppvae.TotalCorrelation(5.0, 3, optimizer=partial(torch.optim.SGD, lr=rate))
        pairs.append(run("gaussian_vae", objective=ppvae.ELBO() + critic, epochs=1, batch_size=24)[:2])
    assert_equal(weights(*pairs[0]), weights(*pairs[1]))


def test_pair_player_draws_the_other_batch_before_the_pair_moves():
    """Without gradient, and without moving batch statistics twice in a step."""
    layers = torch.nn.Flatten(-2), torch.nn.BatchNorm1d(64), MLP(64, [], 6)
    guide = MeanFieldGaussian(torch.nn.Sequential(*layers))
    model, _, x = PAIRS["gaussian_vae"].make()
    ppvae.fit(model.float(), guide, factor_vae(), x.float(), epochs=1, batch_size=6, progress=False)
    assert guide.encoder[1].num_batches_tracked == 1


def gaussian_aggregate(rows=2000):
    """A pair that stands still. q(z) is N(0, S): unit variances, correlation .6, .36; TC equals KL(q, p)."""
    index = torch.arange(3)
    covariance = 0.6 ** (index - index.unsqueeze(1)).abs().double()
    torch.manual_seed(1)
    x = torch.randn(rows, 3).double() @ torch.linalg.cholesky(covariance - 0.3 * torch.eye(3)).T
    guide = MeanFieldGaussian(MLP(3, [], 6))
    with torch.no_grad():
        layer = guide.encoder.layers[0]
        layer.weight.copy_(torch.cat([torch.eye(3), torch.zeros(3, 3)]))
        layer.bias.copy_(torch.tensor([0.0] * 3 + [0.5 * math.log(0.3)] * 3))
    model = GaussianVAE(MLP(3, [], 3), 3, Gaussian(1.0))
    return model, guide, x.float(), -0.5 * covariance.logdet().item()


@pytest.mark.parametrize("term", [ppvae.TotalCorrelation, ppvae.AdversarialDivergence])
def test_fit_trains_critics_to_the_divergence(term):
    model, guide, x, exact = gaussian_aggregate()
    torch.manual_seed(0)
    made = term(1.0, 3, critic=MLP(3, [64, 64], 1, torch.nn.SiLU), optimizer=partial(torch.optim.Adam, lr=2e-3))
    still = adam(schedule=lambda step: 0.0)
    ppvae.fit(model, guide, ppvae.ELBO() + made, x, epochs=60, batch_size=200, optimizer=still, progress=False)
    particles = ppvae.draw(model, guide, x, num_particles=5)
    (critic,) = (player.module for player in made.players)
    estimate = critic.log_ratio(particles.guide["z"].value).mean().item()
    assert exact == pytest.approx(0.446, abs=1e-3)
    assert estimate == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("tolerance", [5.0, 7.0])
def test_fit_brings_geco_to_its_tolerance(tolerance):
    """Two linear factors in five numbers: the best distortion is about 2 nats, that of the mean alone above 10."""
    torch.manual_seed(0)
    x = torch.randn(256, 2).double() @ torch.randn(2, 5).double() + 0.3 * torch.randn(256, 5).double()
    model = GaussianVAE(MLP(2, [], 5), 2, Gaussian(0.5)).double()
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    objective = ppvae.ELBO() + ppvae.ConstrainedReconstruction(tolerance, speed=0.02, decay=0.95)
    options = {"epochs": 300, "batch_size": 64, "optimizer": adam(1e-2), "progress": False}
    ppvae.fit(model, guide, objective, x, **options)
    assert evaluate_parts(ppvae.ELBO(), model, guide, x)["distortion"] == pytest.approx(tolerance, abs=0.5)


def test_fit_puts_a_critic_in_evaluation_mode_for_the_validation_loss():
    modes = []

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(3, 1)

        def forward(self, z):
            modes.append(self.training)
            return self.net(z)

    objective = ppvae.ELBO() + ppvae.TotalCorrelation(1.0, 3, critic=Noisy())
    x = PAIRS["gaussian_vae"].make()[2]
    run("gaussian_vae", objective=objective, validation=ppvae.Dataset(x), epochs=1, batch_size=24)
    assert modes == [False, True, True, False]  # the check, the penalty, its loss on both kinds of draws, validation

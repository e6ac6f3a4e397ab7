"""fit and train: what they train, what they leave behind, in one thread and in two."""

import math
import threading
from statistics import median

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO, TraceTMC_ELBO
from torch import nn
from torch.nn.functional import softplus

import ppvae
from ppvae.data import Dataset
from ppvae.engine.player import Player
from ppvae.guides import LabelGuide
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import Batching, Validation, adam, train
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, data_of, run, weights


@pytest.mark.parametrize("pair", PAIRS)
def test_fit_lowers_the_loss(pair):
    _, _, result = run(pair, epochs=30)
    losses = [row["loss"] for row in result.metrics]
    assert median(losses[-10:]) < median(losses[:5])  # a scale that is an exponential of a draw has a heavy tail


STOCK = {
    "Trace_ELBO": lambda: Trace_ELBO(num_particles=2, vectorize_particles=True),
    "TraceGraph_ELBO": lambda: TraceGraph_ELBO(num_particles=2, vectorize_particles=True),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceTMC_ELBO": TraceTMC_ELBO,
    "RenyiELBO": lambda: RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True),
    "TraceEnum_ELBO": TraceEnum_ELBO,
}


@pytest.mark.parametrize("stock", STOCK)
def test_fit_trains_with_stock_estimators(stock):
    pair = "label_style" if stock == "TraceEnum_ELBO" else "gaussian_vae"
    pyro.clear_param_store()
    before = weights(*PAIRS[pair].make()[:2])
    model, guide, result = run(pair, objective=STOCK[stock](), epochs=20, validation=data_of(pair))
    assert result.metrics[-1]["validation_loss"] < result.metrics[0]["validation_loss"]
    assert any(not torch.equal(a, b) for a, b in zip(weights(model, guide), before, strict=True))
    assert not list(pyro.get_param_store().keys())


def test_fit_takes_the_same_path_with_a_stock_estimator():
    ours = run("gaussian_vae", objective=ppvae.ELBO())
    stock = run("gaussian_vae", objective=TraceMeanField_ELBO(max_plate_nesting=1))
    for a, b in zip(weights(*ours[:2]), weights(*stock[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_fit_averages_the_gradient_of_an_estimator_without_differentiable_loss():
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, 0.01)}
    ours = run("gaussian_vae", objective=ppvae.IWAE(3), **sgd)
    stock = RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    theirs = run("gaussian_vae", objective=stock, **sgd)
    for a, b in zip(weights(*ours[:2]), weights(*theirs[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_fit_is_reproducible_and_leaves_the_callers_random_state():
    state = torch.get_rng_state()
    first, again, other = (weights(*run(seed=0)[:2]), weights(*run(seed=0)[:2]), weights(*run(seed=1)[:2]))
    assert_equal(first, again)
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    torch.set_rng_state(state)
    model, guide, _ = PAIRS["label"].make()
    state = torch.get_rng_state()
    ppvae.fit(model, guide, ppvae.ELBO(), data_of("label"), epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_fit_leaves_the_random_state_with_dynamic_data():
    model, guide, _ = PAIRS["label"].make()
    data = Dataset(torch.rand(20, 8, 8).double(), binarization="dynamic")
    state = torch.get_rng_state()
    ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("objective", [ppvae.ELBO, lambda: ppvae.geco(30.0), STOCK["RenyiELBO"]])
def test_fit_leaves_no_gradient(objective):
    """A stock step after it adds to ``.grad``: what fit had left there would be in its sum."""
    model, guide, _ = run("gaussian_vae", objective=objective(), epochs=1)
    assert all(parameter.grad is None for module in (model, guide) for parameter in module.parameters())


def test_fit_gives_a_frozen_model_no_update():
    before = weights(PAIRS["label"].make()[0])
    model, guide, _ = run(train_model=False)
    assert_equal(weights(model), before)
    assert any(not torch.equal(a, b) for a, b in zip(weights(guide), weights(PAIRS["label"].make()[1]), strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_fit_keeps_the_batch_statistics_of_a_frozen_model_and_restores_modes():
    _, guide, x = PAIRS["gaussian_vae"].make()
    decoder = nn.Sequential(MLP(3, [], 8), _OverLeading(nn.BatchNorm1d(8)), nn.Dropout(0.5), MLP(8, [], (8, 8)))
    model = GaussianVAE(decoder, 3).double()
    guide.eval()
    before = weights(model)
    ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=2, batch_size=3, train_model=False, progress=False)
    assert_equal(weights(model), before)
    assert model.training
    assert not guide.training
    ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, batch_size=3, progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))


class _OverLeading(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def test_fit_refuses_a_loss_without_gradient():
    model, guide, x = PAIRS["mixture"].make()
    with pytest.raises(ppvae.ContractError, match="IWAE does not depend on the guide"):
        ppvae.fit(model, guide, ppvae.IWAE(2), x, epochs=1, train_model=False, progress=False)
    assert all(p.requires_grad for p in model.parameters())


def test_fit_refuses_a_pair_with_nothing_to_train():
    model, guide, x = PAIRS["linear_gaussian"].make()
    guide.requires_grad_(False)
    with pytest.raises(ppvae.ContractError, match="to have a parameter to train"):
        ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, train_model=False, progress=False)


@pytest.mark.parametrize("pair", ["label", "user"])
def test_fit_leaves_the_parameter_store(pair):
    pyro.clear_param_store()
    pyro.param("mine", torch.ones(2))
    run(pair, epochs=1)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()


def test_fit_refuses_a_guide_that_draws_a_given_label():
    class Drawing(LabelGuide):
        def forward(self, x, y=None):
            return super().forward(x, None)

    model, guide, x = PAIRS["label"].make()
    broken = Drawing(guide.classifier, guide.encoder)
    data = Dataset(x.repeat(2, 1, 1), torch.tensor([-1] * 8 + [0, 1, 2, 3]), num_classes=4)
    with pytest.raises(ppvae.ContractError, match='not to draw site "y" when labels are given'):
        ppvae.fit(model, broken, ppvae.ELBO(), data, epochs=1, progress=False)


@pytest.mark.parametrize("pair", ["user", "label"])
def test_fit_evaluates_a_pair_after_training(pair):
    model, guide, result = run(pair, epochs=40)
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    assert math.isfinite(ppvae.evaluate_loss(ppvae.ELBO(), model, guide, data_of(pair)))


def test_fit_flushes_denormals_and_restores_the_callers_choice():
    seen = []

    def look():
        seen.append((torch.full((1,), 1e-30) * 1e-10).item())
        return {}

    run("gaussian_vae", epochs=1, validation=Validation(evaluate=look))
    assert seen == [0.0]
    assert (torch.full((1,), 1e-30) * 1e-10).item() > 0


def test_fit_takes_numpy_arrays_in_the_type_of_the_pair():
    model, guide, x = PAIRS["gaussian_vae"].make()
    again_model, again_guide, _ = PAIRS["gaussian_vae"].make()
    for pair, data in (((model, guide), x), ((again_model, again_guide), x.numpy())):
        ppvae.fit(*pair, ppvae.ELBO(), data, epochs=1, batch_size=3, validation=data, progress=False)
    assert_equal(weights(model, guide), weights(again_model, again_guide))


def test_fit_calls_the_schedule_of_the_optimizer_with_each_step():
    seen = []
    run("gaussian_vae", epochs=2, batch_size=6, optimizer=adam(schedule=lambda step: seen.append(step) or 0.5))
    assert seen == list(range(8))


def test_fit_moves_nothing_where_the_schedule_is_zero():
    before = weights(*PAIRS["gaussian_vae"].make()[:2])
    model, guide, _ = run("gaussian_vae", optimizer=adam(0.1, schedule=lambda step: 0.0))
    assert_equal(before, weights(model, guide))


def test_two_fits_in_two_threads_equal_two_fits_in_turn():
    pyro.clear_param_store()
    pyro.param("mine", torch.ones(2))
    validated = pyro.settings.get("validate_distributions_pyro")
    expected = {seed: run("gaussian_vae", seed=seed, epochs=5) for seed in (0, 1)}
    pairs = {seed: PAIRS["gaussian_vae"].make(seed)[:2] for seed in (0, 1)}
    found, together, data = {}, threading.Barrier(2), data_of("gaussian_vae")

    def work(seed):
        together.wait()
        options = {"epochs": 5, "batch_size": 4, "progress": False}
        found[seed] = (*pairs[seed], ppvae.fit(*pairs[seed], ppvae.ELBO(), data, **options))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for seed in (0, 1):
        assert_equal(weights(*expected[seed][:2]), weights(*found[seed][:2]))
        losses = [[row["loss"] for row in result[2].metrics] for result in (expected[seed], found[seed])]
        assert losses[0] == losses[1]
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert pyro.settings.get("validate_distributions_pyro") == validated
    pyro.clear_param_store()


def ring(modes=8, rows=128):
    """A mixture of Gaussians on a circle: its centres, and draws."""
    angles = torch.arange(modes) * 2 * math.pi / modes
    centres = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    return centres, centres.repeat(rows, 1) + 0.2 * torch.randn(rows * modes, 2)


def small_network(outputs):
    leaky = nn.LeakyReLU(0.2)
    return nn.Sequential(nn.Linear(2, 64), leaky, nn.Linear(64, 64), leaky, nn.Linear(64, outputs))


def adversarial_network(optimizer):
    """The two players of a generative adversarial network with the non-saturating loss of Goodfellow et al. 2014."""
    generator, discriminator = small_network(2), small_network(1)

    def generated(turn):
        return generator(torch.randn(len(turn.batches[0]), 2))

    def of_discriminator(turn):
        real = softplus(-discriminator(turn.batches[0].x)).mean()
        return {"real": real, "generated": softplus(discriminator(generated(turn).detach())).mean()}

    def of_generator(turn):
        return softplus(-discriminator(generated(turn))).mean()

    return generator, [
        Player("discriminator", discriminator, of_discriminator, optimizer),
        Player("generator", generator, of_generator, optimizer),
    ]


def test_train_covers_the_modes_of_a_mixture_by_an_adversarial_network():
    torch.manual_seed(0)
    centres, x = ring()
    generator, players = adversarial_network(adam(2e-3, betas=(0.5, 0.9)))
    metrics = train(players, x, epochs=60, batch_size=128, progress=False).metrics
    with torch.no_grad():
        distance, nearest = torch.cdist(generator(torch.randn(4000, 2)), centres).min(1)
    share = torch.bincount(nearest[distance < 0.8], minlength=8) / 4000  # of 4 standard deviations
    assert share.min() > 0.06  # of .125 each
    assert share.sum() > 0.9
    last = metrics[-1]
    assert last["discriminator"] == pytest.approx(2 * math.log(2), abs=0.1)  # it cannot tell them apart
    assert last["generator"] == pytest.approx(math.log(2), abs=0.1)
    assert last["discriminator/real"] + last["discriminator/generated"] == pytest.approx(last["discriminator"])


def test_train_lets_a_player_descend_in_every_nth_step():
    steps = {"often": [], "seldom": []}
    net = nn.Linear(1, 1)

    def player(name, every):
        def loss(turn):
            steps[name].append(turn.step)
            return net(turn.batches[0].x).square().mean()

        return Player(name, net, loss, adam(), every=every)

    result = train([player("often", 1), player("seldom", 3)], torch.ones(10, 1), epochs=1, batch_size=1, progress=False)
    assert steps == {"often": list(range(10)), "seldom": [0, 3, 6, 9]}
    assert {"often", "seldom"} <= result.metrics[0].keys()


def test_train_gives_each_turn_an_independent_batch_if_a_player_reads_it():
    net, seen = nn.Linear(1, 1), []

    def loss(turn):
        seen.append((turn.batches[0].x.flatten(), turn.other[0].x.flatten()))
        return net(turn.batches[0].x).mean()

    player = Player("net", net, loss, adam(), needs_other=True)
    train([player], torch.arange(40.0).unsqueeze(1), epochs=1, batch_size=5, progress=False)
    mine, theirs = (torch.cat(part) for part in zip(*seen, strict=True))
    assert sorted(mine.tolist()) == sorted(theirs.tolist()) == list(range(40))
    assert (mine == theirs).float().mean() < 0.3


def test_train_adds_the_numbers_of_evaluate_in_evaluation_mode():
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))
    player = Player("net", net, lambda turn: net(turn.batches[0].x).mean(), adam())
    modes = []
    evaluate = lambda: modes.append((net.training, torch.is_grad_enabled())) or {"seven": np.float32(7.0)}  # noqa: E731
    result = train([player], torch.ones(4, 1), epochs=2, evaluate=evaluate, progress=False)
    assert modes == [(False, False)] * 2
    assert [row["seven"] for row in result.metrics] == [7.0, 7.0]


def test_train_refuses_a_number_of_evaluate_under_a_name_of_the_log():
    net = nn.Linear(1, 1)
    player = Player("net", net, lambda turn: net(turn.batches[0].x).mean(), adam())
    with pytest.raises(ValueError, match=r"under new names, got \['net'\]"):
        train([player], torch.ones(4, 1), epochs=1, evaluate=lambda: {"net": 1.0}, progress=False)


def test_train_leaves_modes_gradients_and_random_state():
    net = nn.Linear(1, 1).eval()
    player = Player("net", net, lambda turn: net(turn.batches[0].x + torch.randn(())).mean(), adam())
    state = torch.get_rng_state()
    train([player], torch.ones(4, 1), epochs=1, progress=False)
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_train_of_a_pairs_players_equals_fit():
    from ppvae.training import players_of

    fitted = run("gaussian_vae", objective=ppvae.ELBO(), batch_size=Batching(4))
    model, guide, _ = PAIRS["gaussian_vae"].make()
    players = players_of(model, guide, ppvae.ELBO(), adam())
    result = train(players, data_of("gaussian_vae"), epochs=3, batch_size=4, progress=False)
    assert_equal(weights(*fitted[:2]), weights(model, guide))
    assert [row["loss"] for row in result.metrics] == [row["loss"] for row in fitted[2].metrics]


def test_fit_trains_inside_a_callers_no_grad():
    expected = weights(*run("gaussian_vae")[:2])
    with torch.no_grad():
        found = weights(*run("gaussian_vae")[:2])
    assert_equal(expected, found)

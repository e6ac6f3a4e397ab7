"""What is trained beside the pair: critics and multipliers."""

import math
from functools import partial

import pyro
import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.errors import Interrupted
from ppvae.nn import MLP
from ppvae.objectives.terms.total_correlation import permuted
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, parts_of, run, weights


def factor_vae(seed=0):
    torch.manual_seed(seed)
    return ppvae.factor_vae(5.0, latent_dim=3)


def test_fit_trains_the_critic():
    objective = factor_vae()
    before = weights(*objective.adversaries)
    run("gaussian_vae", objective=objective)
    assert all((a - b).abs().max() > 0 for a, b in zip(before, weights(*objective.adversaries), strict=True))


@pytest.mark.parametrize("make", [factor_vae, lambda: ppvae.geco(30.0)], ids=["critic", "multiplier"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make, tmp_path):
    whole = make()
    pair = run("gaussian_vae", objective=whole)[:2]
    first, second = make(), make()
    run("gaussian_vae", objective=first, run_dir=tmp_path, epochs=1)
    again = run("gaussian_vae", objective=second, run_dir=tmp_path, resume=True)[:2]
    assert_equal(weights(*pair, *whole.adversaries), weights(*again, *second.adversaries))
    assert not torch.equal(weights(*first.adversaries)[0], weights(*second.adversaries)[0])


@pytest.mark.parametrize("make", [factor_vae, lambda: ppvae.geco(30.0)], ids=["critic", "multiplier"])
def test_a_checkpoint_gives_back_what_was_trained_beside_the_pair(make, tmp_path):
    trained, again = make(), make()
    pair = run("gaussian_vae", objective=trained, run_dir=tmp_path)[:2]
    fresh = PAIRS["gaussian_vae"].make(seed=1)[:2]
    before = weights(*again.adversaries)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", *fresh)
    assert_equal(before, weights(*again.adversaries))
    ppvae.load_checkpoint(tmp_path / "last.safetensors", *fresh, again)
    assert_equal(weights(*pair, *trained.adversaries), weights(*fresh, *again.adversaries))


def test_a_checkpoint_without_a_critic_is_refused_where_one_is_asked_for(tmp_path):
    run("gaussian_vae", objective=ppvae.ELBO(), run_dir=tmp_path)
    with pytest.raises(ppvae.CheckpointError, match=r"adversary-0/.* is absent there"):
        ppvae.load_checkpoint(tmp_path / "last.safetensors", *PAIRS["gaussian_vae"].make()[:2], factor_vae())


def test_a_run_that_was_stopped_within_an_epoch_is_taken_up_to_the_same_numbers(tmp_path):
    whole = factor_vae()
    pair = run("gaussian_vae", objective=whole)[:2]
    with pytest.raises(Interrupted):
        run("gaussian_vae", objective=_Stopping(factor_vae(), at=7), run_dir=tmp_path)
    again = factor_vae()
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("_Stopping", "Regularised"))
    resumed = run("gaussian_vae", objective=again, run_dir=tmp_path, resume=True)[:2]
    assert_equal(weights(*pair, *whole.adversaries), weights(*resumed, *again.adversaries))


class _Stopping(ppvae.Regularised):
    """Asks for a stop, as a user would, while a step is made."""

    def __init__(self, whole, at):
        super().__init__(whole.objective, whole.regularisers)
        self._at = at

    def per_datum(self, particles):
        if particles.step == self._at:
            import signal

            signal.raise_signal(signal.SIGINT)
        return super().per_datum(particles)


def test_settings_of_the_terms_must_be_those_of_the_run(tmp_path):
    run("gaussian_vae", objective=ppvae.beta_vae(4.0), run_dir=tmp_path, epochs=1)
    for other in (ppvae.beta_vae(5.0), ppvae.ELBO(), ppvae.beta_vae(ppvae.warm_up(10))):
        with pytest.raises(ppvae.CheckpointError, match="objective="):
            run("gaussian_vae", objective=other, run_dir=tmp_path, resume=True)


def test_a_step_of_the_pair_is_that_of_the_same_loss_without_training_the_critic():
    """The critic's own step comes after the pair's and touches no parameter of it."""
    objective = factor_vae()
    model, guide, _ = run("gaussian_vae", objective=objective, epochs=1, batch_size=24)
    frozen = factor_vae()
    frozen.regularisers[0].adversary.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    other_model, other_guide, _ = run("gaussian_vae", objective=frozen, epochs=1, batch_size=24)
    assert_equal(weights(model, guide), weights(other_model, other_guide))


def test_the_other_batch_has_an_order_of_its_own():
    from ppvae.data import Dataset
    from ppvae.training.batches import Batches

    batches = Batches(Dataset(torch.arange(40.0).unsqueeze(1)), 5, seed=3)
    other = batches.other_order()
    assert len(other) == len(batches)
    mine, theirs = (torch.cat([part[0][0].flatten() for part in b.epoch(0)]) for b in (batches, other))
    assert sorted(mine.tolist()) == sorted(theirs.tolist()) == list(range(40))
    assert (mine == theirs).float().mean() < 0.3


@pytest.mark.parametrize("seed", [1 << 12, 1 << 32, 1 << 40, -1])
def test_the_order_heeds_the_whole_seed(seed):
    from ppvae.data import Dataset
    from ppvae.training.batches import Batches

    data = Dataset(torch.arange(40.0).unsqueeze(1))
    orders = [torch.cat([part[0][0] for part in Batches(data, 5, seed=s).epoch(0)]) for s in (0, seed)]
    assert not torch.equal(*orders)


def test_partly_labelled_data_train_a_critic_too():
    objective = ppvae.ELBO() + ppvae.ClassifierLoss(1.0) + ppvae.TotalCorrelation(1.0, latent_dim=3)
    before = weights(*objective.adversaries)
    run("label", objective=objective, epochs=1)
    assert not torch.equal(before[0], weights(*objective.adversaries)[0])


def test_a_stock_loop_that_would_not_train_the_critic_is_refused():
    model, guide, x = PAIRS["gaussian_vae"].make()
    pyro.clear_param_store()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=factor_vae())
    with pytest.raises(ppvae.ContractError, match=r"PermutationCritic, which only ppvae.fit trains"):
        svi.step(x)
    with pytest.raises(ppvae.ContractError, match="use fit"):
        factor_vae()(model, guide)(x)
    assert isinstance(factor_vae().loss(model, guide, x), float)


def test_validation_reads_a_schedule_as_it_is_at_the_end():
    steps = []

    def schedule(step):
        steps.append(step)
        return 0.5

    validation = ppvae.Dataset(PAIRS["gaussian_vae"].make()[2])
    *_, result = run("gaussian_vae", objective=ppvae.beta_vae(schedule), validation=validation, epochs=2)
    assert all("validation_loss" in row for row in result.metrics)
    assert steps.count(result.metrics[-1]["step"]) == 2  # once an epoch; training ends one step before


@pytest.mark.parametrize("rows", [501, 1001])
def test_no_row_is_validated_alone(rows):
    model, guide, x = PAIRS["gaussian_vae"].make()
    many = ppvae.Dataset(x.repeat(rows // len(x) + 1, 1, 1)[:rows])
    assert torch.isfinite(torch.tensor(ppvae.evaluate_loss(ppvae.info_vae(), model, guide, many)))


def test_a_statistic_of_the_batch_is_validated_at_the_batch_size_of_training():
    *_, x = PAIRS["gaussian_vae"].make()
    validation = ppvae.Dataset(x.repeat(10, 1, 1))
    run("gaussian_vae", objective=ppvae.beta_tcvae(24), validation=validation, epochs=1)  # 60 rows at once would fail


def gaussian_aggregate(rows=2000):
    """A pair that stands still, whose q(z) is N(0, S): unit variances, correlation .6, .36; TC and KL(q, p) alike."""
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


@pytest.mark.parametrize(
    "make",
    [
        lambda critic: ppvae.TotalCorrelation(1.0, 3, critic=critic, optimizer=OPTIMIZER),
        lambda critic: ppvae.AdversarialDivergence(1.0, 3, critic=critic, optimizer=OPTIMIZER),
    ],
    ids=["total correlation", "prior"],
)
def test_critics_learn_the_divergence_within_fit(make):
    model, guide, x, exact = gaussian_aggregate()
    torch.manual_seed(0)
    term = make(MLP(3, [64, 64], 1, torch.nn.SiLU))
    options = {"epochs": 60, "batch_size": 200, "schedule": lambda step: 0.0, "progress": False}
    ppvae.fit(model, guide, ppvae.ELBO() + term, x, **options)
    particles = ppvae.draw(model, guide, x, num_particles=5)
    estimate = term.adversary.log_ratio(particles.guide["z"].value).mean().item()
    assert exact == pytest.approx(0.446, abs=1e-3)
    assert estimate == pytest.approx(exact, abs=0.1)


OPTIMIZER = partial(torch.optim.Adam, lr=2e-3)


def test_a_critic_learns_from_the_rows_of_all_parts_alike():
    parts = parts_of()
    other = [part.source.draws_for(part.source.x.flip(0)) for part in parts]
    critic = ppvae.TotalCorrelation(1.0, latent_dim=3).adversary
    torch.manual_seed(0)
    loss = critic.loss(parts, other)
    torch.manual_seed(0)
    z = torch.cat([part.guide["z"].value[0] for part in parts])
    shuffled = permuted(torch.cat([draw["z"][0] for draw in other]))
    on_z, on_shuffled = (critic.network(v.float().detach()).squeeze(-1) for v in (z, shuffled))
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(loss, (softplus(-on_z).mean() + softplus(on_shuffled).mean()) / 2)


def test_the_pair_is_run_for_the_other_batch_without_moving_its_statistics():
    layers = torch.nn.Flatten(-2), torch.nn.BatchNorm1d(64), MLP(64, [], 6)
    guide = MeanFieldGaussian(torch.nn.Sequential(*layers))
    model, _, x = PAIRS["gaussian_vae"].make()
    objective = factor_vae()
    ppvae.fit(model.float(), guide, objective, x.float(), epochs=1, batch_size=6, progress=False)
    assert guide.encoder[1].num_batches_tracked == 1


def test_a_critic_is_in_evaluation_mode_where_the_loss_is_evaluated():
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
    assert modes == [True, True, False]  # the penalty, its loss on both kinds of draws, the validation


def test_settings_of_a_critic_and_of_a_ramp_must_be_those_of_the_run(tmp_path):
    for number, (one, other) in enumerate(
        [
            (ppvae.factor_vae(5.0, 3), ppvae.ELBO() + ppvae.TotalCorrelation(5.0, 3, optimizer=OPTIMIZER)),
            (ppvae.beta_vae(ppvae.warm_up(10)), ppvae.beta_vae(ppvae.warm_up(900))),
        ]
    ):
        folder = tmp_path / str(number)
        run("gaussian_vae", objective=one, run_dir=folder, epochs=1)
        with pytest.raises(ppvae.CheckpointError, match="holds a run with"):
            run("gaussian_vae", objective=other, run_dir=folder, resume=True)

"""What is trained beside the pair: critics and multipliers."""

import pyro
import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE

import ppvae
from ppvae.errors import Interrupted
from ppvae.likelihoods import Gaussian
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, run, weights


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
    with pytest.raises(ppvae.ContractError, match=r"which SVI would not train; use ppvae.fit"):
        svi.step(x)


def test_geco_ends_at_its_tolerance():
    """Two linear factors in five numbers: the best distortion is about 2 nats, that of the mean alone above 10."""
    torch.manual_seed(0)
    x = torch.randn(256, 2).double() @ torch.randn(2, 5).double() + 0.3 * torch.randn(256, 5).double()
    distortions = {}
    for tolerance in (5.0, 7.0):
        model = GaussianVAE(MLP(2, [], 5), 2, Gaussian(0.5)).double()
        guide = MeanFieldGaussian(MLP(5, [], 4)).double()
        objective = ppvae.ELBO() + ppvae.ConstrainedReconstruction(tolerance, speed=0.02, decay=0.95)
        options = {"epochs": 300, "batch_size": 64, "optimizer": ppvae.adam(1e-2), "progress": False}
        ppvae.fit(model, guide, objective, x, **options)
        distortions[tolerance] = ppvae.latent_statistics(model, guide, x).distortion
    assert distortions[5.0] == pytest.approx(5.0, abs=0.5)
    assert distortions[7.0] == pytest.approx(7.0, abs=0.5)


def test_validation_reads_a_schedule_at_the_step_reached():
    steps = []

    def schedule(step):
        steps.append(step)
        return 0.5

    x = PAIRS["gaussian_vae"].make()[2]
    validation = ppvae.Dataset(x)
    *_, result = run("gaussian_vae", objective=ppvae.beta_vae(schedule), validation=validation, epochs=2)
    assert all("validation_loss" in row for row in result.metrics)
    per_epoch = result.metrics[0]["step"]
    assert steps.count(per_epoch) == 2  # the first step of the second epoch, and the validation before it
    assert steps[-1] == 2 * per_epoch

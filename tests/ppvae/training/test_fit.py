"""The loop: what it trains, what it leaves, how it stops and goes on."""

from statistics import median

import pyro
import pytest
import torch
from ppvae.guides import LabelGuide
from ppvae.models import GaussianVAE
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

import ppvae
from ppvae.data import Dataset
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import assert_equal, data_of, run, weights


@pytest.mark.parametrize("pair", PAIRS)
def test_training_lowers_the_loss(pair):
    _, _, result = run(pair, epochs=30)
    losses = [row["loss"] for row in result.metrics]
    assert median(losses[-10:]) < median(losses[:5])  # a scale that is an exponential of a draw has a heavy tail


STOCK = {
    "Trace_ELBO": lambda: Trace_ELBO(num_particles=2, vectorize_particles=True),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "RenyiELBO": lambda: RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True),
    "TraceEnum_ELBO": TraceEnum_ELBO,
}


@pytest.mark.parametrize("stock", STOCK)
def test_trains_with_stock_estimators(stock):
    pair = "label_style" if stock == "TraceEnum_ELBO" else "gaussian_vae"
    pyro.clear_param_store()
    before = weights(*PAIRS[pair].make()[:2])
    model, guide, result = run(pair, objective=STOCK[stock](), epochs=20, validation=data_of(pair))
    assert result.metrics[-1]["validation_loss"] < result.metrics[0]["validation_loss"]
    assert any(not torch.equal(a, b) for a, b in zip(weights(model, guide), before, strict=True))
    assert not list(pyro.get_param_store().keys())


def test_a_stock_estimator_and_ours_walk_the_same_path():
    ours = run("gaussian_vae", objective=ppvae.ELBO())
    stock = run("gaussian_vae", objective=TraceMeanField_ELBO(max_plate_nesting=1))
    for a, b in zip(weights(*ours[:2]), weights(*stock[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_of_an_estimator_without_differentiable_loss_is_the_mean():
    ours = run("gaussian_vae", objective=ppvae.IWAE(3), optimizer=lambda p: torch.optim.SGD(p, 0.01))
    stock = RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    theirs = run("gaussian_vae", objective=stock, optimizer=lambda p: torch.optim.SGD(p, 0.01))
    for a, b in zip(weights(*ours[:2]), weights(*theirs[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_seeds_repeat_and_the_callers_random_state_is_left_alone():
    model, guide, _ = PAIRS["label"].make()
    data = data_of("label")
    state = torch.get_rng_state()
    ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(weights(*run(seed=0)[:2]), weights(*run(seed=0)[:2]))
    assert any(not torch.equal(a, b) for a, b in zip(weights(*run()[:2]), weights(*run(seed=1)[:2]), strict=True))


def test_a_frozen_model_stays_as_it_was():
    before = weights(PAIRS["label"].make()[0])
    model, guide, _ = run(train_model=False)
    assert_equal(weights(model), before)
    assert any(not torch.equal(a, b) for a, b in zip(weights(guide), weights(PAIRS["label"].make()[1]), strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_a_frozen_model_keeps_its_batch_statistics_and_modes_are_put_back():
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


def test_a_loss_that_depends_on_nothing_trainable_is_an_error():
    model, guide, x = PAIRS["mixture"].make()
    with pytest.raises(ppvae.ContractError, match="got none from IWAE"):
        ppvae.fit(model, guide, ppvae.IWAE(2), x, epochs=1, train_model=False, progress=False)


@pytest.mark.parametrize("pair", ["label", "user"])
def test_fit_leaves_nothing_in_the_global_store(pair):
    pyro.clear_param_store()
    run(pair, epochs=1)
    assert not list(pyro.get_param_store().keys())


def test_dynamic_data_leave_the_callers_random_state_alone():
    model, guide, _ = PAIRS["label"].make()
    data = Dataset(torch.rand(20, 8, 8).double(), binarization="dynamic")
    state = torch.get_rng_state()
    ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_guide_that_draws_a_label_it_was_given_is_refused():
    class Drawing(LabelGuide):
        def forward(self, x, y=None):
            return super().forward(x, None)

    model, guide, x = PAIRS["label"].make()
    broken = Drawing(guide.classifier, guide.encoder)
    data = Dataset(x.repeat(2, 1, 1), torch.tensor([-1] * 8 + [0, 1, 2, 3]), num_classes=4)
    with pytest.raises(ppvae.ContractError, match='not to draw site "y" when labels are given'):
        ppvae.fit(model, broken, ppvae.ELBO(), data, epochs=1, progress=False)
    with pytest.raises(ppvae.ContractError, match=r"not to draw site"):
        ppvae.draw(model, broken, x, torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize(
    ("validation", "message"),
    [(torch.zeros(5, 4, 4).double(), "got|expected"), (torch.full((5, 8, 8), 3.0).double(), "values from 3 to 3")],
)
def test_validation_data_are_checked_before_the_first_step(validation, message):
    with pytest.raises(ppvae.ContractError, match=message):
        run("gaussian_vae", validation=validation, evaluate=lambda: pytest.fail("it trained"))


def test_nothing_to_train_is_an_error():
    model, guide, x = PAIRS["linear_gaussian"].make()
    guide.requires_grad_(False)
    with pytest.raises(ppvae.ContractError, match="expected a parameter to train"):
        ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, train_model=False, progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent():
    with pytest.raises(RuntimeError, match="found none; use device='cpu'"):
        run(device="cuda")


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "NaN or infinity first in row 20"), (1.5, "values from 0 to 1.5")]
)
def test_bad_data_anywhere_is_refused_before_the_first_step(value, message):
    data = data_of("gaussian_vae")
    data.x[20, 0, 0] = value
    with pytest.raises(ppvae.ContractError, match=message):
        run("gaussian_vae", data=data)


def test_labels_that_the_model_has_not_are_refused():
    data = Dataset(data_of("label").x, torch.full((24,), 7))
    with pytest.raises(ppvae.ContractError, match="labels from 0 to 3"):
        run("label", data=data)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"labelled_per_step": 0}, {"resume": True}])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match="expected"):
        run(**options)


def test_a_schedule_is_a_function_of_the_step():
    seen = []
    run("gaussian_vae", epochs=2, batch_size=6, schedule=lambda step: seen.append(step) or 0.5)
    assert seen == list(range(8))


def test_a_pair_of_the_users_own_trains_and_is_evaluated():
    model, guide, result = run("user", epochs=40)
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    _, _, x = PAIRS["user"].make()
    assert torch.isfinite(ppvae.log_marginal(model, guide, x, num_particles=50).value).all()


def test_denormals_are_flushed_while_it_trains_and_the_callers_choice_is_put_back():
    seen = []

    def look():
        seen.append((torch.full((1,), 1e-30) * 1e-10).item())
        return {}

    run("gaussian_vae", epochs=1, evaluate=look)
    assert seen == [0.0]
    assert (torch.full((1,), 1e-30) * 1e-10).item() > 0

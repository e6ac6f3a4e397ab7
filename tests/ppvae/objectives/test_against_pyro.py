"""Where Pyro's own estimators are right, ours give the same numbers from the same random numbers."""

import pyro
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

import ppvae
from tests.catalogue import LABELS, PAIRS

VECTORISED = {"num_particles": 4, "vectorize_particles": True, "max_plate_nesting": 1}
STOCK = {
    "sampled": (lambda: ppvae.ELBO(analytic_kl=False), lambda: Trace_ELBO(max_plate_nesting=1)),
    "sampled, 4 particles": (lambda: ppvae.ELBO(4, analytic_kl=False), lambda: Trace_ELBO(**VECTORISED)),
    "analytic": (ppvae.ELBO, lambda: TraceMeanField_ELBO(max_plate_nesting=1)),
    "analytic, 4 particles": (lambda: ppvae.ELBO(4), lambda: TraceMeanField_ELBO(**VECTORISED)),
    "importance weighted": (lambda: ppvae.IWAE(4), lambda: RenyiELBO(alpha=0, **VECTORISED)),
}


def loss_and_gradients(objective, pair: str, y=None):
    pyro.clear_param_store()
    model, guide, x = PAIRS[pair].make()
    model.eval()
    guide.eval()
    torch.manual_seed(3)
    args = (x,) if y is None else (x, y)
    loss = objective.loss_and_grads(model, guide, *args)
    return loss, {name: p.grad for name, p in [*model.named_parameters(), *guide.named_parameters()]}


def assert_same(ours, stock):
    assert ours[0] == pytest.approx(stock[0], rel=1e-10)
    for name, gradient in stock[1].items():
        if gradient is not None:
            torch.testing.assert_close(ours[1][name], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("pair", ["gaussian_vae", "convolutional", "learned_noise", "linear_gaussian"])
@pytest.mark.parametrize("kind", STOCK)
def test_same_loss_and_gradient(kind, pair):
    ours, stock = (make() for make in STOCK[kind])
    assert_same(loss_and_gradients(ours, pair), loss_and_gradients(stock, pair))


@pytest.mark.parametrize("pair", ["label", "label_style", "mixture"])
def test_same_enumerated_loss_and_gradient(pair):
    ours = loss_and_gradients(ppvae.ELBO(analytic_kl=False), pair)
    assert_same(ours, loss_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), pair))


@pytest.mark.parametrize("pair", ["label", "label_style"])
def test_same_loss_and_gradient_where_every_label_is_known(pair):
    y = LABELS.clamp(min=0)
    ours = loss_and_gradients(ppvae.ELBO(analytic_kl=False), pair, y)
    assert_same(ours, loss_and_gradients(Trace_ELBO(max_plate_nesting=1), pair, y))


def test_svi_with_ours_and_with_stock_walk_the_same_path():
    ends = []
    for objective in (ppvae.ELBO(), TraceMeanField_ELBO(max_plate_nesting=1)):
        pyro.clear_param_store()
        model, guide, x = PAIRS["gaussian_vae"].make()
        torch.manual_seed(0)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective)
        losses = [svi.step(x) for _ in range(5)]
        ends.append((losses, [p.detach() for p in model.parameters()]))
    assert ends[0][0] == pytest.approx(ends[1][0])
    for ours, stock in zip(ends[0][1], ends[1][1], strict=True):
        torch.testing.assert_close(ours, stock)


def test_called_as_pyro_calls_an_elbo():
    model, guide, x = PAIRS["gaussian_vae"].make()
    loss = ppvae.ELBO()(model, guide)
    assert {id(p) for p in model.parameters()} < {id(p) for p in loss.parameters()}
    assert loss(x).requires_grad

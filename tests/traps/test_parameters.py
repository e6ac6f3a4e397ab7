"""Pyro's global parameter store, and modules outside it."""

import warnings

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule
from torch import nn

import ppvae
from tests.catalogue import PAIRS
from tests.traps.stock import VECTORISED, stock


class PlainModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(2, 5).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class PlainGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 2).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


class PyroPlainModel(PlainModel, PyroModule):
    pass


class PyroPlainGuide(PlainGuide, PyroModule):
    pass


def parameters(*modules):
    return [p for module in modules for p in module.parameters()]


def moved(modules, train) -> list[bool]:
    before = [p.detach().clone() for p in parameters(*modules)]
    train(*modules)
    return [not torch.equal(p, b) for p, b in zip(parameters(*modules), before, strict=True)]


def with_svi(objective, x, steps=3):
    return lambda model, guide: [
        svi.step(x) for svi in [SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), objective)] for _ in range(steps)
    ]


def test_stock_svi_does_not_train_a_second_pair_of_the_same_classes():
    x = torch.randn(6, 5).double()
    first, second, third = ((PyroPlainModel(), PyroPlainGuide()) for _ in range(3))
    assert all(moved(first, with_svi(Trace_ELBO(), x)))
    stock(not any(moved(second, with_svi(Trace_ELBO(), x))), "names of parameters collide in the global store")
    options = {"epochs": 1, "batch_size": 3, "progress": False}
    for pair in (second, third):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert all(moved(pair, lambda model, guide: ppvae.fit(model, guide, ppvae.ELBO(), x, **options)))
    for seed in (0, 1):  # with names of their own, pairs of ppvae train in a stock loop as well
        model, guide, data = PAIRS["gaussian_vae"].make(seed)
        assert all(moved((model, guide), with_svi(Trace_ELBO(), data)))


def test_stock_estimators_give_no_gradient_to_plain_modules():
    x = torch.randn(6, 5).double()
    estimators = [RenyiELBO(alpha=0, num_particles=3, **VECTORISED), Trace_ELBO(), TraceMeanField_ELBO()]
    for estimator in estimators:
        pair = PlainModel(), PlainGuide()
        estimator.loss_and_grads(*pair, x)
        stock(all(p.grad is None for p in parameters(*pair)), "no parameter site, no gradient, no error")
    model, guide = PlainModel(), PlainGuide()
    ppvae.IWAE(3).loss_and_grads(model, guide, x)
    assert all(p.grad.abs().max() > 0 for p in parameters(model, guide))
    options = {"epochs": 1, "batch_size": 3, "progress": False}
    for objective in (ppvae.IWAE(3), Trace_ELBO()):  # fit takes the loss's own gradient where there is one
        pair = PlainModel(), PlainGuide()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert all(moved(pair, lambda m, g, o=objective: ppvae.fit(m, g, o, x, **options)))
    with pytest.raises(ppvae.ContractError, match=r"expected a gradient.*none from RenyiELBO.*derive model and guide"):
        ppvae.fit(PlainModel(), PlainGuide(), estimators[0], x, **options)

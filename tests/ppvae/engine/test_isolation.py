"""Pairs that run without Pyro's global store, in their own mode, with their own random numbers."""

import threading
import warnings
from contextlib import suppress

import pyro
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import ppvae
from ppvae.engine.isolation import (
    denormals_flushed,
    evaluating,
    evaluation_mode,
    forked_randomness,
    frozen,
    isolated,
    modes_restored,
    with_partners,
)
from ppvae.guides import Refined
from tests.catalogue import ALL_PAIRS, PAIRS
from tests.ppvae.engine.pairs import PlainGuide, PlainModel, Wrapped


def refined(model, guide):
    return model, Refined(guide, model, steps=1)


def wrapped(model, guide):
    return Wrapped(model), Wrapped(guide)


def wrapped_refined(model, guide):
    return wrapped(*refined(model, guide))


def compiled(model, guide):
    return tuple(torch.compile(module, backend="eager") for module in (model, guide))


def with_compiled_networks(model, guide):
    model.decoder, guide.encoder = compiled(model.decoder, guide.encoder)
    return model, guide


def masked(model, guide):
    mask = torch.tensor(True)
    return pyro.poutine.mask(model, mask), pyro.poutine.mask(guide, mask)


def called_by_functions(model, guide):
    return (lambda x, y=None: model(x, y)), (lambda x, y=None: guide(x, y))


UNSEEN = [refined, wrapped, wrapped_refined, compiled, with_compiled_networks, masked, called_by_functions]
FUNCTIONS = [masked, called_by_functions]


@pytest.mark.parametrize("make", UNSEEN)
def test_draw_runs_a_pair_that_no_function_has_seen_before(make):
    """Refined, a pair inside a plain nn.Module or a function, a compiled pair: ``draw`` runs each without ``fit``."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    pair = make(model, guide)
    pyro.clear_param_store()
    assert ppvae.draw(*pair, x, num_particles=2).log_weight.shape == (2, len(x))
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("objective", [ppvae.ELBO(), ppvae.DReG(2)], ids=["elbo", "dreg"])
@pytest.mark.parametrize("make", UNSEEN)
def test_stock_svi_trains_a_pair_that_no_function_has_seen_before(make, objective):
    model, guide, x = PAIRS["gaussian_vae"].make()
    pair = make(model, guide)
    pyro.clear_param_store()
    parameters = [*model.parameters(), *guide.parameters()]
    before = [p.detach().clone() for p in parameters]
    svi = pyro.infer.SVI(*pair, pyro.optim.Adam({"lr": 0.1}), objective)
    if make in FUNCTIONS and isinstance(objective, ppvae.DReG):
        with pytest.raises(ppvae.ContractError, match="expected the guide to be a PyroModule"):
            svi.step(x)
        return
    svi.step(x)
    assert all(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


def test_draw_runs_a_conditional_pair_inside_other_modules():
    model, guide, batch = ALL_PAIRS["conditional"].make_batch()
    assert ppvae.draw(*wrapped(model, guide), batch).log_weight.shape == (1, len(batch))
    assert ppvae.draw(*compiled(model, guide), batch).log_weight.shape == (1, len(batch))


def test_isolated_gives_modules_of_one_name_their_own_parameters():
    model, guide = PlainModel(nn.Linear(2, 2)), PlainGuide(nn.Linear(2, 2))
    pyro.clear_param_store()
    x = torch.randn(5, 2)
    torch.manual_seed(0)
    ours = ppvae.draw(model, guide, x)
    torch.testing.assert_close(ours.guide["z"].distribution.mean[0], guide.net(x))
    torch.testing.assert_close(ours.model["x"].distribution.mean[0], model.net(ours.draws["z"][0]))


def test_isolated_puts_the_callers_store_back():
    pyro.clear_param_store()
    kept = pyro.param("kept", torch.ones(2))
    with suppress(RuntimeError), isolated():
        assert not list(pyro.get_param_store().keys())
        pyro.param("inside", torch.zeros(3))
        raise RuntimeError
    assert list(pyro.get_param_store().keys()) == ["kept"]
    assert pyro.param("kept") is kept
    assert pyro.settings.get("module_local_params") is False


def test_isolated_lets_one_thread_in_at_a_time():
    """Pyro's store and settings belong to the process: a second thread waits, and neither finds the other's names."""
    pyro.clear_param_store()
    pyro.param("callers", torch.ones(1))
    inside, release, order = threading.Event(), threading.Event(), []

    def first():
        with isolated():
            inside.set()
            release.wait(10)
            order.append("first leaves")

    def second():
        inside.wait(10)
        with isolated():
            order.append("second enters")

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first leaves", "second enters"]
    assert list(pyro.get_param_store().keys()) == ["callers"]


def test_isolated_can_be_entered_again_by_the_same_thread():
    with isolated(), isolated():
        assert pyro.settings.get("module_local_params") is True


def test_with_partners_reaches_modules_that_are_held_without_being_registered():
    model, guide, _ = PAIRS["gaussian_vae"].make()
    parts = list(with_partners(Refined(guide, model)))
    assert {id(model), id(model.decoder), id(guide), id(guide.encoder)} <= {id(part) for part in parts}
    assert len(parts) == len({id(part) for part in parts})
    assert list(with_partners(lambda: None)) == []


def test_evaluating_puts_every_part_back_in_its_own_mode():
    module = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(2)))
    module[1].eval()
    with suppress(RuntimeError), evaluating(module, lambda: None):
        assert not module.training
        assert not module[0].training
        raise RuntimeError
    assert module.training
    assert module[0].training
    assert not module[1].training
    assert not module[1][0].training


def test_modes_restored_lets_modes_change_inside():
    module = nn.Dropout(0.5)
    with modes_restored(module):
        module.eval()
    assert module.training


def test_frozen_lets_gradients_through_and_not_in():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[0].bias.requires_grad_(False)
    x = torch.ones(3, 2, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]


def test_frozen_pair_in_the_global_store_draws_no_warning():
    """Pyro warns of each parameter that it files without a gradient."""
    pyro.clear_param_store()

    class Half(PyroModule):
        def __init__(self):
            super().__init__(name="half")
            self.weight = nn.Parameter(torch.ones(2))

    module = Half()
    with warnings.catch_warnings(), frozen(module):
        warnings.simplefilter("error")
        _ = module.weight


def test_forked_randomness_leaves_the_callers_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with forked_randomness(torch.device("cpu"), seed=0):
        one = torch.rand(2)
    with forked_randomness(torch.device("cpu"), seed=0):
        same = torch.rand(2)
    with forked_randomness(torch.device("cpu")):
        torch.rand(5)
    assert torch.equal(one, same)
    assert torch.equal(torch.rand(2), expected)


def test_denormals_flushed_reaches_back_to_the_callers_setting():
    tiny = torch.full((1,), 1e-30)
    for before in (False, True):
        torch.set_flush_denormal(before)
        with denormals_flushed():
            assert (tiny * 1e-10).item() == 0
        assert ((tiny * 1e-10).item() == 0) is before
    torch.set_flush_denormal(False)


def test_evaluation_mode_has_no_gradient_no_noise_and_its_own_random_numbers():
    model, guide, _ = PAIRS["gaussian_vae"].make()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with evaluation_mode(model, guide, device=torch.device("cpu"), seed=1):
        assert not torch.is_grad_enabled()
        assert not model.training
        one = torch.rand(2)
    with evaluation_mode(model, guide, device=torch.device("cpu"), seed=1):
        assert torch.equal(one, torch.rand(2))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert torch.is_grad_enabled()

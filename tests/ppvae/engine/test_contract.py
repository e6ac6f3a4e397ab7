"""Base classes of models and guides, and check_pair as a whole."""

import copy
import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.contract import is_amortized
from ppvae.guides import MeanFieldGaussian, Refined
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.engine.pairs import PlainGuide, PlainModel


def test_check_pair_leaves_everything_as_it_was():
    pyro.clear_param_store()
    model, guide, x = PAIRS["label"].make()
    guide.classifier.eval()
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    random_state = torch.get_rng_state()
    ppvae.check_pair(model, guide, x, LABELS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in guide.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert guide.training
    assert not guide.classifier.training
    assert not list(pyro.get_param_store().keys())


def test_check_pair_takes_arrays_in_the_type_of_the_pair():
    model, guide, x = PAIRS["gaussian_vae"].make()
    ppvae.check_pair(model, guide, x.numpy().astype(np.float32))
    ppvae.check_pair(model.float(), guide.float(), x.numpy())


def test_check_pair_runs_rows_with_and_without_labels():
    """A pair that works without labels and fails with them is found, although a few rows are unlabelled."""

    class OnlyWithoutLabels(ppvae.Guide):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, y=None):
            if y is not None:
                raise RuntimeError("no labels, please")
            self.inner(x)

    model, guide, x = PAIRS["label"].make()
    broken = OnlyWithoutLabels(guide)
    ppvae.check_pair(model, broken, x)
    with pytest.raises(ppvae.ContractError, match=r"guide failed on x of shape \(4, 8, 8\) with labels.*no labels"):
        ppvae.check_pair(model, broken, x, LABELS)


def test_check_pair_passes_conditions_by_name():
    model, guide, batch = ALL_PAIRS["two_conditions"].make_batch()
    ppvae.check_pair(model, guide, batch.x, **batch.given)


def test_check_pair_warns_of_parameter_names_that_a_stock_loop_would_mix_up():
    model, guide = PlainModel(nn.Linear(2, 2).double()), PlainGuide(nn.Linear(2, 2).double())
    with pytest.warns(UserWarning, match=r"both name a parameter 'net\.bias'"):
        ppvae.check_pair(model, guide, torch.randn(5, 2).double())
    named, other, x = PAIRS["gaussian_vae"].make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ppvae.check_pair(named, other, x)


def test_two_pairs_in_one_stock_loop_train_as_each_does_alone():
    def train(pairs, turns):
        pyro.clear_param_store()
        loops = []
        for model, guide, x in pairs:
            optimizer = pyro.optim.Adam({"lr": 0.01})
            loops.append((pyro.infer.SVI(model, guide, optimizer, loss=ppvae.ELBO()), x))
        for turn in range(turns):
            for svi, x in loops:
                torch.manual_seed(turn)
                svi.step(x)
        return [[p.detach().clone() for p in (*m.parameters(), *g.parameters())] for m, g, _ in pairs]

    pair = PAIRS["gaussian_vae"]
    first, second = train([pair.make(0), pair.make(1)], 5)
    (alone_first,), (alone_second,) = train([pair.make(0)], 5), train([pair.make(1)], 5)
    for together, alone in ((first, alone_first), (second, alone_second)):
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a, b)


def test_copy_of_a_pair_trains_apart_from_the_original():
    pyro.clear_param_store()
    model, guide, x = PAIRS["gaussian_vae"].make()
    copies = copy.deepcopy(model), copy.deepcopy(guide)
    svi = pyro.infer.SVI(*copies, pyro.optim.Adam({"lr": 0.1}), loss=ppvae.ELBO())
    svi.step(x)
    pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), loss=ppvae.ELBO()).step(x)
    for original, copied in zip(model.parameters(), copies[0].parameters(), strict=True):
        assert not torch.equal(original, copied)


@pytest.mark.parametrize("used", [False, True])
def test_copy_of_a_refined_pair_is_a_pair_whether_or_not_it_has_run(used):
    """Refined holds a guide, a module of Pyro within another one: both get new names together."""
    pyro.clear_param_store()
    model, inner, x = PAIRS["gaussian_vae"].make()
    guide = Refined(inner, model, steps=1)
    if used:
        ppvae.draw(model, guide, x)
        pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=ppvae.ELBO()).step(x)
    model_copy, guide_copy = copy.deepcopy((model, guide))
    assert guide_copy.partners == (model_copy,)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    pyro.infer.SVI(model_copy, guide_copy, pyro.optim.Adam({"lr": 0.1}), loss=ppvae.ELBO()).step(x)
    for original, old in zip((*model.parameters(), *guide.parameters()), before, strict=True):
        assert torch.equal(original, old)
    for original, copied in zip(guide.parameters(), guide_copy.parameters(), strict=True):
        assert not torch.equal(original, copied)


def test_amortized_guide_without_a_distribution_says_what_to_define():
    class Half(ppvae.AmortizedGuide):
        pass

    with pytest.raises(NotImplementedError, match=r"Half must define distribution\(features\)"):
        Half(nn.Linear(5, 4))(torch.zeros(3, 5))


def test_is_amortized_asks_for_the_forward_of_the_class():
    class Own(MeanFieldGaussian):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    model, guide, _ = PAIRS["gaussian_vae"].make()
    assert is_amortized(guide)
    assert is_amortized(Refined(guide, model))
    assert not is_amortized(Own(nn.Linear(5, 4)))
    assert not is_amortized(PAIRS["user"].guide())

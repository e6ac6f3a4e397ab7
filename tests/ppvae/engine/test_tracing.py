"""What a model or a guide is called with, and its sites."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.tracing import arguments, conditions_of, distribution_at, required_conditions_of
from ppvae.guides import MeanFieldGaussian, Refined
from tests.catalogue import ALL_PAIRS, PAIRS
from tests.ppvae.engine.pairs import Wrapped


class EncodesWith(MeanFieldGaussian):
    """Names a condition where an amortized guide names it: in ``encode``."""

    def encode(self, x, y=None, temperature=None):
        return self.encoder(x)


def functions():
    conditional, two = ALL_PAIRS["conditional"].make_batch()[0], ALL_PAIRS["two_conditions"].make_batch()[1]
    encoding = EncodesWith(nn.Linear(5, 4))
    return {
        "forward of a module": (conditional, {"c"}, {"c"}),
        "forward with two": (two, {"a", "b"}, {"a", "b"}),
        "constructor of an amortized guide": (MeanFieldGaussian(nn.Linear(5, 4), ["y", "c"]), {"c"}, {"c"}),
        "constructor of a compiled guide": (
            torch.compile(MeanFieldGaussian(nn.Linear(5, 4), "c"), backend="eager"),
            {"c"},
            {"c"},
        ),
        "encode of an amortized guide": (encoding, {"temperature"}, set()),
        "Refined, which passes on what its guide names": (Refined(encoding, conditional), None, set()),
        "a compiled module": (torch.compile(conditional, backend="eager"), {"c"}, {"c"}),
        "a compiled amortized guide": (torch.compile(encoding, backend="eager"), {"temperature"}, set()),
        "none": (PAIRS["gaussian_vae"].make()[0], set(), set()),
        "a function": (lambda x, y=None, *, c, d=1: None, {"c", "d"}, {"c"}),
        "a function of x and y": (lambda x, y: None, set(), set()),
        "any": (lambda x, y=None, **given: None, None, set()),
        "one and any": (lambda x, y=None, *, c, **given: None, None, {"c"}),
        "a wrapper of everything": (Wrapped(conditional), None, set()),
        "more by place alone": (lambda x, *rest: None, set(), set()),
    }


@pytest.mark.parametrize("case", functions())
def test_conditions_of_reads_the_names_after_y(case):
    function, names, required = functions()[case]
    assert conditions_of(function) == names
    assert required_conditions_of(function) == required


def test_arguments_pass_the_conditions_that_a_function_names():
    x, c, d = torch.zeros(3, 2), torch.ones(3), torch.ones(3)
    batch = as_batch(x, torch.tensor([0, 1, 0]), {"c": c, "d": d})
    place, named = arguments(lambda x, y=None, *, c: None, batch)
    assert place == (x, batch.y)
    assert named.keys() == {"c"}
    assert arguments(lambda x, y=None, **given: None, batch)[1].keys() == {"c", "d"}
    assert arguments(lambda x, y=None: None, batch)[1] == {}


@pytest.mark.parametrize("y", [None, torch.tensor([0, -1, 1])])
def test_arguments_hide_labels_that_are_not_all_known(y):
    assert arguments(lambda x, y: None, as_batch(torch.zeros(3, 2), y))[0][1] is None


def test_distribution_at_runs_the_guide_no_further_than_the_site():
    ran = []

    class TwoSites(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Categorical(logits=x.new_zeros(3)))
                ran.append("beyond")
                pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    assert distribution_at(TwoSites(), "y", as_batch(torch.zeros(4))).batch_shape == (4,)
    assert ran == []


def test_distribution_at_with_draws_of_earlier_latents_has_their_dimension_where_it_depends_on_them():
    class Both(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                a = pyro.sample("a", dist.Normal(x, 1.0))
                pyro.sample("y", dist.Categorical(logits=torch.stack([a, -a], -1)))
                pyro.sample("z", dist.Normal(x, 2.0))

    batch = as_batch(torch.zeros(4))
    of_label = distribution_at(Both(), "y", batch, num_draws=3)
    assert of_label.batch_shape == (3, 4)
    assert len(of_label.logits[..., 0].unique()) == 12
    assert distribution_at(Both(), "y", batch).batch_shape == (4,)
    assert distribution_at(Both(), "z", batch, num_draws=3).batch_shape == (4,)


def test_distribution_at_refuses_a_site_that_is_not_drawn():
    guide, batch = PAIRS["linear_gaussian"].make()[1], as_batch(torch.zeros(4, 5).double())
    with pytest.raises(ppvae.ContractError, match="draws site 'y' when it is called without labels, but it does not"):
        distribution_at(guide, "y", batch)

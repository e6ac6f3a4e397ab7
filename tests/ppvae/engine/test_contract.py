"""check_pair says in words what is wrong with a pair or with its data."""

import copy
import warnings

import pyro
import pytest
import torch
from ppvae.guides import LabelGuide, MeanFieldGaussian
from ppvae.models import GaussianVAE, SemiSupervisedVAE
from pyro import distributions as dist
from pyro.nn import PyroModule
from torch import nn

import ppvae
from ppvae.nn import MLP, LabelledMLP
from tests.catalogue import LABELS, PAIRS


def guide_of(body, **modules):
    """A guide whose sample statements are ``body(self, x)``, inside the plate."""

    class Made(ppvae.Guide):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(3).double())
            for name, module in modules.items():
                setattr(self, name, module)

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                body(self, x)

    return Made()


def normal(size: int):
    return dist.Normal(torch.zeros(size).double(), 1.0).to_event(1)


BROKEN_GUIDES = {
    r"misses latent site\(s\) \['z'\]": lambda self, x: None,
    r"invents site\(s\) \['w'\]": lambda self, x: [pyro.sample(name, normal(3)) for name in "zw"],
    r"event shape \(3,\) in the model and \(2,\) in the guide": lambda self, x: pyro.sample("z", normal(2)),
    r"guide to observe nothing, got site 'z'": lambda self, x: pyro.sample("z", normal(3), obs=x.new_zeros(len(x), 3)),
    r'one plate "data" of size 6 at dim -1, got .*\'extra\'': lambda self, x: _in_extra_plate(),
    r"without a scale, got 2": lambda self, x: _scaled(),
    r"belong to the module, got pyro.param\('free'\)": lambda self, x: pyro.sample(
        "z", dist.Normal(pyro.param("free", torch.zeros(3).double()), 1.0).to_event(1)
    ),
    r"the guide failed on x of shape \(6, 8, 8\)": lambda self, x: pyro.sample("z", normal(3)) @ torch.ones(7).double(),
}


def _in_extra_plate():
    with pyro.plate("extra", 3, dim=-3):
        pyro.sample("z", normal(3))


def _scaled():
    with pyro.poutine.scale(scale=2.0):
        pyro.sample("z", normal(3))


@pytest.mark.parametrize("message", BROKEN_GUIDES)
def test_broken_guides(message):
    model, _, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.check_pair(model, guide_of(BROKEN_GUIDES[message]), x)


class OutsideThePlate(ppvae.Guide):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3).double())

    def forward(self, x, y=None):
        pyro.sample("z", dist.Normal(self.loc.expand(len(x), 3), 1.0).to_event(1))


def test_a_site_outside_the_plate():
    model, _, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match='in the one plate "data" of size 6 at dim -1, got no plate'):
        ppvae.check_pair(model, OutsideThePlate(), x)


def test_a_support_that_does_not_match():
    model, _, x = PAIRS["user"].make()

    class Real(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("shape", normal(2))
                pyro.sample("size", dist.Normal(x.new_full((len(x),), -5.0), 0.1))

    with pytest.raises(ppvae.ContractError, match=r"'size' .* outside the prior's support"):
        ppvae.check_pair(model, Real(), x)


def test_a_model_that_observes_nothing():
    class Silent(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", normal(3))

    _, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match='expected the model to observe site "x"'):
        ppvae.check_pair(Silent(), guide, x)


def test_networks_of_the_wrong_size():
    _, guide, x = PAIRS["gaussian_vae"].make()
    model = GaussianVAE(MLP(3, [16], (28, 28)), 3).double()
    with pytest.raises(ppvae.ContractError, match=r"x of shape \(8, 8\), got a likelihood over shape \(28, 28\)"):
        ppvae.check_pair(model, guide, x)
    model = GaussianVAE(MLP(4, [16], (8, 8)), 3).double()
    with pytest.raises(ppvae.ContractError, match=r"expected an input of shape \(..., 4\), got \(2, 6, 3\)"):
        ppvae.check_pair(model, guide, x)


def test_model_and_guide_that_share_a_parameter():
    shared = MLP((8, 8), [16], 6).double()
    model, _, x = PAIRS["gaussian_vae"].make()
    model.extra = shared
    with pytest.raises(ppvae.ContractError, match="share no parameter"):
        ppvae.check_pair(model, MeanFieldGaussian(shared), x)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "row 2"),
        (float("inf"), "row 2"),
        (1.5, "values from 0 to 1.5"),
        (-0.5, "values from -0.5 to 1"),
    ],
)
def test_data_that_a_bernoulli_cannot_have_made(value, message):
    model, guide, x = PAIRS["gaussian_vae"].make()
    x[2, 3, 3] = value
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.check_pair(model, guide, x)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 1, 2, 3, 4, 0]), "labels from 0 to 3, or -1 where unknown, got 0 to 4"),
        (torch.tensor([0, 1, 2, 3, -2, 0]), "got -2 to 3"),
        (
            torch.zeros(5, dtype=torch.long),
            r"shape \(6,\), one label a row of x, got torch.int64 of shape \(5,\)",
        ),
        (torch.zeros(6), "got torch.float32"),
    ],
)
def test_labels_that_do_not_fit(y, message):
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.check_pair(model, guide, x, y)


def test_no_data():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="B >= 1"):
        ppvae.check_pair(model, guide, x[:0])


def test_leaves_everything_as_it_was():
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


def test_names_that_a_stock_loop_would_mix_up_are_pointed_out():
    class Plain(PyroModule):
        def __init__(self, net):
            super().__init__()
            self.net = net

    class Model(Plain):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(2))
                pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)

    class Guide(Plain):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))

    model, guide = Model(nn.Linear(2, 2).double()), Guide(nn.Linear(2, 2).double())
    x = torch.randn(5, 2).double()
    with pytest.warns(UserWarning, match=r"both name a parameter 'net\.bias'"):
        ppvae.check_pair(model, guide, x)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=2, batch_size=5, progress=False)
    after = [*model.parameters(), *guide.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert model.net.weight.data_ptr() != guide.net.weight.data_ptr()


def test_two_pairs_side_by_side_do_not_touch_each_other():
    """Trained in turns by stock SVI, each pair ends where it ends when it is trained alone."""

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


def test_a_copy_of_a_pair_is_a_pair_of_its_own():
    pyro.clear_param_store()
    model, guide, x = PAIRS["gaussian_vae"].make()
    copies = copy.deepcopy(model), copy.deepcopy(guide)
    svi = pyro.infer.SVI(*copies, pyro.optim.Adam({"lr": 0.1}), loss=ppvae.ELBO())
    svi.step(x)
    pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), loss=ppvae.ELBO()).step(x)
    for original, copied in zip(model.parameters(), copies[0].parameters(), strict=True):
        assert not torch.equal(original, copied)


def test_semi_supervised_pair_on_the_features_of_a_trained_m1():
    """M1+M2: the second storey is an ordinary pair on the posterior means of the first."""
    m1, m1_guide, x = PAIRS["gaussian_vae"].make()
    ppvae.fit(m1, m1_guide, ppvae.ELBO(), x, epochs=2, batch_size=3, progress=False)
    codes = ppvae.features(m1_guide, x).detach()
    m2 = SemiSupervisedVAE(LabelledMLP(2, 4, [8], 3), 2, 4, ppvae.distributions.likelihoods.Gaussian(0.5)).double()
    m2_guide = LabelGuide(MLP(3, [8], 4), MLP(3, [8], 4)).double()
    data = ppvae.Dataset(codes, LABELS, num_classes=4)
    result = ppvae.fit(
        m2, m2_guide, ppvae.ELBO() + ppvae.ClassifierLoss(1.0), data, epochs=3, batch_size=2, progress=False
    )
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    assert ppvae.predict(m2_guide, codes).shape == (len(x), 4)

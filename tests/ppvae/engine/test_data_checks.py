"""Checks of data, labels and conditions against a pair."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine import data_checks
from ppvae.engine.batch import as_batch
from ppvae.guides import LabelGuide, MeanFieldGaussian
from ppvae.models import GaussianVAE, LinearGaussian
from ppvae.nn import MLP
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.engine.pairs import TwoSensors, guide_of, normal


def test_check_pair_refuses_draws_outside_the_support_of_the_prior():
    model, _, x = PAIRS["user"].make()

    class Real(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("shape", normal(2))
                pyro.sample("size", dist.Normal(x.new_full((len(x),), -5.0), 0.1))

    with pytest.raises(ppvae.ContractError, match=r"'size' .* outside the prior's support"):
        ppvae.check_pair(model, Real(), x)


def test_check_pair_refuses_a_model_that_does_not_observe_x():
    class Silent(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", normal(3))

    _, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match='expected the model to observe site "x"'):
        ppvae.check_pair(Silent(), guide, x)


def test_check_pair_refuses_networks_of_the_wrong_size():
    _, guide, x = PAIRS["gaussian_vae"].make()
    model = GaussianVAE(MLP(3, [16], (28, 28)), 3).double()
    with pytest.raises(ppvae.ContractError, match=r"x of shape \(8, 8\), got a likelihood over shape \(28, 28\)"):
        ppvae.check_pair(model, guide, x)
    model = GaussianVAE(MLP(4, [16], (8, 8)), 3).double()
    with pytest.raises(ppvae.ContractError, match=r"expected an input of shape \(..., 4\), got \(2, 6, 3\)"):
        ppvae.check_pair(model, guide, x)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, r"without NaN, got NaN first in row 2.*missing=True"),
        (torch.inf, "finite data, got infinity first in row 2"),
        (1.5, "values from 0 to 1.5, first outside in row 2"),
        (-0.5, "values from -0.5 to 1, first outside in row 2"),
        (1.0000001, r"values from 0 to 1\.0000001, first outside in row 2"),
    ],
)
def test_check_pair_names_the_first_row_and_the_values_outside_the_likelihood(value, message):
    """A grey level of 1.0000001, as rounding leaves it, is reported with its digits and its row."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    x[2, 3, 3] = value
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.check_pair(model, guide, x)


def test_check_support_counts_rows_from_where_the_block_begins():
    likelihood = dist.Uniform(torch.zeros(4, 2), torch.ones(4, 2)).to_event(1)
    with pytest.raises(ppvae.ContractError, match="row 103"):
        data_checks.check_support(likelihood, torch.tensor([[0.5, 0.5]] * 3 + [[0.5, 7.0]]), first_row=100)


def test_check_support_accepts_nan_where_elements_may_be_missing():
    model = LinearGaussian(torch.randn(5, 2), torch.zeros(5), missing=True).double()
    guide = MeanFieldGaussian(nn.Sequential(Filled(), MLP(5, [], 4))).double()
    x = torch.randn(6, 5).double()
    x[2, 3] = torch.nan
    ppvae.check_pair(model, guide, x)
    x[4, 1] = torch.inf
    with pytest.raises(ppvae.ContractError, match="got infinity first in row 4"):
        ppvae.check_pair(model, guide, x)


class Filled(nn.Module):
    def forward(self, x):
        return x.nan_to_num()


# labels


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 1, 2, 3, 4, 0]), "labels from 0 to 3, or -1 where unknown, got 0 to 4"),
        (torch.tensor([0, 1, 2, 3, -2, 0]), "got -2 to 3"),
        (torch.tensor([4, -1, -1, -1, -1, -1]), "got -1 to 4"),
        (torch.zeros(5, dtype=torch.long), r"shape \(6,\), one label a row of x, got \(5,\)"),
        (torch.zeros(6), "class indices.*got torch.float32"),
    ],
)
def test_check_pair_refuses_labels_that_do_not_fit(y, message):
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=message):
        ppvae.check_pair(model, guide, x, y)


def test_check_pair_refuses_labels_below_minus_one_of_a_pair_without_a_label_site():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="got -3 to 2"):
        ppvae.check_pair(model, guide, x, torch.tensor([0, 1, 2, -3, 0, 0]))


def test_check_pair_refuses_no_data():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="B >= 1"):
        ppvae.check_pair(model, guide, x[:0])


class OneHotModel(ppvae.Model):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)), obs=y)
            pyro.sample("x", dist.Normal(y.sum(-1), 1.0), obs=x)


def test_check_pair_refuses_one_hot_labels():
    guide = guide_of(lambda self, x: pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3))))
    with pytest.raises(ppvae.ContractError, match="use Categorical, not OneHotCategorical"):
        ppvae.check_pair(OneHotModel(), guide, torch.ones(3).double())


def test_check_pair_refuses_a_guide_that_draws_a_label_that_is_given():
    model, guide, x = PAIRS["label"].make()

    class Always(LabelGuide):
        def forward(self, x, y=None):
            super().forward(x)

    always = Always(guide.classifier, guide.encoder).double()
    ppvae.check_pair(model, always, x)
    with pytest.raises(ppvae.ContractError, match='not to draw site "y" when labels are given'):
        ppvae.check_pair(model, always, x, LABELS)


# conditions


def test_check_conditions_names_what_is_missing_and_what_nobody_takes():
    model, guide, batch = ALL_PAIRS["conditional"].make_batch()
    c = batch.given["c"]
    with pytest.raises(ppvae.ContractError, match=r"condition\(s\) \['c'\] that ConditionalModel names, got none.*c="):
        ppvae.check_pair(model, guide, batch.x)
    with pytest.raises(ppvae.ContractError, match=r"names \(\['c'\]\), got \['colour'\]; check the spelling"):
        ppvae.check_pair(model, guide, batch.x, c=c, colour=c)
    plain_model, plain_guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=r"names \(none\), got \['c'\]"):
        ppvae.check_pair(plain_model, plain_guide, x, c=c)
    with pytest.raises(ppvae.ContractError, match=r"condition 'c' to have 6 rows"):
        ppvae.check_pair(model, guide, batch.x, c=c[:5])


def test_check_conditions_accepts_any_name_where_a_function_takes_them_all():
    data_checks.check_conditions(
        [lambda x, y=None, **given: None], as_batch(torch.zeros(2), given={"c": torch.zeros(2)})
    )


# the model reads no data


class Leaking(ppvae.Model):
    """A model with one density that reads x."""

    def __init__(self, leak):
        super().__init__()
        self.leak = leak
        self.weight = nn.Parameter(torch.ones(5).double())

    def forward(self, x, y=None):
        read = dict.fromkeys(("prior", "logits"), 0.0)
        read |= {self.leak: x @ torch.full((5, 5), 0.3).to(x).tril(-1)}
        with pyro.plate("data", len(x)):
            loc = read["prior"][..., :2] if self.leak == "prior" else x.new_zeros(2)
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            logits = z.sum(-1, keepdim=True) * self.weight
            logits = logits + read["logits"] if self.leak == "logits" else logits
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


@pytest.mark.parametrize(("leak", "site"), [("logits", "x"), ("prior", "z")])
@pytest.mark.parametrize("x", ["draws", "zeros"])
def test_check_pair_refuses_a_model_that_reads_its_own_data(leak, site, x):
    """Logits plus x times a lower triangle, or a prior of x: the density is no p(x | z), and no bound is one."""
    _, guide, data = PAIRS["linear_gaussian"].make()
    data = (data > 0).double() if x == "draws" else torch.zeros_like(data)
    with pytest.raises(ppvae.ContractError, match=rf"distribution of '{site}' to be a function of latents.*x changed"):
        ppvae.check_pair(Leaking(leak), guide, data)
    ppvae.check_pair(Leaking("nothing"), guide, data)


class Autoregressive(dist.TorchDistribution):
    """p(x) = prod_d Bernoulli(x_d; logits of x_<d): the density itself runs a masked map of the value."""

    arg_constraints, support = {}, dist.constraints.independent(dist.constraints.boolean, 1)

    def __init__(self, logits):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Autoregressive(self.logits.expand(*batch_shape, *self.event_shape))

    def log_prob(self, value):
        logits = self.logits + value @ torch.full((5, 5), 0.3).to(value).tril(-1)
        return dist.Bernoulli(logits=logits).log_prob(value).sum(-1)

    def sample(self, sample_shape=torch.Size()):  # noqa: B008
        return torch.zeros(*sample_shape, *self.logits.shape).to(self.logits)


def test_check_pair_accepts_a_distribution_that_runs_a_network_of_its_value():
    class Model(Leaking):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", Autoregressive(z.sum(-1, keepdim=True) * self.weight), obs=x)

    _, guide, x = PAIRS["linear_gaussian"].make()
    ppvae.check_pair(Model("nothing"), guide, (x > 0).double())


def test_check_pair_accepts_x_as_a_declared_condition():
    """An earlier frame of a video, say: what p reads is named, and then it may be anything."""

    class Model(Leaking):
        def forward(self, x, y=None, *, before):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(before[..., :2], 1.0).to_event(1))
                pyro.sample("x", dist.Normal(before + z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    _, guide, x = PAIRS["linear_gaussian"].make()
    ppvae.check_pair(Model("nothing"), guide, x, before=x)


@pytest.mark.parametrize("kind", ["after", "factor", "before"])
def test_check_pair_accepts_further_observations(kind):
    _, guide, x = PAIRS["linear_gaussian"].make()
    ppvae.check_pair(TwoSensors(kind).double(), guide, x)

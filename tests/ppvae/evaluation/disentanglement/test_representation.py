"""Codes of a whole grid, from a guide and as given."""

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.data import Dataset, Factors
from ppvae.distributions.likelihoods import Gaussian
from ppvae.evaluation.disentanglement import METRICS, Representation, represent, score
from ppvae.evaluation.disentanglement.representation import _prior
from ppvae.guides import FlowGuide, MeanFieldGaussian
from ppvae.guides.flow import Reversed
from ppvae.models import HierarchicalVAE, LinearGaussian
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.evaluation.disentanglement.codes import SMALL, perfect, representation


def pair():
    """A guide with codes linear in x, and data equal to the factors."""
    torch.manual_seed(0)
    model, guide = LinearGaussian(torch.randn(3, 2), torch.zeros(3), 0.7), MeanFieldGaussian(MLP(3, [], 4))
    return model, guide, Dataset(perfect(SMALL), factors=SMALL, name="grid")


def test_represent_returns_the_guides_means_scales_and_kl():
    model, guide, data = pair()
    found = represent(model, guide, data, batch_size=7)
    loc, log_scale = guide.encoder(data.x).detach().chunk(2, -1)
    torch.testing.assert_close(found.codes, loc)
    torch.testing.assert_close(found.scales, log_scale.exp())
    kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale)
    torch.testing.assert_close(found.kl, kl.mean(0))
    assert found.factors is SMALL
    assert (found.prior.loc.tolist(), found.prior.scale.tolist()) == ([0, 0], [1, 1])


def test_represent_draws_a_mean_without_a_closed_form_by_the_seed():
    model, guide, data = pair()
    flow = FlowGuide(guide.encoder, [Reversed(), Reversed()], 2)  # the same q without a closed-form mean
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one, same, other = (represent(model, flow, data, seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(torch.get_rng_state(), before)
    torch.testing.assert_close(one.codes, same.codes, rtol=0, atol=0)
    assert not torch.equal(one.codes, other.codes)
    exact = represent(model, guide, data)
    assert ((one.codes - exact.codes).abs() < 6 * exact.scales / 32**0.5).all()
    assert one.scales is None
    assert one.kl is None
    assert score(one, leave_out=["dci"], num_train=50, num_test=20).aggregate is None


class TwoLayers(ppvae.Guide):
    """q(z1 | x) q(z2 | z1)."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x, 0.5).to_event(1))
            pyro.sample("z2", dist.Normal(2 * z1, 0.3).to_event(1))


def test_represent_gives_no_kl_where_the_prior_depends_on_another_latent():
    model = HierarchicalVAE(MLP(1, [], 1), [MLP(1, [], 2)], 1, Gaussian())
    line = Factors(("a",), (6,))
    data = Dataset(torch.arange(6.0).unsqueeze(1), factors=line)
    assert represent(model, TwoLayers(), data, site="z1").kl is None  # p(z1 | z2)
    found = represent(model, TwoLayers(), data, site="z2")
    assert found.kl.shape == found.prior.loc.shape == (1,)
    torch.testing.assert_close(found.codes[:, 0], 2 * data.x[:, 0], rtol=0, atol=2 * 0.5 * 4)


def test_represent_uses_the_most_probable_binarization():
    model, guide, _ = pair()
    grey = (perfect(SMALL) > 0).byte() * 100 + 100
    data = Dataset(grey, factors=SMALL, binarization="dynamic")
    loc = guide.encoder((grey > 127).float()).detach()[:, :2]
    torch.testing.assert_close(represent(model, guide, data).codes, loc)


def test_represent_refuses_data_without_factors_and_a_missing_site():
    model, guide, data = pair()
    with pytest.raises(ppvae.DataError, match=r"got 'grid' without factors; use all rows of \"sprites\""):
        represent(model, guide, data.take(slice(0, 10)))
    with pytest.raises(ppvae.ContractError, match="draws site 'w'"):
        represent(model, guide, data, site="w")


def test_representation_names_the_row_of_a_code_that_is_not_finite():
    codes = perfect(SMALL).clone()
    codes[17, 1] = torch.nan
    with pytest.raises(ppvae.DataError, match="first in row 17"):
        Representation(SMALL, codes)


def test_representation_refuses_other_types_and_shapes():
    with pytest.raises(ppvae.DataError, match=r"shape \(60, D\)"):
        Representation(SMALL, torch.zeros(59, 2))
    with pytest.raises(ppvae.DataError, match="at least two values"):
        Representation(Factors(("a", "b"), (1, 1)), torch.zeros(1, 2))
    for wrong, message in (
        ({"codes": perfect(SMALL).numpy()}, "codes to be a floating torch tensor, got ndarray"),
        ({"codes": perfect(SMALL).long()}, "got torch.int64"),
        ({"codes": None}, "got NoneType"),
        ({"scales": torch.ones(60, 3).long()}, "scales to be a floating torch tensor, got torch.int64"),
        ({"kl": [1.0, 1.0, 1.0]}, "kl to be a floating torch tensor, got list"),
        ({"kl": torch.ones(2)}, r"each of the 3 dimensions, got \[1.0, 1.0\]"),
        ({"kl": torch.tensor([1.0, torch.nan, 1.0])}, "a KL, not NaN"),
    ):
        with pytest.raises(ppvae.DataError, match=message):
            Representation(SMALL, **{"codes": perfect(SMALL), **wrong})
    with pytest.raises(ppvae.DataError, match="scales of the shape of the codes"):
        Representation(SMALL, perfect(SMALL), torch.ones(60, 2))
    with pytest.raises(ValueError, match="at least 1 for rows, got 0"):
        representation("perfect", SMALL).sample(0, np.random.default_rng(0))


def test_score_of_half_precision_codes_equals_that_of_single_precision():
    codes = perfect(SMALL).bfloat16()
    found = score(Representation(SMALL, codes), leave_out=["dci"], num_train=100, num_test=50).scores
    assert found == score(Representation(SMALL, codes.float()), leave_out=["dci"], num_train=100, num_test=50).scores


def test_represent_refuses_a_discrete_site_by_name():
    model, guide, x = PAIRS["label"].make()
    data = Dataset(x[:4], factors=Factors(("a",), (4,)))
    with pytest.raises(ppvae.ContractError, match="a continuous latent at site 'y', got a Categorical"):
        represent(model, guide, data, site="y")


@pytest.mark.parametrize("part", [0, 1])
def test_prior_that_depends_on_the_datum_is_none(part):
    parts = [torch.zeros(4, 2), torch.ones(4, 2)]
    assert _prior(dist.Normal(*parts).to_event(1)).loc.tolist() == [0, 0]
    parts[part] = parts[part] + torch.arange(4.0)[:, None]
    assert _prior(dist.Normal(*parts).to_event(1)) is None


def test_sample_draws_rows_with_replacement_and_their_values():
    r = representation("perfect", SMALL)
    codes, values = r.sample(1000, np.random.default_rng(0))
    for d in range(3):
        assert (np.diff(codes[values[:, d].argsort(), d]) >= 0).all()
    assert len(np.unique(values, axis=0)) == len(SMALL)


def test_score_ignores_factors_of_one_value():
    padded = Factors(("colour", "a", "lone", "b", "c"), (1, 3, 1, 4, 5))
    one, other = representation("rotated", SMALL), Representation(padded, representation("rotated", SMALL).codes)
    assert other.varying == SMALL
    sizes = {"num_train": 100, "num_test": 50}
    found = [score(r, leave_out=["aggregate"], **sizes).scores for r in (one, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize("code", ["constant", "one dimension", "one factor"])
def test_score_of_poor_codes_is_finite(code):
    line = Factors(("a",), (4,))
    r = {
        "constant": representation("constant", SMALL),
        "one dimension": Representation(SMALL, perfect(SMALL)[:, :1]),
        "one factor": Representation(line, perfect(line)),
    }[code]
    found = score(r, num_train=100, num_test=50).scores
    assert all(0 <= value <= 1 for value in found.values()), found
    assert len(found) >= len(METRICS)

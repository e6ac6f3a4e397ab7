"""What evaluators require of a pair beyond the contract."""

import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.pair import Pair
from ppvae.engine.sites import Site
from ppvae.evaluation.requirements import (
    is_discrete,
    require_amortized,
    require_continuous,
    require_known,
    require_weights,
)
from ppvae.guides import FullRankGaussian, LabelGuide, MeanFieldGaussian
from ppvae.nn import MLP
from tests.ppvae.oracles import linear_gaussian, nearly_exact

CONTINUOUS = Site("z", dist.Normal(torch.zeros(3), 1.0), torch.zeros(3))
CATEGORICAL = dist.Categorical(torch.ones(3, 4))


@pytest.mark.parametrize(
    ("fn", "discrete"),
    [
        (CATEGORICAL, True),
        (dist.Bernoulli(torch.full((3,), 0.5)).to_event(1), True),
        (dist.OneHotCategorical(torch.ones(4)), True),
        (dist.Poisson(2.0), True),
        (dist.Normal(torch.zeros(3), 1.0).to_event(1), False),
        (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), False),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform()]), False),
    ],
)
def test_is_discrete_tells_counts_from_densities(fn, discrete):
    assert is_discrete(fn) is discrete


def test_require_continuous_names_the_discrete_latents():
    latent = Site("w", CATEGORICAL, torch.zeros(3))
    with pytest.raises(ppvae.ContractError, match=r"expected continuous latents, got the discrete site\(s\) \['w'\]"):
        require_continuous({"z": CONTINUOUS, "w": latent})


def test_require_continuous_allows_discrete_data():
    sites = {"z": CONTINUOUS, "x": Site("x", CATEGORICAL, torch.zeros(3), observed=True)}
    assert require_continuous(sites) is None


def test_require_known_refuses_labels_that_are_known_in_part():
    x = torch.zeros(3, 5)
    for y in (None, torch.tensor([0, 1, 2])):
        assert require_known(as_batch(x, y)) is None
    for y in (torch.tensor([0, -1, 2]), torch.tensor([-1, -1, -1])):
        with pytest.raises(ppvae.ContractError, match="expected labels that are all known, or None"):
            require_known(as_batch(x, y))


def test_require_weights_refuses_a_narrower_support_and_keeps_the_random_state():
    class Positive(MeanFieldGaussian):
        def distribution(self, features):
            return dist.LogNormal(features.chunk(2, -1)[0], 1.0).to_event(1)

    model, x = linear_gaussian()
    good, narrow = nearly_exact(model), Positive(MLP(5, [], 4)).double()
    state = torch.get_rng_state()
    assert require_weights(Pair(model, good), as_batch(x)) is None
    with pytest.raises(ppvae.ContractError, match=r"positive on \(0, inf\) alone"):
        require_weights(Pair(model, narrow), as_batch(x))
    assert torch.equal(torch.get_rng_state(), state)


class OwnForward(MeanFieldGaussian):
    def forward(self, x, y=None):
        super().forward(x, y)


@pytest.mark.parametrize("guide", [MeanFieldGaussian(MLP(5, [], 4)), FullRankGaussian(MLP(5, [], 5), 2)])
def test_require_amortized_gives_back_a_guide_with_features(guide):
    assert require_amortized(guide) is guide


@pytest.mark.parametrize("guide", [LabelGuide(nn.Linear(5, 3), nn.Linear(5, 4)), OwnForward(MLP(5, [], 4)), None])
def test_require_amortized_refuses_other_guides(guide):
    with pytest.raises(ppvae.ContractError, match=f"expected an AmortizedGuide .*got {type(guide).__name__};"):
        require_amortized(guide)

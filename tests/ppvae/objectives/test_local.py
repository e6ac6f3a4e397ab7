"""Improving q(z) of each datum separately."""

from itertools import islice

import pyro
import pytest
import torch
from torch import nn

from ppvae.engine.batch import as_batch
from ppvae.guides import FullRankGaussian, MeanFieldGaussian
from ppvae.objectives.local import ascent, at_features, improved
from tests.catalogue import ALL_PAIRS, PAIRS
from tests.ppvae.oracles import linear_gaussian

FULL_RANK = FullRankGaussian(nn.Identity(), 2).distribution
MEAN_FIELD = MeanFieldGaussian(nn.Identity()).distribution


def test_ascent_of_full_rank_features_reaches_the_exact_posterior():
    model, x = linear_gaussian()
    torch.manual_seed(0)
    start = torch.zeros(4, FullRankGaussian.num_features(2)).double()
    climb = ascent(model, FULL_RANK, as_batch(x), start, learning_rate=0.02, num_particles=100)
    *_, (features, _) = islice(climb, 400)
    posterior, q = model.posterior(x), FULL_RANK(features)
    torch.testing.assert_close(q.mean, posterior.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(q.covariance_matrix, posterior.covariance_matrix, rtol=0, atol=0.05)


def test_improved_is_the_end_of_an_ascent():
    model, x = linear_gaussian()
    start = torch.zeros(4, 4).double()
    torch.manual_seed(0)
    features = improved(model, MEAN_FIELD, as_batch(x), start, steps=7, learning_rate=0.1)
    torch.manual_seed(0)
    *_, (expected, _) = islice(ascent(model, MEAN_FIELD, as_batch(x), start, 0.1), 7)
    assert torch.equal(features, expected)
    assert torch.equal(improved(model, MEAN_FIELD, as_batch(x), start, steps=0, learning_rate=0.1), start)


def test_ascent_raises_the_bound_of_every_datum_up_to_the_evidence():
    model, x = linear_gaussian()
    torch.manual_seed(0)
    steps = islice(ascent(model, MEAN_FIELD, as_batch(x), torch.zeros(4, 4).double(), 0.05, num_particles=50), 200)
    bounds = torch.stack([bound for _, bound in steps])
    first, last = bounds[:10].mean(0), bounds[-50:].mean(0)
    error = bounds[-50:].std(0) / 50**0.5
    assert (last > first).all()
    assert (last < model.log_evidence(x) + 4 * error).all()


def without_noise(features):
    """A Gaussian of nearly no width, so that the random numbers do not matter."""
    loc, _ = features.chunk(2, -1)
    return MEAN_FIELD(torch.cat([loc, torch.full_like(loc, -20)], -1))


def test_ascent_of_a_datum_does_not_depend_on_the_others():
    model, x = linear_gaussian()
    start = torch.zeros(4, 4).double()
    whole = improved(model, without_noise, as_batch(x), start, steps=20, learning_rate=0.1)
    alone = improved(model, without_noise, as_batch(x[1:2]), start[1:2], steps=20, learning_rate=0.1)
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-4)
    assert (alone[0, :2] - start[0, :2]).abs().min() > 0.1


@pytest.mark.parametrize("outer", [torch.no_grad, torch.enable_grad])
def test_improved_leaves_the_model_and_the_start_as_they_were(outer):
    model, guide, x = PAIRS["gaussian_vae"].make()
    start = guide.encode(x).detach()
    kept = start.clone()
    before = [p.detach().clone() for p in model.parameters()]
    with outer(), pyro.poutine.trace() as traced:
        features = improved(model, MEAN_FIELD, as_batch(x), start, steps=3, learning_rate=0.1)
    assert torch.equal(start, kept)
    assert not torch.equal(features, start)
    assert not features.requires_grad
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not [name for name, node in traced.trace.nodes.items() if node["type"] == "sample"]


def test_improved_takes_labels_and_conditions():
    for name in ("conditional", "labelled_condition"):
        model, guide, batch = ALL_PAIRS[name].make_batch()
        start = guide.encode(batch.x, batch.label, **batch.given).detach()
        features = improved(model, MEAN_FIELD, batch, start, steps=3, learning_rate=0.1)
        assert features.shape == start.shape
        assert (features != start).all()


def test_at_features_is_a_guide_of_fixed_features():
    features = torch.randn(3, 4)
    traced = pyro.poutine.trace(at_features(MEAN_FIELD, features)).get_trace(torch.zeros(3, 5))
    torch.testing.assert_close(traced.nodes["z"]["fn"].mean, features[:, :2])

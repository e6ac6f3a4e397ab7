"""Improving q(z) of each datum separately."""

from itertools import islice

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.guides import FullRankGaussian, MeanFieldGaussian
from ppvae.objectives import ELBO, StickingTheLanding
from ppvae.objectives.local import ascent, at_features, feature_scale, improved, loss_and_gradient
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


def test_ascent_raises_the_bound_of_every_datum_up_to_the_evidence():
    model, x = linear_gaussian()
    torch.manual_seed(0)
    steps = islice(ascent(model, MEAN_FIELD, as_batch(x), torch.zeros(4, 4).double(), 0.05, num_particles=50), 200)
    bounds = torch.stack([bound for _, bound in steps])
    first, last = bounds[:10].mean(0), bounds[-50:].mean(0)
    error = bounds[-50:].std(0) / 50**0.5
    assert (last > first).all()
    assert (last < model.log_evidence(x) + 4 * error).all()


def test_improved_without_steps_gives_the_start():
    model, x = linear_gaussian()
    start = torch.randn(4, 4).double()
    assert torch.equal(improved(model, MEAN_FIELD, as_batch(x), start, steps=0, learning_rate=0.5), start)


def test_improved_of_a_datum_does_not_depend_on_the_others():
    model, x = linear_gaussian()
    start, others = torch.zeros(4, 4).double(), x.clone()
    others[[0, 2, 3]] += 1.0
    first, again = ended(model, x, start), ended(model, others, start)
    torch.testing.assert_close(first[1], again[1])
    assert (first[[0, 2, 3]] - again[[0, 2, 3]]).abs().amax(-1).min() > 0.1
    assert (first[1] - start[1]).abs().min() > 0.1


def ended(model, x, start):
    torch.manual_seed(0)
    return improved(model, MEAN_FIELD, as_batch(x), start, steps=20, learning_rate=0.5)


@pytest.mark.parametrize(("number", "validated"), [(1e200, True), (1e308, True), (torch.nan, False)])
def test_improved_keeps_the_start_of_a_datum_that_is_not_finite(number, validated):
    """The square of 1e200 overflows, and so does the gradient at 1e308. fit and evaluations do not validate."""
    model, x = linear_gaussian()
    x[2] = number
    start = torch.zeros(4, 4).double()
    with pyro.validation_enabled(validated):
        features = ended(model, x, start)
    assert torch.equal(features[2], start[2])
    assert (features[[0, 1, 3]] != 0).all()


def test_improved_keeps_a_rise_that_is_far_smaller_than_the_spread_of_log_weights():
    """The bounds at start and end are compared by the same random numbers."""
    model, x = linear_gaussian()
    start = torch.zeros(400, 4).double()
    features = improved(model, MEAN_FIELD, as_batch(x.repeat(100, 1)), start, steps=1, learning_rate=1e-4)
    assert (features != start).any(-1).double().mean() > 0.99


def test_improved_keeps_the_start_where_the_bound_would_fall():
    """One particle, a high rate and the whole gradient at the best mean-field Gaussian; the others start elsewhere."""
    model, x = linear_gaussian()
    posterior = model.posterior(x)
    log_scale = -0.5 * posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).log()
    start = torch.cat([posterior.mean, log_scale], -1).detach()
    start[1:] += 1.0
    features = improved(model, MEAN_FIELD, as_batch(x), start, 20, 5.0, ELBO(num_particles=1))
    assert torch.equal(features[0], start[0])
    assert (features[1:] != start[1:]).any(-1).all()


def test_improved_needs_reparameterised_draws():
    model, x = linear_gaussian()

    def poisson(features):
        return dist.Poisson(features.exp()).to_event(1)

    with pytest.raises(ppvae.ContractError, match=r"reparameterised draws \(rsample\), got Independent\(Poisson"):
        improved(model, poisson, as_batch(x), torch.zeros(4, 2).double(), steps=1, learning_rate=0.5)


def test_loss_and_gradient_by_the_path_alone_vanishes_at_the_exact_posterior():
    model, x = linear_gaussian()
    q = model.posterior(x)
    tril = q.scale_tril
    features = torch.cat([q.mean, tril.diagonal(dim1=-2, dim2=-1).log(), tril[:, 1, :1]], -1).detach()
    for objective, vanishes in ((StickingTheLanding(2), True), (ELBO(2), False)):
        loss, gradient = loss_and_gradient(model, at_features(FULL_RANK, features), as_batch(x), objective)
        assert (gradient.abs().max() < 1e-9) == vanishes
        assert loss.shape == (4,)
    path_only, _ = loss_and_gradient(model, at_features(FULL_RANK, features), as_batch(x), StickingTheLanding(2))
    torch.testing.assert_close(path_only, -model.log_evidence(x).detach())


def test_feature_scale_of_gaussians_is_the_closed_form():
    """E (dz_d / d feature)^2 / Var z_d, with z = mean + L e: 1 / Var, L_dd^2 / Var, and 1 / Var below the diagonal."""
    torch.manual_seed(0)
    features = torch.tensor([[0.3, -2.0, -3.0, 0.5, 0.2], [5.0, 0.0, 1.0, -1.0, 0.0]]).double()
    diagonal, below = features[:, 2:4].exp(), features[:, 4:]
    variance = diagonal.square() + torch.cat([torch.zeros_like(below), below.square()], -1)
    square = torch.cat([1 / variance, diagonal.square() / variance, 1 / variance[:, 1:]], -1)
    found = feature_scale(FULL_RANK, features.repeat(50, 1), rounds=100).unflatten(0, (50, 2))
    torch.testing.assert_close(found.square().reciprocal().mean(0), 1 + square, rtol=0.04, atol=0)


def test_feature_scale_does_not_exceed_1_where_a_feature_is_unused():
    with_unused = torch.tensor([[0.0, 0.0, 9.0]]).double()
    scale = feature_scale(lambda features: MEAN_FIELD(features[..., :2]), with_unused)
    assert scale[0, 2] == 1
    assert (scale[0, :2] < 1).all()


@pytest.mark.parametrize("outer", [torch.no_grad, torch.enable_grad])
def test_improved_leaves_the_model_and_the_start_as_they_were(outer):
    model, guide, x = PAIRS["gaussian_vae"].make()
    start = guide.encode(x).detach()
    kept = start.clone()
    before = [p.detach().clone() for p in model.parameters()]
    with outer(), pyro.poutine.trace() as traced:
        features = improved(model, MEAN_FIELD, as_batch(x), start, steps=3, learning_rate=0.5)
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
        features = improved(model, MEAN_FIELD, batch, start, steps=3, learning_rate=0.5)
        assert features.shape == start.shape
        assert (features != start).all()


def test_at_features_is_a_guide_of_fixed_features():
    features = torch.randn(3, 4)
    traced = pyro.poutine.trace(at_features(MEAN_FIELD, features)).get_trace(torch.zeros(3, 5))
    torch.testing.assert_close(traced.nodes["z"]["fn"].mean, features[:, :2])

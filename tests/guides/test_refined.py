"""The refined guide: its bound, its features, their gradient, and its partner."""

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.guides import FlowGuide, FullRankGaussian, MeanFieldGaussian, MixtureGuide, Refined, affine_coupling, planar
from ppvae.models import LinearGaussian
from ppvae.nn import MLP

DIM, COMPONENTS, CONTEXT = 6, 3, 4
NOISE = 0.1  # nats; of a comparison of two close bounds by 64 draws, as in Refined


def pair() -> tuple[LinearGaussian, MeanFieldGaussian, torch.Tensor]:
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7).double()
    return model, MeanFieldGaussian(MLP(5, [], 4)).double(), torch.randn(6, 5).double()


class Rows(nn.Module):
    """An encoder that gives each datum its row of a table."""

    def __init__(self, table: torch.Tensor):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[: len(x)]


def peaked(dim: int = DIM) -> tuple[LinearGaussian, torch.Tensor]:
    """Correlated latents with standard deviations of about .1, and 12 data."""
    torch.manual_seed(0)
    size = dim + 4
    model = LinearGaussian(torch.randn(size, dim), torch.randn(size), 0.3).double()
    z = torch.randn(12, dim).double()
    return model, (z @ model.weight.T + model.bias + 0.3 * torch.randn(12, size)).detach()


def best_mean_field(model: LinearGaussian, x: torch.Tensor) -> torch.distributions.Normal:
    """Its precisions are the diagonal of the posterior's precision."""
    posterior = model.posterior(x)
    return torch.distributions.Normal(posterior.mean, posterior.precision_matrix.diagonal(dim1=-2, dim2=-1) ** -0.5)


def near(model: LinearGaussian, x: torch.Tensor, shift: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Means off by ``shift`` standard deviations of the best mean-field Gaussian, and the log of those."""
    best = best_mean_field(model, x)
    return (best.mean + shift * best.stddev * torch.randn_like(best.mean)).detach(), best.stddev.log().detach()


def guides(model: LinearGaussian, x: torch.Tensor, shift: float = 1.0) -> dict[str, ppvae.AmortizedGuide]:
    """A guide of each family, from the same start."""
    mean, log_scale = near(model, x, shift)
    zeros = mean.new_zeros(len(x), DIM * (DIM - 1) // 2)
    flow = torch.cat([mean, log_scale, torch.randn(len(x), CONTEXT).double()], -1)
    locs = mean.unsqueeze(1) + log_scale.exp().unsqueeze(1) * torch.randn(len(x), COMPONENTS, DIM)
    logits, scales = mean.new_zeros(len(x), COMPONENTS), log_scale.repeat(1, COMPONENTS)
    made = {
        "mean-field": MeanFieldGaussian(Rows(torch.cat([mean, log_scale], -1))),
        "full-rank": FullRankGaussian(Rows(torch.cat([mean, log_scale, zeros], -1)), DIM),
        "coupling": FlowGuide(Rows(flow), affine_coupling(DIM, CONTEXT, hidden=8), DIM),
        "planar": FlowGuide(Rows(flow), planar(DIM, CONTEXT, hidden=8), DIM),
        "mixture": MixtureGuide(Rows(torch.cat([logits, locs.flatten(1), scales], -1)), DIM, COMPONENTS),
    }
    return {name: guide.double() for name, guide in made.items()}


def exact_bound(model, guide, x):
    """The ELBO of a Gaussian guide, log p(x) - KL(q || p(z | x)), shape (B,)."""
    q = guide.distribution(guide.encode(x))
    full = torch.distributions.MultivariateNormal(q.mean, getattr(q, "covariance_matrix", q.variance.diag_embed()))
    return (model.log_evidence(x) - kl_divergence(full, model.posterior(x))).detach()


def gain(model, refined, guide, x):
    """The rise of the ELBO of each datum, in closed form for a Gaussian q, else by 2,000 common random numbers."""
    if isinstance(guide, MeanFieldGaussian | FullRankGaussian):
        return exact_bound(model, refined, x) - exact_bound(model, guide, x)
    return (log_weights(model, refined, x) - log_weights(model, guide, x)).mean(0)


def log_weights(model, guide, x):
    with torch.no_grad(), forked_randomness(x.device, seed=7):
        return Pair(model, guide).draw(as_batch(x), 2000).log_weight


FAMILIES = ["mean-field", "full-rank", "coupling", "planar", "mixture"]


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("settings", [{}, {"learning_rate": 5.0}, {"num_particles": 1, "path_only": False}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_refined_bound_is_never_below_that_of_its_guide_by_more_than_noise(family, settings, shift):
    model, x = peaked()
    guide = guides(model, x, shift)[family]
    assert (gain(model, Refined(guide, model, **settings), guide, x) > -NOISE).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_refined_raises_the_bound_of_every_datum_by_default(family):
    model, x = peaked()
    guide = guides(model, x)[family]
    assert (gain(model, Refined(guide, model), guide, x) > NOISE).all()


def test_refined_raises_the_bound_of_a_full_rank_guide_with_many_features():
    """435 numbers below the diagonal, started at 0: steps of one size for all features widen q."""
    model, x = peaked(dim=30)
    mean, log_scale = near(model, x)
    guide = FullRankGaussian(Rows(torch.cat([mean, log_scale, mean.new_zeros(len(x), 435)], -1)), 30)
    assert (gain(model, Refined(guide, model), guide, x) > NOISE).all()


def test_refined_keeps_a_start_that_is_optimal():
    """Steps without the path-only gradient leave the exact posterior, which is the best q."""
    model, x = peaked()
    posterior = model.posterior(x)
    row, column = torch.tril_indices(DIM, DIM, -1)
    tril = posterior.scale_tril
    features = torch.cat([posterior.mean, tril.diagonal(dim1=-2, dim2=-1).log(), tril[:, row, column]], -1).detach()
    guide = FullRankGaussian(Rows(features), DIM)
    refined = Refined(guide, model, learning_rate=5.0, num_particles=1, path_only=False)
    assert torch.equal(refined.encode(x), guide.encode(x))


def test_refined_approaches_the_best_mean_field_bound():
    model, x = peaked()
    guide = guides(model, x, shift=2.0)["mean-field"]
    best = MeanFieldGaussian(Rows(torch.cat(near(model, x, shift=0.0), -1)))
    before, after, limit = (exact_bound(model, each, x) for each in (guide, Refined(guide, model), best))
    assert (limit - before).min() > 1
    assert ((limit - after) < 0.1 * (limit - before)).all()
    assert (after < limit).all()
    longer = exact_bound(model, Refined(guide, model, steps=200), x)
    assert ((limit - longer) < 0.01 * (limit - before)).all()


def test_refined_full_rank_guide_passes_the_best_mean_field_bound():
    model, x = peaked()
    refined = Refined(guides(model, x)["full-rank"], model, steps=100, num_particles=16)
    best = MeanFieldGaussian(Rows(torch.cat(near(model, x, shift=0.0), -1)))
    after, limit, evidence = exact_bound(model, refined, x), exact_bound(model, best, x), model.log_evidence(x)
    assert ((evidence - after) < 0.1 * (evidence - limit)).all()


def test_refined_encodes_the_same_at_every_call_and_leaves_the_random_state_alone():
    model, x = peaked()
    for guide in guides(model, x).values():
        refined, state = Refined(guide, model, steps=2), torch.get_rng_state()
        first = refined.encode(x)
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(3)
        assert torch.equal(first, refined.encode(x))


def test_refined_without_steps_equals_its_guide():
    model, guide, x = pair()
    torch.testing.assert_close(Refined(guide, model, steps=0).encode(x), guide.encode(x))


def test_refined_moves_the_mean_towards_the_posterior():
    model, guide, x = pair()
    exact = model.posterior(x).mean
    before, after = (
        (q.distribution(q.encode(x)).mean - exact).square().sum(-1).sqrt() for q in (guide, Refined(guide, model))
    )
    assert (after < 0.2 * before).all()


def test_refined_passes_the_gradient_to_the_encoder_as_a_constant_shift():
    model, guide, x = pair()
    direction = torch.randn(6, 4).double()
    found = torch.autograd.grad((Refined(guide, model, steps=3).encode(x) * direction).sum(), list(guide.parameters()))
    torch.testing.assert_close(
        found, torch.autograd.grad((guide.encode(x) * direction).sum(), list(guide.parameters()))
    )
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("objective", [ppvae.ELBO(3), ppvae.StickingTheLanding(3), ppvae.DReG(3)], ids=type)
def test_refined_trains_its_encoder_by_the_gradient_at_the_refined_features(objective):
    """The gradient of a table of features is that of a table that holds the refined ones."""
    model, x = peaked()
    guide = guides(model, x)["mean-field"]
    refined = Refined(guide, model)
    at_end = MeanFieldGaussian(Rows(refined.encode(x).detach()))
    found, expected = (
        torch.autograd.grad(loss_of(objective, model, each, x), table)[0]
        for each, table in ((refined, guide.encoder.table), (at_end, at_end.encoder.table))
    )
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def loss_of(objective, model, guide, x):
    torch.manual_seed(3)
    return objective.differentiable_loss(model, guide, x)


def test_refined_holds_its_model_as_a_partner_and_not_as_a_part():
    model, guide, _ = pair()
    refined = Refined(guide, model)
    assert refined.partners == (model,)
    assert not {id(p) for p in refined.parameters()} & {id(p) for p in model.parameters()}


def test_refined_can_score_if_its_guide_can():
    model, guide, _ = pair()
    assert Refined(guide, model).can_score
    assert not Refined(FlowGuide(MLP(5, [], 7), planar(2, 3), 2), model).can_score


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "steps of at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate above 0 and finite, got 0.0"),
        ({"learning_rate": float("inf")}, "learning_rate above 0 and finite, got inf"),
        ({"num_particles": 0}, "num_particles of at least 1, got 0"),
    ],
)
def test_refined_refuses_arguments_out_of_range(arguments, message):
    model, guide, _ = pair()
    with pytest.raises(ValueError, match=message):
        Refined(guide, model, **arguments)

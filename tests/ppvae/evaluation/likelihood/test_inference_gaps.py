"""The gaps against closed forms of the linear-Gaussian model."""

import pyro
import pytest
import torch
from ppvae.guides import FullRankGaussian, MeanFieldGaussian, Refined
from ppvae.models import LinearGaussian
from pyro import distributions as dist

import ppvae
from ppvae.data import Dataset
from ppvae.engine.pair import simulate
from ppvae.nn import MLP
from ppvae.objectives.local import ascent, improved
from tests.catalogue import PAIRS
from tests.ppvae.oracles import linear_gaussian, nearly_exact


def correlated() -> tuple[LinearGaussian, torch.Tensor]:
    """A linear-Gaussian model whose posterior is far from diagonal."""
    torch.manual_seed(1)
    weight = torch.randn(5, 1) @ torch.ones(1, 2) + 0.3 * torch.randn(5, 2)
    return LinearGaussian(weight, torch.zeros(5), 0.7).double(), torch.randn(4, 5).double()


def best_mean_field_bound(model, x):
    """log p(x) - KL of the best diagonal q: precisions are the diagonal of the posterior's precision."""
    precision = torch.linalg.inv(model.posterior(x[:1]).covariance_matrix[0])
    kl = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    return model.log_evidence(x) - kl


def test_gaps_of_a_mean_field_guide_are_the_closed_forms():
    model, x = correlated()
    guide = nearly_exact(model, widen=1.6)
    result = ppvae.gaps(model, guide, x, num_particles=20_000, learning_rate=0.004, max_windows=30)
    evidence, best = model.log_evidence(x), best_mean_field_bound(model, x)
    assert (evidence - best).min() > 0.1
    assert ((result.log_p.value - evidence).abs() < 4 * result.log_p.standard_error).all()
    for local in (result.local, result.local_gaussian):
        assert ((local.value - best).abs() < 4 * local.standard_error + 0.005).all()
    exact = ppvae.ELBO(200_000).per_datum(ppvae.draw(model, guide, x, num_particles=200_000))
    assert ((result.amortized.value + exact).abs() < 5 * result.amortized.standard_error).all()
    assert (result.amortization.value > 0.05).all()
    torch.testing.assert_close(
        result.approximation.value + result.amortization.value, result.log_p.value - result.amortized.value
    )


def test_a_full_rank_family_has_no_approximation_gap():
    torch.manual_seed(0)
    model, x = correlated()
    guide = FullRankGaussian(MLP(5, [], FullRankGaussian.num_features(2)), 2).double()
    result = ppvae.gaps(model, guide, x, num_particles=5000, learning_rate=0.004, max_windows=30)
    assert (result.approximation.value.abs() < 4 * result.approximation.standard_error + 0.01).all()
    assert (result.local_gaussian.value < result.local.value).all()
    assert (result.khat < 0.7).all()


def test_a_family_that_fails_does_not_lower_log_p():
    """Twenty latents, strongly correlated: no weight of the best diagonal Gaussian is of any use."""
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(30, 20), torch.zeros(30), 0.1).double()
    x = simulate(model, torch.zeros(4, 30).double())[0]
    guide = FullRankGaussian(MLP(30, [], FullRankGaussian.num_features(20)), 20).double()
    posterior = model.posterior(x)
    (layer,) = guide.encoder.layers
    basis = model.posterior(torch.cat([torch.zeros(1, 30), torch.eye(30)]).double()).mean
    below = posterior.scale_tril[0][tuple(torch.tril_indices(20, 20, -1))]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:20] = (basis[1:] - basis[0]).T
        layer.bias.copy_(torch.cat([basis[0], posterior.scale_tril[0].diagonal().log(), below]))
    found = ppvae.gaps(model, guide, x, num_particles=2000, learning_rate=1e-4, max_windows=1)
    off = found.log_p.value - model.log_evidence(x)
    assert (off.abs() < 4 * found.log_p.standard_error).all()
    assert found.log_p.standard_error.max() < 0.03
    assert (found.approximation.value > -4 * found.approximation.standard_error - 1e-9).all()
    assert (found.local_gaussian.value < found.log_p.value - 5).all()


class Wider(MeanFieldGaussian):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.distribution(self.encoder(x)).mean, 3.0).to_event(1))


def test_a_guide_with_a_forward_of_its_own_is_run_as_it_stands():
    model, x = linear_gaussian()
    guide = Wider(MLP(5, [], 4)).double()
    found = ppvae.log_marginal(model, guide, x, num_particles=4000)
    expected = -ppvae.evaluate_loss(ppvae.ELBO(4000, analytic_kl=False), model, guide, Dataset(x), seed=1)
    assert found.bound(1).mean().item() == pytest.approx(expected, rel=0.05)
    with pytest.raises(ppvae.ContractError, match="define distribution"):
        ppvae.gaps(model, guide, x)


def test_only_amortized_guides_have_gaps():
    model, guide, x = PAIRS["user"].make()
    with pytest.raises(ppvae.ContractError, match=r"expected an AmortizedGuide.*UserGuide"):
        ppvae.gaps(model, guide, x)


def test_the_ascent_climbs_and_leaves_its_start_alone():
    model, x = linear_gaussian()
    start = torch.zeros(4, 4).double()
    climb = ascent(model, MeanFieldGaussian(MLP(5, [], 4)).distribution, x, start, 0.05, num_particles=50)
    bounds = torch.stack([next(climb)[1] for _ in range(200)])
    assert (bounds[-10:].mean(0) > bounds[0] + 1).all()
    assert (start == 0).all()
    assert all(p.grad is None for p in model.parameters())


def test_refining_brings_the_bound_closer_and_no_step_changes_nothing():
    torch.manual_seed(0)
    model, x = linear_gaussian()
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    bounds = []
    for steps in (0, 20, 200):
        refined = Refined(guide, model, steps, 0.05)
        ppvae.check_pair(model, refined, x)
        bounds.append(ppvae.log_marginal(model, refined, x, num_particles=2000, chunk=10_000).bound(1).mean())
    assert bounds[0] < bounds[1] < bounds[2]
    assert bounds[2] < best_mean_field_bound(model, x).mean()
    features = guide.encoder(x)
    assert torch.equal(improved(model, guide.distribution, x, features, 0, 0.1), features)


def test_a_refined_guide_trains_its_encoder_in_fit_and_leaves_the_model_to_the_model():
    model, x = linear_gaussian()
    refined = Refined(MeanFieldGaussian(MLP(5, [], 4)).double(), model, 3, 0.05)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in refined.parameters()}
    before = [p.detach().clone() for p in refined.parameters()]
    ppvae.fit(model, refined, ppvae.DReG(3), x, epochs=2, batch_size=2, progress=False)
    assert all((p - b).abs().max() > 0 for p, b in zip(refined.parameters(), before, strict=True))

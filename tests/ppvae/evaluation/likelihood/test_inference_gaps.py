"""Approximation and amortization gaps, against closed forms of the linear-Gaussian model."""

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.data import Dataset
from ppvae.engine.batch import as_batch
from ppvae.evaluation import Ascent, sample
from ppvae.guides import FullRankGaussian, MeanFieldGaussian, Refined
from ppvae.models import LinearGaussian
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
    result = ppvae.gaps(model, guide, x, num_particles=20_000, ascent=Ascent(0.01, max_windows=10))
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


def test_gaps_of_a_full_rank_family_have_no_approximation_gap():
    torch.manual_seed(0)
    model, x = correlated()
    guide = FullRankGaussian(MLP(5, [], FullRankGaussian.num_features(2)), 2).double()
    result = ppvae.gaps(model, guide, x, num_particles=5000, ascent=Ascent(0.01, max_windows=10))
    assert (result.approximation.value.abs() < 4 * result.approximation.standard_error + 0.01).all()
    assert (result.local_gaussian.value < result.local.value).all()
    assert result.log_p.khat_bad == 0


def test_gaps_log_p_is_not_lowered_by_a_family_that_fails():
    """Twenty latents, strongly correlated: no weight of the best diagonal Gaussian is of any use."""
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(30, 20), torch.zeros(30), 0.1).double()
    x = sample(model, 4)
    guide = FullRankGaussian(MLP(30, [], FullRankGaussian.num_features(20)), 20).double()
    posterior = model.posterior(x)
    (layer,) = guide.encoder.layers
    basis = model.posterior(torch.cat([torch.zeros(1, 30), torch.eye(30)]).double()).mean
    below = posterior.scale_tril[0][tuple(torch.tril_indices(20, 20, -1))]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:20] = (basis[1:] - basis[0]).T
        layer.bias.copy_(torch.cat([basis[0], posterior.scale_tril[0].diagonal().log(), below]))
    found = ppvae.gaps(model, guide, x, num_particles=2000, ascent=Ascent(1e-4, max_windows=1))
    torch.testing.assert_close(found.log_p.value, model.log_evidence(x).detach())
    assert (found.approximation.value > -4 * found.approximation.standard_error - 1e-9).all()
    assert (found.local_gaussian.value < found.log_p.value - 5).all()


def test_gaps_log_p_is_fitted_where_no_family_reaches_it():
    """Twelve correlated latents: the weights of the guide are more than a nat too low."""
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(20, 12)).Q * torch.logspace(0, -1, 12) @ torch.linalg.qr(torch.randn(12, 12)).Q
    model = LinearGaussian(weight, torch.zeros(20), 0.3).double()
    x = sample(model, 6)
    guide = MeanFieldGaussian(MLP(20, [], 24)).double()
    found = ppvae.gaps(model, guide, x, num_particles=1000, ascent=Ascent(0.05, max_windows=3))
    exact = model.log_evidence(x)
    assert found.log_p.num_fitted == 6
    assert found.log_p.num_failed == 0
    assert ((found.log_p.value - exact).abs() < 4 * found.log_p.standard_error).all()
    assert found.log_p.guide.mean < exact.mean() - 1
    best = best_mean_field_bound(model, x)
    assert ((found.approximation.value - (exact - best)).abs() < 4 * found.approximation.standard_error + 0.1).all()


def test_gaps_log_p_and_amortized_bound_are_those_of_log_marginal():
    torch.manual_seed(0)
    model, x = linear_gaussian()
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    found = ppvae.gaps(model, guide, x, num_particles=500, ascent=Ascent(0.05, max_windows=1), seed=7)
    alone = ppvae.log_marginal(model, guide, x, num_particles=500, seed=7)
    assert torch.equal(found.log_p.value, alone.value)
    assert torch.equal(found.amortized.value, alone.bound(1))
    assert torch.equal(found.amortized.standard_error, alone.bound_standard_error(1))


def test_gaps_log_p_is_called_a_lower_bound_where_it_cannot_be_trusted():
    model, x = linear_gaussian()
    found = ppvae.gaps(model, nearly_exact(model, 0.35), x, num_particles=20, ascent=Ascent(max_windows=1))
    assert "lower bound on log p(x)" in repr(found)
    assert "not fitted: k-hat needs 25 particles" in repr(found)


def test_gaps_binarize_dynamic_data_once():
    model, guide, _ = PAIRS["gaussian_vae"].make()
    data = Dataset(torch.rand(6, 8, 8).double(), binarization="dynamic")
    found = ppvae.gaps(model, guide, data, num_particles=30, ascent=Ascent(max_windows=1), seed=3)
    alone = ppvae.log_marginal(model, guide, data, num_particles=30, seed=3)
    assert torch.equal(found.log_p.value, alone.value)


class Wider(MeanFieldGaussian):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.distribution(self.encode(x)).mean, 3.0).to_event(1))


def test_log_marginal_runs_a_guide_with_its_own_forward_and_gaps_refuses_it():
    model, x = linear_gaussian()
    guide = Wider(MLP(5, [], 4)).double()
    found = ppvae.log_marginal(model, guide, x, num_particles=4000)
    expected = -ppvae.evaluate_loss(ppvae.ELBO(4000, analytic_kl=False), model, guide, Dataset(x), seed=1)
    assert found.bound(1).mean().item() == pytest.approx(expected, rel=0.05)
    with pytest.raises(ppvae.ContractError, match=r"define distribution\(\) instead of forward"):
        ppvae.gaps(model, guide, x)


def test_gaps_refuses_a_guide_that_is_not_amortized():
    model, guide, x = PAIRS["user"].make()
    with pytest.raises(ppvae.ContractError, match=r"expected an AmortizedGuide.*UserGuide"):
        ppvae.gaps(model, guide, x)


def test_ascent_increases_the_bound_and_leaves_its_start_alone():
    model, x = linear_gaussian()
    start = torch.zeros(4, 4).double()
    family = MeanFieldGaussian(MLP(5, [], 4)).distribution
    climb = ascent(model, family, as_batch(x), start, 0.05, num_particles=50)
    bounds = torch.stack([next(climb)[1] for _ in range(200)])
    assert (bounds[-10:].mean(0) > bounds[0] + 1).all()
    assert (start == 0).all()
    assert all(p.grad is None for p in model.parameters())


def test_refined_guide_has_a_higher_bound_with_more_steps_and_the_same_with_none():
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
    assert torch.equal(improved(model, guide.distribution, as_batch(x), features, 0, 0.1), features)


def test_refined_guide_trains_its_encoder_in_fit_and_not_the_model():
    model, x = linear_gaussian()
    refined = Refined(MeanFieldGaussian(MLP(5, [], 4)).double(), model, 3, 0.05)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in refined.parameters()}
    before = [p.detach().clone() for p in refined.parameters()]
    ppvae.fit(model, refined, ppvae.DReG(3), x, epochs=2, batch_size=2, progress=False)
    assert all((p - b).abs().max() > 0 for p, b in zip(refined.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"learning_rate": 0.0}, ValueError, "learning_rate above 0, got 0.0"),
        ({"patience": 0}, ValueError, "patience of at least 1, got 0"),
        ({"max_windows": 1.5}, TypeError, "max_windows to be a whole number, got 1.5"),
        ({"batch_size": -1}, ValueError, "batch_size of at least 1, got -1"),
    ],
)
def test_ascent_settings_out_of_range_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Ascent(**settings)


def test_gaps_of_data_in_blocks_are_those_of_all_rows():
    model, x = linear_gaussian()
    guide = nearly_exact(model, 1.6)
    found = ppvae.gaps(model, guide, x, num_particles=2000, ascent=Ascent(0.02, max_windows=2, batch_size=3))
    assert found.local.value.shape == found.local_gaussian.value.shape == found.log_p.value.shape == (4,)
    assert ((found.log_p.value - model.log_evidence(x)).abs() < 4 * found.log_p.standard_error).all()
    assert f"k-hat bad in {found.log_p.khat_bad:.1%}" in repr(found)

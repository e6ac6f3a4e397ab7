"""Comparing pairs: one log p(x) for each model, paired differences, gaps and annealing in common, refusals."""

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.evaluation import Annealing, Ascent, proposals, sample
from ppvae.evaluation.likelihood import importance
from ppvae.evaluation.likelihood.stages import staged
from ppvae.guides import CategoricalGuide, FullRankGaussian, MeanFieldGaussian
from ppvae.models import GaussianMixture, LinearGaussian
from ppvae.nn import MLP
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact, three_guides


def bad_guides(model: LinearGaussian) -> dict[str, ppvae.Guide]:
    """Guides under which no datum's weights can be trusted."""
    return {"narrow": nearly_exact(model, 0.35), "narrower": nearly_exact(model, 0.25)}


def no_row_off(found: ppvae.LogMarginal, exact: torch.Tensor) -> bool:
    """Whether every datum is within four standard errors of the truth."""
    return bool(((found.value - exact).abs() < 4 * found.standard_error + 1e-9).all())


def test_compare_shares_one_log_p_of_the_truth_among_guides_that_miss_it():
    model, x = linear_gaussian()
    found = ppvae.compare(model, bad_guides(model), x, num_particles=1000)
    narrow, narrower = (row.marginal for row in found.rows.values())
    assert torch.equal(narrow.value, narrower.value)
    assert no_row_off(narrow, model.log_evidence(x))
    assert narrow.num_fitted == 4
    assert narrow.num_failed == 0
    assert narrow.stages[0] == narrower.stages[0] == "guide narrow"  # it has the higher bound
    assert min(narrow.guide.khat_bad, narrower.guide.khat_bad) > 0.5
    assert not no_row_off(narrow.guide, model.log_evidence(x))


def test_compare_keeps_the_weights_of_each_guide():
    model, guides, x = three_guides()
    found = ppvae.compare(model, guides, x, num_particles=200)
    for name, guide in guides.items():
        alone = ppvae.log_marginal(model, guide, x, proposal=None, num_particles=200)
        assert torch.equal(found.rows[name].marginal.guide.value, alone.value)
        assert torch.equal(found.rows[name].marginal.bound(10), alone.bound(10))
        assert no_row_off(found.rows[name].marginal, model.log_evidence(x))


def test_compare_without_a_proposal_takes_log_p_from_the_guide_with_the_highest_bound():
    model, x = linear_gaussian()
    guides = bad_guides(model)
    found = ppvae.compare(model, guides, x, proposal=None, num_particles=1000, seed=3)
    best = ppvae.log_marginal(model, guides["narrow"], x, proposal=None, num_particles=1000, seed=4)  # fresh draws
    for row in found.rows.values():
        assert torch.equal(row.marginal.value, best.value)
        assert row.marginal.stages == ("guide narrow",)


class Wide(ppvae.Guide):
    """Twice the posterior's standard deviations, with random numbers of its own."""

    def __init__(self, oracle: LinearGaussian, skipped: int):
        super().__init__()
        self._oracle, self.skipped = [oracle], skipped

    def forward(self, x, y=None):
        torch.randn(self.skipped)
        posterior = self._oracle[0].posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(posterior.mean, 2 * posterior.stddev).to_event(1))


def test_compare_log_p_is_not_that_of_the_luckiest_guide():
    model, x = linear_gaussian()
    guides = {str(number): Wide(model, 10_000 * number) for number in range(6)}
    exact = model.log_evidence(x).mean().item()
    log_p, luckiest = [], []
    for seed in range(20):
        found = ppvae.compare(model, guides, x, proposal=None, num_particles=200, seed=seed)
        log_p.append(found.rows["0"].marginal.mean - exact)
        luckiest.append(max(record["guide_bound"] for record in found.records().values()) - exact)
    error = torch.tensor(log_p).std().item() / 20**0.5
    assert abs(sum(log_p) / 20) < 2 * error
    assert sum(luckiest) / 20 > 4 * error


def two_models() -> tuple[dict, torch.Tensor]:
    """Four pairs of two models, with guides that cannot be trusted."""
    first, x = linear_gaussian()
    torch.manual_seed(1)
    second = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7).double()
    return {f"{name} {i}": (m, g) for i, m in enumerate((first, second)) for name, g in bad_guides(m).items()}, x


def test_compare_pairs_fits_once_for_each_model(monkeypatch):
    fitted = []

    def counted(found, pair, batch, proposal, *args):
        if proposal is not None:
            fitted.append((pair.model, pair.guide))
        return staged(found, pair, batch, proposal, *args)

    monkeypatch.setattr(importance, "staged", counted)
    pairs, x = two_models()
    pairs = {name: pairs[name] for name in ("narrow 0", "narrower 1", "narrower 0")}
    ppvae.compare_pairs(pairs, x, num_particles=200, ascent=Ascent(0.05, max_windows=1))
    assert fitted == [pairs["narrow 0"], pairs["narrower 1"]]


def test_compare_of_one_guide_is_log_marginal():
    model, x = linear_gaussian()
    guide = bad_guides(model)["narrow"]
    found = ppvae.compare(model, {"only": guide}, x, num_particles=200).rows["only"].marginal
    alone = ppvae.log_marginal(model, guide, x, num_particles=200)
    assert found.num_fitted == alone.num_fitted > 0
    assert torch.equal(found.value, alone.value)
    assert torch.equal(found.bound(7), alone.bound(7))
    assert found.stages == alone.stages


def test_compare_pairs_compares_log_p_between_models_and_bounds_within_one():
    pairs, x = two_models()
    found = ppvae.compare_pairs(pairs, x, num_particles=1000)
    exact = {name: model.log_evidence(x) for name, (model, _) in pairs.items()}
    assert all(no_row_off(row.marginal, exact[name]) for name, row in found.rows.items())
    marginal = {name: row.marginal for name, row in found.rows.items()}
    between = marginal["narrow 0"].value - marginal["narrow 1"].value
    assert found.difference("narrow 0", "narrower 1") == pytest.approx(
        (between.mean().item(), between.std().item() / 2)
    )
    within = marginal["narrow 0"].bound(1000) - marginal["narrower 0"].bound(1000)
    assert found.difference("narrow 0", "narrower 0")[0] == pytest.approx(within.mean().item())
    assert found.best() == f"narrow {int(between.mean() < 0)}"


def test_compare_gaps_are_log_p_less_the_bounds_of_each_guide():
    torch.manual_seed(0)
    model, x = linear_gaussian()
    guides = {
        "narrow": nearly_exact(model, 0.35),
        "full rank": FullRankGaussian(MLP(5, [], 5), 2).double(),
    }
    found = ppvae.compare(model, guides, x, num_particles=1000, ascent=Ascent(0.05, max_windows=1))
    for row in found.rows.values():
        assert row.gaps.log_p is row.marginal
        torch.testing.assert_close(
            row.gaps.approximation.value + row.gaps.amortization.value, row.marginal.value - row.marginal.bound(1)
        )
    assert no_row_off(found.rows["full rank"].gaps.log_p, model.log_evidence(x))
    assert all(record["amortization_gap"] > 0.5 for record in found.records().values())


def test_compare_takes_discrete_latents_which_it_sums_exactly():
    torch.manual_seed(0)
    model, x = GaussianMixture(2 * torch.randn(3, 5)).double(), torch.randn(6, 5).double()
    guides = {name: CategoricalGuide(MLP(5, [], 3)).double() for name in ("one", "two")}
    found = ppvae.compare(model, guides, x, num_particles=50)
    for row in found.rows.values():
        torch.testing.assert_close(row.marginal.value, model.log_evidence(x).detach())


class Masked:
    """With a mask on its sites, which hides nothing; no proposal can be fitted."""

    def forward(self, x, y=None):
        with pyro.poutine.mask(mask=torch.ones(len(x), dtype=torch.bool)):
            super().forward(x)


class MaskedModel(Masked, LinearGaussian):
    pass


class MaskedGuide(Masked, MeanFieldGaussian):
    pass


def test_compare_uses_the_best_guide_where_no_proposal_can_be_fitted():
    model, x = linear_gaussian()
    guides = {name: MaskedGuide(guide.encoder) for name, guide in bad_guides(model).items()}
    model = MaskedModel(model.weight, model.bias, 0.7).double()
    found = ppvae.compare(model, guides, x, num_particles=1000)
    best = ppvae.log_marginal(model, guides["narrow"], x, proposal=None, num_particles=1000, seed=1)
    for row in found.rows.values():
        assert "'z' is masked" in row.marginal.not_fitted
        assert torch.equal(row.marginal.value, best.value)
    with pytest.raises(ppvae.ContractError, match=r"pair 'narrow': expected continuous latents.*'z' is masked"):
        ppvae.compare(model, guides, x, proposal=proposals.FullRank(), num_particles=10**9)


def test_compare_has_too_few_particles_to_fit_anything():
    pairs, x = two_models()
    found = ppvae.compare_pairs(pairs, x, num_particles=20)
    for row in found.rows.values():
        assert row.marginal.not_fitted == "k-hat needs 25 particles, got 20"
    assert all(record["log_p_is_lower_bound"] for record in found.records().values())


def test_compare_refuses_a_proposal_that_is_none():
    model, guides, x = three_guides()
    with pytest.raises(TypeError, match='expected proposal None, "auto" or an object with fit'):
        ppvae.compare(model, guides, x, proposal="best")


def test_compare_fits_a_given_proposal_to_every_datum():
    model, guides, x = three_guides()
    found = ppvae.compare(model, guides, x, proposal=proposals.Laplace(), num_particles=1000)
    for row in found.rows.values():
        assert row.marginal.num_fitted == 4
        assert row.marginal.stages[1:] == ("Laplace",)
        assert no_row_off(row.marginal, model.log_evidence(x))


def test_compare_names_the_pair_with_weights_that_are_not_finite():
    model, x = linear_gaussian()
    guide, x = nearly_exact(model), sample(model, 6)
    broken = nearly_exact(model)
    broken.encoder.register_forward_hook(
        lambda module, args, out: out.masked_fill((args[0] == x[5]).all(-1, keepdim=True), torch.nan)
    )
    with pytest.raises(ppvae.ContractError, match=r"pair 'broken': expected finite weights.*row 5"):
        ppvae.compare(model, {"good": guide, "broken": broken}, x, num_particles=30)


def test_compare_gives_the_order_and_the_paired_differences_of_the_closed_forms():
    model, guides, x = three_guides()
    result = ppvae.compare(model, guides, x, num_particles=5000)
    assert result.best(1) == "exact"
    torch.testing.assert_close(result.rows["exact"].marginal.guide.value, model.log_evidence(x).detach())
    difference, error = result.difference("wide", "exact", 1)
    variance = model.posterior(x).variance[0] * torch.tensor([1.3**2]).double()
    posterior = model.posterior(x[:1])
    q = torch.distributions.MultivariateNormal(posterior.mean, torch.diag(variance))
    kl = torch.distributions.kl_divergence(q, posterior).item()  # the same for every datum
    assert difference == pytest.approx(-kl, abs=0.03)
    assert error < 0.03
    assert result.difference("wide", "wide") == (0.0, 0.0)
    assert result.difference("wider", "wide", 1)[0] < 0


def test_compare_refuses_gaps_of_guides_that_are_not_amortized():
    model, guides, x = three_guides()
    with pytest.raises(ppvae.ContractError, match=r"pair 'exact'.*AmortizedGuide"):
        ppvae.compare(model, guides, x, ascent=Ascent())


def test_compare_refuses_a_guide_of_other_latents_by_name():
    model, _, x = three_guides()
    _, stranger, _ = PAIRS["user"].make()
    with pytest.raises(ppvae.ContractError, match="pair 'stranger'"):
        ppvae.compare(model, {"stranger": stranger}, x)
    with pytest.raises(ValueError, match="at least one pair"):
        ppvae.compare(model, {}, x)
    with pytest.raises(ValueError, match="at least 2 data"):
        ppvae.compare(model, {"exact": Exact(model)}, x[:1])


def test_compare_pairs_with_different_models():
    first, second = PAIRS["gaussian_vae"].make(0), PAIRS["gaussian_vae"].make(1)
    result = ppvae.compare_pairs({"a": first[:2], "b": second[:2]}, first[2], num_particles=50)
    delta = result.rows["a"].marginal.value - result.rows["b"].marginal.value
    assert result.difference("a", "b") == pytest.approx((delta.mean().item(), (delta.std() / 6**0.5).item()))


def test_compare_draws_dynamically_binarized_data_once_for_all_pairs():
    first, second = PAIRS["gaussian_vae"].make(0), PAIRS["gaussian_vae"].make(1)
    data = ppvae.Dataset(torch.rand(6, 8, 8).double(), binarization="dynamic")
    found = ppvae.compare_pairs({"a": first[:2], "b": second[:2]}, data, num_particles=5, seed=3)
    assert set(found.batch.x.unique().tolist()) == {0.0, 1.0}
    for name, pair in found.pairs.items():
        alone = ppvae.log_marginal(*pair, found.batch, num_particles=5, seed=3)
        assert torch.equal(found.rows[name].marginal.value, alone.value)


def test_compare_refuses_annealing_of_a_discrete_latent_before_anything_is_estimated():
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=r"pair 'only': expected continuous latents.*\['y'\]"):
        ppvae.compare(model, {"only": guide}, x, num_particles=10**9, annealing=Annealing(temperatures=3))


def test_compare_takes_labels_that_are_known_in_part():
    model, guide, x = PAIRS["label"].make()
    found = ppvae.compare(model, {"only": guide}, x, LABELS, num_particles=20)
    alone = ppvae.log_marginal(model, guide, x, LABELS, num_particles=20)
    assert torch.equal(found.rows["only"].marginal.value, alone.value)

"""Annealed importance sampling and its certificate, against known evidence."""

import pyro
import pytest
import torch
from ppvae.guides import Refined
from ppvae.models import LinearGaussian
from pyro import distributions as dist

import ppvae
from ppvae.evaluation.likelihood.hmc import hmc_step
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact


def test_hmc_leaves_its_target_invariant():
    torch.manual_seed(0)
    scale = torch.tensor([0.3, 2.0]).double()
    u = torch.randn(4000, 1, 2).double() * scale

    def log_density(u):
        return -0.5 * (u / scale).square().sum(-1)

    for _ in range(20):
        u, accepted = hmc_step(log_density, u, torch.tensor([0.4]).double(), 5)
    assert 0.2 < accepted.double().mean() < 0.999
    variance = (u / scale).var((0, 1))
    assert ((variance - 1).abs() < 4 * (2 / 4000) ** 0.5).all()
    assert (u.mean((0, 1)).abs() < 4 * scale / 4000**0.5).all()


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
def test_weights_are_unbiased_however_few_the_temperatures(schedule):
    model, x = linear_gaussian()
    estimate = ppvae.ais(model, x, temperatures=6, chains=4000, leapfrog_steps=3, schedule=schedule)
    ratio = (estimate.log_weight - model.log_evidence(x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / len(ratio) ** 0.5).all()
    torch.testing.assert_close(estimate.value, ratio.mean(0).log() + model.log_evidence(x).detach())
    torch.testing.assert_close(estimate.standard_error, ratio.std(0) / ratio.mean(0) / len(ratio) ** 0.5)


def test_backward_weights_are_unbiased_for_one_over_the_evidence():
    model, x = linear_gaussian()
    both = ppvae.bdmc(model, x[:1].expand(3000, -1), temperatures=20, chains=1, leapfrog_steps=3)
    ratio = (model.log_evidence(both.x) - both.upper.log_weight[0]).exp()
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / len(ratio) ** 0.5


def test_the_bracket_holds_the_evidence_and_narrows_as_temperatures_double():
    model, x = linear_gaussian()
    like = x[:1].expand(60, -1)
    gaps = []
    for temperatures in (10, 20, 40):
        both = ppvae.bdmc(model, like, temperatures=temperatures, chains=10, leapfrog_steps=5)
        evidence = model.log_evidence(both.x)
        low, high = both.lower.value - evidence, both.upper.value - evidence
        assert low.mean() < 4 * low.std() / 60**0.5
        assert high.mean() > -4 * high.std() / 60**0.5
        gaps.append(both.gap)
    assert gaps[0] > gaps[1] > gaps[2]


def test_it_is_consistent_within_its_standard_error():
    model, x = linear_gaussian()
    estimate = ppvae.ais(model, x, temperatures=200, chains=100)
    assert ((estimate.value - model.log_evidence(x)).abs() < 4 * estimate.standard_error).all()
    assert estimate.standard_error.max() < 0.3
    assert ((estimate.acceptance > 0.4) & (estimate.acceptance < 0.95)).all()


def test_from_the_exact_posterior_every_weight_is_the_evidence():
    model, x = linear_gaussian()
    estimate = ppvae.ais(model, x, guide=Exact(model), temperatures=5, chains=3)
    torch.testing.assert_close(estimate.log_weight, model.log_evidence(x).expand(3, -1).detach())


def test_from_a_good_guide_the_weights_vary_less_than_from_the_prior():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    runs = [ppvae.ais(model, x, guide=start, temperatures=10, chains=200) for start in (None, guide)]
    assert runs[1].log_weight.std(0).mean() < runs[0].log_weight.std(0).mean()
    assert ((runs[1].value - model.log_evidence(x)).abs() < 4 * runs[1].standard_error).all()


def test_two_latents_one_of_them_positive_agree_with_draws_of_the_prior():
    model, _, x = PAIRS["user"].make()
    annealed = ppvae.ais(model, x, temperatures=100, chains=100, leapfrog_steps=5)
    torch.manual_seed(0)
    shape = torch.randn(300_000, 2).double()
    size = torch.distributions.LogNormal(0.1 * shape.sum(-1), 1.0).sample()
    mean = model.net(torch.cat([shape, size.unsqueeze(-1)], -1)).detach()
    log_likelihood = torch.distributions.Normal(mean.unsqueeze(1), 0.5).log_prob(x).sum(-1)  # draws of the prior
    weight = (log_likelihood - log_likelihood.amax(0)).exp()
    exact = weight.mean(0).log() + log_likelihood.amax(0)
    error = (annealed.standard_error**2 + (weight.std(0) / weight.mean(0)) ** 2 / len(weight)).sqrt()
    assert error.max() < 0.2
    assert ((annealed.value - exact).abs() < 4 * error).all()


def test_every_prior_can_be_annealed():
    for pair in ("mixture_prior", "flow_prior"):
        model, _, x = PAIRS[pair].make()
        estimate = ppvae.ais(model, x, temperatures=20, chains=4, leapfrog_steps=3)
        assert torch.isfinite(estimate.value).all()
        assert (estimate.acceptance > 0).all()


def test_a_proposal_that_diverges_is_rejected_and_does_not_end_the_run():
    model, _, x = PAIRS["user"].make()
    assert torch.isfinite(ppvae.ais(model, x, temperatures=10, chains=3, first_step_size=50.0).log_weight).all()


def test_a_refined_guide_is_one_and_the_same_base_at_every_step():
    model, x = linear_gaussian()
    refined = Refined(nearly_exact(model, 2.0), model, 3, 0.3)
    estimate = ppvae.ais(model, x, guide=refined, temperatures=5, chains=300, leapfrog_steps=2)
    ratio = (estimate.log_weight - model.log_evidence(x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / len(ratio) ** 0.5).all()


def test_the_same_seed_gives_the_same_run_and_the_callers_state_is_left_alone():
    model, x = linear_gaussian()
    state = torch.get_rng_state()
    first, again = (ppvae.ais(model, x, temperatures=5, chains=2, seed=7).log_weight for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_discrete_latent_is_refused_unless_it_is_given():
    model, _, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match=r"discrete site\(s\) \['y'\].*give labels y"):
        ppvae.ais(model, x)
    with pytest.raises(ppvae.ContractError, match="labels that are all known"):
        ppvae.ais(model, x, LABELS)
    assert torch.isfinite(ppvae.ais(model, x, LABELS.clamp(min=0), temperatures=3, chains=2).value).all()


class Nested(ppvae.Model):
    """z ~ U(0, 2) and, within it, below ~ U(0, top)."""

    def __init__(self, moving: bool):
        super().__init__()
        self.moving = moving

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            top = pyro.sample("z", dist.Uniform(torch.zeros_like(x[:, 0]), 2.0))
            below = pyro.sample("below", dist.Uniform(torch.zeros_like(top), top if self.moving else 2.0))
            pyro.sample("x", dist.Normal((top + below).unsqueeze(-1), 1.0).to_event(1), obs=x)


def test_a_support_that_depends_on_a_latent_is_refused_and_a_fixed_one_is_not():
    x = torch.tensor([[0.5], [2.0]]).double()
    with pytest.raises(ppvae.ContractError, match=r"\['below'\], whose support depends on another latent"):
        ppvae.ais(Nested(moving=True), x)
    found = ppvae.ais(Nested(moving=False), x, temperatures=50, chains=200)
    grid = torch.linspace(0, 2, 401).double()[:-1] + 0.0025
    total = (grid[:, None] + grid).flatten()
    exact = dist.Normal(total, 1.0).log_prob(x).logsumexp(1) - 2 * torch.tensor(400.0).double().log()
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()


def test_a_chain_that_never_accepts_names_its_datum():
    model, x = linear_gaussian()
    with pytest.warns(UserWarning, match="no chain of 4 data ever accepted a transition, the first at row 0"):
        ppvae.ais(model, x, temperatures=3, chains=3, first_step_size=1e6)


def test_bad_settings_and_bad_weights_are_said():
    model, x = linear_gaussian()
    with pytest.raises(ValueError, match="above 0"):
        ppvae.ais(model, x, temperatures=0)
    with pytest.raises(ValueError, match='"sigmoid" or "linear"'):
        ppvae.ais(model, x, schedule="cosine")
    broken = LinearGaussian(torch.full((5, 2), torch.nan), torch.zeros(5)).double()
    with pytest.raises((ppvae.ContractError, ValueError), match=r"nan|finite weights"):
        ppvae.ais(broken, x, temperatures=3, chains=2)
    guide = nearly_exact(model)
    guide.can_score = False
    with pytest.raises(ppvae.ContractError, match="can score"):
        ppvae.ais(model, x, guide=guide)

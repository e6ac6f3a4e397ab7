"""Fits that diverge, end in an error or are impossible: which weights stay, and what is said."""

import warnings

import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.distributions.gaussians import FullGaussian
from ppvae.evaluation.likelihood import stages as module
from ppvae.evaluation.likelihood.proposals import FullRank, Laplace
from ppvae.evaluation.likelihood.stages import Stage
from tests.catalogue import PAIRS
from tests.ppvae.evaluation.likelihood.densities import Moved
from tests.ppvae.evaluation.likelihood.known import estimated, ill_conditioned, small_linear
from tests.ppvae.evaluation.likelihood.unfitted import CountGuide, OneSite, SameSite, WithCount, angle
from tests.ppvae.oracles import gaussian_mixture


def test_diverged_fit_keeps_the_weights_of_the_guide_and_is_named():
    known = small_linear(8)
    alone = estimated(known, None)
    with pytest.warns(UserWarning, match=r"the fit diverged for 2 of 8 data, rows 1, 4: they keep the weights") as told:
        found = estimated(known, Moved(broken=(1, 4)), chunk=1000)
    assert len(told) == 1
    assert found.diverged == (1, 4)
    assert found.stage.tolist() == [1, 0, 1, 1, 0, 1, 1, 1]
    for name in ("value", "standard_error", "ess", "khat"):
        assert torch.equal(getattr(found, name)[[1, 4]], getattr(alone, name)[[1, 4]])
    assert "6 by Moved, fit diverged for 2" in repr(found)


def test_diverged_rows_are_those_of_the_data_in_every_block():
    known = small_linear(8)
    with pytest.warns(UserWarning, match=r"4 of 8 data, rows 0, 2, 4, 6:"):
        found = estimated(known, Moved(broken=(0,)), chunk=8)  # blocks of two
    assert found.diverged == (0, 2, 4, 6)


def test_diverged_fit_of_every_datum_leaves_the_guide():
    known = small_linear(12)
    with pytest.warns(UserWarning, match=r"12 of 12 data, rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.: they keep"):
        found = estimated(known, Moved(broken=range(12)))
    assert torch.equal(found.value, found.guide.value)
    assert (found.num_fitted, len(found.diverged)) == (0, 12)


def test_datum_that_a_later_stage_repairs_is_not_diverged(monkeypatch):
    broken, exact = Stage("broken", Moved(broken=range(30))), Stage("exact", Laplace(scale=1.0))
    monkeypatch.setattr(module, "AUTO", (broken, exact))
    known = small_linear(30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimated(known, "auto")
    assert found.diverged == ()
    assert (found.stage == 2).all()


def test_weights_of_a_datum_that_overflow_leave_it_with_the_guide():
    class Huge:
        def fit(self, log_joint, start):
            scale = torch.ones(len(start.loc)).to(start.loc)
            scale[0] = 1e200
            return FullGaussian(start.loc, scale[:, None, None] * start.scale_tril)

    with pytest.warns(UserWarning, match=r"rows 0:"):
        found = estimated(small_linear(3), Huge())
    assert found.stage.tolist() == [0, 1, 1]


class Failing:
    """A fit that ends in an error at its second block of data."""

    def __init__(self, error):
        self.error, self.calls = error, 0

    def fit(self, log_joint, start):
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return Laplace(scale=1.0).fit(log_joint, start)


def test_error_of_an_explicit_proposal_reaches_the_caller_and_changes_nothing():
    known = small_linear()
    known.model.bias.requires_grad_(False)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of ideas"):
        estimated(known, Failing(RuntimeError("out of ideas")), chunk=32)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in known.model.parameters()] == [True, False, True]


@pytest.mark.parametrize("error", [RuntimeError("derivative is not implemented"), ppvae.ContractError("not for me")])
def test_auto_keeps_the_weights_that_it_has_where_a_fit_ends_in_an_error(monkeypatch, error):
    """The values are those of the stages that ended well."""
    monkeypatch.setattr(module, "AUTO", (Stage("moved", Moved()), Stage("failing", Failing(error))))
    known = small_linear(30)
    found = estimated(known, "auto", chunk=64)
    assert str(error) in found.not_fitted
    assert str(error) in repr(found)
    assert found.stages == ("guide", "moved")
    assert found.value.isfinite().all()
    assert [p.requires_grad for p in known.model.parameters()] == [True, True, True]


def test_auto_passes_on_that_memory_is_short(monkeypatch):
    monkeypatch.setattr(module, "AUTO", (Stage("failing", Failing(torch.OutOfMemoryError("no memory"))),))
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        estimated(small_linear(30), "auto", chunk=64)


def test_auto_below_25_particles_says_why_nothing_is_fitted():
    known = ill_conditioned(0.1, 0.3, 2)
    found = estimated(known, "auto", 24)
    assert found.not_fitted == "k-hat needs 25 particles, got 24"
    assert torch.equal(found.value, found.guide.value)
    assert found.khat.isnan().all()
    assert repr(found).startswith("LogMarginal(lower bound on log p(x) ")
    assert "not fitted: k-hat needs 25 particles, got 24" in repr(found)
    assert estimated(known, "auto", 25).num_fitted == 2
    explicit = estimated(known, Laplace(scale=1.0), 2)
    torch.testing.assert_close(explicit.value, known.evidence)


UNFITTED = {
    "discrete": lambda: (*_mixture(), r"every latent of this pair is discrete: \['z'\]"),
    "a count": lambda: (
        WithCount(),
        CountGuide(),
        torch.rand(8).double() + 3,
        "the discrete site 'n' is not enumerated",
    ),
    "an angle": lambda: (
        OneSite(angle),
        SameSite(narrow_angle),
        torch.randn(8, 2).double(),
        "no image of the real line",
    ),
}


def _mixture():
    model, x = gaussian_mixture()
    return model, PAIRS["mixture"].guide().double(), x


def narrow_angle(x):
    return dist.VonMises(torch.zeros_like(x), 20.0).to_event(1)


@pytest.mark.parametrize("case", UNFITTED)
def test_explicit_proposal_refuses_a_pair_that_cannot_be_fitted(case):
    model, guide, x, reason = UNFITTED[case]()
    with pytest.raises(ppvae.ContractError, match=f"expected continuous latents.*{reason}.*proposal=None"):
        ppvae.log_marginal(model, guide, x, proposal=FullRank(), num_particles=100)


@pytest.mark.parametrize("case", ["a count", "an angle"])
def test_auto_says_why_a_pair_cannot_be_fitted(case):
    model, guide, x, reason = UNFITTED[case]()
    found = ppvae.log_marginal(model, guide, x, num_particles=100)
    assert found.in_doubt.any()
    assert reason in found.not_fitted
    assert reason in repr(found)
    assert torch.equal(found.value, found.guide.value)
    assert found.stages == ("guide",)

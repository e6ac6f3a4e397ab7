"""An objective with terms: parts that are added or replaced, and what is refused."""

from dataclasses import replace

import pytest
import torch
from pyro.infer import Trace_ELBO

import ppvae
from ppvae.objectives import Penalty, Regularised
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.objectives.estimates import distortion_and_rate, particles_of


def test_regularised_is_the_bound_and_all_its_terms():
    particles = particles_of()
    terms = [ppvae.KLWeight(2.0), ppvae.DIPPenalty(1.0, 1.0, of_draws=True), ppvae.TotalCorrelation(3.0, latent_dim=3)]
    objective = ppvae.ELBO(2) + terms[0] + terms[1] + terms[2]
    assert objective.regularisers == tuple(terms)
    distortion, rate = distortion_and_rate(particles)
    expected = distortion + 2 * rate + terms[1].penalty(particles) + terms[2].penalty(particles)
    torch.testing.assert_close(objective.per_datum(particles), expected)
    assert objective.num_particles == 2


def test_regularised_bound_of_several_draws_takes_penalties():
    particles = particles_of()
    moments = ppvae.DIPPenalty(1.0, 1.0, of_draws=True)
    expected = ppvae.IWAE(2).per_datum(particles) + moments.penalty(particles)
    torch.testing.assert_close((ppvae.IWAE(2) + moments).per_datum(particles), expected)


def test_regularised_names_the_part_of_each_term():
    particles = particles_of("label", y=LABELS)
    objective = ppvae.ELBO() + ppvae.ClassifierLoss(1.0) + ppvae.DIPPenalty(1.0, 1.0, of_draws=False)
    assert list(objective.parts(particles)) == ["distortion", "rate/y", "rate/z", "classifier/y", "moments/z"]
    twice = ppvae.ELBO() + ppvae.MaximumMeanDiscrepancy(1.0) + ppvae.MaximumMeanDiscrepancy(2.0)
    assert list(twice.parts(particles))[-2:] == ["mmd/z", "mmd/z#2"]


def test_regularised_leaves_the_parts_of_its_objective_alone():
    """A term gets a mapping of parts and returns another one."""
    particles = particles_of()
    terms = [
        ppvae.KLWeight(2.0),
        ppvae.Capacity(1.0),
        ppvae.TCDecomposition(10),
        ppvae.ConstrainedReconstruction(5.0),
        ppvae.DIPPenalty(1.0, 1.0, of_draws=True),
    ]
    for term in terms:
        parts = ppvae.ELBO().parts(particles)
        before = dict(parts)
        assert term.apply(parts, particles) is not parts
        assert parts == before


def test_regularised_keeps_the_terms_and_players_of_what_it_is_made_of():
    inner = ppvae.factor_vae(5.0, latent_dim=3)
    outer = Regularised(inner, [ppvae.KLWeight(2.0)])
    assert outer.players == inner.players
    assert [type(term).__name__ for term in outer.regularisers] == ["TotalCorrelation", "KLWeight"]
    assert [player.name for player in (outer + ppvae.ConstrainedReconstruction(5.0)).players] == [
        "critic/z",
        "constraint/distortion",
    ]


def test_regularised_tells_whether_it_is_a_statistic_of_the_batch_and_needs_draws_with_a_gradient():
    assert not (ppvae.ELBO() + ppvae.KLWeight(2.0)).over_batch
    assert (ppvae.ELBO() + ppvae.Capacity(2.0)).over_batch
    assert not (ppvae.ForwardKL() + ppvae.ClassifierLoss(1.0)).reparameterised
    assert (ppvae.ForwardKL() + ppvae.MaximumMeanDiscrepancy(1.0)).reparameterised


class Undeclared(Penalty):
    """A term that sets nothing but its name."""

    label = "undeclared"

    def penalty(self, particles):
        return particles.latent("z").value.square().sum(-1).mean(0)


def test_term_that_declares_nothing_gets_the_safe_defaults():
    term, particles = Undeclared(), particles_of()
    objective = ppvae.ForwardKL() + term
    assert (objective.over_batch, objective.reparameterised, objective.players) == (True, True, ())
    parts = (ppvae.ELBO() + term).parts(particles)
    torch.testing.assert_close(parts["undeclared"], particles.draws["z"].square().sum(-1).mean(0))


def test_regularised_refuses_what_is_no_term():
    with pytest.raises(TypeError, match=r"expected a term such as KLWeight\(4.0\), got float"):
        ppvae.ELBO() + 4.0
    with pytest.raises(TypeError, match="got the class KLWeight itself"):
        ppvae.ELBO() + ppvae.KLWeight
    with pytest.raises(TypeError, match="got ELBO"):
        ppvae.ELBO() + ppvae.ELBO()
    twice = ppvae.KLWeight(2.0)
    with pytest.raises(ValueError, match="each regulariser once"):
        ppvae.ELBO() + twice + twice


@pytest.mark.parametrize("objective", [Trace_ELBO(), ppvae.ELBO, "elbo", None])
def test_regularised_refuses_what_is_no_objective(objective):
    with pytest.raises(TypeError, match=r"expected an objective of ppvae such as ELBO\(\), got"):
        Regularised(objective, [])


COMPLETING = {
    "KLWeight": lambda: ppvae.KLWeight(4.0),
    "KLWeight of 1": lambda: ppvae.KLWeight(1.0),
    "KLWeight with a schedule": lambda: ppvae.KLWeight(ppvae.warm_up(10)),
    "Capacity": lambda: ppvae.Capacity(1.0),
    "TCDecomposition": lambda: ppvae.TCDecomposition(10),
    "ConstrainedReconstruction": lambda: ppvae.ConstrainedReconstruction(1.0),
}
WITHOUT_RATE = {
    "IWAE": lambda: ppvae.IWAE(2),
    "DReG": lambda: ppvae.DReG(2),
    "Renyi": lambda: ppvae.Renyi(0.5, 2),
    "ReweightedWakeSleep": lambda: ppvae.ReweightedWakeSleep(2),
    "ForwardKL": ppvae.ForwardKL,
    "Reconstruction": ppvae.Reconstruction,
}


@pytest.mark.parametrize("term", COMPLETING)
@pytest.mark.parametrize("objective", WITHOUT_RATE)
def test_term_that_replaces_a_part_is_refused_by_an_objective_without_that_part(objective, term):
    """A bound of several draws has no rate to weigh: adding (beta - 1) KL to it would reward a wide guide."""
    made, completes = COMPLETING[term](), "distortion" if "Constrained" in term else "rate"
    if objective == "Reconstruction" and completes == "distortion":
        assert torch.isfinite((ppvae.Reconstruction() + made).per_datum(particles_of())).all()
        return
    expected = rf"an objective with a {completes} for {type(made).__name__} to complete, such as ELBO.*got {objective}"
    with pytest.raises(ppvae.ContractError, match=expected):
        WITHOUT_RATE[objective]() + ppvae.ClassifierLoss(1.0) + made


@pytest.mark.parametrize("term", COMPLETING)
@pytest.mark.parametrize("objective", [ppvae.ELBO, ppvae.StickingTheLanding])
def test_term_that_replaces_a_part_is_taken_by_an_objective_with_that_part(objective, term):
    particles = replace(particles_of(), step=3)
    assert torch.isfinite((objective() + COMPLETING[term]()).per_datum(particles)).all()


@pytest.mark.parametrize(
    ("objective", "term", "part"),
    [
        (ppvae.annealed_vae(5.0), ppvae.Capacity(5.0, site="z"), "rate"),
        (ppvae.beta_vae(4.0), ppvae.Capacity(5.0), "rate"),
        (ppvae.beta_vae(4.0), ppvae.KLWeight(ppvae.warm_up(10)), "rate"),
        (ppvae.beta_vae(4.0), ppvae.TCDecomposition(10), "rate"),
        (ppvae.geco(5.0), ppvae.ConstrainedReconstruction(6.0), "distortion"),
    ],
    ids=["capacity", "beta-capacity", "beta-warm-up", "beta-tc", "geco"],
)
def test_two_terms_that_replace_one_part_are_refused(objective, term, part):
    with pytest.raises(
        ppvae.ContractError, match=rf"one term to complete the {part}, got .* and {type(term).__name__}"
    ):
        objective + term


def test_terms_that_replace_different_parts_go_together():
    particles = particles_of("user")
    objective = ppvae.ELBO() + ppvae.KLWeight(2.0, site="shape") + ppvae.KLWeight(3.0, site="size")
    expected = ppvae.ELBO().per_datum(particles) + particles.kl("shape") + 2 * particles.kl("size")
    torch.testing.assert_close(objective.per_datum(particles), expected)
    assert torch.isfinite((ppvae.geco(5.0) + ppvae.KLWeight(2.0)).per_datum(particles)).all()


@pytest.mark.parametrize("make", [COMPLETING["KLWeight"], COMPLETING["TCDecomposition"]])
@pytest.mark.parametrize("objective", [ppvae.ELBO, ppvae.StickingTheLanding])
def test_no_accepted_weight_of_the_rate_rewards_a_guide_for_leaving_the_prior(objective, make):
    """x tells nothing of z, so that the best guide is the prior: a wider one must not lower the loss."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    regularised = objective() + make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = guide.encoder.layers[-1]
        layer.weight.zero_()
        losses = []
        for log_scale in (0.0, 1.0, 3.0, 5.0):
            layer.bias.copy_(torch.tensor([0.0] * 3 + [log_scale] * 3))
            torch.manual_seed(0)
            losses.append(sum(regularised.loss(model, guide, x) for _ in range(50)))
    assert losses == sorted(losses)

"""Laws that the objectives keep whatever the pair."""

import pytest
import torch

import ppvae
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian


def per_datum(objective, model, guide, x, y=None, seed=0):
    torch.manual_seed(seed)
    return objective.per_datum(ppvae.draw(model, guide, x, y, objective.num_particles))


@pytest.mark.parametrize("objective", [ppvae.ELBO(), ppvae.ELBO(5, analytic_kl=False), ppvae.IWAE(1), ppvae.IWAE(20)])
def test_every_bound_is_the_evidence_at_the_exact_posterior(objective):
    model, x = linear_gaussian()
    if isinstance(objective, ppvae.ELBO) and objective.analytic_kl:
        objective = ppvae.ELBO(200_000)  # a closed-form KL leaves the reconstruction term's noise
        tolerance = 0.03
    else:
        tolerance = 1e-6
    loss = per_datum(objective, model, Exact(model), x)
    torch.testing.assert_close(-loss, model.log_evidence(x), rtol=0, atol=tolerance)


def test_iwae_of_one_particle_is_the_elbo():
    model, guide, x = PAIRS["gaussian_vae"].make()
    iwae = per_datum(ppvae.IWAE(1), model, guide, x)
    torch.testing.assert_close(iwae, per_datum(ppvae.ELBO(analytic_kl=False), model, guide, x))


def test_more_particles_never_loosen_the_bound_and_never_pass_the_evidence():
    model, x = linear_gaussian()
    guide = PAIRS["linear_gaussian"].guide().double()
    repeats = x.repeat_interleave(4000, 0)
    bounds, errors = [], []
    for k in (1, 2, 8, 32):
        loss = per_datum(ppvae.IWAE(k), model, guide, repeats).reshape(len(x), -1).detach()
        bounds.append(-loss.mean(1))
        errors.append(loss.std(1) / loss.shape[1] ** 0.5)
    evidence = model.log_evidence(x)
    for i in range(3):
        slack = 4 * (errors[i] ** 2 + errors[i + 1] ** 2).sqrt()
        assert (bounds[i + 1] > bounds[i] - slack).all()
        assert (bounds[i + 1] - bounds[i]).mean() > 0
    assert all((bound < evidence + 4 * error).all() for bound, error in zip(bounds, errors, strict=True))


def test_analytic_and_sampled_kl_have_the_same_mean():
    model, guide, x = PAIRS["gaussian_vae"].make()
    particles = ppvae.draw(model, guide, x, num_particles=100_000)
    sampled = particles.kl_integrand("z", analytic=False)
    error = sampled.std(0) / len(sampled) ** 0.5
    assert ((particles.kl("z") - sampled.mean(0)).abs() < 4 * error).all()


def test_semi_supervised_adds_the_label_loss_to_the_labelled_rows_alone():
    model, guide, x = PAIRS["label"].make()
    guide.eval()
    plain = per_datum(ppvae.ELBO(), model, guide, x, LABELS)
    both = per_datum(ppvae.ELBO() + ppvae.ClassifierLoss(alpha=3.0), model, guide, x, LABELS)
    log_q = ppvae.predict(guide, x).log()[range(len(x)), LABELS.clamp(min=0)]
    torch.testing.assert_close(both - plain, torch.where(LABELS >= 0, -3 * log_q, 0))


def test_the_label_loss_is_the_same_for_all_known_as_within_a_mixed_batch():
    model, guide, x = PAIRS["label_style"].make()
    known = LABELS >= 0
    mixed = ppvae.draw(model, guide, x, LABELS).log_label
    alone = ppvae.draw(model, guide, x[known], LABELS[known]).log_label
    torch.testing.assert_close(mixed[known], alone)
    assert (mixed[~known] == 0).all()


def test_evaluating_a_loss_changes_no_objective():
    model, guide, x = PAIRS["label"].make()
    objective = ppvae.IWAE(2) + ppvae.ClassifierLoss(alpha=1.0)
    before = {**vars(objective), **vars(objective.objective), **vars(objective.regularisers[0])}
    objective.loss(model, guide, x, LABELS)
    assert {**vars(objective), **vars(objective.objective), **vars(objective.regularisers[0])} == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.IWAE(0), "at least 1, got 0"),
        (lambda: ppvae.ELBO(-1), "at least 1, got -1"),
        (lambda: ppvae.ClassifierLoss(-1.0), "alpha of at least 0, got -1"),
        (lambda: ppvae.ClassifierLoss(float("nan")), "got nan"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_without_a_classifier_are_refused():
    model, guide, x = PAIRS["gaussian_vae"].make()
    objective = ppvae.ELBO() + ppvae.ClassifierLoss(1.0)
    with pytest.raises(ppvae.ContractError, match="draws site 'y'"):
        objective.loss(model, guide, x, LABELS)

"""What a regulariser cannot do is refused, in words."""

import math
from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from ppvae.models import MixtureOfGaussians
from pyro import distributions as dist
from pyro.nn import PyroModule

import ppvae
from ppvae.data import Factors
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import particles_of


class NoDensity(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError


def test_a_guide_without_a_density_is_refused_in_words():
    model, guide, x = PAIRS["gaussian_vae"].make()

    def implicit(x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", NoDensity(guide.encoder(x)[..., :3], 1.0).to_event(1))

    with pytest.raises(ppvae.ContractError, match=r"have a density, got .* at site 'z', which has no log_prob"):
        ppvae.wae().loss(model, implicit, x)


@pytest.mark.parametrize("objective", [ppvae.DReG(2), ppvae.ReweightedWakeSleep(2)], ids=["dreg", "wake-sleep"])
def test_a_term_of_the_model_beside_an_estimator_that_weighs_the_path_is_refused(objective):
    for term in (ppvae.KLWeight(2.0), ppvae.TCDecomposition(10)):
        with pytest.raises(ppvae.ContractError, match=rf"weighs all.*{type(term).__name__}; use ELBO"):
            objective + ppvae.ClassifierLoss(1.0) + term


@pytest.mark.parametrize(
    "term",
    [
        ppvae.KLWeight(2.0, site="w"),
        ppvae.Capacity(1.0, site="w"),
        ppvae.TotalCorrelation(1.0, latent_dim=3, site="w"),
        ppvae.TCDecomposition(10, site="w"),
        ppvae.DIPPenalty(1.0, 1.0, of_draws=True, site="w"),
        ppvae.MaximumMeanDiscrepancy(1.0, site="w"),
        ppvae.SteinDiscrepancy(1.0, site="w"),
        ppvae.AdversarialDivergence(1.0, latent_dim=3, site="w"),
    ],
    ids=lambda term: type(term).__name__,
)
def test_a_site_that_the_pair_has_not_is_refused_by_name(term):
    with pytest.raises(ppvae.ContractError, match=r"expected the name of a latent site, got 'w'.*\['z'\]"):
        term.penalty(particles_of())


BATCH_STATISTICS = [
    ppvae.TotalCorrelation(1.0, latent_dim=3),
    ppvae.TCDecomposition(10),
    ppvae.DIPPenalty(1.0, 1.0, of_draws=False),
    ppvae.MaximumMeanDiscrepancy(1.0),
    ppvae.SteinDiscrepancy(1.0),
    ppvae.AdversarialDivergence(1.0, latent_dim=3),
]


@pytest.mark.parametrize("term", BATCH_STATISTICS, ids=lambda term: type(term).__name__)
def test_a_batch_of_one_is_refused(term):
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=r"batch of at least 2 data.*'z'.*got 1"):
        term.penalty(ppvae.draw(model, guide, x[:1]))


@pytest.mark.parametrize("term", BATCH_STATISTICS, ids=lambda term: type(term).__name__)
def test_latents_drawn_for_each_class_are_refused(term):
    with pytest.raises(ppvae.ContractError, match=r"depends on no (enumerated one|other), got 'z'"):
        term.penalty(particles_of("label_style"))


def test_a_prior_that_depends_on_another_latent_is_refused():
    particles = particles_of("bottom_up")
    for term in (ppvae.MaximumMeanDiscrepancy(1.0, site="z1"), ppvae.TCDecomposition(10, site="z1")):
        with pytest.raises(ppvae.ContractError, match=r"depends on no other, got 'z1', .*; the model draws z2, z1"):
            term.penalty(particles)
    assert torch.isfinite(ppvae.MaximumMeanDiscrepancy(1.0, site="z2").penalty(particles))


class Independent(PyroModule):
    """Two latents that know nothing of each other, whose priors differ; in the model and in the guide."""

    def __init__(self, loc: float, learns: bool):
        super().__init__()
        self.loc, self.learns = loc, learns

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            for name, place in {"a": 0.0, "b": self.loc}.items():
                loc = x if self.learns else torch.full_like(x, place)
                z = pyro.sample(name, dist.Normal(loc, 0.5).to_event(1))
            if not self.learns:
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_a_second_latent_with_a_prior_of_its_own_is_as_good_as_a_first():
    x = torch.randn(8, 3)
    particles = ppvae.draw(Independent(2.0, False), Independent(2.0, True), x, num_particles=2)
    for term in (
        ppvae.MaximumMeanDiscrepancy(1.0, site="b"),
        ppvae.SteinDiscrepancy(1.0, site="b"),
        ppvae.AdversarialDivergence(1.0, latent_dim=3, site="b"),
        ppvae.TCDecomposition(10, site="b"),
    ):
        assert torch.isfinite(term.penalty(particles)).all()
    data = ppvae.Dataset(x, factors=Factors(("row",), (8,)))
    found = ppvae.represent(Independent(2.0, False), Independent(2.0, True), data, site="b")
    torch.testing.assert_close(found.kl, ((x - 2) ** 2 / (2 * 0.5**2)).mean(0))
    assert found.prior.loc.tolist() == [2.0] * 3


def test_moments_given_a_draw_are_refused():
    with pytest.raises(ppvae.ContractError, match="guide draws first, 'z1', got 'z2'"):
        ppvae.DIPPenalty(1.0, 1.0, of_draws=False, site="z2").penalty(particles_of("bottom_up"))


@pytest.mark.parametrize("term", BATCH_STATISTICS, ids=lambda term: type(term).__name__)
def test_latents_that_are_no_vectors_are_refused(term, monkeypatch):
    monkeypatch.setattr(term, "site", "size")
    if term.adversary is not None:
        monkeypatch.setattr(term.adversary, "site", "size")
    with pytest.raises(ppvae.ContractError, match=r"event shape \(D,\), got 'size'|depends on no other, got 'size'"):
        term.penalty(particles_of("user"))


@pytest.mark.parametrize("term", BATCH_STATISTICS, ids=lambda term: type(term).__name__)
def test_latents_under_a_mask_are_refused(term):
    particles = particles_of()
    masked = replace(particles, guide={"z": replace(particles.guide["z"], masked=True)})
    with pytest.raises(ppvae.ContractError, match="'z' under a mask"):
        term.penalty(masked)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.KLWeight(-1.0), "weight of at least 0, got -1"),
        (lambda: ppvae.KLWeight(math.nan), "got nan"),
        (lambda: ppvae.Capacity(-1.0), "capacity of at least 0"),
        (lambda: ppvae.TotalCorrelation(-1.0), "gamma of at least 0"),
        (lambda: ppvae.TCDecomposition(1), "num_data of at least 2, got 1"),
        (lambda: ppvae.TCDecomposition(10, beta=-1.0), "beta of at least 0"),
        (lambda: ppvae.info_vae(alpha=1.5), "alpha of at most 1"),
        (lambda: ppvae.info_vae(0.0, 0.5), r"alpha \+ lambda_ of at least 1"),
        (lambda: ppvae.geco(0.0), "tolerance finite and other than 0"),
        (lambda: ppvae.geco(math.inf), "tolerance finite and other than 0"),
        (lambda: ppvae.ConstrainedReconstruction(5.0, limit=1.0), "limit above 1 and finite, got 1.0"),
        (lambda: ppvae.train_critic(torch.zeros(1, 3)), r"at least 2, got \(1, 3\)"),
        (lambda: ppvae.train_critic(torch.full((9, 3), math.nan)), "finite draws"),
        (lambda: ppvae.warm_up(0), "at least 1 step"),
        (lambda: ppvae.annealed_vae(-5.0), "capacity of at least 0, got -5"),
        (lambda: ppvae.annealed_vae(math.nan), "finite"),
        (lambda: ppvae.KLWeight(math.inf), "weight of at least 0, got inf"),
        (lambda: ppvae.TotalCorrelation(1.0, critic=torch.nn.ReLU()), "parameters to train"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_regulariser_is_refused():
    with pytest.raises(TypeError, match=r"expected a regulariser such as KLWeight\(4.0\), got float"):
        ppvae.ELBO() + 4.0
    twice = ppvae.KLWeight(2.0)
    with pytest.raises(ValueError, match="each regulariser once"):
        ppvae.ELBO() + twice + twice
    with pytest.raises(TypeError, match="got ELBO"):
        ppvae.ELBO() + ppvae.ELBO()
    with pytest.raises(TypeError, match="expected an objective of ppvae"):
        ppvae.Regularised(pyro.infer.Trace_ELBO(), [])


@pytest.mark.parametrize(
    ("objective", "term"),
    [
        (ppvae.Reconstruction(), ppvae.KLWeight(0.5)),
        (ppvae.Reconstruction(), ppvae.TCDecomposition(10)),
        (ppvae.IWAE(2), ppvae.Capacity(1.0)),
        (ppvae.IWAE(2), ppvae.KLWeight(0.5)),
        (ppvae.IWAE(2), ppvae.KLWeight(ppvae.warm_up(10))),
        (ppvae.IWAE(2), ppvae.KLWeight(lambda step: 2.0)),
        (ppvae.Renyi(0.5, 2), ppvae.TCDecomposition(10, gamma=0.5)),
        (ppvae.IWAE(2), ppvae.ConstrainedReconstruction(1.0)),
        (ppvae.ForwardKL(), ppvae.KLWeight(2.0)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_term_that_completes_a_loss_is_refused_where_there_is_nothing_to_complete(objective, term):
    with pytest.raises(ppvae.ContractError, match=rf"beside {type(term).__name__}, which completes .* got") as caught:
        objective + term
    by_its_weight = objective.kind == "bound" and isinstance(term, ppvae.KLWeight | ppvae.TCDecomposition)
    assert ("a weight that is below 1" in str(caught.value)) == by_its_weight


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
def test_two_terms_that_set_the_weight_of_one_part_are_refused(objective, term, part):
    with pytest.raises(
        ppvae.ContractError, match=rf"one term to set the weight of the {part}, got .* and {type(term).__name__}"
    ):
        objective + term


def test_weights_of_two_sites_or_of_two_parts_go_together():
    particles = particles_of("user")
    objective = ppvae.ELBO() + ppvae.KLWeight(2.0, site="shape") + ppvae.KLWeight(3.0, site="size")
    expected = ppvae.ELBO().per_datum(particles) + particles.kl("shape") + 2 * particles.kl("size")
    torch.testing.assert_close(objective.per_datum(particles), expected)
    assert torch.isfinite((ppvae.geco(5.0) + ppvae.KLWeight(2.0)).per_datum(particles)).all()


@pytest.mark.parametrize(
    "objective",
    [ppvae.wae(), ppvae.info_vae(), ppvae.adversarial_autoencoder(latent_dim=3)],
    ids=["wae", "info", "aae"],
)
def test_a_divergence_from_a_prior_that_it_could_not_teach_is_refused(objective):
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.prior = MixtureOfGaussians(3, components=2)
    with pytest.raises(ppvae.ContractError, match=r"fixed prior of 'z', got one that learns.*SteinDiscrepancy"):
        objective.per_datum(ppvae.draw(model, guide, x))
    model.prior.requires_grad_(False)
    assert torch.isfinite(objective.per_datum(ppvae.draw(model, guide, x))).all()


def test_stein_teaches_a_prior_whose_draws_have_no_gradient():
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.prior = MixtureOfGaussians(3, components=2)
    ppvae.SteinDiscrepancy(1.0).penalty(ppvae.draw(model, guide, x)).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.prior.parameters())


def test_a_number_of_data_that_is_not_the_training_sets_is_refused():
    model, guide, x = PAIRS["gaussian_vae"].make()
    for terms in (ppvae.beta_tcvae(10 * len(x)), ppvae.IWAE(2) + ppvae.TCDecomposition(len(x) - 1)):
        with pytest.raises(ppvae.ContractError, match=rf"TCDecomposition with num_data={len(x)}, the rows"):
            ppvae.fit(model, guide, terms, x, epochs=1)
    ppvae.fit(model, guide, ppvae.beta_tcvae(np.int64(len(x))), x, epochs=1, progress=False)
    with pytest.raises(TypeError, match="integer"):
        ppvae.beta_tcvae(60.0)


def test_a_critic_of_another_shape_is_refused():
    particles = particles_of()
    with pytest.raises(ppvae.ContractError, match="expected a latent of 10 elements, got 3; give latent_dim=3"):
        ppvae.factor_vae(5.0).per_datum(particles)
    with pytest.raises(ppvae.ContractError, match=r"one number a code, got \(2,\)"):
        ppvae.TotalCorrelation(1.0, 3, critic=torch.nn.Linear(3, 2)).penalty(particles)

"""Laws of the particles, in float64."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.contract import Guide, Model
from tests.catalogue import CLASSES, LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian

SEMI_SUPERVISED = [name for name, pair in PAIRS.items() if pair.labelled]


def test_shapes():
    model, guide, x = PAIRS["label_style"].make()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    assert particles.log_weight.shape == (3, len(x))
    assert particles.model["x"].log_prob.shape == (CLASSES, 3, len(x))
    assert particles.kl("z").shape == (len(x),)
    assert particles.guide["y"].enumerated
    assert not particles.guide["z"].enumerated


def test_log_weight_at_the_exact_posterior_is_the_evidence():
    model, x = linear_gaussian()
    log_weight = ppvae.draw(model, Exact(model), x, num_particles=6).log_weight
    torch.testing.assert_close(log_weight, model.log_evidence(x).expand(6, -1), rtol=0, atol=1e-9)


def test_log_weight_sums_enumerated_sites_exactly():
    model, guide, x = PAIRS["mixture"].make()
    log_weight = ppvae.draw(model, guide, x, num_particles=2).log_weight
    torch.testing.assert_close(log_weight, model.log_evidence(x).expand(2, -1))


@pytest.mark.parametrize("pair", SEMI_SUPERVISED)
def test_log_weight_agrees_with_a_sum_over_classes_one_by_one(pair):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    unknown = ppvae.draw(model, guide, x, num_particles=20_000).log_weight.logsumexp(0)
    one_by_one = [
        ppvae.draw(model, guide, x, torch.full((len(x),), label), num_particles=20_000).log_weight.logsumexp(0)
        for label in range(CLASSES)
    ]
    # Two independent estimates of log p(x) with 20,000 particles each: their errors are far below 0.1 here.
    torch.testing.assert_close(unknown, torch.stack(one_by_one).logsumexp(0), rtol=0, atol=0.1)


@pytest.mark.parametrize("objective", [ppvae.ELBO(), ppvae.ELBO(2, analytic_kl=False), ppvae.IWAE(1)])
@pytest.mark.parametrize("pair", SEMI_SUPERVISED)
def test_any_mix_of_known_and_unknown_labels_gives_each_row_its_own_value(pair, objective):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    objective = ppvae.SemiSupervised(objective, alpha=1.5)
    with _zero_noise():
        mixed = objective.per_datum(ppvae.draw(model, guide, x, LABELS, objective.num_particles))
        alone = [
            objective.per_datum(ppvae.draw(model, guide, x[i : i + 1], y, objective.num_particles))
            for i, y in enumerate([None if label < 0 else label.reshape(1) for label in LABELS])
        ]
    torch.testing.assert_close(mixed, torch.cat(alone))


class _zero_noise:
    """Gaussian draws at their means, so that two replays of one row can be compared number by number."""

    def __enter__(self):
        self._rsample = dist.Normal.rsample
        torch.distributions.Normal.rsample = lambda normal, shape=(): normal.loc.expand(normal._extended_shape(shape))

    def __exit__(self, *exception):
        torch.distributions.Normal.rsample = self._rsample


def test_known_labels_give_the_joint_density_bound():
    model, guide, x = PAIRS["label"].make()
    y = torch.zeros(len(x), dtype=torch.long)
    particles = ppvae.draw(model, guide, x, y, num_particles=2)
    assert "y" not in particles.guide
    expected = sum(site.log_prob for site in particles.model.values()) - particles.guide["z"].log_prob
    torch.testing.assert_close(particles.log_weight, expected)


class TwoLayers(Model):
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1): the evidence is N(0, 3)."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2 + self.shift, 1.0))
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


class BottomUp(Guide):
    """The exact posterior, drawn as q(z1 | x) q(z2 | z1)."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(2 / 3 * x, (2 / 3) ** 0.5))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.5**0.5))


def test_kl_of_a_bottom_up_guide_is_not_taken_in_closed_form_where_that_is_biased():
    x = torch.tensor([1.5]).double()
    particles = ppvae.draw(TwoLayers(), BottomUp(), x, num_particles=50_000)
    exact = dist.Normal(0.0, 3**0.5).log_prob(x)
    elbo = -ppvae.ELBO(50_000).per_datum(particles)
    # z1's term is sampled: with the exact posterior and sampled terms the bound has no variance at all, and
    # with z2's in closed form its standard error at 50,000 particles is below 0.01.
    torch.testing.assert_close(elbo, exact, rtol=0, atol=0.03)


def test_kl_of_an_unknown_site_is_refused():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="latent site, got 'w'"):
        ppvae.draw(model, guide, x).kl("w")


def test_draw_leaves_nothing_behind():
    pyro.clear_param_store()
    model, guide, x = PAIRS["user"].make()
    ppvae.draw(model, guide, x)
    assert not list(pyro.get_param_store().keys())


def test_draw_needs_a_particle():
    model, guide, x = PAIRS["user"].make()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ppvae.draw(model, guide, x, num_particles=0)

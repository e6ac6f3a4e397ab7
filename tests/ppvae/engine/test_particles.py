"""Laws of the particles, in float64."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.contract import Guide, Model
from ppvae.engine.pair import Pair
from tests.catalogue import CLASSES, LABELS, PAIRS
from tests.ppvae.engine.pairs import TwoDiscrete, TwoDiscreteGuide
from tests.ppvae.oracles import Exact, Walk, WalkBack, linear_gaussian

SEMI_SUPERVISED = [name for name, pair in PAIRS.items() if pair.labelled]


def test_log_weight_at_the_exact_posterior_is_the_evidence():
    model, x = linear_gaussian()
    log_weight = ppvae.draw(model, Exact(model), x, num_particles=6).log_weight
    torch.testing.assert_close(log_weight, model.log_evidence(x).expand(6, -1), rtol=0, atol=1e-9)


def test_log_weight_sums_enumerated_sites_exactly():
    model, guide, x = PAIRS["mixture"].make()
    log_weight = ppvae.draw(model, guide, x, num_particles=2).log_weight
    torch.testing.assert_close(log_weight, model.log_evidence(x).expand(2, -1))


@pytest.mark.parametrize("pair", SEMI_SUPERVISED)
def test_log_weight_of_unknown_labels_is_the_sum_over_classes(pair):
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
def test_objective_of_a_mixed_batch_gives_each_row_its_own_value(pair, objective):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    objective = objective + ppvae.ClassifierLoss(alpha=1.5)
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


def test_log_weight_of_known_labels_is_of_the_joint_density_of_x_and_y():
    model, guide, x = PAIRS["label"].make()
    y = torch.zeros(len(x), dtype=torch.long)
    particles = ppvae.draw(model, guide, x, y, num_particles=2)
    assert "y" not in particles.guide
    expected = sum(site.log_prob for site in particles.model.values()) - particles.guide["z"].log_prob
    torch.testing.assert_close(particles.log_weight, expected)


def test_kl_is_sampled_where_the_closed_form_is_biased_in_a_bottom_up_guide():
    x = torch.tensor([1.5]).double()
    particles = ppvae.draw(Walk(), WalkBack(), x, num_particles=50_000)
    exact = dist.Normal(0.0, 3**0.5).log_prob(x)
    elbo = -ppvae.ELBO(50_000).per_datum(particles)
    # z1's term is sampled: with the exact posterior and sampled terms the bound has no variance at all, and
    # with z2's in closed form its standard error at 50,000 particles is below 0.01.
    torch.testing.assert_close(elbo, exact, rtol=0, atol=0.03)


def test_kl_refuses_the_name_of_no_latent():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="latent site, got 'w'"):
        ppvae.draw(model, guide, x).kl("w")


class MaskedModel(Model):
    """A latent and an observation that count in the first half of the batch only."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=torch.arange(len(x)) < len(x) // 2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, self.scale), obs=x)


class MaskedGuide(Guide):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=torch.arange(len(x)) < len(x) // 2):
            pyro.sample("z", dist.Normal(0.3 * x, 0.5))


def test_densities_of_masked_rows_are_zero():
    x = torch.linspace(-2, 2, 6).double()
    model, guide = MaskedModel(), MaskedGuide()
    particles = ppvae.draw(model, guide, x, num_particles=2000)
    assert (particles.kl("z")[3:] == 0).all()
    assert (particles.kl("z")[:3] > 0).all()
    assert (particles.log_weight[:, 3:] == 0).all()
    torch.manual_seed(0)
    ours = ppvae.ELBO().loss(model, guide, x)
    torch.manual_seed(0)
    assert ours == pytest.approx(pyro.infer.Trace_ELBO(max_plate_nesting=1).loss(model, guide, x))


def stock_enumerated_loss(model, guide, x):
    return pyro.infer.TraceEnum_ELBO(max_plate_nesting=1).loss(model, pyro.infer.config_enumerate(guide), x)


def test_log_weight_sums_two_discrete_sites_with_and_without_labels():
    model, guide, x = TwoDiscrete(), TwoDiscreteGuide(), torch.linspace(-1, 1, 6).double()
    y = torch.tensor([0, -1, 2, -1, 1, -1])
    joint = model.log_joint(x)
    expected = torch.where(y >= 0, joint.logsumexp(0)[y.clamp(min=0), range(6)], joint.logsumexp((0, 1)))
    torch.testing.assert_close(ppvae.draw(model, guide, x, y).log_weight[0], expected)
    ours = ppvae.ELBO(analytic_kl=False).loss(model, guide, x)
    assert ours == pytest.approx(stock_enumerated_loss(model, guide, x))
    mixed = ppvae.ELBO().per_datum(ppvae.draw(model, guide, x, y))
    labels = [None if label < 0 else label.reshape(1) for label in y]
    alone = [ppvae.ELBO().per_datum(ppvae.draw(model, guide, x[i : i + 1], label)) for i, label in enumerate(labels)]
    torch.testing.assert_close(mixed, torch.cat(alone))


def test_elbo_of_a_class_that_q_and_p_rule_out_is_finite():
    model, guide, x = TwoDiscrete(True), TwoDiscreteGuide(True), torch.linspace(-1, 1, 6).double()
    loss = ppvae.ELBO().differentiable_loss(model, guide, x)
    loss.backward()
    assert loss.item() == pytest.approx(stock_enumerated_loss(model, guide, x))
    assert torch.isfinite(model.loc.grad).all()


def test_objectives_treat_a_known_label_alike_in_a_mixed_batch_and_alone():
    model, guide, x = PAIRS["label"].make()
    guide.eval()
    with _zero_noise():
        mixed = ppvae.draw(model, guide, x, LABELS)
        known = LABELS >= 0
        alone = ppvae.draw(model, guide, x[known], LABELS[known])
        for objective in (ppvae.Reconstruction(), ppvae.beta_vae(4.0), ppvae.ELBO()):
            torch.testing.assert_close(objective.per_datum(mixed)[known], objective.per_datum(alone))
    assert (mixed.kl("y")[known] == 0).all()
    assert (mixed.kl("y")[~known] > 0).all()


READERS = {
    "elbo": ppvae.ELBO(2),
    "sampled elbo": ppvae.ELBO(2, analytic_kl=False),
    "sticking the landing": ppvae.StickingTheLanding(2),
    "dreg": ppvae.DReG(2),
    "renyi": ppvae.Renyi(0.5, 2),
    "wake-sleep": ppvae.ReweightedWakeSleep(2),
    "forward kl": ppvae.ForwardKL(),
    "wake-wake-sleep": ppvae.ReweightedWakeSleep(2, insomnia=0.5),
    "dreg and a penalty": ppvae.DReG(2) + ppvae.DIPPenalty(1.0, 1.0, of_draws=True),
    "tc": ppvae.beta_tcvae(100),
}


@pytest.mark.parametrize("reader", READERS)
def test_particles_are_not_changed_by_an_objective_that_reads_them(reader):
    """The importance-weighted gradient on the same particles is equal before and after another estimator."""
    model, guide, x = PAIRS["linear_gaussian"].make()
    particles = ppvae.draw(model, guide, x, num_particles=2)
    parameters = [*model.parameters(), *guide.parameters()]

    def gradients():
        return torch.autograd.grad(ppvae.IWAE(2).per_datum(particles).sum(), parameters, retain_graph=True)

    before = gradients()
    loss = READERS[reader].per_datum(particles).sum()
    torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for one, other in zip(before, gradients(), strict=True):
        assert torch.equal(one, other)
    READERS[reader].per_datum(particles).sum().backward()  # nor by being read twice
    again = torch.autograd.grad(ppvae.IWAE(2).per_datum(ppvae.draw(model, guide, x)).sum(), parameters)
    assert all(torch.isfinite(each).all() for each in again)


def test_particles_drawn_without_gradient_have_none_whenever_they_are_read():
    model, guide, x = PAIRS["linear_gaussian"].make()
    with torch.no_grad():
        particles = Pair(model, guide).draw(as_batch(x), 2)
    assert not particles.log_weight.requires_grad
    assert not particles.kl("z").requires_grad


def test_particles_run_the_model_when_it_is_read_and_once():
    model, guide, x = PAIRS["gaussian_vae"].make()
    calls = []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    particles = Pair(model, guide).draw(as_batch(x))
    assert calls == []
    _ = particles.log_weight, particles.kl("z"), particles.log_likelihood
    assert calls == [1]


def test_average_is_the_mean_over_particles_and_the_expectation_over_classes():
    model, guide, x = PAIRS["label"].make()
    guide.eval()
    particles = ppvae.draw(model, guide, x, LABELS, num_particles=3)
    integrand = torch.randn(CLASSES, 3, len(x)).double()
    q = particles.guide["y"].log_prob.exp().expand(CLASSES, 3, len(x)).clone()
    known = LABELS >= 0
    q[..., known] = torch.nn.functional.one_hot(LABELS[known], CLASSES).T.unsqueeze(1).double()
    torch.testing.assert_close(particles.average(integrand), (q * integrand).sum(0).mean(0))


def test_average_ignores_what_q_rules_out():
    model, guide, x = TwoDiscrete(True), TwoDiscreteGuide(True), torch.linspace(-1, 1, 6).double()
    particles = ppvae.draw(model, guide, x)
    infinite = torch.where(particles.guide["y"].log_prob == -torch.inf, torch.inf, 1.0).double()
    torch.testing.assert_close(particles.average(infinite), torch.ones(6).double())

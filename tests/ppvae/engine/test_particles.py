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


class TwoDiscrete(Model):
    """w ~ Categorical, y ~ Categorical(w), x ~ N(loc[w, y], 1); where asked, with a class that is ruled out."""

    def __init__(self, ruled_out: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.loc = nn.Parameter(torch.randn(2, 3, generator=generator).double())
        self.logits = nn.Parameter(torch.randn(2, 3, generator=generator).double())
        self.ruled_out = ruled_out

    def forward(self, x, y=None):
        logits = without_last_class(self.logits) if self.ruled_out else self.logits
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(2)))
            y = pyro.sample("y", dist.Categorical(logits=logits[w]), obs=y)
            pyro.sample("x", dist.Normal(self.loc[w, y], 1.0), obs=x)

    def log_joint(self, x):
        """log p(x, w, y), shape (2, 3, B)."""
        prior = -torch.tensor(2.0).log() + self.logits.log_softmax(-1)
        return prior.unsqueeze(-1) + dist.Normal(self.loc.unsqueeze(-1), 1.0).log_prob(x)


class TwoDiscreteGuide(Guide):
    def __init__(self, ruled_out: bool = False):
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, 6).double().reshape(2, 3))
        self.ruled_out = ruled_out

    def forward(self, x, y=None):
        logits = without_last_class(self.logits) if self.ruled_out else self.logits
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.unsqueeze(-1) * x.new_tensor([1.0, -1.0])))
            if y is None:
                pyro.sample("y", dist.Categorical(logits=logits[w]))


def without_last_class(logits):
    return logits.masked_fill(torch.tensor([[False, False, True]] * 2), -torch.inf)


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


class Sites(ppvae.Model):
    """z ~ a given density, x ~ N(sum of z, 1); the same density serves as a guide's."""

    def __init__(self, density, observes=True):
        super().__init__()
        self.density, self.observes = density, observes
        self.shift = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.density())
            if self.observes:
                mean = z.reshape(*z.shape[: z.dim() - self.density().event_dim], -1).sum(-1) + self.shift
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def particles_between(q, p, rows=4, num_particles=2):
    x = torch.linspace(-1, 1, rows).double()
    return ppvae.draw(Sites(p), Sites(q, observes=False), x, num_particles=num_particles)


def number(value):
    return torch.tensor(value).double()


def classes(count):
    return lambda: dist.Categorical(torch.ones(count).double())


NO_WEIGHTS = {
    "a point mass for a normal": (lambda: dist.Delta(number(0.3)), lambda: dist.Normal(number(0.0), 1.0)),
    "2 classes of 3": (classes(2), classes(3)),
    "4 classes of 3": (classes(4), classes(3)),
    "a half-line for a line": (lambda: dist.LogNormal(number(0.0), 1.0), lambda: dist.Normal(number(0.0), 1.0)),
    "an interval for a line": (lambda: dist.Uniform(number(-9.0), 9.0), lambda: dist.Normal(number(0.0), 1.0)),
    "a relaxed class for a class": (
        lambda: dist.RelaxedOneHotCategoricalStraightThrough(number(0.5), torch.ones(3).double()),
        lambda: dist.OneHotCategorical(torch.ones(3).double()),
    ),
    "a point mass for a log-normal": (
        lambda: dist.TransformedDistribution(dist.Delta(number(0.3)), [dist.transforms.ExpTransform()]),
        lambda: dist.LogNormal(number(0.0), 1.0),
    ),
}
BOUNDS = {
    "elbo": ppvae.ELBO(2),
    "sampled elbo": ppvae.ELBO(2, analytic_kl=False),
    "sticking the landing": ppvae.StickingTheLanding(2),
    "iwae": ppvae.IWAE(2),
    "dreg": ppvae.DReG(2),
    "renyi": ppvae.Renyi(0.5, 2),
    "wake-sleep": ppvae.ReweightedWakeSleep(2),
    "forward kl": ppvae.ForwardKL(),
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_weights_of_a_guide_that_is_no_density_over_the_priors_space_are_refused(case):
    """A point mass, too few or too many classes, a half-line for a line, a relaxed class: p / q does not exist."""
    particles = particles_between(*NO_WEIGHTS[case])
    message = r"expected q\(z \| x\) to be a density over the whole space of the prior p\(z\), but q"
    with pytest.raises(ppvae.ContractError, match=message):
        _ = particles.log_weight
    with pytest.raises(ppvae.ContractError, match=message):
        particles.kl("z")


@pytest.mark.parametrize("objective", BOUNDS)
@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_objective_that_reads_a_density_of_q_refuses_such_a_guide(case, objective):
    q, p = NO_WEIGHTS[case]
    x = torch.linspace(-1, 1, 4).double()
    with pytest.raises(ppvae.ContractError, match="to be a density over the whole space of the prior"):
        BOUNDS[objective].differentiable_loss(Sites(p), Sites(q, observes=False), x)


def test_objectives_that_read_no_density_of_q_take_a_point_mass():
    vector = torch.tensor([0.3, -0.2]).double()
    particles = particles_between(
        lambda: dist.Delta(vector).to_event(1), lambda: dist.Normal(vector, 1.0).to_event(1), num_particles=1
    )
    for objective in (ppvae.Reconstruction(), ppvae.wae(), ppvae.adversarial_autoencoder(latent_dim=2)):
        assert torch.isfinite(objective.per_datum(particles)).all()


def test_check_pair_finds_bounds_of_a_support_that_are_tensors():
    """The bounds are numbers on the device: a check reads them, a training step does not."""
    narrow, wide = (lambda: dist.Uniform(number(-0.1), number(0.1))), (lambda: dist.Uniform(number(-1.0), number(1.0)))
    x = torch.linspace(-1, 1, 4).double()
    with pytest.raises(ppvae.ContractError, match=r"positive on \(-0\.1, 0\.1\) alone and p on \(-1, 1\)"):
        ppvae.check_pair(Sites(wide), Sites(narrow, observes=False), x)


CLOSED_FORMS = {
    "normal and normal": (
        lambda: dist.Normal(number([0.1, 2.0, -1.0, 0.0]), 0.3),
        lambda: dist.Normal(number(0.2), 1.5),
    ),
    "beta and uniform": (
        lambda: dist.Beta(number([2.0] * 4), number(1.5)),
        lambda: dist.Uniform(number(0.0), number(1.0)),
    ),
    "vectors of beta and uniform": (
        lambda: dist.Beta(number([2.0, 3.0]), number([1.5, 1.0])).to_event(1),
        lambda: dist.Uniform(number([0.0, 0.0]), number([1.0, 1.0])).to_event(1),
    ),
    "continuous bernoulli and uniform": (
        lambda: dist.ContinuousBernoulli(number([0.2, 0.5, 0.7, 0.9])),
        lambda: dist.Uniform(number(0.0), number(1.0)),
    ),
    "uniform and beta": (
        lambda: dist.Uniform(number([0.0] * 4), number(1.0)),
        lambda: dist.Beta(number(2.0), number(1.5)),
    ),
    "gamma and exponential": (
        lambda: dist.Gamma(number([2.0, 1.0, 3.0, 0.7]), number(1.5)),
        lambda: dist.Exponential(number(0.5)),
    ),
    "laplace and normal": (lambda: dist.Laplace(number([0.0] * 4), 1.0), lambda: dist.Normal(number(0.3), 2.0)),
    "full and diagonal covariance": (
        lambda: dist.MultivariateNormal(number([0.1, 0.2]), torch.eye(2).double() + 0.3),
        lambda: dist.Normal(number([0.0, 0.0]), number([1.0, 2.0])).to_event(1),
    ),
    "student and cauchy": (lambda: dist.StudentT(number([5.0] * 4)), lambda: dist.Cauchy(number(0.0), 1.0)),
}


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_kl_in_closed_form_has_the_mean_of_the_sampled_one(case):
    """A Beta guide with a Uniform prior trains under the default ELBO, and so do others where torch's form fails."""
    particles = particles_between(*CLOSED_FORMS[case], num_particles=20_000)
    sampled = particles.kl_integrand("z", analytic=False)
    error = sampled.std(0) / len(sampled) ** 0.5
    assert ((particles.kl("z") - sampled.mean(0)).abs() < 4.5 * error + 1e-12).all()
    assert torch.isfinite(ppvae.ELBO(20_000).per_datum(particles)).all()


def test_kl_of_beta_and_uniform_is_minus_the_entropy():
    particles = particles_between(*CLOSED_FORMS["beta and uniform"])
    torch.testing.assert_close(particles.kl("z"), -dist.Beta(number(2.0), number(1.5)).entropy().expand(4))


class Unreliable(dist.Laplace):
    """A family with a closed form that overflows for half of the data."""


@torch.distributions.register_kl(Unreliable, Unreliable)
def _overflows(q, p):
    return torch.where(torch.arange(q.batch_shape[-1]) < 2, torch.inf, 7.0).double().expand(q.batch_shape)


def test_kl_is_sampled_where_the_closed_form_is_not_finite():
    particles = particles_between(
        lambda: Unreliable(number([0.5] * 4), number(1.0)), lambda: Unreliable(number([0.0] * 4), number(1.0))
    )
    sampled = particles.kl_integrand("z", analytic=False)
    found = particles.kl_integrand("z")
    assert torch.equal(found[:, :2], sampled[:, :2])
    assert (found[:, 2:] == 7.0).all()


def test_kl_that_is_infinite_stays_so():
    """A uniform guide reaches beyond the prior's interval: both the closed form and the draws say infinity."""
    with pyro.validation_enabled(False):
        particles = particles_between(
            lambda: dist.Uniform(number([-3.0] * 4), number(3.0)), lambda: dist.Uniform(number(-1e-9), number(1e-9))
        )
        assert (particles.kl("z") == torch.inf).all()


READERS = {
    **BOUNDS,
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


def test_log_prob_refuses_a_distribution_without_a_density():
    class Implicit(dist.TorchDistribution):
        arg_constraints, support, has_rsample = {}, dist.constraints.real, True

        def rsample(self, sample_shape=torch.Size()):  # noqa: B008
            return torch.randn(torch.Size(sample_shape) + self.batch_shape).double()

        def expand(self, batch_shape, _instance=None):
            return Implicit(torch.Size(batch_shape), validate_args=False)

    particles = particles_between(lambda: Implicit((4,), validate_args=False), lambda: dist.Normal(number(0.0), 1.0))
    with pytest.raises(ppvae.ContractError, match="distributions that have a density, got Implicit at site 'z'"):
        _ = particles.guide["z"].log_prob


@pytest.mark.parametrize("error", [NotImplementedError("aten::tanh on this device"), KeyError("table")])
def test_log_prob_passes_on_what_a_network_in_the_density_raises(error):
    """A kernel that a device lacks is no missing density."""

    class Network(dist.Normal):
        def log_prob(self, value):
            raise error

    particles = particles_between(
        lambda: Network(number([0.0] * 4), number(1.0)), lambda: dist.Normal(number(0.0), 1.0)
    )
    with pytest.raises(type(error)) as caught:
        _ = particles.guide["z"].log_prob
    assert caught.value is error

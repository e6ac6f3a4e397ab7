"""Laws of the particles, in float64."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.contract import Guide, Model
from ppvae.engine.tracing import all_known, mark_known
from tests.catalogue import CLASSES, LABELS, PAIRS
from tests.ppvae.oracles import Exact, Walk, WalkBack, linear_gaussian

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


def test_known_labels_give_the_joint_density_bound():
    model, guide, x = PAIRS["label"].make()
    y = torch.zeros(len(x), dtype=torch.long)
    particles = ppvae.draw(model, guide, x, y, num_particles=2)
    assert "y" not in particles.guide
    expected = sum(site.log_prob for site in particles.model.values()) - particles.guide["z"].log_prob
    torch.testing.assert_close(particles.log_weight, expected)


def test_kl_of_a_bottom_up_guide_is_not_taken_in_closed_form_where_that_is_biased():
    x = torch.tensor([1.5]).double()
    particles = ppvae.draw(Walk(), WalkBack(), x, num_particles=50_000)
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


def test_masked_rows_count_nowhere():
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


def test_two_discrete_sites_are_summed_together_with_and_without_labels():
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


def test_a_class_that_q_and_p_rule_out_has_no_part():
    model, guide, x = TwoDiscrete(True), TwoDiscreteGuide(True), torch.linspace(-1, 1, 6).double()
    loss = ppvae.ELBO().differentiable_loss(model, guide, x)
    loss.backward()
    assert loss.item() == pytest.approx(stock_enumerated_loss(model, guide, x))
    assert torch.isfinite(model.loc.grad).all()


@pytest.mark.parametrize("make", [lambda p: p.log_label, lambda p: ppvae.Consistency(1.0).penalty(p)])
def test_a_label_with_discrete_parents_is_refused_where_its_own_density_is_needed(make):
    particles = ppvae.draw(TwoDiscrete(), TwoDiscreteGuide(), torch.ones(3).double(), torch.tensor([0, -1, 1]))
    with pytest.raises(ppvae.ContractError, match="depends on no other discrete site"):
        make(particles)


def test_one_hot_labels_are_refused():
    class OneHot(Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("w", dist.Categorical(logits=x.new_zeros(2)))
                if y is None:
                    pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)))

    with pytest.raises(ppvae.ContractError, match="not OneHotCategorical"):
        ppvae.check_pair(TwoDiscrete(), OneHot(), torch.ones(3).double())


@pytest.mark.parametrize("label", [4, -2])
def test_a_label_out_of_range_in_a_mixed_batch_is_refused(label):
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match="labels from 0 to 3"):
        ppvae.draw(model, guide, x, torch.tensor([label, -1, 0, 0, 0, 0]))


def test_labels_marked_as_known_are_not_asked_about():
    assert all_known(mark_known(torch.tensor([-1])))  # taken at its word: nothing is read from the tensor
    assert not all_known(torch.tensor([0, -1]))
    assert all_known(torch.tensor([0, 1]))


def test_the_classifier_of_particles_leaves_nothing_behind():
    pyro.clear_param_store()
    model, guide, x = PAIRS["label"].make()
    ppvae.draw(model, guide, x, torch.zeros(len(x), dtype=torch.long)).log_label.sum()
    assert not list(pyro.get_param_store().keys())


def test_a_known_label_is_an_observation_whatever_stands_beside_it():
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

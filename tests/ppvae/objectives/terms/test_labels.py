"""Terms that train the classifier inside a guide."""

import math

import pytest
import torch

import ppvae
from ppvae.distributions.gaussians import diagonal_normal
from ppvae.distributions.likelihoods import Gaussian
from ppvae.engine.batch import as_batch
from ppvae.guides import LabelStyleGuide
from ppvae.models import SemiSupervisedVAE
from ppvae.nn import MLP, LabelledMLP
from ppvae.training import Batching
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.engine.pairs import TwoDiscrete, TwoDiscreteGuide
from tests.ppvae.objectives.estimates import loss

KNOWN = LABELS >= 0


def classifier_of(pair, y=LABELS):
    """A pair in evaluation mode, its particles, and log q(y | x), (B, classes)."""
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    return ppvae.draw(model, guide, x, y), guide.classifier(x).log_softmax(-1)


@pytest.mark.parametrize("pair", ["label", "label_style"])
def test_classifier_loss_is_the_cross_entropy_of_the_labelled_rows(pair):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    plain = loss(ppvae.ELBO(), model, guide, x, LABELS)
    both = loss(ppvae.ELBO() + ppvae.ClassifierLoss(alpha=3.0), model, guide, x, LABELS)
    log_q = guide.classifier(x).log_softmax(-1)[range(len(x)), LABELS.clamp(min=0)]
    torch.testing.assert_close(both - plain, torch.where(KNOWN, -3 * log_q, 0))


def test_classifier_loss_is_the_same_for_all_known_as_within_a_mixed_batch():
    model, guide, x = PAIRS["label_style"].make()
    term = ppvae.ClassifierLoss(1.0)
    mixed = term.penalty(ppvae.draw(model, guide, x, LABELS))
    alone = term.penalty(ppvae.draw(model, guide, x[KNOWN], LABELS[KNOWN]))
    torch.testing.assert_close(mixed[KNOWN], alone)
    assert (mixed[~KNOWN] == 0).all()


def test_classifier_loss_of_unlabelled_data_is_zero():
    particles, _ = classifier_of("label", None)
    assert ppvae.ClassifierLoss(1.0).penalty(particles).tolist() == [0.0] * len(LABELS)


def test_classifier_loss_trains_the_classifier_of_labelled_data():
    """The bound of a labelled datum does not read q(y | x): labels train it by this term alone."""
    model, guide, x = PAIRS["label"].make()
    y = LABELS.clamp(min=0)
    ppvae.ELBO().differentiable_loss(model, guide, x, y).backward()
    assert all(p.grad is None for p in guide.classifier.parameters())
    (ppvae.ELBO() + ppvae.ClassifierLoss(1.0)).differentiable_loss(model, guide, x, y).backward()
    assert all(p.grad.abs().sum() > 0 for p in guide.classifier.parameters())


def test_classifier_loss_refuses_a_guide_without_a_classifier():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="draws site 'y'"):
        (ppvae.ELBO() + ppvae.ClassifierLoss(1.0)).loss(model, guide, x, LABELS)


@pytest.mark.parametrize("pair", ["adgm", "sdgm"])
def test_classifier_loss_of_an_auxiliary_variable_is_the_mean_over_its_draws(pair):
    model, guide, x = PAIRS[pair].make()
    particles = ppvae.draw(model, guide, x, LABELS, num_particles=5)
    a, y = particles.draws["a"], LABELS.clamp(min=0).expand(5, -1)
    log_q = guide.classifier(a, x).log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    found = ppvae.ClassifierLoss(3.0).penalty(particles)
    torch.testing.assert_close(found, torch.where(KNOWN, -3 * log_q.mean(0), 0.0))


def test_classifier_loss_of_labelled_data_draws_an_auxiliary_variable_and_trains_what_it_comes_from():
    model, guide, x = PAIRS["adgm"].make()
    particles = ppvae.draw(model, guide, x, LABELS.clamp(min=0))
    torch.manual_seed(3)
    found = ppvae.ClassifierLoss(1.0).penalty(particles)
    torch.manual_seed(3)
    q = diagonal_normal(guide.auxiliary(x))
    log_q = guide.classifier(q.rsample(), x).log_softmax(-1)[range(len(x)), LABELS.clamp(min=0)]
    torch.testing.assert_close(found, -log_q)
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for part in (guide.auxiliary, guide.classifier) for p in part.parameters())


@pytest.mark.parametrize("alpha", [-1.0, float("nan")])
def test_classifier_loss_refuses_weights_below_zero(alpha):
    with pytest.raises(ValueError, match=f"alpha of at least 0, got {alpha}"):
        ppvae.ClassifierLoss(alpha)


# the paper's weights


def coefficients(num_data, num_labels, unlabelled, labelled):
    """What multiplies the bounds of an unlabelled and of a labelled datum, and its classifier, in an epoch of ``fit``.

    A step is the mean over its U + L rows. An epoch reads each of the N - n unlabelled rows once, in (N - n) / U
    steps, and so each of the n labelled rows L (N - n) / (U n) times.
    """
    model, guide, x = PAIRS["label"].make()
    guide.eval()
    bound, alpha = ppvae.ELBO(), 0.1 * num_data / num_labels
    weight = ppvae.LabelledWeight(unlabelled * num_labels / (labelled * (num_data - num_labels)))
    particles = ppvae.draw(model, guide, x, LABELS)
    plain, classifier = bound.per_datum(particles), ppvae.ClassifierLoss(1.0).penalty(particles)
    bounds = (bound + weight).per_datum(particles) / plain
    whole = (bound + ppvae.ClassifierLoss(alpha) + weight).per_datum(particles)
    label = ((whole - bounds * plain) / classifier)[KNOWN]
    times_read = labelled * (num_data - num_labels) / (unlabelled * num_labels)
    return bounds[~KNOWN], bounds[KNOWN] * times_read, label * times_read


SIZES = [(1000, 20, 98, 20), (60_000, 100, 90, 10), (60_000, 3000, 128, 32), (50, 25, 5, 20), (500, 100, 77, 13)]


@pytest.mark.parametrize(("num_data", "num_labels", "unlabelled", "labelled"), SIZES)
def test_labelled_weight_counts_every_bound_once_and_the_classifier_as_the_paper_does(
    num_data, num_labels, unlabelled, labelled
):
    """Rows of a step weigh alike, and labelled rows are read more often: in an epoch the paper's weights are 1, 1 and
    0.1 N / n (a tenth of the data's number, shared by the labels), whatever the sizes of a step."""
    of_unlabelled, of_labelled, of_classifier = coefficients(num_data, num_labels, unlabelled, labelled)
    torch.testing.assert_close(of_unlabelled, torch.ones_like(of_unlabelled))
    torch.testing.assert_close(of_labelled, torch.ones_like(of_labelled))
    torch.testing.assert_close(of_classifier, torch.full_like(of_classifier, 0.1 * num_data / num_labels))


def test_labelled_weight_of_a_batch_of_one_kind():
    model, guide, x = PAIRS["label"].make()
    guide.eval()
    objective = ppvae.ELBO() + ppvae.DIPPenalty(1.0, 1.0, of_draws=True)
    weighted = objective + ppvae.LabelledWeight(0.25)
    unlabelled = ppvae.draw(model, guide, x)
    torch.testing.assert_close(weighted.per_datum(unlabelled), objective.per_datum(unlabelled))
    labelled = ppvae.draw(model, guide, x, LABELS.clamp(min=0))
    torch.testing.assert_close(weighted.per_datum(labelled), 0.25 * objective.per_datum(labelled))
    assert weighted.parts(labelled).keys() == objective.parts(labelled).keys()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_labelled_weight_refuses_weights_out_of_range(weight):
    with pytest.raises(ValueError, match=f"weight of at least 0, got {weight}"):
        ppvae.LabelledWeight(weight)


# consistency


def added(threshold, y=None, noise=False):
    """What Consistency adds to each row's loss, and q(y | x)."""
    model, guide, x = PAIRS["label"].make()
    guide.train(noise)
    particles = ppvae.draw(model, guide, x, y)
    penalty = ppvae.Consistency(weight=2.0, threshold=threshold).penalty(particles)
    return penalty, guide.eval().classifier(x).softmax(-1)


def test_consistency_without_noise_is_the_entropy():
    extra, q = added(threshold=0.0)
    torch.testing.assert_close(extra, -2 * (q * q.log()).sum(-1))


def test_consistency_leaves_out_rows_that_are_not_sure():
    _, q = added(threshold=0.0)
    threshold = q.amax(-1).median().item()
    extra, _ = added(threshold)
    sure = q.amax(-1) > threshold
    assert 0 < sure.sum() < len(sure)
    assert ((extra > 0) == sure).all()


def test_consistency_leaves_out_labelled_rows():
    extra, _ = added(threshold=0.0, y=LABELS)
    assert ((extra > 0) == ~KNOWN).all()
    extra, _ = added(threshold=0.0, y=LABELS.clamp(min=0))
    assert extra.tolist() == [0.0] * len(LABELS)


def test_consistency_has_a_target_without_noise_and_without_gradient():
    model, guide, x = PAIRS["label"].make()
    guide.train()
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x)
    value = ppvae.Consistency(weight=1.0, threshold=0.0).penalty(particles).sum()
    (found,) = torch.autograd.grad(value, particles.guide["y"].log_prob, retain_graph=True)
    value.backward()
    assert guide.training
    target = guide.eval().classifier(x).softmax(-1).T
    log_q = particles.guide["y"].log_prob.squeeze(1)
    torch.testing.assert_close(value, -(target * log_q).sum())
    torch.testing.assert_close(found.squeeze(1), -target)
    assert all(p.grad.abs().sum() > 0 for p in guide.classifier.parameters())


@pytest.mark.parametrize(("weight", "threshold"), [(-1.0, 0.5), (1.0, 1.0), (1.0, -0.1)])
def test_consistency_refuses_arguments_out_of_range(weight, threshold):
    with pytest.raises(ValueError, match="expected weight of at least 0"):
        ppvae.Consistency(weight, threshold)


@pytest.mark.parametrize("term", [ppvae.ClassifierLoss(1.0), ppvae.Consistency(1.0)])
def test_term_of_the_label_refuses_a_label_with_discrete_parents(term):
    particles = ppvae.draw(TwoDiscrete(), TwoDiscreteGuide(), torch.ones(3).double(), torch.tensor([0, -1, 1]))
    with pytest.raises(ppvae.ContractError, match="depends on no other discrete site"):
        term.penalty(particles)


def test_term_of_the_label_takes_all_known_labels_of_a_batch_at_their_word():
    model, guide, x = PAIRS["label"].make()
    batch = as_batch(x, LABELS.clamp(min=0))
    assert ppvae.ClassifierLoss(1.0).penalty(ppvae.draw(model, guide, batch)).shape == (len(x),)


def test_labelled_weight_is_applied_after_all_other_terms():
    model, guide, x = PAIRS["label"].make()
    terms = ppvae.LabelledWeight(0.1), ppvae.ClassifierLoss(5.0)
    losses = []
    for one, other in (terms, terms[::-1]):
        torch.manual_seed(0)
        losses.append((ppvae.ELBO() + one + other).loss(model, guide, x, LABELS.clamp(min=0)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


# the class of the model's own samples


def generated(pair, y=None, weight=2.0):
    """A pair in evaluation mode, what GeneratedLabels adds to each row's loss, and the draws behind it."""
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    particles = ppvae.draw(model, guide, x, y)
    torch.manual_seed(1)
    penalty = ppvae.GeneratedLabels(weight).penalty(particles)
    torch.manual_seed(1)
    with torch.no_grad():
        sites = particles.source.generate("y")
    return model, guide, penalty, sites["y"].value[0], sites["z"].value[0]


@pytest.mark.parametrize("y", [None, LABELS, LABELS.clamp(min=0)], ids=["unlabelled", "partly labelled", "labelled"])
@pytest.mark.parametrize("pair", ["label", "label_style"])
def test_generated_labels_is_the_cross_entropy_of_the_drawn_classes_at_the_mean_images(pair, y):
    model, guide, penalty, classes, z = generated(pair, y)
    means = model.decode(z, classes, event_dim=2).mean
    log_q = guide.classifier(means).log_softmax(-1)[range(len(z)), classes]
    torch.testing.assert_close(penalty, -2 * log_q)


def test_generated_labels_draws_from_the_prior_and_not_the_labels():
    model, guide, x = PAIRS["label_style"].make()
    particles = ppvae.draw(model, guide, x[:1].expand(4000, -1, -1), torch.zeros(4000, dtype=torch.long))
    torch.manual_seed(0)
    sites = particles.source.generate("y")
    shares = sites["y"].value.flatten().bincount(minlength=4) / 4000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.03, rtol=0)
    torch.testing.assert_close(sites["z"].value.std(1), torch.ones(1, 3).double(), atol=0.05, rtol=0)


@pytest.mark.parametrize("pair", ["label", "label_style"])
def test_generated_labels_trains_the_model_and_not_the_guide(pair):
    model, guide, penalty, *_ = generated(pair)
    penalty.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None and p.requires_grad for p in guide.parameters())


def test_generated_labels_moves_no_buffer_and_restores_the_modes():
    model, guide, x = PAIRS["label"].make()
    particles = ppvae.draw(model, guide, x)
    before = {name: buffer.clone() for name, buffer in guide.named_buffers()}
    modes = [part.training for part in guide.modules()]
    ppvae.GeneratedLabels(1.0).penalty(particles).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in guide.named_buffers())
    assert [part.training for part in guide.modules()] == modes == [True] * len(modes)


@pytest.mark.parametrize("objective", [ppvae.ELBO, ppvae.DReG, ppvae.ReweightedWakeSleep, ppvae.ForwardKL])
def test_generated_labels_leaves_the_guide_its_own_gradient(objective):
    def gradient(made):
        model, guide, x = PAIRS["label_style"].make()
        torch.manual_seed(2)
        made.differentiable_loss(model, guide, x).backward()
        return [p.grad for p in guide.parameters()]

    both = gradient(objective() + ppvae.GeneratedLabels(3.0))
    torch.testing.assert_close(both, gradient(objective()))


def test_generated_labels_in_a_model_with_batch_statistics_and_labelled_rows_in_the_step():
    """The labelled rows move the running statistics after the samples of the unlabelled rows were read."""
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 5))
    model = SemiSupervisedVAE(OneHotInput(decoder), 3, 4, Gaussian(1.0))
    guide = LabelStyleGuide(MLP(5, [8], 4), LabelledMLP(5, 4, [8], 6))
    data = ppvae.Dataset(torch.randn(40, 5), torch.arange(40) % 5 - 1)
    objective = ppvae.ELBO() + ppvae.ClassifierLoss(1.0) + ppvae.GeneratedLabels(1.0)
    result = ppvae.fit(
        model, guide, objective, data, epochs=2, batch_size=Batching(4, labelled_per_step=8), progress=False
    )
    assert math.isfinite(result.metrics[-1]["generated/y"])


class OneHotInput(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, z, y):
        y = torch.nn.functional.one_hot(y, 4).to(z)
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
        joined = torch.cat([z.expand(*shape, -1), y.expand(*shape, -1)], -1)
        return self.layers(joined.flatten(0, -2)).reshape(*shape, -1)

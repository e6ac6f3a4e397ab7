"""The auxiliary pairs: densities against sums written by hand, and p(x) against exact values and brute force."""

import itertools
import math

import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import nn

import ppvae
from ppvae.distributions.gaussians import diagonal_normal
from ppvae.guides import AuxiliaryGuide
from ppvae.models import AuxiliaryVAE
from ppvae.nn import MLP, Classes, JointMLP
from tests.ppvae.oracles import auxiliary_linear, auxiliary_linear_log_joint

PIXELS, CLASSES = 5, 3
Y = torch.tensor([0, 2, 1, 2])
IMAGES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=PIXELS))).double()  # every image


def small_pair(skip: bool) -> tuple[AuxiliaryVAE, AuxiliaryGuide]:
    """Five binary pixels, a decoder with large weights, so that y, z and a matter, and a guide wider than the prior."""
    torch.manual_seed(0)
    decoder = JointMLP([2] * skip + [2, Classes(CLASSES)], [8], PIXELS)
    model = AuxiliaryVAE(decoder, JointMLP([2, Classes(CLASSES)], [8], 2 * 2), 2, CLASSES, skip=skip)
    guide = AuxiliaryGuide(
        MLP(PIXELS, [8], 2 * 2),
        JointMLP([2, PIXELS], [8], CLASSES),
        JointMLP([2, PIXELS, Classes(CLASSES)], [8], 2 * 2),
    )
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2.5)
        for network in (guide.auxiliary.layers, guide.encoder.rest):
            network[-1].bias[2:] += 0.4
    return model.double(), guide.double()


def log_joint(model, x, y, z, a):
    """log p(x, y, z, a) with labels y, from the networks themselves."""
    logits = model.decoder(a, z, y) if model.skip else model.decoder(z, y)
    prior = dist.Normal(torch.zeros(2).double(), 1.0).to_event(1).log_prob(z) - math.log(CLASSES)
    of_a = diagonal_normal(model.auxiliary(z, y)).log_prob(a)
    return prior + of_a + dist.Bernoulli(logits=logits).to_event(1).log_prob(x)


@pytest.mark.parametrize("skip", [False, True])
def test_log_joint_is_that_of_label_style_auxiliary_variable_and_data(skip):
    model, _ = small_pair(skip)
    x, z, a = IMAGES[::8], torch.randn(4, 2).double(), torch.randn(4, 2).double()
    expected = log_joint(model, x, Y, z, a).sum()
    given = poutine.trace(poutine.condition(model, {"z": z, "a": a})).get_trace(x, Y)
    drawn = poutine.trace(poutine.condition(model, {"z": z, "a": a, "y": Y})).get_trace(x)
    for traced in (given, drawn):
        torch.testing.assert_close(traced.log_prob_sum(), expected)
    assert poutine.trace(model).get_trace(x, Y).observation_nodes == ["y", "x"]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("labels", ["none", "some", "all"])
def test_elbo_is_the_explicit_sum_over_classes(skip, labels):
    """At fixed draws of a and of z for each class; a labelled row is the term of its own class, without q(y | a, x)."""
    model, guide = small_pair(skip)
    x = IMAGES[::8]
    y = {"none": None, "some": torch.where(Y == 2, -1, Y), "all": Y}[labels]
    torch.manual_seed(1)
    particles = ppvae.draw(model, guide, x, y, num_particles=6)
    a, styles = particles.draws["a"], particles.draws["z"]
    log_q_y = guide.classifier(a, x).log_softmax(-1)
    expected = 0
    for label in range(CLASSES):
        of_class = torch.full((len(x),), label)
        z = styles if labels == "all" else styles[label]
        bound = log_joint(model, x, of_class, z, a) - diagonal_normal(guide.auxiliary(x)).log_prob(a)
        bound = bound - diagonal_normal(guide.encoder(a, x, of_class)).log_prob(z)
        log_q = log_q_y[..., label]
        unlabelled = log_q.exp() * (bound - log_q)
        known = torch.zeros(len(x), dtype=torch.bool) if y is None else y >= 0
        expected = expected + torch.where(known, torch.where(label == Y, bound, 0.0), unlabelled)
    found = -ppvae.ELBO(analytic_kl=False).per_datum(particles)
    torch.testing.assert_close(found, expected.mean(0))


@pytest.mark.parametrize("skip", [False, True])
def test_log_marginal_sums_to_one_over_all_images(skip):
    model, guide = small_pair(skip)
    result = ppvae.log_marginal(model, guide, IMAGES, num_particles=4000, proposal=None)
    probability, error = result.value.exp(), result.value.exp() * result.standard_error
    assert (probability.sum() - 1).abs() < 4 * error.square().sum().sqrt()
    assert error.square().sum().sqrt() < 0.02
    assert probability.max() > 3 / len(IMAGES)


@pytest.mark.parametrize("skip", [False, True])
def test_log_marginal_is_that_of_brute_force_importance_sampling(skip):
    """Draws of a, of one class and of its style for each weight, and not of all classes."""
    model, guide = small_pair(skip)
    x, draws = IMAGES[::5], 40_000
    result = ppvae.log_marginal(model, guide, x, num_particles=4000, proposal=None)
    torch.manual_seed(1)
    with torch.no_grad():
        of_a = diagonal_normal(guide.auxiliary(x))
        a = of_a.sample((draws,))
        of_y = dist.Categorical(logits=guide.classifier(a, x))
        y = of_y.sample()
        of_z = diagonal_normal(guide.encoder(a, x, y))
        z = of_z.sample()
        log_weight = log_joint(model, x, y, z, a) - of_a.log_prob(a) - of_y.log_prob(y) - of_z.log_prob(z)
    weight = log_weight.exp()
    error = weight.std(0) / draws**0.5 / weight.mean(0)
    expected = weight.mean(0).log()
    assert ((result.value - expected).abs() < 4 * (error.square() + result.standard_error.square()).sqrt()).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("skip", [False, True])
def test_log_marginal_of_linear_networks_is_the_exact_evidence(skip):
    model, x = auxiliary_linear(skip)
    torch.manual_seed(0)
    encoder = JointMLP([2, 5, Classes(3)], [], 2 * 2)
    guide = AuxiliaryGuide(MLP(5, [], 2 * 2), JointMLP([2, 5], [], 3), encoder).double()
    expected = auxiliary_linear_log_joint(model, x).logsumexp(0)
    result = ppvae.log_marginal(model, guide, x, num_particles=2000)
    assert ((result.value - expected).abs() < 4 * result.standard_error).all()
    assert result.standard_error.max() < 0.1


def test_data_of_an_adgm_do_not_depend_on_the_distribution_of_the_auxiliary_variable():
    """p(x) is that of the same model with another p(a | z, y); with skip it is not."""
    for skip in (False, True):
        model, x = auxiliary_linear(skip)
        torch.manual_seed(0)
        guide = AuxiliaryGuide(
            MLP(5, [], 2 * 2), JointMLP([2, 5], [], 3), JointMLP([2, 5, Classes(3)], [], 2 * 2)
        ).double()
        before = ppvae.log_marginal(model, guide, x, num_particles=2000)
        with torch.no_grad():
            model.auxiliary.first[1].weight.add_(1.0)
        after = ppvae.log_marginal(model, guide, x, num_particles=2000)
        error = (before.standard_error.square() + after.standard_error.square()).sqrt()
        assert ((before.value - after.value).abs() < 4 * error).all() != skip


def test_decode_of_an_adgm_does_not_read_the_auxiliary_variable():
    z, y = torch.randn(4, 2).double(), Y
    for skip in (False, True):
        model, _ = small_pair(skip)
        at_zero = model.decode(z, y, 1, torch.zeros(4, 2).double()).mean
        at_one = model.decode(z, y, 1, torch.ones(4, 2).double()).mean
        assert torch.equal(at_zero, at_one) != skip


def test_decode_without_an_auxiliary_variable_takes_its_mean():
    model, _ = small_pair(skip=True)
    z = torch.randn(7, 4, 2).double()
    a = diagonal_normal(model.auxiliary(z, Y)).mean
    torch.testing.assert_close(model.decode(z, Y, 1).mean, model.decode(z, Y, 1, a).mean)


def test_sample_draws_labels_styles_and_auxiliary_variables():
    """The mean of drawn pixels is that of p(x), by the probabilities of all images."""
    model, guide = small_pair(skip=True)
    result = ppvae.log_marginal(model, guide, IMAGES, num_particles=4000, proposal=None)
    expected = (result.value.exp().unsqueeze(-1) * IMAGES).sum(0)
    drawn = ppvae.sample(model, 20_000)
    assert ((drawn.mean(0) - expected).abs() < 4 * 0.5 / 20_000**0.5 + 0.01).all()


def test_check_pair_names_a_decoder_that_does_not_take_the_auxiliary_variable():
    _, guide = small_pair(skip=True)
    decoder = JointMLP([2, Classes(CLASSES)], [8], PIXELS)
    model = AuxiliaryVAE(decoder, JointMLP([2, Classes(CLASSES)], [8], 4), 2, CLASSES, skip=True).double()
    with pytest.raises(ppvae.ContractError, match="expected 2 inputs, got 3"):
        ppvae.check_pair(model, guide, IMAGES)


def test_check_pair_names_an_auxiliary_variable_of_another_length():
    model, _ = small_pair(skip=False)
    guide = AuxiliaryGuide(
        nn.Linear(PIXELS, 2 * 3), JointMLP([3, PIXELS], [8], CLASSES), JointMLP([3, PIXELS, Classes(CLASSES)], [8], 4)
    ).double()
    with pytest.raises(ppvae.ContractError, match=r"site 'a' has event shape \(2,\) in the model and \(3,\)"):
        ppvae.check_pair(model, guide, IMAGES)

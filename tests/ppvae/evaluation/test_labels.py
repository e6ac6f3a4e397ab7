"""Predictions, accuracy and features."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.distributions.gaussians import diagonal_normal
from ppvae.evaluation import labels
from ppvae.guides import AuxiliaryGuide, CategoricalGuide, FlowGuide, MeanFieldGaussian
from ppvae.guides.flow import Reversed
from ppvae.nn import MLP, Classes, JointMLP
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.oracles import ExactLabelled, labelled_linear, labelled_linear_log_joint

KNOWN = LABELS.clamp(min=0)


def test_predict_of_the_exact_guide_is_the_posterior_of_the_class():
    model, x = labelled_linear()
    expected = labelled_linear_log_joint(model, x).softmax(0).T.detach()
    torch.testing.assert_close(ppvae.predict(ExactLabelled(model), x), expected)


def test_predict_does_not_read_labels():
    _, guide, x = PAIRS["label"].make()
    assert torch.equal(ppvae.predict(guide, x), ppvae.predict(guide, ppvae.Dataset(x, KNOWN)))


def test_predict_in_blocks_is_the_one_of_all_rows():
    _, guide, x = PAIRS["label"].make()
    many = x.repeat(400, 1, 1)
    torch.testing.assert_close(ppvae.predict(guide, many), ppvae.predict(guide, x).repeat(400, 1))


def test_predict_takes_arrays_and_conditions():
    class GivenAngle(ppvae.Guide):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 4)

        def forward(self, x, y=None, *, angle):
            with pyro.plate("data", len(x)):
                if y is None:
                    pyro.sample("y", dist.Categorical(logits=self.net(torch.cat([x, angle], -1))))

    guide, x, angle = GivenAngle(), torch.randn(6, 2), torch.randn(6, 1)
    expected = guide.net(torch.cat([x, angle], -1)).softmax(-1).detach()
    torch.testing.assert_close(ppvae.predict(guide, x.double().numpy(), angle=angle.numpy()), expected)
    y = expected.argmax(-1)
    y[:3] = (y[:3] + 1) % 4
    assert ppvae.accuracy(guide, x, y, angle=angle) == 0.5
    with pytest.raises(ppvae.ContractError, match=r"condition\(s\) \['angle'\]"):
        ppvae.predict(guide, x)


def test_predict_refuses_a_guide_without_a_label():
    _, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="draws site 'y'"):
        ppvae.predict(guide, x)
    _, guide, batch = ALL_PAIRS["labelled_condition"].make_batch()
    with pytest.raises(ppvae.ContractError, match="called without labels"):
        ppvae.predict(guide, batch)


def test_accuracy_is_the_share_of_labels_that_are_predicted():
    _, guide, x = PAIRS["label"].make()
    y = ppvae.predict(guide, x).argmax(-1)
    y[:2] = (y[:2] + 1) % 4
    for data in (ppvae.Dataset(x, y), (x, y), (x.numpy(), y.numpy())):
        assert ppvae.accuracy(guide, *data if isinstance(data, tuple) else [data]) == pytest.approx(4 / 6)


@pytest.mark.parametrize("y", [None, LABELS])
def test_accuracy_refuses_unknown_labels(y):
    _, guide, x = PAIRS["label"].make()
    with pytest.raises(ValueError, match="labels that are all known"):
        ppvae.accuracy(guide, x, y)


def test_dynamically_binarized_data_are_taken_at_their_most_probable_values():
    _, guide, _ = PAIRS["label"].make()
    grey = torch.rand(6, 8, 8).double()
    data, rounded = ppvae.Dataset(grey, KNOWN, binarization="dynamic"), (grey > 0.5).double()
    assert torch.equal(ppvae.predict(guide, data), ppvae.predict(guide, rounded))
    assert torch.equal(ppvae.features(guide, data), ppvae.features(guide, rounded, KNOWN))
    assert ppvae.accuracy(guide, data) == ppvae.accuracy(guide, rounded, KNOWN)


def test_features_are_posterior_means_given_the_labels():
    model, x = labelled_linear()
    guide, y = ExactLabelled(model), torch.tensor([0, 1, 2, 0, 1, 2])
    found = ppvae.features(guide, x, y)
    bias = model.decoder(torch.zeros(3, 2).double(), torch.arange(3))
    weight = (model.decoder(torch.eye(2).double(), torch.zeros(2, dtype=torch.long)) - bias[0]).T
    inverse = torch.linalg.inv(weight.T @ weight + 0.7**2 * torch.eye(2))
    torch.testing.assert_close(found, ((x - bias[y]) @ weight @ inverse).detach())


def test_features_without_a_formula_are_the_mean_of_draws():
    guide = MeanFieldGaussian(MLP(5, [], 4))
    flow, x = FlowGuide(guide.encoder, [Reversed(), Reversed()], 2), torch.randn(3, 5)
    exact, found = ppvae.features(guide, x), ppvae.features(flow, x)
    scale = guide.distribution(guide.encode(x)).stddev.detach()
    assert ((found - exact).abs() < 5 * scale / 32**0.5).all()
    assert torch.equal(found, ppvae.features(flow, x))


def test_features_refuse_a_discrete_site():
    with pytest.raises(ppvae.ContractError, match="a continuous latent at site 'z', got a Categorical"):
        ppvae.features(CategoricalGuide(MLP(5, [], 3)), np.zeros((2, 5), np.float32))


def test_features_take_the_data_of_a_pair_where_only_the_model_names_the_condition():
    guide = MeanFieldGaussian(nn.Linear(5, 4))
    data = ppvae.Dataset(torch.randn(3, 5), temperature=torch.rand(3, 1))
    assert ppvae.features(guide, data).shape == (3, 2)
    with pytest.raises(ppvae.ContractError, match=r"got \['temperature'\]"):
        ppvae.features(guide, data.x, temperature=data.given["temperature"])


# draws of the latents before the label


def one_dimensional(width=1.5):
    """A guide with a of length 1, and the mean over a ~ q(a | x) of a function of a (K, B, 1), by a sum on a grid."""
    torch.manual_seed(0)
    encoder = JointMLP([1, 5, Classes(4)], [], 2 * 2)
    guide = AuxiliaryGuide(MLP(5, [], 2), JointMLP([1, 5], [8], 4), encoder).double()
    with torch.no_grad():
        guide.auxiliary.layers[-1].bias[1] = math.log(width)
        guide.classifier.first[0].weight.mul_(5)
        guide.classifier.rest[-1].weight.mul_(5)
    nodes = torch.linspace(-8, 8, 10_001).double().reshape(-1, 1, 1)
    weights = (-nodes.square() / 2).softmax(0)

    def expectation(function, x):
        q = diagonal_normal(guide.auxiliary(x))
        return (weights * function(q.mean + q.stddev * nodes)).sum(0).detach()

    return guide, expectation


def test_predict_averages_the_probabilities_over_draws():
    guide, expectation = one_dimensional()
    x, draws = torch.randn(6, 5).double(), 20_000
    probs = lambda a: guide.classifier(a, x).softmax(-1)  # noqa: E731
    exact = expectation(probs, x)
    deviation = (expectation(lambda a: probs(a) ** 2, x) - exact**2).clamp(min=0).sqrt()
    found = ppvae.predict(guide, x, num_draws=draws)
    assert ((found - exact).abs() < 4 * deviation / draws**0.5 + 1e-9).all()
    assert deviation.max() > 0.2  # one draw is another matter
    torch.testing.assert_close(found.sum(-1), torch.ones(6).double())
    assert (ppvae.predict(guide, x) - exact).abs().max() > 0.1


def test_predict_draws_by_its_seed_and_leaves_the_random_state():
    guide, _ = one_dimensional()
    x = torch.randn(6, 5).double()
    before = torch.get_rng_state()
    first, again, other = (ppvae.predict(guide, x, num_draws=7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_predict_draws_independently_for_each_datum_and_block(monkeypatch):
    guide, _ = one_dimensional()
    x = torch.randn(1, 5).double().expand(8, 5)
    monkeypatch.setattr(labels, "DRAWS", 6)  # two rows of three draws at once
    found = ppvae.predict(guide, x, num_draws=3)
    assert len(found.unique(dim=0)) == 8


@pytest.mark.parametrize("pair", ["label", "label_style"])
def test_predict_of_a_guide_without_earlier_latents_is_exact_for_every_number_of_draws(pair):
    _, guide, x = PAIRS[pair].make()
    found = ppvae.predict(guide, x)
    torch.testing.assert_close(found, guide.eval().classifier(x).softmax(-1).detach())
    for num_draws in (2, 50):
        assert torch.equal(ppvae.predict(guide, x, num_draws=num_draws, seed=1), found)


def test_accuracy_is_that_of_the_averaged_probabilities():
    guide, _ = one_dimensional()
    x = torch.randn(300, 5).double()
    y = ppvae.predict(guide, x, num_draws=500).argmax(-1)
    assert ppvae.accuracy(guide, x, y, num_draws=500) == 1
    assert ppvae.accuracy(guide, x, y, num_draws=1) < 0.95
    assert ppvae.accuracy(guide, x, y, num_draws=1, seed=1) != ppvae.accuracy(guide, x, y, num_draws=1)


def test_features_average_the_means_over_draws():
    """The encoder is linear in a: the mean is that at the mean of a."""
    guide, _ = one_dimensional()
    x, y, draws = torch.randn(6, 5).double(), KNOWN, 10_000
    q = diagonal_normal(guide.auxiliary(x))
    exact = diagonal_normal(guide.encoder(q.mean, x, y)).mean
    slope = guide.encoder.first[0].weight[:2, 0]
    found = ppvae.features(guide, x, y, num_draws=draws)
    assert ((found - exact).abs() < 4 * (slope * q.stddev).abs() / draws**0.5).all()
    assert ppvae.features(guide, x, y, site="a", num_draws=3).equal(q.mean.detach())


@pytest.mark.parametrize(
    ("num_draws", "error", "message"),
    [(0, ValueError, "num_draws of at least 1, got 0"), (2.5, TypeError, "num_draws to be a whole number, got 2.5")],
)
def test_numbers_of_draws_that_are_none_are_refused(num_draws, error, message):
    guide, _ = one_dimensional()
    x = torch.zeros(6, 5)
    for evaluate in (
        lambda: ppvae.predict(guide, x, num_draws=num_draws),
        lambda: ppvae.accuracy(guide, x, KNOWN, num_draws=num_draws),
        lambda: ppvae.features(guide, x, KNOWN, num_draws=num_draws),
    ):
        with pytest.raises(error, match=message):
            evaluate()

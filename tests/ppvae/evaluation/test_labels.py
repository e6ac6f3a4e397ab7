"""Predictions, accuracy and features."""

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.guides import CategoricalGuide, FlowGuide, MeanFieldGaussian
from ppvae.guides.flow import Reversed
from ppvae.nn import MLP
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

"""The classes of a discrete latent over a grid of factors: exact information, and codes with the class."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import ppvae
from ppvae.data import Dataset, Factors
from ppvae.evaluation.disentanglement import (
    Representation,
    aggregate_posterior,
    class_code_information,
    class_information,
    class_probabilities,
    factor_vae_score,
    mig,
    with_classes,
)
from ppvae.guides import CategoricalGuide, LabelGuide, MeanFieldGaussian
from tests.ppvae.evaluation.disentanglement.codes import DSPRITES, SMALL, perfect

EQUAL = torch.full((60, 3), 1 / 3)


def one_hot(factors, factor):
    values = factors.values(torch.arange(len(factors)))[:, factor]
    return torch.nn.functional.one_hot(values, factors.sizes[factor]).float()


def test_class_probabilities_are_the_guides_on_every_row():
    torch.manual_seed(0)
    guide = LabelGuide(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), nn.Linear(3, 4))
    data = Dataset(perfect(SMALL), factors=SMALL)
    found = class_probabilities(guide, data, batch_size=7)
    torch.testing.assert_close(found, guide.classifier[0](data.x).softmax(-1).detach())  # without dropout
    assert guide.training
    alone = CategoricalGuide(nn.Linear(3, 5))
    assert class_probabilities(alone, data, site="z").shape == (60, 5)


def test_class_probabilities_do_not_read_labels():
    guide = LabelGuide(nn.Linear(3, 3), nn.Linear(3, 4))
    unlabelled = Dataset(perfect(SMALL), factors=SMALL)
    labelled = Dataset(perfect(SMALL), torch.zeros(60, dtype=torch.long), factors=SMALL)
    torch.testing.assert_close(*(class_probabilities(guide, data) for data in (labelled, unlabelled)))


def test_class_probabilities_refuse_a_continuous_site_and_one_that_does_not_exist():
    data = Dataset(perfect(SMALL), factors=SMALL)
    guide = LabelGuide(nn.Linear(3, 3), nn.Linear(3, 4))
    with pytest.raises(ppvae.ContractError, match="a class at site 'z', got a Independent; use Categorical"):
        class_probabilities(guide, data, site="z")
    with pytest.raises(ppvae.ContractError, match="draws site 'y'"):
        class_probabilities(MeanFieldGaussian(nn.Linear(3, 4)), data)
    with pytest.raises(ppvae.DataError, match="without factors"):
        class_probabilities(guide, data.take(slice(0, 10)))


@pytest.mark.parametrize("factor", range(5))
def test_information_of_a_class_that_is_a_factor_is_its_entropy(factor):
    found = class_information(one_hot(DSPRITES, factor), DSPRITES)
    expected = np.zeros(5)
    expected[factor] = math.log(DSPRITES.sizes[factor])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_information_of_uncertain_classes_by_hand():
    """q(y = shape) = 1 - e for two shapes: log 2 - H(e); nothing of the other factor, although q moves with both."""
    grid, e = Factors(("shape", "place"), (2, 2)), 0.1
    probabilities = torch.tensor([[1.0, 0.0], [1 - 2 * e, 2 * e], [0.0, 1.0], [2 * e, 1 - 2 * e]])
    shape, place = class_information(probabilities, grid)
    assert shape == pytest.approx(math.log(2) + e * math.log(e) + (1 - e) * math.log(1 - e))
    assert place == pytest.approx(0, abs=1e-7)
    assert class_information(EQUAL, SMALL).tolist() == pytest.approx([0, 0, 0], abs=1e-7)
    assert class_information(torch.eye(2), Factors(("a",), (2,))).tolist() == pytest.approx([math.log(2)])


def test_class_and_code_that_are_independent_share_no_information():
    grid = Factors(("shape", "place"), (3, 5))
    place = grid.values(torch.arange(15))[:, 1:].float()
    known = Representation(grid, place, torch.full((15, 1), 0.3))
    found, error = class_code_information(known, one_hot(grid, 0), num_draws=50)
    assert found == pytest.approx(0, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_class_and_code_information_against_quadrature():
    """Two Gaussians of scale 1 at -1 and 1, with uncertain classes."""
    grid, q = Factors(("a",), (2,)), torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    known = Representation(grid, torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    density = torch.distributions.Normal(torch.tensor([-1.0, 1.0]).double(), 1.0).log_prob(z[:, None]).exp() / 2
    joint = density @ q.double()  # q(z, y)
    product = joint.sum(1, keepdim=True) * q.double().mean(0)
    exact = torch.trapezoid((joint * (joint / product).log()).sum(1), z).item()
    found, error = class_code_information(known, q, num_draws=20_000)
    assert error < 0.002
    assert found == pytest.approx(exact, abs=4 * error)


def test_class_adds_its_information_on_the_code_to_the_total_correlation():
    """A class as one more element of z, Gaussian and narrow: the total correlation of all is the sum."""
    torch.manual_seed(0)
    codes, classes = torch.randn(60, 2), torch.randint(3, (60,))
    scales = torch.full((60, 2), 0.5)
    q = torch.nn.functional.one_hot(classes, 3).float()
    added, error = class_code_information(Representation(SMALL, codes, scales), q, num_draws=4000)
    of_z = aggregate_posterior(codes, scales, None, num_draws=4000)
    both = torch.cat([codes, classes[:, None].float()], 1), torch.cat([scales, torch.full((60, 1), 1e-3)], 1)
    of_all = aggregate_posterior(*both, None, num_draws=4000)
    spread = error + of_z.total_correlation_error + of_all.total_correlation_error
    assert added > 0.1
    assert of_all.total_correlation == pytest.approx(of_z.total_correlation + added, abs=4 * spread)


def test_code_with_the_class_scores_as_one_with_the_factor():
    places = Representation(SMALL, perfect(SMALL)[:, 1:], torch.ones(60, 2), torch.ones(2))
    found = with_classes(places, 0.9 * one_hot(SMALL, 0) + 0.1 / 3)
    assert found.codes[:, 2].tolist() == SMALL.values(torch.arange(60))[:, 0].tolist()
    assert found.scales is found.kl is found.prior is None
    assert factor_vae_score(found, num_train=200, num_eval=100) == 1
    assert mig(found) > mig(places) + 0.3


def test_classes_refuse_other_probabilities():
    known = Representation(SMALL, perfect(SMALL), torch.ones(60, 3))
    for wrong in (EQUAL[:10], EQUAL + 0.1, EQUAL - torch.tensor([1.0, -1.0, 0.0])):
        for function in (lambda p: class_information(p, SMALL), lambda p: with_classes(known, p)):
            with pytest.raises(ppvae.DataError, match=r"class probabilities of shape \(60, C\)"):
                function(wrong)
        with pytest.raises(ppvae.DataError, match=r"class probabilities of shape \(60, C\)"):
            class_code_information(known, wrong)
    with pytest.raises(ppvae.DataError, match="expected scales"):
        class_code_information(Representation(SMALL, perfect(SMALL)), EQUAL)
    with pytest.raises(ValueError, match="at least 2 draws"):
        class_code_information(known, EQUAL, num_draws=1)

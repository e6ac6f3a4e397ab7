"""UDR: exact matrices, and models with known agreement."""

import numpy as np
import pytest
import torch

import ppvae
from ppvae.data import Factors
from ppvae.evaluation.disentanglement import Representation, relative_strength, udr
from ppvae.evaluation.disentanglement.ranking import lasso_similarity, spearman_similarity
from tests.ppvae.evaluation.disentanglement.codes import DSPRITES, SMALL, noise, perfect, rotation


def trained(codes: torch.Tensor, dead: int = 0, factors=SMALL) -> Representation:
    """Codes of a trained model, with further dimensions of KL 0."""
    kl = torch.cat([torch.ones(codes.shape[1]), torch.zeros(dead)])
    return Representation(factors, torch.cat([codes, 0.01 * noise(factors, dead)], 1), kl=kl)


def test_relative_strength_of_matrices():
    assert relative_strength(np.eye(3)) == 1
    assert relative_strength(np.ones((4, 4))) == pytest.approx(0.25)
    assert relative_strength(np.array([[1.0, 0.0]])) == pytest.approx(2 / 3)  # one of three has no counterpart
    assert relative_strength(np.array([[0.8, 0.2], [0.0, 0.5]])) == pytest.approx(
        (0.8 + 0.5**2 / 0.7 + 0.8**2 / 1.0 + 0.5) / 4
    )
    assert relative_strength(np.zeros((2, 3))) == relative_strength(np.zeros((0, 3))) == 0


def test_similarities_find_a_permutation_of_the_dimensions():
    codes = np.random.default_rng(0).standard_normal((5000, 3))
    other = -2 * codes[:, [2, 0, 1]]
    expected = np.eye(3)[[2, 0, 1]].T
    np.testing.assert_allclose(spearman_similarity(codes, other), expected, atol=4 / 5000**0.5)
    np.testing.assert_allclose(lasso_similarity(codes, other), 0.9 * expected, atol=1e-3)  # shrunk by the penalty
    assert not spearman_similarity(np.zeros((9, 2)), np.ones((9, 1))).any()
    assert lasso_similarity(codes[:, :0], codes).shape == (0, 3)
    assert lasso_similarity(codes, other[:, :1]).shape == (3, 1)


def test_spearman_similarity_equals_scipys():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, other = rng.integers(4, size=(100, 2)), rng.standard_normal((100, 2))  # with ties
    expected = np.abs(spearmanr(one, other).statistic[:2, 2:])
    np.testing.assert_allclose(spearman_similarity(one, other), expected)


@pytest.mark.parametrize(("form", "top"), [("lasso", 0.9), ("spearman", 1.0)])
def test_udr_is_highest_for_models_equal_up_to_permutation_sign_and_scale(form, top):
    code = perfect(DSPRITES)
    models = [
        trained(code, 3, DSPRITES),
        trained(-code.flip(1), 1, DSPRITES),
        trained(code[:, [1, 0, 2, 4, 3]] * torch.tensor([3.0, 0.5, 1, 1, 1]), 0, DSPRITES),
    ]
    found = udr(models, form=form)
    # Spearman's sum includes the chance correlations of 4 other dimensions, each about 0.8 / sqrt(N).
    assert found == pytest.approx([top] * 3, abs=0.005 if form == "lasso" else 0.05)


@pytest.mark.parametrize("form", ["lasso", "spearman"])
def test_udr_ranks_a_rotated_model_below_those_that_agree(form):
    code = perfect(SMALL)
    found = udr([trained(code), trained(code.flip(1)), trained(-code), trained(code @ rotation(3, 0))], form=form)
    assert found[:3].min() > found[3] + 0.1


def test_udr_of_uninformative_models_is_zero():
    dead = Representation(SMALL, perfect(SMALL), kl=torch.zeros(3))
    assert udr([dead, trained(perfect(SMALL))]).tolist() == [0, 0]


def test_udr_refuses_other_representations():
    one = trained(perfect(SMALL))
    with pytest.raises(ppvae.DataError, match="at least two models, got 1"):
        udr([one])
    with pytest.raises(ppvae.DataError, match="got one without: q or p is not a product of Normals"):
        udr([one, Representation(SMALL, perfect(SMALL))])
    with pytest.raises(ppvae.DataError, match="the same data"):
        udr([one, trained(perfect(DSPRITES), 0, DSPRITES)])
    with pytest.raises(ppvae.DataError, match="expected representations, as returned by represent, got Tensor, Tensor"):
        udr([one.codes, one.codes])
    with pytest.raises(ValueError, match="got 'pearson'"):
        udr([one, one], form="pearson")
    assert udr(r for r in (one, one)).tolist() == udr([one, one]).tolist()


def test_udr_is_the_median_over_the_other_models():
    """Three models agree and one has no informative dimension: 0.9, 0.9, 0 for each of the three, 0, 0, 0 for it."""
    code = perfect(SMALL)
    dead = Representation(SMALL, code, kl=torch.zeros(3))
    found = udr([trained(code), trained(-code), trained(code.flip(1)), dead])
    assert found == pytest.approx([0.9, 0.9, 0.9, 0], abs=0.01)


def test_udr_leaves_out_dimensions_of_little_kl():
    """One of 3 dimensions is left out in one model, so one of 5 has no counterpart: 4 * 0.9 / 5."""
    code = perfect(SMALL)
    for kl, value in ((0.02, 0.9), (0.005, 4 * 0.9 / 5)):
        other = Representation(SMALL, code, kl=torch.tensor([1.0, kl, 1.0]))
        assert udr([trained(code), other]) == pytest.approx([value] * 2, abs=0.01)


def test_udr_regresses_each_model_on_the_others():
    """Two models, (a, b) and (a, t), t = (a + b) / sqrt 2. From (a, b), the Lasso's weights are 0.9 to a, and 0.607 and
    0.607 to t. From (a, t) they are 0.9 to a, and to b = sqrt 2 t - a, by the optimality conditions,
    2 (0.1 - 0.607 / sqrt 2) and 2 (0.607 - 0.1 / sqrt 2)."""
    grid = Factors(("a", "b"), (12, 12))
    a, b = perfect(grid).T
    one = Representation(grid, torch.stack([a, (a + b) / 2**0.5], 1), kl=torch.ones(2))
    other = Representation(grid, torch.stack([a, b], 1), kl=torch.ones(2))
    root = 0.5**0.5
    from_other = np.array([[0.9, root - 0.1], [0, root - 0.1]])
    from_one = np.array([[0.9, 2 * ((root - 0.1) * root - 0.1)], [0, 2 * (root - 0.1 - 0.1 * root)]])
    expected = [relative_strength(from_other), relative_strength(from_one)]
    assert abs(expected[0] - expected[1]) > 0.15
    # Correlations of 10,000 rows have a standard error of 0.01, doubled by the inverse of the correlation matrix.
    assert udr([one, other]) == pytest.approx(expected, abs=0.04)

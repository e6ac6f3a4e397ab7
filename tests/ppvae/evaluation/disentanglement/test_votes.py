"""Higgins' classifier and FactorVAE's vote on codes of known worth."""

import pytest
import torch

from ppvae.data import Factors
from ppvae.evaluation.disentanglement import Representation, factor_vae, higgins
from tests.ppvae.evaluation.disentanglement.codes import SMALL, perfect, representation, transformed

SIZES = {"num_train": 2000, "num_eval": 1000}
ERROR = 4 * (0.2 * 0.8 / SIZES["num_eval"]) ** 0.5  # of an accuracy at chance


@pytest.mark.parametrize("metric", [higgins, factor_vae])
@pytest.mark.parametrize(
    ("code", "value"), [("perfect", 1.0), ("perfect and noise", 1.0), ("duplicated", 1.0), ("noise", 0.2)]
)
def test_known_codes(metric, code, value):
    found = metric(representation(code), **SIZES)
    assert found == pytest.approx(value, abs=0.005 if value == 1 else ERROR)


def test_constant_code_is_pruned_by_one_and_a_guess_to_the_other():
    assert factor_vae(representation("constant"), **SIZES) == 0
    assert higgins(representation("constant"), **SIZES) == pytest.approx(0.2, abs=ERROR)


def test_dimensions_below_the_threshold_do_not_vote():
    for shrunk, value in ((0.04, 2 / 3), (0.06, 1.0)):
        codes = perfect(SMALL) * torch.tensor([1.0, 1.0, shrunk])
        found = factor_vae(Representation(SMALL, codes), **SIZES)
        assert found == pytest.approx(value, abs=4 * (2 / 9 / SIZES["num_eval"]) ** 0.5)


def test_the_vote_weighs_each_dimension_by_its_variance():
    """Turned by 0.3 in one plane, its two dimensions still vote for their factors, whatever their scales."""
    turn = torch.eye(3)
    turn[:2, :2] = torch.tensor([[0.955, 0.296], [-0.296, 0.955]])
    r = Representation(SMALL, perfect(SMALL) @ turn)
    one, other = (factor_vae(code, **SIZES) for code in (r, transformed(r, [9.0, 1.0, 0.2])))
    assert one > 0.95
    assert one == other  # the same draws, the same votes


def test_a_permutation_leaves_the_classifier_alone():
    r = representation("rotated", SMALL)
    assert higgins(transformed(r), **SIZES) == pytest.approx(higgins(r, **SIZES), abs=0.005)


def test_a_single_factor_is_always_told():
    r = Representation(one := Factors(("a", "b"), (1, 8)), perfect(one))
    assert higgins(r, **SIZES) == factor_vae(r, **SIZES) == 1

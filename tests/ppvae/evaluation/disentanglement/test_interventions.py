"""IRS: exact cases, and codes with known scores."""

import numpy as np
import pytest
import torch

from ppvae.data import Factors
from ppvae.evaluation.disentanglement import Representation, irs
from ppvae.evaluation.disentanglement.interventions import robustness
from tests.ppvae.evaluation.disentanglement.codes import SMALL, perfect, representation, transformed


def test_robustness_of_a_sum_of_two_factors():
    """z = v1 + 0.5 v2 on a 2 x 2 grid deviates by 0.25 with v1 fixed, 0.5 with v2 fixed, and at most 0.75."""
    values = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    codes = values @ np.array([[1.0], [0.5]])
    found, greatest = robustness(codes, values, quantile=1.0)
    np.testing.assert_allclose(found, [[1 - 0.25 / 0.75, 1 - 0.5 / 0.75]])
    np.testing.assert_allclose(greatest, [0.75])


# The score of noise is 1 - (99th percentile of a group) / (largest of 10,000), about 1 - 2.5 / 4. Over draws of the
# noise its mean is 0.367 and its standard deviation 0.010; with a perfect code in addition, 0.551 and 0.008.
@pytest.mark.parametrize(
    ("code", "value", "error"),
    [
        ("perfect", 1, 1e-9),
        ("perfect and noise", 0.55, 0.03),
        ("duplicated", 1, 1e-9),
        ("noise", 0.367, 0.04),
        ("constant", 0, 0),
    ],
)
def test_irs_of_known_codes(code, value, error):
    assert irs(representation(code)) == pytest.approx(value, abs=error)


def test_irs_is_invariant_to_permutation_sign_and_a_common_scale():
    r = representation("rotated", SMALL)
    assert irs(r) == pytest.approx(irs(transformed(r, [7.0, 7.0, 7.0])), rel=1e-5)


def test_irs_gives_a_constant_dimension_no_weight():
    codes = torch.cat([perfect(SMALL), torch.full((len(SMALL), 2), 0.3)], 1)
    assert irs(Representation(SMALL, codes)) == pytest.approx(1)


def test_robustness_is_zero_where_deviations_within_groups_exceed_the_overall_ones():
    """On a 20 x 20 grid, 0 in the top left block, 1 in the bottom right, a checkerboard elsewhere: row means are 1/4 or
    3/4, the overall mean is 1/2, so deviations reach 3/4 within a row and 1/2 overall."""
    grid = Factors(("row", "column"), (20, 20))
    row, column = grid.values(torch.arange(400)).T
    codes = torch.where((row < 10) & (column < 10), 0, torch.where((row > 9) & (column > 9), 1, (row + column) % 2))
    r = Representation(grid, codes[:, None].float())
    groups = [codes[row == v].float() for v in range(20)]
    assert np.mean([(group - group.mean()).abs().max().item() for group in groups]) == pytest.approx(0.75)
    found, greatest = robustness(r.codes.numpy(), grid.values(torch.arange(400)).numpy(), quantile=1.0)
    assert (found.tolist(), greatest.tolist()) == ([[0, 0]], [0.5])
    assert irs(r) == 0


@pytest.mark.parametrize("quantile", [0.0, -0.1, 1.1, float("nan")])
def test_irs_refuses_other_quantiles(quantile):
    with pytest.raises(ValueError, match="quantile above 0, at most 1"):
        irs(representation("perfect", SMALL), quantile=quantile)

"""known_codes.py: two columns of its table, and that its codes are those of the tests of the metrics."""

import pytest
import torch

from tests.experiments.scripts import script
from tests.ppvae.evaluation.disentanglement.codes import CODES, DSPRITES, perfect, rotation

known_codes = script("known_codes")
SLOW = ("dci", "higgins", "factor_vae", "sap")


def test_scores_equal_those_of_the_other_implementation(capsys):
    found = known_codes.main(known_codes.Config(codes=("perfect", "constant"), leave_out=SLOW))
    for name, scores in found.items():
        expected = dict(zip(known_codes.COLUMNS, known_codes.REFERENCE[name], strict=True))
        shown = scores.keys() & expected.keys()
        assert shown == {"mig", "modularity", "irs"}
        assert {key: scores[key] for key in shown} == pytest.approx({key: expected[key] for key in shown}, abs=0.005)
    assert "0.896)" in capsys.readouterr().out


@pytest.mark.parametrize("name", known_codes.REFERENCE)
def test_code_equals_that_of_the_tests(name):
    expected = (
        perfect(DSPRITES) @ rotation(5, known_codes.ROTATION) if name == "random rotation" else CODES[name](DSPRITES)
    )
    torch.testing.assert_close(known_codes.code(name), expected)


def test_unknown_code_is_refused():
    with pytest.raises(ValueError, match=r"expected codes from perfect, .*, got good"):
        known_codes.main(known_codes.Config(codes=("perfect", "good")))

"""The table of known codes: two of its columns, and that the codes are those of the metrics' own tests."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.ppvae.evaluation.disentanglement.codes import CODES, DSPRITES, perfect, rotation

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
SLOW = ("dci", "higgins", "factor_vae", "sap")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return import_module("known_codes")


def test_scores_stand_beside_those_of_the_reference(script, capsys):
    found = script.main(script.Config(codes=("perfect", "constant"), leave_out=SLOW))
    for name, scores in found.items():
        expected = dict(zip(script.COLUMNS, script.REFERENCE[name], strict=True))
        shown = scores.keys() & expected.keys()
        assert shown == {"mig", "modularity", "irs"}
        assert {key: scores[key] for key in shown} == pytest.approx({key: expected[key] for key in shown}, abs=0.005)
    assert "0.896)" in capsys.readouterr().out


def test_codes_are_those_of_the_tests(script):
    for name in script.REFERENCE:
        ours = perfect(DSPRITES) @ rotation(5, script.ROTATION) if name == "random rotation" else CODES[name](DSPRITES)
        torch.testing.assert_close(script.code(name), ours)


def test_a_code_that_is_none_is_refused(script):
    with pytest.raises(ValueError, match=r"expected codes out of perfect, .*, got good"):
        script.main(script.Config(codes=("perfect", "good")))

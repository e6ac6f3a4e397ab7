"""What to do where a pair fails."""

import re

import pytest
import torch
from torch import nn

from ppvae.engine.batch import Batch, as_batch
from ppvae.engine.remedies import cause, remedy, type_that_differs

NAN = torch.tensor([[torch.nan, 0.0]])
ONE = torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("role", "batch", "error", "message"),
    [
        ("guide", Batch(NAN), RuntimeError(), "FillMissing"),
        ("model", Batch(NAN), RuntimeError(), "Networks must take"),
        ("guide", Batch(NAN.double()), RuntimeError(), "x is torch.float64 and the parameters are torch.float32"),
        ("guide", Batch(NAN, given={"c": ONE.long()}), RuntimeError(), r"'c' is torch.int64 .* pass c.float\(\)"),
        ("guide", Batch(NAN, given={"c": NAN}), RuntimeError(), "'c' has missing elements"),
        ("model", as_batch(ONE, torch.tensor([7])), IndexError(), "labels go from 7 to 7"),
        ("model", as_batch(ONE, torch.tensor([7])), RuntimeError(), "Networks must take"),
    ],
)
def test_remedy_is_that_of_the_most_probable_cause(role, batch, error, message):
    assert re.search(message, remedy(role, nn.Linear(2, 2), batch, error))


def test_type_that_differs_is_none_without_parameters_and_where_types_agree():
    assert type_that_differs(nn.Identity(), Batch(ONE.double())) is None
    assert type_that_differs(nn.Linear(2, 2), Batch(ONE, given={"c": ONE})) is None
    assert "pass c.double()" in type_that_differs(nn.Linear(2, 2).double(), Batch(ONE.double(), given={"c": ONE}))


def test_cause_names_conditions_before_the_data():
    assert "['c']" in cause(Batch(NAN, given={"c": NAN, "d": ONE}))
    assert "FillMissing" in cause(Batch(NAN, given={"d": ONE}))
    assert "parameters" in cause(Batch(ONE))

"""What fit checks before the first step."""

import pytest
import torch

import ppvae
from ppvae.data import Dataset
from ppvae.evaluation import rows
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import Validation, checks
from tests.catalogue import PAIRS
from tests.ppvae.training.runs import data_of, run


def test_check_data_checks_the_last_row(monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 60)
    torch.manual_seed(0)
    model, guide = GaussianVAE(MLP(2, [4], (2, 3)), 2), MeanFieldGaussian(MLP((2, 3), [4], 4))
    x = torch.rand(100, 2, 3).round()
    checks.check_data(model, guide, Dataset(x))
    x[99, 1, 2] = 1.5
    with pytest.raises(ppvae.ContractError, match=r"support of the likelihood .* first outside in row 99"):
        checks.check_data(model, guide, Dataset(x))
    x[99, 1, 2] = torch.nan
    with pytest.raises(ppvae.ContractError, match=r"first in row 99 of x"):
        checks.check_data(model, guide, Dataset(x))


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN first in row 20"), (1.5, "values from 0 to 1.5, first outside in row 20")],
)
def test_fit_refuses_bad_data_before_the_first_step(value, message):
    data = data_of("gaussian_vae")
    data.x[20, 0, 0] = value
    with pytest.raises(ppvae.ContractError, match=message):
        run("gaussian_vae", data=data)


@pytest.mark.parametrize(
    ("validation", "message"),
    [(torch.zeros(5, 4, 4).double(), "got|expected"), (torch.full((5, 8, 8), 3.0).double(), "values from 3 to 3")],
)
def test_fit_refuses_bad_validation_data_before_the_first_step(validation, message):
    evaluate = Validation(validation, evaluate=lambda: pytest.fail("it trained"))
    with pytest.raises(ppvae.ContractError, match=message):
        run("gaussian_vae", validation=evaluate)


def test_fit_refuses_labels_outside_the_classes():
    data = Dataset(data_of("label").x, torch.full((24,), 7))
    with pytest.raises(ppvae.ContractError, match="labels from 0 to 3"):
        run("label", data=data)


def test_fit_refuses_another_num_data():
    model, guide, _ = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=r"TCDecomposition with num_data=24, .* got 100"):
        ppvae.fit(model, guide, ppvae.beta_tcvae(100), data_of("gaussian_vae"), epochs=1)

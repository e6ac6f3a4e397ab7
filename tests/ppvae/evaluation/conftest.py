"""Each test begins with an empty parameter store and its own seed."""

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _own_store_and_seed():
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield
    pyro.clear_param_store()

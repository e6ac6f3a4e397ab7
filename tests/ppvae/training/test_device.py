"""Choosing a device."""

import pytest
import torch

from ppvae.errors import DeviceError
from ppvae.training import environment, resolve_device
from tests.ppvae.training.runs import run


def test_resolve_device_takes_what_there_is():
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "GPU:0", "", "cuda:x", 1.5, None])
def test_resolve_device_refuses_unknown_names(device):
    with pytest.raises(DeviceError, match=r"expected a device such as .* a GPU is 'cuda'"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_resolve_device_refuses_an_absent_device(device):
    with pytest.raises(DeviceError, match="found none; use device='cpu'"):
        run(device=device)


def test_environment_names_threads_and_versions():
    facts = environment(torch.device("cpu"))
    assert facts["hardware"] == f"CPU, {torch.get_num_threads()} threads"
    assert facts["torch"] == torch.__version__

"""Choosing a device, and saying what a run ran on."""

import platform
from importlib.metadata import version

import torch

from ppvae.errors import DeviceError


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """CUDA where there is one for "auto"; any other name as torch knows it.

    Raises DeviceError if CUDA is asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"expected a CUDA device for device={str(device)!r}, found none; "
            "use device='cpu', or 'auto' to take what is there"
        )
    return chosen


def environment(device: torch.device) -> dict[str, str]:
    """What a reader of a result must know of the machine: device, cores, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "hardware": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": version("pyro-ppl"),
        "ppvae": version("ppvae"),
    }

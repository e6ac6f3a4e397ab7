"""The device of a run, and the facts about a machine that results depend on."""

import platform
from importlib.metadata import version

import torch

from ppvae.errors import DeviceError


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; for "auto" CUDA if there is one, else the CPU.

    Raises:
        DeviceError: torch has no such device, or it is not available.

    Example:

        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"expected a device such as 'auto', 'cpu', 'cuda' or 'cuda:1', got {device!r}; a GPU is 'cuda'"
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"expected a CUDA device for device={str(device)!r}, found none; "
            "use device='cpu', or 'auto' to take what is there"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"expected a CUDA device below cuda:{torch.cuda.device_count()}, got {str(device)!r}")
    return chosen


def environment(device: torch.device) -> dict[str, str]:
    """The device, the number of threads and the versions that results depend on.

    Example:

        >>> sorted(environment(torch.device("cpu")))
        ['hardware', 'ppvae', 'pyro', 'python', 'torch']
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "hardware": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": version("pyro-ppl"),
        "ppvae": version("ppvae"),
    }

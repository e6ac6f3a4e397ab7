"""Choosing a device."""

import torch


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """CUDA where there is one for "auto"; any other name as torch knows it.

    Raises RuntimeError if CUDA is asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"expected a CUDA device for device={str(device)!r}, found none; use device='cpu', or 'auto' to take what is there"
        )
    return chosen

"""Checkpoints: tensors in safetensors, everything else as JSON in its header. Nothing is unpickled."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ppvae.errors import CheckpointError
from ppvae.training.step import named_adversaries

FORMAT = "ppvae-checkpoint-1"


def save(path: Path, tensors: dict[str, Tensor], values: dict) -> None:
    """Write a checkpoint whole or not at all: an interrupted write leaves the old one."""
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    unfinished = path.with_suffix(".unfinished")
    save_file(whole, unfinished, metadata={"format": FORMAT, "values": json.dumps(values)})
    os.replace(unfinished, path)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and values of a checkpoint. Raises CheckpointError if it is damaged or none."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint at {path}, found none")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of ppvae ({FORMAT})")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["values"])  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint of ppvae ({error}); nothing was loaded. "
            "Use another checkpoint of the run, or start anew"
        ) from error


def require(tensors: dict, values: dict, names: set[str], keys: set[str], path: str | Path) -> None:
    """Raise CheckpointError unless a checkpoint has these tensors and values."""
    missing = sorted((names - tensors.keys()) | (keys - values.keys()))
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}, so no run can be resumed from it; start anew")


def load_checkpoint(path: str | Path, model: nn.Module, guide: nn.Module, objective=None) -> dict:
    """Load a pair's weights from ``best.safetensors`` or ``last.safetensors`` of a run folder.

    Args:
        path: of the checkpoint.
        model, guide: built as they were for the run.
        objective: the run's, to load what it trained against the pair (a critic, a multiplier) too.

    Returns the checkpoint's values (epoch, step and the like). Raises CheckpointError, before any weight is
    changed, if the file is damaged or belongs to another pair. Nothing in the file is executed.
    """
    tensors, values = read(path)
    load_modules(tensors, {"model": model, "guide": guide, **named_adversaries(objective)}, path)
    return values


def module_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers of several modules, by ``role/name``."""
    return {
        f"{role}/{name}": tensor for role, module in modules.items() for name, tensor in module.state_dict().items()
    }


def load_modules(tensors: dict[str, Tensor], modules: dict[str, nn.Module], path: str | Path) -> None:
    """The inverse of :func:`module_tensors`; checks all names and shapes before it changes any."""
    expected = module_tensors(modules)
    saved = {name: tensor for name, tensor in tensors.items() if name.split("/")[0] in modules}
    for name in sorted(expected.keys() | saved.keys()):
        ours, theirs = _shape(expected, name), _shape(saved, name)
        if ours != theirs:
            raise CheckpointError(
                f"{path} belongs to another pair: {name} is {theirs} there and {ours} here; nothing was loaded. "
                "Build the pair as it was when the checkpoint was written"
            )
    for role, module in modules.items():
        prefix = f"{role}/"
        module.load_state_dict({n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)})


def optimizer_tensors(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of several optimizers (moments, step counts), by ``role/parameter index/name``."""
    return {
        f"{role}/{index}/{name}": torch.as_tensor(value)
        for role, optimizer in optimizers.items()
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def load_optimizers(tensors: dict[str, Tensor], optimizers: dict[str, torch.optim.Optimizer]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    parameters = {
        role: [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for role, optimizer in optimizers.items()
    }
    states: dict[str, dict[int, dict[str, Tensor]]] = {role: {} for role in optimizers}
    for name, tensor in tensors.items():
        role, *rest = name.split("/")
        if role in optimizers:
            index = int(rest[0])
            states[role].setdefault(index, {})[rest[1]] = _laid_out_as(parameters[role][index], tensor)
    for role, optimizer in optimizers.items():
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states[role]})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A moment in its parameter's memory format, which fused updates rely upon and a file does not keep."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return f"of shape {tuple(tensors[name].shape)}" if name in tensors else "absent"

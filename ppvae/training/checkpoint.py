"""Checkpoints: tensors in safetensors, everything else as JSON in its header. Nothing is unpickled."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from ppvae.engine.player import Player
from ppvae.errors import CheckpointError
from ppvae.training.anew import forget_first_state
from ppvae.training.files import write_whole
from ppvae.training.players import PAIR, own_players, pair_module

FORMAT = "ppvae-checkpoint-2"
Tensors = dict[str, Tensor]


def save(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all: an interrupted write leaves the old one. Raises RunFolderError.

    Example:

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "last.safetensors")
        >>> save(file, {"x": torch.ones(2)}, {"epoch": 3})
        >>> file.exists()
        True
    """
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_whole(path, serialised(copies, metadata={"format": FORMAT, "values": json.dumps(values)}))


def read(path: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the values of a checkpoint. Raises CheckpointError unless the file is a whole checkpoint.

    Example:

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "last.safetensors")
        >>> save(file, {"x": torch.ones(2)}, {"epoch": 3})
        >>> read(file)
        ({'x': tensor([1., 1.])}, {'epoch': 3})
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint at {path}, found none")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"expected a checkpoint of format {FORMAT} at {path}, got {metadata.get('format', 'another file')}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            values = json.loads(metadata["values"])
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint of ppvae ({error}); nothing was loaded. "
            "Use another checkpoint of the run, or start anew"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"expected the values of {path} to be a dictionary, got a {type(values).__name__}")
    return tensors, values


def load_checkpoint(
    path: str | Path, model: nn.Module, guide: nn.Module, objective: PyroELBO | None = None
) -> dict[str, Any]:
    """Load a pair's weights from ``best.safetensors`` or ``last.safetensors`` of a run folder.

    Args:
        path: of the checkpoint.
        model: built as for the run.
        guide: built as for the run.
        objective: that of the run, to load its critics and multipliers as well.

    Returns the checkpoint's values: "epoch", "step_in_epoch", "best" (the lowest validation loss), "seconds" and
    "metrics" (one row an epoch). Nothing in the file is executed.

    Raises:
        CheckpointError: the file is damaged or belongs to another pair. No weight is changed then.

    Example:

        >>> import tempfile, ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> def pair():
        ...     return LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> folder = tempfile.mkdtemp()
        >>> _ = ppvae.fit(*pair(), ppvae.ELBO(), torch.zeros(64, 2), epochs=2, run_dir=folder, progress=False)
        >>> load_checkpoint(f"{folder}/last.safetensors", *pair())["epoch"]
        2
    """
    owned = own_players(objective)
    modules = {PAIR: pair_module(model, guide), **{player.name: player.module for player in owned}}
    values = _load_weights(path, modules)
    forget_first_state(owned)
    return values


def load_players(path: str | Path, players: Sequence[Player]) -> dict[str, Any]:
    """Load the weights of the players of :func:`ppvae.train` from a run folder's checkpoint.

    Returns the checkpoint's values, as :func:`load_checkpoint` does.

    Raises:
        CheckpointError: the file is damaged or belongs to other players. No weight is changed then.

    Example:

        >>> import tempfile, ppvae
        >>> net = nn.Linear(2, 1)
        >>> players = [Player("net", net, lambda turn: net(turn.batches[0].x).square().mean(), ppvae.adam())]
        >>> folder = tempfile.mkdtemp()
        >>> _ = ppvae.train(players, torch.ones(8, 2), epochs=1, run_dir=folder, progress=False)
        >>> load_players(f"{folder}/last.safetensors", players)["epoch"]
        1
    """
    return _load_weights(path, {player.name: player.module for player in players})


def _load_weights(path: str | Path, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    tensors, values = read(path)
    saved = {name: t for name, t in tensors.items() if name.startswith(tuple(module_prefix(p) for p in modules))}
    check_match(saved, module_tensors(modules), path)
    check_finite(saved, parameter_names(modules), path)
    load_modules(saved, modules)
    return values


def module_prefix(player: str) -> str:
    """What the names of a player's parameters and buffers begin with.

    Example:

        >>> module_prefix("pair")
        'module/pair:'
    """
    return f"module/{player}:"


def module_tensors(modules: Mapping[str, nn.Module]) -> Tensors:
    """Parameters and buffers of several modules, by ``module/player:name``.

    Example:

        >>> sorted(module_tensors({"line": nn.Linear(1, 1)}))
        ['module/line:bias', 'module/line:weight']
    """
    return {
        module_prefix(player) + name: tensor
        for player, module in modules.items()
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor)
    }


def parameter_names(modules: Mapping[str, nn.Module]) -> list[str]:
    """The names of the parameters alone, as in :func:`module_tensors`.

    Example:

        >>> parameter_names({"line": nn.Linear(1, 1)})
        ['module/line:weight', 'module/line:bias']
    """
    return [module_prefix(player) + name for player, module in modules.items() for name, _ in module.named_parameters()]


def load_modules(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load what :func:`module_tensors` gives, which was checked by :func:`check_match`.

    Example:

        >>> saved, line = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> load_modules(module_tensors({"line": saved}), {"line": line})
        >>> torch.equal(saved.weight, line.weight)
        True
    """
    for player, module in modules.items():
        prefix = module_prefix(player)
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        module.load_state_dict(own, strict=False)  # names match; state other than tensors is not in the file


def check_match(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise CheckpointError, with the first difference, unless names, shapes and types are the same.

    Example:

        >>> check_match({"x": torch.ones(2)}, {"x": torch.zeros(2)}, "last.safetensors")
    """
    for name in sorted(expected.keys() | saved.keys()):
        ours, theirs = _form(expected.get(name)), _form(saved.get(name))
        if ours != theirs:
            raise CheckpointError(
                f"{path} belongs to another run or pair: {name} is {theirs} in the file and {ours} here; nothing was "
                "loaded. Build everything as it was when the checkpoint was written"
            )


def check_finite(tensors: Mapping[str, Tensor], names: Iterable[str], path: str | Path) -> None:
    """Raise CheckpointError where one of the named tensors holds NaN or infinity, which no run saves.

    Example:

        >>> check_finite({"x": torch.ones(2)}, ["x"], "last.safetensors")
    """
    for name in names:
        if not torch.isfinite(tensors[name]).all():
            raise CheckpointError(
                f"expected finite numbers in {path}, got NaN or infinity in {name}; nothing was loaded"
            )


def _form(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

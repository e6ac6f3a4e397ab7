"""A run, step by step: its state, its checkpoints, its stops."""

import math
import time
from collections.abc import Callable, Iterable
from itertools import repeat

import torch
from torch import Tensor

from ppvae.errors import ContractError, Interrupted, NonFiniteLossError
from ppvae.training import checkpoint
from ppvae.training.batches import Batches, Part
from ppvae.training.progress import ProgressReport
from ppvae.training.run_folder import RunFolder
from ppvae.training.signals import StopRequest
from ppvae.training.step import Trainer, named_adversaries

CHECK_EVERY = 50  # steps between two looks at the loss; each look waits for the device


class Run:
    """A pair, its optimizer and how far they have come."""

    def __init__(self, model, guide, objective, batches: Batches, optimizer, schedule):
        self.model, self.guide, self.objective = model, guide, objective
        self.batches, self.schedule = batches, schedule
        trainable = [p for module in (model, guide) for p in module.parameters() if p.requires_grad]
        if not trainable:
            raise ContractError(
                "expected a parameter to train, got none; with train_model=False the guide must have some"
            )
        self.optimizer = optimizer(trainable)
        self.trainer = Trainer(model, guide, objective, self.optimizer)
        self.modules = {"model": model, "guide": guide, **named_adversaries(objective)}
        self.optimizers = {"optimizer": self.optimizer, **self.trainer.named_optimizers()}
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.device = batches.data.x.device
        self.epoch, self.step_in_epoch, self.best = 0, 0, float("inf")
        self.seconds = 0.0
        self.loss_sum = torch.zeros((), device=self.device, dtype=torch.float64)
        self.metrics: list[dict] = []

    @property
    def step(self) -> int:
        return self.epoch * len(self.batches) + self.step_in_epoch

    def begin(self, folder: RunFolder) -> None:
        """Take up the run that the folder holds, or write its first checkpoint."""
        self.folder = folder
        if folder.resumed:
            self._load()
        else:
            self.save()  # so that there is a good checkpoint whatever the first epoch brings

    def train_epoch(self, request: StopRequest, report: ProgressReport) -> None:
        started = time.perf_counter()
        for parts, other in zip(*self._streams(), strict=True):
            self._set_rates()
            self.loss_sum += self.trainer.step(parts, other, self.step)
            self.step_in_epoch += 1
            report.advance()
            if self.step_in_epoch % CHECK_EVERY == 0:
                report.loss(self.mean_loss())
            if request:
                self.seconds += time.perf_counter() - started
                self._stop(request)
        self.seconds += time.perf_counter() - started

    def _streams(self) -> tuple[Iterable[list[Part]], Iterable[list[Part]]]:
        """What is left of the epoch's batches, and as many independent ones where an adversary reads them."""
        batches = self.batches.epoch(self.epoch, self.step_in_epoch)
        if not self.trainer.needs_other:
            return batches, repeat([], len(self.batches) - self.step_in_epoch)
        return batches, self.batches.other_order().epoch(self.epoch, self.step_in_epoch)

    def finish_epoch(self, evaluate: Callable[[], dict], request: StopRequest, report: ProgressReport) -> None:
        loss = self.mean_loss()
        self._check_parameters()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.loss_sum.zero_()
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "loss": loss,
            **evaluate(),
        }
        self.metrics.append(row)
        self.folder.append_metrics(row)
        improved = row.get("validation_loss", float("inf")) < self.best
        self.best = min(self.best, row.get("validation_loss", float("inf")))
        if improved:
            self.save(best=True)
        self.save()
        report.epoch(row)
        if request:
            self._stop(request)

    def mean_loss(self) -> float:
        """Mean loss per datum of the epoch so far. Raises NonFiniteLossError."""
        loss = self.loss_sum.item() / max(self.step_in_epoch, 1)
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss turned {loss} within the {CHECK_EVERY} steps before step {self.step} (epoch "
                f"{self.epoch + 1}); {self._kept()}. Lower the learning rate, or look for extreme data"
            )
        return loss

    def save(self, best: bool = False) -> None:
        parts = checkpoint.module_tensors(self.modules), checkpoint.optimizer_tensors(self.optimizers)
        self.folder.save({**parts[0], **parts[1], **self._own_tensors()}, self._values(), best)

    def _values(self) -> dict:
        best = self.best if self.best < float("inf") else None
        return {"epoch": self.epoch, "step_in_epoch": self.step_in_epoch, "best": best, "seconds": self.seconds}

    def _own_tensors(self) -> dict[str, Tensor]:
        tensors = {"run/loss_sum": self.loss_sum, "run/rng_cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["run/rng_cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def _load(self) -> None:
        tensors, values = checkpoint.read(self.folder.last)
        checkpoint.require(tensors, values, {"run/loss_sum", "run/rng_cpu"}, {*self._values()}, self.folder.last)
        checkpoint.load_modules(tensors, self.modules, self.folder.last)
        checkpoint.load_optimizers(tensors, self.optimizers)
        self.epoch, self.step_in_epoch = values["epoch"], values["step_in_epoch"]
        self.best = float("inf") if values["best"] is None else values["best"]
        self.seconds = values["seconds"]
        self.loss_sum.copy_(tensors["run/loss_sum"])
        self.metrics = self.folder.metrics(self.epoch)
        torch.set_rng_state(tensors["run/rng_cpu"])
        if self.device.type == "cuda" and "run/rng_cuda" in tensors:  # absent where the run began on a CPU
            torch.cuda.set_rng_state(tensors["run/rng_cuda"], self.device)

    def _set_rates(self) -> None:
        if self.schedule is not None:
            for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * self.schedule(self.step)

    def _stop(self, request: StopRequest) -> None:
        self.mean_loss()
        self._check_parameters()
        self.save()
        raise Interrupted(
            f"stopped by {request.signal_name} at step {self.step} (epoch {self.epoch + 1}); {self._kept()}. "
            "Resume with resume=True (--resume)",
            request.signal_number,
        )

    def _check_parameters(self) -> None:
        for role, module in self.modules.items():
            for name, parameter in module.named_parameters():
                if not torch.isfinite(parameter).all():
                    raise NonFiniteLossError(
                        f"parameter {name!r} of the {role} turned NaN or infinite before step {self.step}; "
                        f"{self._kept()}. Lower the learning rate"
                    )

    def _kept(self) -> str:
        return (
            "no run folder was given, so nothing was saved"
            if self.folder.path is None
            else f"{self.folder.last} is kept"
        )

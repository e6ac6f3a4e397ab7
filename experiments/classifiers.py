"""Classifiers as players of a training. Used by class_samples.py and pretraining.py."""

import math

import torch
from torch import Tensor, nn

from ppvae.data import Dataset
from ppvae.engine.player import Optimizer, Player, Turn

ROWS = 1000  # data evaluated at once


def classifier_player(network: nn.Module, optimizer: Optimizer) -> Player:
    """The player that minimises the mean cross-entropy of labelled rows, in nats."""

    def cross_entropy(turn: Turn) -> Tensor:
        return nn.functional.cross_entropy(network(turn.batches[0].x), turn.batches[0].y)

    return Player("classifier", network, cross_entropy, optimizer)


def accuracy(network: nn.Module, data: Dataset) -> float:
    """Share of the rows where the class with the largest output is the label."""
    return (logits(network, data).argmax(-1) == data.y).double().mean().item()


@torch.no_grad()
def logits(network: nn.Module, data: Dataset) -> Tensor:
    """The network's output for all rows, shape (N, C), in the network's mode."""
    return torch.cat([network(x) for x in data.grey(slice(None)).split(ROWS)])


class BestWeights:
    """The weights of a network with the lowest mean cross-entropy of validation data so far: early stopping.

    An object of this class is called after each epoch, and returns the cross-entropy in nats.
    """

    def __init__(self, network: nn.Module, validation: Dataset):
        self.network, self.validation, self.lowest = network, validation, math.inf
        self.weights: dict[str, Tensor] = {}

    def __call__(self) -> dict[str, float]:
        loss = nn.functional.cross_entropy(logits(self.network, self.validation), self.validation.y).item()
        if loss < self.lowest:
            self.lowest = loss
            self.weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        return {"validation_loss": loss}

    def restore(self) -> None:
        """Load the best weights into the network."""
        self.network.load_state_dict(self.weights)

"""Short runs of the catalogue's pairs, for the tests of training."""

import torch

import ppvae
from ppvae.data import Dataset
from ppvae.training import Batching
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS


def data_of(pair: str) -> Dataset:
    """Each row four times; of a pair with a latent class, labelled in part."""
    batch = ALL_PAIRS[pair].make_batch()[2]
    many = batch.map(lambda column: column.repeat(4, *[1] * (column.dim() - 1)))
    return Dataset(many.x, LABELS.repeat(4) if ALL_PAIRS[pair].labelled else many.y, num_classes=4, **many.given)


def run(pair="label", seed=0, objective=None, data=None, **options):
    """Fit a pair of the catalogue; returns the model, the guide and the result."""
    model, guide, _ = ALL_PAIRS[pair].make(seed)
    objective = objective or (ppvae.ELBO() + ppvae.ClassifierLoss(1.0) if ALL_PAIRS[pair].labelled else ppvae.ELBO())
    options = {"epochs": 3, "batch_size": Batching(4, labelled_per_step=5), "progress": False, **options}
    result = ppvae.fit(model, guide, objective, data_of(pair) if data is None else data, **options)
    return model, guide, result


def weights(*modules):
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


def modules_of(objective):
    """The critics and multipliers of an objective."""
    return [player.module for player in objective.players]


def assert_equal(one, other):
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def particles_of(sizes=(4, 2)):
    """Particles of one pair on two batches."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    torch.manual_seed(0)
    x = torch.cat([x[: sizes[0]], 1 - x[: sizes[1]]])
    return [ppvae.draw(model, guide, part) for part in x.split(sizes)]

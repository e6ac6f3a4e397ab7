"""A training step never waits for the device.

On torch's meta device tensors have a shape and no values: ``.item()``, a branch on a tensor, a copy to the host and an
index that depends on values all raise there. No state of a random generator is read or set either: a step that does
cannot be captured.
"""

from contextlib import ExitStack
from unittest.mock import patch

import pyro
import pytest
import torch
import torch._dynamo  # torch imports it at the first operation on the meta device, which would count as a read

import ppvae
from ppvae.engine.player import Turn
from ppvae.nn import MLP
from ppvae.training.players import players_of
from tests.catalogue import (
    ALL_PAIRS,
    CLASSES,
    GANS,
    IMPLICIT_PAIRS,
    LATENT,
    OBJECTIVES,
    POINT_OBJECTIVES,
    POINT_PAIRS,
    discriminator,
)

META = torch.device("meta")
WITH_PLAYERS = {
    "factor_vae": lambda: ppvae.factor_vae(5.0, LATENT, critic=MLP(LATENT, [8], 1)),
    "adversarial_autoencoder": lambda: ppvae.adversarial_autoencoder(1.0, LATENT, critic=MLP(LATENT, [8], 1)),
    "vae_gan": lambda: ppvae.ELBO() + ppvae.AdversarialReconstruction(discriminator()),
    "geco": lambda: ppvae.geco(30.0),
    "geco of a beta-VAE": lambda: ppvae.geco(30.0) + ppvae.KLWeight(ppvae.warm_up(10)),
    "wae": ppvae.wae,
    "dip_vae_i": ppvae.dip_vae_i,
    "consistency": lambda: ppvae.ELBO() + ppvae.Consistency(1.0) + ppvae.LabelledWeight(0.5),
    "renyi of order 2": lambda: ppvae.Renyi(2.0, 3),
    "renyi near the elbo": lambda: ppvae.Renyi(0.999, 3),
    "wake-wake": lambda: ppvae.ReweightedWakeSleep(3),
    "annealed": lambda: ppvae.annealed_vae(5.0, 10),
    "tc, weighted estimate": lambda: ppvae.beta_tcvae(100, stratified_sampling=False),
}
OF_CLASSES = {  # these refuse labels
    "factor_vae of a class": lambda: ppvae.factor_vae(
        5.0, LATENT + CLASSES, ("z", "y"), critic=MLP(LATENT + CLASSES, [8], 1)
    ),
}
PAIRS_WITH_PLAYERS = ["gaussian_vae", "label", "conditional"]
STEPS = [
    *(
        (pair, objective)
        for pair in ALL_PAIRS
        for objective in OBJECTIVES
        if OBJECTIVES[objective].fits(ALL_PAIRS[pair])
    ),
    *((pair, objective) for pair in PAIRS_WITH_PLAYERS for objective in WITH_PLAYERS),
    *(("label", objective) for objective in OF_CLASSES),
    *((pair, objective) for pair in POINT_PAIRS for objective in POINT_OBJECTIVES),
]
MAKERS = {**{name: row.make for name, row in OBJECTIVES.items()}, **WITH_PLAYERS, **OF_CLASSES, **POINT_OBJECTIVES}
SCORES = {"sticking_the_landing", "dreg", "reweighted_wake_sleep", "forward_kl"}  # q at values that it did not draw
DRAWS_PRIOR = {"reweighted_wake_sleep", "forward_kl", "info_vae"}
WAITS = {  # steps that read values on the host, and why
    "flow_neural_spline": (
        {objective for pair, objective in STEPS if pair == "flow_neural_spline"},
        "Pyro's rational splines select by a boolean mask, so that a shape depends on values",
    ),
    "flow_inverse_autoregressive": (SCORES, "Pyro's autoregressive inverse runs over a permutation on the device"),
    "flow_prior": (DRAWS_PRIOR, "a draw is Pyro's autoregressive inverse"),
}


def waits(pair, objective):
    return pair in WAITS and objective in WAITS[pair][0]


class ReadsRandomState(Exception):
    """A step read or set the state of a random generator."""


def refuse(*args, **options):
    raise ReadsRandomState


class NoGenerator:
    """Stands for torch.default_generator: whatever is asked of it raises."""

    __getattr__ = refuse


def without_random_state():
    """Functions that read or set a random state raise."""
    stack = ExitStack()
    names = ("get_rng_state", "set_rng_state", "fork_rng", "manual_seed", "seed", "initial_seed")
    for module in (torch, torch.random, torch.cuda):
        for name in names:
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, refuse))
        if hasattr(module, "default_generator"):
            stack.enter_context(patch.object(module, "default_generator", NoGenerator()))
    return stack


def step(pair, objective):
    """The losses and gradients of all players of a step, on rows of each kind of labels."""
    row = (ALL_PAIRS | POINT_PAIRS)[pair]
    model, guide, batch = row.make_batch()
    kinds = row.kinds(batch)
    kinds.pop("partly labelled", None)  # a step has unlabelled and labelled rows apart
    if objective in OF_CLASSES:
        kinds.pop("all labelled")
    players = players_of(model, guide, MAKERS[objective](), ppvae.adam())
    yield from losses_of(players, list(kinds.values()))


def losses_of(players, batches):
    """The loss and the gradients of each player on the meta device."""
    for player in players:
        player.module.to(META)
    batches = [batch.to(META) for batch in batches]
    other = batches if any(player.needs_other for player in players) else []
    turn = Turn(batches, other, step=3)
    with pyro.validation_enabled(False), without_random_state():  # as in fit, which checks the pair before
        for player in players:
            parameters = [p for p in player.module.parameters() if p.requires_grad]
            loss = player.loss(turn)
            loss = loss if isinstance(loss, torch.Tensor) else sum(loss.values())
            torch.autograd.grad(loss, parameters, allow_unused=True)
            yield player.name, loss


@pytest.mark.parametrize(("pair", "objective"), [cell for cell in STEPS if not waits(*cell)])
def test_training_step_reads_no_number_on_the_host_and_no_random_state(pair, objective):
    losses = dict(step(pair, objective))
    assert losses.keys() >= {"pair"}
    assert all(loss.device == META and loss.shape == () for loss in losses.values())


@pytest.mark.parametrize(("pair", "objective"), [cell for cell in STEPS if waits(*cell)])
def test_training_step_of_the_listed_cells_reads_numbers_on_the_host(pair, objective):
    """Where one of these works, its entry in WAITS can go."""
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|data-dependent|nonzero|item"):
        dict(step(pair, objective))


@pytest.mark.parametrize("pair", IMPLICIT_PAIRS)
@pytest.mark.parametrize("gan", GANS)
def test_training_step_of_a_generator_and_its_adversary_reads_no_number_on_the_host(pair, gan):
    model, guide, batch = IMPLICIT_PAIRS[pair].make_batch()
    players = GANS[gan](model, guide, MLP(tuple(batch.x.shape[1:]), [8], 1).double())
    losses = dict(losses_of(players, [batch]))
    assert losses.keys() == {player.name for player in players}
    assert all(loss.device == META and loss.shape == () for loss in losses.values())


def test_players_of_the_objectives_all_take_their_turn():
    names = {name for objective in WITH_PLAYERS for name, _ in step("gaussian_vae", objective)}
    assert names == {"pair", "critic/z", "discriminator/x", "constraint/distortion"}


@pytest.mark.parametrize("read", [torch.get_rng_state, torch.seed, lambda: torch.default_generator.get_state()])
def test_without_random_state_catches_what_it_is_for(read):
    with without_random_state(), pytest.raises(ReadsRandomState):
        getattr(torch, read.__name__, read)()
    read()


def test_meta_device_catches_what_it_is_for():
    x = torch.zeros(3, device=META)
    for waits in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: x.cpu(), lambda: x[x > 0], lambda: x.tolist()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            waits()

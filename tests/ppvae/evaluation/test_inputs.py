"""Arguments of evaluators: every form of data and counts is taken or refused, and nothing of the caller's changes."""

import numpy as np
import pyro
import pytest
import torch

import ppvae
from ppvae.evaluation import inference_data, reconstruct
from ppvae.nn import Autocast
from tests.catalogue import PAIRS
from tests.ppvae.evaluation.evaluators import ESTIMATES, OTHERS, SHORT, numbers


@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_gives_the_same_numbers_for_a_tensor_an_array_and_a_dataset(name):
    model, guide, x = PAIRS["linear_gaussian"].make()
    run = (ESTIMATES | OTHERS)[name]
    expected = numbers(run(model, guide, x))
    assert expected
    for data in (x.numpy(), ppvae.Dataset(x)):
        torch.testing.assert_close(numbers(run(model, guide, data)), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ESTIMATES)
def test_evaluator_of_a_float32_pair_with_autocast_inside_is_close_to_float32(name):
    """Data of 44 nats. Sums in bfloat16 would be off by up to half its spacing at 44, an eighth of a nat."""
    model, guide, x = PAIRS["gaussian_vae"].make()
    model, guide, x = model.float(), guide.float(), x.float()
    exact = numbers(ESTIMATES[name](model, guide, x))
    guide.encoder, model.decoder = Autocast(guide.encoder), Autocast(model.decoder)
    short = numbers(ESTIMATES[name](model, guide, x))
    assert {place: (found.dtype, found.shape) for place, found in short.items()} == {
        place: (found.dtype, found.shape) for place, found in exact.items()
    }
    means, expected = ({place: found.double().mean() for place, found in each.items()} for each in (short, exact))
    torch.testing.assert_close(means, expected, rtol=0, atol=0.125, equal_nan=True)


@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_leaves_random_state_modes_and_parameter_store_alone(name):
    model, guide, x = PAIRS["linear_gaussian"].make()
    state = torch.get_rng_state()
    (ESTIMATES | OTHERS)[name](model, guide, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(pyro.get_param_store().keys())
    assert model.training
    assert guide.training
    assert all(p.requires_grad and p.grad is None for p in (*model.parameters(), *guide.parameters()))


COUNTS = {
    "num_particles": lambda m, g, x, n: ppvae.log_marginal(m, g, x, num_particles=n),
    "chunk": lambda m, g, x, n: ppvae.log_marginal(m, g, x, chunk=n),
    "chunk of gaps": lambda m, g, x, n: ppvae.gaps(m, g, x, chunk=n),
    "chunk of compare": lambda m, g, x, n: ppvae.compare(m, {"only": g}, x, chunk=n),
    "num_particles of calibration": lambda m, g, x, n: ppvae.calibration(m, g, x, num_particles=n),
    "num_particles of gaps": lambda m, g, x, n: ppvae.gaps(m, g, x, num_particles=n),
    "num_particles of latent_statistics": lambda m, g, x, n: ppvae.latent_statistics(m, g, x, num_particles=n),
    "num_particles of upper_bound": lambda m, g, x, n: ppvae.upper_bound(m, g, x, num_particles=n),
    "num_particles of compare": lambda m, g, x, n: ppvae.compare(m, {"only": g}, x, num_particles=n),
    "num_particles of impute": lambda m, g, x, n: ppvae.impute(m, g, x, num_particles=n),
    "num_samples of impute": lambda m, g, x, n: ppvae.impute(m, g, x, num_samples=n),
    "chunk of impute": lambda m, g, x, n: ppvae.impute(m, g, x, chunk=n),
    "draws": lambda m, g, x, n: inference_data(m, g, x, draws=n),
    "candidates": lambda m, g, x, n: inference_data(m, g, x, candidates=n),
    "num_samples": lambda m, g, x, n: reconstruct(m, g, x, num_samples=n),
}


@pytest.mark.parametrize("name", COUNTS)
def test_evaluator_refuses_a_count_below_one_or_not_whole(name):
    option = name.split()[0]
    pair = PAIRS["linear_gaussian"].make()
    with pytest.raises(ValueError, match=f"expected {option} of at least 1, got 0"):
        COUNTS[name](*pair, 0)
    for value in (5.0, "5", None) if name != "num_samples" else (5.0, "5"):
        with pytest.raises(TypeError, match=f"expected {option} to be a whole number, got "):
            COUNTS[name](*pair, value)


@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_refuses_data_of_another_kind_and_shape(name):
    model, guide, x = PAIRS["linear_gaussian"].make()
    run = (ESTIMATES | OTHERS)[name]
    for data in (x.tolist(), "x"):
        with pytest.raises(ppvae.ContractError, match="expected x to be"):
            run(model, guide, data)
    with pytest.raises(ppvae.ContractError, match=r"failed on x of shape|give x of shape \(4,\)"):
        run(model, guide, x[:, :4])


def test_bdmc_refuses_seeds_that_are_not_whole():
    model, _, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(TypeError, match=r"expected seed to be a whole number, got 1\.5"):
        ppvae.bdmc(model, x, seed=1.5)
    one, other = (ppvae.bdmc(model, x, annealing=SHORT, seed=seed) for seed in (2, np.int64(2)))
    torch.testing.assert_close(numbers(other), numbers(one), rtol=0, atol=0, equal_nan=True)

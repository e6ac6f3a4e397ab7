"""The benchmarks, made small: what they compare must be the same estimate, whatever the time it takes."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch

import ppvae
from ppvae.data import Dataset, Splits
from tests.catalogue import PAIRS

BENCHMARKS = Path(__file__).parent.parent.parent / "experiments" / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by name, on random images in place of MNIST."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    generator = torch.Generator().manual_seed(0)
    x = (255 * torch.rand(200, 28, 28, generator=generator)).to(torch.uint8)

    def named(name: str):
        module = import_module(name)
        monkeypatch.setattr(module, "load", lambda _: Splits(Dataset(x), Dataset(x), Dataset(x)), raising=False)
        return module

    return named


def test_log_marginal_and_the_loops_estimate_the_same(benchmark):
    log_marginal = benchmark("log_marginal")
    config = log_marginal.Config(images=4, particles=300, rounds=1, memory=())
    estimates = log_marginal.main(config)["estimates"]
    assert len(estimates) == 4
    for estimate in estimates.values():
        assert abs(log_marginal.apart(estimates["ppvae"], estimate)) < 4


def test_memory_does_not_grow_with_the_data(benchmark):
    few, many = (benchmark("log_marginal").peak_apart("ppvae", images, particles=1000) for images in (2, 102))
    assert 100 < few < 1536  # MiB; the libraries alone are above the first
    assert many - few < 100  # an allocator that cannot use the room of one pass for the next loses 2 MiB an image


def test_apart_sees_a_difference(benchmark):
    error = torch.full((4,), 0.5)
    apart = benchmark("log_marginal").apart((torch.ones(4), error), (torch.zeros(4), error))
    assert apart == pytest.approx(1 / (0.5 * math.sqrt(2 * 4) / 4))


def test_annealing_and_the_plain_sampler_estimate_the_same(benchmark):
    annealing = benchmark("annealing")
    sizes = {"images": 3, "chains": 4, "leapfrog_steps": 2, "timed_temperatures": 5, "rounds": 1}
    found = annealing.main(annealing.Config(**sizes, training_images=200, latent_dim=4, hidden=(8,)))["estimates"]
    (ours, our_error), (theirs, their_error) = found["ppvae"], found["plain torch"]
    # An error estimated from 4 chains is itself uncertain by 40%: six of them for the four that it would be.
    assert ((ours - theirs).abs() < 6 * (our_error.square() + their_error.square()).sqrt()).all()


def test_bounds_of_one_kind_start_from_the_same_loss(benchmark):
    dreg = benchmark("dreg")
    runs = dreg.main(dreg.Config(particles=5, batch_size=10, steps=1, rounds=1))
    losses = {name: results[0][0] for name, results in runs.items()}
    assert losses["DReG"] == pytest.approx(losses["IWAE"], rel=1e-5)
    assert losses["stock RenyiELBO"] == pytest.approx(losses["IWAE"], rel=1e-5)
    assert losses["STL"] == pytest.approx(losses["ELBO"], rel=1e-5)
    assert losses["ELBO"] > losses["IWAE"]


def test_terms_that_cost_little_at_first_start_from_the_same_loss(benchmark):
    disentangling = benchmark("disentangling")
    runs = disentangling.main(disentangling.Config(batch_size=8, steps=1, rounds=1, resolution=16))
    losses = {name: results[0][0] for name, results in runs.items()}
    assert losses["FactorVAE"] == pytest.approx(losses["VAE"], rel=0.01)  # a critic that knows nothing yet
    assert losses["beta-VAE"] > losses["VAE"]
    assert len(runs) == 6


@pytest.mark.parametrize("objective", [ppvae.IWAE(5), ppvae.DReG(5), ppvae.StickingTheLanding(5)])
def test_the_decoder_is_run_once_a_step(objective):
    model, guide, x = PAIRS["gaussian_vae"].make()
    runs = []
    model.decoder.register_forward_hook(lambda *_: runs.append(1))
    objective.differentiable_loss(model, guide, x).backward()
    assert len(runs) == 1

"""The Lagrange multiplier of a constraint on the distortion."""

import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.nn import MLP
from tests.ppvae.training.runs import parts_of


def test_geco_ends_at_its_tolerance():
    """Two linear factors in five numbers: the best distortion is about 2 nats, that of the mean alone above 10."""
    torch.manual_seed(0)
    x = torch.randn(256, 2).double() @ torch.randn(2, 5).double() + 0.3 * torch.randn(256, 5).double()
    distortions = {}
    for tolerance in (5.0, 7.0):
        model = GaussianVAE(MLP(2, [], 5), 2, Gaussian(0.5)).double()
        guide = MeanFieldGaussian(MLP(5, [], 4)).double()
        objective = ppvae.ELBO() + ppvae.ConstrainedReconstruction(tolerance, speed=0.02, decay=0.95)
        options = {"epochs": 300, "batch_size": 64, "optimizer": ppvae.adam(1e-2), "progress": False}
        ppvae.fit(model, guide, objective, x, **options)
        distortions[tolerance] = ppvae.latent_statistics(model, guide, x).distortion
    assert distortions[5.0] == pytest.approx(5.0, abs=0.5)
    assert distortions[7.0] == pytest.approx(7.0, abs=0.5)


def test_a_multiplier_far_from_its_tolerance_stays_bounded_and_comes_back():
    parts = parts_of()
    distortion = torch.cat([-part.log_likelihood[0] for part in parts]).mean().item()

    def stepped(multiplier, steps):
        optimizer = multiplier.optimizer(multiplier.parameters())
        for _ in range(steps):
            optimizer.zero_grad()
            multiplier.loss(parts).backward()
            optimizer.step()
        return multiplier.value().item()

    multiplier = ppvae.geco(distortion / 4).adversaries[0]
    assert stepped(multiplier, 1000) == pytest.approx(100.0)  # for as long as the pair is far
    multiplier.tolerance = distortion / 0.9  # the pair has come to a tenth below it
    assert stepped(multiplier, 4000) < 4


def test_a_multiplier_follows_the_mean_over_all_rows_of_a_step():
    parts = parts_of()
    multiplier = ppvae.geco(30.0).adversaries[0]
    multiplier.loss(parts)
    each = torch.cat([-part.log_likelihood[0] for part in parts])
    assert len(each) == 6
    torch.testing.assert_close(multiplier.average / multiplier.weight, each.mean())

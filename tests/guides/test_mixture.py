"""The mixture's density, draws and gradients, against closed forms."""

import pytest
import torch
from ppvae.guides import MixtureGuide
from ppvae.guides.mixture import DiagonalMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ppvae.nn import MLP


def parameters(dim=2, components=3):
    torch.manual_seed(0)
    logits, locs = torch.randn(components).double(), torch.randn(components, dim).double()
    scales = torch.rand(components, dim).double() + 0.3
    return [p.requires_grad_() for p in (logits, locs, scales)]


def exact_moments(logits, locs, scales):
    """E[z_0 z_1], E[z_0^2], E[sin z_1]."""
    pi = logits.softmax(-1)
    sine = (pi * (-0.5 * scales[:, 1].square()).exp() * locs[:, 1].sin()).sum()
    return torch.stack(
        [
            (pi * locs[:, 0] * locs[:, 1]).sum(),
            (pi * (locs[:, 0].square() + scales[:, 0].square())).sum(),
            sine,
        ]
    )


def test_gradients_of_moments_are_those_of_the_closed_forms():
    given = parameters()
    exact = [torch.autograd.grad(m, given, retain_graph=True) for m in exact_moments(*given)]
    repeats, draws = 40, 5000
    found = [[] for _ in exact]
    for seed in range(repeats):
        torch.manual_seed(seed)
        z = DiagonalMixture(*given).rsample((draws,))
        moments = ((z[:, 0] * z[:, 1]).mean(), z[:, 0].square().mean(), z[:, 1].sin().mean())
        for store, moment in zip(found, moments, strict=True):
            store.append(torch.autograd.grad(moment, given, retain_graph=True, allow_unused=True))
    for samples, expected in zip(found, exact, strict=True):
        for i, value in enumerate(expected):
            sample = torch.stack([s[i] if s[i] is not None else torch.zeros_like(given[i]) for s in samples])
            error = sample.std(0) / repeats**0.5
            assert ((sample.mean(0) - value).abs() < 5 * error + 1e-12).all(), (i, sample.mean(0), value, error)


def test_density_and_mean_are_those_of_torchs_mixture():
    logits, locs, scales = parameters(dim=3)
    ours = DiagonalMixture(logits, locs, scales)
    stock = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(locs, scales), 1))
    z = torch.randn(7, 3).double()
    torch.testing.assert_close(ours.log_prob(z), stock.log_prob(z))
    torch.testing.assert_close(ours.mean, stock.mean)
    draws = ours.sample((200_000,))
    error = (stock.variance / len(draws)).sqrt()
    assert ((draws.mean(0) - stock.mean).abs() < 5 * error).all()


@pytest.mark.parametrize("dim", [1, 50, 200])
def test_gradients_are_finite_in_single_precision(dim):
    torch.manual_seed(0)
    guide = MixtureGuide(MLP(5, [], MixtureGuide.num_features(dim, 4)), dim, 4)
    q = guide.distribution(3 * guide.encoder(torch.randn(6, 5)))
    z = q.rsample((10,))
    assert z.shape == (10, 6, dim)
    (q.log_prob(z).sum() + z.square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in guide.parameters())

"""The density, draws and gradients of a mixture, against closed forms."""

import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ppvae.distributions.mixtures import DiagonalMixture


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


def test_rsample_gradients_of_moments_agree_with_closed_forms():
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


def test_density_and_mean_equal_torch_mixture():
    logits, locs, scales = parameters(dim=3)
    ours = DiagonalMixture(logits, locs, scales)
    stock = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(locs, scales), 1))
    z = torch.randn(7, 3).double()
    torch.testing.assert_close(ours.log_prob(z), stock.log_prob(z))
    torch.testing.assert_close(ours.mean, stock.mean)
    draws = ours.sample((200_000,))
    error = (stock.variance / len(draws)).sqrt()
    assert ((draws.mean(0) - stock.mean).abs() < 5 * error).all()


def test_expand_keeps_the_density():
    logits, locs, scales = parameters()
    z = torch.randn(5, 4, 2).double()
    mixture = DiagonalMixture(logits, locs, scales)
    assert mixture.expand((5, 4)).rsample().shape == (5, 4, 2)
    torch.testing.assert_close(mixture.expand((5, 4)).log_prob(z), mixture.log_prob(z))


def test_draws_carry_a_gradient_only_if_a_parameter_does():
    logits, locs, scales = parameters()
    assert DiagonalMixture(logits, locs, scales).rsample().requires_grad
    assert not DiagonalMixture(logits, locs, scales).sample().requires_grad
    assert not DiagonalMixture(logits.detach(), locs.detach(), scales.detach()).rsample().requires_grad

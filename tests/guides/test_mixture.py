"""The mixture guide: features and gradients."""

import pytest
import torch

from ppvae.guides import MixtureGuide
from ppvae.nn import MLP


@pytest.mark.parametrize("dim", [1, 50, 200])
def test_mixture_guide_gradients_are_finite_in_float32(dim):
    torch.manual_seed(0)
    guide = MixtureGuide(MLP(5, [], MixtureGuide.num_features(dim, 4)), dim, 4)
    q = guide.distribution(3 * guide.encoder(torch.randn(6, 5)))
    z = q.rsample((10,))
    assert z.shape == (10, 6, dim)
    (q.log_prob(z).sum() + z.square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in guide.parameters())


def test_mixture_guide_reads_logits_then_means_then_log_scales():
    features = torch.tensor([0.1, 0.2, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    mixture = MixtureGuide(MLP(5, [], 10), latent_dim=2, components=2).distribution(features)
    assert mixture.locs.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    torch.testing.assert_close(mixture.logits, features[:2])
    torch.testing.assert_close(mixture.scales.log(), torch.tensor([[5.0, 6.0], [7.0, 8.0]]))


def test_mixture_guide_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="latent_dim and components of at least 1, got 0 and 3"):
        MixtureGuide(MLP(5, [], 3), 0, 3)
    with pytest.raises(ValueError, match="expected 15 features for 3 components, got 14"):
        MixtureGuide(MLP(5, [], 14), 2, 3).distribution(torch.zeros(14))

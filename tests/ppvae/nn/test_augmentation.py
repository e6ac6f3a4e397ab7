"""Random warps of images."""

import torch

from ppvae.nn import RandomWarp


def test_random_warp_is_random_in_training_and_the_identity_in_evaluation():
    torch.manual_seed(0)
    warp, x = RandomWarp(), torch.rand(5, 28, 28)
    first = warp(x)
    assert first.shape == x.shape
    assert not torch.equal(first, warp(x))
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(warp.eval()(x), x)


def test_random_warp_of_size_zero_is_the_identity():
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(RandomWarp(0, 0, 0, 0, 0)(x), x, rtol=0, atol=1e-5)


def test_random_warp_shifts_each_image_separately_within_the_bound():
    torch.manual_seed(0)
    x = torch.zeros(200, 28, 28)
    x[:, 14, 14] = 1
    moved = RandomWarp(0, 0, 0, shift=2 / 28, elastic=0)(x)
    rows = torch.arange(28.0)
    centre = (moved.sum(2) @ rows) / moved.sum((1, 2))
    assert (centre - 14).abs().max() < 2.01
    assert centre.std() > 0.5

"""The reversal as a transform."""

import torch

from ppvae.distributions.reversal import Reversal


def test_reversal_is_its_own_inverse_and_keeps_the_volume():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    reversal = Reversal()
    assert torch.equal(reversal(z), z[:, [3, 2, 1, 0]])
    assert torch.equal(reversal.inv(reversal(z).clone()), z)
    assert reversal.log_abs_det_jacobian(z, reversal(z)).tolist() == [0.0, 0.0, 0.0]


def test_reversal_keeps_its_last_draw():
    z, reversal = torch.randn(4), Reversal()
    assert reversal.inv(reversal(z)) is z

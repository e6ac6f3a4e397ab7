"""Networks of data with NaN."""

import pytest
import torch
from torch import nn

from ppvae.nn import MLP, ConvEncoder, FillMissing


@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 6)])
def test_fill_missing_concatenates_zero_filled_data_and_mask_along_the_channels(shape):
    torch.manual_seed(0)
    complete = torch.randn(7, *shape)
    missing = torch.rand(7, *shape) < 0.4
    found = FillMissing(nn.Identity())(complete.masked_fill(missing, torch.nan))
    filled, observed = found.chunk(2, 1)
    assert torch.equal(filled.reshape(complete.shape), complete.masked_fill(missing, 0.0))
    assert torch.equal(observed.reshape(complete.shape), (~missing).float())


def test_fill_missing_tells_a_missing_element_from_a_zero():
    network = FillMissing(MLP(4, [], 3))
    zero, missing = network(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]))
    assert (zero != missing).all()


def test_fill_missing_gives_finite_gradients_that_do_not_reach_missing_elements():
    x = torch.rand(3, 8, 8).masked_fill(torch.rand(3, 8, 8) < 0.5, torch.nan).requires_grad_()
    network = FillMissing(ConvEncoder((2, 8, 8), [4, 4], 3))
    network(x).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    assert (x.grad[x.isnan()] == 0).all()
    assert torch.isfinite(x.grad).all()


def test_fill_missing_refuses_data_of_other_dimensions():
    with pytest.raises(ValueError, match=r"expected x of shape \(B, D\), \(B, H, W\) or \(B, C, H, W\), got \(3,\)"):
        FillMissing(nn.Identity())(torch.zeros(3))

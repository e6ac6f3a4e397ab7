"""A linear decoder with atoms of unit length."""

import pytest
import torch

from ppvae.nn import Dictionary


def test_dictionary_adds_atoms_of_unit_length_whatever_its_weight():
    torch.manual_seed(0)
    decoder = Dictionary(3, (2, 4))
    z = torch.randn(6, 5, 3)
    atoms = decoder.weight.detach() / decoder.weight.detach().norm(dim=0)
    torch.testing.assert_close(decoder(z), (z @ atoms.T).unflatten(-1, (2, 4)))
    before = decoder(z)
    with torch.no_grad():
        decoder.weight *= 7
        decoder.bias += 1
    torch.testing.assert_close(decoder(z), before + 1)


def test_dictionary_refuses_codes_of_another_length():
    with pytest.raises(ValueError, match=r"expected an input of shape \(..., 3\), got \(5, 4\)"):
        Dictionary(3, 8)(torch.zeros(5, 4))

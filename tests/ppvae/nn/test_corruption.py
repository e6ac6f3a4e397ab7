"""Noise on the input of an encoder."""

import pytest
import torch
from torch import nn

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import PointGuide
from ppvae.models import GaussianVAE
from ppvae.nn import MLP, CorruptInput, FillMissing, GaussianNoise, MaskingNoise


def test_corrupt_input_changes_the_encoders_input_in_training_mode_alone():
    seen, x = [], torch.ones(4, 5)
    encoder = CorruptInput(nn.Identity(), lambda x: seen.append(x) or 2 * x)
    assert encoder(x).equal(2 * x)
    assert encoder.eval()(x).equal(x)
    assert len(seen) == 1


def test_masking_noise_hides_each_element_with_its_probability():
    torch.manual_seed(0)
    x = torch.full((1000, 10), 3.0)
    found = MaskingNoise(0.3)(x)
    assert set(found.unique().tolist()) == {0.0, 3.0}
    assert abs((found == 0).double().mean() - 0.3) < 4 * (0.3 * 0.7 / x.numel()) ** 0.5
    assert (x == 3).all()


def test_masking_noise_leaves_missing_elements_missing():
    x = torch.tensor([[torch.nan, 1.0]])
    torch.testing.assert_close(MaskingNoise(1.0)(x), torch.tensor([[torch.nan, 0.0]]), equal_nan=True)


def test_encoder_of_corrupted_or_filled_data_takes_conditions():
    x, condition = torch.tensor([[torch.nan, 1.0]]), torch.tensor([[3.0]])
    found = CorruptInput(FillMissing(Both()), MaskingNoise(1.0))(x, condition)
    assert found.tolist() == [[0.0, 0.0, 0.0, 1.0, 3.0]]


class Both(nn.Module):
    """x and a condition, next to each other."""

    def forward(self, x, condition):
        return torch.cat([x, condition], 1)


def test_gaussian_noise_has_its_scale():
    torch.manual_seed(0)
    added = GaussianNoise(0.5)(torch.full((1000, 10), 3.0)) - 3
    assert abs(added.mean()) < 4 * 0.5 / 100
    assert abs(added.std() - 0.5) < 4 * 0.5 / (2 * added.numel()) ** 0.5


@pytest.mark.parametrize(("make", "message"), [(MaskingNoise, "from 0 to 1"), (GaussianNoise, "at least 0")])
@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_noise_refuses_values_out_of_range(make, message, value):
    with pytest.raises(ValueError, match=message):
        make(value)


def test_pair_with_corrupted_inputs_is_trained_on_clean_data_and_evaluated_on_what_it_is_given():
    """The model observes x itself; a linear pair under masking noise learns to scale what is left up."""
    torch.manual_seed(0)
    x = torch.randn(2000, 1) @ torch.ones(1, 6)
    model = GaussianVAE(MLP(1, [], 6), 1, Gaussian(0.5**0.5))
    guide = PointGuide(CorruptInput(MLP(6, [], 1), MaskingNoise(0.5)))
    ppvae.fit(
        model, guide, ppvae.Reconstruction(), x, epochs=40, batch_size=100, optimizer=ppvae.adam(0.02), progress=False
    )
    # E |sum_d w_d m_d|^2 - 2 w 6 / 2: the best sum of weights through code and decoder is 6 / 3.5 each element.
    found = ppvae.reconstruct(model, guide, torch.ones(1, 6))
    assert found.mean() == pytest.approx(6 / 3.5, abs=0.15)

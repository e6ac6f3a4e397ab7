"""Upper bound and calibration on simulated data, against closed forms."""

import math

import pytest
import torch

import ppvae
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact


def test_calibration_ranks_are_uniform_for_the_exact_posterior_and_not_for_a_narrow_guide():
    model, x = linear_gaussian()
    template = x[:1].expand(2000, -1)
    exact = ppvae.calibration(model, Exact(model), template, num_particles=19)
    assert exact.ranks["z"].shape == (2000, 2)
    assert exact.ranks["z"].min() == 0
    assert exact.ranks["z"].max() == 19
    assert (exact.p_value("z") > 1e-3).all()
    narrow = ppvae.calibration(model, nearly_exact(model, widen=0.7), template, num_particles=19)
    assert (narrow.p_value("z") < 1e-6).all()
    ends = ((narrow.ranks["z"] < 2) | (narrow.ranks["z"] > 17)).double().mean()
    assert ends > 0.25  # 4 of 20 ranks, .2 where uniform


def test_upper_bound_is_above_the_evidence_and_meets_the_lower_bound():
    model, x = linear_gaussian()
    template = x[:1].expand(2000, -1)
    guide = nearly_exact(model, widen=1.5)
    gaps = []
    for k in (2, 8, 64):
        found = ppvae.upper_bound(model, guide, template, num_particles=k)
        above = found.value - model.log_evidence(found.x)
        assert above.mean() > -4 * above.std() / 2000**0.5
        gaps.append(found.gap)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    exact = ppvae.upper_bound(model, Exact(model), template[:5], num_particles=3)
    torch.testing.assert_close(exact.value, model.log_evidence(exact.x).detach())


def test_upper_bound_and_calibration_refuse_discrete_latents():
    model, guide, x = PAIRS["label"].make()
    for estimate in (ppvae.upper_bound, ppvae.calibration):
        with pytest.raises(ppvae.ContractError, match=r"continuous latents.*'y'"):
            estimate(model, guide, x)
    with pytest.raises(ValueError, match="num_particles of at least 2"):
        ppvae.upper_bound(model, guide, x, num_particles=1)


def test_upper_bound_and_calibration_take_labels_of_the_data_to_be_simulated():
    model, guide, x = PAIRS["label"].make()
    y = LABELS.clamp(min=0)
    assert torch.isfinite(ppvae.upper_bound(model, guide, x, y, num_particles=5).value).all()
    assert ppvae.calibration(model, guide, ppvae.Dataset(x, y), num_particles=5).ranks.keys() == {"z"}


@pytest.mark.parametrize("value", [1.0, 1e9, math.nan])
def test_upper_bound_and_calibration_read_no_value_of_the_template(value):
    model, guide, x = PAIRS["gaussian_vae"].make()
    for estimate in (ppvae.upper_bound, ppvae.calibration):
        first, other = (estimate(model, guide, template, num_particles=5) for template in (x, x * 0 + value))
        for name in ("value", "ranks"):
            if hasattr(first, name):
                torch.testing.assert_close(getattr(first, name), getattr(other, name), rtol=0, atol=0)


def test_upper_bound_gives_data_in_the_support_of_the_likelihood():
    model, guide, x = PAIRS["gaussian_vae"].make()
    found = ppvae.upper_bound(model, guide, x - 7, num_particles=3)
    assert set(found.x.unique().tolist()) == {0.0, 1.0}
    assert "over 6 data" in repr(found)


def test_p_value_refuses_a_name_that_is_no_latent_and_bins_out_of_range():
    model, x = linear_gaussian()
    found = ppvae.calibration(model, Exact(model), x, num_particles=9)
    with pytest.raises(ppvae.ContractError, match=r"name of a latent site, got 'w'; this pair has \['z'\]"):
        found.p_value("w")
    with pytest.raises(ValueError, match=r"bins from 2 to num_particles \+ 1 = 10, got 11"):
        found.p_value("z", bins=11)

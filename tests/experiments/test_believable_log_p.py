"""believable_log_p.py and low_rank.py, on few random images."""

import json

import pytest
import torch

from ppvae.data import Dataset, Splits
from tests.experiments.scripts import script

believable_log_p, low_rank = script("believable_log_p"), script("low_rank")


@pytest.fixture(autouse=True)
def images(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = (255 * torch.rand(200, 28, 28, generator=generator)).to(torch.uint8)
    for module in (believable_log_p, low_rank):
        monkeypatch.setattr(module, "load", lambda _: Splits(*3 * [Dataset(x, levels=256)]))


def test_table_of_log_p_is_not_computed_twice(tmp_path, capsys):
    sizes = {"images": 4, "particles": 250, "more_particles": 300, "temperatures": 5, "chains": 2}
    config = believable_log_p.Config(("VAE, 10 latents",), ais_images=3, bdmc_images=2, out=tmp_path, **sizes)
    (found,) = believable_log_p.main(config)
    assert len(found["AIS"]["values"]) == len(found["few images"]["values"]) == 3
    assert all(len(found[part][key]) == 2 for part, key in (("BDMC", "upper"), ("simulated images", "fitted")))
    assert found["weights"]["log_p_fitted"] >= found["weights"]["log_p_guide"] - 1
    assert "fitted less AIS" in capsys.readouterr().out
    assert (tmp_path / "log_p.png").exists()
    found["weights"]["seconds_per_image_guide"] = 1.0
    (tmp_path / "VAE-10-latents.json").write_text(json.dumps(found))
    (again,) = believable_log_p.main(config)
    assert again == found


def test_pairs_without_a_recipe_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected pairs among .*got 'best'"):
        believable_log_p.main(believable_log_p.Config(("best",), out=tmp_path))


def test_proposals_of_low_rank_find_the_same_log_p(tmp_path):
    config = low_rank.Config(("VAE, 10 latents",), ranks=(10,), images=4, particles=500, rounds=1, out=tmp_path)
    found = low_rank.main(config)["VAE, 10 latents"]
    assert list(found) == ["guide", "full", "rank 10"]
    difference = found["rank 10"].value - found["full"].value
    error = (found["rank 10"].standard_error.square() + found["full"].standard_error.square()).sqrt()
    assert (difference.abs() < 4 * error + 0.01).all()

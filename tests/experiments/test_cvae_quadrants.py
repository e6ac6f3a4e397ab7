"""cvae_quadrants.py on the digits, at a size at which only laws can be tested."""

import json
import math

import pytest
import torch

import ppvae
from ppvae.data import Dataset, load
from ppvae.training.run_folder import RunFolderError
from tests.experiments.scripts import script

cvae_quadrants = script("cvae_quadrants")
TINY = {"data": "digits", "latent_dim": 2, "hidden": (16,), "epochs": 2, "network_epochs": 2, "images": 20}


@pytest.mark.parametrize(
    ("quadrants", "expected"), [(1, [[1, 1], [0, 1]]), (2, [[0, 1], [0, 1]]), (3, [[0, 0], [0, 1]])]
)
def test_hidden_quadrants(quadrants, expected):
    mask = cvae_quadrants.hidden((4, 6), quadrants)
    blocks = torch.tensor(expected, dtype=torch.bool)
    assert torch.equal(mask, blocks.repeat_interleave(2, 0).repeat_interleave(3, 1))
    assert cvae_quadrants.sizes(mask) == (6 * (4 - quadrants), 6 * quadrants)


def test_task_splits_the_pixels_and_whole_puts_them_together():
    images = load("digits").test
    mask = cvae_quadrants.hidden((8, 8), 1)
    split = cvae_quadrants.task(images, mask)
    assert split.binarization == "dynamic"
    again = cvae_quadrants.whole(split.grey(slice(None)), split.given["seen"], mask)
    torch.testing.assert_close(again, images.grey(slice(None)))
    batch = split.batch(slice(0, 5))
    assert set(batch.x.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(batch.given["seen"], images.grey(slice(0, 5))[:, ~mask])


def test_entropy_is_the_least_loss_of_grey_targets():
    x = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    expected = (math.log(2) - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2
    assert cvae_quadrants.entropy(Dataset(x)) == pytest.approx(expected)


def test_network_is_scored_exactly():
    config = cvae_quadrants.Config(**TINY)
    test = cvae_quadrants.task(load("digits").test, cvae_quadrants.hidden((8, 8), 2)).take(slice(0, 30))
    torch.manual_seed(0)
    pair = cvae_quadrants.network(config, 32, 32)
    found = cvae_quadrants.scores(config, pair, test)
    logits, grey = pair[0].network(test.given["seen"]), test.grey(slice(None))
    fixed = test.binarized(config.seed).batch().x
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert found["grey_loss"] == pytest.approx(32 * loss(logits, grey).item(), rel=1e-5)
    assert found["nll"] == pytest.approx(32 * loss(logits[:20], fixed[:20]).item(), rel=1e-5)
    assert found.keys() == {"grey_loss", "nll", "nll_sampling_error"}


def test_draws_of_the_figure_are_of_the_prior_given_what_is_seen():
    config = cvae_quadrants.Config(**TINY)
    torch.manual_seed(0)
    model, _ = cvae_quadrants.cvae(config, pixels=16, seen=48)
    seen = torch.rand(1, 48).expand(4000, -1)
    tolerance = 4.5 * 0.5 * (2 / 4000) ** 0.5
    with torch.no_grad():
        for parameter in model.parameters():  # so large that the mean of x depends on the spread of z
            parameter.mul_(8)
        found = cvae_quadrants.mean_samples(model, seen, seed=1)
        at_mean = model.decode(model.latent_prior(seen, seen).mean[:1], seen[:1], event_dim=1).mean[0]
    x = ppvae.sample(model, 4000, seen=seen, seed=2)
    assert ((found.mean(0) - x.mean(0)).abs() < tolerance).all()
    assert ((at_mean - x.mean(0)).abs() > 2 * tolerance).any()


def test_tables_of_tiny_pairs(tmp_path, capsys):
    particles = {"particles": 20}  # too few to fit anything
    config = cvae_quadrants.Config(seen=(3, 1), out=tmp_path, **particles, **TINY)
    found = cvae_quadrants.main(config)
    assert [row["seen"] for row in found] == [1, 3]
    for row in found:
        assert min(row[name]["grey_loss"] for name in ("network", "cvae")) > row["entropy"] > 0
        assert row["cvae"]["failed"] is None
        assert row["cvae"]["nll_is_upper_bound"] is True
        assert row["cvae"]["nll"] == pytest.approx(row["cvae"]["guide_nll_bound"])
        assert (tmp_path / str(row["seen"]) / "samples.png").exists()
    assert json.loads((tmp_path / "table.json").read_text()) == found
    assert "51.0" not in capsys.readouterr().out  # a value of MNIST
    before = {path: path.stat().st_mtime for path in tmp_path.glob("*/*/last.safetensors")}
    assert len(before) == 4
    assert cvae_quadrants.main(config) == found
    assert before == {path: path.stat().st_mtime for path in before}  # a finished training is not repeated
    with pytest.raises(RunFolderError, match="was run with seed=0, not 1"):
        cvae_quadrants.main(cvae_quadrants.Config(seen=(1,), seed=1, out=tmp_path, **particles, **TINY))


@pytest.mark.parametrize("seen", [(), (0,), (1, 4)])
def test_other_numbers_of_quadrants_are_refused(seen, tmp_path):
    with pytest.raises(ValueError, match="expected --seen among 1, 2, 3, got"):
        cvae_quadrants.main(cvae_quadrants.Config(seen=seen, out=tmp_path, **TINY))

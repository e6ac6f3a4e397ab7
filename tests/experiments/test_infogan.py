"""infogan.py on the digits and on a small grid of squares, shortened."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from ppvae.data import Dataset, Factors, Splits
from ppvae.guides import RecognitionGuide
from ppvae.training.study import RunFolderError
from tests.experiments.scripts import script

infogan, networks = script("infogan"), script("infogan_networks")
SMALL = infogan.Config(
    data="digits", seeds=(0, 1), channels=(4, 8), width=8, noise=5, steps=6, batch_size=32, guide_noise=0.1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("infogan")
    with torch.random.fork_rng(devices=[]):
        infogan.main(replace(SMALL, out=out))
    return out / "digits"


def test_main_writes_a_report_and_the_figures_of_each_seed(folder):
    for seed in (0, 1):
        names = {path.name for path in (folder / f"seed{seed}").iterdir()}
        assert names >= {"report.json", "samples.png", "codes.png", "information.png", "last.safetensors"}
        report = json.loads((folder / f"seed{seed}" / "report.json").read_text())
        assert 0.1 < report["agreement"] < 1  # chance is above 1 / 10: the best assignment is taken
        assert sorted(report["assignment"]) == list(range(10))
        assert report["information"].keys() == {"step", "c", "k"}
        assert report["information"]["c"] < 2.303  # log 10


def test_finished_runs_are_not_repeated_and_other_settings_are_refused(folder, capsys):
    infogan.main(replace(SMALL, out=folder.parent))
    printed = capsys.readouterr().out
    assert "run folder" not in printed
    assert "agreement with the class, test images" in printed
    with pytest.raises(RunFolderError, match=r"was run with lambda_class=1\.0, not 2\.0"):
        infogan.main(replace(SMALL, lambda_class=2.0, out=folder.parent))


class Known(torch.nn.Module):
    """Logits of a class that is read from the first pixel."""

    def __init__(self, value_of):
        super().__init__()
        self.register_buffer("value_of", torch.tensor(value_of))

    def forward(self, x):
        return 10.0 * torch.nn.functional.one_hot(self.value_of[x[:, 0].long()], 4)


def test_agreement_takes_the_best_assignment():
    """Classes 1, 3, 0 for labels 0, 1, 2; one image of label 2 is recognised as class 1."""
    y = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    x = torch.tensor([0.0, 0, 0, 1, 1, 2, 2, 0]).unsqueeze(1)
    found = infogan.agreement(RecognitionGuide(Known([1, 3, 0]), 4), Dataset(x, y), 4)
    assert found == {"agreement": 7 / 8, "assignment": [2, 0, -1, 1]}


@pytest.fixture
def squares(monkeypatch):
    """Squares of 3 sizes at 4 x 5 places in place of dSprites."""
    factors = Factors(("size", "row", "column"), (3, 4, 5))
    x = torch.zeros(len(factors), 16, 16, dtype=torch.uint8)
    for image, (size, row, column) in zip(x, factors.values(torch.arange(len(factors))).tolist(), strict=True):
        image[3 * row : 3 * row + size + 2, 2 * column : 2 * column + size + 2] = 255
    data = Dataset(x, factors=factors)
    monkeypatch.setattr(infogan, "load", lambda name, binarization: Splits(data, data))
    monkeypatch.setattr(infogan, "score", partial(infogan.score, num_train=200, num_test=100, num_draws=50))


@pytest.mark.usefixtures("squares")
@pytest.mark.parametrize(("gan", "classes"), [("info-gan", 3), ("info-wgan-gp", 0)])
def test_main_scores_the_codes_of_data_with_factors(gan, classes, tmp_path):
    few = {"steps": 6, "batch_size": 8, "channels": (4, 4), "width": 8, "leave_out": ("dci", "sap", "higgins")}
    config = infogan.Config(data="sprites", seeds=(0,), gan=gan, classes=classes, codes=2, **few, out=tmp_path)
    (report,) = infogan.main(config)
    assert list(report["metrics"]) == (["codes", "codes and classes"] if classes else ["codes"])
    assert all(0 <= scores["factor_vae"] <= 1 for scores in report["metrics"].values())
    written = {path.name for path in (tmp_path / "sprites" / "seed0").glob("*.png")}
    assert written == {"codes.png", "information.png"} | ({"samples.png"} if classes else set())


def test_shared_convolutions_belong_to_guide_and_discriminator():
    sizes = {"classes": 3, "codes": 2, "noise": 4, "channels": (4, 8), "width": 8, "guide_noise": 0.0, "views": False}
    make = partial(networks.Networks, shape=(8, 8), spectral=False, bfloat16=False, **sizes)
    for shared in (True, False):
        _, guide, discriminator = networks.build(make(shared=shared))
        common = {id(p) for p in guide.parameters()} & {id(p) for p in discriminator.parameters()}
        assert bool(common) == shared


def test_random_thickness_lies_between_the_thinnest_and_the_thickest_stroke():
    torch.manual_seed(0)
    x = torch.zeros(200, 7, 7)
    x[:, 2:5, :] = 1.0
    thickness = networks.RandomThickness()
    rows = thickness(x)[:, :, 3]
    assert torch.equal(thickness.eval()(x), x)
    assert (rows[:, 3] == 1).all()  # the middle of a stroke of three pixels
    assert (rows[:, [0, 6]] == 0).all()
    assert rows[:, 1].max() > 0.9  # outside: up to a pixel thicker
    assert rows[:, 2].min() < 0.1  # its edge: up to a pixel thinner


def test_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected --seeds with at least one value, got none"):
        infogan.main(replace(SMALL, seeds=(), out=tmp_path))
    with pytest.raises(ValueError, match="expected --classes or --codes above 0, got neither"):
        infogan.main(replace(SMALL, classes=0, codes=0, out=tmp_path))
    with pytest.raises(ValueError, match="expected --steps of at most 390 or a multiple of it, got 400"):
        infogan.main(replace(SMALL, steps=400, out=tmp_path))

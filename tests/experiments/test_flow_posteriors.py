"""flow_posteriors.py on the digits, shortened: its claims about numbers hold at any length."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ppvae.evaluation import khat_limit
from ppvae.training.run_folder import RunFolderError
from tests.experiments.scripts import script

flow_posteriors = script("flow_posteriors")
SMALL = flow_posteriors.Config(
    data="digits",
    epochs=2,
    hidden=(16,),
    latent_dim=4,
    context_dim=4,
    flows=2,
    sylvester_columns=2,
    batch_size=50,
    test_images=30,
    test_particles=50,
    bound_particles=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("flows")
    flow_posteriors.main(replace(SMALL, guides=("none", "planar", "sylvester"), out=out))
    return out / "digits"


def table(folder: Path) -> dict[str, dict]:
    return {report["guide"]: report for report in json.loads((folder / "table.json").read_text())}


def test_scores_are_means_over_the_test_images(folder):
    rows = table(folder)
    assert list(rows) == ["none", "planar", "sylvester"]
    for name, row in rows.items():
        own = load_file(folder / name / "per_datum.safetensors")
        assert [len(own[key]) for key in flow_posteriors.SCORES] == [540, 30, 30]
        for key in flow_posteriors.SCORES:
            assert row[key] == pytest.approx(own[key].mean().item())
        # A fair coin for each of 64 pixels costs 44.4 nats: the pair has learned something about the digits.
        assert 0 < row["nll"] < 64 * math.log(2)
        # The Monte Carlo error of the bound is smaller than the deviation of the gap between images.
        for bound in (own["negative_elbo"][:30], own["guide_nll_bound"]):
            gap = bound - own["nll"]
            assert gap.mean() > -4 * gap.std() / 30**0.5
        failed = (own["khat"] > khat_limit(50)).double().mean().item()
        assert row["nll_failed"] == pytest.approx(failed)
        assert row["nll_is_upper_bound"] == (failed > 0.05)


def test_differences_are_paired(folder):
    rows = table(folder)
    none, planar = (load_file(folder / name / "per_datum.safetensors") for name in ("none", "planar"))
    delta = planar["nll"] - none["nll"]
    assert rows["planar"]["nll_less_none"] == pytest.approx(delta.mean().item())
    assert rows["planar"]["nll_less_none_standard_error"] == pytest.approx(delta.std().item() / 30**0.5)
    assert rows["planar"]["nll_less_none_standard_error"] < none["nll"].std() / 30**0.5  # the purpose of pairing
    assert rows["none"]["nll_less_none"] == 0


def test_main_writes_figures(folder):
    assert (folder / "bounds.png").exists()
    assert {path.parent.name for path in folder.glob("*/images.png")} == {"none", "planar", "sylvester"}


def test_finished_guide_is_not_repeated_and_interrupted_one_resumes_to_the_same_numbers(folder, capsys):
    before = table(folder)
    (folder / "planar" / "report.json").unlink()
    flow_posteriors.main(replace(SMALL, guides=("none", "planar"), out=folder.parent))
    text = "".join(capsys.readouterr().out.split())
    assert "digits/planar" in text
    assert "digits/none" not in text
    after = table(folder)
    for row in (before["planar"], after["planar"]):
        row.pop("training_seconds")
    assert after == before


def test_runs_with_other_settings_are_refused(folder):
    with pytest.raises(RunFolderError, match="was run with flows=2, not 3"):
        flow_posteriors.main(replace(SMALL, guides=("none",), flows=3, out=folder.parent))


def test_grey_images_are_scored_in_bits_per_dimension(tmp_path, monkeypatch, capsys):
    shades = torch.linspace(0, 255, 560).reshape(1, 28, 20)
    noise = torch.randn(1965, 28, 20, generator=torch.Generator().manual_seed(0))
    images = (shades + 3 * noise).clamp(0, 255).byte().numpy()
    np.savez(tmp_path / "freyfaces.npz", images=images)
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    config = replace(SMALL, data="freyfaces", guides=("none",), epochs=1, test_images=20, out=tmp_path)
    flow_posteriors.main(config)
    row = table(tmp_path / "freyfaces")["none"]
    bits = row["nll"] / (560 * math.log(2))
    # At least the entropy of the noise, log2(3 sqrt(2 pi e)) = 3.63 (less where it is clipped), and at most 8, that of
    # equally likely levels.
    assert 3.5 < bits < 8
    text = capsys.readouterr().out
    assert f"{bits:.3f}" in text
    assert "4.53" in text  # published


def test_table_marks_an_nll_that_is_an_upper_bound(folder, capsys):
    (report,) = (row for name, row in table(folder).items() if name == "none")
    for is_upper_bound, failed in ((True, 0.5), (False, 0.02)):
        flow_posteriors.print_table([report | {"nll_is_upper_bound": is_upper_bound, "nll_failed": failed}])
        text = capsys.readouterr().out
        assert (f"≤ {report['nll']:.2f}" in text) == is_upper_bound
        assert f"{failed:.0%}" in text

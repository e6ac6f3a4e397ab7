"""dSprites and 3D Shapes from small files of the published form, and from other files."""

import hashlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ppvae.data import Factors, grids, load, loading
from ppvae.data.lazy import PackedImages
from ppvae.errors import DataError
from tests.ppvae.data.hazards import irregular

SMALL = Factors(("shape", "scale", "orientation", "posX", "posY"), (3, 2, 1, 2, 3))
SMALL_3D = Factors(grids.SHAPES3D.names, (2, 1, 3, 2, 1, 2))


def md5(file):
    return hashlib.md5(file.read_bytes()).hexdigest()


def install(monkeypatch, kind, file, factors):
    """Make ``load`` take a small file for the published one."""
    monkeypatch.setattr(grids, f"{kind}_FILE", replace(getattr(grids, f"{kind}_FILE"), md5=md5(file)))
    monkeypatch.setattr(grids, "SPRITES" if kind == "DSPRITES" else kind, factors)
    name = kind.lower()
    monkeypatch.setitem(loading._SOURCES, name, replace(loading._SOURCES[name], factors=factors))


def dsprites_file(root, **changes):
    """An archive of dSprites' form with random images; its metadata is pickled, as in the published file."""
    values = SMALL.values(torch.arange(len(SMALL))).numpy()
    arrays = {
        "imgs": np.random.default_rng(0).integers(0, 2, (len(SMALL), 64, 64), np.uint8),
        "latents_classes": np.concatenate([np.zeros((len(SMALL), 1), np.int64), values], 1),
        "metadata": np.array({"title": "dSprites"}, dtype=object),
    }
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    file = root / grids.DSPRITES_FILE.name
    np.savez_compressed(file, **arrays)
    return file, arrays


def test_load_dsprites_packs_the_images(tmp_path, monkeypatch):
    file, arrays = dsprites_file(tmp_path)
    install(monkeypatch, "DSPRITES", file, SMALL)
    monkeypatch.setattr(grids, "BLOCK", 10)  # so that the file takes several
    splits = load("dsprites", root=tmp_path)
    assert isinstance(splits.train.x, PackedImages)
    assert splits.train.factors == SMALL
    assert splits.test.factors is None
    assert splits.train.event_shape == (64, 64)
    assert torch.equal(splits.train.rows(slice(None)), torch.from_numpy(arrays["imgs"]).float())
    assert splits.train.x.bits.numel() == len(SMALL) * 64 * 8


def test_grids_have_the_published_sizes():
    assert len(grids.SPRITES) == 737_280
    assert len(grids.SHAPES3D) == 480_000


def test_load_dsprites_that_are_absent_or_not_the_published_file(tmp_path):
    with pytest.raises(DataError, match=r"dsprites_.*npz is not in .*github.com/deepmind/dsprites-dataset"):
        load("dsprites", root=tmp_path)
    dsprites_file(tmp_path)
    with pytest.raises(DataError, match="is damaged or another file"):
        load("dsprites", root=tmp_path)


VALUES = SMALL.values(torch.arange(len(SMALL))).numpy()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgs": None}, "is damaged .*imgs"),
        ({"latents_classes": None}, "is damaged .*latents_classes"),
        ({"latents_classes": np.array([None])}, r"`latents_classes` in .* as int64 \(36, 6\), got object \(1,\)"),
        ({"imgs": np.zeros((5, 64, 64), np.uint8)}, r"`imgs` in .* as uint8 \(36, 64, 64\), got uint8 \(5, 64, 64\)"),
        ({"imgs": np.zeros((36, 64, 64))}, "got float64"),
        ({"imgs": np.full((36, 64, 64), 255, np.uint8)}, "to hold 0 and 1, got up to 255"),
        ({"imgs": np.zeros((64, 64, 36), np.uint8).T}, "row by row, got column by column"),
        ({"latents_classes": np.zeros((36, 6), np.int64)}, "the last varying fastest"),
        ({"latents_classes": VALUES}, r"got int64 \(36, 5\)"),
    ],
)
def test_read_dsprites_refuses_another_form(changes, message, tmp_path):
    file, _ = dsprites_file(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        grids.read_dsprites(file, SMALL)


def test_read_dsprites_of_a_truncated_archive(tmp_path):
    file, _ = dsprites_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(DataError, match="npz is damaged"):
        grids.read_dsprites(file, SMALL)


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py, which reads 3dshapes.h5, is not installed")


def shapes3d_file(root, h5py, **changes):
    values = SMALL_3D.values(torch.arange(len(SMALL_3D))).numpy()
    arrays = {
        "images": np.random.default_rng(0).integers(0, 256, (len(SMALL_3D), 64, 64, 3), np.uint8),
        "labels": values / 10 - 0.3,  # the published labels are angles and sizes, not ranks
    }
    file = root / "3dshapes.h5"
    with h5py.File(file, "w") as out:
        for name, array in {**arrays, **changes}.items():
            if array is not None:
                out.create_dataset(name, data=array, compression="gzip")
    return file, arrays


def test_load_shapes3d_unpacks_once_with_the_colours_first(tmp_path, monkeypatch, h5py):
    file, arrays = shapes3d_file(tmp_path, h5py)
    install(monkeypatch, "SHAPES3D", file, SMALL_3D)
    monkeypatch.setattr(grids, "BLOCK", 7)
    splits = load("shapes3d", root=tmp_path)
    expected = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2)
    assert splits.train.factors == SMALL_3D
    assert splits.train.event_shape == (3, 64, 64)
    assert torch.equal(splits.train.x[:], expected)
    torch.testing.assert_close(splits.train.rows(torch.tensor([3, 1])), expected[[3, 1]] / 255)
    file.unlink()
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert torch.equal(load("shapes3d", root=tmp_path).train.x[:], expected)


def test_load_shapes3d_that_are_absent_or_not_the_published_file(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"3dshapes.h5 is not in .*storage.googleapis.com/3d-shapes"):
            load("shapes3d", root=root)
    (tmp_path / "3dshapes.h5").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"3dshapes.h5 is damaged or another file"):
        load("shapes3d", root=tmp_path)
    assert not (tmp_path / "3dshapes.npy").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "is damaged .*images"),
        ({"images": np.zeros((24, 3, 64, 64), np.uint8)}, r"`images` in .* as uint8 \(24, 64, 64, 3\), got"),
        ({"images": np.zeros((24, 64, 64, 3))}, "got float64"),
        ({"labels": np.zeros((24, 6))}, "the last varying fastest"),
        ({"labels": np.zeros((24, 5))}, r"`labels` in .* of shape \(24, 6\), got \(24, 5\)"),
        ({"labels": np.zeros(24)}, r"of shape \(24, 6\), got \(24,\)"),
    ],
)
def test_read_shapes3d_refuses_another_form(changes, message, tmp_path, h5py):
    file, _ = shapes3d_file(tmp_path, h5py, **changes)
    with pytest.raises(DataError, match=message):
        list(grids.read_shapes3d(file, SMALL_3D))


def test_read_shapes3d_of_a_truncated_file(tmp_path, h5py):
    file, _ = shapes3d_file(tmp_path, h5py)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"3dshapes.h5 is damaged"):
        list(grids.read_shapes3d(file, SMALL_3D))


def test_read_shapes3d_requires_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install 'ppvae\[shapes3d\]'"):
        list(grids.read_shapes3d(tmp_path / "3dshapes.h5", SMALL_3D))


@pytest.mark.parametrize(("name", "file"), [("dsprites", grids.DSPRITES_FILE.name), ("shapes3d", "3dshapes.h5")])
def test_load_does_not_wait_at_a_pipe(name, file, tmp_path):
    irregular("pipe", tmp_path / file)
    with pytest.raises(DataError, match="regular file"):
        load(name, root=tmp_path)

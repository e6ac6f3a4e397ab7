"""Sprites: known areas, published images, the published formula, and the laws of the grid."""

import math

import numpy as np
import pytest
import torch

import ppvae
from ppvae.data import Dataset, Sprites, load
from ppvae.data.files import data_root
from ppvae.data.sprites import SPRITES
from ppvae.errors import CheckpointError, DataError
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import RunDir
from tests.ppvae.training.runs import assert_equal, weights

AREAS = {
    "square": [100, 144, 196, 256, 324, 400],
    "ellipse": [76, 104, 144, 184, 228, 288],
    "heart": [58, 84, 108, 140, 182, 222],
}


def rows(shape=0, scale=0, orientation=0, x=0, y=0) -> torch.Tensor:
    """The rows of factor values, each an int or a list."""
    values = torch.broadcast_tensors(*map(torch.as_tensor, (shape, scale, orientation, x, y)))
    return SPRITES.index(torch.stack(values, -1))


def by_formula(row: int, resolution: int) -> np.ndarray:
    """One image, at every pixel, with the heart's curve as a function of its angle s."""
    shape, scale, orientation, x, y = SPRITES.values(torch.tensor(row)).tolist()
    centres = (np.arange(resolution) + 0.5) * 64 / resolution
    dx, dy = (centres - (16 + 32 * x / 31))[None, :], (centres - (16 + 32 * y / 31))[:, None]
    angle, size = np.linspace(0, 2 * math.pi, 40)[orientation], np.linspace(0.5, 1, 6)[scale]
    u = (np.cos(angle) * dx - np.sin(angle) * dy) / size
    v = (np.sin(angle) * dx + np.cos(angle) * dy) / size
    if shape == 0:
        return (np.abs(u) < 9.6) & (np.abs(v) < 9.6)
    if shape == 1:
        return (u / 12.768) ** 2 + (v / 7.2125) ** 2 < 1
    s = np.arcsin(np.minimum(np.abs(u) / 9.6, 1) ** (1 / 3))
    one, other = (
        -1.433 - 19.2 / 29 * (13 * np.cos(s) - 5 * np.cos(2 * s) - 2 * np.cos(3 * s) - np.cos(4 * s))
        for s in (s, math.pi - s)
    )
    return (np.abs(u) < 9.6) & (np.minimum(one, other) < v) & (v < np.maximum(one, other))


def test_sprites_have_the_known_areas():
    images = Sprites()[rows(torch.arange(3)[:, None], torch.arange(6))]
    assert images.dtype == torch.uint8
    assert set(images.unique().tolist()) == {0, 255}
    assert (images > 0).sum((-2, -1)).tolist() == list(AREAS.values())


def test_sprites_equal_nine_in_ten_published_images():
    file = data_root() / "dsprites" / "dsprites420.npz"
    if not file.exists():
        pytest.skip("dsprites/dsprites420.npz, 420 published images of dSprites, is not in PPVAE_DATA")
    with np.load(file) as arrays:
        images, latents = torch.from_numpy(arrays["images"]) > 0, torch.from_numpy(arrays["latents"])
    rendered = Sprites()[SPRITES.index(latents)] > 0
    assert ((rendered == images).all(-1).all(-1)).double().mean() >= 0.9
    overlap = (rendered & images).sum((1, 2)) / (rendered | images).sum((1, 2))
    assert overlap.min() > 0.91


@pytest.mark.parametrize("resolution", [64, 32, 128, 50, 3, 1])
def test_sprites_equal_the_published_formula(resolution):
    sprites = Sprites(resolution)
    ends = torch.tensor([0, 31])  # where the tips of the largest square, turned by 46 degrees, reach the furthest
    corners = [0, len(sprites) - 1, *rows(0, 5, 5, ends[:, None], ends).flatten().tolist()]
    some = torch.randint(len(sprites), (150,), generator=torch.Generator().manual_seed(0)).tolist()
    for row in [*corners, *some]:
        expected = torch.from_numpy(by_formula(row, resolution))
        assert torch.equal(sprites[row] > 0, expected), SPRITES.values(torch.tensor(row)).tolist()


def test_sprites_coincide_at_orientations_0_and_39_only():
    images = Sprites()[rows(2, 5, torch.arange(40))].flatten(1)
    same = (images[:, None] == images).all(-1)
    expected = torch.eye(40, dtype=torch.bool)
    expected[0, 39] = expected[39, 0] = True
    assert torch.equal(same, expected)


def test_sprites_of_another_position_are_shifted():
    # 31 steps of posX are 32 pixels: positions 0 and 31 have the same phase, 32 pixels apart.
    sprites = Sprites()
    for shape in range(3):
        left, right = sprites[rows(shape, 3, 11, torch.tensor([0, 31]), 9)]
        assert torch.equal(left.roll(32, 1), right)
        top, bottom = sprites[rows(shape, 3, 11, 9, torch.tensor([0, 31]))]
        assert torch.equal(top.roll(32, 0), bottom)
        assert not torch.equal(left, top)


@pytest.mark.parametrize(("resolution", "factor"), [(32, 1 / 4), (128, 4)])
def test_sprites_areas_scale_with_the_resolution(resolution, factor):
    areas, at_64 = (
        (Sprites(side)[rows(torch.arange(3)[:, None], torch.arange(6), 5)] > 0).sum((-2, -1)).double()
        for side in (resolution, 64)
    )
    # The error of an area is about the number of pixels on its outline, some 4 sqrt(area) of the coarser picture.
    coarser = torch.minimum(areas, at_64 if factor > 1 else areas)
    assert ((areas / (factor * at_64) - 1).abs() < 1 / coarser.sqrt()).all()


def test_sprites_are_the_same_in_any_batch_and_by_any_index():
    sprites = Sprites()
    index = torch.randint(len(sprites), (3, 200), generator=torch.Generator().manual_seed(1))
    images = sprites[index]
    assert images.shape == (3, 200, 64, 64)
    assert torch.equal(images[2, 7], sprites[index[2, 7]])
    assert torch.equal(images[2, 7], sprites[int(index[2, 7])])
    assert torch.equal(sprites[index - len(sprites)], images)
    assert torch.equal(sprites[1000:1600:2], sprites[torch.arange(1000, 1600, 2)])
    mask = torch.zeros(len(sprites), dtype=torch.bool)
    mask[index[0]] = True
    assert torch.equal(sprites[mask], sprites[index[0].unique()])
    assert sprites[5:5].shape == sprites[torch.empty(0, dtype=torch.long)].shape == (0, 64, 64)
    assert torch.equal(sprites[-2:], sprites[[len(sprites) - 2, len(sprites) - 1]])


@pytest.mark.parametrize("index", [737_280, -737_281, [0, 800_000], 1.5, [True, False], (0, 1), None, ...])
def test_sprites_refuse_a_row_out_of_range(index):
    with pytest.raises(IndexError):
        Sprites()[index]


def test_sprites_resolution_is_a_whole_number():
    assert Sprites(np.int64(4)).shape[1:] == (4, 4)
    for wrong in (0, 2.5, "64"):
        with pytest.raises(DataError, match=f"resolution to be a whole number.*, got {wrong!r}"):
            Sprites(wrong)


def test_sprites_have_the_interface_of_a_tensor():
    sprites = Sprites(32)
    assert (len(sprites), sprites.shape, sprites.dim()) == (737_280, (737_280, 32, 32), 3)
    assert (sprites.dtype, sprites.is_floating_point(), sprites.device.type) == (torch.uint8, False, "cpu")
    assert sprites.to("cpu") is sprites


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_sprites_are_the_same_on_both_devices():
    index = torch.randint(len(SPRITES), (20_000,), generator=torch.Generator().manual_seed(2))
    there = Sprites().to("cuda")[index]
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), Sprites()[index])


@pytest.fixture(scope="module")
def splits():
    return load("sprites")


def test_load_sprites_trains_on_the_whole_grid(splits):
    train, test = splits.train, splits.test
    assert (len(train), len(test), splits.validation) == (737_280, 10_000, None)
    assert (train.event_shape, train.binarization, train.name) == ((64, 64), "none", "sprites")
    assert train.factors == SPRITES
    assert test.factors is None
    assert torch.equal(test.x, load("sprites").test.x)
    assert set(train.rows(torch.arange(0, 737_280, 5000)).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(train.rows(slice(0, 9)), train.to("cpu").rows(torch.arange(9)))


def test_take_of_sprites_is_in_memory_and_has_no_factors(splits):
    part = splits.train.take(slice(100, 200))
    assert isinstance(part.x, torch.Tensor)
    assert (len(part), part.factors) == (100, None)
    assert splits.train.unlabelled().factors == SPRITES


def test_load_sprites_refuses_a_part_of_the_grid(splits):
    with pytest.raises(DataError, match=r'validation 0 or None for "sprites".*got 100; .*take\(index\)'):
        load("sprites", validation=100)
    with pytest.raises(DataError, match="data in memory to binarize"):
        load("sprites", binarization="fixed")
    with pytest.raises(DataError, match="a row for each of the 737280 combinations of factors, got 10000 rows"):
        Dataset(splits.test.x, factors=SPRITES)


class Few(Sprites):
    """The first 200 rows of the grid."""

    factors = None

    def __init__(self, resolution=16, device="cpu"):
        super().__init__(resolution, device)
        self.shape = torch.Size((200, resolution, resolution))


class FewOfAnotherKind(Few):
    """The same shapes, black on white."""

    def _read(self, index):
        return 255 - super()._read(index)


def pair():
    torch.manual_seed(0)
    return GaussianVAE(MLP(2, [8], (16, 16)), 2), MeanFieldGaussian(MLP((16, 16), [8], 4))


def train(data: Dataset, **options):
    model, guide = pair()
    result = ppvae.fit(model, guide, ppvae.ELBO(), data, batch_size=100, progress=False, **options)
    return model, guide, result


def test_fit_on_sprites_equals_fit_on_the_same_images_in_memory():
    made, held = Dataset(Few()), Dataset(Few()[:])
    one, other = train(made, epochs=1), train(held, epochs=1)
    assert one[2].metrics[-1]["step"] == 2
    assert_equal(weights(*one[:2]), weights(*other[:2]))


def test_fit_resumes_on_the_same_sprites_only(tmp_path):
    whole = train(Dataset(Few()), epochs=2)
    train(Dataset(Few()), epochs=1, run_dir=tmp_path)
    resumed = train(Dataset(Few()), epochs=2, run_dir=RunDir(tmp_path, resume=True))
    assert_equal(weights(*whole[:2]), weights(*resumed[:2]))
    with pytest.raises(CheckpointError, match="x="):
        train(Dataset(FewOfAnotherKind()), epochs=3, run_dir=RunDir(tmp_path, resume=True))


def test_dataset_takes_the_factors_of_sprites():
    data = Dataset(Sprites(16))
    assert data.factors == data.to("cpu").factors == SPRITES
    assert data.take(slice(0, 9)).factors is None

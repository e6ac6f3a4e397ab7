"""Picture files: what comes out of one, and the files that could do harm."""

import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from ppvae.data import pictures
from ppvae.data.pictures import decode, decoded
from ppvae.errors import DataError
from tests.ppvae.data.hazards import IRREGULAR, irregular, memory_limited


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour, rows):
    """A PNG file written by hand; ``colour`` is 0 for grey, 2 for RGB, 4 for grey and alpha, 6 for RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_decode_gives_the_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png"), pixels.transpose(2, 0, 1))
    assert decode(tmp_path / "a.png", colour=False).shape == (6, 4)


def test_decode_drops_transparency(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png"), pixels[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("colour", [True, False])
def test_decode_crops_before_it_scales(colour, tmp_path):
    face = np.zeros((218, 178), np.uint8)
    face[35:183, 15:163] = 255
    Image.fromarray(face).save(tmp_path / "a.png")
    scaled = decode(tmp_path / "a.png", (64, 32), colour, (15, 35, 163, 183))
    assert scaled.shape == ((3, 64, 32) if colour else (64, 32))
    assert scaled.min() == 255


def test_decode_turns_a_picture_as_its_camera_noted(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0] = 255
    picture = Image.fromarray(pixels)
    noted = picture.getexif()
    noted[0x0112] = 6  # its top is the right side of the scene
    picture.save(tmp_path / "a.png", exif=noted)
    x = decode(tmp_path / "a.png", colour=False)
    assert x.shape == (6, 4)
    assert (x[:, 3] == 255).all()
    assert not x[:, :3].any()


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [(1, b"\x50", [0, 255, 0, 255]), (2, b"\x1b", [0, 85, 170, 255]), (4, b"\x0f\x5a", [0, 255, 85, 170])],
)
def test_decode_scales_shallow_grey_values_to_255(depth, row, expected, tmp_path):
    (tmp_path / "a.png").write_bytes(png(4, 1, depth, 0, [row]))
    assert decode(tmp_path / "a.png", colour=False).tolist() == [expected]


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_decode_refuses_sixteen_bits_a_channel(colour, channels, tmp_path):
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, colour, [bytes(4 * channels)]))
    with pytest.raises(DataError, match=r"at most eight bits a channel in .*a.png, got 16; convert it"):
        decode(tmp_path / "a.png")


def test_decode_starts_no_other_program(tmp_path, monkeypatch):
    for module, name in ((EpsImagePlugin, "Ghostscript"), (subprocess, "Popen"), (subprocess, "run")):
        monkeypatch.setattr(module, name, lambda *args, **options: pytest.fail("a program was started"))
    Image.init()  # the readers of all formats
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(postscript)
        with pytest.raises(DataError, match=f"{name} cannot be read as a PNG or JPEG picture"):
            decode(tmp_path / name)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "WEBP"])
def test_decode_refuses_other_formats_under_its_suffixes(kind, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", format=kind)
    with pytest.raises(DataError, match="cannot be read as a PNG or JPEG picture"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("kind", IRREGULAR)
def test_decode_does_not_wait_at_what_is_no_file(kind, tmp_path):
    with pytest.raises(DataError, match="regular file"):
        decode(irregular(kind, tmp_path / "a.png"))


def test_decode_refuses_a_huge_picture_before_its_pixels_are_read(tmp_path):
    side = 9000
    (tmp_path / "a.png").write_bytes(png(side, side, 8, 0, [bytes(side)] * side))
    assert (tmp_path / "a.png").stat().st_size < 2**20
    with pytest.raises(DataError, match=r"at most 67108864 pixels in .*got 9000x9000"), memory_limited(2**26):
        decode(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png(2**31 - 1, 2**31 - 1, 8, 0, []))
    with pytest.raises(DataError, match=r"b.png cannot be read .*DecompressionBombError"):
        decode(tmp_path / "b.png")


def test_decode_refuses_a_text_that_unpacks_to_much(tmp_path):
    plain, header = png(1, 1, 8, 0, [b"\0"]), 33
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**27), 9))
    (tmp_path / "a.png").write_bytes(plain[:header] + bomb + plain[header:])
    with pytest.raises(DataError, match=r"a.png cannot be read"), memory_limited(2**26):
        decode(tmp_path / "a.png")


def frames():
    return [Image.new("L", (4, 4), shade) for shade in (0, 255)]


def test_decode_refuses_an_animation(tmp_path):
    first, second = frames()
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=r"one picture in .*a.png, got an animation"):
        decode(tmp_path / "a.png")


def test_decode_takes_the_main_picture_of_a_camera_s_jpeg(tmp_path):
    first, second = frames()
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert decode(tmp_path / "a.jpg", colour=False).max() < 5


def test_decode_refuses_other_colours(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"grey values or red, green and blue in .*got mode CMYK"):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("kept", [0, 20, 60])
def test_decode_of_a_truncated_picture(kept, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a.png cannot be read .*; convert or remove it"):
        decode(tmp_path / "a.png")


def test_decode_of_a_file_that_is_absent(tmp_path):
    with pytest.raises(DataError, match=r"a.png is not there"):
        decode(tmp_path / "a.png")


def test_decoded_keeps_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "BLOCK", 2)
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for i, file in enumerate(files):
        Image.new("L", (2, 2), i).save(file)
    assert [image.max() for image in decoded(files, None, colour=False)] == list(range(5))

"""IDX files: plain and compressed, and wrong in every part."""

import gzip
import os
import struct

import numpy as np
import pytest
import torch

from ppvae.data.idx import idx_file, read_idx
from ppvae.errors import DataError
from tests.ppvae.data.hazards import irregular, memory_limited

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def content(array, kind=8):
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("array", [IMAGES, IMAGES[0, 0]])
def test_read_idx_is_the_array(array, suffix, tmp_path):
    written = content(array)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(written) if suffix else written)
    assert torch.equal(read_idx(idx_file(tmp_path / "a"), array.shape), torch.from_numpy(array))


def test_idx_file_prefers_the_plain_file(tmp_path):
    assert idx_file(tmp_path / "a") is None
    (tmp_path / "a.gz").write_bytes(b"")
    assert idx_file(tmp_path / "a") == tmp_path / "a.gz"
    (tmp_path / "a").write_bytes(b"")
    assert idx_file(tmp_path / "a") == tmp_path / "a"


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_idx_file_does_not_wait_at_a_pipe(name, tmp_path):
    irregular("pipe", tmp_path / name)
    with pytest.raises(DataError, match="regular file"):
        idx_file(tmp_path / "a")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            content(IMAGES[:1]),
            r"a header of uint8 \(2, 3, 4\), got 3 dimensions \(1, 3, 4\)\); remove it",
        ),
        (content(IMAGES, kind=9), "a header of uint8"),
        (content(IMAGES[0]), r"a header of uint8"),
        (content(IMAGES)[:-1], "24 bytes after its header, got 23"),
        (content(IMAGES) + b"\0", "24 bytes after its header, got 25"),
        (content(IMAGES)[:6], "a header of uint8"),
        (b"", "a header of uint8"),
        (b"<html>not found</html>", "got b'<html>"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_read_idx_refuses_another_form(written, message, suffix, tmp_path):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(gzip.compress(written) if suffix else written)
    with pytest.raises(DataError, match=f"{file.name} is damaged .*{message}"):
        read_idx(file, IMAGES.shape)


@pytest.mark.parametrize("kept", [5, 30, -4])
def test_read_idx_of_a_truncated_gzip_file(kept, tmp_path):
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(content(IMAGES))[:kept])
    with pytest.raises(DataError, match=r"a.gz is damaged"):
        read_idx(file, IMAGES.shape)


def test_read_idx_compares_the_checksum_of_gzip(tmp_path):
    packed = bytearray(gzip.compress(content(IMAGES), compresslevel=0))
    packed[packed.index(IMAGES.tobytes())] ^= 1
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"is damaged .*CRC"):
        read_idx(tmp_path / "a.gz", IMAGES.shape)


def test_read_idx_unpacks_no_more_than_the_shape_needs(tmp_path):
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(content(IMAGES) + bytes(2**27), compresslevel=1))
    with pytest.raises(DataError, match="24 bytes after its header, got 25"), memory_limited(2**26):
        read_idx(file, IMAGES.shape)


def test_read_idx_of_content_that_does_not_unpack(tmp_path):
    packed = bytearray(gzip.compress(content(IMAGES)))
    packed[12] ^= 0xFF
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"a.gz is damaged"):
        read_idx(tmp_path / "a.gz", IMAGES.shape)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_read_idx_that_cannot_be_opened(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(content(IMAGES))
    file.chmod(0)
    with pytest.raises(DataError, match="PermissionError"):
        read_idx(file, IMAGES.shape)

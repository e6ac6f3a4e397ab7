"""Files of data: checksums, arrays in archives, arrays on disk, paths that are no regular file."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ppvae.data.files import PublishedFile, array_on_disk, damaged, data_root, is_file, open_member, read_member
from ppvae.errors import DataError
from tests.ppvae.data.hazards import IRREGULAR, irregular, memory_limited

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def blocks():
    yield ARRAY[:3]
    yield ARRAY[3:]


def test_data_root_is_the_argument_the_variable_or_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("here") == Path("here")
    monkeypatch.setenv("PPVAE_DATA", "~/data")
    assert data_root() == Path.home() / "data"
    assert data_root("~") == Path.home()
    monkeypatch.delenv("PPVAE_DATA")
    assert data_root() == Path.home() / ".cache" / "ppvae"


def test_damaged_names_the_kind_of_an_exception():
    assert str(damaged(Path("a"), KeyError("b"))) == "a is damaged (KeyError: 'b'); put a complete copy in its place"
    assert str(damaged(Path("a"), "short", "remove it")) == "a is damaged (short); remove it"


@pytest.mark.parametrize("kind", IRREGULAR)
def test_is_file_refuses_what_is_no_regular_file(kind, tmp_path):
    with pytest.raises(DataError, match=r"a.npy to be a regular file, got a folder, a pipe, a device or a broken link"):
        is_file(irregular(kind, tmp_path / "a.npy"))


def test_is_file_follows_links(tmp_path):
    assert not is_file(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert is_file(tmp_path / "a")


def test_published_file_compares_the_checksum(tmp_path):
    published = PublishedFile("a.bin", hashlib.md5(b"whole").hexdigest(), "https://a.host/a.bin")
    with pytest.raises(DataError, match=r"a.bin is not in .*Get it from https://a.host/a.bin .*PPVAE_DATA"):
        published.path(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"who")
    with pytest.raises(DataError, match=r"a.bin is damaged or another file \(md5 .* get it again from https"):
        published.path(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"whole")
    assert published.path(tmp_path) == tmp_path / "a.bin"


def archive(tmp_path, **arrays):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.mark.parametrize("order", ["C", "F"])
def test_read_member_is_the_array(order, tmp_path):
    file = archive(tmp_path, a=np.asarray(ARRAY, order=order), b=np.arange(3))
    assert np.array_equal(read_member(file, "a", ARRAY.shape), ARRAY)
    assert np.array_equal(read_member(file, "b", (3,), np.int64), np.arange(3))


def test_open_member_is_a_stream_of_the_elements(tmp_path):
    with open_member(archive(tmp_path, a=ARRAY), "a", ARRAY.shape) as (stream, by_column):
        assert stream.read() == ARRAY.tobytes()
        assert not by_column


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ARRAY[:3], r"expected `a` in .*a.npz as uint8 \(4, 2, 3\), got uint8 \(3, 2, 3\)"),
        (ARRAY.astype(np.float32), r"got float32 \(4, 2, 3\)"),
        (np.array([None] * 4), r"got object \(4,\)"),
    ],
)
def test_read_member_refuses_another_form(array, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_member(archive(tmp_path, a=array), "a", ARRAY.shape)


def test_read_member_refuses_another_form_before_it_reads_the_content(tmp_path):
    # 128 MB of zeros in 0.1 MB: the limit on memory leaves room for the file, but not for its content.
    file = archive(tmp_path, a=np.zeros((2**27,), np.uint8))
    assert file.stat().st_size < 2**18
    with pytest.raises(DataError, match=r"got uint8 \(134217728,\)"), memory_limited(2**26):
        read_member(file, "a", ARRAY.shape)


def test_read_member_does_not_unpack_more_than_its_header_says(tmp_path):
    file = tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", ARRAY)
    content = (tmp_path / "a.npy").read_bytes() + bytes(2**27)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.npy", content)
    del content
    with pytest.raises(DataError, match="a is longer than its header says"), memory_limited(2**26):
        read_member(file, "a", ARRAY.shape)


def test_read_member_refuses_a_compression_that_numpy_does_not_write(tmp_path):
    np.save(tmp_path / "a.npy", ARRAY)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as out:
        out.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(DataError, match="compressed by method 14, which numpy does not write"):
        read_member(tmp_path / "a.npz", "a", ARRAY.shape)


@pytest.mark.parametrize("kept", [0, 100, -30])
def test_read_member_of_a_truncated_archive(kept, tmp_path):
    file = archive(tmp_path, a=ARRAY)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a.npz is damaged \(BadZipFile: .*put a complete copy in its place"):
        read_member(file, "a", ARRAY.shape)


def test_read_member_of_a_name_that_is_absent(tmp_path):
    with pytest.raises(DataError, match=r"a.npz is damaged \(KeyError: .*b.npy"):
        read_member(archive(tmp_path, a=ARRAY), "b", ARRAY.shape)


def test_read_member_compares_the_archive_s_checksum(tmp_path):
    np.savez(tmp_path / "a.npz", a=ARRAY)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(ARRAY.tobytes()) + 3] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .*CRC"):
        read_member(tmp_path / "a.npz", "a", ARRAY.shape)


def test_array_on_disk_is_written_once_and_never_changed(tmp_path):
    file = tmp_path / "a.npy"
    x = array_on_disk(file, ARRAY.shape, blocks)
    assert torch.equal(x[:], torch.from_numpy(ARRAY))
    x.array.zero_()
    again = array_on_disk(file, ARRAY.shape, lambda: pytest.fail("made twice"))
    assert torch.equal(again[:], torch.from_numpy(ARRAY))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_array_on_disk_that_fails_half_way_leaves_nothing(tmp_path):
    def broken():
        yield ARRAY[:3]
        raise DataError("a picture is damaged")

    with pytest.raises(DataError, match="a picture is damaged"):
        array_on_disk(tmp_path / "a.npy", ARRAY.shape, broken)
    assert not list(tmp_path.iterdir())


def test_array_on_disk_says_what_is_absent_before_it_writes(tmp_path):
    def absent():
        raise DataError("a.zip is not there")

    with pytest.raises(DataError, match=r"a.zip is not there"):
        array_on_disk(tmp_path / "nowhere" / "a.npy", ARRAY.shape, absent)


def test_array_on_disk_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match=r"could not write .*a.npy, 0.0 GB"):
        array_on_disk(tmp_path / "nowhere" / "a.npy", ARRAY.shape, blocks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARRAY[:3], r"to hold uint8 \(4, 2, 3\), got uint8 \(3, 2, 3\); remove it"),
        (ARRAY.astype(np.float32), "got float32"),
        (np.array([None]), "is damaged .*; remove it"),
    ],
)
def test_array_on_disk_refuses_another_form(content, message, tmp_path):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(DataError, match=message):
        array_on_disk(tmp_path / "a.npy", ARRAY.shape, blocks)


def test_array_on_disk_refuses_an_archive_under_its_name(tmp_path):
    archive(tmp_path, a=ARRAY).rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"is damaged .*magic"):
        array_on_disk(tmp_path / "a.npy", ARRAY.shape, blocks)


def test_array_on_disk_of_a_truncated_file(tmp_path):
    file = tmp_path / "a.npy"
    array_on_disk(file, ARRAY.shape, blocks)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"is damaged .*remove it"):
        array_on_disk(file, ARRAY.shape, blocks)


def test_array_on_disk_does_not_wait_at_a_pipe(tmp_path):
    with pytest.raises(DataError, match="regular file"):
        array_on_disk(irregular("pipe", tmp_path / "a.npy"), ARRAY.shape, blocks)

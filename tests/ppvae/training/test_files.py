"""Files that are written whole or not at all."""

import os
import signal
import stat
import time

import pytest

from ppvae.training import files
from ppvae.training.files import RunFolderError, remove_unfinished, write_whole


def test_write_whole_replaces_the_content(tmp_path):
    write_whole(tmp_path / "file", b"one")
    write_whole(tmp_path / "file", b"another")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"another")]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027, 0o000])
def test_write_whole_follows_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_write_whole_keeps_the_old_file_where_it_fails(at, tmp_path, monkeypatch):
    write_whole(tmp_path / "file", b"old")

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    if at == "write":
        monkeypatch.setattr(files.os, "fdopen", fail)
    else:
        monkeypatch.setattr(files.os, at, fail)
    with pytest.raises(RunFolderError, match=r"expected to write .*file \(3 bytes\).*No space left.*old file is kept"):
        write_whole(tmp_path / "file", b"new")
    monkeypatch.undo()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_write_whole_refuses_a_folder_that_is_gone(tmp_path):
    with pytest.raises(RunFolderError, match="No such file or directory"):
        write_whole(tmp_path / "none" / "file", b"new")


def test_write_whole_syncs_the_content_before_it_is_seen(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: order.append("sync") or sync(fd))
    monkeypatch.setattr(files.os, "replace", lambda *paths: order.append("replace") or replace(*paths))
    write_whole(tmp_path / "file", b"new")
    assert order == ["sync", "replace", "sync"]  # the content, then the entry in the folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.011, 0.023])
def test_a_kill_while_a_file_is_written_leaves_the_old_or_the_new_one(delay, tmp_path):
    """A process that rewrites a file without end is killed."""
    write_whole(tmp_path / "file", b"a" * 200_000)
    child = os.fork()
    if child == 0:
        while True:
            for letter in (b"b", b"a"):
                write_whole(tmp_path / "file", letter * 200_000)
    time.sleep(0.05 + delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "file").read_bytes() in (b"a" * 200_000, b"b" * 200_000)
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_remove_unfinished_leaves_other_files(tmp_path):
    for name in (".file.abc.unfinished", "file.unfinished", ".file"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file", "file.unfinished"]

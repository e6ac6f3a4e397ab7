"""What a data file can do to its reader, for tests."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IRREGULAR = ["pipe", "folder", "broken link", "circle of links"]
MEMORY = Path("/proc/self/statm")


def irregular(kind: str, path: Path) -> Path:
    """A path that is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "broken link":
        path.symlink_to(path.with_name("nowhere"))
    else:
        path.symlink_to(path)
    return path


@contextmanager
def memory_limited(more: int) -> Iterator[None]:
    """Within it, the process can take ``more`` bytes beyond what it has; a MemoryError follows."""
    if not MEMORY.exists():
        pytest.skip("needs /proc to read the memory in use")
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(MEMORY.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

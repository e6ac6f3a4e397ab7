"""The package of data: what it imports at once."""

import ast
from pathlib import Path

import pytest

import ppvae.data

MODULES = sorted(Path(ppvae.data.__path__[0]).glob("*.py"))
SLOW = {"torchvision", "sklearn", "PIL", "h5py", "scipy", "pandas"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_data_imports_slow_libraries_where_they_are_used(module):
    for node in ast.parse(module.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & SLOW


def test_all_names_what_is_there():
    assert all(hasattr(ppvae.data, name) for name in ppvae.data.__all__)

"""Public names have runnable examples, which ``pytest --doctest-modules ppvae models guides`` runs."""

import ast
import inspect
from pathlib import Path

import pytest

import ppvae
import ppvae.data
import ppvae.distributions
import ppvae.guides
import ppvae.models
import ppvae.nn
import ppvae.plots

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("ppvae", "models", "guides") for path in (ROOT / folder).rglob("*.py"))
PACKAGES = [ppvae, ppvae.data, ppvae.distributions, ppvae.guides, ppvae.models, ppvae.nn, ppvae.plots]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_classes_and_functions_have_an_example(path):
    defined = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    public = [node for node in defined if not node.name.startswith("_")]
    assert [node.name for node in public if ">>> " not in (ast.get_docstring(node) or "")] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_exported_classes_and_functions_have_an_example(package):
    exported = {name: getattr(package, name) for name in package.__all__}
    units = {name: unit for name, unit in exported.items() if inspect.isclass(unit) or inspect.isfunction(unit)}
    assert [name for name, unit in units.items() if ">>> " not in (unit.__doc__ or "")] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_all_lists_each_name_once(package):
    assert sorted(package.__all__) == sorted(set(package.__all__))

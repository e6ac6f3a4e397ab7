"""The package's structure: which way imports point, no cycles, no shadowed modules, what ``import ppvae`` loads."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"ppvae": ROOT / "ppvae", "ppvae.models": ROOT / "models", "ppvae.guides": ROOT / "guides"}

# A unit may import itself and the units before it.
ORDER = ["errors", "cli", "plots", "nn", "distributions", "engine", "data", "objectives", "evaluation", "training"]
# Models and guides are examples: nothing in ppvae imports them, and they do not import each other.
EXAMPLES = {name: ["errors", "nn", "distributions", "engine", "data", "objectives"] for name in ("models", "guides")}

OUTSIDE = ("models", "guides", "experiments", "tests")
WITHOUT_TEST_FILE = "__init__.py"  # imports names alone; this file tests them
LOADED_WHERE_USED = [
    "PIL",
    "arviz",
    "arviz_stats",
    "matplotlib",
    "pandas",
    "rich",
    "scipy",
    "sklearn",
    "torchvision",
    "tyro",
]


def _modules() -> dict[str, Path]:
    """Every module of the package by its name; a package is its ``__init__``."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = _modules()
PACKAGES = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


def imports(name: str) -> set[str]:
    """Modules that a module imports anywhere: in functions, under TYPE_CHECKING, and by ``import_module("...")``."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        match node:
            case ast.Import(names=aliases):
                found |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=source, names=aliases):
                names = {f"{source}.{alias.name}" for alias in aliases}
                found |= {each if each in MODULES else source for each in names}
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(source)), *_],
            ):
                found.add(source)
    return found


IMPORTS = {name: imports(name) for name in MODULES}


def unit(name: str) -> str:
    """The part of the package that a module belongs to: "engine" for ppvae.engine.pair, "" for ppvae itself."""
    return name.removeprefix("ppvae").lstrip(".").split(".")[0]


def edges(of: str, allowed: list[str]) -> list[str]:
    """Imports from one unit to units that it may not import."""
    return [
        f"{name} -> {imported}"
        for name in sorted(MODULES)
        if unit(name) == of
        for imported in sorted(IMPORTS[name] & MODULES.keys())
        if unit(imported) not in (of, *allowed)
    ]


@pytest.mark.parametrize("of", [*ORDER, *EXAMPLES])
def test_imports_point_down(of):
    allowed = EXAMPLES[of] if of in EXAMPLES else ORDER[: ORDER.index(of)]
    assert edges(of, allowed) == []


def test_every_unit_has_a_place():
    assert {unit(name) for name in MODULES} == {"", *ORDER, *EXAMPLES}


def test_the_top_imports_no_examples():
    assert edges("", ORDER) == []


def test_imports_have_no_cycle():
    graph = {name: IMPORTS[name] & MODULES.keys() for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_imports_are_absolute_and_within_the_library():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{name} imports relatively"
        others = {source for source in IMPORTS[name] if source.split(".")[0] in OUTSIDE}
        assert not others, f"{name} imports {others}"


@pytest.mark.parametrize("of", ["nn", "plots", "cli", "errors"])
def test_units_below_the_engine_do_without_pyro(of):
    for name in MODULES:
        if unit(name) == of:
            assert not {source for source in IMPORTS[name] if source.split(".")[0] == "pyro"}, name


def exported(package: str) -> Iterator[tuple[str, str | None]]:
    """Names that a package's ``__init__`` binds, each with the module that it is, if it is one."""
    for node in ast.parse(MODULES[package].read_text()).body:
        match node:
            case ast.Import(names=aliases):
                yield from ((alias.asname or alias.name, alias.name) for alias in aliases)
            case ast.ImportFrom(module=source, names=aliases):
                yield from ((alias.asname or alias.name, f"{source}.{alias.name}") for alias in aliases)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, None
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, None


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_shadowed_by_a_name_of_its_package(package):
    """``import ppvae.a.b as m`` gives the attribute ``b`` of the package, which must be the module."""
    submodules = {name.rpartition(".")[2]: name for name in MODULES if name.rpartition(".")[0] == package}
    shadowed = [name for name, source in exported(package) if name in submodules and source != submodules[name]]
    assert shadowed == []
    for name, full_name in submodules.items():
        module = import_module(full_name)
        assert isinstance(module, ModuleType)
        assert getattr(import_module(package), name) is module


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Top-level packages in ``sys.modules`` of a new interpreter after ``import ppvae``."""
    code = "import json, sys, ppvae; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("package", LOADED_WHERE_USED)
def test_import_ppvae_does_not_load(loaded, package):
    assert {"torch", "pyro", "ppvae"} <= loaded
    assert package not in loaded


def test_pyproject_lists_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == PACKAGES


def test_every_module_has_a_test_file():
    """The test of ppvae/a/b.py is tests/ppvae/a/test_b.py. Experiments are tested by what they print and write."""
    files = [path.relative_to(ROOT) for path in MODULES.values() if path.name != WITHOUT_TEST_FILE]
    missing = [str(file) for file in files if not (ROOT / "tests" / file.parent / f"test_{file.name}").exists()]
    assert missing == []

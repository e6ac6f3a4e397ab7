"""Arrows point one way: the engine knows no concrete model or guide, and those two never each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for folder in ("ppvae", "models", "guides") for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violates(imported: set[str], *packages: str) -> set[str]:
    return {name for name in imported for package in packages if name == package or name.startswith(f"{package}.")}


FORBIDDEN = {
    "ppvae": ["ppvae.models", "ppvae.guides", "models", "guides", "experiments", "tests"],
    "models": ["ppvae.guides", "guides", "experiments", "tests"],
    "guides": ["ppvae.models", "models", "experiments", "tests"],
    "ppvae/nn": ["pyro", "ppvae.engine.particles", "ppvae.objectives", "ppvae.engine.contract", "ppvae.training"],
    "ppvae/objectives": ["ppvae.evaluation", "ppvae.training", "ppvae.data"],
    "ppvae/evaluation": ["ppvae.training", "ppvae.objectives"],
}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_point_one_way(folder):
    for path in MODULES:
        if path.is_relative_to(ROOT / folder):
            assert not violates(imports(path), *FORBIDDEN[folder]), path.relative_to(ROOT)


def test_particles_know_no_objective_nor_loop():
    forbidden = ["ppvae.objectives", "ppvae.evaluation", "ppvae.training", "ppvae.data"]
    assert not violates(imports(ROOT / "ppvae" / "particles.py"), *forbidden)

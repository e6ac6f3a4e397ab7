"""Every public name has a runnable example in its docstring; ``pytest --doctest-modules ppvae models guides`` runs them."""

import inspect

import ppvae.guides
import ppvae.models
import pytest

import ppvae
import ppvae.data
import ppvae.distributions
import ppvae.nn
import ppvae.plots

PACKAGES = [ppvae, ppvae.data, ppvae.distributions, ppvae.guides, ppvae.models, ppvae.nn, ppvae.plots]
PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in PACKAGES
    for name in package.__all__
    if inspect.isclass(getattr(package, name)) or inspect.isfunction(getattr(package, name))
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_docstring_has_an_example(name):
    assert ">>> " in (vars(PUBLIC[name])["__doc__"] if inspect.isclass(PUBLIC[name]) else PUBLIC[name].__doc__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_all_lists_each_public_name_once(package):
    assert len(package.__all__) == len(set(package.__all__))
    assert all(hasattr(package, name) for name in package.__all__)

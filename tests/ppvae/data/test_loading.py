"""Data sets by name: parts, defaults, classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ppvae.data import NAMES, load, loading
from ppvae.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_load_splits_without_overlap(digits):
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1000, 257, 540]
    again = load("digits")
    assert all(torch.equal(a.x, b.x) for a, b in zip(parts, (again.train, again.validation, again.test), strict=True))
    from sklearn.datasets import load_digits

    sums = torch.cat([part.y for part in parts]).bincount()
    assert sums.tolist() == np.bincount(load_digits().target).tolist()


def test_load_binarizes_by_the_default_of_the_set(digits):
    assert digits.train.binarization == "dynamic"
    assert load("digits", binarization="none").train.binarization == "none"


def test_load_fixed_draws_once():
    first, again = load("digits", binarization="fixed").train, load("digits", binarization="fixed").train
    assert torch.equal(first.rows(slice(None)), again.rows(slice(None)))
    assert set(first.rows(slice(None)).unique().tolist()) == {0.0, 1.0}


def test_load_without_binarization_gives_grey_values():
    assert len(load("digits", binarization="none").train.rows(slice(None)).unique()) == 17


def test_load_holds_nothing_out_for_validation_0(digits):
    everything = load("digits", validation=0)
    assert everything.validation is None
    assert len(everything.train) == len(digits.train) + len(digits.validation)
    assert torch.equal(everything.test.x, digits.test.x)


def test_load_states_the_classes_of_each_set(digits):
    for part in (digits.train, digits.validation, digits.test):
        assert part.num_classes == 10 == int(part.y.max()) + 1


def test_load_takes_the_classes_from_the_source(monkeypatch):
    x, y = torch.zeros(30, 2, dtype=torch.uint8), torch.arange(30) % 3
    source = loading._Source(lambda root: ((x, y), (x, y)), num_classes=3)
    monkeypatch.setitem(loading._SOURCES, "three", source)
    splits = load("three", validation=6)
    assert [part.num_classes for part in (splits.train, splits.validation, splits.test)] == [3, 3, 3]
    monkeypatch.setitem(loading._SOURCES, "three", replace(source, num_classes=2))
    with pytest.raises(DataError, match="labels from 0 to 1"):
        load("three")


def test_load_scales_black_images_by_255(monkeypatch):
    x = torch.ones(30, 2, dtype=torch.uint8)
    monkeypatch.setitem(loading._SOURCES, "dark", loading._Source(lambda root: ((x, None), (x, None))))
    for binarization in ("none", "dynamic"):
        assert load("dark", binarization).train.levels == 256
    torch.testing.assert_close(load("dark").test.rows(slice(None)), torch.full((30, 2), 1 / 255))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonesuch",), "out of mnist, fashion_mnist, digits, .*; got 'nonesuch'"),
        ((["digits"],), r"got \['digits'\]"),
        ((None,), "got None"),
        (("digits", "maybe"), "binarization to be one of .*got 'maybe'"),
        (("digits", ""), "binarization to be one of .*got ''"),
        (("digits", None, 5000), "hold out at most 1256 rows, got 5000"),
        (("digits", None, 10.0), "whole number, got 10.0"),
        (("sprites", None, 100), r'validation 0 or None for "sprites".*got 100; .*take\(index\)'),
    ],
)
def test_load_refuses_other_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        load(*arguments)


def test_names_are_those_that_load_takes():
    assert {"mnist", "digits", "sprites", "shapes3d"} <= set(NAMES)

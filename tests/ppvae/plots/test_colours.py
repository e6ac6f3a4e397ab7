"""Colours of classes and series."""

import numpy as np
import pytest

from ppvae.plots.colours import distinct_colours


@pytest.mark.parametrize("number", [1, 10, 11, 12, 20, 21, 100, 200])
def test_distinct_colours_are_distinct(number):
    colours = distinct_colours(number)
    assert colours.shape == (number, 4)
    assert len(np.unique((255 * colours).round(), axis=0)) == number  # on a screen too


def test_distinct_colours_of_nothing_are_none():
    assert len(distinct_colours(0)) == 0

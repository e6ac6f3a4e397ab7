"""Colours that tell any number of classes or series apart."""

import numpy as np
from matplotlib import colormaps


def distinct_colours(number: int) -> np.ndarray:
    """RGBA colours, no two of them equal, shape (number, 4).

    They are the first of Matplotlib's ``tab10`` and ``tab20``, and equally spaced colours of ``turbo`` above 20.

    Example:

        >>> from ppvae.plots.colours import distinct_colours
        >>> distinct_colours(12).shape
        (12, 4)
    """
    for name, size in (("tab10", 10), ("tab20", 20)):
        if number <= size:
            return colormaps[name](np.arange(number))
    return colormaps["turbo"](np.linspace(0.03, 0.97, number))

"""Assertions that stock Pyro is wrong."""

import pyro

VECTORISED = {"vectorize_particles": True, "max_plate_nesting": 1}


def stock(is_wrong, trap: str) -> None:
    assert is_wrong, f"Pyro {pyro.__version__} has repaired this trap ({trap}): the stock half of the test can go"


def raises(error: type[Exception], run) -> bool:
    try:
        run()
    except error:
        return True
    return False

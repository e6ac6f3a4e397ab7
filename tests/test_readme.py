"""What the README says that can be checked."""

from tests.combinations import MARKS, README, written


def test_the_table_of_combinations_is_the_catalogues():
    text = README.read_text()
    assert all(mark in text for mark in MARKS)
    assert written(text) == text, "run `python -m tests.combinations`"

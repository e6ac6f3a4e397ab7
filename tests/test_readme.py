"""What the README says runs as it is printed."""

import re
from pathlib import Path

import pytest
import torch

from tests.combinations import MARKS, PAGE, written

README = Path(__file__).parent.parent / "README.md"


BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def run(*blocks):
    names = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_readme_has_four_blocks_of_code():
    assert len(BLOCKS) == 4


def test_readme_first_example_and_comparison_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run(*BLOCKS[:2])
    assert names["images"].shape == names["again"].shape == (10, 8, 8)
    assert -28 < names["result"].mean < -22  # nats, of 64 pixels
    assert "larger" in capsys.readouterr().out


def test_readme_data_runs():
    assert run(BLOCKS[2])["data"].given["temperature"].shape == (100, 1)


def test_readme_pair_gets_the_log_likelihood_that_it_names(capsys):
    """The data are 5 standard normals: their entropy is 7.09 nats."""
    run(BLOCKS[3])
    assert re.search(r"log p\(x \| temperature\) -(6\.9|7\.[0-3])", capsys.readouterr().out)


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/results/README.md"])
def test_links_point_to_files(page):
    root = README.parent
    text = (root / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or ((root / page).parent / target).exists(), target


def test_combinations_page_is_that_of_the_catalogue():
    text = PAGE.read_text()
    assert all(mark in text for mark in MARKS)
    assert written(text) == text, "run `python -m tests.combinations`"

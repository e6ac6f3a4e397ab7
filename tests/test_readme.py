"""What the README says runs as it is printed."""

import re
from pathlib import Path

import pytest
import torch

from tests.combinations import MARKS, PAGE, written

README = Path(__file__).parent.parent / "README.md"


def test_readme_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"y": torch.zeros(100, dtype=torch.long), "t": torch.zeros(100, 1)}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["images"].shape == (10, 8, 8)
    assert names["again"].shape == (10, 8, 8)
    assert "log p(x) -2" in capsys.readouterr().out  # nats, of 64 pixels


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

"""The README says what is true: its program prints what stands under it, its links lead somewhere, its commands exist."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def example() -> tuple[str, str]:
    """(the README's first program, what it is said to print)"""
    program = re.search(r"```python\n(.*?)```", README, re.S)[1]
    return program, "".join(f"{line[2:]}\n" for line in program.splitlines() if line.startswith("# "))


def test_the_example_prints_what_it_says(tmp_path):
    program, printed = example()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_it_is_short():
    assert len(README.splitlines()) <= 60
    assert len(example()[0].splitlines()) <= 14
    assert README.index("```python") < README.index("## ")      # the program is the first thing one sees


LINKS = re.findall(r"\]\((?!http)([^)#]+)\)", README)
FOLDERS = re.findall(r"`((?:docs|bench|glassgrad|examples)/[\w./]*)`", README)


@pytest.mark.parametrize("place", LINKS + FOLDERS)
def test_links_lead_somewhere(place):
    assert (ROOT / place).exists()


@pytest.mark.parametrize("target", re.findall(r"make (\w+)", README))
def test_commands_exist(target):
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.M)

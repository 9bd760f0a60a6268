"""The tour in docs/ is what the compiler does now, and every pass of the flow has something to do in it."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glassgrad import flow, tour

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tour.md"
PASSES = [p.name for p in (*flow.TENSOR_FLOW, *flow.KERNEL_FLOW)]


def written(**more: str) -> str:
    """The page by a fresh process: in one that has worked, nodes of an index may bear the lines that made them first."""
    done = subprocess.run([sys.executable, "-m", "glassgrad.tour"], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **more})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def page() -> str: return written()


def test_the_page_is_up_to_date(page):
    if page != PAGE.read_text(): pytest.fail("docs/tour.md is not what `make tour` writes now: run it, and read the difference")


@pytest.mark.parametrize("more", [{"PYTHONHASHSEED": "1", "THREADS": "7"}, {"PYTHONHASHSEED": "2", "DEV": "NULL"}])
def test_it_is_the_same_in_every_process(more, page):
    assert written(**more) == page


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_changes_something(name, page):
    """Here or in the expression that the tour names; a pass that changes nothing anywhere is to be deleted."""
    section = page.partition(f"### {name}\n")[2].partition("\n### ")[0]
    assert "Without it: " in section and "```diff" in section
    assert ("It has nothing to do here" in section) == (name in tour.ELSEWHERE)


def test_names_of_passes_are_unique():
    assert len(set(PASSES)) == len(PASSES)
    assert all(p.why.endswith(tuple("abcdefghijklmnopqrstuvwxyz")) for p in (*flow.TENSOR_FLOW, *flow.KERNEL_FLOW))

"""`python -m glassgrad.show`: the way of an expression through the compiler, as text."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glassgrad import flow, show
from glassgrad.device.device import Device
from glassgrad.uop.text import parse_text, to_text

EXPRESSION = "(Tensor.empty(8, 8) @ Tensor.empty(8, 8)).relu()"
PASSES = [p.name for p in (*flow.TENSOR_FLOW, *flow.KERNEL_FLOW)]


@pytest.fixture
def ask(capsys):
    def run(*words: str) -> str:
        assert show.main(list(words)) == 0
        return capsys.readouterr().out
    return run


def test_without_options(ask):
    """Every pass by name, the kernel's reason, its loops and its source."""
    text = ask(EXPRESSION)
    places = [text.index(f"\n  {name:24} ") for name in PASSES]
    assert places == sorted(places)
    assert "loop nest" in text and "source" in text and "define void" in text
    assert "the tensor graph" in text and "\nkernel " in text


@pytest.mark.parametrize("name", PASSES)
def test_after_a_pass(ask, name):
    text = ask(EXPRESSION, "--after", name)
    assert "%0 = " in text and "sink" in text
    assert "define" not in text and "no change" not in text


def test_after_reads_back(ask):
    """What is printed is the text form: it parses to a graph that prints the same."""
    text = ask(EXPRESSION, "--after", "choose stores")
    graph = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    assert to_text(parse_text(graph)[-1], normal=True).strip() == graph


def test_difference_that_a_pass_makes(ask):
    text = ask(EXPRESSION, "--diff", "tile")
    assert any(line.startswith("    +%") for line in text.splitlines()) and any(line.startswith("    -%") for line in text.splitlines())
    assert "no change" in ask(EXPRESSION, "--diff", "lower dtypes")


def test_rules(ask):
    text = ask("Tensor.empty(8) * 1.0 + Tensor.empty(8)", "--rules")
    line = next(line for line in text.splitlines() if line.startswith(f"  {'simplify':24} "))
    assert "float_mul_one" in line


@pytest.mark.parametrize("name", ["CPU", "PYTHON", "NULL"])
def test_target(ask, name):
    assert Device.reason_absent(name) is None
    assert "kernel " in ask(EXPRESSION, "--target", name)


def test_target_cl(ask):
    if Device.reason_absent("CL"): pytest.skip(Device.reason_absent("CL"))
    assert "__kernel" in ask(EXPRESSION, "--target", "CL")


@pytest.mark.parametrize("words,message", [
    ((EXPRESSION, "--after", "tiles"), "UsageError: show: there is no pass 'tiles'"),
    ((EXPRESSION, "--diff", "tiles"), "UsageError: show: there is no pass 'tiles'"),
    ((EXPRESSION, "--target", "TPU"), "DeviceError: no device named 'TPU'"),
    (("3 + 4",), "UsageError: show: '3 + 4'\n  its value is of type int"),
    (("Tensor.empty(2) + Tensor.empty(3)",), "ShapeError: add of (2,) and (3,)"),
    (("Tensor.empty(2",), "UsageError: show: 'Tensor.empty(2'\n  SyntaxError: "),
    (("Tenso.empty(2)",), "UsageError: show: 'Tenso.empty(2)'\n  NameError: name 'Tenso'"),
])
def test_mistakes_are_named(words, message, capsys):
    assert show.main(list(words)) == 1
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert "try:" in told or "the sizes must be equal" in told


def test_it_is_a_command():
    words = [sys.executable, "-m", "glassgrad.show", EXPRESSION, "--after", "tile"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert "%0 = " in done.stdout


def test_nothing_is_run():
    """Values of the expression may be missing: it is compiled only."""
    done = subprocess.run([sys.executable, "-m", "glassgrad.show", "Tensor.empty(1 << 40).sum()"], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr

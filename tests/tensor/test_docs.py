"""The examples in the docstrings of the Tensor layer run."""

import doctest
import importlib
from pathlib import Path

import pytest

import glassgrad.tensor
from glassgrad import Tensor

MODULES = sorted(p.stem for p in Path(glassgrad.tensor.__file__).parent.glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"glassgrad.tensor.{name}")
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module, globs={**vars(module), "Tensor": Tensor}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0

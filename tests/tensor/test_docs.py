"""The examples in the docstrings of the Tensor layer and of nn run."""

import doctest
import importlib
from pathlib import Path

import pytest

import glassgrad
from glassgrad import Tensor

PACKAGE = Path(glassgrad.__file__).parent
MODULES = sorted(f"glassgrad.{p.parent.name}.{p.stem}" for part in ("tensor", "nn")
                 for p in (PACKAGE / part).glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module, globs={**vars(module), "Tensor": Tensor}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0

"""The examples in the docstrings of the Tensor layer run."""

import doctest
import importlib

import pytest

from glassgrad import Tensor

MODULES = [
    "conv",
    "creation",
    "elementwise",
    "host",
    "index",
    "linalg",
    "loss",
    "movement",
    "random",
    "reduce",
    "storage",
    "tensor",
    "variable",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"glassgrad.tensor.{name}")
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module, globs={**vars(module), "Tensor": Tensor}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0

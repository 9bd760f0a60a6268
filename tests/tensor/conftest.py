"""What the tests of this folder share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from glassgrad import Tensor


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test draws the same random numbers."""
    Tensor.manual_seed(1234)

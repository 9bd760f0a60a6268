"""What the VIZ tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import sample

from glassgrad.viz import server


@pytest.fixture
def recorder():
    return sample.record(repeats=4)


@pytest.fixture
def running(recorder):
    """A server of the sample on a free port."""
    s = server.serve(recorder, 0)
    yield s
    s.stop()

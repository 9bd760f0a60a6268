"""The engine's tests start cold and keep nothing on disk unless they ask for it."""
import pytest

from glassgrad.engine.context import Context
from glassgrad.engine.counters import GlobalCounters
from glassgrad.engine.realize import forget_everything


@pytest.fixture(autouse=True)
def no_disk_cache():
    with Context(CACHE="0"): yield


@pytest.fixture
def cold():
    """Nothing is in the memory caches, the counters are zero."""
    forget_everything()
    GlobalCounters.reset()

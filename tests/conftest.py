"""What every test shares: the form of every graph is checked after every pass, names of cases are the same in every process."""
import os
import tempfile

os.environ.setdefault("CHECK", "1")
os.environ.setdefault("CACHE", os.path.join(tempfile.gettempdir(), f"glassgrad-tests-{os.getuid() if hasattr(os, 'getuid') else 0}"))


def pytest_make_parametrize_id(config, val, argname):
    """Functions and classes by where they stand, not by their address."""
    if isinstance(val, type): return val.__name__
    code = getattr(val, "__code__", None)
    if code is None and " at 0x" in str(val): return type(val).__name__
    return f"{getattr(val, '__name__', 'fn').strip('<>')}{code.co_firstlineno}" if code is not None else None

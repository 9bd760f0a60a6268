"""glassgrad: a deep-learning stack you can see through. Public names; each is loaded at its first use."""
from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "Tensor": "glassgrad.tensor.tensor", "Variable": "glassgrad.tensor.variable", "dtypes": "glassgrad.uop.dtype", "Device": "glassgrad.device.device",
    "Context": "glassgrad.engine.context", "getenv": "glassgrad.engine.context", "GlobalCounters": "glassgrad.engine.counters",
    "TinyJit": "glassgrad.engine.jit", "jit": "glassgrad.engine.jit", "UOp": "glassgrad.uop.uop",
}
__all__ = [*_PLACES, "nn"]


def __getattr__(name: str) -> Any:
    if name == "nn": return importlib.import_module("glassgrad.nn")
    if name not in _PLACES: raise AttributeError(f"module 'glassgrad' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]: return sorted([*globals(), *__all__])

"""Lazy: a module that is imported at its first use, so that `from glassgrad import Tensor` and a warm start read little source."""
from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for the module of that name; what it is asked for comes from there.

    >>> Lazy("math").gcd(12, 18)
    6
    """
    def __init__(self, name: str) -> None: self._name = name
    def __getattr__(self, name: str) -> Any: return getattr(importlib.import_module(self._name), name)

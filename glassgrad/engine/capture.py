"""Capture: the trace of a jitted function that is in progress, if there is one. The Tensor layer tells it what is read and written.

The Tensor layer calls `current.touch(storage)` before it reads or rebinds a storage that was not born in this trace, and asks
`forbid_values` before it hands values to Python.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassgrad.uop.errors import JitError

current: Any = None
"""The `jit.Trace` in progress, or None."""


def forbid_values(what: str, sites: Sequence[str | None] = ()) -> None:
    """Refuse to hand a value to Python inside a traced function, where there are no values yet.

    errors:  JitError inside a traced function
    """
    if current is None: return
    made = next((s for s in sites if s), None)
    raise JitError(f"{what} inside the jitted function {current.name}\n"
                   "  its values are not known while it is captured, and a replay would not run this line again"
                   f"{f'{chr(10)}  the tensor was made at {made}' if made else ''}\n"
                   "  try: return the tensor and read it outside, or replace Python's `if` by where()")


class Unread:
    """What `realize` gives inside a traced function: no memory; any use of it is the mistake to report."""
    __slots__ = ("site",)
    def __init__(self, site: str | None) -> None: self.site = site
    def __getattr__(self, name: str) -> Any: return forbid_values("a tensor's value is read", [self.site])

"""Capture: the trace of a jitted function that is in progress, if there is one. The Tensor layer tells it what is read and written.

The Tensor layer names its class in `tensor_type`, calls `current.touch(storage)` before it reads or rebinds a storage that was not
born in this trace, and asks `forbid_values` before it hands values to Python.
"""
from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from glassgrad.uop.errors import JitError


class RandomState:
    """Where the next random numbers come from: `counter` words of the stream named by `seed` have been used."""
    __slots__ = ("counter", "seed")
    def __init__(self, seed: int, counter: int) -> None: self.seed, self.counter = seed, counter


current: Any = None
"""The `trace.Trace` in progress, or None."""
tensor_type: Any = ()
"""The class Tensor; it has `_storage`, `_chain`, `_requires_grad`, `_grad`, `training` and `_fill(storage, chain)`."""
storage_type: Any = None
"""The class of storages: `Storage(value, device, is_leaf, held)`, with `trace`, the trace it was born in."""
random_state: Any = RandomState(0, 0)


def flags() -> tuple:
    """The settings of the Tensor layer that a traced function may depend on."""
    return (tensor_type.training,)


def new_storage(held: Any, device: str | None) -> Any:
    """A storage for a value that was computed (`realize.Held`)."""
    return storage_type(None, device, held.buf.dtype.is_float, held)


def new_result(held: Any, device: str | None, chain: tuple) -> Any:
    """A tensor that views a value that was computed, in a storage of its own. The Tensor layer puts a quicker one here."""
    return new_tensor(new_storage(held, device), chain)


def new_tensor(store: Any, chain: tuple) -> Any:
    """A tensor that views a storage."""
    t = object.__new__(tensor_type)
    t._fill(store, chain)
    return t


def is_tracing() -> bool:
    """Whether this thread is inside a traced function."""
    return current is not None and current.thread == threading.get_ident()


def forbid_values(what: str, sites: Sequence[str | None] = ()) -> None:
    """Refuse to hand a value to Python inside a traced function, where there are no values yet.

    errors:  JitError inside a traced function
    """
    if not is_tracing(): return
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

"""Host memory for drivers written in C: bytes with an address."""
from __future__ import annotations

import ctypes


def pinned(host: memoryview) -> ctypes.Array:
    """The bytes of a memoryview with an address, which holds while this object lives; a read-only one is copied.

    >>> pinned(memoryview(b"abc")).raw
    b'abc'
    """
    raw = host if host.format == "B" and host.ndim == 1 else host.cast("B")
    kind = ctypes.c_char * raw.nbytes
    return kind.from_buffer_copy(raw) if raw.readonly else kind.from_buffer(raw)

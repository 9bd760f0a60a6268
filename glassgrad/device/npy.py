"""NPY: host memory that belongs to someone else (a NumPy array, a bytes object), as a buffer that can be copied from."""
from __future__ import annotations

from typing import Any

from glassgrad.device.buffer import Buffer
from glassgrad.device.device import DeviceBase
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import DeviceError, UsageError


class NpyDevice(DeviceBase):
    """Handles are memoryviews of bytes."""

    is_host, is_hardware = True, False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.target = Target("NPY", frozenset(), frozenset())

    def offset(self, handle: memoryview, nbytes: int) -> memoryview: return handle[nbytes:]
    def _alloc(self, nbytes: int) -> memoryview: return memoryview(bytearray(nbytes))
    def copyin(self, handle: memoryview, src: memoryview) -> None:
        if handle.readonly: raise DeviceError("NPY: this host memory may only be read\n  try: copy it to a device with .to('CPU')")
        handle[:src.nbytes] = src
    def copyout(self, dst: memoryview, handle: memoryview) -> None: dst[:] = handle[:dst.nbytes]
    def as_memoryview(self, handle: memoryview, nbytes: int, owner: Any = None) -> memoryview: return handle[:nbytes]


def wrap(host: Any, dtype: DType) -> Buffer:
    """A buffer over `host` (C-contiguous, anything with the buffer protocol), which it keeps alive and never writes.

    errors:  UsageError if the memory is not contiguous or not a whole number of elements
    """
    view = memoryview(host)
    if not view.c_contiguous: raise UsageError("NPY: the host memory must be C-contiguous\n  try: numpy.ascontiguousarray")
    if view.nbytes % dtype.itemsize: raise UsageError(f"NPY: {view.nbytes} bytes are no whole number of {dtype.name}")
    flat = view.cast("B").toreadonly() if view.nbytes else memoryview(b"")
    return Buffer("NPY", view.nbytes // dtype.itemsize, dtype, handle=flat, owner=host)


DEVICE = NpyDevice

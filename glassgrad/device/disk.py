"""DISK: a file as memory. `DISK:/path` maps the file when a buffer of it is first used; pages are read when they are touched."""
from __future__ import annotations

import mmap
import os
from typing import Any

from glassgrad.device.device import DeviceBase
from glassgrad.target.target import Target
from glassgrad.uop.errors import DeviceError


class DiskDevice(DeviceBase):
    """One file. Handles are memoryviews of its map. A buffer longer than the file makes the file longer (or makes it)."""

    is_host, is_hardware = True, False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.path = os.path.expanduser(name.partition(":")[2])
        self.target = Target("DISK", frozenset(), frozenset())

    @property
    def file_bytes(self) -> int:
        """The file's length.

        errors:  DeviceError if there is no such file
        """
        try: return os.stat(self.path).st_size
        except OSError as e: raise DeviceError(f"{self.name}: {e.strerror}\n  try: a path from the folder you are in, {os.getcwd()}, or a full one") from e

    def shelf(self, nbytes: int) -> _Map: return _Map(self, nbytes)
    def alloc(self, nbytes: int) -> memoryview:
        """Map the first `nbytes` of the file."""
        if nbytes == 0: return memoryview(bytearray())
        try:
            exists = os.path.exists(self.path)
            if not exists or os.stat(self.path).st_size < nbytes:
                with open(self.path, "r+b" if exists else "x+b") as f: f.truncate(nbytes)
            can_write = os.access(self.path, os.W_OK)
            with open(self.path, "r+b" if can_write else "rb") as f:
                return memoryview(mmap.mmap(f.fileno(), nbytes, access=mmap.ACCESS_WRITE if can_write else mmap.ACCESS_READ))
        except OSError as e: raise DeviceError(f"{self.name}: cannot map {nbytes} bytes: {e.strerror or e}") from e

    def free(self, handle: memoryview, nbytes: int) -> None: pass     # the map goes with its last view
    def offset(self, handle: memoryview, nbytes: int) -> memoryview: return handle[nbytes:]
    def copyin(self, handle: memoryview, src: memoryview) -> None:
        if handle.readonly: raise DeviceError(f"{self.name}: the file may only be read")
        handle[:src.nbytes] = src
    def copyout(self, dst: memoryview, handle: memoryview) -> None: dst[:] = handle[:dst.nbytes]
    def as_memoryview(self, handle: memoryview, nbytes: int, owner: Any = None) -> memoryview: return handle[:nbytes]
    def synchronize(self) -> None: pass


class _Map:
    """The first `nbytes` of the file, in the form of a Shelf."""
    def __init__(self, device: DiskDevice, nbytes: int) -> None: self.device, self.nbytes = device, nbytes
    def take(self) -> memoryview: return self.device.alloc(self.nbytes)
    def give(self, handle: memoryview) -> None: self.device.free(handle, self.nbytes)


DEVICE = DiskDevice

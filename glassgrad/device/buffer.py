"""Buffer: a piece of a device's memory with an element type; allocated at first use, given back when Python drops it."""
from __future__ import annotations

from typing import Any

from glassgrad.device.device import Device, DeviceBase
from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import UsageError


class Buffer:
    """`size` elements of `dtype` on `device` (a name). A view of `base` starts `offset` bytes into it and keeps it alive.

    `owner` is whatever must live as long as memory that was made elsewhere (a NumPy array, a memory map); memory of the buffer's own
    came from `shelf`, where it goes back to.
    """
    __slots__ = ("__weakref__", "_handle", "base", "device", "dtype", "offset", "owner", "shelf", "size")

    def __init__(self, device: str, size: int, dtype: DType, *, handle: Any = None, owner: Any = None, base: Buffer | None = None,
                 offset: int = 0) -> None:
        self.base, self.offset, self.owner, self.shelf, self._handle = base, offset, owner, None, handle
        self.device, self.size, self.dtype = Device.canonicalize(device), size, dtype
        if base is not None and not 0 <= offset <= base.nbytes - self.nbytes:
            raise UsageError(f"Buffer: a view of {self.nbytes} bytes at {offset} does not fit in {base!r}")

    def __repr__(self) -> str:
        return f"Buffer({self.device}, {self.size} x {self.dtype.name}{'' if self.is_allocated else ', not allocated'})"

    @property
    def nbytes(self) -> int: return self.size * self.dtype.itemsize
    @property
    def dev(self) -> DeviceBase: return Device[self.device]
    @property
    def is_allocated(self) -> bool: return self._handle is not None or (self.base is not None and self.base.is_allocated)

    @property
    def handle(self) -> Any:
        """What the device calls this memory; allocates it if need be."""
        if self._handle is None:
            if self.base is not None: self._handle = self.dev.offset(self.base.handle, self.offset)
            else:
                shelf = self.dev.shelf(self.nbytes)
                self._handle, self.shelf = shelf.take(), shelf
        return self._handle

    def allocate(self) -> Buffer:
        """Make sure there is memory; the buffer itself, for chaining."""
        _ = self.handle
        return self

    def view(self, size: int, dtype: DType, offset: int = 0) -> Buffer:
        """`size` elements of `dtype`, `offset` bytes from here: the same memory."""
        base = self if self.base is None else self.base
        return Buffer(self.device, size, dtype, base=base, offset=offset + self.offset)

    def copyin(self, src: Any) -> Buffer:
        """Fill from host memory (anything with the buffer protocol, C-contiguous, of the same number of bytes)."""
        self.dev.copyin(self.handle, self._bytes(src, "copyin"))
        return self

    def copyout(self, dst: Any) -> Any:
        """Into host memory of the same number of bytes; gives it back."""
        self.dev.copyout(self._bytes(dst, "copyout"), self.handle)
        return dst

    def as_memoryview(self) -> memoryview:
        """The bytes: the memory itself where the host can see it, else a copy. It keeps the buffer alive."""
        dev = self.dev
        if not dev.is_host: return memoryview(self.copyout(bytearray(self.nbytes)))
        dev.synchronize()
        return dev.as_memoryview(self.handle, self.nbytes, self)

    def copy_from(self, src: Buffer) -> Buffer:
        """Fill from a buffer of the same number of bytes, on whatever device."""
        if src.nbytes != self.nbytes:
            raise UsageError(f"copy of {src!r} to {self!r}: they hold {src.nbytes} and {self.nbytes} bytes; both must be equal")
        if not self.nbytes: return self
        if src.dev.is_host: return self.copyin(src.as_memoryview())
        if self.dev.is_host:
            src.copyout(self.as_memoryview())
            return self
        return self.copyin(src.copyout(bytearray(self.nbytes)))

    def _bytes(self, host: Any, verb: str) -> memoryview:
        view = memoryview(host)
        if not view.c_contiguous: raise UsageError(f"{verb} of {self!r}: the host memory must be C-contiguous")
        view = view.cast("B") if view.nbytes else memoryview(bytearray())
        if view.nbytes != self.nbytes:
            raise UsageError(f"{verb} of {self!r}: the host memory has {view.nbytes} bytes, the buffer {self.nbytes}")
        return view

    def __del__(self) -> None:
        if self.shelf is not None: self.shelf.give(self._handle)


_new = object.__new__


def owned(device: str, size: int, dtype: DType, shelf: Any) -> Buffer:
    """A buffer with memory from a shelf of its device (a canonical name): what `Buffer(device, size, dtype).allocate()` gives, sooner."""
    b = _new(Buffer)
    b.shelf = b.base = b.owner = None
    b.device, b.size, b.dtype, b.offset = device, size, dtype, 0
    b._handle = shelf.take()
    b.shelf = shelf
    return b

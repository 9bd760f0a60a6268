"""Bytes of a file, mapped and checked: what the readers of safetensors, checkpoints, GGUF and idx share.

A reader turns bytes into `RawTensor`s: NumPy views of the mapped file, nothing copied. `to_tensor` makes them tensors.
Every length is checked against the file before it is used, so a truncated or hostile file ends in a FileError.
"""
from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import FileError
from glassgrad.uop.ops import np

if TYPE_CHECKING:
    from numpy import ndarray

MAX_DIMS = 32
Source = Any  # a path, bytes, or a uint8 tensor


class RawTensor(NamedTuple):
    """Elements as they lie in the file. `data` has the shape; types NumPy lacks are there as unsigned integers of their width."""
    data: ndarray
    dtype: DType


def broken(what: str, why: str, hint: str = "download or save the file again") -> FileError:
    """The error of all readers: what was read, what is wrong, what to do."""
    return FileError(f"{what}\n  {why}\n  try: {hint}")


def open_bytes(source: Source, what: str) -> ndarray:
    """All bytes of `source` as a uint8 array; a file is mapped, not read.

    errors:  FileError if the file is empty; OSError if it cannot be opened
    """
    if isinstance(source, Tensor): return source.flatten().bitcast(dtypes.uint8).numpy()
    if isinstance(source, (bytes, bytearray, memoryview)): return np.frombuffer(source, np.uint8)
    with open(source, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0: raise broken(what, "the file is empty")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def source_name(source: Source) -> str:
    """What error messages call `source`."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"{type(source).__name__} in memory"


class Cursor:
    """A place in mapped bytes; whatever it hands out lies inside them."""
    __slots__ = ("data", "pos", "view", "what")

    def __init__(self, data: ndarray, what: str, pos: int = 0) -> None:
        self.data, self.what, self.pos, self.view = data, what, pos, memoryview(data)

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return len(self.data) - self.pos

    def skip(self, nbytes: int) -> int:
        """Move on by `nbytes` and return the place left.

        errors:  FileError if the file ends before
        """
        if nbytes < 0 or nbytes > self.left:
            raise broken(self.what, f"the file ends too early: {nbytes} bytes wanted at byte {self.pos}, {self.left} are there")
        start, self.pos = self.pos, self.pos + nbytes
        return start

    def take(self, nbytes: int) -> memoryview:
        """The next `nbytes` bytes."""
        start = self.skip(nbytes)
        return self.view[start:start + nbytes]

    def unpack(self, form: str) -> Any:
        """The next value of one `struct` format letter, little endian."""
        return struct.unpack_from("<" + form, self.view, self.skip(struct.calcsize("<" + form)))[0]


def raw_dtype(dtype: DType) -> Any:
    """NumPy's type of the elements of `dtype` as they lie in a file."""
    return np.dtype(dtype.np_name or f"uint{dtype.bits}")


def view_elements(data: ndarray, start: int, shape: Sequence[int], dtype: DType, what: str) -> RawTensor:
    """Elements of `shape` that start at byte `start`: a view where they are aligned, a copy where not.

    errors:  FileError if there are too many axes or the elements do not lie inside `data`
    """
    kind = raw_dtype(dtype)
    if len(shape) > MAX_DIMS: raise broken(what, f"{len(shape)} axes, at most {MAX_DIMS} are allowed")
    if any(type(s) is not int or s < 0 for s in shape): raise broken(what, f"shape {list(shape)} is not made of sizes")
    end = start + math.prod(shape) * kind.itemsize
    if start < 0 or end > len(data):
        raise broken(what, f"shape {list(shape)} of {dtype.name} reaches to byte {end}, the file has {len(data)}")
    part = data[start:end]
    if part.ctypes.data % kind.itemsize: part = part.copy()
    if dtype.is_bool: return RawTensor((part != 0).reshape(shape), dtype)
    return RawTensor(part.view(kind).reshape(shape), dtype)


def to_tensor(raw: RawTensor) -> Tensor:
    """The tensor of what a reader found; no bytes move until it is used."""
    x = Tensor(raw.data)
    return x if raw.dtype.np_name else x.bitcast(raw.dtype)


def from_tensor(x: Tensor) -> RawTensor:
    """The elements of a tensor as they are written to a file."""
    stored = x if x.dtype.np_name else x.bitcast(getattr(dtypes, f"uint{x.dtype.bits}"))
    return RawTensor(stored.numpy(), x.dtype)

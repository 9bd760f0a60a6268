"""Host: Python values and NumPy arrays to memory on a device, and back."""
from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from glassgrad.device import npy
from glassgrad.device.buffer import Buffer
from glassgrad.device.device import Device
from glassgrad.engine import realize as engine
from glassgrad.uop import bits
from glassgrad.uop.dtype import DType, dtypes, promote
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError
from glassgrad.uop.ops import Ops, np
from glassgrad.uop.uop import UOp

LAZY_BYTES = 1 << 16   # read-only host memory of this size is copied when it is used, not before


def from_array(array: Any, dtype: DType | None, device: str | None) -> tuple[UOp, str]:
    """(value, device) of a NumPy array: copied now, unless nobody can write to it.

    errors:  DTypeError for an array of objects, strings, complex numbers
    """
    found = getattr(dtypes, array.dtype.name, None) if array.dtype.isnative else None
    if found is None and not array.dtype.isnative: return from_array(array.astype(array.dtype.newbyteorder("=")), dtype, device)
    if not isinstance(found, DType) or found.np_name is None:
        if array.dtype.name in dtypes_by_name():  # types other packages teach NumPy, such as ml_dtypes
            return from_array(array.astype("float32"), dtype or dtypes_by_name()[array.dtype.name], device)
        raise DTypeError(f"Tensor of a NumPy array {array.shape} of {array.dtype}\n  no dtype holds its elements\n"
                         f"  try: array.astype('float32')")
    device = Device.canonicalize(device)
    dtype = dtype or found
    if found is dtype and array.nbytes >= LAZY_BYTES and array.flags.c_contiguous and _is_frozen(array):
        value = engine.buffer_uop(npy.wrap(array.reshape(-1), dtype)).reshape(array.shape)
        return UOp(Ops.COPY, dtype, (value,), device), device
    if dtype is not found: array = bits.to_storage(dtype, _as_values(array, dtype))
    return from_memory(np.ascontiguousarray(array), dtype, array.shape, device), device


def _as_values(array: Any, dtype: DType) -> Any:
    with np.errstate(all="ignore"): return array != 0 if dtype.is_bool else array.astype(dtype.np_name) if dtype.np_name else array


def from_memory(raw: Any, dtype: DType, shape: tuple[int, ...], device: str) -> UOp:
    """A BUFFER filled with a copy of host memory."""
    buf = Buffer(device, math.prod(shape), dtype)
    if buf.size: buf.copyin(raw)
    return engine.buffer_uop(buf).reshape(shape)


def from_list(data: Sequence[Any], dtype: DType | None, device: str | None) -> tuple[UOp, str]:
    """(value, device) of nested lists of Python numbers.

    errors:  ShapeError if they are ragged, DTypeError if they hold anything but numbers
    """
    shape, flat = flatten_lists(data)
    d = dtype or dtypes.from_py(list(flat))
    if d.is_int: array = _ints(flat, d)
    else:
        array = bits.to_storage(d, np.array([float(x) for x in flat], dtype="float64") if d.is_float else np.array([bool(x) for x in flat], dtype="bool"))
    device = Device.canonicalize(device)
    return from_memory(np.ascontiguousarray(array), d, shape, device), device


def _ints(flat: list[Any], d: DType) -> Any:
    return np.array([d.const(x) for x in flat], dtype=d.np_name)


def flatten_lists(data: Sequence[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """(shape, elements) of nested lists."""
    shape: list[int] = []
    level: list[Any] = [data]
    while True:
        kinds = {isinstance(x, (list, tuple)) for x in level}
        if kinds != {True}:
            if True in kinds:
                raise ShapeError(f"Tensor of nested lists of depth {len(shape) + 1}\n"
                                 f"  some entries are lists, some are numbers; all must be alike")
            return tuple(shape), level
        sizes = {len(x) for x in level}
        if len(sizes) > 1:
            raise ShapeError(f"Tensor of nested lists of depth {len(shape) + 1}\n"
                             f"  lists of {' and '.join(map(str, sorted(sizes)))} entries stand side by side; "
                             "all must be equally long")
        shape.append(sizes.pop())
        level = [x for part in level for x in part]
        if not level: return (*shape, ), level


def from_path(path: str | os.PathLike[str], dtype: DType | None) -> tuple[UOp, str]:
    """(value, device) of a file's bytes; nothing is read until it is used."""
    name = f"DISK:{os.path.abspath(os.fspath(path))}"
    dtype = dtype or dtypes.uint8
    nbytes = Device[name].file_bytes  # type: ignore[attr-defined]
    if nbytes % dtype.itemsize:
        raise UsageError(f"Tensor of the file {os.fspath(path)}\n  its {nbytes} bytes are no whole number of {dtype.name}")
    return engine.new_buffer(name, nbytes // dtype.itemsize, dtype), name


def to_array(buf: Buffer, dtype: DType, shape: tuple[int, ...]) -> Any:
    """The elements as a NumPy array of their own memory; types NumPy lacks become float32."""
    raw = np.empty(buf.size, dtype=bits.storage_name(dtype))
    if buf.size: buf.copyout(raw)
    return bits.from_storage(dtype, raw).reshape(shape)


def dtypes_by_name() -> dict[str, DType]:
    """NumPy extension types' names that mean one of ours."""
    return {"bfloat16": dtypes.bfloat16, "float8_e4m3fn": dtypes.fp8e4m3, "float8_e5m2": dtypes.fp8e5m2}


def widest(values: Sequence[Any]) -> DType:
    """The type that holds a list of Python numbers."""
    return promote(*map(dtypes.from_py, values)) if values else dtypes.default_float


def _is_frozen(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if array.flags.writeable: return False
        array = array.base
    return not (isinstance(array, memoryview) and not array.readonly) and not isinstance(array, bytearray)

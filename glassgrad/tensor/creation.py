"""Creation: tensors from nothing but a shape: constants, ranges, grids. Each is a variable of its own."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glassgrad.device.buffer import Buffer
from glassgrad.device.device import Device
from glassgrad.engine import realize as engine
from glassgrad.tensor.arguments import take_number
from glassgrad.tensor.download import fetch
from glassgrad.tensor.storage import fill
from glassgrad.uop.dtype import DType, dtypes, promote, to_dtype
from glassgrad.uop.errors import DeviceError, ShapeError, UsageError
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

Shape = tuple[int, ...]
ADDRESSED = ("CPU", "CUDA")     # devices whose handles are addresses


def to_shape(shape: Any, what: str = "a shape") -> Shape:
    """Sizes given as f(2, 3), f((2, 3)) or f([2, 3]).

    errors:  ShapeError if they are no ints or negative
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)): shape = shape[0]
    try: sizes = tuple([s if s.__class__ is int else s.__index__() for s in shape])
    except (AttributeError, TypeError): raise ShapeError(f"{what} {tuple(shape)!r}\n  sizes must be ints") from None
    if any(s < 0 for s in sizes): raise ShapeError(f"{what} {sizes}\n  sizes must not be negative")
    return sizes


def iota(n: int, dtype: DType = dtypes.int32) -> UOp:
    """0, 1, … as `dtype`."""
    return UOp.iota(n) if dtype is dtypes.int32 else UOp.iota(n).cast(dtype)


class CreationMixin:
    """Tensors from a shape."""
    __slots__ = ()

    @classmethod
    def _constant(cls, shape: Shape, value: Any, dtype: DType, device: str | None, requires_grad: bool | None) -> Tensor:
        return cls._made(fill(UOp.const(dtype, value), shape), device, requires_grad)

    @classmethod
    def full(cls, shape: Any, fill_value: Any, *, device: str | None = None, dtype: Any = None,
             requires_grad: bool | None = None) -> Tensor:
        """`fill_value` everywhere.

        dtypes:  dtype, or what the Python value is

        >>> Tensor.full((2,), 7).tolist()
        [7, 7]
        """
        sizes = to_shape((shape,), "full of shape")
        if hasattr(fill_value, "uop"): fill_value = fill_value.item()
        fill_value = take_number(fill_value, "full", "fill_value")
        return cls._constant(sizes, fill_value, to_dtype(dtype) if dtype is not None else dtypes.from_py(fill_value), device, requires_grad)
    @classmethod
    def zeros(cls, *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Zeros, float32 unless `dtype` says otherwise."""
        return cls._constant(to_shape(shape, "zeros of shape"), 0, to_dtype(dtype or dtypes.default_float), device, requires_grad)
    @classmethod
    def ones(cls, *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Ones, float32 unless `dtype` says otherwise."""
        return cls._constant(to_shape(shape, "ones of shape"), 1, to_dtype(dtype or dtypes.default_float), device, requires_grad)
    @classmethod
    def empty(cls, *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Memory with no promise of what is in it."""
        sizes, d = to_shape(shape, "empty of shape"), to_dtype(dtype or dtypes.default_float)
        name = Device.canonicalize(device)
        t = cls._made(engine.new_buffer(name, math.prod(sizes), d).reshape(sizes), None, requires_grad)
        t._storage.value, t._storage.device = t._storage.value.src[0], name
        return t
    @classmethod
    def invalids(cls, *shape: Any, device: str | None = None, dtype: Any = None) -> Tensor:
        """Memory that must be written before it is read: the same as empty."""
        return cls.empty(*shape, device=device, dtype=dtype)
    @classmethod
    def from_blob(cls, ptr: int, shape: Any, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """The memory at an address as a tensor: not copied, not owned. Whoever owns it must keep it alive and unchanged.

        errors:  DeviceError for a device whose memory has no addresses

        >>> import numpy as np
        >>> x = np.arange(3, dtype=np.float32)
        >>> Tensor.from_blob(x.ctypes.data, (3,)).tolist()
        [0.0, 1.0, 2.0]
        """
        sizes, d, name = to_shape((shape,), "from_blob of shape"), to_dtype(dtype or dtypes.default_float), Device.canonicalize(device)
        if name.partition(":")[0] not in ADDRESSED:
            raise DeviceError(f"from_blob on {name}\n  its memory has no addresses\n  try: device={ADDRESSED[0]!r}, then .to({name!r})")
        buf = Buffer(name, math.prod(sizes), d, handle=ptr, owner=cls)
        return cls._made(engine.buffer_uop(buf).reshape(sizes))
    @classmethod
    def from_url(cls, url: str, gunzip: bool = False, **more: Any) -> Tensor:
        """The bytes of a file of the net, downloaded once and read when they are used; `more` goes to Tensor.

        errors:  FileError if it cannot be had
        """
        return cls(fetch(url, gunzip=gunzip), **more)
    @classmethod
    def const(cls, value: Any, dtype: Any = None) -> Tensor:
        """A scalar constant."""
        return cls.full((), value, dtype=dtype)

    def full_like(self, fill_value: Any, *, dtype: Any = None, device: str | None = None, requires_grad: bool | None = None) -> Tensor:
        """`fill_value` in this shape, dtype and device."""
        return type(self)._constant(self.shape, take_number(fill_value, "full_like", "fill_value"), to_dtype(dtype or self.dtype),
                                    device or self._storage.device, requires_grad)
    def zeros_like(self, **more: Any) -> Tensor: return self.full_like(0, **more)
    def ones_like(self, **more: Any) -> Tensor: return self.full_like(1, **more)
    def const_like(self, value: Any, dtype: Any = None) -> Tensor: return self.full_like(value, dtype=dtype)
    def empty_like(self, *, dtype: Any = None, device: str | None = None, requires_grad: bool | None = None) -> Tensor:
        return type(self).empty(self.shape, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    @classmethod
    def eye(cls, n: int, m: int | None = None, *, device: str | None = None, dtype: Any = None,
            requires_grad: bool | None = None) -> Tensor:
        """Ones on the diagonal of an n x m matrix (m = n unless given)."""
        m = n if m is None else m
        if n < 0 or m < 0: raise ShapeError(f"eye({n}, {m})\n  sizes must not be negative")
        rows = iota(n).reshape((n, 1)).expand((n, m))
        cols = iota(m).reshape((1, m)).expand((n, m))
        return cls._made(rows.eq(cols).cast(to_dtype(dtype or dtypes.default_float)), device, requires_grad)

    @classmethod
    def arange(cls, start: float, stop: float | None = None, step: float = 1, *, device: str | None = None, dtype: Any = None,
               requires_grad: bool | None = None) -> Tensor:
        """start, start+step, … before stop; arange(n) counts from 0.

        >>> Tensor.arange(5, 0, -2).tolist()
        [5, 3, 1]
        """
        if stop is None: start, stop = 0, start
        if step == 0: raise UsageError(f"arange({start}, {stop}, {step})\n  the step must not be zero")
        if not math.isfinite(start + stop + step): raise UsageError(f"arange({start}, {stop}, {step})\n  the bounds must be finite")
        d = to_dtype(dtype) if dtype is not None else promote(*(dtypes.from_py(v) for v in (start, stop, step)))
        if dtype is None and d.is_int and not all(d.min <= v <= d.max for v in (start, stop)): d = dtypes.int64
        n = max(math.ceil((stop - start) / step), 0)
        if not n: return cls._constant((0,), 0, d, device, requires_grad)
        whole = all(isinstance(v, int) for v in (start, step))
        at = dtypes.int64 if whole and d.bits > 32 else d if d.is_int and d.bits >= 32 and whole else dtypes.int32 if whole else _wide_float(d)
        x = iota(n, at)
        if step != 1: x = x * step
        if start != 0: x = x + start
        return cls._made(x.cast(d), device, requires_grad)

    @classmethod
    def linspace(cls, start: float, stop: float, steps: int, *, device: str | None = None, dtype: Any = None,
                 requires_grad: bool | None = None) -> Tensor:
        """`steps` values from start to stop, both included.

        >>> Tensor.linspace(0, 1, 3).tolist()
        [0.0, 0.5, 1.0]
        """
        if steps < 0: raise UsageError(f"linspace({start}, {stop}, {steps})\n  there cannot be {steps} values")
        d = to_dtype(dtype or dtypes.default_float)
        if steps < 2: return cls._constant((steps,), start, d, device, requires_grad)
        wide = _wide_float(d)
        i = iota(steps, wide)
        half = iota(steps) < (steps + 1) // 2     # count from the nearer end: both ends are exact
        step = (stop - start) / (steps - 1)
        x = half.where(i * step + start, (i - (steps - 1)) * step + stop)
        return cls._made(x.cast(d), device, requires_grad)

    def meshgrid(self, *others: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
        """Grids of coordinates from 1-D tensors: "ij" (matrix) or "xy" (Cartesian) order.

        errors:  ShapeError if one is not 1-D, UsageError for another order
        """
        if indexing not in ("ij", "xy"): raise UsageError(f"meshgrid with indexing={indexing!r}\n  try: 'ij' or 'xy'")
        parts = [x if x.ndim else x.reshape(1) for x in (self, *others)]
        if any(x.ndim != 1 for x in parts):
            raise ShapeError(f"meshgrid of {', '.join(str(x.shape) for x in parts)}\n  every tensor must be 1-D")
        order = list(range(len(parts)))
        if indexing == "xy" and len(parts) > 1: order[:2] = [1, 0]
        shape = tuple(parts[k].shape[0] for k in order)
        return tuple(x.reshape(*[-1 if order[i] == k else 1 for i in range(len(parts))]).expand(*shape) for k, x in enumerate(parts))


def _wide_float(d: DType) -> DType: return dtypes.float64 if d is dtypes.float64 else dtypes.float32



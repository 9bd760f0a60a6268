"""Index: x[...] and x[...] = v, gather and scatter, masks.

Ints, slices, None and ... give a view: one SHRINK, FLIP, strided UNFOLD and RESHAPE at most. Lists, arrays and int tensors copy, by one
GATHER over the indexed axes joined to one; bool masks become such indices on the host, because their number decides the shape.
A negative index counts from the end. An index that is known is checked; one that is computed and out of range reads 0 and writes nothing,
or, with CHECK=2, is read back and refused.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from glassgrad.engine import capture
from glassgrad.engine.context import CHECK
from glassgrad.tensor.elementwise import broadcast_shapes
from glassgrad.tensor.reduce import UNITS
from glassgrad.tensor.storage import Step, fill, write_chain
from glassgrad.uop.dtype import dtypes, sum_dtype
from glassgrad.uop.errors import DTypeError, IndexError_, ShapeError, UsageError
from glassgrad.uop.ops import Op, Ops, ScatterArg, UnfoldArg, np
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

REDUCTIONS: dict[str, Op] = {"sum": Ops.ADD, "add": Ops.ADD, "prod": Ops.MUL, "multiply": Ops.MUL, "amax": Ops.MAX, "amin": Ops.MIN}


class Advanced(NamedTuple):
    """An axis of the view and the int node that indexes it."""
    axis: int
    index: UOp


class Places(NamedTuple):
    """Where a mask is true along one of its axes, and how long that axis is."""
    array: Any
    length: int


NOTHING = Places(None, 0)
"""The index False: a new axis without elements."""


class IndexMixin:
    """Methods that read and write by place."""
    __slots__ = ()

    def __getitem__(self, key: Any) -> Tensor:
        """NumPy's indexing: a view for ints, slices, None and ..., else a copy.

        errors:  IndexError_ for an int out of range, too many indices, or a kind that cannot index
        """
        view, advanced, others = self._locate(key)
        return view if not advanced else self._new(_gather(view.uop, advanced), *others)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write in place: every tensor that views this one sees it. Of several values for one place the last counts.

        errors:  as reading; ShapeError if the value does not broadcast, DTypeError if its kind does not fit
        """
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) == 1 and _is_mask(keys[0]) and keys[0].shape == self.shape and _is_scalar(value):
            mask = keys[0] if isinstance(keys[0], type(self)) else type(self)(keys[0])
            self.assign(mask.where(self._like(value), self))
            return
        view, advanced, _ = self._locate(key)
        if not advanced:
            view.assign(value)
            return
        base = view.uop
        flat, index, shape, back = _joined(base, advanced)
        y = self._like(value)
        if y.dtype is not base.dtype and _rank(y.dtype) > _rank(base.dtype):
            raise DTypeError(f"x[...] = a value of {y.dtype.name} for x {self.shape} of {base.dtype.name}\n"
                             f"  {y.dtype.name} values do not fit in {base.dtype.name}\n"
                             f"  try: .cast(dtypes.{base.dtype.name}) on the value")
        if broadcast_shapes(y.shape, shape, what="x[...] = value, shapes of value and place") != shape:
            raise ShapeError(f"x[...] = a value of shape {y.shape}\n  the place has shape {shape}; the value must broadcast to it")
        new = y.uop.cast(base.dtype)
        new = (new.broadcast_to(shape) if new.shape else fill(new, shape)).permute(_to_front(base.ndim, advanced, len(shape) - (base.ndim - len(advanced))))
        new = new.reshape(index.shape)
        if not index.size: return
        view.assign(self._new(back(UOp(Ops.SCATTER, base.dtype, (flat, index, new), ScatterArg(0, None))), y))
    def __delitem__(self, key: Any) -> None:
        raise UsageError("del x[...]\n  a tensor's elements cannot be deleted\n  try: x[mask], which copies")

    def _like(self, value: Any) -> Tensor:
        if isinstance(value, type(self)): return value
        return type(self)(value, dtype=self.dtype if isinstance(value, (bool, int)) or isinstance(value, float) and self.dtype.is_float else None)

    def _locate(self, key: Any) -> tuple[Tensor, list[Advanced], list[Tensor]]:
        """(the view by the basic part, what advanced indices remain on its axes, the tensors among them)"""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys = [k for raw in keys for k in self._spelled_out(raw)]
        used = sum(k is not None and k is not Ellipsis and k is not NOTHING for k in keys)
        dots = [i for i, k in enumerate(keys) if k is Ellipsis]
        if len(dots) > 1:
            raise IndexError_(f"index with {len(dots)} ellipses into {self.shape}\n  only one ... can stand for the axes not named")
        if used > self.ndim:
            raise IndexError_(f"index with {used} entries into {self.shape} {self.dtype.short}\n  the tensor has {self.ndim} axes")
        at = dots[0] if dots else len(keys)
        keys[at:at + 1] = [slice(None)] * (self.ndim - used)
        box: list[tuple[int, int]] = []
        flips: list[int] = []
        strides: list[int] = []
        shape: list[int] = []
        advanced: list[Advanced] = []
        others: list[Tensor] = []
        for k in keys:
            if k is None:
                shape.append(1)
                continue
            if k is NOTHING:
                advanced.append(Advanced(len(shape), UOp.const(dtypes.int32, 0).reshape((1,)).shrink(((0, 0),))))
                shape.append(1)
                continue
            a = len(box)
            n = self.shape[a]
            if isinstance(k, int):
                if not -n <= k < n:
                    raise IndexError_(f"index {k} on axis {a} of {self.shape} {self.dtype.short}\n  it must be from {-n} to {n - 1}")
                box.append((k % n, k % n + 1))
                strides.append(1)
            elif isinstance(k, slice):
                lo, hi, step = _slice(k, n)
                box.append((lo, hi))
                if step < 0: flips.append(a)
                strides.append(abs(step))
                shape.append(-(-(hi - lo) // abs(step)))
            else:
                advanced.append(Advanced(len(shape), self._index_node(k, a, n)))
                if isinstance(k, type(self)): others.append(k)
                box.append((0, n))
                strides.append(1)
                shape.append(n)
        return self._basic(box, flips, strides, tuple(shape)), advanced, others

    def _basic(self, box: list[tuple[int, int]], flips: list[int], strides: list[int], shape: tuple[int, ...]) -> Tensor:
        steps = []
        now = self.shape
        if tuple(box) != tuple((0, n) for n in now): steps.append(Step(Ops.SHRINK, tuple(box)))
        now = tuple(hi - lo for lo, hi in box)
        if flips := [a for a in flips if now[a] > 1]: steps.append(Step(Ops.FLIP, tuple(flips)))
        windows = 0
        for a, k in enumerate(strides):
            n = now[a]
            if k == 1 or n <= 1: continue
            steps.append(Step(Ops.UNFOLD, UnfoldArg(a, 1, k, 1, n)))
            now = (*now[:a], (n - 1) // k + 1, *now[a + 1:])
            windows += 1
        if (*now, *(1,) * windows) != shape: steps.append(Step(Ops.RESHAPE, shape))
        return self._viewed(*steps)

    def _spelled_out(self, k: Any) -> list[Any]:
        """An entry of an index as ints, slices, None, ... and int tensors; a mask becomes one for each of its axes."""
        cls = type(self)
        if k is None or k is Ellipsis or isinstance(k, slice): return [k]
        if isinstance(k, bool): return [None if k else NOTHING]
        if isinstance(k, int): return [k]
        if isinstance(k, range): k = list(k)
        if isinstance(k, (list, tuple)) and not k: return [cls([], dtype=dtypes.int32)]
        if not isinstance(k, cls):
            if isinstance(k, (list, tuple)) and any(isinstance(v, cls) for v in k): k = cls(k)
            elif isinstance(k, (list, tuple)) or hasattr(k, "__array__"): k = np.asarray(k)
            elif hasattr(k, "uop"): k = cls(k)
            elif hasattr(k, "__index__"): return [k.__index__()]
            else:
                raise IndexError_(f"index {k!r} of type {type(k).__name__} into {self.shape}\n"
                                  f"  try: an int, a slice, None, ..., a list, or an int or bool tensor")
        is_bool = k.dtype.is_bool if isinstance(k, cls) else k.dtype == bool
        if not is_bool: return [k]
        mask = k.numpy() if isinstance(k, cls) else k
        if not mask.ndim: return [None if mask else NOTHING]
        return [Places(places, length) for places, length in zip(np.nonzero(mask), mask.shape)]

    def _index_node(self, k: Any, a: int, n: int) -> UOp:
        """An int node with no negative numbers, for axis a of length n."""
        cls = type(self)
        if isinstance(k, Places):
            if k.length != n:
                raise IndexError_(f"mask of {k.length} on axis {a} of {self.shape}\n  the mask must be as long as the axis, {n}")
            k = k.array
        if not isinstance(k, cls):
            if k.dtype.kind not in "iu": raise IndexError_(f"index of {k.dtype} on axis {a} of {self.shape}\n  try: ints or bools")
            if k.size and not (-n <= k.min() and k.max() < n):
                wrong = int(k.max()) if k.max() >= n else int(k.min())
                raise IndexError_(f"index {wrong} on axis {a} of {self.shape} {self.dtype.short}\n  it must be from {-n} to {n - 1}")
            k = np.where(k < 0, k + n, k).astype("int32" if n < 1 << 31 else "int64")
            return cls(k, device=self._storage.device).uop
        x = k.uop
        if not x.dtype.is_int:
            raise IndexError_(f"index by a tensor {k.shape} of {x.dtype.name} on axis {a} of {self.shape}\n  try: k.int()")
        return _from_end(k, n, f"index by a tensor {k.shape} on axis {a} of {self.shape}")

    # ---- gather and scatter ----------------------------------------------------------------------------------------------------------
    def gather(self, dim: int, index: Tensor) -> Tensor:
        """out[.., i, ..] = x[.., index[.., i, ..], ..] along `dim`; on the other axes the index may be shorter.

        errors:  ShapeError if the axes do not fit, IndexError_ if the index is not of ints
        """
        a = self._axis(dim)
        _check_index(self, index, a, "gather")
        x = self.uop.shrink(tuple((0, n if i == a else m) for i, (n, m) in enumerate(zip(self.shape, index.shape))))
        at = _from_end(index, self.shape[a], f"gather along axis {a} of {self.shape} by an index {index.shape}")
        return self._new(UOp(Ops.GATHER, x.dtype, (x, at), a), index)
    def take_along_axis(self, index: Tensor, dim: int) -> Tensor: return self.gather(dim, index)
    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The slices at these places of an axis."""
        return self[(slice(None),) * self._axis(dim) + (index,)]
    def take(self, index: Tensor, axis: int | None = None) -> Tensor:
        """The elements at these places of the flat tensor, or the slices at these places of an axis."""
        return self.flatten()[index] if axis is None else self[(slice(None),) * self._long_axis(axis, "take") + (index,)]
    def scatter(self, dim: int, index: Tensor, src: Any, reduce: str | None = None) -> Tensor:
        """A copy with out[.., index[.., i, ..], ..] = src[.., i, ..]; reduce="add" or "multiply" combines. The last of equal indices
        counts.

        errors:  ShapeError if the axes do not fit, UsageError for another reduce
        """
        if reduce not in (None, "add", "multiply"):
            raise UsageError(f"scatter with reduce={reduce!r}\n  try: None, 'add' or 'multiply', or scatter_reduce")
        return self._scattered(dim, index, src, None if reduce is None else REDUCTIONS[reduce], "scatter")
    def scatter_add(self, dim: int, index: Tensor, src: Any) -> Tensor: return self.scatter(dim, index, src, "add")
    def scatter_reduce(self, dim: int, index: Tensor, src: Any, reduce: str, include_self: bool = True) -> Tensor:
        """A copy into which src is combined by "sum", "prod", "mean", "amax" or "amin"; without include_self only what is scattered counts.

        errors:  ShapeError if the axes do not fit, UsageError for another reduce
        """
        if reduce == "mean":
            count = (self.ones_like() if include_self else self.zeros_like())._scattered(dim, index, 1, Ops.ADD, "scatter_reduce")
            sums = (self if include_self else self.zeros_like())._scattered(dim, index, src, Ops.ADD, "scatter_reduce")
            out = sums.div(count.maximum(1), rounding_mode=None if self.dtype.is_float else "floor")
            return out if include_self else (count == 0).where(self, out)
        if reduce not in ("sum", "prod", "amax", "amin"):
            raise UsageError(f"scatter_reduce with reduce={reduce!r}\n  try: 'sum', 'prod', 'mean', 'amax' or 'amin'")
        op, base = REDUCTIONS[reduce], self
        if not include_self:
            d = self.dtype
            unit = UNITS[op] if op in UNITS else d.min if op is Ops.MAX else d.max
            base = self._scattered(dim, index, unit, None, "scatter_reduce")
        return base._scattered(dim, index, src, op, "scatter_reduce")
    def _scattered(self, dim: int, index: Tensor, src: Any, op: Op | None, what: str) -> Tensor:
        a = self._axis(dim)
        _check_index(self, index, a, what)
        base = self.uop
        if isinstance(src, (bool, int, float)): x, others = fill(base.const_like(src), index.shape), ()
        else:
            if src.ndim != index.ndim or any(n < m for n, m in zip(src.shape, index.shape)):
                raise ShapeError(f"{what} into {self.shape} of {src.shape} by index {index.shape}\n"
                                 f"  the source must be as large as the index")
            x, others = src.uop.cast(base.dtype).shrink(tuple((0, m) for m in index.shape)), (src,)
        if not index.numel(): return self._new(base)
        box = Step(Ops.SHRINK, tuple((0, n if i == a else m) for i, (n, m) in enumerate(zip(self.shape, index.shape))))
        part = base.shrink(box.arg)
        acc = sum_dtype(base.dtype) if op in UNITS and base.dtype.is_float else base.dtype
        at = _from_end(index, self.shape[a], f"{what} along axis {a} of {self.shape} by an index {index.shape}")
        new = UOp(Ops.SCATTER, acc, (part.cast(acc), at, x.cast(acc)), ScatterArg(a, op)).cast(base.dtype)
        return self._new(new if part is base else write_chain(base, (box,), new), index, *others)

    # ---- masks -------------------------------------------------------------------------------------------------------------------------
    def masked_select(self, mask: Tensor, size: int | None = None, fill_value: float = 0) -> Tensor:
        """The elements where the mask is true, as a vector. Their number is read from the mask, so this computes it.

        With `size` that many elements, `fill_value` behind the last, and nothing is read back.

        >>> Tensor([1, 2, 3]).masked_select(Tensor([True, False, True])).tolist()
        [1, 3]
        """
        shape = broadcast_shapes(self.shape, mask.shape, what="masked_select")
        x, m = (t.expand(*shape).flatten() for t in (self, mask))
        if size is None: return x[m]
        place = m.nonzero(size, -1).flatten()
        return (place < 0).where(fill_value, x[place])
    def nonzero(self, size: int | None = None, fill_value: int = 0) -> Tensor:
        """The places of all elements that are not zero, one row each (int32). With `size` that many rows, and nothing is read back.

        >>> Tensor([0, 5, 6]).nonzero().tolist()
        [[1], [2]]
        """
        cls = type(self)
        if size is None:
            found = np.argwhere((self != 0).numpy())
            return cls(np.ascontiguousarray(found.astype("int32")), device=self._storage.device)
        hit = (self != 0).flatten()
        n = hit.shape[0]
        place = (hit.cumsum(0) - 1) if n else hit.int()
        flat = cls.full((size + 1,), -1, dtype=dtypes.int32)              # the last one takes what is not wanted
        if n and size: flat = flat.scatter(0, (hit & (place < size)).where(place, size).int(), cls.arange(n, dtype=dtypes.int32))
        flat = flat[:size]
        rows, rest = [], flat
        for m in reversed(self.shape):
            rows.append(rest % m)
            rest = rest // m
        out = rows[-1].stack(*rows[-2::-1], dim=1) if rows else flat.reshape(size, 1)[:, :0]
        return (flat.unsqueeze(1) < 0).where(fill_value, out)


# ---- helpers -----------------------------------------------------------------------------------------------------------------------
def _slice(k: slice, n: int) -> tuple[int, int, int]:
    """(lo, hi, step): the box of a slice, read backwards if step < 0."""
    parts = []
    for v in (k.start, k.stop, k.step):
        if v is not None and not hasattr(v, "__index__"): raise IndexError_(f"slice {k}\n  its parts must be ints or None")
        parts.append(None if v is None else v.__index__())
    if parts[2] == 0: raise IndexError_(f"slice {k}\n  the step must not be zero")
    start, stop, step = slice(*parts).indices(n)
    count = max(-(-(stop - start) // step), 0)
    if not count: return 0, 0, 1
    if step > 0: return start, min(stop, n), step
    return start + (count - 1) * step, start + 1, step


def _is_mask(k: Any) -> bool:
    d = getattr(k, "dtype", None)
    return d is not None and (d is dtypes.bool or getattr(d, "kind", "") == "b") and hasattr(k, "shape")
def _is_scalar(x: Any) -> bool: return isinstance(x, (bool, int, float)) or getattr(x, "shape", None) == ()
def _rank(d: Any) -> int: return 0 if d.is_bool else 1 if d.is_int else 2
def _wide(index: UOp) -> UOp: return index.cast(dtypes.int32) if index.dtype.bits < 32 else index


def _from_end(index: Tensor, n: int, what: str) -> UOp:
    """The places on an axis of n, negative ones counted from the end, in 32 bits at least.

    errors:  IndexError_ with CHECK=2 for a place that is not there
    """
    if CHECK.value >= 2 and index.numel() and not capture.is_tracing():
        lo, hi = int(index.min().item()), int(index.max().item())
        if lo < -n or hi >= n: raise IndexError_(f"{what}\n  it has {hi if hi >= n else lo}, it must be from {-n} to {n - 1}")
    x = _wide(index.uop)
    return x if x.dtype.is_unsigned else (x < 0).where(x + n, x)


def _check_index(x: Tensor, index: Tensor, a: int, what: str) -> None:
    if not index.dtype.is_int:
        raise IndexError_(f"{what} by an index {index.shape} of {index.dtype.name}\n  an index must be of ints\n  try: index.int()")
    if index.ndim != x.ndim:
        raise ShapeError(f"{what} along axis {a} of {x.shape} by an index {index.shape}\n  both must have the same number of axes")
    if any(m > n for i, (n, m) in enumerate(zip(x.shape, index.shape)) if i != a):
        raise ShapeError(f"{what} along axis {a} of {x.shape} by an index {index.shape}\n  but for axis {a} the index must not be longer")


def _adjacent(advanced: Sequence[Advanced]) -> bool: return all(b.axis == a.axis + 1 for a, b in zip(advanced, advanced[1:]))


def _to_front(ndim: int, advanced: Sequence[Advanced], k: int) -> tuple[int, ...]:
    """The order that brings the k axes of the indices' common shape to the front of a value shaped like the place."""
    first = advanced[0].axis if _adjacent(advanced) else 0
    rest = ndim - len(advanced)
    return (*range(first, first + k), *(i for i in range(rest + k) if not first <= i < first + k))


def _joined(x: UOp, advanced: Sequence[Advanced]) -> tuple[UOp, UOp, tuple[int, ...], Any]:
    """(x with the indexed axes joined in front, the flat index over it, the shape of the place, how to undo the first)"""
    shape = broadcast_shapes(*(i.index.shape for i in advanced), what="an index by tensors")
    lengths = [x.shape[i.axis] for i in advanced]
    flat: UOp | None = None
    ok: UOp | None = None
    for (_, index), n in zip(advanced, lengths):
        index = _wide(index)
        if math.prod(lengths) >= 1 << 31: index = index.cast(dtypes.int64)
        if flat is not None and flat.dtype is not index.dtype: flat, index = flat.cast(dtypes.int64), index.cast(dtypes.int64)
        index = index.broadcast_to(shape) if index.shape else index
        # joined axes: a place outside of one must not be a place inside of the next
        if len(advanced) > 1:
            inside = (index < n) if index.dtype.is_unsigned else (index >= 0) & (index < n)
            ok = inside if ok is None else ok & inside
        flat = index if flat is None else flat * n + index
    assert flat is not None, "there is an index"
    if ok is not None: flat = ok.where(flat, -1 if not flat.dtype.is_unsigned else flat.dtype.max)
    axes = tuple(i.axis for i in advanced)
    order = (*axes, *(i for i in range(x.ndim) if i not in axes))
    front = x.permute(order)
    rest = front.shape[len(axes):]
    joined = front.reshape((math.prod(lengths), *rest))
    count = math.prod(shape)
    flat = (flat if flat.shape else fill(flat, shape)).reshape((count, *(1,) * len(rest))).expand((count, *rest))
    first = axes[0] if _adjacent(advanced) else 0
    place = (*rest[:first], *shape, *rest[first:])
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))
    return joined, flat, place, lambda y: y.reshape(front.shape).permute(back)


def _gather(x: UOp, advanced: Sequence[Advanced]) -> UOp:
    if len(advanced) == 1 and advanced[0].index.ndim <= 1:         # no axis has to move
        a, index = advanced[0]
        n = index.shape[0] if index.shape else 1
        shape = (*x.shape[:a], n, *x.shape[a + 1:])
        if 0 in shape: return fill(x.const_like(0), shape if index.shape else (*x.shape[:a], *x.shape[a + 1:]))
        at = _wide(index).reshape(tuple(n if i == a else 1 for i in range(x.ndim))).expand(shape)
        out = UOp(Ops.GATHER, x.dtype, (x, at), a)
        return out if index.shape else out.reshape((*x.shape[:a], *x.shape[a + 1:]))
    flat, index, place, _ = _joined(x, advanced)
    if 0 in place: return fill(x.const_like(0), place)
    rest = index.shape[1:]
    shape = broadcast_shapes(*(i.index.shape for i in advanced))
    out = UOp(Ops.GATHER, x.dtype, (flat, index), 0).reshape((*shape, *rest))
    order = _to_front(x.ndim, advanced, len(shape))
    return out.permute(tuple(sorted(range(len(order)), key=order.__getitem__)))



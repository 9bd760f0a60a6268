"""The meaning of a tensor graph, in NumPy: one row an op, one walk. What the compiler makes of a graph must agree with `evaluate`.

Elementwise ops take their meaning from the op table (`Op.np`); everything with a shape is spelled out here, as plainly as it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from glassgrad.engine.realize import key_value
from glassgrad.uop import bits
from glassgrad.uop.dtype import DType
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp, toposort

REDUCERS = {Ops.ADD: np.add, Ops.MUL: np.multiply, Ops.MAX: np.maximum, Ops.MIN: np.minimum}


def evaluate(*roots: UOp) -> list[np.ndarray]:
    """The values of `roots`; types NumPy lacks are rounded to after every op and come as float32."""
    values: dict[UOp, np.ndarray] = {}
    for n in toposort(roots):
        with np.errstate(all="ignore"):
            x = meaning(n, [values[s] for s in n.src])
        x = np.asarray(x)
        assert x.shape == n.shape, f"{n}: the shape rule says {n.shape}, the meaning has {x.shape}"
        values[n] = to_type(x, n.dtype)
    return [values[r] for r in roots]


def to_type(x: np.ndarray, d: DType) -> np.ndarray:
    """x as the NumPy type that stands for d, rounded to d."""
    if d.kind == "void":
        return x
    return bits.round_to(d, x) if d.is_float else x.astype(d.np_name)


def meaning(n: UOp, xs: list[np.ndarray]) -> Any:
    """The value of one node from those of its sources."""
    if n.op.is_alu and n.op not in RULES:
        if n.op.np is None:
            raise NotImplementedError(f"oracle: {n.op} has no meaning in the op table")
        return n.op.np(*[np.broadcast_to(x, n.shape) for x in xs])
    return RULES[n.op](n, *xs)


# ---- leaves ------------------------------------------------------------------------------------------------------------------------
def _buffer(n: UOp) -> np.ndarray:
    raw = np.frombuffer(bytes(n.memory.as_memoryview()), dtype=bits.storage_name(n.dtype))
    return bits.from_storage(n.dtype, raw)


# ---- movement ----------------------------------------------------------------------------------------------------------------------
def _shrink(n: UOp, x: np.ndarray) -> np.ndarray:
    return x[tuple(slice(lo, hi) for lo, hi in n.arg)]


def _unfold(n: UOp, x: np.ndarray) -> np.ndarray:
    """out[.., o, .., k] = x[.., o * stride + k * dilation, ..]"""
    a = n.arg
    count = n.shape[a.axis]
    windows = [np.take(x, np.arange(count) * a.stride + k * a.dilation, axis=a.axis) for k in range(a.size)]
    return np.stack(windows, axis=-1)


def _fold(n: UOp, x: np.ndarray) -> np.ndarray:
    """Every element added to the place its window read it from."""
    a = n.arg
    out = np.zeros(n.shape, dtype=x.dtype)
    for k in range(a.size):
        places = np.arange(x.shape[a.axis]) * a.stride + k * a.dilation
        at = (slice(None),) * a.axis + (places,)
        out[at] += x[..., k]
    return out


# ---- along axes --------------------------------------------------------------------------------------------------------------------
def _reduce(n: UOp, x: np.ndarray) -> np.ndarray:
    return (
        REDUCERS[n.arg.op].reduce(x, axis=n.arg.axes, dtype=x.dtype)
        if not x.dtype == bool
        else REDUCERS[n.arg.op].reduce(x, axis=n.arg.axes)
    )


def _scan(n: UOp, x: np.ndarray, *before: np.ndarray) -> np.ndarray:
    a, run = n.arg.axes[0], REDUCERS[n.arg.op]
    if not before: return run.accumulate(x, axis=a)
    runs = np.split(x, before[0].shape[a], axis=a)
    starts = np.split(before[0], len(runs), axis=a)
    return np.concatenate([run(y, run.accumulate(r, axis=a)) for y, r in zip(starts, runs)], axis=a)


def _gather(n: UOp, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Out of range reads 0."""
    length = x.shape[n.arg]
    index = index.astype(np.int64)
    inside = (index >= 0) & (index < length)
    if not length:
        return np.zeros(n.shape, dtype=x.dtype)
    return np.where(inside, np.take_along_axis(x, np.where(inside, index, 0), axis=n.arg), 0)


def _scatter(n: UOp, base: np.ndarray, index: np.ndarray, x: np.ndarray) -> np.ndarray:
    """In order of the axis; out of range writes nothing."""
    axis, op = n.arg
    out = base.copy()
    rows = np.moveaxis(out, axis, -1)  # a view of out
    index, x = np.moveaxis(index, axis, -1), np.moveaxis(x, axis, -1)
    for place in np.ndindex(*index.shape):
        i = int(index[place])
        if not 0 <= i < rows.shape[-1]:
            continue
        at = (*place[:-1], i)
        rows[at] = x[place] if op is None else op.np(np.asarray(rows[at]), np.asarray(x[place]))
    return out


def _sort(n: UOp, x: np.ndarray) -> np.ndarray:
    """Stable both ways; NaN last, first when descending."""
    if not n.arg.descending:
        return np.argsort(x, axis=n.arg.axis, kind="stable")
    flipped = np.flip(x, n.arg.axis)
    order = np.flip(np.argsort(flipped, axis=n.arg.axis, kind="stable"), n.arg.axis)
    return x.shape[n.arg.axis] - 1 - order


# ---- types -------------------------------------------------------------------------------------------------------------------------
def _cast(n: UOp, x: np.ndarray) -> np.ndarray:
    return x != 0 if n.dtype.is_bool else x


def _bitcast(n: UOp, x: np.ndarray) -> np.ndarray:
    source = n.src[0].dtype
    raw = np.ascontiguousarray(bits.to_storage(source, x)).view(bits.storage_name(n.dtype))
    return bits.from_storage(n.dtype, raw).reshape(x.shape)


RULES: dict[Op, Callable[..., Any]] = {
    Ops.BUFFER: _buffer,
    Ops.CONST: lambda n: np.array(n.arg, dtype=bits.value_name(n.dtype)),
    Ops.KEY: lambda n: np.array(key_value(n.arg), dtype=np.uint64),
    Ops.BIND: lambda n, var, value: value,
    Ops.VAR: lambda n: np.array(n.arg.lo),
    Ops.IOTA: lambda n: np.arange(n.arg),
    Ops.TABLE: lambda n: np.array(n.arg),
    Ops.LEAF: lambda n, x: x,
    Ops.CONTIGUOUS: lambda n, x: x,
    Ops.DETACH: lambda n, x: x,
    Ops.SURROGATE: lambda n, x, y: x,
    Ops.COPY: lambda n, x: x,
    Ops.RESHAPE: lambda n, x: x.reshape(n.arg),
    Ops.EXPAND: lambda n, x: np.broadcast_to(x, n.arg),
    Ops.PERMUTE: lambda n, x: x.transpose(n.arg),
    Ops.PAD: lambda n, x: np.pad(x, n.arg),
    Ops.SHRINK: _shrink,
    Ops.FLIP: lambda n, x: np.flip(x, n.arg),
    Ops.UNFOLD: _unfold,
    Ops.FOLD: _fold,
    Ops.CAT: lambda n, *xs: np.concatenate(xs, axis=n.arg),
    Ops.REDUCE: _reduce,
    Ops.SCAN: _scan,
    Ops.GATHER: _gather,
    Ops.SCATTER: _scatter,
    Ops.SORT: _sort,
    Ops.CAST: _cast,
    Ops.BITCAST: _bitcast,
    Ops.SINK: lambda n, *xs: np.zeros(()),
}

"""Programs of linear_programs.py with inputs and NumPy's results, for every device that runs source text."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import linear_programs as lp
import numpy as np

from glassgrad.target.program import Program
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op, Ops

MATH = (Ops.EXP2, Ops.LOG2, Ops.EXP, Ops.LOG, Ops.SIN, Ops.COS, Ops.TANH, Ops.ERF)
NUMBERS = (*dtypes.ints, dtypes.float32, dtypes.float64)


class Case(NamedTuple):
    """Buffers of `program`: first the outputs (`want`), then the `ins`."""
    name: str
    program: Program
    ins: list[np.ndarray]
    want: list[np.ndarray]
    ulps: float = 0                   # relative error allowed, in units of the type's epsilon
    vals: tuple[int, ...] = ()


def cases() -> list[Case]:
    """All of them."""
    return [*structure(), *casts(), *arithmetic(), *bools()]


def normal(*shape: int, seed: int = 0) -> np.ndarray: return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def structure() -> Iterator[Case]:
    """Indices, loops, threads, shared memory, gates, vectors."""
    x, y = normal(16), normal(16, seed=1)
    yield Case("vadd", lp.vadd(16), [x, y], [x + y])
    yield Case("vadd one thread a group", lp.vadd(16, local=1), [x, y], [x + y])
    for dtype in (dtypes.float32, dtypes.float64, dtypes.int64, dtypes.uint8, dtypes.int16):
        a, b = ((v * 50).astype(dtype.np_name) for v in (x, y))
        yield Case(f"vectors of 4 {dtype.name}", lp.vector_add(16, dtype=dtype), [a, b], [a * a.dtype.type(2) + b])
    for n, lanes, offset in ((18, 6, 0), (16, 8, 0), (18, 4, 2), (17, 4, 1), (15, 3, 0), (16, 2, 0)):
        a, b = normal(n), normal(n, seed=1)
        want = a * 2 + b
        want[:offset] = 99
        yield Case(f"vectors of {lanes} from {offset}", lp.vector_add(n, lanes, offset), [a, b], [want])
    x = normal(7)
    want = np.zeros(12, np.float32)
    want[2:9] = x
    want[3] = 99
    yield Case("gates", lp.gated(12, 7), [x], [want])
    x = normal(10)
    whole, edge = np.zeros(16, np.float32), np.full(16, 99, np.float32)
    whole[:8], edge[:10] = x[:8], x
    yield Case("gates of vectors", lp.gated_vector(16, 10), [x], [whole, edge])
    x = normal(5, 7)
    yield Case("row sum", lp.row_sum(5, 7), [x], [x.sum(1)], 8)
    x = normal(3, 64)
    yield Case("shared sum", lp.shared_sum(3, 64), [x], [x.sum(1)], 64)
    a, b = normal(8, 12), normal(12, 16)
    yield Case("tiled matmul", lp.tiled_matmul(8, 16, 12, 4), [a, b], [a @ b], 64)
    x = normal(20)
    yield Case("symbolic length", lp.symbolic_sum(20), [x], [x[:13].sum(keepdims=True)], 32, (13,))
    x = normal(6)
    yield Case("swap of registers", lp.fibonacci(6), [], [np.array([1, 1, 2, 3, 5, 8], np.int32)])
    x = normal(8)
    x3 = normal(3, 4)
    yield Case("register vector", lp.vector_register(3), [x3], [x3.sum(0), x3.sum(0).max(keepdims=True)], 16)
    yield Case("zipped lanes", lp.zipped_lanes(3), [x3, x3 * 2], [np.stack([x3, x3 * 2], 2).reshape(3, 8)[:, :4]], 0)
    yield Case("running lanes", lp.running_lanes(3), [x3], [np.cumsum(x3, 1), np.maximum.accumulate(x3 * x3, 1)], 16)
    yield Case("private memory", lp.reverse_through_scratch(8), [x], [x[::-1].copy()])
    i = np.array([3, 0, 7, 7], np.int32)
    yield Case("gather and scatter", lp.gather_scatter(8), [x, i], [x[i], np.array([99, 99, 99, 99, 99, 99, 99, 99], np.float32)])


# ---- casts -----------------------------------------------------------------------------------------------------------------------
def edges(d: DType) -> np.ndarray:
    """The values at which casts and arithmetic go wrong."""
    if d.is_bool: return np.array([False, True] * 8)
    if d.is_int:
        lo, hi = int(d.min), int(d.max)
        return np.array([lo, lo + 1, hi, hi - 1, 0, 1, 2, 3, 5, 7, 100, 127, hi // 2, hi // 3, lo // 2, lo // 3], d.np_name)
    big = 3.4e38 if d is dtypes.float32 else 1e300
    values = [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 127.9, -128.9, 255.5, 65535.5, -1.0, 2147483648.0, -2147483649.0, 4294967296.5, 9.3e18,
              -9.3e18, 1.9e19, 16777217.0, 1e-45, big, -big, np.inf, -np.inf, np.nan, 1.0, 3.0, -7.25, 1e10, 3.1415927, 1e-7, 123456.789]
    with np.errstate(all="ignore"): return np.array(values).astype(d.np_name)


def cast_of(x: np.ndarray, to: DType) -> np.ndarray:
    """What a cast means here: NumPy's, and from float to int toward zero, saturating, 0 for NaN."""
    with np.errstate(all="ignore"):
        if not (x.dtype.kind == "f" and to.is_int): return x.astype(to.np_name)
        whole = [0 if v != v else v for v in x.tolist()]
        return np.array([int(to.min) if v <= to.min else int(to.max) if v >= to.max else int(v) for v in whole], to.np_name)


def casts() -> Iterator[Case]:
    """Every type to every type."""
    every = [d for d in dtypes.all if d.np_name and d is not dtypes.float16]
    for d in every:
        x = edges(d)
        to = [t for t in every if t is not d]
        yield Case(f"casts of {d.name}", lp.casts(len(x), d, to), [x], [cast_of(x, t) for t in to])
    with np.errstate(all="ignore"):
        ends = [65504, 65519.9, 65520, 6e-8, 2.9e-8, 3.1e-8, 6.1e-5, 1 + 2 ** -11, 1 + 3 * 2 ** -11]
        x = np.concatenate([edges(dtypes.float32), ends]).astype(np.float32)
        yield Case("casts to float16", lp.casts(len(x), dtypes.float32, [dtypes.float16]), [x], [x.astype(np.float16)])
        halves = np.arange(0, 65536, 7, np.uint16).view(np.float16)
        to = [dtypes.float32, dtypes.float64, dtypes.int32, dtypes.bool]
        yield Case("casts of float16", lp.casts(len(halves), dtypes.float16, to), [halves], [cast_of(halves, t) for t in to])
    for d, to in ((dtypes.float32, dtypes.int32), (dtypes.int32, dtypes.float32), (dtypes.float64, dtypes.uint64),
                  (dtypes.uint8, dtypes.int8)):
        x = edges(d)
        yield Case(f"bits of {d.name} as {to.name}", lp.bitcast(len(x), d, to), [x], [x.view(to.np_name)])


# ---- arithmetic ------------------------------------------------------------------------------------------------------------------
def pairs(d: DType) -> tuple[np.ndarray, np.ndarray]:
    e = edges(d)
    x, y = np.meshgrid(e, e)
    return x.ravel().copy(), y.ravel().copy()


def result(op: Op, *xs: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"): out = op.np(*xs)
    return np.asarray(out).astype(bool if op.out == "bool" else xs[-1].dtype)


def arithmetic() -> Iterator[Case]:
    """Every op on every type, on all pairs of edge values; shifts on shifts that are in range."""
    compare = (Ops.CMPLT, Ops.CMPLE, Ops.CMPEQ, Ops.CMPNE, Ops.MAX, Ops.MIN, Ops.ADD, Ops.SUB, Ops.MUL)
    for d in NUMBERS:
        ops = (*compare, Ops.FDIV) if d.is_float else (*compare, Ops.CDIV, Ops.CMOD, Ops.AND, Ops.OR, Ops.XOR)
        x, y = pairs(d)
        yield Case(f"binary {d.name}", lp.elementwise(len(x), ops, d, 2), [x, y], [result(op, x, y) for op in ops])
        x = edges(d)
        ops = (Ops.NEG, Ops.SQRT, Ops.RECIP, Ops.TRUNC) if d.is_float else (Ops.NEG,)
        yield Case(f"unary {d.name}", lp.elementwise(len(x), ops, d, 1), [x], [result(op, x) for op in ops])
        if d.is_int:
            shift = (np.arange(len(x)) * 3 % d.bits).astype(d.np_name)
            ops = (Ops.SHL, Ops.SHR)
            yield Case(f"shifts {d.name}", lp.elementwise(len(x), ops, d, 2), [x, shift], [result(op, x, shift) for op in ops])
        else:
            x = np.concatenate([np.linspace(-20, 20, 41), [1e-3, 0.0, np.inf, -np.inf, np.nan]]).astype(d.np_name)
            yield Case(f"functions {d.name}", lp.elementwise(len(x), MATH, d, 1), [x], [result(op, x) for op in MATH], 16)
            grid = np.meshgrid([0.5, 2.0, 3.0, 10.0, -2.0, 0.0, 1.0], [-3.0, -0.5, 0.0, 2.0, 3.5, 1.0])
            x, y = (v.ravel().astype(d.np_name) for v in grid)
            yield Case(f"pow {d.name}", lp.elementwise(len(x), (Ops.POW,), d, 2), [x, y], [result(Ops.POW, x, y)], 32)
    x, y = np.random.default_rng(0).integers(0, 2 ** 64, (2, 20), np.uint64)
    yield Case("threefry", lp.elementwise(20, (Ops.THREEFRY,), dtypes.uint64, 2), [x, y], [result(Ops.THREEFRY, x, y)])
    x, y, z = (np.float32(v) for v in (1 + 2 ** -12, 1 + 2 ** -12, -(1 + 2 ** -11)))
    for d in (dtypes.float32, dtypes.int32):
        xs = [np.full(4, v).astype(d.np_name) for v in (x, y, z)]
        exact = (np.float64(x) * np.float64(y) + np.float64(z)) if d.is_float else 0
        yield Case(f"mulacc {d.name}", lp.elementwise(4, (Ops.MULACC,), d, 3), xs, [np.full(4, exact, d.np_name)])


def bools() -> Iterator[Case]:
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    ops = (Ops.ADD, Ops.MUL, Ops.AND, Ops.OR, Ops.XOR, Ops.MAX, Ops.MIN, Ops.CMPLT, Ops.CMPEQ, Ops.CMPNE)
    yield Case("bool", lp.elementwise(4, ops, dtypes.bool, 2), [x, y], [result(op, x, y) for op in ops])


# ---- running and comparing ---------------------------------------------------------------------------------------------------------
def fresh(case: Case) -> list[np.ndarray]:
    """New arrays for all buffers of the program; outputs hold 99."""
    return [np.full(w.shape, 99, w.dtype) for w in case.want] + [x.copy() for x in case.ins]


def compare(case: Case, arrays: list[np.ndarray]) -> None:
    """AssertionError unless the outputs are what NumPy says: bit for bit but for NaN, or within the error allowed."""
    for i, (got, want) in enumerate(zip(arrays, case.want, strict=False)):
        what = f"{case.name}: output {i}"
        if case.ulps and want.dtype.kind == "f":
            eps = float(np.finfo(want.dtype).eps) * case.ulps
            np.testing.assert_allclose(got, want, rtol=eps, atol=eps * 0.5, err_msg=what)
        else: np.testing.assert_array_equal(got, want, err_msg=what)

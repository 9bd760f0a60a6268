"""Cases of the ops that have a shape: reductions, running reductions, gather, scatter, sort, movement; and the casts between all dtypes."""
from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
from matrix.cases import Case, random_values, rng_of, special_values, tensor
from matrix.reference import INF, LONG, NAN, Array, Want, round_to, wrap

from glassgrad import Tensor
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op, Ops, ReduceArg, ScatterArg, UnfoldArg
from glassgrad.uop.uop import UOp

ARITHMETIC: dict[Op, Callable[[Any, Any], Any]] = {Ops.ADD: lambda x, y: x + y, Ops.MUL: lambda x, y: x * y, Ops.MAX: max, Ops.MIN: min}
BOOLEAN: dict[Op, Callable[[Any, Any], Any]] = {op: (lambda x, y: x or y) if op in (Ops.ADD, Ops.MAX) else (lambda x, y: x and y) for op in ARITHMETIC}
METHODS = {Ops.ADD: "sum", Ops.MUL: "prod", Ops.MAX: "max", Ops.MIN: "min"}
RUNNING = {Ops.ADD: "cumsum", Ops.MUL: "cumprod", Ops.MAX: "cummax", Ops.MIN: "cummin"}
EXACT = (Ops.MAX, Ops.MIN)


def node(t: Tensor, op: Op, dtype: DType, arg: Any, *others: Tensor) -> Tensor:
    """A node of the graph as a tensor: what no method of Tensor gives as it stands."""
    return Tensor(UOp(op, dtype, (t.uop, *(o.uop for o in others)), arg), device=t.device)


def plain_values(d: DType, shape: tuple[int, ...], *names: Any) -> Array:
    """Values without specials; floats in (-2, 2)."""
    x = random_values(d, (-2, 2), shape, rng_of(d.name, *names))
    return round_to(d, np.clip(x, -2, 2)) if d.is_float else x


def accumulator(op: Op, d: DType) -> DType:
    """The dtype that sums and products of `d` have: at least 32 bits for integers, the floats' own."""
    if op in EXACT or d.is_float or d.bits >= 32 and not d.is_bool: return d
    return dtypes.uint32 if d.is_unsigned else dtypes.int32


def wide_eps(d: DType) -> float:
    """The relative error of one step: small floats are summed in float32."""
    return 2.0 ** -min(max(d.mantissa, 23), 52)


def fold(op: Op, d: DType, values: list[Any]) -> tuple[Any, float]:
    """(values combined one after the other, how far off a float result may be)."""
    if d.is_bool: return functools.reduce(BOOLEAN[op], map(bool, values)), 0.0
    if d.is_int: return wrap(d, functools.reduce(ARITHMETIC[op], [int(v) for v in values])), 0.0
    if any(v != v for v in values): return NAN, 0.0
    wide = [LONG(v) for v in values]
    with np.errstate(all="ignore"): result = functools.reduce(ARITHMETIC[op], wide)
    if op in EXACT or not np.isfinite(result): return result, 0.0
    size = sum(map(abs, wide)) if op is Ops.ADD else abs(result)
    return result, float(len(values) * wide_eps(d) * size)


# ---- reductions ------------------------------------------------------------------------------------------------------------------------
REDUCE_SHAPE = (4, 9, 5)
AXES: dict[str, Any] = {"last": (2,), "middle": (1,), "outer": (0, 2), "all": (0, 1, 2), "special": (2,)}


def reduce_case(op: Op, d: DType, how: str) -> Case:
    """`op` along the axes that `how` names; "special" has NaN, infinities and zeros of both signs in some rows."""
    axes = AXES[how]
    def data() -> Array:
        x = plain_values(d, REDUCE_SHAPE, op.name, how)
        if d.is_float and how == "special":
            x[0, 0, 3], x[0, 1, 2], x[0, 2, :2], x[1] = NAN, INF, (INF, -INF), 0.0
            x[2, ::2] = -0.0
            x = round_to(d, x)
        return x
    def make(device: str) -> Tensor:
        t = tensor(data(), d, device)
        return node(t, Ops.REDUCE, d, ReduceArg(op, axes)) if d.is_bool else getattr(t, METHODS[op])(axes)
    def want(device: str) -> Want:
        out = d if d.is_bool else accumulator(op, d)
        rows = np.moveaxis(data(), axes, range(-len(axes), 0)).reshape(*[n for i, n in enumerate(REDUCE_SHAPE) if i not in axes], -1)
        return folded(out, rows.shape[:-1], [fold(op, out, list(row)) for row in rows.reshape(-1, rows.shape[-1])])
    return Case(f"{op.name}-{d.name}-{how}", f"reduce-{d.name}", make, want)


def folded(out: DType, shape: tuple[int, ...], results: list[tuple[Any, float]]) -> Want:
    """What `fold` gave for every place."""
    values = np.array([v for v, _ in results], dtype=LONG if out.is_float else object).reshape(shape)
    slack = np.array([s for _, s in results]).reshape(shape)
    return Want(out, (values,), 0.1 if slack.any() else 0, slack)


def scan_case(op: Op, d: DType) -> Case:
    """The running combine along the middle axis."""
    shape = (3, 17, 2)
    def data() -> Array:
        x = plain_values(d, shape, op.name, "scan")
        return round_to(d, np.where(np.abs(x) < 0.5, 1, x)) if d.is_float else x
    def make(device: str) -> Tensor:
        out = getattr(tensor(data(), d, device), RUNNING[op])(1)
        return out[0] if op in EXACT else out
    def want(device: str) -> Want:
        out, x = accumulator(op, d), data()
        return folded(out, shape, [fold(op, out, list(x[i, :j + 1, k])) for i, j, k in np.ndindex(*shape)])
    return Case(f"{op.name}-{d.name}", f"scan-{d.name}", make, want)


# ---- by index --------------------------------------------------------------------------------------------------------------------------
def indices(shape: tuple[int, ...], length: int, *names: Any) -> Array:
    """Places from -1 to length: some are outside."""
    return rng_of(*names, *shape).integers(-1, length + 1, shape)


def gather_case(d: DType, axis: int) -> Case:
    """Elements along an axis; 0 for what is outside."""
    shape, out = (5, 7), [(9, 7), (5, 11)][axis]
    def data() -> tuple[Array, Array]: return plain_values(d, shape, "gather"), indices(out, shape[axis], "gather", axis)
    def make(device: str) -> Tensor:
        x, at = data()
        return node(tensor(x, d, device), Ops.GATHER, d, axis, tensor(at, dtypes.int64 if axis else dtypes.int32, device))
    def want(device: str) -> Want:
        x, at = data()
        values = np.zeros(out, dtype=x.dtype)
        for place in np.ndindex(*out):
            i = list(place)
            i[axis] = int(at[place])
            if 0 <= i[axis] < shape[axis]: values[place] = x[tuple(i)]
        return Want(d, (values,))
    return Case(f"axis{axis}-{d.name}", f"gather-{d.name}", make, want)


def scatter_case(op: Op | None, d: DType) -> Case:
    """Along the first axis; many go to one place, some outside."""
    base, many = (6, 4), (11, 4)
    def data() -> tuple[Array, Array, Array]:
        return plain_values(d, base, "base"), indices(many, base[0], "scatter"), plain_values(d, many, "scatter")
    def make(device: str) -> Tensor:
        b, at, x = data()
        return node(tensor(b, d, device), Ops.SCATTER, d, ScatterArg(0, op), tensor(at, dtypes.int32, device), tensor(x, d, device))
    def want(device: str) -> Want:
        b, at, x = data()
        cells = {place: [b[place]] for place in np.ndindex(*base)}
        for i, j in np.ndindex(*many):
            if (int(at[i, j]), j) in cells: cells[int(at[i, j]), j].append(x[i, j])
        if op is None: return Want(d, (np.array([row[-1] for row in cells.values()], dtype=None if d.is_float else object).reshape(base),))
        w = folded(d, base, [fold(op, d, row) for row in cells.values()])
        rounding = 0.0                                 # every step may be rounded to d itself
        if d.is_float and op not in EXACT:
            sizes = [sum(map(abs, row)) if op is Ops.ADD else math.prod(max(abs(v), 1) for v in row) for row in cells.values()]
            rounding = np.array([len(row) * s for row, s in zip(cells.values(), sizes, strict=True)]).reshape(base) * 2.0 ** -d.mantissa
        return w._replace(atol=w.atol + rounding, ulps=0.1 if d.is_float and op not in EXACT else 0)
    return Case(f"{op.name if op else 'overwrite'}-{d.name}", f"scatter-{d.name}", make, want)


def sort_case(d: DType, axis: int, descending: bool) -> Case:
    """The places that sort: stable, NaN after all others (before them when descending)."""
    shape = [(33, 3), (3, 33)][axis]
    def data() -> Array:
        x = random_values(d, (-2, 2), shape, rng_of(d.name, axis, "sort")).ravel()
        s = special_values(d)
        x[3:3 + len(s)] = round_to(d, np.array(s)) if d.is_float else s
        x[40:60] = x[:20]
        return x.reshape(shape)
    def make(device: str) -> Tensor: return tensor(data(), d, device).argsort(axis, descending)
    def want(device: str) -> Want:
        def order(row: list[Any]) -> list[int]:
            nans, rest = [i for i, v in enumerate(row) if v != v], [i for i, v in enumerate(row) if v == v]
            rest.sort(key=row.__getitem__, reverse=descending)           # stable both ways
            return nans + rest if descending else rest + nans
        rows = [order(list(row)) for row in np.moveaxis(data(), axis, -1)]
        return Want(dtypes.int32, (np.moveaxis(np.array(rows), -1, axis),))
    return Case(f"axis{axis}-{'descending' if descending else 'ascending'}-{d.name}", f"sort-{d.name}", make, want)


# ---- casts -----------------------------------------------------------------------------------------------------------------------------
def cast_values(d: DType, to: DType | None = None) -> Array:
    """All special values, and for a float those around the bounds of the integer type `to`."""
    special = special_values(d)
    if d.is_float: special = [*special, *(s * 2.0 ** k + more for s in (-1, 1) for k in (7, 8, 15, 16, 31, 32, 63, 64) for more in (-1, -0.5, 0, 0.5, 1))]
    head = np.array(special, dtype=object if d.is_int else None)
    return np.concatenate([round_to(d, head) if d.is_float else head, random_values(d, (-9, 9), 41, rng_of(d.name, "cast"))])


def cast_case(d: DType, to: DType) -> Case:
    """Toward zero and within bounds from float to int, NaN to 0, not zero to true, wrapped between integers, nearest else."""
    def make(device: str) -> Tensor: return tensor(cast_values(d), d, device).cast(to)
    def want(device: str) -> Want:
        x = cast_values(d)
        if to.is_bool: return Want(to, (np.array([v != 0 for v in x]),))
        if to.is_int: return Want(to, (np.array([to_int(v, to) if d.is_float else int(v) for v in x], dtype=object),))
        exact = np.array([LONG(int(v)) for v in x]) if d.is_int else x.astype(LONG)
        with np.errstate(all="ignore"): ways = (exact, exact.astype("float32").astype(LONG))     # large integers reach small floats by float32
        return Want(to, ways if d.is_int and to.bits < 32 else ways[:1], signs=True)
    return Case(f"{d.name}-{to.name}", f"cast-{d.name}", make, want)


def to_int(x: float, to: DType) -> int:
    """Toward zero; to the nearest bound from outside; NaN gives 0."""
    if x != x: return 0
    if math.isinf(x): return int(to.max if x > 0 else to.min)
    return min(max(int(x), int(to.min)), int(to.max))


NUMPY_TYPES: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "fp8e4m3": ml_dtypes.float8_e4m3fn, "fp8e5m2": ml_dtypes.float8_e5m2}


def bitcast_case(d: DType, to: DType) -> Case:
    """The same bits as another type of the width; NaNs are left out, whose bits are nobody's business."""
    def data() -> Array:
        x = cast_values(d)
        return x[[v == v for v in x]]
    def make(device: str) -> Tensor: return tensor(data(), d, device).bitcast(to)
    def want(device: str) -> Want:
        raw = data().astype(NUMPY_TYPES.get(d.name, d.np_name)).view(NUMPY_TYPES.get(to.name, to.np_name))
        return Want(to, (raw.astype("float64") if to.is_float else raw,), signs=to.is_float)
    return Case(f"{d.name}-{to.name}", f"bitcast-{d.bits}", make, want)


# ---- movement --------------------------------------------------------------------------------------------------------------------------
def windows(x: Array, size: int, stride: int, dilation: int) -> Array:
    """Sliding windows of the last axis."""
    count = (x.shape[-1] - (size - 1) * dilation - 1) // stride + 1
    return np.stack([x[..., o * stride:o * stride + (size - 1) * dilation + 1:dilation] for o in range(count)], axis=-2)


def overlap(x: Array) -> Array:
    """The sum of windows of 5 that begin at every second place, along 13 places."""
    out = np.zeros((*x.shape[:-2], 13), dtype=x.dtype)
    for o in range(x.shape[-2]): out[..., 2 * o:2 * o + 5] += x[..., o, :]
    return out


Move = tuple[Callable[[Tensor], Tensor], Callable[[Array], Array]]
MOVES: dict[str, Move] = {  # on a tensor and on an array of (4, 5, 13)
    "reshape": (lambda t: t.permute(1, 0, 2).reshape(10, 26), lambda x: x.transpose(1, 0, 2).reshape(10, 26)),
    "permute": (lambda t: t.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "expand": (lambda t: t[:, :1].expand(4, 6, 13), lambda x: np.broadcast_to(x[:, :1], (4, 6, 13))),
    "pad": (lambda t: t.pad((1, 2, 0, 3, 1, 0)), lambda x: np.pad(x, ((1, 0), (0, 3), (1, 2)))),
    "shrink": (lambda t: t.shrink(((1, 3), (0, 4), (5, 12))), lambda x: x[1:3, :4, 5:12]),
    "flip": (lambda t: t.flip(0, 2), lambda x: x[::-1, :, ::-1]),
    "unfold": (lambda t: node(t, Ops.UNFOLD, t.dtype, UnfoldArg(2, 3, 2, 2, 13)), lambda x: windows(x, 3, 2, 2)),
    "cat": (lambda t: t[:, :2].cat(t[1:, 1:3].flip(0), t[:1, 3:], dim=0), lambda x: np.concatenate([x[:, :2], x[1:, 1:3][::-1], x[:1, 3:]], 0)),
    "steps": (lambda t: t[::-2, 1::3, 2::5], lambda x: x[::-2, 1::3, 2::5]),
    "many": (lambda t: t.pad((0, 1, 2, 0, 0, 0)).flip(1).permute(1, 2, 0)[1:, ::3].reshape(-1, 4).pad((1, 0, 0, 0)),
             lambda x: np.pad(np.pad(x, ((0, 0), (2, 0), (0, 1)))[:, ::-1].transpose(1, 2, 0)[1:, ::3].reshape(-1, 4), ((0, 0), (1, 0)))),
    "fold": (lambda t: node(node(t, Ops.UNFOLD, t.dtype, UnfoldArg(2, 5, 2, 1, 13)), Ops.FOLD, t.dtype, UnfoldArg(2, 5, 2, 1, 13)),
             lambda x: overlap(windows(x, 5, 2, 1))),
}


def move_case(name: str, d: DType, each: bool = False) -> Case:
    """The elements of (4, 5, 13), moved; `each` has a kernel of its own on every device."""
    ours, theirs = MOVES[name]
    def data() -> Array:
        x = plain_values(d, (4, 5, 13), "move")
        return round_to(d, np.round(np.clip(x.astype("float64"), -2, 2))).astype(x.dtype) if name == "fold" else x
    def make(device: str) -> Tensor: return ours(tensor(data(), d, device))
    def want(device: str) -> Want: return Want(d, (theirs(data()),))
    return Case(f"{'alone-' if each else ''}{name}-{d.name}", f"{'each' if each else 'move'}-{d.name}", make, want)


# ---- all of them -----------------------------------------------------------------------------------------------------------------------
def structure_cases(among: Iterable[DType] | None = None) -> dict[str, list[Case]]:
    """By kind of op: every case on every dtype."""
    ds = list(among or dtypes.all)
    ops = list(ARITHMETIC)
    return {
        "reduce": [reduce_case(op, d, how) for d in ds for op in ops for how in AXES],
        "scan": [scan_case(op, d) for d in ds for op in ops],
        "gather": [gather_case(d, axis) for d in ds for axis in (0, 1)],
        "scatter": [scatter_case(op, d) for d in ds for op in (None, *ops)],
        "sort": [sort_case(d, axis, down) for d in ds for axis in (0, 1) for down in (False, True)],
        "move": [move_case(name, d) for d in ds for name in MOVES if name != "fold" or not d.is_bool],
        "each": [move_case("flip", d, True) for d in ds],
    }


def cast_cases(sources: Iterable[DType] | None = None, targets: Iterable[DType] | None = None) -> list[Case]:
    """Every dtype to every other."""
    every = dtypes.all
    return [cast_case(d, to) for d in sources or every for to in targets or every if d is not to]


def bitcast_cases() -> list[Case]:
    """Every dtype to every other of its width."""
    pairs = itertools.permutations([d for d in dtypes.all if not d.is_bool], 2)
    return [bitcast_case(d, to) for d, to in pairs if d.bits == to.bits]

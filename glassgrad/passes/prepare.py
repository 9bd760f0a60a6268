"""Prepare: what one kernel could not do well is split.

in:      TENSOR form
out:     TENSOR form; long reductions to few values, and long running reductions of few rows, in two steps
source:  reduce, then scan: G. Blelloch, Prefix sums and their applications (1990)
"""
from __future__ import annotations

import math

from glassgrad.passes.linearize import identity
from glassgrad.passes.transcend import exponent
from glassgrad.passes.views import TRUE, Axes, Index, move
from glassgrad.target.target import Target
from glassgrad.uop.ops import Ops, ReduceArg
from glassgrad.uop.uop import UOp, consumers_of

LONG = 1 << 15      # elements of a reduction before its work is worth splitting on a GPU; on a CPU four times as many
NARROW = 64         # elements side by side that give a reduction enough vectors to add to
CPU_PARTS = 16      # partial results on a CPU: enough for its threads, and the same for any number of them
GPU_PARTS = 1024
PIECE = 64          # a multiple of this many elements makes a part: it begins where the cache lines of a whole array do


def compare_places(sink: UOp, target: Target) -> UOp:
    """A SCATTER of one place for each row -> where(place == index, value, base), which is elementwise.

    It fuses, keeps the layout of its base, and may be computed in the memory of the base: writing keys and values at a position to 24
    caches was 12 of 39 ms of a step of decoding with GPT-2.
    """
    memo: dict[UOp, UOp] = {}
    for n in sink.toposort():
        src = tuple(memo[s] for s in n.src)
        memo[n] = n if src == n.src else n.replace(src=src)
        if n.op is not Ops.SCATTER: continue
        (base, index, x), (axis, op) = src, n.arg
        if any(m != (1 if a == axis else n.shape[a]) for a, m in enumerate(index.shape)): continue
        place = UOp.iota(n.shape[axis]).reshape(tuple(m if a == axis else 1 for a, m in enumerate(n.shape))).expand(n.shape)
        value, d = x.expand(n.shape), index.dtype if n.shape[axis] - 1 <= index.dtype.max else place.dtype
        memo[n] = place.cast(d).eq(index.cast(d).expand(n.shape)).where(value if op is None else base.alu(op, value), base)
    return memo[sink]


def normalise_last(sink: UOp, target: Target) -> UOp:
    """sum((e * r) * v) with r the same for all that is summed -> sum(e * v) * r, where e is an exponential that nobody else wants times r.

    Softmax's weights are then never divided one by one, nor kept a second time: attention divides its 64 outputs instead of 1024
    weights. An exponential of what a maximum was taken from is at most 1, so no sum overflows that did not before.
    """
    order = sink.toposort()
    if not any(n.op is Ops.EXP for n in order): return sink
    users = consumers_of(order)
    memo: dict[UOp, UOp] = {}
    for n in order:
        src = tuple(memo[s] for s in n.src)
        new = n if src == n.src else n.replace(src=src)
        if n.op is Ops.REDUCE and n.arg.op is Ops.ADD and n.src[0].op is Ops.MUL and len(users[n.src[0]]) == 1:
            for a, b in (n.src[0].src, n.src[0].src[::-1]):
                found = _weights(n, a, users)
                if found is None: continue
                e, r = (_moved(memo[s], found[1]) for s in found[0])
                row = r.shrink(tuple((0, 1 if d in n.arg.axes else m) for d, m in enumerate(r.shape))).reshape(n.shape)
                new = (e * memo[b]).reduce(Ops.ADD, n.arg.axes) * row
                break
        memo[n] = new
    return memo[sink]


def _weights(n: UOp, x: UOp, users: dict[UOp, list[UOp]]) -> tuple[tuple[UOp, UOp], list[UOp]] | None:
    """The exponential and its factor, which does not change along what `n` sums, of a product `x`; and the views `x` is of it."""
    views: list[UOp] = []
    while len(users[x]) == 1 and x.op in (Ops.RESHAPE, Ops.EXPAND, Ops.PERMUTE):
        views.append(x)
        x = x.src[0]
    if x.op is not Ops.MUL or len(users[x]) > 1: return None
    for e, r in (x.src, x.src[::-1]):
        if e.op is Ops.EXP and exponent(e).op is Ops.SUB and r.op is Ops.EXPAND:
            axes = Axes({})
            idx: Index = tuple(axes.new(m) for m in n.src[0].shape)
            summed = {idx[a] for a in n.arg.axes}
            for v in views: idx = move(v, idx, TRUE)[0]
            if not any(i in summed for j in move(r, idx, TRUE)[0] for i in j.toposort()): return (e, r), views
    return None


def bound_exponents(sink: UOp, target: Target) -> UOp:
    """exp(x - maximum of x) -> exp(min(x - maximum of x, 0)): the same, and what exp is made of sees that no result is large."""
    order = sink.toposort()
    if not any(n.op is Ops.EXP for n in order): return sink
    memo: dict[UOp, UOp] = {}
    for n in order:
        src = tuple(memo[s] for s in n.src)
        if n.op is Ops.EXP and n.src[0].op is Ops.SUB and _is_from_maximum(*n.src[0].src):
            src = (src[0].alu(Ops.MIN, UOp.const(n.dtype, 0.0)),)
        memo[n] = n if src == n.src else n.replace(src=src)
    return memo[sink]


def _is_from_maximum(x: UOp, m: UOp) -> bool:
    """Whether `m` is at each place the maximum of a run of `x` that goes through there."""
    axes = Axes({})
    at = idx = tuple(axes.new(k) for k in x.shape)
    while m.op in (Ops.RESHAPE, Ops.EXPAND, Ops.PERMUTE, Ops.DETACH):
        if m.op is not Ops.DETACH: idx = move(m, idx, TRUE)[0]
        m = m.src[0]
    return m.op is Ops.REDUCE and m.arg.op is Ops.MAX and m.src[0] is x and idx == tuple(i for a, i in enumerate(at) if a not in m.arg.axes)


def _moved(x: UOp, views: list[UOp]) -> UOp:
    """The same views, the last one first, of another value."""
    for v in reversed(views): x = v.replace(src=(x,))
    return x


def split_reductions(sink: UOp, target: Target) -> UOp:
    """A reduction of many elements to few values becomes partial reductions, stored, and one over those: one core would do it all, and
    where rows of few elements are added up, vectors would stand almost empty. A running one starts in each part from what the parts
    before it come to."""
    if target.name == "PYTHON": return sink
    long = LONG if target.has_grid else 4 * LONG
    memo: dict[UOp, UOp] = {}
    for n in sink.toposort():
        src = tuple(memo[s] for s in n.src)
        new = n if src == n.src else n.replace(src=src)
        if n.op is Ops.REDUCE and n.arg.axes and n.src[0].size >= long: new = _split(new, target) or new
        if n.op is Ops.SCAN and n.shape[n.arg.axes[0]] >= LONG: new = _split_scan(new, target)
        memo[n] = new
    return memo[sink]


def _split(n: UOp, target: Target) -> UOp | None:
    """`n` by partial reductions, if it gives so few values, or from so narrow rows, that they pay."""
    x, axes = _merged(n.src[0], n.arg.axes)
    order = _from_outermost(x)
    last = max(i for i, a in enumerate(order) if a in axes)
    width = math.prod(x.shape[a] for a in order[last + 1:])
    parts = (GPU_PARTS if target.has_grid else CPU_PARTS) // n.size
    rows = next(p for p in (8, 16, 32) if p * width > NARROW // 2) if 1 < width < NARROW and not target.has_grid else 1
    if rows > 1 and x.shape[order[last]] >= 8 * rows: axis = order[last]
    else: axis, rows = next((a for a in order if a in axes and x.shape[a] >= parts), -1), 1
    m = x.shape[axis]
    if parts < 3 or m < 8 * rows * parts and rows > 1: parts = 1
    if axis < 0 or parts * rows == 1: return None
    size = m // (parts * rows)
    if size >= 16 * PIECE: size = size // PIECE * PIECE
    elif parts > 1: size = m // rows // min(range(parts, min(2 * parts, m // rows) + 1), key=lambda p: m // rows % p)   # little is left
    parts = m // (size * rows)
    main = parts * size * rows
    others = tuple(a for a in axes if a != axis)
    head = x.shrink(tuple((0, main if a == axis else k) for a, k in enumerate(x.shape)))
    new = [k for k in (parts, rows) if k > 1]
    head = head.reshape((*x.shape[:axis], *new[:parts > 1], size, *new[parts > 1:], *x.shape[axis + 1:]))
    partial = head.reduce(n.arg.op, tuple(sorted((*(a + len(new) * (a > axis) for a in others), axis + (parts > 1)))))
    partial.site = partial.site or n.site
    partial = UOp(Ops.CONTIGUOUS, n.dtype, (partial,), f"{parts * rows} partial results of {m} elements are found side by side")
    at = axis - sum(a < axis for a in others)
    total = partial.reduce(n.arg.op, tuple(range(at, at + len(new))))
    if main < m:
        rest = x.shrink(tuple((main, m) if a == axis else (0, k) for a, k in enumerate(x.shape)))
        total = total.alu(n.arg.op, rest.reduce(n.arg.op, axes))
    total = total.reshape(n.shape)
    if total.site is None: total.site = n.site
    return total


def _merged(x: UOp, axes: tuple[int, ...]) -> tuple[UOp, tuple[int, ...]]:
    """The same reduction of memory with as few axes as it needs."""
    if x.op is not Ops.RESHAPE or x.src[0].ndim != 1: return x, axes
    shape: list[int] = []
    kept: list[bool] = []
    for a, m in enumerate(x.shape):
        if m == 1: continue
        if kept and kept[-1] is (a not in axes): shape[-1] *= m
        else:
            shape.append(m)
            kept.append(a not in axes)
    return x.src[0].reshape(tuple(shape)), tuple(a for a, k in enumerate(kept) if not k)


def _from_outermost(x: UOp) -> list[int]:
    """The axes of `x` in the order in which the memory below it is likely to have them."""
    place = list(range(x.ndim))       # of each axis of x in n
    n = x
    while True:
        if n.op.is_alu: n = max(n.src, key=lambda s: (s.op is not Ops.EXPAND) * s.size)
        elif n.op is Ops.PERMUTE: n, place = n.src[0], [n.arg[a] for a in place]
        elif n.op in (Ops.SHRINK, Ops.FLIP, Ops.PAD): n = n.src[0]
        else: return sorted(range(x.ndim), key=lambda a: place[a])


def _split_scan(n: UOp, target: Target) -> UOp:
    """A running reduction of few rows by parts that divide the axis; `n` itself if there are none, or rows enough."""
    x, op, a = n.src[0], n.arg.op, n.arg.axes[0]
    m = x.shape[a]
    most = (GPU_PARTS if target.has_grid else CPU_PARTS) * m // n.size
    parts = next((p for p in range(most, 1, -1) if m % p == 0), 1)
    if parts < 2: return n
    runs = x.reshape((*x.shape[:a], parts, m // parts, *x.shape[a + 1:]))
    sums = runs.shrink(tuple((0, k - (i == a)) for i, k in enumerate(runs.shape))).reduce(op, (a + 1,))
    sums = UOp(Ops.CONTIGUOUS, n.dtype, (sums,), f"a running value over {m} elements: {parts} parts are found in parallel")
    if parts > 2: sums = UOp(Ops.SCAN, n.dtype, (sums,), ReduceArg(op, (a,)))
    none = tuple(1 if i == a else k for i, k in enumerate(sums.shape))
    unit = UOp.const(n.dtype, identity(op, n.dtype)).reshape((1,) * len(none)).expand(none)
    before = UOp(Ops.CAT, n.dtype, (unit, sums), a)
    total = UOp(Ops.SCAN, n.dtype, (x, before), n.arg)
    for new in total.toposort(stop=lambda m: m is x):
        if new is not x: new.site = new.site or n.site
    return total

"""Gradient: the derivative of a graph as a graph, one rule an op; higher orders come for free.

in:      TENSOR form: a root, targets below it, the gradient of whatever is above the root
out:     TENSOR form: for each target its gradient (None where the root does not depend on it)
source:  reverse accumulation; rules for arithmetic stand in the op table, for everything that has a shape they stand here

At ties max, min and relu-like choices share the gradient evenly; what is rounded (trunc, casts to int) has none.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from glassgrad.uop.dtype import dtypes, sum_dtype
from glassgrad.uop.ops import Op, Ops, ReduceArg, ScatterArg
from glassgrad.uop.uop import UOp

Grads = tuple[UOp | None, ...]
STOPS = frozenset((Ops.DETACH, Ops.SORT, Ops.IOTA, Ops.BITCAST, Ops.TRUNC, Ops.THREEFRY))


def gradient(root: UOp, targets: Sequence[UOp], seed: UOp, history: Mapping[UOp, UOp] | None = None) -> list[UOp | None]:
    """The gradients of `root` for `targets`, given `seed`, the gradient for root itself.

    `history` says of nodes what they were computed from, where the graph has only their memory.
    """
    past = {} if history is None else history
    wanted = set(targets)
    order = _paths(root, wanted, past)
    adjoint: dict[UOp, UOp] = {root: seed}
    on_path = set(order)
    for n in reversed(order):
        g = adjoint.get(n) if n in wanted else adjoint.pop(n, None)
        if g is None: continue
        before = past.get(n)
        sources, grads = (n.src, _gradients_of(n, g)) if before is None else ((before,), (g,))
        for s, d in zip(sources, grads):
            if d is None or s not in on_path: continue
            d = _fit(d, s)
            _stamp(d, n.site)
            known = adjoint.get(s)
            adjoint[s] = d if known is None else known + d
    return [adjoint.get(t) if t in on_path else None for t in targets]


def _paths(root: UOp, wanted: set[UOp], past: Mapping[UOp, UOp]) -> list[UOp]:
    """The float nodes between the root and the targets, sources first."""
    reaches: dict[UOp, bool] = {}
    order: list[UOp] = []
    stack: list[tuple[UOp, bool]] = [(root, False)]
    while stack:
        n, ready = stack.pop()
        if n in reaches: continue
        before = past.get(n)
        sources = n.src if before is None else (before,)
        if not n.dtype.is_float: reaches[n] = False
        elif ready or not sources or n.op in STOPS and before is None:
            reaches[n] = n in wanted or (n.op not in STOPS or before is not None) and any(reaches[s] for s in sources)
            if reaches[n]: order.append(n)
        else:
            stack.append((n, True))
            for s in sources:
                if s not in reaches: stack.append((s, False))
    return order


def _gradients_of(n: UOp, g: UOp) -> Grads:
    """The gradient of each source of n, given that of n."""
    rule = RULES.get(n.op)
    if rule is not None: return rule(n, g)
    return n.op.grad(n, g) if n.op.grad is not None else ()


def _fit(d: UOp, s: UOp) -> UOp:
    """A gradient in the shape of its source: a scalar that was used for a whole shape gets the sum."""
    if d.shape == s.shape: return d
    if not d.shape: return _fill(d, s.shape)
    assert not s.shape, f"the gradient of a source {s.shape} has shape {d.shape}"
    return _sum(d, tuple(range(d.ndim)))


def _stamp(x: UOp, site: str | None) -> None:
    """New nodes come from the line whose derivative they are."""
    if site is None or x.site is not None: return
    stack = [x]
    while stack:
        n = stack.pop()
        n.site = site
        stack += [s for s in n.src if s.site is None]


# ---- rules -------------------------------------------------------------------------------------------------------------------------
def _identity(n: UOp, g: UOp) -> Grads: return (g,)
def _reshape(n: UOp, g: UOp) -> Grads: return (g.reshape(n.src[0].shape),)
def _permute(n: UOp, g: UOp) -> Grads: return (g.permute(tuple(sorted(range(len(n.arg)), key=n.arg.__getitem__))),)
def _flip(n: UOp, g: UOp) -> Grads: return (g.flip(n.arg),)
def _pad(n: UOp, g: UOp) -> Grads: return (g.shrink(tuple((lo, lo + m) for m, (lo, _) in zip(n.src[0].shape, n.arg))),)
def _shrink(n: UOp, g: UOp) -> Grads: return (g.pad(tuple((lo, m - hi) for m, (lo, hi) in zip(n.src[0].shape, n.arg))),)
def _unfold(n: UOp, g: UOp) -> Grads: return (UOp(Ops.FOLD, g.dtype, (g,), n.arg),)
def _fold(n: UOp, g: UOp) -> Grads: return (UOp(Ops.UNFOLD, g.dtype, (g,), n.arg),)

def _expand(n: UOp, g: UOp) -> Grads:
    shape = n.src[0].shape
    axes = tuple(a for a, (m, k) in enumerate(zip(shape, n.shape)) if m != k)
    return (_sum(g, axes).reshape(shape),)

def _cat(n: UOp, g: UOp) -> Grads:
    a, at, out = n.arg, 0, []
    for s in n.src:
        out.append(g.shrink(tuple((at, at + s.shape[a]) if i == a else (0, m) for i, m in enumerate(g.shape))))
        at += s.shape[a]
    return tuple(out)

def _copy(n: UOp, g: UOp) -> Grads:
    device = device_of(n.src[0])
    return (g if device is None else UOp(Ops.COPY, g.dtype, (g,), device),)

def _reduce(n: UOp, g: UOp) -> Grads:
    x, (op, axes) = n.src[0], n.arg
    wide = _spread(g, x.shape, axes)
    if op is Ops.ADD: return (wide,)
    if op is Ops.MUL: return (wide * _product_of_others(x, axes),)
    hit = x.eq(_spread(n, x.shape, axes))
    share = g / _sum(hit.cast(dtypes.float32), axes).cast(g.dtype)
    return (hit.where(_spread(share, x.shape, axes), 0),)

def _product_of_others(x: UOp, axes: tuple[int, ...]) -> UOp:
    """For each element the product of all others along axes: running products from both sides, no division by what may be zero."""
    rest = tuple(a for a in range(x.ndim) if a not in axes)
    order = (*rest, *axes)
    lead = tuple(x.shape[a] for a in rest)
    k = math.prod(x.shape[a] for a in axes)
    flat = x.permute(order).reshape((*lead, k))
    def before(y: UOp) -> UOp:
        one = _fill(y.const_like(1), (*lead, 1))
        running = _scan(y, Ops.MUL, len(lead)).shrink((*((0, m) for m in lead), (0, k - 1)))
        return UOp(Ops.CAT, y.dtype, (one, running), len(lead)) if k > 1 else one
    last = (len(lead),)
    both = before(flat) * before(flat.flip(last)).flip(last)
    return both.reshape(tuple(x.shape[a] for a in order)).permute(tuple(sorted(range(x.ndim), key=order.__getitem__)))

def _scan_rule(n: UOp, g: UOp) -> Grads:
    x, op, a = n.src[0], n.arg.op, n.arg.axes[0]
    if op is Ops.ADD: return (_scan_back(g, a),)
    if op is Ops.MUL:
        zero = x.eq(0)
        count = _scan(zero.cast(dtypes.int32), Ops.ADD, a)
        first = zero & count.eq(1)
        plain = _scan_back(g * n, a) / zero.where(x.const_like(1), x)
        there = _scan_back(g * _scan(first.where(x.const_like(1), x), Ops.MUL, a), a)    # as if the first zero were 1
        return (count.eq(0).where(plain, first.where(there, 0)),)
    here = x.eq(n)                                     # the running value came from the last place that reached it
    at = _scan(here.where(_iota(n.shape, a), 0), Ops.MAX, a)
    return (_scatter_add(_zeros(x), at, g, a),)

def _gather(n: UOp, g: UOp) -> Grads: return (_scatter_add(_zeros(n.src[0]), n.src[1], g, n.arg), None)

def _scatter(n: UOp, g: UOp) -> Grads:
    base, index, x = n.src
    a, op = n.arg
    back = _gathered(g, index, a)
    if op is Ops.ADD: return g, None, back
    if op is None:
        number = _fill(UOp.const(dtypes.int32, -1), base.shape)
        mine = _iota(index.shape, a)
        winner = UOp(Ops.SCATTER, dtypes.int32, (number, index, mine), ScatterArg(a, None))
        kept = winner < 0
        return kept.where(g, 0), None, _gathered(winner, index, a).eq(mine).where(back, 0)
    if op is Ops.MUL:
        others = UOp(Ops.SCATTER, base.dtype, (_fill(base.const_like(1), base.shape), index, x), n.arg)
        return g * others, None, _gathered(g * n, index, a) / x
    hit, hits = base.eq(n), x.eq(_gathered(n, index, a))
    count = UOp(Ops.SCATTER, g.dtype, (hit.cast(g.dtype), index, hits.cast(g.dtype)), ScatterArg(a, Ops.ADD))
    share = g / count
    return hit.where(share, 0), None, hits.where(_gathered(share, index, a), 0)

def _surrogate(n: UOp, g: UOp) -> Grads: return None, g
def _mulacc(n: UOp, g: UOp) -> Grads: return g * n.src[1], g * n.src[0], g


RULES: dict[Op, Callable[[UOp, UOp], Grads]] = {
    Ops.LEAF: _identity, Ops.CONTIGUOUS: _identity, Ops.RESHAPE: _reshape, Ops.PERMUTE: _permute, Ops.FLIP: _flip, Ops.PAD: _pad, Ops.SHRINK: _shrink,
    Ops.EXPAND: _expand, Ops.UNFOLD: _unfold, Ops.FOLD: _fold, Ops.CAT: _cat, Ops.COPY: _copy, Ops.REDUCE: _reduce, Ops.SCAN: _scan_rule,
    Ops.GATHER: _gather, Ops.SCATTER: _scatter, Ops.MULACC: _mulacc, Ops.SURROGATE: _surrogate,
}


# ---- helpers -----------------------------------------------------------------------------------------------------------------------
def _fill(x: UOp, shape: tuple[int, ...]) -> UOp: return x.reshape((1,) * len(shape)).expand(shape) if shape else x
def _zeros(x: UOp) -> UOp: return _fill(x.const_like(0), x.shape)
def _sum(x: UOp, axes: tuple[int, ...]) -> UOp: return x.cast(sum_dtype(x.dtype)).reduce(Ops.ADD, axes).cast(x.dtype)
def _spread(x: UOp, shape: tuple[int, ...], axes: tuple[int, ...]) -> UOp:
    return x.reshape(tuple(1 if a in axes else m for a, m in enumerate(shape))).expand(shape)
def _scan(x: UOp, op: Op, a: int) -> UOp: return UOp(Ops.SCAN, x.dtype, (x,), ReduceArg(op, (a,)))
def _scan_back(x: UOp, a: int) -> UOp: return _scan(x.flip((a,)), Ops.ADD, a).flip((a,))
def _iota(shape: tuple[int, ...], a: int) -> UOp:
    return UOp.iota(shape[a]).reshape(tuple(m if i == a else 1 for i, m in enumerate(shape))).expand(shape)
def _gathered(x: UOp, index: UOp, a: int) -> UOp: return UOp(Ops.GATHER, x.dtype, (x, index), a)
def _scatter_add(base: UOp, index: UOp, x: UOp, a: int) -> UOp:
    acc = sum_dtype(x.dtype)
    return UOp(Ops.SCATTER, acc, (base.cast(acc), index, x.cast(acc)), ScatterArg(a, Ops.ADD)).cast(x.dtype)

def device_of(x: UOp) -> str | None:
    """The device that memory below x ties it to."""
    seen, stack = set(), [x]
    while stack:
        n = stack.pop()
        if n.op is Ops.COPY: return n.arg
        if n.op is Ops.BUFFER: return n.arg.device
        if n in seen: continue
        seen.add(n)
        stack += n.src
    return None

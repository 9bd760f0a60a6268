"""Views to indices: where each source of a node is read, given where the node is read.

A movement op moves no data; it only says at which index its source is wanted. `demands` is that sentence for every tensor op, and
the only place that knows it: the choice of stores walks it to see who wants what, `lower` to write a kernel's expressions.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from glassgrad.passes.algebra import simplify, weighted_sum
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import constant
from glassgrad.uop.ops import Ops, RangeArg
from glassgrad.uop.uop import UOp

INDEX = dtypes.int64
ZERO = UOp.const(INDEX, 0)
TRUE = UOp.const(dtypes.bool, True)
Index = tuple[UOp, ...]


class Demand(NamedTuple):
    """A source wanted at an index, where the gate holds, inside these extra reduce ranges."""
    src: UOp
    idx: Index
    gate: UOp
    ranges: tuple[UOp, ...] = ()


class Axes:
    """Numbers the loop axes of one kernel from 0 on: kernels alike have the same index expressions, and `known`, which all kernels of a
    graph share, has what movement ops make of those."""
    __slots__ = ("count", "known")
    def __init__(self, known: dict) -> None: self.count, self.known = 0, known

    def new(self, n: int, kind: str = "LOOP") -> UOp:
        """The next loop axis; an axis of length 1 needs none and is the constant 0."""
        if n == 1: return ZERO
        self.count += 1
        return UOp(Ops.RANGE, INDEX, (constant(INDEX, n),), RangeArg(self.count - 1, kind))

    def flat(self, idx: Index, shape: tuple[int, ...]) -> UOp:
        """The row-major place of `idx` in `shape`."""
        found = self.known.get((idx, shape))
        if found is None: found = self.known[idx, shape] = flatten(idx, shape)
        return found

    def moved(self, n: UOp, idx: Index, gate: UOp) -> tuple[Index, UOp]:
        """Where, and under which gate, a movement op's source is wanted when the op is wanted at `idx` under `gate`."""
        key = (n.op, n.arg, n.shape, n.src[0].shape, idx, gate)
        found = self.known.get(key)
        if found is None: found = self.known[key] = move(n, idx, gate)
        return found


def add(x: UOp, c: int) -> UOp: return x if c == 0 else simplify(x + c)
def mul(x: UOp, c: int) -> UOp: return x if c == 1 else simplify(x * c)
def div(x: UOp, c: int) -> UOp: return x if c == 1 else simplify(x // c)
def mod(x: UOp, c: int) -> UOp: return ZERO if c == 1 else simplify(x % c)
def both(x: UOp, y: UOp) -> UOp: return y if x is TRUE else x if y is TRUE else simplify(x & y)


def between(x: UOp, lo: int, hi: int, gate: UOp) -> UOp:
    """gate and lo <= x < hi"""
    return both(both(gate, simplify(x >= lo)), simplify(x < hi))


def flatten(idx: Index, shape: tuple[int, ...]) -> UOp:
    """The row-major place of `idx` in `shape`."""
    parts, stride = [], 1
    for i, n in zip(reversed(idx), reversed(shape)):
        if i is not ZERO: parts.append((i, stride))
        stride *= n
    return weighted_sum(INDEX, parts)


def reshape_index(idx: Index, out: tuple[int, ...], src: tuple[int, ...]) -> Index:
    """The index into `src` of the element at `idx` of `out`, by groups of axes with equal products, so that no needless division
    appears."""
    if 0 in out: return (ZERO,) * len(src)
    result: list[UOp] = []
    i = j = 0
    while i < len(out) or j < len(src):
        oi, sj, po, ps = i, j, 1, 1
        if i < len(out): po, i = out[i], i + 1
        if j < len(src): ps, j = src[j], j + 1
        while po != ps:
            if po < ps: po, i = po * out[i], i + 1
            else: ps, j = ps * src[j], j + 1
        group_out = [(idx[a], out[a]) for a in range(oi, i) if out[a] != 1]
        group_src = [src[b] for b in range(sj, j)]
        real = [n for n in group_src if n != 1]
        if [n for _, n in group_out] == real:
            names = iter(group_out)
            result += [next(names)[0] if n != 1 else ZERO for n in group_src]
            continue
        flat = flatten(tuple(x for x, _ in group_out), tuple(n for _, n in group_out))
        stride = math.prod(group_src)
        first = True
        for n in group_src:
            stride //= n
            if n == 1:
                result.append(ZERO)
                continue
            place = div(flat, stride)
            result.append(place if first else mod(place, n))
            first = False
    return tuple(result)


def is_disjoint(n: UOp) -> bool:
    """Whether the windows of a FOLD do not overlap, so that each element is in one at most and nothing is summed."""
    return n.op is Ops.FOLD and n.arg.dilation == 1 and n.arg.size <= n.arg.stride


def move(n: UOp, idx: Index, gate: UOp) -> tuple[Index, UOp]:
    """See Axes.moved: what each movement op, and a FOLD of disjoint windows, means."""
    op, arg, x = n.op, n.arg, n.src[0]
    if op is Ops.RESHAPE: return reshape_index(idx, n.shape, x.shape), gate
    if op is Ops.EXPAND: return tuple([i if m == s else ZERO for i, m, s in zip(idx, n.shape, x.shape)]), gate
    if op is Ops.PERMUTE:
        to = [ZERO] * len(arg)
        for i, a in zip(idx, arg): to[a] = i
        return tuple(to), gate
    if op is Ops.PAD:
        for i, m, (lo, hi) in zip(idx, x.shape, arg):
            if lo or hi: gate = between(i, lo, lo + m, gate)
        return tuple([add(i, -lo) for i, (lo, _) in zip(idx, arg)]), gate
    if op is Ops.SHRINK: return tuple([add(i, s) for i, (s, _) in zip(idx, arg)]), gate
    if op is Ops.FLIP:
        return tuple([simplify(mul(i, -1) + (m - 1)) if a in arg and m > 1 else i for a, (i, m) in enumerate(zip(idx, n.shape))]), gate
    if op is Ops.UNFOLD:
        a = arg.axis
        at = simplify(mul(idx[a], arg.stride) + mul(idx[-1], arg.dilation))
        return (*idx[:a], at, *idx[a + 1:-1]), gate
    a = arg.axis
    o, k = div(idx[a], arg.stride), mod(idx[a], arg.stride)
    gate = between(o, 0, x.shape[a], gate) if x.shape[a] * arg.stride < arg.length else gate
    if arg.size < arg.stride: gate = both(gate, simplify(k < arg.size))
    return (*idx[:a], o, *idx[a + 1:], k), gate


def demands(n: UOp, idx: Index, gate: UOp, axes: Axes, gather: Callable[[UOp, Index, UOp], UOp]) -> list[Demand]:
    """Where the sources of `n` are wanted when `n` is wanted at `idx` under `gate`.

    `axes` numbers new ranges; `gather(n, idx, gate)` is the index value a GATHER reads its axis at.
    """
    op, src, arg = n.op, n.src, n.arg
    if op.is_alu or op.kind == "identity" or op is Ops.COPY:
        return [Demand(s, idx if s.shape else (), gate) for s in src]
    x = src[0] if src else None
    assert x is not None, f"{op} has no sources to want"
    if op.is_movement or is_disjoint(n): return [Demand(x, *axes.moved(n, idx, gate))]
    if op is Ops.FOLD:
        k = axes.new(arg.size, "REDUCE")
        a = arg.axis
        t = simplify(idx[a] - mul(k, arg.dilation))
        gate = between(t, 0, (x.shape[a] - 1) * arg.stride + 1, gate)
        if arg.stride > 1: gate = both(gate, simplify(mod(t, arg.stride).eq(0)))
        return [Demand(x, (*idx[:a], div(t, arg.stride), *idx[a + 1:], k), gate, () if k is ZERO else (k,))]
    if op is Ops.REDUCE:
        rest = iter(idx)
        inner = tuple(axes.new(m, "REDUCE") if a in arg.axes else next(rest) for a, m in enumerate(x.shape))
        return [Demand(x, inner, gate, tuple(r for a, r in enumerate(inner) if a in arg.axes and r is not ZERO))]
    if op is Ops.CAT:
        out, at = [], 0
        for s in src:
            here = idx[arg]
            end = at + s.shape[arg]
            g = gate if at == 0 else both(gate, simplify(here >= at))
            if end < n.shape[arg]: g = both(g, simplify(here < end))
            out.append(Demand(s, (*idx[:arg], add(here, -at), *idx[arg + 1:]), g))
            at = end
        return out
    if op is Ops.GATHER:
        at = gather(n, idx, gate)
        return [Demand(x, (*idx[:arg], at, *idx[arg + 1:]), between(at, 0, x.shape[arg], gate)), Demand(src[1], idx, gate)]
    raise CompilerBug(f"views: {op} has no indices; it must be stored")

"""Axes: a kernel as loop nests over axes, with the facts that schedules ask for, and its axes merged, split and replaced.

in:      KERNEL form
out:     facts, and KERNEL form with other axes; an edge is covered by a last tile that overlaps the one before it
source:  our own
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from glassgrad.passes.algebra import is_weighted_sum, simplify, weighted_sum
from glassgrad.passes.linearize import affine
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.infer import bounds, free_axes, linear
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, toposort

CLOSERS = {Ops.REDUCE, Ops.END}
BOUNDED = 12          # vectors of a padded row that are written out


@dataclass
class Access:
    """A LOAD or STORE and how its address moves: coefficient per axis; `wild` axes move it in no affine way.

    `value` is what a copy of it would hold: the operand of a product that is computed of it, if it can be copied.
    """
    node: UOp
    coef: dict[UOp, int]
    wild: frozenset[UOp]
    value: UOp
    def step(self, r: UOp) -> int | None: return None if r in self.wild else self.coef.get(r, 0)
    def depends(self, r: UOp) -> bool: return r in self.wild or r in self.coef


@dataclass
class Statement:
    """A closer with the accesses and operations of one turn of its innermost loop; `free` axes belong to loops around it."""
    node: UOp
    own: tuple[UOp, ...]
    free: frozenset[UOp]
    accesses: list[Access] = field(default_factory=list)
    flops: int = 0
    others: int = 0             # operations on integers that are no places
    @cached_property
    def axes(self) -> frozenset[UOp]: return self.free.union(self.own)
    @cached_property
    def trips(self) -> int: return math.prod(map(size, self.axes))
    @property
    def ops(self) -> int:
        """What one turn computes, reads and writes."""
        return len(self.accesses) + self.flops + self.others


def size(r: UOp) -> int:
    """The turns of an axis; at most, where the last of a few is shorter."""
    return r.src[0].arg if r.src[0].op is Ops.CONST else bounds(r.src[0])[1]


def may_stage(a: Access, s: Statement) -> bool:
    """Whether an operand can be copied: an input read without a gate, at places that no other input decides."""
    return len(a.node.src) == 2 and a.node.src[0].op is Ops.PARAM and not a.wild.intersection(s.own) \
        and not any(n.op is Ops.LOAD for n in a.node.src[1].toposort())


class Kernel:
    """A kernel graph with the facts that tiling asks for, each found when it is asked for first."""

    def __init__(self, sink: UOp) -> None:
        self.sink, self.root = sink, sink.src[0]

    @cached_property
    def order(self) -> list[UOp]: return self.sink.toposort()
    @cached_property
    def free(self) -> dict[UOp, frozenset[UOp]]: return {n: n._axes if n._axes is not None else free_axes(n) for n in self.order}
    @cached_property
    def accesses(self) -> dict[UOp, Access]: return {n: self._access(n) for n in self.order if n.op is Ops.LOAD or n.op is Ops.STORE}
    @cached_property
    def statements(self) -> list[Statement]:
        found = [self._statement(n) for n in self.order if n.op in CLOSERS]
        for s in found: self._name_operands(s)
        return found
    @cached_property
    def next_id(self) -> int: return 1 + max((n.arg.id for n in self.order if n.op is Ops.RANGE), default=0)

    def _access(self, n: UOp) -> Access:
        terms, _ = affine(n.src[1])
        coef = {t: c for t, c in terms.items() if t.op is Ops.RANGE}
        wild: frozenset[UOp] = frozenset().union(*(self.free[t] for t in terms if t.op is not Ops.RANGE))
        if n.src[0].op is Ops.AFTER:        # scratch has a place for each coordinate of what its values depend on, a SIMD axis innermost
            for r in self.free[n.src[0]]: coef.setdefault(r, 1)
        return Access(n, {r: c for r, c in coef.items() if r not in wild}, wild, n)

    def _statement(self, n: UOp) -> Statement:
        """What stands directly in `n`: everything below it that no other closer encloses and that changes in its loops."""
        s = Statement(n, tuple(r for r in n.src[1:] if r.op is Ops.RANGE), self.free[n])
        own, free, accesses = frozenset(s.own), self.free, self.accesses
        seen: set[UOp] = set()
        stack = [n.src[0]]
        while stack:
            m = stack.pop()
            if m in seen: continue
            seen.add(m)
            op = m.op
            if op in CLOSERS or own and own.isdisjoint(free[m]): continue
            if m in accesses: s.accesses.append(accesses[m])
            elif op.is_alu:
                if m.dtype.is_float: s.flops += op.cost
                elif m.dtype is not dtypes.int64 and not m.dtype.is_bool: s.others += op.cost
            stack += m.src[::-1]
        return s

    def _name_operands(self, s: Statement) -> None:
        """What a product is made of may be copied as it is there: widened, scaled, two elements in one."""
        if s.node.op is not Ops.REDUCE or s.node.src[0].op not in (Ops.MUL, Ops.PAIRMUL): return
        for x in s.node.src[0].src:
            inside = toposort((x,), stop=lambda n: n.op is Ops.LOAD)
            if not all(n.op.is_alu or n.op in (Ops.LOAD, Ops.CONST) for n in inside): continue
            loads = [self.accesses[n] for n in inside if n.op is Ops.LOAD]
            if all(may_stage(a, s) for a in loads):
                for a in loads: a.value = x

    def bytes(self, a: Access, s: Statement) -> int:
        """What an access reads at most while those loops around a statement stand still that all its operands follow: a batch's."""
        return math.prod(size(r) for r in self.free[a.node] if r in s.own or not all(b.depends(r) for b in s.accesses)) * a.node.dtype.itemsize

    def new_range(self, n: int | UOp, kind: str) -> UOp:
        self.next_id += 1
        return UOp.range(self.next_id - 1, n, kind, dtypes.int64)


def order_sums(k: Kernel) -> Kernel:
    """The loops of each reduction in the order of the memory that it reads, which may not be that of the axes of a view."""
    orders: dict[UOp, list[UOp]] = {}
    for s in k.statements:
        if s.node.op is not Ops.REDUCE or len(s.own) < 2 or any(a.wild.intersection(s.own) for a in s.accesses): continue
        own = sorted(s.own, key=lambda r: -max((abs(a.coef.get(r, 0)) for a in s.accesses), default=0))
        if own != list(s.own): orders[s.node] = own
    if not orders: return k
    memo: dict[UOp, UOp] = {}
    for n in k.order:
        src = tuple(memo[s] for s in (n.src[0], *orders[n])) if n in orders else tuple(memo[s] for s in n.src)
        memo[n] = n if src == n.src else n.replace(src=src)
    return Kernel(memo[k.sink])


def merge_axes(k: Kernel) -> Kernel:
    """Adjacent axes that every address walks as one become one."""
    used = {r for n in k.order if n.op.is_alu and n.dtype is not dtypes.int64 for s in n.src if s.dtype is dtypes.int64 for r in k.free[s]}
    table: dict[UOp, UOp] = {}
    for s in k.statements:
        runs: list[list[UOp]] = [[r] for r in s.own[:1]]
        for outer, inner in zip(s.own, s.own[1:]):
            if outer.arg.kind == inner.arg.kind and used.isdisjoint((outer, inner)) and _walks_as_one(k, outer, inner):
                runs[-1].append(inner)
            else: runs.append([inner])
        for run in runs:
            if len(run) == 1 or run[0] in table: continue
            table |= {r: UOp.const(dtypes.int64, 0) for r in run[:-1]} | {run[-1]: k.new_range(math.prod(map(size, run)), run[-1].arg.kind)}
    return Kernel(replace_axes(k.sink, table)) if table else k


def _walks_as_one(k: Kernel, outer: UOp, inner: UOp) -> bool:
    for a in k.accesses.values():
        if outer in a.wild or inner in a.wild: return False
        if a.coef.get(outer, 0) != size(inner) * a.coef.get(inner, 0): return False
        if len(a.node.src) > (2 if a.node.op is Ops.LOAD else 3) and {outer, inner} & k.free[a.node.src[-1]]: return False
    deps = [k.free[s.node] for s in k.statements]
    return all((outer in d) == (inner in d) for d in deps)


def replace_axes(sink: UOp, table: dict[UOp, UOp]) -> UOp:
    """The kernel with axes replaced by expressions: indices are simplified, closers close the axes that now occur.

    `table` also receives what became of every node.
    """
    memo = table
    for n in sink.toposort():
        if n in memo or n.dtype is dtypes.int64 and n is not sink and is_weighted_sum(n): continue
        for s in n.src:     # of a sum of sums only the whole is made, when something else reads it
            if s not in memo: memo[s] = _replaced_sum(s, memo)
        src = tuple([memo[s] for s in n.src])
        if src != n.src and (n.op in CLOSERS or n.op is Ops.SCAN):
            values = 2 if n.op is Ops.SCAN else 1
            src = (*src[:values], *dict.fromkeys(x for r in src[values:] for x in sorted(free_axes(r), key=lambda x: x.arg.id)))
        if src == n.src: memo[n] = n
        else: memo[n] = simplify(n.replace(src=src)) if is_place(n) else n.replace(src=src)
    return memo[sink]


def is_place(n: UOp) -> bool:
    """Whether a node is a place or a condition on places. A comparison of values is none: to simplify it would make another value of a sum
    under it, beside the one that other readers have."""
    return n.dtype is dtypes.int64 or n.dtype is dtypes.bool and all(s.dtype is dtypes.int64 or s.dtype is dtypes.bool for s in n.src)


def _replaced_sum(n: UOp, memo: dict[UOp, UOp]) -> UOp:
    terms, const = linear(n, None)
    if all(memo[t] is t for t in terms): return n
    return weighted_sum(n.dtype, [(memo[t], k) for t, k in terms.items()], const)


def split_over(k: Kernel, r: UOp, factor: int, kind: str, around: str = "") -> UOp:
    """r as outer*factor + inner; the last tile starts early where the factor does not divide, so no edge needs a mask."""
    n = size(r)
    if factor <= 1: return r
    if factor >= n: return k.new_range(n, kind)
    inner, count = k.new_range(factor, kind), math.ceil(n / factor)
    outer = k.new_range(count, around or r.arg.kind)
    base = outer * factor
    if n % factor: base = base.min(n - factor)
    return base + inner


def split_rounds(k: Kernel, r: UOp, depth: int) -> tuple[UOp, UOp]:
    """r in rounds of `depth` turns, and the axis of the rounds; the last round is shorter where the depth does not divide."""
    n = size(r)
    turn = k.new_range(math.ceil(n / depth), "LOOP")
    inner = k.new_range(depth, r.arg.kind)
    if n % depth: inner = k.new_range(simplify((n - turn * depth).min(depth)), r.arg.kind)
    return turn * depth + inner, turn


def split_lane(k: Kernel, r: UOp, vectors: int, target: Target, block: int = 1) -> tuple[UOp, UOp | None]:
    """r as tile + vector*lanes + lane, and where `block` > 1 tiles make a block, the axis of the tiles in one."""
    n, lanes = size(r), lane_width(size(r), target)
    vectors = max(1, min(vectors, n // lanes))
    lane = k.new_range(lanes, "LANE")
    width, inner = lanes * vectors, None
    base = UOp.const(dtypes.int64, 0)
    if n > width:
        count = math.ceil(n / width)
        if block >= count: base = inner = k.new_range(count, r.arg.kind)
        elif block > 1:
            base = k.new_range(math.ceil(count / block), r.arg.kind) * block
            if count % block: base = base.min(count - block)
            inner = k.new_range(block, r.arg.kind)
            base = base + inner
        else: base = k.new_range(count, r.arg.kind)
        base = base * width
        if n % width: base = base.min(n - width)
    if vectors > 1: base = base + k.new_range(vectors, "UPCAST") * lanes
    return base + lane, inner


def is_bounded_row(k: Kernel, lane: UOp, target: Target) -> bool:
    """Whether `lane` is a short row with an edge, as of a padded image: vectors side by side have constant masks, most of them none."""
    if not target.lanes <= size(lane) <= BOUNDED * target.lanes: return False
    gated = [a for a in k.accesses.values() if a.node.op is Ops.LOAD and len(a.node.src) > 2 and lane in k.free[a.node.src[2]]]
    return bool(gated) and all(a.step(lane) == 1 for a in gated) and all(s.flops < 8 for s in k.statements if lane in s.axes)


def split_row(k: Kernel, r: UOp, target: Target) -> UOp:
    """A short row as vectors side by side, the last of which may overlap the one before it."""
    n, lanes = size(r), lane_width(size(r), target)
    base: UOp = k.new_range(math.ceil(n / lanes), "UPCAST") * lanes
    return (base.min(n - lanes) if n % lanes else base) + k.new_range(lanes, "LANE")


def lane_width(n: int, target: Target) -> int:
    """The lanes an axis of length n fills: the machine's, or the largest power of two below n."""
    return min(target.lanes, 1 << (n.bit_length() - 1))

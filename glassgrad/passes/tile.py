"""Tile: split loop axes so that threads, vectors and registers get their share, by an analytic cost model.

in:      KERNEL form, every output axis is kind LOOP, every reduced axis REDUCE
out:     KERNEL form, every axis has its final kind; an edge is covered by a last tile that overlaps the one before it
source:  the space is Halide's (PLDI 2013); register tiles as in Goto & van de Geijn (ACM TOMS 2008); the model is our own

Nothing is searched: a statement (a store, a reduction, a scratch that is filled) is scored by what one turn of its innermost loop loads and computes.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from glassgrad.passes.algebra import simplify
from glassgrad.passes.kernels import stage
from glassgrad.passes.linearize import affine
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, substitute, toposort

CLOSERS = {Ops.REDUCE, Ops.END}
UNROLL = 8            # turns up to which an innermost loop is written out
FACTORS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
GRAIN = 1 << 15       # operations below which a kernel stays on one thread
CHUNKS = 16           # pieces of work a parallel kernel offers at least, where its axes allow
GATHER = 2.5          # what one strided element costs beside one element of a contiguous vector times its lanes
STREAM = 16           # bytes a cycle that a register tile may ask of the second-level cache
PANEL_BYTES = 1 << 19
FAR = 256             # bytes between the rows of an operand that no prefetcher follows
SHORT = 64            # an output row below this wastes enough of its last tile to be counted on into the next
PIECES = 8            # of work for each thread that a kernel with panels offers, where its axes allow
LINE = 16             # elements of a cache line
REFILL = 8            # tiles that a panel is at least filled for
FIRST_ROWS = 200      # scratch numbers of tiles that are copied again for each block of panels
FIRST_PANEL = 100     # scratch numbers of panels: beyond those of staged values


@dataclass
class Access:
    """A LOAD or STORE and how its address moves: coefficient per axis; `wild` axes move it in no affine way."""
    node: UOp
    coef: dict[UOp, int]
    wild: frozenset[UOp]
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
    @property
    def axes(self) -> frozenset[UOp]: return self.free | frozenset(self.own)
    @property
    def trips(self) -> int: return math.prod(size(r) for r in self.axes)


def size(r: UOp) -> int: return r.src[0].arg


class Kernel:
    """A kernel graph with the facts that tiling asks for; `apply` gives the graph with axes replaced."""

    def __init__(self, sink: UOp) -> None:
        self.sink = sink
        self.order = sink.toposort()
        self.free: dict[UOp, frozenset[UOp]] = {}
        for n in self.order:
            f = frozenset((n,)) if n.op is Ops.RANGE else frozenset().union(*(self.free[s] for s in n.src)) if n.src else frozenset()
            self.free[n] = f - frozenset(n.src[1:]) if n.op in CLOSERS else f
        self.accesses = {n: self._access(n) for n in self.order if n.op in (Ops.LOAD, Ops.STORE)}
        self.statements = [self._statement(n) for n in self.order if n.op in CLOSERS]
        self.root = self.sink.src[0]
        self.next_id = 1 + max((n.arg.id for n in self.order if n.op is Ops.RANGE), default=0)

    def _access(self, n: UOp) -> Access:
        terms, _ = affine(n.src[1])
        coef = {t: c for t, c in terms.items() if t.op is Ops.RANGE}
        wild: frozenset[UOp] = frozenset().union(*(self.free[t] for t in terms if t.op is not Ops.RANGE))
        if n.src[0].op is Ops.AFTER:        # scratch has a place for each coordinate of what its values depend on, a SIMD axis innermost
            for r in self.free[n.src[0]]: coef.setdefault(r, 1)
        return Access(n, {r: c for r, c in coef.items() if r not in wild}, wild)

    def _statement(self, n: UOp) -> Statement:
        """What stands directly in `n`: everything below it that no other closer encloses and that changes in its loops."""
        s = Statement(n, tuple(r for r in n.src[1:] if r.op is Ops.RANGE), self.free[n])
        own = frozenset(s.own)
        for m in toposort((n.src[0],), stop=lambda m: m in CLOSERS or m.op in CLOSERS):
            if m.op in CLOSERS: continue
            if own and not (self.free[m] & own): continue
            if m in self.accesses: s.accesses.append(self.accesses[m])
            elif m.op.is_alu and m.dtype.is_float: s.flops += m.op.cost
        return s

    def bytes(self, a: Access) -> int:
        """What an access reads in all, at most."""
        return math.prod(size(r) for r in self.free[a.node]) * a.node.dtype.itemsize

    def new_range(self, n: int, kind: str) -> UOp:
        self.next_id += 1
        return UOp.range(self.next_id - 1, n, kind, dtypes.int64)


def tile(sink: UOp, target: Target) -> UOp:
    """Give every axis of a kernel its final kind for `target`."""
    if any(n.op in (Ops.SORT, Ops.SCAN) or n.op is Ops.AFTER and n.src[0].op is Ops.PARAM for n in sink.toposort()):
        return parallel(Kernel(sink), target)
    k = merge_axes(Kernel(sink))
    return parallel(registers_and_lanes(k, target) if target.lanes > 1 else k, target)


# ---- merging adjacent axes -------------------------------------------------------------------------------------------------------
def merge_axes(k: Kernel) -> Kernel:
    """Adjacent axes that every address walks as one become one."""
    used = {r for n in k.order if n.op.is_alu and n.dtype is not dtypes.int64 for s in n.src if s.dtype is dtypes.int64 for r in k.free[s]}
    table: dict[UOp, UOp] = {}
    for s in k.statements:
        runs: list[list[UOp]] = [[r] for r in s.own[:1]]
        for outer, inner in zip(s.own, s.own[1:]):
            if outer.arg.kind == inner.arg.kind and used.isdisjoint((outer, inner)) and _walks_as_one(k, outer, inner): runs[-1].append(inner)
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
        if n in memo: continue
        if n.op in CLOSERS:
            own: dict[UOp, None] = {}
            for r in n.src[1:]:
                new = memo[r]
                for x in sorted((x for x in new.toposort() if x.op is Ops.RANGE), key=lambda x: x.arg.id): own[x] = None
            memo[n] = n.replace(src=(memo[n.src[0]], *own))
            continue
        src = tuple(memo[s] for s in n.src)
        if src == n.src: memo[n] = n
        else: memo[n] = simplify(n.replace(src=src)) if n.dtype is dtypes.int64 or n.dtype is dtypes.bool else n.replace(src=src)
    return memo[sink]


# ---- registers and lanes ---------------------------------------------------------------------------------------------------------
def lane_width(n: int, target: Target) -> int:
    """The lanes an axis of length n fills: the machine's, or the largest power of two below n."""
    return min(target.lanes, 1 << (n.bit_length() - 1))


def lane_cost(s: Statement, lane: UOp | None, target: Target) -> float:
    """Cycles of all turns of a statement when `lane` is its SIMD axis."""
    if lane is None or lane not in s.axes:
        return s.trips * (max(len(s.accesses), 1) + s.flops)
    lanes = lane_width(size(lane), target)
    waste = math.ceil(size(lane) / lanes) * lanes / size(lane)
    steps = {0: 0.7, 1: 1.0, 2: 3.0, None: GATHER * 1.3 * lanes}
    per = sum(steps.get(a.step(lane), GATHER * lanes) for a in s.accesses) + s.flops
    cost = s.trips * waste * max(per, 0.5) / lanes
    if s.node.op is Ops.REDUCE and lane in s.own:
        cost += math.prod(size(r) for r in s.free) * 2.5 * math.log2(lanes)
    return cost


def best_lane(s: Statement, axes: tuple[UOp, ...], target: Target) -> tuple[float, UOp | None]:
    """The cheapest of `axes` as SIMD axis of a statement, and what it costs; None if scalars are cheaper."""
    options = [(lane_cost(s, r, target), -i, r) for i, r in enumerate(axes) if size(r) > 1]
    best = min(options, key=lambda o: o[:2], default=None)
    plain = lane_cost(s, None, target)
    return (best[0], best[2]) if best is not None and best[0] < plain else (plain, None)


def registers_and_lanes(k: Kernel, target: Target) -> Kernel:
    """Choose the SIMD axes, then register tiles for what is reused or long."""
    if k.root.op is not Ops.END: return own_lanes(k, target)
    best = make_plan(k, target)
    if best.cost > 1.15 * least_cycles(k, target) and (flat := flat_output(k)) is not None:
        best = min(best, make_plan(Kernel(flat), target), key=lambda p: p.cost)
    return own_lanes(best.apply(target), target)


def lines_across(k: Kernel, lane: UOp) -> UOp | None:
    """The axis along which cache lines lie that vectors along `lane` only touch one element of: it is walked by lines."""
    for a in k.accesses.values():
        step = a.step(lane)
        if step is None or abs(step) * a.node.src[0].dtype.itemsize < FAR: continue
        for r in k.root.src[1:]:
            if a.step(r) == 1 and size(r) >= 2 * LINE: return r
    return None


def least_cycles(k: Kernel, target: Target) -> float:
    """What the contractions of a kernel take if every tile is full and nothing waits."""
    return sum(s.trips for s in k.statements if is_contraction(s)) / target.lanes / 2


@dataclass
class Plan:
    """What a kernel's axes become: the SIMD axis of its store, register tiles, panels, and the cycles that is thought to take."""
    kernel: Kernel
    cost: float
    lane: UOp | None
    tiles: dict[UOp, int]
    panels: list[UOp]
    rows: list[UOp]
    unrolled: list[UOp]

    def apply(self, target: Target) -> Kernel:
        """The kernel with those axes split."""
        k, lane = self.kernel, self.lane
        table = {r: split_over(k, r, f, "UPCAST") for r, f in self.tiles.items() if r is not lane}
        table |= {r: k.new_range(size(r), "UNROLL") for r in self.unrolled}
        block = across = None
        if lane is not None:
            tiled = any(is_contraction(s) and lane in s.free for s in k.statements)
            across = lines_across(k, lane) if len(k.statements) == 1 else None
            if across is not None: table[across] = split_over(k, across, LINE, "LOOP")
            vectors = self.tiles.get(lane, 1) if tiled else 1 if across is not None else elementwise_vectors(k, lane, target)
            table[lane], block = split_lane(k, lane, vectors, target, self.block(vectors, target))
        memo: dict[UOp, UOp] = dict(table)
        sink = replace_axes(k.sink, memo)
        if across is not None:        # the steps within a line go innermost
            within = min((r for r in table[across].toposort() if r.op is Ops.RANGE), key=lambda r: r.arg.id)
            root = sink.src[0]
            sink = sink.replace(src=(root.replace(src=(root.src[0], *sorted(root.src[1:], key=lambda r: r is within))),))
        if not self.panels: return Kernel(sink)
        return merge_axes(stage_panels(Kernel(sink), [memo[n] for n in self.panels], [memo[n] for n in self.rows], block, target))

    def block(self, vectors: int, target: Target) -> int:
        """How many tiles along the SIMD axis share what a tile of the other operand brings near: as many panels as half of L2 holds."""
        k, lane, most = self.kernel, self.lane, 1 << 30
        if lane is None or not self.panels: return 1
        count = math.ceil(size(lane) / (lane_width(size(lane), target) * vectors))
        for n in self.panels:
            a = k.accesses[n]
            axes = [r for r in k.free[n] if r is not lane]
            depth = math.prod(size(r) if r.arg.kind == "REDUCE" else self.tiles.get(r, 1) for r in axes)
            most = min(most, target.l2_bytes // 2 // (depth * vectors * lane_width(size(lane), target) * a.node.dtype.itemsize))
        other = max((k.bytes(a) for s in k.statements if is_contraction(s) for a in s.accesses if not a.depends(lane)), default=0)
        if most < 2 or other < target.l2_bytes // 2 or sum(lane in s.axes for s in k.statements) > 2: return 1
        return min(range(min(most, count), 0, -1), key=lambda b: (round(math.ceil(count / b) * b / count, 2), -b))


def flat_output(k: Kernel) -> UOp | None:
    """The kernel of a contraction whose last two output axes are counted as one: no tile ends at the end of a short row.

    What an operand reads is then no affine function of the axis: it is staged, or read element by element.
    """
    store = k.accesses.get(k.root.src[0])
    if store is None or not any(is_contraction(s) for s in k.statements): return None
    own = [r for r in k.root.src[1:] if r.op is Ops.RANGE]
    frees = [k.free[s.node] for s in k.statements]
    for outer, inner in zip(own[-2::-1], own[:0:-1]):
        if store.wild or store.coef.get(outer, 0) != size(inner) * store.coef.get(inner, 0) or size(inner) >= SHORT: continue
        if any((outer in f) != (inner in f) for f in frees): continue
        flat = k.new_range(size(outer) * size(inner), "LOOP")
        return replace_axes(k.sink, {outer: flat // size(inner), inner: flat % size(inner)})
    return None


def make_plan(k: Kernel, target: Target) -> Plan:
    """The cheapest SIMD axis of a kernel's store with what goes with it."""
    root = next(s for s in k.statements if s.node is k.root)
    inner = sorted((s for s in k.statements if is_contraction(s)), key=lambda s: -s.trips)
    plain = [s for s in k.statements if s not in inner]

    def plan(lane: UOp | None) -> Plan:
        cost = sum(lane_cost(s, lane, target) if lane is not None and lane in s.axes
                   else best_lane(s, s.own if s is not root else (), target)[0] for s in plain)
        tiles: dict[UOp, int] = {}
        panels: list[UOp] = []
        rows: list[UOp] = []
        unrolled: list[UOp] = []
        for s in inner:
            own = lane if lane in s.axes else best_lane(s, s.own, target)[1]
            cycles, tile = register_tile(s, own, target, tiles)
            tiles |= tile
            cost += cycles * (1.0 if lane in s.axes else thrash(s, target))
            if lane is None or lane not in s.free: continue
            panels += [a.node for a in s.accesses if wants_panel(a, s, lane, tiles, target)]
            rows += [a.node for a in s.accesses
                     if a.step(lane) == 0 and may_stage(a, s) and is_far(a, s, all) and any(r in tiles for r in a.coef)]
            if chain(s, [a for a in s.accesses if a.node not in panels])[1] > 1: unrolled.append(s.own[-1])
        return Plan(k, cost, lane, tiles, panels, rows, unrolled)
    return min((plan(r) for r in (*(r for r in reversed(root.own) if size(r) > 1), None)), key=lambda p: p.cost)


def thrash(s: Statement, target: Target) -> float:
    """How much slower a contraction with its SIMD axis inside gets when the rows of its tile leave the first-level cache."""
    return 1.7 if 7 * 4 * math.prod(size(r) for r in s.own) > target.l1_bytes else 1.0


def is_contraction(s: Statement) -> bool:
    """Whether a statement is a reduction that reads some operand again along an axis around it, so that a register tile pays."""
    return s.node.op is Ops.REDUCE and any(a.depends(r) for a in s.accesses for r in s.free) \
        and any(not a.depends(r) for r in s.free if r.arg.kind == "LOOP" and size(r) > 1 for a in s.accesses)


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


def elementwise_vectors(k: Kernel, lane: UOp, target: Target) -> int:
    """How many vectors a turn of a loop that is no contraction computes: fewer where each is heavy on registers."""
    heavy = sum(s.flops for s in k.statements)
    columns = any(s.node.op is Ops.REDUCE and lane in s.free and is_far(a, s, all) for s in k.statements for a in s.accesses)
    want = 1 if heavy > 60 else 2 if heavy > 12 else target.registers // 2 if columns else 4     # far rows: as many lines of each as fit
    while want > 1 and size(lane) < want * target.lanes: want //= 2
    return want


def register_tile(s: Statement, lane: UOp | None, target: Target, fixed: dict[UOp, int]) -> tuple[float, dict[UOp, int]]:
    """(cycles, factors): the tile over up to two axes around a reduction (the SIMD axis counts in vectors) that makes it cheapest.

    `fixed` are factors that other statements have chosen already.
    """
    lanes = lane_width(size(lane), target) if lane is not None else 1
    around = sorted((r for r in s.free if r.arg.kind == "LOOP" and r not in fixed), key=lambda r: r.arg.id)
    extent = {r: size(r) // lanes if r is lane else size(r) for r in around}
    ways = [r for r in around if extent[r] > 1 and any(not a.depends(r) for a in s.accesses)]
    given = {r: f for r, f in fixed.items() if r in s.free}
    staged = {a.node: panel_fill(a, s, lane, target) for a in s.accesses} if lane is not None and lane in s.free else {}
    turns, unrolled = chain(s, [a for a in s.accesses if staged.get(a.node) is None])
    turn = 0.75 / unrolled + 3 / turns
    ops: list[tuple[Access, int, float, int]] = []      # access, copies of the fixed tile, cycles of one copy, bytes it streams
    for a in s.accesses:
        moves = lane is not None and a.depends(lane)
        load = 1.0 if staged.get(a.node) is not None or not moves or a.step(lane) == 1 else GATHER * lanes / 2  # type: ignore[arg-type]
        ops.append((a, math.prod(f for r, f in given.items() if a.depends(r)), load, lanes * a.node.dtype.itemsize if moves else 0))
    base = math.prod(given.values())

    def score(x: UOp | None, fx: int, y: UOp | None, fy: int) -> float:
        accs, loads, streamed, live = base * fx * fy, 0.0, 0, 1 << 30
        for a, copies, load, stream in ops:
            if x is not None and a.depends(x): copies *= fx
            if y is not None and a.depends(y): copies *= fy
            loads += copies * load
            streamed += copies * stream
            live = min(live, copies)
        if accs + live + 1 > target.registers: return math.inf
        cycles = max(accs / 2, loads / 2, streamed / STREAM, 4.0 if accs < 8 else 0.0) + turn
        for r, f in ((x, fx), (y, fy)):
            if r is not None: cycles *= _waste(size(r), f * lanes if r is lane else f)
        if lane is not None and lane is not x and lane is not y and lane not in given: cycles *= _waste(size(lane), lanes)
        return cycles / accs
    best = (score(None, 1, None, 1), {}) # type: tuple[float, dict[UOp, int]]
    if best[0] is math.inf: best = (float(base), {})
    readers = {r: [a.depends(r) for a in s.accesses] for r in ways}      # two axes that the same operands read tile no better than one
    for i, x in enumerate(ways):
        for y in [y for y in ways[i + 1:] if readers[y] != readers[x]] or (None,):
            for fx in FACTORS:
                if fx > extent[x] or base * fx >= target.registers: break
                for fy in FACTORS if y is not None else (1,):
                    if base * fx * fy >= target.registers or y is not None and fy > extent[y]: break
                    sc = score(x, fx, y, fy)
                    if sc < best[0] * 0.999: best = (sc, {x: fx} | ({y: fy} if y is not None else {}))
    cycles = s.trips / lanes * best[0] + sum(f for f in staged.values() if f is not None)
    if lane is not None and lane in s.own: cycles += math.prod(size(r) for r in s.free) * 2.5 * math.log2(max(lanes, 2))
    return cycles, {r: f for r, f in best[1].items() if f > 1}


def panel_fill(a: Access, s: Statement, lane: UOp, target: Target) -> float | None:
    """The cycles of copying an operand into panels that vectors along `lane` read badly; None where they read it well, or it cannot be."""
    if a.step(lane) == 0 or not may_stage(a, s): return None
    reuse = math.prod(size(r) for r in s.free if not a.depends(r))
    if a.step(lane) == 1: return s.trips / reuse * 2 / lane_width(size(lane), target) if reuse >= 64 and is_far(a, s) else None
    return s.trips / reuse * GATHER if reuse >= 16 else None


def chain(s: Statement, direct: list[Access]) -> tuple[int, int]:
    """(turns between two ends of the innermost loop, copies of its body): loops run as one where what is read without a copy walks
    through them in one line; a short one that cannot is unrolled."""
    turns = size(s.own[-1]) if s.own else 1
    for outer, inner in zip(s.own[-2::-1], s.own[:0:-1]):
        if any(outer in a.wild or a.coef.get(outer, 0) != size(inner) * a.coef.get(inner, 0) for a in direct):
            return (turns * size(outer), turns) if turns == size(inner) <= UNROLL else (turns, 1)
        turns *= size(outer)
    return turns, 1


def may_stage(a: Access, s: Statement) -> bool:
    """Whether an operand can be copied: an input read without a gate, at places that no other input decides."""
    return len(a.node.src) == 2 and a.node.src[0].op is Ops.PARAM and not a.wild.intersection(s.own) \
        and not any(n.op is Ops.LOAD for n in a.node.src[1].toposort())


def _waste(n: int, f: int) -> float: return math.ceil(n / f) * f / n


def wants_panel(a: Access, s: Statement, lane: UOp, tiles: dict[UOp, int], target: Target) -> bool:
    """Whether an operand is copied into a panel in reading order: it is strided, or its rows are far apart and read often."""
    if a.step(lane) == 0 or not may_stage(a, s): return False
    reuse = math.prod(math.ceil(size(r) / tiles.get(r, 1)) for r in s.free if not a.depends(r))
    depth = math.prod(size(r) for r in s.own if a.depends(r))
    width = lane_width(size(lane), target) * math.prod(tiles.get(r, 1) for r in s.free if a.depends(r))
    if depth * width * a.node.dtype.itemsize > PANEL_BYTES or reuse < 8: return False
    return a.step(lane) != 1 or (depth > 64 and is_far(a, s))


def is_far(a: Access, s: Statement, which: Callable[[Iterable[bool]], bool] = any) -> bool:
    """Whether (some or all axes of) the reduction step so far in an operand that each turn reads another cache line."""
    return which(abs(c) * a.node.dtype.itemsize >= FAR for r, c in a.coef.items() if r in s.own)


def stage_panels(k: Kernel, panels: list[UOp], rows: list[UOp], block: UOp | None, target: Target) -> Kernel:
    """Replace operands by copies in scratch, in the order the inner loops read them.

    Panels along the SIMD axis, one for each tile of a `block`, are filled once for all the loops they do not depend on, or once for each
    thread's share of those; the tile of the other operand (`rows`) is copied for the tiles of one block.
    """
    swaps: dict[UOp, UOp] = {}
    outer: frozenset[UOp] = frozenset()
    for node in panels + (rows if block is not None else []):
        deep = sorted((r for r in k.free[node] if r.arg.kind in ("REDUCE", "UNROLL")), key=lambda r: r.arg.id)
        tile = sorted((r for r in k.free[node] if r.arg.kind in ("UPCAST", "LANE")), key=lambda r: (r.arg.kind == "LANE", r.arg.id))
        tiles = (block,) if block is not None and block in k.free[node] else ()
        copies = {r: k.new_range(size(r), r.arg.kind if r in tile else "LOOP") for r in (*tiles, *deep, *tile)}
        if node in panels: outer |= k.free[node].difference(copies)
        place = [UOp.const(dtypes.int64, 0)] * 2
        for r in copies: place = [simplify(at * size(r) + x) for at, x in zip(place, (copies[r], r))]
        number = len(swaps) + (FIRST_PANEL if node in panels else FIRST_ROWS)
        panel = stage(replace_axes(node, dict(copies)), place[0], tuple(copies.values()), number, math.prod(map(size, copies)))
        swaps[node] = UOp(Ops.LOAD, node.dtype, (panel, place[1]))
    sink = substitute((k.sink,), swaps)[0]
    own = sorted(sink.src[0].src[1:], key=lambda r: (r not in outer, r is block))
    sink = sink.replace(src=(sink.src[0].replace(src=(sink.src[0].src[0], *own)),))
    chunks = math.prod(size(r) for r in own if r in outer)
    inside = [s.free for s in k.statements if s.node is not k.root and not any(r.arg.kind in ("REDUCE", "UNROLL") for r in s.free)]
    inner = [r for r in own if r not in outer and r is not block and r.arg.kind == "LOOP" and all(r in free for free in inside)]
    parts = min(PIECES * target.threads // chunks, math.prod(map(size, inner)) // REFILL) if target.threads > 1 else 1
    shares: dict[UOp, UOp] = {}
    for r in sorted(inner, key=size, reverse=True):
        if parts < 2: break
        share = min(parts, size(r))
        shares[r] = split_over(k, r, math.ceil(size(r) / share), "LOOP", "GLOBAL") if share < size(r) else k.new_range(share, "GLOBAL")
        parts //= share
    return Kernel(replace_axes(sink, shares) if shares else sink)


# ---- reductions and stages with SIMD axes of their own -----------------------------------------------------------------------------
def own_lanes(k: Kernel, target: Target) -> Kernel:
    """Statements that depend on no SIMD axis yet get one of their own; long sums get several accumulators."""
    done: set[UOp] = set()
    while True:
        lanes = {n for n in k.order if n.op is Ops.RANGE and n.arg.kind == "LANE"}
        s = next((s for s in reversed(k.statements) if s.own and not (s.axes & lanes) and not done.intersection(s.own)), None)
        if s is None: return k
        done.update(s.own)
        lane = own_lane(k, s, target) if s.node is not k.root else None
        if lane is None: continue
        if s.node.op is Ops.REDUCE: k = Kernel(lane_reduce(k, s, lane, target))
        else:
            vectors = 2 if s.flops < 40 and size(lane) >= 4 * target.lanes else 1
            k = Kernel(replace_axes(k.sink, {lane: split_lane(k, lane, vectors, target)[0]}))


def own_lane(k: Kernel, s: Statement, target: Target) -> UOp | None:
    """The best SIMD axis among a statement's own, weighed with the statements inside that would share it instead of having their own."""
    best, choice = 0.0, None
    for r in s.own:
        if size(r) < 4: continue
        inside = [t for t in k.statements if r in t.axes]
        gain = sum((best_lane(t, t.own, target)[0] if t is not s else lane_cost(t, None, target)) - lane_cost(t, r, target) for t in inside)
        if gain > best: best, choice = gain, r
    return choice


def lane_reduce(k: Kernel, s: Statement, lane: UOp, target: Target) -> UOp:
    """A reduction over lanes of `lane`: whole vectors first, the rest one by one."""
    n, lanes = size(lane), lane_width(size(lane), target)
    op = s.node.arg.op
    tiles = math.prod(size(r) for r in k.free[s.node] if r.arg.kind == "UPCAST")
    accs = 1 if tiles >= 4 else 4 if s.flops < 8 and not tiles > 1 else 2
    while accs > 1 and n < 4 * accs * lanes: accs //= 2
    width = lanes * accs
    main = n // width * width
    vec = k.new_range(lanes, "LANE")
    at: UOp = vec if accs == 1 else k.new_range(accs, "UPCAST") * lanes + vec
    if main > width: at = k.new_range(main // width, "REDUCE") * width + at
    whole = replace_axes(s.node, {lane: at})
    if main < n:
        rest: UOp = k.new_range(n - main, "REDUCE") + main if n - main > 1 else UOp.const(dtypes.int64, main)
        stale = dict.fromkeys(s.own)         # what changes with them needs loops of its own, and so on inwards
        for c in reversed(s.node.toposort()):
            if c.op in CLOSERS and k.free[c].intersection(stale): stale |= dict.fromkeys(r for r in c.src[1:] if r.op is Ops.RANGE)
        fresh = {r: k.new_range(size(r), r.arg.kind) for r in stale if r is not lane}
        tail = replace_axes(s.node, {lane: rest} | fresh)
        if len(tail.src) == 1: tail = tail.src[0]
        whole = whole.alu(op, tail)
    return substitute((k.sink,), {s.node: whole})[0]


# ---- threads ---------------------------------------------------------------------------------------------------------------------
def parallel(k: Kernel, target: Target) -> UOp:
    """Hand outer axes to threads: GLOBAL on a CPU, GLOBAL and LOCAL where there are workgroups."""
    sink = k.sink
    if k.root.op is not Ops.END: return sink
    root = next(s for s in k.statements if s.node is k.root)
    loops = [r for r in root.own if r.arg.kind == "LOOP"]
    staged = [s for s in k.statements if s.node is not k.root and s.node.op is Ops.END]
    shared = [s.free for s in staged if not is_refilled(s.node)]
    shared += [s.free for s in k.statements if s.node.op is Ops.REDUCE and not any(x.arg.kind == "REDUCE" for x in s.free)]
    scanned = {n.src[1] for n in k.order if n.op is Ops.SCAN}
    outer = [r for r in loops if r not in scanned and all(r in f for f in shared)]
    # the axis of a SCAN goes innermost: the running value starts anew for each place on the other axes
    order = sorted(root.own, key=lambda r: (r in scanned, r.arg.kind != "GLOBAL" and r not in outer, -sum(r in f for f in shared)))
    kinds: dict[UOp, UOp] = {}
    work = sum(s.trips * (s.flops + len(s.accesses)) for s in k.statements)
    if target.has_grid:
        threads = 1
        for r in reversed(outer):
            n = size(r)
            if threads == 1 and (local := _local(n, target)) > 1:
                threads = local
                inner = k.new_range(local, "LOCAL")
                kinds[r] = inner if local == n else k.new_range(n // local, "GLOBAL") * local + inner
            else: kinds[r] = k.new_range(n, "GLOBAL")
    elif work >= GRAIN:
        count = math.prod(size(r) for r in root.own if r.arg.kind == "GLOBAL")
        for r in outer:
            kinds[r] = k.new_range(size(r), "GLOBAL")
            count *= size(r)
            if count >= CHUNKS: break
    sink = sink.replace(src=(k.root.replace(src=(k.root.src[0], *order)),))
    return replace_axes(sink, kinds) if target.has_grid else substitute((sink,), kinds)[0]


def is_refilled(end: UOp) -> bool:
    """Whether an END fills scratch that is filled again for each turn of loops it does not depend on."""
    place = end.src[0].src[0] if end.src[0].op is Ops.STORE else end
    return place.op is Ops.SCRATCH and place.arg.id >= FIRST_ROWS


def _local(n: int, target: Target) -> int:
    """The largest divisor of n that fits a workgroup comfortably."""
    return max((d for d in range(1, min(n, 256, target.max_local) + 1) if n % d == 0), default=1)

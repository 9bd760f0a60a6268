"""Tile: split loop axes so that threads, vectors and registers get their share, by an analytic cost model.

in:      KERNEL form, every output axis is kind LOOP, every reduced axis REDUCE
out:     KERNEL form, every axis has its final kind; an edge is covered by a last tile that overlaps the one before it
source:  the space is Halide's (PLDI 2013); register tiles as in Goto & van de Geijn (ACM TOMS 2008); the model is our own

Nothing is searched: a statement (a store, a reduction, a scratch that is filled) is scored by what one turn of its innermost loop loads and computes.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field

from glassgrad.passes.algebra import simplify
from glassgrad.passes.kernels import stage
from glassgrad.passes.linearize import affine
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, substitute, toposort

CLOSERS = {Ops.REDUCE, Ops.END}
FACTORS = (1, 2, 3, 4, 5, 6, 8)
GRAIN = 1 << 15       # operations below which a kernel stays on one thread
CHUNKS = 16           # pieces of work a parallel kernel offers at least, where its axes allow
GATHER = 2.5          # what one strided element costs beside one element of a contiguous vector times its lanes
STREAM = 16           # bytes a cycle that a register tile may ask of the second-level cache
PANEL_BYTES = 1 << 19
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

    def new_range(self, n: int, kind: str) -> UOp:
        self.next_id += 1
        return UOp.range(self.next_id - 1, n, kind, dtypes.int64)


def tile(sink: UOp, target: Target) -> UOp:
    """Give every axis of a kernel its final kind for `target`."""
    if any(n.op in (Ops.SORT, Ops.SCAN) or n.op is Ops.AFTER and n.src[0].op is Ops.PARAM for n in sink.toposort()):
        return parallel(sink, target)
    sink = merge_axes(sink)
    if target.lanes > 1: sink = registers_and_lanes(sink, target)
    return parallel(sink, target)


# ---- merging adjacent axes -------------------------------------------------------------------------------------------------------
def merge_axes(sink: UOp) -> UOp:
    """Two axes that every address walks as one become one."""
    while True:
        k = Kernel(sink)
        used = {r for n in k.order if n.op.is_alu and n.dtype is not dtypes.int64 for s in n.src if s.dtype is dtypes.int64 for r in k.free[s]}
        pair = next((p for s in k.statements for p in zip(s.own, s.own[1:]) if p[0] not in used and p[1] not in used and _walks_as_one(k, *p)), None)
        if pair is None: return sink
        outer, inner = pair
        merged = k.new_range(size(outer) * size(inner), inner.arg.kind)
        sink = replace_axes(sink, {outer: UOp.const(dtypes.int64, 0), inner: merged})


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
    per = sum({0: 0.7, 1: 1.0}.get(a.step(lane), GATHER * lanes) if (c := a.step(lane)) is not None else GATHER * 1.3 * lanes for a in s.accesses) + s.flops
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


def registers_and_lanes(sink: UOp, target: Target) -> UOp:
    """Choose the SIMD axes, then register tiles for what is reused or long."""
    k = Kernel(sink)
    root = next(s for s in k.statements if s.node is k.root) if k.root.op is Ops.END else None
    if root is None: return own_lanes(sink, target)

    def total(lane: UOp | None) -> float:
        cost = 0.0
        for s in k.statements:
            if lane is not None and lane in s.axes:
                packed = panel_cost(s, lane, target)
                cost += min(lane_cost(s, lane, target), packed) if packed is not None else lane_cost(s, lane, target)
            else: cost += best_lane(s, s.own if s is not root else (), target)[0] * (thrash(s, target) if is_contraction(s) else 1)
        return cost
    options = [(total(r), -i, r) for i, r in enumerate(root.own) if size(r) > 1] + [(total(None), 1, None)]
    lane = min(options, key=lambda o: o[:2])[2]
    tile_of: dict[UOp, int] = {}
    panels: list[UOp] = []
    for s in sorted((s for s in k.statements if is_contraction(s)), key=lambda s: -s.trips):
        own = lane if lane in s.axes else best_lane(s, s.own, target)[1]
        tile_of |= register_tile(s, own, target, tile_of)
        if lane in s.axes: panels += [a.node for a in s.accesses if wants_panel(a, s, lane, tile_of, target)]
    table = {r: split_over(k, r, f, "UPCAST") for r, f in tile_of.items() if r is not lane}
    if lane is not None:
        vectors = tile_of.get(lane, 1) if any(is_contraction(s) and lane in s.free for s in k.statements) else elementwise_vectors(k, lane, target)
        table[lane] = split_lane(k, lane, vectors, target)
    memo: dict[UOp, UOp] = dict(table)
    sink = replace_axes(sink, memo)
    if panels: sink = stage_panels(sink, [memo[n] for n in panels])
    return own_lanes(sink, target)


def thrash(s: Statement, target: Target) -> float:
    """How much slower a contraction with its SIMD axis inside gets when the rows of its tile leave the first-level cache."""
    return 1.7 if 7 * 4 * math.prod(size(r) for r in s.own) > target.l1_bytes else 1.0


def is_contraction(s: Statement) -> bool:
    """Whether a statement is a reduction that reads some operand again along an axis around it, so that a register tile pays."""
    return s.node.op is Ops.REDUCE and any(a.depends(r) for a in s.accesses for r in s.free) \
        and any(not a.depends(r) for r in s.free if r.arg.kind == "LOOP" and size(r) > 1 for a in s.accesses)


def split_over(k: Kernel, r: UOp, factor: int, kind: str) -> UOp:
    """r as outer*factor + inner; the last tile starts early where the factor does not divide, so no edge needs a mask."""
    n = size(r)
    if factor <= 1: return r
    if factor >= n: return k.new_range(n, kind)
    inner, count = k.new_range(factor, kind), math.ceil(n / factor)
    outer = k.new_range(count, r.arg.kind)
    base = outer * factor
    if n % factor: base = base.min(n - factor)
    return base + inner


def split_lane(k: Kernel, r: UOp, vectors: int, target: Target) -> UOp:
    """r as tile + vector*lanes + lane."""
    n, lanes = size(r), lane_width(size(r), target)
    vectors = max(1, min(vectors, n // lanes))
    lane = k.new_range(lanes, "LANE")
    width = lanes * vectors
    base = UOp.const(dtypes.int64, 0)
    if n > width:
        outer = k.new_range(math.ceil(n / width), r.arg.kind)
        base = outer * width
        if n % width: base = base.min(n - width)
    if vectors > 1: base = base + k.new_range(vectors, "UPCAST") * lanes
    return base + lane


def elementwise_vectors(k: Kernel, lane: UOp, target: Target) -> int:
    """How many vectors a turn of an elementwise loop computes: fewer where each is heavy on registers."""
    heavy = sum(s.flops for s in k.statements)
    want = 1 if heavy > 60 else 2 if heavy > 12 else 4
    while want > 1 and size(lane) < want * target.lanes: want //= 2
    return want


def register_tile(s: Statement, lane: UOp | None, target: Target, fixed: dict[UOp, int]) -> dict[UOp, int]:
    """Factors for up to two axes around a reduction (the SIMD axis counts in vectors) that make a turn of it cheapest.

    `fixed` are factors that other statements have chosen already.
    """
    lanes = lane_width(size(lane), target) if lane is not None else 1
    around = sorted((r for r in s.free if r.arg.kind == "LOOP" and r not in fixed), key=lambda r: r.arg.id)
    ways = [r for r in around if size(r) > 1 and (r is not lane or size(r) >= 2 * lanes) and any(not a.depends(r) for a in s.accesses)]
    given = {r: f for r, f in fixed.items() if r in s.free}

    def extent(r: UOp) -> int: return size(r) // lanes if r is lane else size(r)
    def score(tile: dict[UOp, int]) -> float:
        tile = given | tile
        accs = math.prod(tile.values())
        loads, streamed = 0.0, 0
        for a in s.accesses:
            copies = math.prod(f for r, f in tile.items() if a.depends(r) or (r is lane and a.step(lane) != 0))
            strided = lane is not None and a.step(lane) not in (0, 1)
            loads += copies * (GATHER * lanes / 2 if strided else 1)
            if lane is not None and a.depends(lane): streamed += copies * lanes * a.node.dtype.itemsize
        live = min((math.prod(f for r, f in tile.items() if a.depends(r)) for a in s.accesses), default=0)
        if accs + live + 1 > target.registers: return math.inf
        cycles = max(accs / 2, loads / 2, streamed / STREAM, 4.0 if accs < 8 else 0.0) + 0.75
        waste = math.prod(_waste(size(r), f * (lanes if r is lane else 1)) for r, f in tile.items())
        return cycles / accs * waste
    best: tuple[float, dict[UOp, int]] = (score({}), {})
    for i, x in enumerate(ways):
        for fx in FACTORS:
            if fx > extent(x): break
            for y in ways[i + 1:] or [None]:  # type: ignore[list-item]
                for fy in FACTORS if y is not None else (1,):
                    if y is not None and fy > extent(y): break
                    tile = {x: fx} | ({y: fy} if y is not None else {})
                    sc = score(tile)
                    if sc < best[0] * 0.999: best = (sc, tile)
    return {r: f for r, f in best[1].items() if f > 1}


def _waste(n: int, f: int) -> float: return math.ceil(n / f) * f / n


def panel_cost(s: Statement, lane: UOp, target: Target) -> float | None:
    """The cost of a reduction on `lane` when its strided operands are first copied into panels; None where that cannot be."""
    bad = [a for a in s.accesses if a.step(lane) not in (0, 1)]
    if s.node.op is not Ops.REDUCE or not bad or lane not in s.free: return None
    if any(a.wild or len(a.node.src) > 2 or a.node.src[0].op is not Ops.PARAM for a in bad): return None
    lanes = lane_width(size(lane), target)
    cost = s.trips * (len(s.accesses) + s.flops) / lanes
    for a in bad:
        reuse = math.prod(size(r) for r in s.free if not a.depends(r))
        if reuse < 16: return None
        cost += s.trips / reuse * GATHER
    return cost


def wants_panel(a: Access, s: Statement, lane: UOp, tile_of: dict[UOp, int], target: Target) -> bool:
    """Whether an operand is copied into a panel in reading order: it is strided, or its rows are far apart and read often."""
    if a.wild or len(a.node.src) > 2 or a.node.src[0].op is not Ops.PARAM or a.step(lane) == 0: return False
    reuse = math.prod(size(r) / tile_of.get(r, 1) for r in s.free if not a.depends(r))
    depth = math.prod(size(r) for r in s.own if a.depends(r))
    width = lane_width(size(lane), target) * tile_of.get(lane, 1)
    if any(r in tile_of for r in a.coef if r is not lane): return False
    if depth * width * 4 > PANEL_BYTES or reuse < 8: return False
    far = any(abs(c) * a.node.dtype.itemsize >= 1024 for r, c in a.coef.items() if r in s.own)
    return a.step(lane) != 1 or (far and depth > 64)


def stage_panels(sink: UOp, loads: list[UOp]) -> UOp:
    """Replace operands by panels in scratch over their reduced and register axes, filled once for all the loops they do not depend on."""
    k = Kernel(sink)
    swaps: dict[UOp, UOp] = {}
    outer: frozenset[UOp] = frozenset()
    for node in loads:
        deep = sorted((r for r in k.free[node] if r.arg.kind == "REDUCE"), key=lambda r: r.arg.id)
        tile = sorted((r for r in k.free[node] if r.arg.kind in ("UPCAST", "LANE")), key=lambda r: (r.arg.kind == "LANE", r.arg.id))
        copies = {r: k.new_range(size(r), "LOOP" if r in deep else r.arg.kind) for r in (*deep, *tile)}
        outer |= k.free[node].difference(copies)
        place = [UOp.const(dtypes.int64, 0)] * 2
        for r in copies: place = [simplify(at * size(r) + x) for at, x in zip(place, (copies[r], r))]
        panel = stage(replace_axes(node, dict(copies)), place[0], tuple(copies.values()), FIRST_PANEL + len(swaps), math.prod(map(size, copies)))
        swaps[node] = UOp(Ops.LOAD, node.dtype, (panel, place[1]))
    sink = substitute((sink,), swaps)[0]
    root = sink.src[0]
    return sink.replace(src=(root.replace(src=(root.src[0], *sorted(root.src[1:], key=lambda r: r not in outer))),))


# ---- reductions and stages with SIMD axes of their own -----------------------------------------------------------------------------
def own_lanes(sink: UOp, target: Target) -> UOp:
    """Statements that depend on no SIMD axis yet get one of their own; long sums get several accumulators."""
    if target.lanes == 1: return sink
    done: set[UOp] = set()
    while True:
        k = Kernel(sink)
        lanes = {n for n in k.order if n.op is Ops.RANGE and n.arg.kind == "LANE"}
        s = next((s for s in reversed(k.statements) if s.own and not (s.axes & lanes) and not done.intersection(s.own)), None)
        if s is None: return sink
        done.update(s.own)
        lane = own_lane(k, s, target) if s.node is not k.root else None
        if lane is None: continue
        if s.node.op is Ops.REDUCE: sink = lane_reduce(k, s, lane, target)
        else: sink = replace_axes(sink, {lane: split_lane(k, lane, 2 if s.flops < 40 and size(lane) >= 4 * target.lanes else 1, target)})


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
        inner = [c for c in s.node.toposort() if c.op in CLOSERS and k.free[c].intersection(s.own)]     # they change with it: loops of their own
        fresh = {r: k.new_range(size(r), r.arg.kind) for c in (s.node, *inner) for r in c.src[1:] if r is not lane}
        tail = replace_axes(s.node, {lane: rest} | fresh)
        if len(tail.src) == 1: tail = tail.src[0]
        whole = whole.alu(op, tail)
    return substitute((k.sink,), {s.node: whole})[0]


# ---- threads ---------------------------------------------------------------------------------------------------------------------
def parallel(sink: UOp, target: Target) -> UOp:
    """Hand outer axes to threads: GLOBAL on a CPU, GLOBAL and LOCAL where there are workgroups."""
    k = Kernel(sink)
    if k.root.op is not Ops.END: return sink
    root = next(s for s in k.statements if s.node is k.root)
    loops = [r for r in root.own if r.arg.kind == "LOOP"]
    shared = [s.free for s in k.statements if s.node is not k.root and s.node.op is Ops.END]
    shared += [s.free for s in k.statements if s.node.op is Ops.REDUCE and not any(x.arg.kind == "REDUCE" for x in s.free)]
    scanned = {n.src[1] for n in k.order if n.op is Ops.SCAN}
    outer = [r for r in loops if r not in scanned and all(r in f for f in shared)]
    # the axis of a SCAN goes innermost: the running value starts anew for each place on the other axes
    order = sorted(root.own, key=lambda r: (r in scanned, r not in outer, -sum(r in f for f in shared)))
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
        count = 1
        for r in outer:
            kinds[r] = k.new_range(size(r), "GLOBAL")
            count *= size(r)
            if count >= CHUNKS: break
    sink = sink.replace(src=(k.root.replace(src=(k.root.src[0], *order)),))
    return replace_axes(sink, kinds)


def _local(n: int, target: Target) -> int:
    """The largest divisor of n that fits a workgroup comfortably."""
    return max((d for d in range(1, min(n, 256, target.max_local) + 1) if n % d == 0), default=1)

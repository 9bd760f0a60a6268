"""Tile: split loop axes so that threads, vectors and registers get their share, by an analytic cost model.

in:      KERNEL form, every output axis is kind LOOP, every reduced axis REDUCE
out:     KERNEL form, every axis has its final kind; an edge is covered by a last tile that overlaps the one before it
source:  the space is Halide's (PLDI 2013); register tiles as in Goto & van de Geijn (ACM TOMS 2008); the model is our own

Nothing is searched: the candidates for a statement (a store, a reduction, a scratch that is filled) are scored by `cost`.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

from glassgrad.passes.axes import (CLOSERS, Kernel, Statement, is_bounded_row, lane_width, may_stage, merge_axes, order_sums, replace_axes,
                                   size, split_lane, split_over, split_rounds, split_row)
from glassgrad.passes.cost import (FAR, WRITTEN, best_lane, chain, copies_pay, elementwise_vectors, is_contraction, is_far, lane_cost,
                                   least_cycles, register_tile, round_depth, scattered_stores, square_axis, stays_near, thrash, wants_panel)
from glassgrad.passes.kernels import end, stage, store
from glassgrad.passes.views import flatten
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops, ScratchArg, Tiling
from glassgrad.uop.uop import UOp, substitute

GRAIN = 1 << 15       # operations below which a kernel stays on one thread
AGAIN = 8             # times what each piece does once more must fit into the whole
CHUNKS = 16           # pieces of work a parallel kernel offers at least, where its axes allow
SHORT = 64            # an output row below this wastes enough of its last tile to be counted on into the next
PIECES = 8            # of work for each thread that a kernel with panels offers, where its axes allow
LINE = 16             # elements of a cache line
REFILL = 8            # tiles that a panel is at least filled for
SQUARE_VECTORS = 32   # that a turn of a loop may compute where squares of vectors are turned in registers
ROWS = 4              # rows read wherever an index says that are walked at once
MIN_COLUMNS, MAX_COLUMNS = 512, 4096      # of running values in scratch: runs that prefetchers follow, half an L1 cache
FIRST_ROWS = 200      # scratch numbers of tiles that are copied again for each block of panels
FIRST_PANEL = 100     # scratch numbers of panels: beyond those of staged values
SUMS = 150            # of partial sums


def tile(sink: UOp, target: Target) -> UOp:
    """Give every axis of a kernel its final kind for `target`."""
    order = sink.toposort()
    if any(n.op is Ops.SCAN for n in order): return parallel(scan_lanes(Kernel(sink), target), target)
    if any(n.op is Ops.SORT or n.op is Ops.AFTER and n.src[0].op is Ops.PARAM for n in order):
        return parallel(Kernel(sink), target)
    k = merge_axes(order_sums(Kernel(sink)))
    return parallel(turn_squares(registers_and_lanes(k, target, sink.arg or Tiling())) if target.lanes > 1 else k, target)


# ---- registers and lanes ---------------------------------------------------------------------------------------------------------
def registers_and_lanes(k: Kernel, target: Target, asked: Tiling) -> Kernel:
    """Choose the SIMD axes, then register tiles for what is reused or long; the kernel that comes back has its whole Tiling as arg."""
    if k.root.op is not Ops.END:
        cycles = sum(best_lane(s, s.own, target)[0] for s in k.statements)
        return own_lanes(Kernel(k.sink.replace(arg=asked._replace(cycles=cycles))), target)
    best, is_flat = None if asked.flat else make_plan(k, target, asked), False
    if best is None or asked.flat is None and best.cost > 1.15 * least_cycles(k, target):
        flat = flat_output(k)
        if flat is None and best is None: raise CompilerBug("tile: a tiling asks for short rows that count on, the kernel has none")
        other = make_plan(Kernel(flat), target, asked) if flat is not None else None
        if best is None or other is not None and other.cost < best.cost: best, is_flat = other, True
    return own_lanes(best.apply(best.tiling(is_flat, asked.chunks or CHUNKS), target), target)


def lines_across(k: Kernel, lane: UOp) -> UOp | None:
    """The axis along which cache lines lie that vectors along `lane` only touch one element of: it is walked by lines."""
    for a in k.accesses.values():
        step = a.step(lane)
        if step is None or abs(step) * a.node.src[0].dtype.itemsize < FAR: continue
        for r in k.root.src[1:]:
            if a.step(r) == 1 and size(r) >= 2 * LINE: return r
    return None


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
    rounds: dict[UOp, int]      # axes of sums, and the turns of a round
    vectors: int                # along the SIMD axis, where no register tile says

    def tiling(self, is_flat: bool, chunks: int) -> Tiling:
        """The choices, spelled out."""
        tiles = tuple(sorted((r.arg.id, f) for r, f in self.tiles.items()))
        return Tiling(-1 if self.lane is None else self.lane.arg.id, tiles, bool(self.panels), is_flat, self.vectors, chunks, self.cost)

    def apply(self, tiling: Tiling, target: Target) -> Kernel:
        """The kernel with those axes split and `tiling` as a note of it."""
        k, lane = self.kernel, self.lane
        table = {r: split_over(k, r, f, "UPCAST") for r, f in self.tiles.items() if r is not lane}
        table |= {r: k.new_range(size(r), "UNROLL") for r in self.unrolled}
        turns = {}
        for r, depth in self.rounds.items(): table[r], turns[r] = split_rounds(k, r, depth)
        block = across = None
        if lane is not None:
            tiled = any(is_contraction(s) and lane in s.free for s in k.statements)
            across = lines_across(k, lane) if len(k.statements) == 1 else None
            if across is not None: table[across] = split_over(k, across, LINE, "LOOP")
            turned = any(square_axis(a, s, lane, target.lanes) for s in k.statements for a in s.accesses)      # whole lines on both sides
            vectors = self.tiles.get(lane, 1) if tiled else (LINE // target.lanes if turned else 1) if across is not None else self.vectors
            if is_bounded_row(k, lane, target): table[lane] = split_row(k, lane, target)
            else: table[lane], block = split_lane(k, lane, vectors, target, self.block(vectors, target))
        memo: dict[UOp, UOp] = dict(table)
        sink = replace_axes(k.sink.replace(arg=tiling), memo)
        if across is not None:        # the steps within a line go innermost
            within = min((r for r in table[across].toposort() if r.op is Ops.RANGE), key=lambda r: r.arg.id)
            root = sink.src[0]
            sink = sink.replace(src=(root.replace(src=(root.src[0], *sorted(root.src[1:], key=lambda r: r is within))),))
        for s in k.statements:
            if lane is None or self.panels or turns or s.node is k.root or lane not in s.free: continue
            if not stays_near(k, s, lane, target): continue
            column = {r for a in s.accesses if a.step(lane) == 1 for x in a.coef for r in memo.get(x, x).toposort()}
            root = sink.src[0]
            sink = sink.replace(src=(root.replace(src=(root.src[0], *sorted(root.src[1:], key=lambda r: r not in column))),))
        new = Kernel(sink)
        if self.panels: new = stage_panels(new, [memo[n] for n in self.panels], [memo[n] for n in self.rows], block, target)
        blocks = {r for r in table[lane].toposort() if r.op is Ops.RANGE and r is not block} if block is not None else set()
        for i, turn in enumerate(turns.values()): new = sum_in_rounds(new, turn, block, blocks, SUMS + i)
        return merge_axes(new) if self.panels or turns else new

    def block(self, vectors: int, target: Target) -> int:
        """How many tiles along the SIMD axis share what a tile of the other operand brings near: as many panels as half of L2 holds, or
        in rounds without panels as many partial sums, and pieces for all threads."""
        k, lane, most = self.kernel, self.lane, 1 << 30
        if lane is None or not self.panels and not self.rounds: return 1
        width = lane_width(size(lane), target) * vectors
        count = math.ceil(size(lane) / width)
        for n in self.panels:
            sizes = (self.rounds.get(r, size(r)) if r.arg.kind == "REDUCE" else self.tiles.get(r, 1) for r in k.free[n] if r is not lane)
            depth = math.prod(sizes)
            most = min(most, target.l2_bytes // 2 // (depth * width * n.dtype.itemsize))
        if not self.panels:
            s = next(s for s in k.statements if s.node is not k.root)
            batch = [r for r in s.free if all(a.depends(r) for a in s.accesses)]
            apart, rows = math.prod(map(size, batch)), math.prod(size(r) for r in s.free if r is not lane and r not in batch)
            pieces = PIECES // 2 * target.threads // apart if target.threads > 1 else 1
            return min(max(target.l2_bytes // 2 // (4 * rows * width), 1), max(count // max(pieces, 1), 2))
        other = max((k.bytes(a, s) for s in k.statements if is_contraction(s) for a in s.accesses if not a.depends(lane)), default=0)
        is_small = other <= target.l2_bytes // 2 and all(n.op is Ops.LOAD for n in self.rows)
        if most < 2 or is_small or sum(lane in s.axes for s in k.statements) > 2: return 1
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


def make_plan(k: Kernel, target: Target, asked: Tiling) -> Plan:
    """The cheapest SIMD axis of a kernel's store with what goes with it, where the tiling does not ask for something."""
    root = next(s for s in k.statements if s.node is k.root)
    inner = sorted((s for s in k.statements if is_contraction(s)), key=lambda s: -s.trips)
    plain = [s for s in k.statements if s not in inner]

    def plan(lane: UOp | None) -> Plan:
        cost = sum(lane_cost(s, lane, target) if lane is not None and lane in s.axes
                   else best_lane(s, s.own if s is not root else (), target)[0] for s in plain)
        if inner and lane is not None: cost += scattered_stores(root, lane, target)
        tiles = {} if asked.tiles is None else {r: f for r in root.own for number, f in asked.tiles if number == r.arg.id}
        if lane is not None and inner and asked.tiles is None and is_bounded_row(k, lane, target):
            tiles[lane] = math.ceil(size(lane) / target.lanes)
        panels: list[UOp] = []
        rows: list[UOp] = []
        unrolled: list[UOp] = []
        for s in inner:
            own = lane if lane in s.axes else best_lane(s, s.own, target)[1]
            cycles, tile = register_tile(s, own, target, tiles, asked.tiles is None)
            tiles |= tile
            cost += cycles * (1.0 if lane in s.axes else thrash(s, target))
            if lane is None or lane not in s.free: continue
            panels += dict.fromkeys(a.value for a in s.accesses if (wants_panel(a, s, lane, tiles, target) if asked.panels is None
                                                                    else asked.panels and a.step(lane) != 0 and may_stage(a, s)))
            rows += dict.fromkeys(a.value for a in s.accesses if a.step(lane) == 0 and may_stage(a, s) and any(r in tiles for r in a.coef)
                                  and (is_far(a, s, all) or a.value is not a.node))
            if chain(s, [a for a in s.accesses if a.value not in panels])[1] > 1: unrolled.append(s.own[-1])
        for s in plain:
            if s.node.op is Ops.REDUCE and lane in s.free and chain(s, s.accesses)[1] > 1: unrolled.append(s.own[-1])
        scattered = scattered_rows(k, lane, target) if lane is not None and asked.tiles is None else None
        if scattered is not None: tiles[scattered] = ROWS
        vectors = asked.vectors or (1 if lane is None else elementwise_vectors(k, lane, target) if scattered is None else LINE // target.lanes or 1)
        rounds = {r: depth for s in inner if (found := round_depth(k, s, lane, panels, target)) for r, depth in [found]}
        return Plan(k, cost, lane, tiles, panels, rows, unrolled, rounds, vectors)
    lanes = [r for r in (*(r for r in reversed(root.own) if size(r) > 1), None) if asked.lane in (None, -1 if r is None else r.arg.id)]
    if not lanes: raise CompilerBug(f"tile: a tiling asks for vectors along axis {asked.lane}, which the kernel does not have")
    return min(map(plan, lanes), key=lambda p: p.cost)


def scattered_rows(k: Kernel, lane: UOp, target: Target) -> UOp | None:
    """The axis along which rows are read wherever an index says, from memory that no cache holds: several are walked at once, since each
    waits for its first lines, and no prefetcher knows the next row (8192 rows of 3 kB: 2.3 ms instead of 3.3)."""
    if len(k.statements) > 1 or size(lane) < ROWS * LINE: return None
    for a in k.accesses.values():
        if a.node.op is not Ops.LOAD or a.step(lane) != 1 or a.node.src[0].arg.size * a.node.dtype.itemsize < target.l2_bytes: continue
        for r in k.root.src[1:]:
            if r in a.wild and size(r) >= ROWS * CHUNKS and all(x.step(r) for x in k.accesses.values() if x.node.op is Ops.STORE): return r
    return None


def stage_panels(k: Kernel, panels: list[UOp], rows: list[UOp], block: UOp | None, target: Target) -> Kernel:
    """Replace operands by copies in scratch, in the order the inner loops read them.

    Panels along the SIMD axis, one for each tile of a `block`, are filled once for all the loops they do not depend on, or once for each
    thread's share of those; the tile of the other operand (`rows`) is copied for the tiles of one block. What is copied is the operand as
    the product reads it: widened, scaled.
    """
    swaps: dict[UOp, UOp] = {}
    outer: frozenset[UOp] = frozenset()
    for node in panels + (rows if block is not None else []):
        deep = sorted((r for r in k.free[node] if r.arg.kind in ("REDUCE", "UNROLL")), key=lambda r: r.arg.id)
        tile = sorted((r for r in k.free[node] if r.arg.kind in ("UPCAST", "LANE")), key=lambda r: (r.arg.kind == "LANE", r.arg.id))
        tiles = (block,) if block is not None and block in k.free[node] else ()
        a = next(k.accesses[n] for n in node.toposort() if n.op is Ops.LOAD)
        is_along = node in rows and a.step(deep[-1]) in (1, 2)          # rows that lie as they are read are copied in vectors
        order = (*tiles, *tile, *deep) if is_along else (*tiles, *deep, *tile)
        copies = {r: k.new_range(r.src[0], r.arg.kind if r in tile else "LOOP") for r in order}
        if node in panels: outer |= k.free[node].difference(copies)
        place = [flatten(tuple(axes), tuple(map(size, copies))) for axes in (copies.values(), copies)]
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
    if parts > target.threads: parts -= parts % target.threads      # as many for each
    shares: dict[UOp, UOp] = {}
    for r in sorted(inner, key=size, reverse=True):
        if parts < 2: break
        share = min(parts, size(r))
        shares[r] = split_over(k, r, math.ceil(size(r) / share), "LOOP", "GLOBAL") if share < size(r) else k.new_range(share, "GLOBAL")
        parts //= share
    return Kernel(replace_axes(sink, shares) if shares else sink)


def sum_in_rounds(k: Kernel, turn: UOp, block: UOp | None, blocks: set[UOp], number: int) -> Kernel:
    """A long sum in rounds over `turn`: partial sums wait in scratch, tile by tile, while each round walks all tiles.

    Axes that all operands or what is staged depend on stay outside, and so do `blocks`. Without panels the tiles of a `block` go outermost,
    so that what a round reads of the far rows is used at once.
    """
    s = next(s for s in k.statements if s.node.op is Ops.REDUCE and turn in s.own)
    fills = [t.free for t in k.statements if t.node.op is Ops.END and t.node is not k.root and not is_refilled(t.node)]
    outside = blocks.union(*fills) if fills else blocks | {r for r in s.free if all(a.depends(r) for a in s.accesses)}
    own = [r for r in k.root.src[1:] if r in s.free and (r not in outside or r.arg.kind in ("UPCAST", "LANE")) and r.arg.kind != "GLOBAL"]
    own.sort(key=lambda r: (r.arg.kind == "LANE", r.arg.kind == "UPCAST", not fills and r is not block))
    copies = {r: k.new_range(r.src[0], r.arg.kind) for r in own}
    place = [flatten(tuple(axes), tuple(map(size, copies))) for axes in (copies.values(), copies)]
    memory = UOp(Ops.SCRATCH, s.node.dtype, (), ScratchArg(number, math.prod(map(size, own)), "private"))
    part = replace_axes(s.node.replace(src=tuple(x for x in s.node.src if x is not turn)), dict(copies))
    total = part + UOp(Ops.LOAD, part.dtype, (memory, place[0], UOp.const(dtypes.int64, 0) < turn))
    made = end(store(memory, place[0], total), (turn, *copies.values()))
    done = UOp(Ops.LOAD, part.dtype, (UOp(Ops.AFTER, part.dtype, (memory, made)), place[1]))
    return Kernel(substitute((k.sink,), {s.node: done})[0])


# ---- running reductions ------------------------------------------------------------------------------------------------------------
def scan_lanes(k: Kernel, target: Target) -> Kernel:
    """SIMD lanes for a SCAN: neighbouring chains where they are neighbours in memory, else steps along its own axis."""
    scans = [n for n in k.order if n.op is Ops.SCAN]
    if target.lanes == 1 or len(scans) > 1 or len(k.statements) > 1 or k.root.src[0].op is not Ops.STORE: return k
    store, (axis, *others) = k.accesses[k.root.src[0]], scans[0].src[2:]
    if others: return k
    beside = next((r for r in k.root.src[1:] if r is not axis and store.step(r) == 1 and size(r) >= target.lanes), None)
    if beside is not None:
        vectors = target.registers // 2
        if size(beside) > vectors * target.lanes: return Kernel(scan_columns(k, store.node, scans[0], beside, target))
        return Kernel(replace_axes(k.sink, {beside: split_lane(k, beside, vectors, target)[0]}))
    if store.step(axis) != 1 or size(axis) < 2 * target.lanes: return k
    return Kernel(scan_vectors(k, store.node, axis, target))


def scan_columns(k: Kernel, store: UOp, scan: UOp, beside: UOp, target: Target) -> UOp:
    """Many running reductions side by side: the running values are a row of scratch, so that memory is walked row by row."""
    value, before, axis = scan.src
    n, vector = size(beside), 2 * target.lanes
    blocks = math.ceil(n / max(min(math.ceil(n / target.threads), MAX_COLUMNS), MIN_COLUMNS))
    if n % vector: blocks = max(blocks, 2)       # blocks may overlap, their vectors may not: a running value must be added to once
    width = math.ceil(math.ceil(n / blocks) / vector) * vector
    column = split_over(k, beside, width, "LOOP")
    inner, *block = sorted((r for r in column.toposort() if r.op is Ops.RANGE), key=lambda r: r.arg.id)
    scratch = UOp(Ops.SCRATCH, scan.dtype, (), ScratchArg(0, width, "private"))

    def row(at: UOp, kept: UOp, *axes: UOp) -> UOp:
        """The running values at the places `at` of the axis, stored there and kept."""
        place = split_lane(k, inner, 2, target)[0]
        loops = sorted((r for r in place.toposort() if r.op is Ops.RANGE), key=lambda r: r.arg.kind == "LANE")
        table = {beside: replace_axes(column, {inner: place}), axis: at}
        so_far = UOp(Ops.LOAD, scan.dtype, (kept, place)) if axes else replace_axes(before, dict(table))
        total = so_far.alu(scan.arg.op, replace_axes(value, dict(table)))
        out = UOp(Ops.STORE, dtypes.void, (store.src[0], replace_axes(store.src[1], dict(table)), total))
        return UOp(Ops.END, dtypes.void, (UOp.sink(out, UOp(Ops.STORE, dtypes.void, (kept, place, total))), *axes, *loops))
    start = UOp(Ops.AFTER, scan.dtype, (scratch, row(UOp.const(dtypes.int64, 0), scratch)))
    then = k.new_range(size(axis) - 1, "LOOP")
    effect = row(then + 1, start, then)
    rows = (*(r for r in k.root.src[1:] if r is not axis and r is not beside), *block)
    return k.sink.replace(src=(UOp(Ops.END, dtypes.void, (effect, *rows)) if rows else effect,))


def scan_vectors(k: Kernel, store: UOp, axis: UOp, target: Target) -> UOp:
    """A running reduction along a SIMD axis: whole vectors, then what is left one by one, on from the last value that was stored."""
    n, lanes = size(axis), target.lanes
    vectors = max(1, min(LINE // lanes, n // lanes))
    width = lanes * vectors
    main = n // width * width
    at: UOp = k.new_range(lanes, "LANE")
    if vectors > 1: at = k.new_range(vectors, "UPCAST") * lanes + at
    if main > width: at = k.new_range(main // width, "LOOP") * width + at
    rows = tuple(r for r in k.root.src[1:] if r is not axis)
    effect = replace_axes(UOp(Ops.END, dtypes.void, (store, axis)), {axis: at})
    if main < n:
        rest = k.new_range(n - main, "LOOP") + main if n - main > 1 else UOp.const(dtypes.int64, main)
        done = UOp(Ops.AFTER, store.src[0].dtype, (store.src[0], effect))
        last = UOp(Ops.LOAD, done.dtype, (done, replace_axes(store.src[1], {axis: UOp.const(dtypes.int64, main - 1)})))
        tail = replace_axes(UOp(Ops.END, dtypes.void, (store, axis)), {axis: rest})
        scan = next(m for m in tail.toposort() if m.op is Ops.SCAN)
        on = scan.replace(src=(scan.src[0], last, *scan.src[2:])) if len(scan.src) > 2 else last.alu(scan.arg.op, scan.src[0])
        put = substitute((tail.src[0],), {scan: on})[0]
        put = put.replace(src=(done, *put.src[1:]))
        effect = UOp(Ops.END, dtypes.void, (put, *tail.src[1:]))
    return k.sink.replace(src=(UOp(Ops.END, dtypes.void, (effect, *rows)) if rows else effect,))


# ---- reductions and stages with SIMD axes of their own -----------------------------------------------------------------------------
def own_lanes(k: Kernel, target: Target) -> Kernel:
    """Statements that depend on no SIMD axis yet get one of their own; long sums get several accumulators. All that do not stand in each
    other at once, then what stands in those."""
    done: set[UOp] = set()
    while True:
        lanes = {n for n in k.order if n.op is Ops.RANGE and n.arg.kind == "LANE"}
        inside: set[UOp] = set()
        sums: dict[UOp, UOp] = {}
        axes: dict[UOp, UOp] = {}
        for s in reversed(k.statements):
            if not s.own or s.node in inside or s.axes & lanes or done.intersection(s.own): continue
            done.update(s.own)
            lane = own_lane(k, s, target) if s.node is not k.root else None
            if lane is None: continue
            inside.update(s.node.toposort())
            if s.node.op is Ops.REDUCE: sums[s.node] = lane_reduce(k, s, lane, target)
            else:
                vectors = 2 if s.flops < 40 and size(lane) >= 4 * target.lanes else 1
                axes[lane] = split_row(k, lane, target) if is_bounded_row(k, lane, target) else split_lane(k, lane, vectors, target)[0]
        if not sums and not axes: return k
        sink = substitute((k.sink,), sums)[0]
        k = Kernel(replace_axes(sink, axes) if axes else sink)


def own_lane(k: Kernel, s: Statement, target: Target) -> UOp | None:
    """The best SIMD axis among a statement's own, weighed with the statements inside that would share it instead of having their own."""
    best, choice = 0.0, None
    for r in s.own:
        if size(r) < 4 or r.src[0].op is not Ops.CONST: continue
        inside = [t for t in k.statements if r in t.axes]
        gain = sum((best_lane(t, t.own, target)[0] if t is not s else lane_cost(t, None, target)) - lane_cost(t, r, target) for t in inside)
        if size(r) % lane_width(size(r), target):
            gain -= WRITTEN * sum(t.ops for t in inside)       # what is left at its end is written once more
        if gain > best: best, choice = gain, r
    return choice


def lane_reduce(k: Kernel, s: Statement, lane: UOp, target: Target) -> UOp:
    """A reduction over lanes of `lane`: whole vectors first, the rest one by one."""
    n, lanes = size(lane), lane_width(size(lane), target)
    op = s.node.arg.op
    tiles = math.prod(size(r) for r in k.free[s.node] if r.arg.kind == "UPCAST")
    accs = 1 if tiles >= 4 else 2 if s.flops >= 8 or tiles > 1 else 8 if s.flops < 4 else 4
    while accs > 1 and (n < 4 * accs * lanes or not copies_pay(s.trips / lanes, accs, s.ops)): accs //= 2
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
    return whole


def turn_squares(k: Kernel) -> Kernel:
    """What is read with a stride along the SIMD axis, and lies in memory along another loop, gets as many turns of that loop in registers
    as there are lanes: a square, which is read by rows and turned."""
    table: dict[UOp, UOp] = {}
    for s in k.statements:
        lane = next((r for r in s.own if r.arg.kind == "LANE"), None)
        if lane is None: continue
        copies = math.prod(size(r) for r in s.own if r.arg.kind == "UPCAST")
        for a in s.accesses:
            r = square_axis(a, s, lane, size(lane))
            if r is None or copies * size(lane) > SQUARE_VECTORS or r in table or any(r in t.free for t in k.statements): continue
            table[r] = split_over(k, r, size(lane), "UPCAST")
            break
    return Kernel(replace_axes(k.sink, table)) if table else k


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
    scanned = {r for n in k.order if n.op is Ops.SCAN for r in n.src[2:]}
    outer = [r for r in loops if r not in scanned and all(r in f for f in shared)]
    # the axis of a SCAN goes innermost: the running value starts anew for each place on the other axes
    order = sorted(root.own, key=lambda r: (r in scanned, r.arg.kind != "GLOBAL" and r not in outer, -sum(r in f for f in shared)))
    kinds: dict[UOp, UOp] = {}
    work = sum(map(_work, k.statements))
    if not outer and not target.has_grid and work >= GRAIN * AGAIN and not any(r.arg.kind == "GLOBAL" for r in root.own):
        share = share_again(k, [r for r in loops if r not in scanned], work, target)
        if share is not None: return parallel(Kernel(replace_axes(sink, share)), target)
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
            if count >= ((sink.arg and sink.arg.chunks) or CHUNKS): break
    sink = sink.replace(src=(k.root.replace(src=(k.root.src[0], *order)),))
    return replace_axes(sink, kinds) if target.has_grid else substitute((sink,), kinds)[0]


def share_again(k: Kernel, loops: list[UOp], work: int, target: Target) -> dict[UOp, UOp] | None:
    """Pieces of an axis for threads, each of which does once more what all need: where that is little beside the whole.

    A convolution whose lanes are all of the batch pads one image for all output channels; it ran on one thread.
    """
    best: tuple[int, int, UOp] | None = None
    for r in loops if target.threads > 1 else ():
        again = sum(_work(s) for s in k.statements if r not in s.axes)
        for parts in range(2, min(2 * target.threads, size(r)) + 1):
            turns = math.ceil(math.ceil(size(r) / math.ceil(size(r) / parts)) / target.threads)       # of the thread that has most to do
            cost = turns * (again + (work - again) * math.ceil(size(r) / parts) // size(r))
            if again * parts * AGAIN <= work and (best is None or cost < best[0]): best = cost, parts, r
    if best is None or best[0] >= work: return None
    _, parts, r = best
    each = math.ceil(size(r) / parts)
    return {r: split_over(k, r, each, "LOOP", "GLOBAL") if each > 1 else k.new_range(size(r), "GLOBAL")}


def _work(s: Statement) -> int: return s.trips * (s.flops + s.others + len(s.accesses))


def is_refilled(end: UOp) -> bool:
    """Whether an END fills scratch that is filled again for each turn of loops it does not depend on."""
    place = end.src[0].src[0] if end.src[0].op is Ops.STORE else end
    return place.op is Ops.SCRATCH and place.arg.id >= FIRST_ROWS


def _local(n: int, target: Target) -> int:
    """The largest divisor of n that fits a workgroup comfortably."""
    return max((d for d in range(1, min(n, 256, target.max_local) + 1) if n % d == 0), default=1)

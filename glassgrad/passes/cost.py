"""Cost: the analytic model by which schedules are chosen. Cycles of a statement, by what one turn of its innermost loop loads and computes.

in:      a Kernel, its statements, candidates for their axes
out:     cycles, and the best register tile; nothing is rewritten here
source:  register tiles as in Goto & van de Geijn (ACM TOMS 2008); the model is our own
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from glassgrad.passes.axes import Access, Kernel, Statement, lane_width, may_stage, size
from glassgrad.target.target import Target
from glassgrad.uop.infer import free_axes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

UNROLL = 8            # turns up to which an innermost loop is written out
FACTORS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
GATHER = 2.5          # what one strided element costs beside one element of a contiguous vector times its lanes
TURNED = 4.0          # cycles of a vector that is turned in registers: a load, three shuffles, and lines that are far apart
SQUARE_FLOPS = 8      # operations on an element up to which that is done
LOAD = 0.55           # cycles of a load beside products of full speed
MASKED = 6.0          # loads that one with a mask costs: it is computed, and prefetchers do not see where it reads
STREAM = 16           # bytes a cycle that a register tile may ask of the second-level cache
PANEL_BYTES = 1 << 19
FEW_HASHES = 1 << 21  # up to which one is computed at a time
DEPTH = 512           # turns of a sum for which panels are kept
FEW_ROWS = 8          # that are read at once: what prefetchers follow, and a set of the first-level cache holds
FAR_STORES = 10.0     # cycles of an element stored alone in a line that no cache near holds,
FAR_CACHES = 4        # as where an array is so many times as large as the second-level cache
FAR_LINE = 1.0        # cycles of a line among many far ones that the elements of a window lie in
LINE_BYTES = 64
FAR = 256             # bytes between the rows of an operand that no prefetcher follows
WRITTEN = 250.0       # cycles that an instruction's code must save: it takes 80 us to compile, for a kernel that runs a thousand times
TURN = 3.0            # cycles of a loop's end, or of waiting for the turn before


def lane_cost(s: Statement, lane: UOp | None, target: Target) -> float:
    """Cycles of all turns of a statement when `lane` is its SIMD axis."""
    if lane is None or lane not in s.axes:
        return s.trips * (max(len(s.accesses), 1) + s.flops + s.others)
    lanes = lane_width(size(lane), target)
    waste = math.ceil(size(lane) / lanes) * lanes / size(lane)
    steps = {0: 0.7, 1: 1.0, 2: 3.0, None: GATHER * 1.3 * lanes}
    moved = sum(TURNED if square_axis(a, s, lane, lanes) is not None else steps.get(a.step(lane), GATHER * lanes) for a in s.accesses)
    per = moved + s.flops + s.others
    cost = s.trips * waste * max(per, 0.5) / lanes
    if s.node.op is Ops.REDUCE and lane in s.own:
        cost += math.prod(size(r) for r in s.free) * 2.5 * math.log2(lanes)
    return cost


def square_axis(a: Access, s: Statement, lane: UOp, lanes: int) -> UOp | None:
    """The loop of a statement along which an operand lies in memory that vectors along `lane` read with a stride: as many of its turns as
    there are lanes make a square of registers, which is read by rows and turned."""
    if a.step(lane) in (None, 0, 1, 2) or len(a.node.src) > 2 or a.node.op is not Ops.LOAD or a.node.dtype.is_bool: return None
    if s.node.op is not Ops.END or s.flops + s.others > SQUARE_FLOPS: return None
    return next((r for r in s.own if r is not lane and a.step(r) == 1 and r.arg.kind == "LOOP" and r.src[0].op is Ops.CONST
                 and size(r) >= lanes >= 4), None)


def best_lane(s: Statement, axes: tuple[UOp, ...], target: Target) -> tuple[float, UOp | None]:
    """The cheapest of `axes` as SIMD axis of a statement, and what it costs; None if scalars are cheaper."""
    options = [(lane_cost(s, r, target), -i, r) for i, r in enumerate(axes) if size(r) > 1]
    best = min(options, key=lambda o: o[:2], default=None)
    plain = lane_cost(s, None, target)
    return (best[0], best[2]) if best is not None and best[0] < plain else (plain, None)


def least_cycles(k: Kernel, target: Target) -> float:
    """What the contractions of a kernel take if every tile is full and nothing waits."""
    return sum(s.trips for s in k.statements if is_contraction(s)) / target.lanes / 2


def is_contraction(s: Statement) -> bool:
    """Whether a statement is a reduction that reads some operand again along an axis around it, so that a register tile pays."""
    return s.node.op is Ops.REDUCE and any(a.depends(r) for a in s.accesses for r in s.free) \
        and any(not a.depends(r) for r in s.free if r.arg.kind == "LOOP" and size(r) > 1 for a in s.accesses)


def thrash(s: Statement, target: Target) -> float:
    """How much slower a contraction with its SIMD axis inside gets when the rows of its tile leave the first-level cache."""
    return 1.7 if 7 * 4 * math.prod(size(r) for r in s.own) > target.l1_bytes else 1.0


def scattered_stores(s: Statement, lane: UOp, target: Target) -> float:
    """Cycles that the stores of a tile wait for when vectors along `lane` go to as many far lines as they have elements, which no
    prefetcher brings (128x768 times the transpose of 50257x768: 168 ms, and 146 with vectors along the columns)."""
    stores = [a for a in s.accesses if a.node.op is Ops.STORE and a.node.src[0].op is Ops.PARAM]
    far = [a for a in stores if abs(a.step(lane) or 0) * a.node.src[2].dtype.itemsize >= FAR]
    return sum(FAR_STORES * s.trips for a in far if a.node.src[0].arg.size * a.node.src[2].dtype.itemsize > FAR_CACHES * target.l2_bytes)


def elementwise_vectors(k: Kernel, lane: UOp, target: Target) -> int:
    """How many vectors a turn of a loop that is no contraction computes: fewer where each is heavy on registers."""
    heavy = sum(s.flops for s in k.statements)
    columns = any(s.node.op is Ops.REDUCE and lane in s.free and is_far(a, s, all) for s in k.statements for a in s.accesses)
    stores = sum(a.node.op is Ops.STORE for s in k.statements for a in s.accesses)      # side by side they fill a core as vectors do
    # far rows: as many lines of each as fit
    want = 1 if heavy > 60 or stores > 3 else 2 if heavy > 12 else target.registers // 2 if columns else 4
    # a hash is a chain of 100 instructions. Four at once hide its latency, which saves 2 ns an element, and take 40 ms more to compile
    if any(n.op is Ops.THREEFRY for n in k.order) and max(s.trips for s in k.statements) < FEW_HASHES: want = 1
    inside = [s for s in k.statements if lane in s.axes]
    turns = max((s.trips for s in inside), default=1) / lane_width(size(lane), target)
    body = sum(s.ops * (target.lanes if any(square_axis(a, s, lane, target.lanes) for a in s.accesses) else 1) for s in inside)
    while want > 1 and (size(lane) < want * target.lanes or not columns and not copies_pay(turns, want, body)): want //= 2
    return want


def copies_pay(turns: float, copies: int, body: int) -> bool:
    """Whether the last doubling to `copies` of a loop's body of so many operations saves more than it takes to compile."""
    return turns * TURN / copies > copies / 2 * body * WRITTEN


def register_tile(s: Statement, lane: UOp | None, target: Target, fixed: dict[UOp, int],
                  is_free: bool = True) -> tuple[float, dict[UOp, int]]:
    """(cycles, factors): the tile over up to two axes around a reduction (the SIMD axis counts in vectors) that makes it cheapest.

    `fixed` are factors that other statements have chosen already; no others are added unless `is_free`.
    """
    lanes = lane_width(size(lane), target) if lane is not None else 1
    around = sorted((r for r in s.free if r.arg.kind == "LOOP" and r not in fixed), key=lambda r: r.arg.id)
    extent = {r: size(r) // lanes if r is lane else size(r) for r in around}
    ways = [r for r in around if extent[r] > 1 and any(not a.depends(r) for a in s.accesses)] if is_free else []
    given = {r: f for r, f in fixed.items() if r in s.free}
    staged = {a.node: panel_fill(a, s, lane, target) for a in s.accesses} if lane is not None and lane in s.free else {}
    turns, unrolled = chain(s, [a for a in s.accesses if staged.get(a.node) is None])
    turn = 0.75 / unrolled + 3 / turns
    # access, copies of the fixed tile, cycles of their loads, bytes they stream, lines
    ops: list[tuple[Access, int, float, int, float]] = []
    for a in {a.value: a for a in reversed(s.accesses)}.values() if any(f is not None for f in staged.values()) else s.accesses:
        moves = lane is not None and a.depends(lane)
        load = 1.0 if staged.get(a.node) is not None or not moves else load_cycles(a, lane, lanes, given.get(lane, 0))  # type: ignore[arg-type]
        copies = math.prod(f for r, f in given.items() if a.depends(r))
        ops.append((a, copies, copies * load, copies * lanes * a.value.dtype.itemsize if moves else 0, 0.0 if moves else far_lines(a, s, given)))
    base = math.prod(given.values())
    ends = waste(size(lane), lanes) if lane is not None and lane not in given else 1.0
    code = WRITTEN * lanes / s.trips * unrolled * (1 + s.ops)
    wasted = {r: [waste(size(r), f * lanes if r is lane else f) for f in FACTORS] for r in ways}
    best: tuple[float, dict[UOp, int]] = (math.inf, {})
    most = {r: FEW_ROWS if any(walks_far_rows(a, s, r, lane, target) for a in s.accesses) else FACTORS[-1] for r in ways}
    readers = {r: [a.depends(r) for a in s.accesses] for r in ways}      # two axes that the same operands read tile no better than one
    pairs = [(x, y) for i, x in enumerate(ways) for y in [y for y in ways[i + 1:] if readers[y] != readers[x]] or (None,)]
    for x, y in pairs or [(None, None)]:
        # of what neither axis moves, x does, y does, both do
        loads, streamed, copies, lines = [0.0] * 4, [0] * 4, [1 << 30] * 4, [0.0] * 4
        for a, n, load, stream, touched in ops:
            i = (x is not None and a.depends(x)) + 2 * (y is not None and a.depends(y))
            loads[i], streamed[i], copies[i] = loads[i] + load, streamed[i] + stream, min(copies[i], n)
            if touched: lines[(x is not None and in_other_line(a, x)) + 2 * (y is not None and in_other_line(a, y))] += touched
        rest = 1.0 if lane is x or lane is y else ends
        for fx, wx in zip(FACTORS, wasted[x]) if x is not None else ((1, 1.0),):
            if fx > 1 and (fx > extent[x] or fx > most[x] or base * fx >= target.registers): break
            for fy, wy in zip(FACTORS, wasted[y]) if y is not None else ((1, 1.0),):
                accs = base * fx * fy
                if fy > 1 and (accs >= target.registers or fy > extent[y] or fy > most[y]): break
                if accs + min(copies[0], copies[1] * fx, copies[2] * fy, copies[3] * fx * fy) + 1 > target.registers: continue
                moved = (loads[0] + loads[1] * fx + (loads[2] + loads[3] * fx) * fy) * LOAD
                stream = (streamed[0] + streamed[1] * fx + (streamed[2] + streamed[3] * fx) * fy) / STREAM
                far = (lines[0] + lines[1] * fx + (lines[2] + lines[3] * fx) * fy) * FAR_LINE
                sc = (max(accs / 2, moved, stream, 4.0 if accs < 8 else 0.0) + turn + far) * wx * wy * rest / accs + accs * code
                if sc < best[0] * 0.999: best = (sc, {x: fx, y: fy})
    if best[0] is math.inf: best = (float(base), {})
    cycles = s.trips / lanes * best[0] + sum(f for f in staged.values() if f is not None)
    if lane is not None and lane in s.own: cycles += math.prod(size(r) for r in s.free) * 2.5 * math.log2(max(lanes, 2))
    return cycles, {r: f for r, f in best[1].items() if f > 1}


def walks_far_rows(a: Access, s: Statement, r: UOp, lane: UOp | None, target: Target) -> bool:
    """Whether an operand that no cache near holds is walked in as many rows as a tile has along `r`, each by vectors: prefetchers follow
    few, and rows a multiple of 4 kB apart push each other out of the first-level cache (4096 rows of bfloat16 by a vector: 1.9 ms in eights,
    2.8 in fourteens)."""
    return lane is not None and lane in s.own and a.step(lane) == 1 and in_other_line(a, r) and a.node.src[0].op is Ops.PARAM \
        and a.node.src[0].arg.size * a.node.dtype.itemsize > target.l2_bytes


def in_other_line(a: Access, r: UOp) -> bool:
    """Whether the next place along an axis lies in another cache line."""
    return abs(a.coef.get(r, 0)) * a.node.dtype.itemsize >= LINE_BYTES


def far_lines(a: Access, s: Statement, tile: dict[UOp, int]) -> float:
    """Lines of far rows that an operand, the same in all lanes, is read from in a turn of a sum over a window."""
    if len(s.own) < 2 or not is_far(a, s): return 0.0
    return math.prod(f for r, f in tile.items() if in_other_line(a, r)) / math.prod(size(r) for r in s.own if not in_other_line(a, r))


def load_cycles(a: Access, lane: UOp, lanes: int, vectors: int) -> float:
    """A vector of an operand, in loads: elements one by one wait for their gates one by one, and for places that are no line; a gate that
    is not the same in all lanes is a mask, but few of those have one that write out a whole row."""
    gated, step = len(a.node.src) > 2, a.step(lane)
    if step == 1: return MASKED if gated and lane in free_axes(a.node.src[2]) and vectors * lanes < size(lane) else 1.0
    if step == 2 and not gated: return 2.0
    return GATHER * lanes / 2 * (1 + gated) * (1.3 if step is None else 1)


def panel_fill(a: Access, s: Statement, lane: UOp, target: Target) -> float | None:
    """The cycles of copying an operand into panels that vectors along `lane` read badly; None where they read it well, or it cannot be."""
    if a.step(lane) == 0 or not may_stage(a, s): return None
    reuse = math.prod(size(r) for r in s.free.difference(refilled(s)) if not a.depends(r))
    if a.step(lane) == 1: return s.trips / reuse * 2 / lane_width(size(lane), target) if reuse >= 64 and is_far(a, s) else None
    turned = a.value is a.node and bool(s.own) and a.step(s.own[-1]) == 1 and chain(s, [a])[0] >= target.lanes
    return s.trips / reuse * (TURNED / target.lanes if turned else GATHER) if reuse >= 16 else None


def refilled(s: Statement) -> frozenset[UOp]:
    """The loops around a contraction in each turn of which another operand is made in scratch, as normalised rows are: a panel is filled
    anew there too."""
    return frozenset().union(*(free_axes(a.node.src[0]) for a in s.accesses))


def wants_panel(a: Access, s: Statement, lane: UOp, tiles: dict[UOp, int], target: Target) -> bool:
    """Whether an operand is copied into a panel in reading order: it is strided, or its rows are far apart and read often."""
    if a.step(lane) == 0 or not may_stage(a, s): return False
    reuse = math.prod(math.ceil(size(r) / tiles.get(r, 1)) for r in s.free.difference(refilled(s)) if not a.depends(r))
    depth = math.prod(size(r) for r in s.own if a.depends(r))
    width = lane_width(size(lane), target) * math.prod(tiles.get(r, 1) for r in s.free if a.depends(r))
    if depth * width * a.value.dtype.itemsize > PANEL_BYTES or reuse < (8 if a.step(lane) == 1 else 2): return False
    return a.step(lane) != 1 or a.value is not a.node or (depth > 64 and is_far(a, s))


def round_depth(k: Kernel, s: Statement, lane: UOp | None, panels: list[UOp], target: Target) -> tuple[UOp, int] | None:
    """(axis, turns of a round) of a long sum that is better made in rounds: with panels, so that these stay in a cache; without, so that
    few far rows are read at once, each in one line, as prefetchers follow them."""
    if lane is None or lane not in s.free or s.node.arg.op is not Ops.ADD or sum(not is_contraction(t) for t in k.statements) > 1:
        return None
    r, n, inner = s.own[0], size(s.own[0]), math.prod(size(r) for r in s.own[1:])
    if not panels:
        if len(s.own) > 1 or stays_near(k, s, lane, target): return None
        far = any(a.step(lane) == 1 and is_far(a, s) and k.bytes(a, s) > target.l2_bytes for a in s.accesses)
        return (r, FEW_ROWS) if far and n >= 8 * FEW_ROWS else None
    # a window's other operand lies in many far rows: in rounds those of one stay near from tile to tile (512 channels of 7x7: 0.7 to 0.85
    # of the time), while one that is read along needs none
    if len(s.own) > 1 and not any(a.step(lane) == 0 and is_far(a, s) for a in s.accesses): return None
    return (r, math.ceil(n / math.ceil(n * inner / DEPTH))) if n * inner > 2 * DEPTH and n > 1 else None


def stays_near(k: Kernel, s: Statement, lane: UOp, target: Target) -> bool:
    """Whether a contraction's columns, of a tile's width, stay in the first-level cache while all rows of the other operand, which the
    second holds, go by: as for a 1x1 convolution, where each column would else be read from afar again for every few output channels."""
    columns = [a for a in s.accesses if a.step(lane) == 1]
    width = 3 * target.lanes * math.prod(size(r) for r in s.own)
    return len(columns) == 1 and 2 * width * columns[0].node.dtype.itemsize <= target.l1_bytes \
        and k.bytes(columns[0], s) > target.l2_bytes \
        and all(2 * k.bytes(a, s) <= target.l2_bytes and a.step(lane) == 0 for a in s.accesses if a is not columns[0])


def is_far(a: Access, s: Statement, which: Callable[[Iterable[bool]], bool] = any) -> bool:
    """Whether (some or all axes of) the reduction step so far in an operand that each turn reads another cache line."""
    return which(abs(c) * a.node.dtype.itemsize >= FAR for r, c in a.coef.items() if r in s.own)


def chain(s: Statement, direct: list[Access]) -> tuple[int, int]:
    """(turns between two ends of the innermost loop, copies of its body): loops run as one where what is read without a copy walks
    through them in one line; a short one that cannot is unrolled."""
    turns = size(s.own[-1]) if s.own else 1
    for outer, inner in zip(s.own[-2::-1], s.own[:0:-1]):
        if any(outer in a.wild or a.coef.get(outer, 0) != size(inner) * a.coef.get(inner, 0) for a in direct):
            return (turns * size(outer), turns) if turns == size(inner) <= UNROLL else (turns, 1)
        turns *= size(outer)
    return turns, 1


def waste(n: int, f: int) -> float: return math.ceil(n / f) * f / n

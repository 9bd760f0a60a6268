"""Online softmax: sums weighted by exp(x - maximum of x) over a long axis go through it once, in rounds.

in:      KERNEL form, tiled: a row of scores and one of exponentials in scratch, the maximum and the sums over them
out:     the same where the rows fit the second-level cache; else scores and exponentials of one round, and in scratch the running maximum
and sums source:  M. Milakov, N. Gimelshein, Online normalizer calculation for softmax (2018); T. Dao et al., FlashAttention (NeurIPS 2022)

When a round raises the maximum from m to m', what was summed so far is multiplied by exp(m - m'). Nothing here knows attention: each sum
that reads the exponentials keeps its running value, whatever it multiplies them with.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from glassgrad.passes.algebra import simplify
from glassgrad.passes.axes import replace_axes
from glassgrad.passes.transcend import exponent
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, ScratchArg
from glassgrad.uop.uop import UOp, consumers_of, substitute

REGISTERS = {"UPCAST", "UNROLL", "LANE"}
ROUND = 256             # elements of one: the rows of a tile of 16 then take 16 kB each
RUNNING = 400           # scratch numbers of running values: beyond those of staged values, panels and tiles


class Row(NamedTuple):
    """What is computed along an axis of n: the exponentials and what they are made of, the maximum, the sums that read them."""
    n: int
    fills: list[UOp]        # AFTER of each row in scratch
    peak: UOp
    sums: list[UOp]


def online_softmax(sink: UOp, target: Target) -> UOp:
    """Rewrite the first such row that is too long for the cache, if there is one."""
    order = sink.toposort()
    if not any(n.op is Ops.EXP for n in order) or not any(n.op is Ops.SCRATCH and n.arg.size > 2 * ROUND for n in order): return sink
    users = consumers_of(order)
    free: dict[UOp, frozenset[UOp]] = {}
    for n in order:
        f = frozenset((n,)) if n.op is Ops.RANGE else frozenset().union(*(free[s] for s in n.src)) if n.src else frozenset()
        free[n] = f.difference(n.src[1:]) if n.op in (Ops.REDUCE, Ops.END) else f
    for n in order:
        row = find_row(n, users)
        if row is None: continue
        copies = math.prod(r.src[0].arg for r in free[n] if r.arg.kind in REGISTERS)
        if row.n * copies * n.dtype.itemsize * len(row.fills) <= target.l2_bytes // 2: continue
        size = max((d for d in range(ROUND // 4, ROUND + 1) if row.n % d == 0), default=0)
        if size and (done := in_rounds(sink, row, size, order, free)) is not None: return done
    return sink


def find_row(after: UOp, users: dict[UOp, list[UOp]]) -> Row | None:
    """The row whose exponentials stand in scratch `after`, if all that is made of them and for them allows rounds."""
    if (end := filled(after)) is None or (e := end.src[0].src[2]).op is not Ops.EXP: return None
    if (gap := exponent(e)).op is not Ops.SUB: return None
    y, peak = gap.src
    if peak.op is not Ops.REDUCE or peak.arg.op is not Ops.MAX or users[peak] != [gap] or len(peak.src) != 2: return None
    fills, n = [after], after.src[0].arg.size
    inside = {m for s in (y, peak.src[0]) for m in s.toposort(stop=lambda m: m.op is Ops.AFTER) if m.op is Ops.AFTER and filled(m) is not None}
    fills += [m for m in inside if m.src[0].arg.size == n]
    sums: list[UOp] = []
    for load in users[after]:
        if load.op is not Ops.LOAD or len(load.src) > 2: return None
        above = users[load]
        while len(above) == 1 and above[0].op.is_alu: above = users[above[0]]
        if len(above) != 1 or above[0].op is not Ops.REDUCE or above[0].arg.op is not Ops.ADD or above[0].src[1:] != (load.src[1],):
            return None
        sums += [s for s in above if s not in sums]
    return Row(n, fills, peak, sums) if sums and len(fills) == 2 else None


def filled(after: UOp) -> UOp | None:
    """The END that fills scratch, if it is one of one store."""
    if after.op is not Ops.AFTER or len(after.src) != 2 or after.src[0].op is not Ops.SCRATCH: return None
    end = after.src[1]
    return end if end.op is Ops.END and end.src[0].op is Ops.STORE and len(end.src[0].src) == 3 else None


def in_rounds(sink: UOp, row: Row, size: int, order: list[UOp], free: dict[UOp, frozenset[UOp]]) -> UOp | None:
    """The kernel with the row cut into rounds; None if a loop over it does not walk it element by element or tile by tile."""
    ids = itertools.count(1 + max(n.arg.id for n in order if n.op is Ops.RANGE))
    def axis(count: int, kind: str) -> UOp: return UOp.range(next(ids), count, kind, dtypes.int64)
    turn = axis(row.n // size, "LOOP")
    walks = shorter_walks(row, size, turn, axis)
    if walks is None: return None
    held = sorted((r for r in free[row.fills[0]] if r.arg.kind in REGISTERS), key=is_lane)
    dtype, started, numbers = row.peak.dtype, UOp.const(dtypes.int64, 0) < turn, itertools.count(RUNNING)

    def running(axes: list[UOp]) -> UOp:
        return UOp(Ops.SCRATCH, dtype, (), ScratchArg(next(numbers), math.prod(r.src[0].arg for r in axes), "private"))
    peaks, at = running(held), place(held)
    before = started.where(UOp(Ops.LOAD, dtype, (peaks, at, started)), UOp.const(dtype, dtype.min))
    made = one_round(sink, row, size, turn, walks, before)
    peak = made[row.peak]
    factor = (before - peak).alu(Ops.MIN, UOp.const(dtype, 0.0)).exp()
    effects: list[UOp] = []
    totals: dict[UOp, tuple[UOp, UOp]] = {}
    for s in row.sums:      # each has a place for every coordinate of the tile and of the loops that it alone is in
        others = sorted(free[s] - free[row.fills[0]], key=lambda r: (r.arg.kind in REGISTERS, *is_lane(r)))
        kept = sorted([*others, *held], key=lambda r: r.arg.kind == "LANE")
        copies = {r: axis(r.src[0].arg, r.arg.kind) for r in others}
        memory, here = running(kept), place(kept)
        spot, value = (replace_axes(x, dict(copies)) for x in (here, made[s]))
        put = UOp(Ops.STORE, dtypes.void, (memory, spot, value + UOp(Ops.LOAD, dtype, (memory, spot, started)) * factor))
        effects.append(UOp(Ops.END, dtypes.void, (put, *copies.values())) if copies else put)
        totals[s] = memory, here
    effects.append(UOp(Ops.STORE, dtypes.void, (peaks, at, peak)))
    registers = {r: axis(r.src[0].arg, r.arg.kind) for r in held}
    done = UOp(Ops.END, dtypes.void, (replace_axes(UOp.sink(*effects), dict(registers)), turn, *registers.values()))
    loads = {s: UOp(Ops.LOAD, dtype, (UOp(Ops.AFTER, dtype, (memory, done)), here)) for s, (memory, here) in totals.items()}
    return substitute((sink,), loads)[0]


def shorter_walks(row: Row, size: int, turn: UOp, axis: Callable[[int, str], UOp]) -> dict[UOp, UOp] | None:
    """What stands for each loop over the row: the round's place and a loop within the round."""
    table: dict[UOp, UOp] = {}
    for p in (*(c.src[1] for c in (row.peak, *row.sums)), *(a.src[1].src[0].src[1] for a in row.fills)):
        walk = next((t for t in p.toposort() if t.op is Ops.RANGE and t.arg.kind not in REGISTERS), None)
        if walk is None or walk.src[0].op is not Ops.CONST: return None
        if p is walk and walk.src[0].arg == row.n:
            table[walk] = turn * size + axis(size, walk.arg.kind)
            continue
        # a tile of `width` elements, the last of which starts early
        tile = next((t for t in p.toposort() if t.op is Ops.MIN and t.src[0].op is Ops.MUL and t.src[0].src[0] is walk), None)
        if tile is None or (width := row.n - tile.src[1].arg) > size: return None
        table[tile] = turn * size + simplify((axis(math.ceil(size / width), walk.arg.kind) * width).min(size - width))
    return table


def one_round(sink: UOp, row: Row, size: int, turn: UOp, walks: dict[UOp, UOp], before: UOp) -> dict[UOp, UOp]:
    """What each value is in one round, in scratch that holds one; the maximum is that of all rounds so far."""
    made = dict(walks)
    memory = {a.src[0]: a.src[0].replace(arg=a.src[0].arg._replace(size=size)) for a in row.fills}
    within = {w: r for t, x in walks.items() for w in t.toposort() for r in x.toposort() if w.op is r.op is Ops.RANGE and r is not turn}
    for n in sink.toposort():
        if n in made: continue
        src = tuple(made[s] for s in n.src)
        if n.op in (Ops.REDUCE, Ops.END): src = (src[0], *(within.get(r, r) for r in n.src[1:]))
        elif n.op is Ops.STORE and n.src[0] in memory: src = (memory[n.src[0]], simplify(src[1] - turn * size), *src[2:])
        elif n in row.fills: src = (memory[n.src[0]], *src[1:])
        elif n.op is Ops.LOAD and n.src[0] in row.fills: src = (src[0], simplify(src[1] - turn * size), *src[2:])
        new = n if src == n.src else n.replace(src=src)
        if new is not n and new.dtype in (dtypes.int64, dtypes.bool): new = simplify(new)
        # nothing but -inf until now: exp(-inf - the least number) is 0, not NaN
        made[n] = before.alu(Ops.MAX, new).alu(Ops.MAX, UOp.const(n.dtype, -n.dtype.largest)) if n is row.peak else new
    return made


def is_lane(r: UOp) -> tuple[bool, int]: return r.arg.kind == "LANE", r.arg.id


def place(axes: list[UOp]) -> UOp:
    """Row-major over register and other axes."""
    at: UOp = UOp.const(dtypes.int64, 0)
    for r in axes: at = simplify(at * r.src[0].arg + r)
    return at

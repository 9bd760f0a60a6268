"""Grid: GLOBAL and LOCAL axes become hardware indices.

in:      KERNEL form, tiled
out:     the same without GLOBAL and LOCAL axes: a CPU has one index of chunks, a GPU up to three of workgroups and of threads
"""
from __future__ import annotations

import math

from glassgrad.passes.algebra import simplify
from glassgrad.passes.axes import replace_axes
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, SpecialArg
from glassgrad.uop.uop import UOp

MAX_GRID = 65535


def add_grid(sink: UOp, target: Target) -> UOp:
    """Replace GLOBAL and LOCAL axes by SPECIAL indices."""
    order = sink.toposort()
    ranges = sorted((n for n in order if n.op is Ops.RANGE and n.arg.kind in ("GLOBAL", "LOCAL")), key=lambda r: r.arg.id)
    if not ranges: return sink
    root = sink.src[0]
    place = {r: i for i, r in enumerate(root.src[1:])}
    table: dict[UOp, UOp] = {}
    for kind, name in (("GLOBAL", "gidx"), ("LOCAL", "lidx")):
        axes = sorted((r for r in ranges if r.arg.kind == kind), key=lambda r: place.get(r, 0))
        groups = [axes] if not target.has_grid or kind == "LOCAL" else _three(axes)
        for d, group in enumerate(groups):
            count = math.prod(r.src[0].arg for r in group)
            index = UOp(Ops.SPECIAL, dtypes.int64, (), SpecialArg(f"{name}{d}", count))
            stride = count
            for i, r in enumerate(group):
                stride //= r.src[0].arg
                at = simplify(index // stride)
                table[r] = at if i == 0 else simplify(at % r.src[0].arg)
    return replace_axes(sink, table)


def _three(axes: list[UOp]) -> list[list[UOp]]:
    """Workgroup axes in at most three dimensions, the innermost first; the second and third stay below the hardware's limit."""
    groups: list[list[UOp]] = [[]]
    for r in reversed(axes):
        here = math.prod(x.src[0].arg for x in groups[-1])
        if len(groups) < 3 and groups[-1] and here >= 64 and r.src[0].arg <= MAX_GRID: groups.append([])
        groups[-1].insert(0, r)
    return [g for g in groups if g]

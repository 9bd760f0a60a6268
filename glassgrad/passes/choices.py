"""Choices: the tilings near one, for a search that measures (BEAM).

in:      a kernel before `tile`, the Tiling that `tile` gave it
out:     Tilings that differ in one choice; those `tile` cannot make raise CompilerBug there
"""
from __future__ import annotations

from collections.abc import Iterator

from glassgrad.passes.axes import Kernel, merge_axes, size
from glassgrad.passes.cost import is_contraction
from glassgrad.passes.tile import flat_output
from glassgrad.target.target import Target
from glassgrad.uop.ops import Ops, Tiling
from glassgrad.uop.uop import UOp

NEAR = (-4, -2, -1, 1, 2, 4)      # steps of a tile's factor


def neighbours(sink: UOp, near: Tiling, target: Target) -> Iterator[Tiling]:
    """The tilings one step from `near`."""
    k = merge_axes(Kernel(sink))
    if k.root.op is not Ops.END or near.lane is None: return
    own = [r for r in k.root.src[1:] if size(r) > 1]
    near = near._replace(cycles=0.0)
    if near.chunks:
        for chunks in (near.chunks // 4, near.chunks // 2, near.chunks * 2, near.chunks * 4):
            if chunks and target.threads > 1: yield near._replace(chunks=chunks)
    flat = flat_output(k)
    if flat is not None: yield Tiling(flat=not near.flat, chunks=near.chunks)
    if near.flat: own = [r for r in Kernel(flat).root.src[1:] if size(r) > 1]
    for lane in (-1, *(r.arg.id for r in own)):
        if lane != near.lane: yield Tiling(lane=lane, flat=near.flat, chunks=near.chunks)
    if not any(is_contraction(s) for s in k.statements):
        for vectors in (near.vectors // 2, near.vectors * 2):
            if 1 <= vectors <= target.registers: yield near._replace(vectors=vectors)
        return
    yield near._replace(panels=not near.panels)
    tiles = dict(near.tiles)
    for r in own:
        f = tiles.get(r.arg.id, 1)
        room = size(r) // target.lanes if r.arg.id == near.lane else size(r)
        for step in NEAR:
            if not 1 <= f + step <= room or f + step > target.registers: continue
            changed = {**tiles, r.arg.id: f + step}
            yield near._replace(tiles=tuple(sorted((a, f) for a, f in changed.items() if f > 1)))
            for other, g in tiles.items():      # more of one axis leaves registers for less of the other
                if other != r.arg.id and step > 0 and g > 1:
                    yield near._replace(tiles=tuple(sorted((a, f) for a, f in {**changed, other: g // 2}.items() if f > 1)))

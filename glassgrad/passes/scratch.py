"""Widen scratch: memory inside a kernel gets a copy for every register coordinate its values depend on.

in:      KERNEL form, tiled
out:     the same, each SCRATCH large enough, its places offset by the register axes that its END does not close itself
"""
from __future__ import annotations

import math

from glassgrad.passes.algebra import simplify
from glassgrad.target.target import Target
from glassgrad.uop.infer import free_axes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

REGISTERS = {"UPCAST", "UNROLL", "LANE"}


def widen_scratch(sink: UOp, target: Target) -> UOp:
    """Give staged values room for the tile around them."""
    order = sink.toposort()
    if not any(n.op is Ops.SCRATCH for n in order): return sink
    memo: dict[UOp, UOp] = {}
    wide: dict[UOp, tuple[UOp, ...]] = {}   # AFTER -> the axes its scratch was widened by
    for n in order:
        src = tuple(memo[s] for s in n.src)
        if n.op is Ops.AFTER and n.src[0].op is Ops.SCRATCH:
            effect = src[1]
            axes = tuple(sorted((r for r in free_axes(n) if r.arg.kind in REGISTERS), key=lambda r: (r.arg.kind == "LANE", r.arg.id)))
            wide[n] = axes
            if axes:
                scratch = n.src[0].replace(arg=n.src[0].arg._replace(size=n.src[0].arg.size * math.prod(r.src[0].arg for r in axes)))
                put = effect.src[0] if effect.op is Ops.END else effect
                put = put.replace(src=(scratch, place(axes, n.src[0].arg.size, put.src[1]), *put.src[2:]))
                effect = effect.replace(src=(put, *effect.src[1:])) if effect.op is Ops.END else UOp(Ops.END, put.dtype, (put,))
                src = (scratch, effect)
        elif n.op is Ops.LOAD and n.src[0] in wide and wide[n.src[0]]:
            buf = n.src[0]
            src = (src[0], place(wide[buf], buf.src[0].arg.size, src[1]), *src[2:])
        memo[n] = n if src == n.src else n.replace(src=src)
    return memo[sink]


def place(axes: tuple[UOp, ...], size: int, at: UOp) -> UOp:
    """Row-major over the axes and the old place, with a SIMD axis innermost."""
    row: UOp = at.const_like(0)
    for r in axes:
        if r.arg.kind != "LANE": row = row * r.src[0].arg + r
    at = row * size + at
    for r in axes:
        if r.arg.kind == "LANE": at = at * r.src[0].arg + r
    return simplify(at)

"""Prepare: what one kernel could not do well is split.

in:      TENSOR form
out:     TENSOR form; long reductions to few values in two steps
"""
from __future__ import annotations

import math

from glassgrad.target.target import Target
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

LONG = 1 << 15      # elements reduced to one value before the work is worth splitting
CPU_PARTS = 16      # partial results on a CPU: enough for its threads, and the same for any number of them
GPU_PARTS = 1024


def split_reductions(sink: UOp, target: Target) -> UOp:
    """A reduction of many elements to few values becomes partial reductions, stored, and one over those: else one core would do it all."""
    if target.name == "PYTHON": return sink
    parts = GPU_PARTS if target.has_grid else CPU_PARTS
    memo: dict[UOp, UOp] = {}
    for n in sink.toposort():
        src = tuple(memo[s] for s in n.src)
        new = n if src == n.src else n.replace(src=src)
        if n.op is Ops.REDUCE:
            count = math.prod(n.src[0].shape[a] for a in n.arg.axes)
            if count >= LONG and n.size * 2 < parts: new = _split(new, max(parts // n.size, 2))
        memo[n] = new
    return memo[sink]


def _split(n: UOp, parts: int) -> UOp:
    x, op, axes = n.src[0], n.arg.op, n.arg.axes
    if axes == tuple(range(x.ndim)): x, axis = x.reshape((x.size,)), 0
    else: axis = max(axes, key=lambda a: x.shape[a])
    m = x.shape[axis]
    if m < 2 * parts: return n
    main = m // parts * parts
    others = tuple(a for a in axes if a != axis) if x.ndim > 1 else ()
    head = x.shrink(tuple((0, main if a == axis else k) for a, k in enumerate(x.shape)))
    head = head.reshape((*x.shape[:axis], parts, main // parts, *x.shape[axis + 1:]))
    inner = tuple(a + (a > axis) for a in others) + (axis + 1,)
    partial = head.reduce(op, inner)
    partial.site = partial.site or n.site
    partial = UOp(Ops.CONTIGUOUS, n.dtype, (partial,), f"one value from {m} elements: {parts} partial results are found in parallel")
    left = axis - sum(a < axis for a in others)
    total = partial.reduce(op, (left,))
    if main < m:
        rest = x.shrink(tuple((main, m) if a == axis else (0, k) for a, k in enumerate(x.shape)))
        total = total.alu(op, rest.reduce(op, tuple(sorted((*others, axis)))))
    if total.site is None: total.site = n.site
    return total

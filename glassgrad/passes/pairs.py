"""Pairs: sums of products of small integers, two products at once.

in:      KERNEL form, before axes are split
out:     the same; where a contraction multiplies integers of up to 16 bits, half as many turns of PAIRMUL
source:  x86's pmaddwd and its kin on other machines; operands interleaved as in gemmlowp (B. Jacob, P. Warden, 2015)
"""
from __future__ import annotations

import math

from glassgrad.passes.axes import Kernel, Statement, replace_axes, size
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, substitute

REUSE = 16      # times that an operand is read, below which making pairs costs more than it saves


def pair_products(sink: UOp, target: Target) -> UOp:
    """Every sum over an even axis of products x*y, -2^15 <= x, y < 2^15, both read often, in pairs of neighbours."""
    if Ops.PAIRMUL not in target.ops or not any(n.op is Ops.REDUCE and n.dtype is dtypes.int32 for n in sink.toposort()): return sink
    k = Kernel(sink)
    pairs = {s.node: made for s in k.statements if (made := _paired(k, s)) is not None}
    return substitute((sink,), pairs)[0] if pairs else sink


def _paired(k: Kernel, s: Statement) -> UOp | None:
    n = s.node
    if n.op is not Ops.REDUCE or n.arg.op is not Ops.ADD or n.dtype is not dtypes.int32 or n.src[0].op is not Ops.MUL: return None
    operands = n.src[0].src
    if any(bounds(x)[0] < -1 << 15 or bounds(x)[1] >= 1 << 15 or _reuse(k, s, x) < REUSE for x in operands): return None
    r = next((r for r in reversed(s.own) if size(r) % 2 == 0 and all(r in k.free[x] for x in operands)), None)
    if r is None: return None
    half = k.new_range(size(r) // 2, r.arg.kind)

    def pair(x: UOp) -> UOp:
        low, high = (replace_axes(x, {r: half * 2 + i}) for i in (0, 1))
        return low & 0xFFFF | high << 16
    return n.replace(src=(pair(operands[0]).alu(Ops.PAIRMUL, pair(operands[1])), *(half if x is r else x for x in n.src[1:])))


def _reuse(k: Kernel, s: Statement, x: UOp) -> int: return math.prod(size(r) for r in s.free if r not in k.free[x])

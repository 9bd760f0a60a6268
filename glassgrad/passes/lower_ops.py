"""Lower ops: what the target cannot compute itself, in ops that it can.

in:      any kernel form; arithmetic on scalars or vectors
out:     the same with only those arithmetic rows that target.ops names
source:  a row's own `decomp`, else TABLE_OF_OPS below and passes/transcend.py; THREEFRY after J. Salmon et al., Parallel random
         numbers: as easy as 1, 2, 3 (SC 2011); division by constants after H. Warren, Hacker's Delight, chapter 10

One walk over the graph, no search: each node is looked at once, and so is each node that a decomposition makes.
"""
from __future__ import annotations

from collections.abc import Callable

from glassgrad.passes.transcend import FUNCTIONS, transcend
from glassgrad.target.target import Target
from glassgrad.uop.dtype import TABLE, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp, toposort

KEPT = (Ops.CAST, Ops.BITCAST, Ops.WHERE)                      # every target has them
PLAIN = frozenset((Ops.ADD, Ops.SUB, Ops.MUL, Ops.FDIV, Ops.NEG, Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR, Ops.CMPLT, Ops.CMPLE,
                   Ops.CMPEQ, Ops.CMPNE))                      # what passes/transcend.py writes, besides KEPT and MULACC


def lower_ops(graph: UOp, target: Target) -> UOp:
    """`graph` with every arithmetic op that `target` lacks decomposed."""
    return _lower(graph, target, {})


def lower_op(node: UOp, target: Target) -> UOp | None:
    """One node in the target's ops, its sources left as they are; None if it is native or no arithmetic.

    errors:  CompilerBug if the op is missing and nobody can decompose it
    """
    made = _decompose(node, target)
    if made is None or (node.op in FUNCTIONS and target.ops >= PLAIN and node.op.decomp is None): return made  # nothing left to lower
    return _lower(made, target, {s: s for s in node.src})


def _lower(root: UOp, target: Target, memo: dict[UOp, UOp]) -> UOp:
    for n in toposort((root,), stop=lambda n: n in memo):
        if n in memo: continue
        src = tuple([memo[s] for s in n.src])
        new = n if src == n.src else n.replace(src=src)
        made = lower_op(new, target) if n.op.is_alu and n.op not in target.ops else None
        memo[n] = new if made is None else made
    return memo[root]


def _decompose(n: UOp, target: Target) -> UOp | None:
    if not n.op.is_alu or n.op in target.ops or n.op in KEPT: return None
    if n.op.decomp is not None: return n.op.decomp(n)
    made = TABLE_OF_OPS[n.op](n, target) if n.op in TABLE_OF_OPS else transcend(n, target)
    if made is None:
        raise CompilerBug(f"lower ops: {target.name} lacks {n.op} on {n.dtype.short} and there is no decomposition of it\n"
                          f"  try: a `decomp` in the row of {n.op}, or {n.op} in the target's ops")
    return made


# ---- one function a row ----------------------------------------------------------------------------------------------------------
def recip(n: UOp, t: Target) -> UOp: return n.const_like(1.0) / n.src[0]
def mulacc(n: UOp, t: Target) -> UOp: return n.src[0] * n.src[1] + n.src[2]
def neg(n: UOp, t: Target) -> UOp: return n.const_like(-0.0 if n.dtype.is_float else 0) - n.src[0]
def sub(n: UOp, t: Target) -> UOp: return n.src[0] + -n.src[1]
def cmple(n: UOp, t: Target) -> UOp: return (n.src[0] < n.src[1]) | n.src[0].eq(n.src[1])
def cmpne(n: UOp, t: Target) -> UOp: return n.src[0].eq(n.src[1]).not_()


def maximum(n: UOp, t: Target) -> UOp:
    """The first where it is larger or NaN, else the second: so NaN wins whichever side it is on."""
    return _choose(n, n.src[1] < n.src[0], Ops.OR)


def minimum(n: UOp, t: Target) -> UOp: return _choose(n, n.src[0] < n.src[1], Ops.AND)


def _choose(n: UOp, better: UOp, of_bools: Op) -> UOp:
    x, y = n.src
    if n.dtype.is_bool: return x.alu(of_bools, y)
    return ((better | x.ne(x)) if n.dtype.is_float else better).where(x, y)


def cdiv(n: UOp, t: Target) -> UOp | None:
    """By a power of two: shifts. Else by a float division that has digits to spare, which 64-bit integers do not have."""
    x, y = n.src
    if y.op is Ops.CONST and y.arg != 0 and abs(y.arg) & abs(y.arg) - 1 == 0: return _shift_down(x, y.arg)
    wide = dtypes.float32 if n.dtype.bits <= 16 else dtypes.float64
    if n.dtype.bits > 32 or wide not in t.dtypes: return None
    by_zero = y.eq(0)
    quotient = (x.cast(wide) / by_zero.where(y.const_like(1), y).cast(wide)).trunc()
    if n.dtype.kind == "int": quotient = quotient.cast(TABLE["int64" if n.dtype.bits == 32 else "int32"])  # least / -1 wraps
    return by_zero.where(n.const_like(0), quotient.cast(n.dtype))


def _shift_down(x: UOp, c: int) -> UOp:
    """x / c toward zero for |c| a power of two: negative x is moved up by |c| - 1 before the shift."""
    k = abs(c).bit_length() - 1
    if k and x.dtype.kind == "int" and bounds(x)[0] < 0: x = x + (x >> x.dtype.bits - 1 & abs(c) - 1)
    q = x >> k if k else x
    return q if c > 0 else q.const_like(0) - q


def cmod(n: UOp, t: Target) -> UOp:
    """What division leaves over, from the division."""
    x, y = n.src
    if y.op is Ops.CONST and y.arg > 0 and y.arg & y.arg - 1 == 0 and (n.dtype.kind == "uint" or bounds(x)[0] >= 0): return x & y.arg - 1
    return x - (x // y) * y


def threefry(n: UOp, t: Target) -> UOp:
    """20 rounds on the two 32-bit halves of the counter, keyed by the halves of the key."""
    u32 = dtypes.uint32.vec(n.dtype.lanes)
    def halves(v: UOp) -> tuple[UOp, UOp]: return v.cast(u32), (v >> 32).cast(u32)
    (a, b), (k0, k1) = halves(n.src[0]), halves(n.src[1])
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    a, b = a + k0, b + k1
    for i in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            a = a + b
            b = (b << r | b >> 32 - r) ^ a
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + (i + 1)
    return b.cast(n.dtype) << 32 | a.cast(n.dtype)


TABLE_OF_OPS: dict[Op, Callable[[UOp, Target], UOp | None]] = {
    Ops.RECIP: recip, Ops.MULACC: mulacc, Ops.NEG: neg, Ops.SUB: sub, Ops.CMPLE: cmple, Ops.CMPNE: cmpne, Ops.MAX: maximum,
    Ops.MIN: minimum, Ops.CDIV: cdiv, Ops.CMOD: cmod, Ops.THREEFRY: threefry,
}

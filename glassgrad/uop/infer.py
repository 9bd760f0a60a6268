"""Facts of a node that follow from its sources: the interval of its values, its loop axes, its place in a stable order, its terms as a sum.

Each is computed once per node, kept on the node, and iterative: depth does not matter.
"""
from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from glassgrad.uop.dtype import DType
from glassgrad.uop.ops import Op, Ops, ReduceArg
from glassgrad.uop.uop import UOp, toposort

Interval = tuple[Any, Any]
Terms = dict[UOp, int]
LONG_SUM = 32

ADD, SUB, MUL, NEG, CONST, CDIV, CMOD = Ops.ADD, Ops.SUB, Ops.MUL, Ops.NEG, Ops.CONST, Ops.CDIV, Ops.CMOD
RANGE, REDUCE, END = Ops.RANGE, Ops.REDUCE, Ops.END
_ranges: dict[DType, Interval] = {}


def dtype_range(d: DType) -> Interval:
    """The interval of all values of `d`; (-inf, inf) for floats."""
    if d not in _ranges:
        _ranges[d] = (-math.inf, math.inf) if d.is_float or d.kind == "void" else (int(d.min), int(d.max))
    return _ranges[d]


def bounds(n: UOp) -> Interval:
    """The smallest interval (lo, hi) known to hold every value of `n`; (-inf, inf) for floats.

    Always right for fixed-width arithmetic: what may wrap around has the interval of its dtype.
    """
    if n._bounds is not None: return n._bounds
    stack = [n]
    while stack:
        m = stack.pop()
        rule = _RULES.get(m.op) if m.dtype.kind != "float" else None
        if rule is None:
            m._bounds = dtype_range(m.dtype)
            continue
        known = [s._bounds for s in m.src]
        if None in known:
            stack.append(m)
            stack += [s for s in m.src if s._bounds is None]
            continue
        span = rule(m, *known)
        least, most = _ranges.get(m.dtype) or dtype_range(m.dtype)
        m._bounds = span if least <= span[0] and span[1] <= most else (least, most)
    return n._bounds


def is_const(n: UOp, value: Any) -> bool:
    """Is `n` the constant `value`?"""
    return n.op is CONST and n.arg == value


# ---- interval rules, one per op --------------------------------------------------------------------------------------------------
def _add(n: UOp, x: Interval, y: Interval) -> Interval: return x[0] + y[0], x[1] + y[1]
def _sub(n: UOp, x: Interval, y: Interval) -> Interval: return x[0] - y[1], x[1] - y[0]
def _neg(n: UOp, x: Interval) -> Interval: return -x[1], -x[0]
def _hull(values: Iterable[int]) -> Interval:
    values = tuple(values)
    return min(values), max(values)

def _mul(n: UOp, x: Interval, y: Interval) -> Interval:
    if x[0] >= 0 and y[0] >= 0: return x[0] * y[0], x[1] * y[1]
    if n.src[0] is n.src[1]: return (0 if x[0] < 0 < x[1] else min(x[0] ** 2, x[1] ** 2)), max(x[0] ** 2, x[1] ** 2)
    return _hull(i * j for i in x for j in y)

def _div(n: UOp, x: Interval, y: Interval) -> Interval:
    if y[0] > 0 or y[1] < 0: return _hull([_trunc_div(i, j) for i in x for j in y] + ([0] if x[0] < 0 < x[1] else []))
    most = max(abs(x[0]), abs(x[1]))
    return (0 if x[0] >= 0 and y[0] >= 0 else -most), most

def _mod(n: UOp, x: Interval, y: Interval) -> Interval:
    if 0 <= x[0] and x[1] < y[0]: return x
    most = max(abs(x[0]), abs(x[1]))
    if y[0] > 0 or y[1] < 0: most = min(most, max(abs(y[0]), abs(y[1])) - 1)
    return (0 if x[0] >= 0 else max(-most, x[0])), (0 if x[1] <= 0 else min(most, x[1]))

def _trunc_div(x: int, y: int) -> int: return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)

def _and(n: UOp, x: Interval, y: Interval) -> Interval:
    if n.dtype.kind == "bool": return min(x[0], y[0]), min(x[1], y[1])
    if x[0] < 0 and y[0] < 0: return dtype_range(n.dtype)
    return 0, min(b[1] for b in (x, y) if b[0] >= 0)

def _or(n: UOp, x: Interval, y: Interval) -> Interval:
    if n.dtype.kind == "bool": return max(x[0], y[0]), max(x[1], y[1])
    if x[0] < 0 or y[0] < 0: return dtype_range(n.dtype)
    return max(x[0], y[0]), (1 << max(x[1], y[1]).bit_length()) - 1

def _xor(n: UOp, x: Interval, y: Interval) -> Interval:
    if x[0] < 0 or y[0] < 0: return dtype_range(n.dtype)
    if n.dtype.kind == "bool" and x[0] == x[1] and y[0] == y[1]: return x[0] ^ y[0], x[0] ^ y[0]
    return 0, (1 << max(x[1], y[1]).bit_length()) - 1

def _shl(n: UOp, x: Interval, y: Interval) -> Interval:
    if y[0] < 0 or y[1] >= n.dtype.bits: return dtype_range(n.dtype)
    return _hull(i << j for i in x for j in y)

def _shr(n: UOp, x: Interval, y: Interval) -> Interval:
    if y[0] < 0 or y[1] >= n.dtype.bits: return dtype_range(n.dtype)
    return _hull(i >> j for i in x for j in y)

def _where(n: UOp, x: Interval, y: Interval, z: Interval) -> Interval:
    if x[0] == x[1]: return y if x[0] else z
    return min(y[0], z[0]), max(y[1], z[1])

def _cast(n: UOp, x: Interval) -> Interval:
    if n.dtype.kind == "bool": return (1 if x[0] > 0 or x[1] < 0 else 0), (0 if x[0] == x[1] == 0 else 1)
    return dtype_range(n.dtype) if n.src[0].dtype.kind == "float" else x  # what does not fit, bounds() widens

def _decide(yes: bool, no: bool) -> Interval: return (1, 1) if yes else (0, 0) if no else (0, 1)
def _lt(n: UOp, x: Interval, y: Interval) -> Interval: return _decide(x[1] < y[0], x[0] >= y[1] and x[0] != -math.inf)
def _le(n: UOp, x: Interval, y: Interval) -> Interval: return _decide(x[1] <= y[0] and x[1] != math.inf, x[0] > y[1])
def _eq(n: UOp, x: Interval, y: Interval) -> Interval: return _decide(x[0] == x[1] == y[0] == y[1], x[1] < y[0] or y[1] < x[0])
def _ne(n: UOp, x: Interval, y: Interval) -> Interval:
    lo, hi = _eq(n, x, y)
    return 1 - hi, 1 - lo

def _horizontal(n: UOp, x: Interval) -> Interval: return _fold_of(n.arg, x, n.src[0].dtype.lanes, n.dtype)
def _reduce(n: UOp, x: Interval, *ranges: Interval) -> Interval:
    if not isinstance(n.arg, ReduceArg): return dtype_range(n.dtype)
    count = math.prod(r[1] + 1 for r in ranges) if ranges else math.prod(n.src[0].shape[a] for a in n.arg.axes)
    return _fold_of(n.arg.op, x, count, n.dtype)
def _fold_of(op: Op, x: Interval, count: int, d: DType) -> Interval:
    """The interval of `count` values combined; a loop may run less often, so sums reach from 0 on."""
    if count and (op is Ops.MAX or op is Ops.MIN): return x
    return (min(x[0] * count, 0), max(x[1] * count, 0)) if op is ADD else dtype_range(d)

def _mulacc(n: UOp, x: Interval, y: Interval, z: Interval) -> Interval: return _add(n, _hull(i * j for i in x for j in y), z)
def _same(n: UOp, x: Interval, *rest: Interval) -> Interval: return x
def _with_zero(n: UOp, x: Interval) -> Interval: return min(x[0], 0), max(x[1], 0)


_RULES: dict[Op, Callable[..., Interval]] = {
    CONST: lambda n: (int(n.arg), int(n.arg)), ADD: _add, SUB: _sub, NEG: _neg, MUL: _mul, CDIV: _div, CMOD: _mod, Ops.MULACC: _mulacc,
    Ops.AND: _and, Ops.OR: _or, Ops.XOR: _xor, Ops.SHL: _shl, Ops.SHR: _shr, Ops.WHERE: _where, Ops.CAST: _cast,
    Ops.CMPLT: _lt, Ops.CMPLE: _le, Ops.CMPEQ: _eq, Ops.CMPNE: _ne,
    Ops.MAX: lambda n, x, y: (max(x[0], y[0]), max(x[1], y[1])), Ops.MIN: lambda n, x, y: (min(x[0], y[0]), min(x[1], y[1])),
    Ops.RANGE: lambda n, count: (0, max(count[1] - 1, 0)), Ops.SPECIAL: lambda n: (0, max(n.arg.size - 1, 0)),
    Ops.VAR: lambda n: (n.arg.lo, n.arg.hi), Ops.BIND: _same, Ops.IOTA: lambda n: (0, max(n.arg - 1, 0)),
    Ops.LANES: lambda n: (0, n.dtype.lanes - 1), Ops.SPLAT: _same, Ops.EXTRACT: _same, Ops.HREDUCE: _horizontal,
    Ops.SHUFFLE: lambda n, x, y: _hull((*x, *y)), Ops.PACK: lambda n, *src: (min(b[0] for b in src), max(b[1] for b in src)), Ops.REDUCE: _reduce,
    Ops.PAD: _with_zero, Ops.UNFOLD: _same, Ops.CONTIGUOUS: _same, Ops.LEAF: _same, Ops.DETACH: _same, Ops.SURROGATE: _same,
    **{op: _same for op in (Ops.RESHAPE, Ops.EXPAND, Ops.PERMUTE, Ops.SHRINK, Ops.FLIP)},
}


# ---- loop axes -------------------------------------------------------------------------------------------------------------------
NO_AXES: frozenset[UOp] = frozenset()


def free_axes(n: UOp) -> frozenset[UOp]:
    """The RANGE nodes that the value of `n` depends on: those below it that no REDUCE or END closes on the way."""
    found = n._axes
    if found is not None: return found
    if n.op is RANGE: return frozenset((n,))       # not kept: a node that knows itself would live for ever
    for s in n.src:
        if s._axes is None and s.op is not RANGE: break
    else:               # the usual case: sources are asked before their consumers
        return _axes_of(n)
    for m in toposort((n,), stop=_knows_axes):
        if m._axes is None and m.op is not RANGE: _axes_of(m)
    return n._axes


def _axes_of(n: UOp) -> frozenset[UOp]:
    """The free axes of a node whose sources know theirs."""
    out = NO_AXES
    for s in n.src:
        more = s._axes if s.op is not RANGE else frozenset((s,))
        if not out: out = more
        elif more and not more <= out: out |= more
    n._axes = out.difference(n.src[1:]) if n.op is REDUCE or n.op is END else out
    return n._axes


def _knows_axes(n: UOp) -> bool: return n._axes is not None or n.op is RANGE


# ---- a stable order --------------------------------------------------------------------------------------------------------------
_FIRST = {Ops.RANGE: 0, Ops.SPECIAL: 1, Ops.VAR: 2}


def order_key(n: UOp) -> tuple[int, Any, int]:
    """Where `n` stands among the terms of a sum: loop axes by number, hardware indices and variables by name, then all else.

    The same in every process, and blind to the numbers of buffers: graphs of equal structure are ordered alike.
    """
    if n._key is not None: return n._key
    stack = [n]
    while stack:
        m = stack[-1]
        if m._key is not None:
            stack.pop()
            continue
        missing = [s for s in m.src if s._key is None]
        if missing:
            stack.extend(missing)
            continue
        arg = _arg_key(m)
        digest = hash((zlib.crc32(m.op.name.encode()), zlib.crc32(m.dtype.short.encode()), arg, *[s._key[2] for s in m.src]))
        m._key = (_FIRST[m.op], arg, digest) if m.op in _FIRST else (3, _leading(m.src), digest)
    return n._key


def _leading(src: tuple[UOp, ...]) -> int:
    """The number of the axis or variable that an expression begins with."""
    for s in src:
        if s.op is not CONST: return s._key[1]
    return 0


def _arg_key(n: UOp) -> int:
    op, arg = n.op, n.arg
    if arg is None or op is Ops.LEAF or op is Ops.KEY: return 0
    if isinstance(arg, (int, float)): return hash(arg) if arg == arg else -1  # hash(nan) differs from object to object
    if op is Ops.RANGE: return arg.id
    if op is Ops.BUFFER: return arg.size
    return zlib.crc32(repr(arg).encode())


# ---- sums ------------------------------------------------------------------------------------------------------------------------
def linear(n: UOp, limit: int | None = LONG_SUM) -> tuple[Terms, int]:
    """An int node as a sum: ({term: factor}, constant), equal to it modulo 2**bits.

    Where `interval(terms, constant)` fits the dtype, the sum is exact. In a simplified index the factor of a RANGE is its stride.
    What has more than `limit` additions counts as one term: rules look at every node and must not walk a long chain each time.
    """
    terms: Terms = {}
    const = adds = 0
    stack = [(n, 1)]
    while stack:
        m, k = stack.pop()
        op = m.op
        if op is ADD or op is SUB:
            adds += 1
            if adds == limit: return {n: 1}, 0
            stack.append((m.src[1], k if op is ADD else -k))
            stack.append((m.src[0], k))
        elif op is CONST: const += k * m.arg
        elif op is MUL and m.src[1].op is CONST:
            x, k = m.src[0], k * m.src[1].arg
            if x.op is MUL or k == 1: stack.append((x, k))
            else: const += _add_term(terms, x, k)
        elif op is NEG: stack.append((m.src[0], -k))
        else: const += _add_term(terms, m, k)
    return terms, const


def _add_term(terms: Terms, x: UOp, k: int) -> int:
    """Put k * x into the sum; what has only one value goes to the constant, which is returned."""
    lo, hi = x._bounds or bounds(x)
    if lo == hi: return k * lo
    terms[x] = terms.get(x, 0) + k
    return 0


def interval(terms: Terms, const: int = 0) -> Interval:
    """The interval of a sum, in unbounded integers."""
    lo = hi = const
    for x, k in terms.items():
        least, most = x._bounds or bounds(x)
        if k > 0:
            lo += k * least
            hi += k * most
        else:
            lo += k * most
            hi += k * least
    return lo, hi


def fits(d: DType, span: Interval) -> bool:
    """Does every integer of `span` have a place in dtype `d`?"""
    least, most = _ranges.get(d) or dtype_range(d)
    return least <= span[0] and span[1] <= most


def from_linear(d: DType, terms: Terms, const: int) -> UOp:
    """The one node that stands for this sum: terms in `order_key` order, those with factor -1 after the others, the constant last."""
    half = 1 << (d.bits - 1)
    items = []
    for x, k in terms.items():
        if not -half <= k < half: k = (k + half) % (2 * half) - half
        if k: items.append((x, k))
    if len(items) > 1: items.sort(key=_term_key)
    acc: UOp | None = None
    for x, k in items:
        if k == -1: acc = UOp(NEG, d, (x,)) if acc is None else UOp(SUB, d, (acc, x))
        else:
            term = x if k == 1 else UOp(MUL, d, (x, constant(d, k)))
            acc = term if acc is None else UOp(ADD, d, (acc, term))
    if acc is None: return constant(d, const)
    if not -half <= const < half: const = (const + half) % (2 * half) - half
    return UOp(ADD, d, (acc, constant(d, const))) if const else acc


def _term_key(item: tuple[UOp, int]) -> tuple: return item[1] == -1, item[0]._key or order_key(item[0])


def constant(d: DType, value: Any) -> UOp:
    """UOp.const without the detour for small integers."""
    if d.kind == "int" and -128 <= value <= 127: return UOp(CONST, d, (), int(value))
    return UOp(CONST, d, (), d.const(value))

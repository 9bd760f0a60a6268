"""Bools, comparisons and floats.

in, out: any form
source:  Boolean algebra; comparisons of integer sums follow from their intervals. Of floats only what IEEE 754 calls equal for every
         value, NaN, infinities and -0.0 among them: x * 0 and x - x are not touched.
"""
from __future__ import annotations

import math
from math import gcd

from glassgrad.rewrite.pattern import Const, Pat, Value, a, in_range, op, x, y
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.dtype import DType
from glassgrad.uop.infer import Terms, bounds, constant, fits, from_linear, interval, linear, order_key
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

CONST, CMPLT, CDIV, AND, OR, XOR = Ops.CONST, Ops.CMPLT, Ops.CDIV, Ops.AND, Ops.OR, Ops.XOR
LONG_CHAIN = 32

logic = RuleSet("logic")
comparisons = RuleSet("comparisons")
floats = RuleSet("floats")


# ---- bools -----------------------------------------------------------------------------------------------------------------------
@logic.algebra("bool")
def bool_units(x: Pat, y: Pat):
    #      name                find                     give
    yield "and_true",          x & True,                x
    yield "or_true",           x | True,                Value("True")
    yield "not_not",           x.not_().not_(),         x
    yield "and_not",           x & x.not_(),            Value("False")
    yield "or_not",            x | x.not_(),            Value("True")
    yield "not_eq",            x.eq(y).not_(),          x.ne(y)
    yield "not_ne",            x.ne(y).not_(),          x.eq(y)
    yield "eq_true",           x.eq(True),              x
    yield "eq_false",          x.eq(False),             x.not_()
    yield "ne_true",           x.ne(True),              x.not_()
    yield "ne_false",          x.ne(False),             x
    yield "ne_of_bools",       x.ne(y),                 x ^ y
    yield "sum_of_bools",      x + y,                   x | y
    yield "product_of_bools",  x * y,                   x & y
    yield "max_of_bools",      x.max(y),                x | y
    yield "min_of_bools",      x.min(y),                x & y


@logic.transform((x < y).not_(), "bool")
def not_less(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """not (r0:8 < i:2..9) -> i <= r0"""
    return y <= x if x.dtype.is_int else None


@logic.transform((x <= y).not_(), "bool")
def not_at_most(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """not (r0:8 <= i:2..9) -> i < r0"""
    return y < x if x.dtype.is_int else None


@logic.transform(op((AND, OR), x, y), "bool")
def collect_conditions(n: UOp) -> UOp | None:
    """(r0:8 < 5) & (r1:8 < 2) & (r0 < 3) -> (r0 < 3) & (r1 < 2)"""
    parts = parts_of(n, n.op)
    if parts is None: return None
    if any(p.op is CONST and p.arg is (n.op is OR) for p in parts): return constant(n.dtype, n.op is OR)
    found = dict.fromkeys([p for p in parts if p.op is not CONST])
    if not found: return parts[0]
    if any(p.op is XOR and p.src[1].op is CONST and p.src[1].arg is True and p.src[0] in found for p in found):
        return constant(n.dtype, n.op is OR)
    limits = _limits(n.op, found)
    if limits is None: return constant(n.dtype, n.op is OR)
    kept = sorted(limits, key=order_key)
    made = kept[0]
    for p in kept[1:]: made = UOp(n.op, n.dtype, (made, p))
    return None if made is n else made


def parts_of(n: UOp, op: Op = AND) -> list[UOp] | None:
    """What a chain of `op` joins (a node of another op is the only part), or None if the chain is long."""
    out, stack = [], [n]
    while stack:
        if len(out) + len(stack) > LONG_CHAIN: return None
        m = stack.pop()
        if m.op is op: stack += (m.src[1], m.src[0])
        else: out.append(m)
    return out


def _limits(op: Op, parts: dict[UOp, None]) -> list[UOp] | None:
    """Of several constant limits on one integer the one that matters; None if together they decide the whole."""
    below: dict[UOp, UOp] = {}      # x -> the condition x < c
    above: dict[UOp, UOp] = {}      # x -> the condition c < x
    out = []
    for p in parts:
        if p.op is not CMPLT or not p.src[0].dtype.is_int or p.dtype.lanes > 1: out.append(p)
        elif p.src[1].op is CONST:
            seen = below.get(p.src[0])
            if seen is None or (p.src[1].arg < seen.src[1].arg) is (op is AND): below[p.src[0]] = p
        elif p.src[0].op is CONST:
            seen = above.get(p.src[1])
            if seen is None or (p.src[0].arg > seen.src[0].arg) is (op is AND): above[p.src[1]] = p
        else: out.append(p)
    for v, p in below.items():
        q = above.get(v)
        if q is None: continue
        low, high = q.src[0].arg, p.src[1].arg
        if high <= low + 1 if op is AND else low < high: return None
    return out + list(below.values()) + list(above.values())


# ---- comparisons of ints ---------------------------------------------------------------------------------------------------------
@comparisons.transform(op((CMPLT, Ops.CMPLE, Ops.CMPEQ, Ops.CMPNE), x, y), "int")
def decide(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """r0:8 < 8 -> True"""
    lo, hi = n._bounds or bounds(n)
    if lo == hi: return constant(n.dtype, lo)
    return constant(n.dtype, n.op is Ops.CMPLE or n.op is Ops.CMPEQ) if x is y else None


@comparisons.algebra("int")
def less_than(x: Pat, a: Const):
    #      name                find                     give                           only if
    yield "at_most",           x <= a,                  x < a + 1,                     in_range(a + 1, x)
    yield "at_least",          op(Ops.CMPLE, a, x),     op(CMPLT, a - 1, x),           in_range(a - 1, x)


@comparisons.transform(op(CMPLT, x, a), "int")
def less_than_constant(n: UOp, x: UOp, a: int) -> UOp | None:
    """r0:8*16 + r1:16 < 64 -> r0 < 4"""
    found = _reduced(x, a)
    if found is None: return None
    terms, limit = found
    d = x.dtype
    if not terms: return constant(n.dtype, limit > 0)
    if all(k < 0 for k in terms.values()):
        flipped = {t: -k for t, k in terms.items()}
        if not fits(d, interval(flipped)) or not fits(d, (-limit, -limit)): return None
        return UOp(CMPLT, n.dtype, (constant(d, -limit), from_linear(d, flipped, 0)))
    made = UOp(CMPLT, n.dtype, (from_linear(d, terms, 0), constant(d, limit)))
    return None if made is n else made


@comparisons.transform(op(CMPLT, a, x), "int")
def more_than_constant(n: UOp, x: UOp, a: int) -> UOp | None:
    """63 < r0:8*16 + r1:16 -> 3 < r0"""
    found = _reduced(x, a + 1)
    if found is None: return None
    terms, limit = found
    d = x.dtype
    if not terms: return constant(n.dtype, limit <= 0)
    if all(k < 0 for k in terms.values()):
        flipped = {t: -k for t, k in terms.items()}
        if not fits(d, interval(flipped)) or not fits(d, (1 - limit, 1 - limit)): return None
        return UOp(CMPLT, n.dtype, (from_linear(d, flipped, 0), constant(d, 1 - limit)))
    if not fits(d, (limit - 1, limit - 1)): return None
    made = UOp(CMPLT, n.dtype, (constant(d, limit - 1), from_linear(d, terms, 0)))
    return None if made is n else made


def _reduced(x: UOp, limit: int) -> tuple[Terms, int] | None:
    """Simpler (terms, limit) with `x < limit` exactly where `sum of terms < limit`, or None if x may wrap around or nothing changes."""
    terms, const = linear(x)
    if not fits(x.dtype, interval(terms, const)): return None
    start = limit
    limit -= const
    changed = bool(const)
    found = _without_low_terms(terms, limit)
    if found is not None: (terms, limit), changed = found, True
    if len(terms) == 1:
        (t, k), = terms.items()
        if k == 1 and t.op is CDIV and t.src[1].op is CONST and t.src[1].arg > 0:
            size = t.src[1].arg
            inner, c = linear(t.src[0])
            scaled = limit * size if limit > 0 else (limit - 1) * size + 1
            if fits(x.dtype, interval(inner, c)): terms, limit, changed = inner, scaled - c, True
    if not changed or not fits(x.dtype, (limit, limit)) or not fits(x.dtype, interval(terms)): return None
    return (terms, limit) if terms or limit != start else None


def _without_low_terms(terms: Terms, limit: int) -> tuple[Terms, int] | None:
    """Divide by a common factor; terms that together stay below what is left over do not matter."""
    for g in sorted({abs(k) for k in terms.values()} | {gcd(*terms.values())}, reverse=True):
        if g <= 1: break
        rest = {t: k for t, k in terms.items() if k % g}
        if len(rest) == len(terms): continue
        top = -(-limit // g)
        lo, hi = interval(rest)
        if 0 <= lo and hi < limit - g * (top - 1): return {t: k // g for t, k in terms.items() if k % g == 0}, top
    return None


@comparisons.transform(op((CMPLT, Ops.CMPLE), x, y), "int")
def without_common_terms(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """r0:8 + i:2..9*4 < r1:3 + i*4 -> r0 < r1"""
    if x.op is CONST or y.op is CONST: return None
    left, c = linear(x)
    right, k = linear(y)
    if left.keys().isdisjoint(right): return None
    d = x.dtype
    if not fits(d, interval(left, c)) or not fits(d, interval(right, k)): return None
    left, right, const = _difference(left, right, k - c)
    if not fits(d, interval(left)) or not fits(d, interval(right, const)): return None
    return UOp(n.op, n.dtype, (from_linear(d, left, 0), from_linear(d, right, const)))


def _difference(left: Terms, right: Terms, const: int) -> tuple[Terms, Terms, int]:
    """left < right + const with every term on one side only, with a positive factor; a lone right side takes no constant."""
    total = dict(left)
    for t, k in right.items(): total[t] = total.get(t, 0) - k
    return {t: k for t, k in total.items() if k > 0}, {t: -k for t, k in total.items() if k < 0}, const


@comparisons.transform(op((Ops.CMPEQ, Ops.CMPNE), x, y), "int")
def equal_sums(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """r0:8*4 + 2 == 10 -> r0 == 2"""
    d = x.dtype
    left, c = linear(x)
    right, k = linear(y)
    left, right, const = _difference(left, right, k - c)
    const = _wrapped(d, const)
    span = interval(left) if not right else (0, 0)
    if not left and not right: return constant(n.dtype, (const == 0) is (n.op is Ops.CMPEQ))
    if const % gcd(1 << d.bits, *left.values(), *right.values()): return constant(n.dtype, n.op is Ops.CMPNE)   # wraps around or not
    if not right and fits(d, span):
        g = gcd(*left.values())
        if const % g: return constant(n.dtype, n.op is Ops.CMPNE)
        left, const = {t: f // g for t, f in left.items()}, const // g
    p, q = from_linear(d, left, 0), from_linear(d, right, 0)
    if not left or (right and order_key(q) < order_key(p)): p, right, const = q, left, _wrapped(d, -const)
    a, b = p, from_linear(d, right, const)
    if b.op is not CONST and order_key(b) < order_key(a) and x is b and y is a: return None
    made = UOp(n.op, n.dtype, (a, b))
    return None if made is n else made


def _wrapped(d: DType, v: int) -> int:
    """The number nearest to 0 that is v modulo 2**bits; for unsigned types their own number."""
    return int(d.const(v))




# ---- floats ----------------------------------------------------------------------------------------------------------------------
@floats.algebra("float")
def float_units(x: Pat, y: Pat):
    #      name                find                     give
    yield "float_mul_one",     x * 1.0,                 x
    yield "float_div_one",     x / 1.0,                 x
    yield "float_add_zero",    x + -0.0,                x
    yield "float_sub_zero",    x - 0.0,                 x
    yield "float_neg_neg",     -(-x),                   x
    yield "float_mul_minus",   x * -1.0,                -x
    yield "float_add_neg",     x + -y,                  x - y
    yield "float_sub_neg",     x - -y,                  x + y
    yield "float_mul_negs",    (-x) * (-y),             x * y
    yield "float_max_self",    x.max(x),                x
    yield "float_min_self",    x.min(x),                x


@floats.transform(x / a, "float")
def divide_by_power_of_two(n: UOp, x: UOp, a: float) -> UOp | None:
    """p0:f32 / 4.0 -> p0*0.25"""
    if a == 0 or not math.isfinite(a) or abs(math.frexp(a)[0]) != 0.5: return None
    d = n.dtype
    least = 2.0 ** (2 - (1 << (d.exponent - 1)))       # the smallest normal number
    return UOp(Ops.MUL, d, (x, constant(d, 1 / a))) if least <= abs(1 / a) <= d.largest and abs(a) >= least else None

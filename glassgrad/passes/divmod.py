"""Div and mod: what index arithmetic makes of reshapes, tiles and strides, taken apart by divisibility and bounds.

in, out: any form
source:  the division theorem. CDIV rounds toward zero; floor and zero agree where nothing is negative, which every rule that needs
         it checks on the bounds. A sum is treated as the integer it stands for only where its interval fits the dtype.
"""
from __future__ import annotations

from math import gcd

from glassgrad.rewrite.pattern import Condition, Const, Pat, Value, a, hi, in_range, lo, x, y
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.infer import Interval, Terms, bounds, constant, fits, from_linear, interval, linear
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

CDIV, CMOD, CONST, MUL, RANGE = Ops.CDIV, Ops.CMOD, Ops.CONST, Ops.MUL, Ops.RANGE

divmod = RuleSet("div and mod")


def _beyond(v: Value, x: Pat) -> Condition:
    """Is v larger than every value and its negation? -128 // 128 is -1 in 8 bits."""
    return ~in_range(v, x) & ~in_range(-v, x)


def _no_wrap(x: Pat, y: Pat) -> Condition:
    """Is the product of two holes exact, and the second never 0? The corners of their intervals say so."""
    return (lo(y) > 0) & (lo(x) >= 0) & in_range(hi(x) * hi(y), x)


@divmod.algebra("int")
def nested(x: Pat, y: Pat, a: Const, b: Const):
    #      name                find                  give                      only if
    yield "div_one",           x // 1,               x
    yield "mod_one",           x % 1,                Value("0")
    yield "div_zero",          x // 0,               Value("0")
    yield "mod_zero",          x % 0,                x
    yield "div_div",           (x // a) // b,        x // (a * b),             (a > 0) & (b > 0) & in_range(a * b, x)
    yield "div_div_tiny",      (x // a) // b,        Value("0"),               (a > 0) & (b > 0) & _beyond(a * b, x)
    yield "mod_mod",           (x % a) % b,          x % b,                    (a > 0) & (b > 0) & (a % b == 0)
    yield "div_of_mod",        (x % a) // b,         (x // b) % (a // b),      (a > 0) & (b > 0) & (a % b == 0)
    yield "mul_div_exact",     (x * y) // y,         x,                        _no_wrap(x, y)
    yield "mul_mod_exact",     (x * y) % y,          Value("0"),               _no_wrap(x, y)
    yield "mod_self",          x % x,                Value("0")
    yield "div_self",          x // x,               Value("1"),               lo(x) > 0


@divmod.transform(x // a, "int")
def divide_sum(n: UOp, x: UOp, a: int) -> UOp | None:
    """(r0:8*16 + r1:8*2 + r2:2)//4 -> r0*4 + r1//2"""
    if a <= 1: return None
    found = _split(x, a)
    if found is None: return None
    terms, const, span = found
    d = n.dtype
    if -a < span[0] and span[1] < a: return constant(d, 0)
    first = _trunc(span[0], a)
    if first == _trunc(span[1], a): return constant(d, first)
    if span[0] < 0: return _of_negative(n, terms, const, span)
    inner, outer, low = _carve(terms, const, a)
    if inner is not None:
        whole = from_linear(d, *inner)
        return whole if outer == 1 else UOp(CDIV, d, (whole, constant(d, outer)))
    if low is None: return _of_div(n, terms, const)
    quotient, rest, k = low
    over = UOp(CDIV, d, (from_linear(d, *rest), constant(d, a)))
    return UOp(Ops.ADD, d, (from_linear(d, quotient, k), over))


@divmod.transform(x % a, "int")
def remainder_of_sum(n: UOp, x: UOp, a: int) -> UOp | None:
    """(r0:8*16 + r1:8*2 + r2:2)%4 -> r2 + r1%2*2"""
    if a <= 1: return None
    found = _split(x, a)
    if found is None: return None
    terms, const, span = found
    d = n.dtype
    if -a < span[0] and span[1] < a: return x
    first = _trunc(span[0], a)
    if first == _trunc(span[1], a): return from_linear(d, terms, const - first * a)
    if span[0] < 0: return None
    inner, outer, low = _carve(terms, const, a)
    if inner is not None:
        rest, k = _rest_of(terms, const, inner, a // outer)
        if outer == 1: return from_linear(d, rest, k)
        step = constant(d, a // outer)
        high = UOp(MUL, d, (UOp(CMOD, d, (from_linear(d, *inner), constant(d, outer))), step))
        return UOp(Ops.ADD, d, (high, from_linear(d, rest, k)))
    if low is None: return None
    return UOp(CMOD, d, (from_linear(d, *low[1]), constant(d, a)))


@divmod.transform(x // y, "int")
def divide_by_symbol(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """(r0:8*i:2..9 + r1:2)//i -> r0"""
    found = _symbolic(x, y)
    return found[0] if found else None


@divmod.transform(x % y, "int")
def remainder_by_symbol(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """(r0:8*i:2..9 + r1:2)%i -> r1"""
    found = _symbolic(x, y)
    return found[1] if found else None


# ---- sums that a division and its remainder make whole ---------------------------------------------------------------------------
def recombine(terms: Terms, const: int) -> int:
    """Put quotients and remainders of the same value together, in place, and return the constant.

    x//c*c + x%c is x, and x - x//c*c is x%c: both hold for every x, wrapped or not.
    """
    for _ in range(8):
        changed = False
        for m in [t for t in terms if t.op is CMOD and t.src[1].op is CONST]:
            k = terms.get(m)
            if k is None: continue
            x, size = m.src[0], m.src[1].arg
            quotient = next((q for q in _quotients(x, size, m) if terms.get(q) == k * size), None)
            if quotient is None: continue
            del terms[m], terms[quotient]
            const = _put(terms, const, x, k)
            changed = True
        if not changed: break
    for q in [t for t in terms if t.op is CDIV and t.src[1].op is CONST]:
        k = terms[q]
        size = q.src[1].arg
        if not size or k % size: continue
        inner, c = linear(q.src[0])
        if any(terms.get(t) != -k // size * f for t, f in inner.items()): continue
        if not inner: continue
        for t in inner: del terms[t]
        del terms[q]
        m = UOp(CMOD, q.dtype, q.src)
        terms[m] = terms.get(m, 0) - k // size
        const += k // size * c
        if terms[m] == 0: del terms[m]
    return const


def _quotients(x: UOp, size: int, m: UOp) -> tuple[UOp, ...]:
    """The nodes that may stand for x // size."""
    d = m.dtype
    if size <= 0: return ()
    plain = UOp(CDIV, d, m.src)
    if x.op is CDIV and x.src[1].op is CONST and x.src[1].arg > 0:
        whole = x.src[1].arg * size
        if whole <= d.max: return plain, UOp(CDIV, d, (x.src[0], constant(d, whole)))
    return (plain,)


def _put(terms: Terms, const: int, x: UOp, k: int) -> int:
    inner, c = linear(x)
    for t, f in inner.items():
        terms[t] = terms.get(t, 0) + f * k
        if terms[t] == 0: del terms[t]
    return const + c * k


# ---- taking a numerator apart ----------------------------------------------------------------------------------------------------
def _split(x: UOp, a: int) -> tuple[Terms, int, Interval] | None:
    """The numerator as an exact sum with its interval, or None if it may wrap around."""
    terms, const = linear(x)
    span = interval(terms, const)
    if not fits(x.dtype, span):
        if len(terms) == 1 and const == 0: return None
        terms, const, span = {x: 1}, 0, bounds(x)
    return terms, const, span


def _carve(terms: Terms, const: int, a: int) -> tuple:
    """Ways to split N = sum >= 0 at divisor a: (inner, outer, low).

    inner, outer:  N // a is inner // outer: some g dividing a divides all terms but some that together stay in 0..g-1; outer = a/g
    low:           else (quotient, rest, k): N is a * (quotient + k) + rest, with 0 <= rest; or None
    """
    factors = sorted({gcd(k, a) for k in terms.values()}, reverse=True)
    for g in factors:
        if g == 1: break
        lo, hi = interval({t: k for t, k in terms.items() if k % g}, const % g)
        if 0 <= lo and hi < g: return ({t: k // g for t, k in terms.items() if k % g == 0}, const // g), a // g, None
    quotient = {t: k // a for t, k in terms.items() if k % a == 0}
    rest = {t: k for t, k in terms.items() if k % a}
    if (quotient or const >= a or const < 0) and interval(rest, const % a)[0] >= 0:
        return None, 1, (quotient, (rest, const % a), const // a)
    return None, 1, None


def _rest_of(terms: Terms, const: int, inner: tuple[Terms, int], g: int) -> tuple[Terms, int]:
    return {t: k for t, k in terms.items() if t not in inner[0]}, const - inner[1] * g


def _of_negative(n: UOp, terms: Terms, const: int, span: Interval) -> UOp | None:
    """A quotient of what is never positive is minus the quotient of its negation."""
    if span[1] > 0 or not fits(n.dtype, (-span[1], -span[0])): return None
    negated = from_linear(n.dtype, {t: -k for t, k in terms.items()}, -const)
    return UOp(Ops.NEG, n.dtype, (UOp(CDIV, n.dtype, (negated, n.src[1])),))


def _of_div(n: UOp, terms: Terms, const: int) -> UOp | None:
    """(x//b + c)//a is (x + b*c)//(a*b) where nothing is negative."""
    if len(terms) != 1 or const <= 0: return None
    (q, k), = terms.items()
    if k != 1 or q.op is not CDIV or q.src[1].op is not CONST or q.src[1].arg <= 0 or bounds(q.src[0])[0] < 0: return None
    size = q.src[1].arg
    inner, c = linear(q.src[0])
    span = interval(inner, c + const * size)
    d = n.dtype
    if span[0] < 0 or not fits(d, span) or not fits(d, interval(inner, c)) or size * n.src[1].arg > d.max: return None
    return UOp(CDIV, n.dtype, (from_linear(n.dtype, inner, c + const * size), constant(n.dtype, size * n.src[1].arg)))


def _symbolic(x: UOp, y: UOp) -> tuple[UOp, UOp] | None:
    """(quotient, remainder) of a sum by a divisor known only when the program runs: terms with the factor y, and others below y."""
    if y.op is CONST or x.op not in (Ops.ADD, MUL, RANGE) or bounds(y)[0] <= 0: return None
    terms, const = linear(x)
    if not fits(x.dtype, interval(terms, const)) or interval(terms, const)[0] < 0: return None
    quotient: Terms = {}
    rest: Terms = {}
    for t, k in terms.items():
        factor = t.src[0] if t.op is MUL and t.src[1] is y else t.src[1] if t.op is MUL and t.src[0] is y else None
        if t is y: return None
        if factor is None: rest[t] = k
        else: quotient[factor] = quotient.get(factor, 0) + k
    lo, hi = interval(rest, const)
    below = hi < bounds(y)[0] or (const == 0 and len(rest) == 1 and _counts_to(rest, y))
    if lo < 0 or not below or not fits(x.dtype, interval(quotient)): return None
    return from_linear(x.dtype, quotient, 0), from_linear(x.dtype, rest, const)


def _counts_to(rest: Terms, y: UOp) -> bool:
    """Is this a single axis with y steps, or a remainder by y?"""
    (t, k), = rest.items()
    return k == 1 and ((t.op is RANGE and t.src[0] is y) or (t.op is CMOD and t.src[1] is y))


def _trunc(v: int, a: int) -> int: return v // a if v >= 0 else -(-v // a)

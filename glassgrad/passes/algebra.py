"""Algebra: units, constants, sums, where, casts; and the rule sets that all stages use to simplify.

in:      any form
out:     the same form, every node in its normal form: constants folded and on the right, sums of ints with their terms in one order
         so that equal indices are one node, divisions and comparisons decided where bounds decide them
source:  our own; the rules on div and mod follow from the division theorem, each is proved in tests/rules

`index` simplifies ints and bools, `all` also floats (only what IEEE 754 calls equal), `shapes` the movement ops of tensor graphs,
`tensor` everything on tensor graphs. `simplify(n)` is `index` for one node built a moment ago.
"""
from __future__ import annotations

import math
import struct
from collections.abc import Iterable

from glassgrad.passes import bool_float, divmod
from glassgrad.rewrite import trace
from glassgrad.rewrite.driver import rewrite
from glassgrad.rewrite.pattern import ALU, Const, Pat, Value, a, b, c, hi, lo, op, x, y, z
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.dtype import DType
from glassgrad.uop.infer import Terms, bounds, constant, from_linear, linear, order_key
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

LONG_PRODUCT = 8

constants = RuleSet("constants")
sums = RuleSet("sums")
units = RuleSet("units")
gates = RuleSet("where and gates")
casts = RuleSet("casts")
shapes = RuleSet("shapes", shaped=True)


# ---- constants -------------------------------------------------------------------------------------------------------------------
@constants.transform(op(ALU, a))
def fold_one(n: UOp) -> UOp | None:
    """-(3:i32) -> -3"""
    return fold(n)


@constants.transform(op(ALU, a, b))
def fold_two(n: UOp) -> UOp | None:
    """100:i8 + 100 -> -56"""
    return fold(n)


@constants.transform(op(ALU, a, b, c))
def fold_three(n: UOp) -> UOp | None:
    """where(True, 3, 4) -> 3"""
    return fold(n)


def fold(n: UOp) -> UOp | None:
    """The constant that an op on constants gives, or None where the result is the device's affair (a float no integer holds)."""
    op, values = n.op, [s.arg for s in n.src]
    if op is Ops.CAST: return _fold_cast(n.dtype, values[0])
    if op is Ops.BITCAST: return _fold_bitcast(n.dtype, n.src[0].dtype, values[0])
    if op.py is None or op is Ops.THREEFRY: return None
    if (op is Ops.SHL or op is Ops.SHR) and not 0 <= values[1] < n.dtype.bits: return None
    return constant(n.dtype, op.py(*values))


def _fold_cast(d: DType, value: bool | int | float) -> UOp | None:
    if isinstance(value, float) and d.is_int and not (math.isfinite(value) and d.min <= math.trunc(value) <= d.max): return None
    return constant(d, value)


_CODES = {"bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
          "float16": "e", "float32": "f", "float64": "d"}


def _fold_bitcast(to: DType, d: DType, value: bool | int | float) -> UOp | None:
    if d.name not in _CODES or to.name not in _CODES or d.bits != to.bits or value != value: return None
    return constant(to, struct.unpack("<" + _CODES[to.name], struct.pack("<" + _CODES[d.name], value))[0])


@constants.transform(op((Ops.ADD, Ops.MUL, Ops.AND, Ops.OR, Ops.XOR, Ops.CMPEQ, Ops.CMPNE), a, x))
def constant_right(n: UOp, x: UOp) -> UOp | None:
    """3 * x:i32 -> x*3"""
    if n.src[0].op is not Ops.CONST or x.op is Ops.CONST: return None
    return UOp(n.op, n.dtype, (x, n.src[0]))


@constants.transform(op((Ops.MAX, Ops.MIN), a, x), "int bool")     # of floats 0.0 and -0.0 the first or the second may win
def limit_right(n: UOp, x: UOp) -> UOp | None:
    """max(3, x:i32) -> max(x, 3)"""
    if n.src[0].op is not Ops.CONST or x.op is Ops.CONST: return None
    return UOp(n.op, n.dtype, (x, n.src[0]))


@constants.transform(op((Ops.MAX, Ops.MIN, Ops.AND, Ops.OR, Ops.XOR, Ops.CMPEQ, Ops.CMPNE), x, y), "int bool")
def operands_in_order(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """max(r1:4, r0:4) -> max(r0, r1)"""
    if n.dtype.is_bool and n.op in (Ops.AND, Ops.OR): return None    # collect_conditions orders whole chains
    if y.op is Ops.CONST or x.op is Ops.CONST or (x._key or order_key(x)) <= (y._key or order_key(y)): return None
    return UOp(n.op, n.dtype, (y, x))


@constants.transform(op((Ops.ADD, Ops.SUB, Ops.MUL, Ops.CDIV, Ops.CMOD, Ops.MAX, Ops.MIN, Ops.WHERE, Ops.CAST), ), "int")
def one_value_left(n: UOp) -> UOp | None:
    """r0:1*3 + 2 -> 2"""
    if n.dtype.is_float: return None
    least, most = n._bounds or bounds(n)
    return constant(n.dtype, least) if least == most else None


# ---- sums of ints ----------------------------------------------------------------------------------------------------------------
@sums.transform(op((Ops.ADD, Ops.SUB), x, y), "int")
def collect_terms(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """r1:4*2 + r0:8 + (r1 + 3)*2 -> r0 + r1*4 + 6"""
    if n.op is Ops.ADD and (_in_order(x, y) if y.op is not Ops.CONST else y.arg != 0 and x.op not in _SUMMED): return None
    terms, const = linear(n)
    if any(t.op is Ops.CDIV for t in terms): const = divmod.recombine(terms, const)
    return _sum(n, terms, const)


def _sum(n: UOp, terms: Terms, const: int) -> UOp | None:
    """The sum in place of `n`, or None if it is `n`."""
    made = _normal_sum(n.dtype, terms, const)
    return None if made is n else made


def _normal_sum(d: DType, terms: Terms, const: int) -> UOp:
    """The sum. One of known axes is born in normal form: nobody needs to look at it again."""
    made = from_linear(d, terms, const)
    if made._simple is True and made._clean is True: return made
    for slot in ("_simple", "_clean"):
        if any(t.op not in AXES or not (_is_leaf(t) or getattr(t, slot) is True) for t in terms): continue
        m = made
        while m.op in _SUMMED:
            setattr(m, slot, True)
            if m.op in _ADDED: setattr(m.src[1], slot, True)
            m = m.src[0]
    return made


def _is_leaf(t: UOp) -> bool: return t.op in LEAVES and (not t.src or t.src[0].op is Ops.CONST)


def _in_order(x: UOp, y: UOp) -> bool:
    """Is x + y already normal, for a y that is one axis with a factor and comes after all terms of x?"""
    if y.op is Ops.MUL and y.src[1].op is Ops.CONST and y.src[1].arg != -1: y = y.src[0]
    if y.op is not Ops.RANGE and y.op is not Ops.VAR: return False
    if x.op is Ops.ADD: x = x.src[1]
    if x.op is Ops.MUL and x.src[1].op is Ops.CONST: x = x.src[0]
    if x.op is not Ops.RANGE and x.op is not Ops.VAR: return False
    return (x._key or order_key(x)) < (y._key or order_key(y))


@sums.transform(-x, "int")
def negate_sum(n: UOp) -> UOp | None:
    """-(r0:4 - r1:4) -> r1 - r0"""
    terms, const = linear(n)
    return _sum(n, terms, const)


@sums.transform(x * a, "int")
def scale_sum(n: UOp, x: UOp, a: int) -> UOp | None:
    """(r0:4*3 + r1:4 + 2)*2 -> r0*6 + r1*2 + 4"""
    if n.src[0] is not x: return None      # a * x: constant_right turns it first
    if x.op not in _SUMMED or a == 0 or a == 1: return constant(n.dtype, 0) if a == 0 else x if a == 1 else _minus(n, a)
    terms, const = linear(x)
    if sum(1 for t in terms if t.op not in AXES) > 1: return None
    return _sum(n, {t: k * a for t, k in terms.items()}, const * a)


@sums.transform(x * y, "int")
def collect_factors(n: UOp, x: UOp, y: UOp) -> UOp | None:
    """r1:4*(r0:8*2) -> r0*r1*2"""
    if y.op is Ops.CONST or x.op is Ops.CONST: return None
    factors, const, stack = [], 1, [n]
    while stack and len(factors) + len(stack) <= LONG_PRODUCT:
        m = stack.pop()
        if m.op is Ops.MUL: stack += (m.src[1], m.src[0])
        elif m.op is Ops.CONST: const *= m.arg
        else: factors.append(m)
    if stack: return None
    factors.sort(key=order_key)
    made = factors[0]
    for f in factors[1:]: made = UOp(Ops.MUL, n.dtype, (made, f))
    if const != 1: made = UOp(Ops.MUL, n.dtype, (made, constant(n.dtype, const)))
    return None if made is n else made


def _minus(n: UOp, a: int) -> UOp | None:
    return UOp(Ops.NEG, n.dtype, (n.src[0],)) if a == -1 or (n.dtype.kind == "uint" and a == n.dtype.max) else None


_ADDED = frozenset((Ops.ADD, Ops.SUB))
_SUMMED = frozenset((Ops.ADD, Ops.SUB, Ops.NEG, Ops.MUL))
LEAVES = frozenset((Ops.RANGE, Ops.SPECIAL, Ops.VAR, Ops.LANES))
AXES = frozenset((Ops.RANGE, Ops.SPECIAL, Ops.VAR, Ops.CDIV, Ops.CMOD, Ops.LANES))   # what index expressions are made of


# ---- units -----------------------------------------------------------------------------------------------------------------------
@units.algebra("int bool")
def units_and_zeros(x: Pat, y: Pat):
    #      name                find              give
    yield "or_zero",           x | 0,            x
    yield "xor_zero",          x ^ 0,            x
    yield "and_zero",          x & 0,            Value("0")
    yield "shl_zero",          x << 0,           x
    yield "shr_zero",          x >> 0,           x
    yield "and_self",          x & x,            x
    yield "or_self",           x | x,            x
    yield "xor_self",          x ^ x,            Value("0")
    yield "max_self",          x.max(x),         x
    yield "min_self",          x.min(x),         x
    yield "and_absorbs",       x & (x | y),      x
    yield "or_absorbs",        x | (x & y),      x
    yield "and_again",         (x & y) & x,      x & y
    yield "or_again",          (x | y) | x,      x | y
    yield "xor_undone",        (x ^ y) ^ x,      y


@units.algebra("int")
def int_units(x: Pat, y: Pat, a: Const, b: Const):
    #      name                find              give                      only if
    yield "and_minus_one",     x & -1,           x
    yield "or_minus_one",      x | -1,           Value("-1")
    yield "and_and",           (x & a) & b,      x & (a & b)
    yield "or_or",             (x | a) | b,      x | (a | b)
    yield "xor_xor",           (x ^ a) ^ b,      x ^ (a ^ b)
    yield "and_mask",          x & a,            x,                        (a & (a + 1) == 0) & (lo(x) >= 0) & (hi(x) <= a)
    yield "max_max",           x.max(a).max(b),  x.max(a.max(b))
    yield "min_min",           x.min(a).min(b),  x.min(a.min(b))
    yield "max_decided",        x.max(y),         x,                        lo(x) >= hi(y)
    yield "min_decided",        x.min(y),         x,                        hi(x) <= lo(y)
    yield "max_of_min",        x.min(a).max(b),  Value("{b}"),             a <= b
    yield "min_of_max",        x.max(a).min(b),  Value("{b}"),             a >= b


# ---- where and gates -------------------------------------------------------------------------------------------------------------
@gates.algebra
def where_units(w: Pat, x: Pat, y: Pat, z: Pat):
    #      name                find                              give
    yield "where_same",        w.where(x, x),                    x
    yield "where_true",        op(Ops.WHERE, True, x, y),        x
    yield "where_false",       op(Ops.WHERE, False, x, y),       y
    yield "where_not",         w.not_().where(x, y),             w.where(y, x)
    yield "where_then_where",  w.where(w.where(x, y), z),        w.where(x, z)
    yield "where_else_where",  w.where(x, w.where(y, z)),        w.where(x, z)
    yield "where_and",         w.where(z.where(x, y), y),        (w & z).where(x, y)
    yield "where_or",          w.where(x, z.where(x, y)),        (w | z).where(x, y)


@gates.algebra("bool")
def where_of_bools(w: Pat, x: Pat):
    #      name                find                              give
    yield "where_is_itself",   w.where(True, False),             w
    yield "where_is_not",      w.where(False, True),             w.not_()
    yield "where_else_false",  w.where(x, False),                w & x
    yield "where_then_true",   w.where(True, x),                 w | x
    yield "where_then_false",  w.where(False, x),                w.not_() & x
    yield "where_else_true",   w.where(x, True),                 w.not_() | x


_PUSHED = (Ops.ADD, Ops.SUB, Ops.MUL, Ops.CDIV, Ops.CMOD, Ops.MAX, Ops.MIN, Ops.AND, Ops.OR, Ops.XOR,
           Ops.CMPLT, Ops.CMPLE, Ops.CMPEQ, Ops.CMPNE)


w = Pat("w")
CHOICE = op(Ops.WHERE, x, a, b).named("w")


@gates.transform(op(_PUSHED, CHOICE, c))
def into_where(n: UOp, w: UOp) -> UOp:
    """where(r0:8 < 3, 5, 7) + 1 -> where(r0 < 3, 6, 8)"""
    return _both_branches(n, w)


@gates.transform(op(_PUSHED, c, CHOICE))
def where_on_the_right(n: UOp, w: UOp) -> UOp:
    """1 - where(r0:8 < 3, 5, 7) -> where(r0 < 3, -4, -6)"""
    return _both_branches(n, w)


@gates.transform(op((Ops.CAST, Ops.NEG), CHOICE))
def one_into_where(n: UOp, w: UOp) -> UOp:
    """f32(where(r0:8 < 3, 5, 7)) -> where(r0 < 3, 5.0:f32, 7.0:f32)"""
    return _both_branches(n, w)


def _both_branches(n: UOp, w: UOp) -> UOp:
    """The op on each branch of a choice between constants."""
    yes, no = (UOp(n.op, n.dtype, tuple([branch if s is w else s for s in n.src]), n.arg) for branch in w.src[1:])
    return UOp(Ops.WHERE, n.dtype, (w.src[0], yes, no))


@gates.transform(op(Ops.LOAD, x, y, True))
def open_load(n: UOp, x: UOp, y: UOp) -> UOp:
    """p0:f32[r0:8, True] -> p0[r0]"""
    return UOp(Ops.LOAD, n.dtype, (x, y), n.arg)


@gates.transform(op(Ops.LOAD, x, y, False))
def shut_load(n: UOp) -> UOp:
    """p0:f32[r0:8, False] -> 0.0"""
    return constant(n.dtype, 0)


@gates.transform(op(Ops.STORE, x, y, z, True))
def open_store(n: UOp, x: UOp, y: UOp, z: UOp) -> UOp:
    """store(p0:f32, r0:8, 1.5:f32, True:b1) -> store(p0, r0, 1.5:f32)"""
    return UOp(Ops.STORE, n.dtype, (x, y, z), n.arg)


@gates.transform(op(Ops.WHERE, w, op(Ops.LOAD, x, y, z), c))
def where_of_gated_load(n: UOp, w: UOp, z: UOp, c: object) -> UOp | None:
    """where(r0:8 < 3, p0:f32[r0, (r0 < 3) & (r1:4 < 2)], 0.0) -> p0[r0, (r0 < 3) & (r1 < 2)]"""
    parts = bool_float.parts_of(w)
    if str(c) not in ("0", "0.0", "False") or parts is None or not set(parts) <= set(bool_float.parts_of(z) or ()): return None
    return n.src[1]


# ---- casts -----------------------------------------------------------------------------------------------------------------------
@casts.transform(op((Ops.CAST, Ops.BITCAST), x))
def no_cast(n: UOp, x: UOp) -> UOp | None:
    """i64(r0:8) -> r0"""
    return x if x.dtype is n.dtype else None


@casts.transform(op(Ops.BITCAST, op(Ops.BITCAST, x)))
def bitcast_twice(n: UOp, x: UOp) -> UOp:
    """bits_i32(bits_f32(x:u32)) -> bits_i32(x)"""
    return UOp(Ops.BITCAST, n.dtype, (x,))


@casts.transform(op(Ops.CAST, op(Ops.CAST, x)))
def cast_twice(n: UOp, x: UOp) -> UOp | None:
    """i32(i64(x:i16)) -> i32(x)"""
    middle, d = n.src[0].dtype, n.dtype
    if not (_holds(middle, x) or (x.dtype.is_int and middle.is_int and d.is_int and d.bits <= middle.bits)): return None
    return x if x.dtype is d else UOp(Ops.CAST, d, (x,))


def _holds(d: DType, x: UOp) -> bool:
    """Does dtype `d` hold every value of `x` exactly?"""
    if x.dtype.is_bool: return True
    f = x.dtype
    if f.is_float: return d.is_float and d.exponent >= f.exponent and d.mantissa >= f.mantissa and (f.finite or not d.finite)
    least, most = bounds(x)
    if d.is_float: return max(abs(least), abs(most)) <= 1 << (d.mantissa + 1) <= d.largest
    return d.is_int and d.min <= least and most <= d.max


@casts.transform(op((Ops.CMPNE, Ops.CMPEQ), op(Ops.CAST, x), a))
def compare_cast_of_bool(n: UOp, x: UOp, a: object) -> UOp | None:
    """i32(x:b1) != 0 -> x"""
    if not x.dtype.is_bool or n.src[1].op is not Ops.CONST or a not in (0, 1): return None
    return x if bool(a) is (n.op is Ops.CMPEQ) else x ^ True


# ---- movement ops of tensor graphs -----------------------------------------------------------------------------------------------
MOVES = (Ops.RESHAPE, Ops.EXPAND, Ops.PERMUTE, Ops.PAD, Ops.SHRINK, Ops.FLIP)


@shapes.transform(op(MOVES, x))
def no_move(n: UOp, x: UOp) -> UOp | None:
    """b0:f32[3,4].permute(0, 1) -> b0"""
    op, arg = n.op, n.arg
    if op is Ops.FLIP:
        axes = tuple(i for i in arg if x.shape[i] != 1)
        return x.flip(axes) if axes != arg else None
    if op is Ops.PERMUTE: idle = arg == tuple(range(len(arg)))
    elif op is Ops.PAD: idle = not any(p != (0, 0) for p in arg)
    else: idle = n.shape == x.shape
    return x if idle else None


@shapes.transform(op(Ops.RESHAPE, op(Ops.RESHAPE, x)))
def reshape_twice(n: UOp, x: UOp) -> UOp:
    """b0:f32[12].reshape(3, 4).reshape(2, 6) -> b0.reshape(2, 6)"""
    return x.reshape(n.arg)


@shapes.transform(op(Ops.EXPAND, op(Ops.EXPAND, x)))
def expand_twice(n: UOp, x: UOp) -> UOp:
    """b0:f32[1,1].expand(3, 1).expand(3, 4) -> b0.expand(3, 4)"""
    return x.expand(n.arg)


@shapes.transform(op(Ops.PERMUTE, op(Ops.PERMUTE, x)))
def permute_twice(n: UOp, x: UOp) -> UOp:
    """b0:f32[2,3,4].permute(1, 2, 0).permute(2, 0, 1) -> b0"""
    first = n.src[0].arg
    return x.permute(tuple(first[i] for i in n.arg))


@shapes.transform(op(Ops.SHRINK, op(Ops.SHRINK, x)))
def shrink_twice(n: UOp, x: UOp) -> UOp:
    """b0:f32[9].shrink((2, 8)).shrink((1, 3)) -> b0.shrink((3, 5))"""
    return x.shrink(tuple((s + lo, s + hi) for (s, _), (lo, hi) in zip(n.src[0].arg, n.arg)))


@shapes.transform(op(Ops.PAD, op(Ops.PAD, x)))
def pad_twice(n: UOp, x: UOp) -> UOp:
    """b0:f32[3].pad((1, 0)).pad((0, 2)) -> b0.pad((1, 2))"""
    return x.pad(tuple((p + lo, q + hi) for (p, q), (lo, hi) in zip(n.src[0].arg, n.arg)))


@shapes.transform(op(Ops.SHRINK, op(Ops.PAD, x)))
def shrink_of_pad(n: UOp, x: UOp) -> UOp | None:
    """b0:f32[5].pad((2, 3)).shrink((3, 6)) -> b0.shrink((1, 4))"""
    box = tuple((start - lo, end - lo) for (start, end), (lo, _) in zip(n.arg, n.src[0].arg))
    return None if any(start < 0 or end > size for (start, end), size in zip(box, x.shape)) else x.shrink(box)


@shapes.transform(op(Ops.FLIP, op(Ops.FLIP, x)))
def flip_twice(n: UOp, x: UOp) -> UOp:
    """b0:f32[2,3].flip(0, 1).flip(1) -> b0.flip(0)"""
    return x.flip(tuple(sorted(set(n.src[0].arg) ^ set(n.arg))))


@shapes.transform(op(Ops.REDUCE, x))
def reduce_one(n: UOp, x: UOp) -> UOp | None:
    """b0:f32[3,1].sum(0, 1) -> b0.reshape(3).sum(0)"""
    if not hasattr(n.arg, "axes") or not any(x.shape[i] == 1 for i in n.arg.axes): return None
    ones = [i for i in n.arg.axes if x.shape[i] == 1]
    left = x.reshape(tuple(s for i, s in enumerate(x.shape) if i not in ones))
    return left.reduce(n.arg.op, tuple(i - sum(j < i for j in ones) for i in n.arg.axes if i not in ones))


@shapes.transform(op(MOVES, x))
def move_constant(n: UOp, x: UOp) -> UOp | None:
    """0:f32.reshape(1, 1).expand(3, 4).permute(1, 0) -> 0:f32.reshape(1, 1).expand(4, 3)"""
    value = uniform(x)
    if value is None or (n.op is Ops.PAD and value.arg != 0): return None
    made = value.broadcast_to(n.shape)
    return None if made is n else made


@shapes.transform(op(ALU))
def scalar_operands(n: UOp) -> UOp | None:
    """b0:f32[3] + 2:f32.reshape(1).expand(3) -> b0 + 2"""
    values = [uniform(s) if s.op in _SPREAD else None for s in n.src]
    if not any(v is not None for v in values): return None
    made = UOp(n.op, n.dtype, tuple([s if v is None else v for s, v in zip(n.src, values)]), n.arg)
    return made if made.site or made is not n else None


_SPREAD = (Ops.EXPAND, Ops.RESHAPE)


def uniform(n: UOp) -> UOp | None:
    """The constant that `n` repeats over its shape, or None."""
    while n.op in _SPREAD: n = n.src[0]
    return n if n.op is Ops.CONST else None


# ---- the sets that stages use ----------------------------------------------------------------------------------------------------
_ints = constants + sums + units + divmod.divmod + bool_float.logic + bool_float.comparisons + gates + casts
index = _ints.as_("index", kept="_simple")
all = (_ints + bool_float.floats).as_("all", kept="_clean")
tensor = (_ints + bool_float.floats + shapes).as_("tensor")


def simplify(n: UOp) -> UOp:
    """The normal form of an index expression. Costs a look at the node if it is known, else work for what is new in it only."""
    found = n._simple
    if found is not None: return n if found is True else found
    if trace.tracer is not None or any(s._simple is not True and s.src for s in n.src): return rewrite(n, index, "simplify")
    match = index.table[n.op]      # one new node over simple ones, as an index grows: most often one rule fires, or none
    hit = match(n) if match is not None else None
    if hit is None:
        n._simple = True
        return n
    given = hit[0]
    if given.site is None: given.site = n.site
    if given._simple is not True: given = rewrite(given, index, "simplify")
    n._simple = given
    return given


def weighted_sum(d: DType, parts: Iterable[tuple[UOp, int]], const: int = 0) -> UOp:
    """The normal form of a sum of ints in normal form, each times its factor, without those of the sums on the way."""
    terms: Terms = {}
    for n, k in parts:
        inner, c = linear(n, None)
        if len(inner) > 1 and k != 1 and sum(1 for t in inner if t.op not in AXES) > 1: inner, c = {n: 1}, 0      # see scale_sum
        const += c * k
        for t, f in inner.items(): terms[t] = terms.get(t, 0) + f * k
    if any(t.op is Ops.CDIV for t in terms): const = divmod.recombine(terms, const)
    return simplify(_normal_sum(d, terms, const))


def is_weighted_sum(n: UOp) -> bool:
    """Whether `linear` sees through this node to its sources."""
    op = n.op
    return op is Ops.ADD or op is Ops.SUB or op is Ops.NEG or op is Ops.MUL and n.src[1].op is Ops.CONST and n.src[0].op not in _SUMMED

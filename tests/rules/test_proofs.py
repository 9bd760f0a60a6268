"""Proofs by z3: rules on all values of their holes, whole simplifications over unbounded axes.

Bit vectors prove what must hold though it wraps around; integers prove what holds where bounds say that nothing does.
"""
from __future__ import annotations

import random

import pytest
import rule_checks as rc
from glassgrad.passes import algebra
from glassgrad.rewrite.driver import rewrite
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.infer import bounds, dtype_range
from glassgrad.uop.ops import Ops, VarArg
from glassgrad.uop.text import expr
from glassgrad.uop.uop import UOp

z3 = pytest.importorskip("z3", reason="z3 is not installed; the same rules are checked by value in test_rules.py")

MILLISECONDS = 3000


# ---- bit vectors -----------------------------------------------------------------------------------------------------------------
def bits(n: UOp, memo: dict) -> object:
    """The z3 term of a graph over ints and bools, as the machine computes it."""
    for m in n.toposort():
        if m in memo: continue
        s = [memo[x] for x in m.src]
        memo[m] = _bit_term(m, s)
    return memo[n]


def _bit_term(m: UOp, s: list) -> object:
    d, op = m.dtype, m.op
    unsigned = d.is_unsigned if op.out != "bool" else m.src[0].dtype.is_unsigned
    if op is Ops.CONST: return z3.BoolVal(m.arg) if d.is_bool else z3.BitVecVal(m.arg, d.bits)
    if op in (Ops.VAR, Ops.PARAM): return z3.Bool(expr(m)) if d.is_bool else z3.BitVec(expr(m), d.bits)
    if op is Ops.WHERE: return z3.If(*s)
    if op is Ops.CMPEQ: return s[0] == s[1]
    if op is Ops.CMPNE: return s[0] != s[1]
    if d.is_bool and op in BOOLS: return BOOLS[op](*s)
    less = z3.ULT if unsigned else lambda x, y: x < y
    if op is Ops.CMPLT: return less(*s)
    if op is Ops.CMPLE: return z3.Not(less(s[1], s[0]))
    if op is Ops.MAX: return z3.If(less(s[0], s[1]), s[1], s[0])
    if op is Ops.MIN: return z3.If(less(s[0], s[1]), s[0], s[1])
    if op is Ops.CDIV: return z3.If(s[1] == 0, z3.BitVecVal(0, d.bits), z3.UDiv(*s) if unsigned else s[0] / s[1])
    if op is Ops.CMOD: return z3.If(s[1] == 0, s[0], z3.URem(*s) if unsigned else z3.SRem(*s))
    if op is Ops.SHR: return z3.LShR(*s) if unsigned else s[0] >> s[1]
    return BITS[op](*s)


BOOLS = {Ops.AND: lambda x, y: z3.And(x, y), Ops.OR: lambda x, y: z3.Or(x, y), Ops.XOR: lambda x, y: z3.Xor(x, y),
         Ops.ADD: lambda x, y: z3.Or(x, y), Ops.MUL: lambda x, y: z3.And(x, y), Ops.MAX: lambda x, y: z3.Or(x, y),
         Ops.MIN: lambda x, y: z3.And(x, y)}
BITS = {Ops.ADD: lambda x, y: x + y, Ops.SUB: lambda x, y: x - y, Ops.MUL: lambda x, y: x * y, Ops.NEG: lambda x: -x,
        Ops.AND: lambda x, y: x & y, Ops.OR: lambda x, y: x | y, Ops.XOR: lambda x, y: x ^ y, Ops.SHL: lambda x, y: x << y}


def assumed(n: UOp, memo: dict) -> list:
    """What is known of the leaves."""
    out = []
    for v in rc.leaves(n):
        if v.dtype.is_bool or bounds(v) == dtype_range(v.dtype): continue
        lo, hi = (z3.BitVecVal(b, v.dtype.bits) for b in bounds(v))
        out += [z3.ULE(lo, memo[v]), z3.ULE(memo[v], hi)] if v.dtype.is_unsigned else [lo <= memo[v], memo[v] <= hi]
    return out


def refute(facts: list, x: object, y: object) -> str:
    """"unsat" where x and y are equal given the facts, else z3's counter-example, or "unknown"."""
    solver = z3.Solver()
    solver.set("timeout", MILLISECONDS)
    solver.add(*facts, x != y)
    found = solver.check()
    return str(solver.model()) if found == z3.sat else str(found)


PROVED = [r for r in algebra.index.rules if r not in algebra.casts.rules and r.find.ops[0] not in (Ops.LOAD, Ops.STORE, Ops.CAST)
          and not r.name.startswith("fold_") and r.name != "where_of_gated_load"]


@pytest.mark.parametrize("rule", PROVED, ids=lambda r: r.name)
def test_rule(rule):
    """The rule fired on graphs with random constants, its holes being any 8-bit value (or any in their bounds)."""
    rng = random.Random(rule.name)
    alone = RuleSet("alone", [rule])
    kinds = (dtypes.bool,) if rule.domain == "bool" else (dtypes.int8, dtypes.uint8)
    proved = 0
    for _ in range(150):
        n = rc.instance(rule.find, rng.choice(kinds), {}, rng)
        if proved >= 5: break
        if not rc.computable(n) or any(m.op in (Ops.CAST, Ops.BITCAST) or m.dtype.is_float for m in n.toposort()): continue
        match = alone.table[n.op]
        hit = match(n) if match else None
        if hit is None: continue
        memo: dict = {}
        x, y = bits(n, memo), bits(hit[0], memo)
        found = refute(assumed(n, memo) + assumed(hit[0], memo), x, y)
        assert found in ("unsat", "unknown"), f"{rule.name}: {expr(n, declare=True)} -> {expr(hit[0])} is wrong at {found}"
        proved += found == "unsat"


# ---- integers --------------------------------------------------------------------------------------------------------------------
def integer(n: UOp, memo: dict) -> object:
    """The z3 term of an index expression in unbounded integers; division rounds toward zero."""
    for m in n.toposort():
        if m in memo or m.op is Ops.RANGE: continue
        memo[m] = _integer_term(m, [memo[x] for x in m.src])
    return memo[n]


def _integer_term(m: UOp, s: list) -> object:
    op = m.op
    if op is Ops.CONST: return z3.BoolVal(m.arg) if m.dtype.is_bool else z3.IntVal(m.arg)
    if op is Ops.CDIV: return z3.If(s[0] >= 0, s[0] / s[1], -(-s[0] / s[1]))      # divisors here are positive
    if op is Ops.CMOD: return z3.If(s[0] >= 0, s[0] % s[1], -(-s[0] % s[1]))
    if op in (Ops.AND, Ops.OR, Ops.XOR): return BOOLS[op](*s)
    if op is Ops.WHERE: return z3.If(*s)
    if op is Ops.MAX: return z3.If(s[0] < s[1], s[1], s[0])
    if op is Ops.MIN: return z3.If(s[0] < s[1], s[0], s[1])
    plain = {Ops.ADD: lambda x, y: x + y, Ops.SUB: lambda x, y: x - y, Ops.MUL: lambda x, y: x * y, Ops.NEG: lambda x: -x,
             Ops.CMPLT: lambda x, y: x < y, Ops.CMPLE: lambda x, y: x <= y, Ops.CMPEQ: lambda x, y: x == y, Ops.CMPNE: lambda x, y: x != y}
    return plain[op](*s)


def index_of(rng: random.Random, size: int) -> UOp:
    """An expression such as reshapes, tiles and strides make, over axes of odd lengths."""
    axes = [UOp(Ops.VAR, dtypes.int64, (), VarArg(f"v{i}", rng.choice((0, 0, 0, -3, 1)), rng.choice((3, 7, 24, 100, 1 << 20)))) for i in range(3)]
    pool: list[UOp] = list(axes)
    for _ in range(size):
        x, k = rng.choice(pool[-5:]), rng.choice((2, 3, 4, 6, 8, 12, 16, 32))
        pool.append(rng.choice((lambda: x * k + rng.choice(axes), lambda: x // k, lambda: x % k, lambda: x + k, lambda: x - k, lambda: x * k,
                                lambda: (x < k).where(x, axes[0]), lambda: x + rng.choice(pool)))())
    made = pool[-1]
    return made if rng.random() < 0.7 else rng.choice((made < 40, (made < 40) & (axes[0] < 5), made.eq(12), made.ne(axes[1])))


def test_index_expressions():
    """Simplified and not are equal for all values of the axes; z3 finds no counter-example and proves nearly all."""
    proved = unknown = 0
    for seed in range(60):
        n = index_of(random.Random(seed), 5)
        made = rewrite(n, algebra.index)
        axes = {v: z3.Int(expr(v)) for v in rc.leaves(n, made)}
        facts = [c for v, t in axes.items() for c in (t >= bounds(v)[0], t <= bounds(v)[1])]
        found = refute(facts, integer(n, dict(axes)), integer(made, dict(axes)))
        assert found in ("unsat", "unknown"), f"{expr(n, declare=True)} -> {expr(made)} is wrong at {found}"
        proved += found == "unsat"
        unknown += found == "unknown"
    assert unknown <= proved // 5, f"{proved} proved, {unknown} unknown"


def test_a_wrong_rule_is_refuted():
    wrong = RuleSet("wrong")

    @wrong.algebra("int")
    def rows(x: rc.Pat, a: rc.Const, b: rc.Const):
        yield "carries", (x * a) // b, x * (a // b), (a > 0) & (b > 0) & (a % b == 0)
    x = UOp(Ops.VAR, dtypes.int8, (), VarArg("x", -128, 127))
    n = x * 4 // 2
    hit = wrong.table[n.op](n)
    memo: dict = {}
    assert refute([], bits(n, memo), bits(hit[0], memo)).startswith("[x")

"""What the rule tests share: values of a graph by NumPy, random graphs, and the check of one rule on random operands."""
from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
from glassgrad.rewrite.pattern import ALU, Const, Pat, Value, walk
from glassgrad.rewrite.rules import Rule, RuleSet
from glassgrad.uop import forms
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Ops, ParamArg, RangeArg, VarArg
from glassgrad.uop.text import expr
from glassgrad.uop.uop import UOp, toposort

Values = dict[UOp, np.ndarray]
LEAVES = (Ops.RANGE, Ops.VAR, Ops.PARAM)


def leaves(*roots: UOp) -> list[UOp]:
    """The axes, variables and arguments below the roots (not the counts of axes)."""
    return [n for n in toposort(roots, stop=lambda n: n.op is Ops.RANGE) if n.op in LEAVES]


def evaluate(root: UOp, at: Values) -> np.ndarray:
    """The value of `root` for every entry of the leaves' arrays, by the op table's NumPy meaning."""
    memo: dict[UOp, Any] = dict(at)
    for n in toposort((root,), stop=lambda n: n in at):
        if n in memo: continue
        src = [memo[s] for s in n.src]
        kind = np.dtype(n.dtype.np_name)
        with np.errstate(all="ignore"):
            if n.op is Ops.CONST: memo[n] = np.array(n.arg, dtype=kind)
            elif n.op is Ops.CAST: memo[n] = src[0].astype(kind)
            elif n.op is Ops.BITCAST: memo[n] = src[0].view(kind)
            elif n.op in MOVES: memo[n] = MOVES[n.op](src[0], n.arg)
            else: memo[n] = np.asarray(n.op.np(*src)).astype(kind)
    return memo[root]


MOVES = {
    Ops.RESHAPE: lambda x, arg: x.reshape(arg), Ops.EXPAND: np.broadcast_to, Ops.PERMUTE: np.transpose, Ops.PAD: np.pad,
    Ops.SHRINK: lambda x, arg: x[tuple(slice(i, j) for i, j in arg)], Ops.FLIP: np.flip,
    Ops.REDUCE: lambda x, arg: REDUCES[arg.op](x, axis=arg.axes),
}
REDUCES = {Ops.ADD: np.sum, Ops.MUL: np.prod, Ops.MAX: np.max, Ops.MIN: np.min}


# libm and NumPy may round these differently: as constants they are compared with 4 units in the last place
INEXACT = {Ops.EXP2, Ops.LOG2, Ops.EXP, Ops.LOG, Ops.SIN, Ops.COS, Ops.TANH, Ops.ERF, Ops.POW, Ops.MULACC}


def same(x: np.ndarray, y: np.ndarray, close: bool = False) -> np.ndarray:
    """Where two results agree: equal bits, or both NaN."""
    if x.dtype.kind != "f": return x == y
    with np.errstate(all="ignore"):
        if close: return (x == y) | (np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= 4 * np.spacing(np.abs(x)))
    return ((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))


EDGES = {"float": [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3.5, -2.25, 65504.0]}


def samples(n: UOp, count: int, rng: np.random.Generator) -> np.ndarray:
    """Values a leaf can have: its edges, then random ones."""
    d = n.dtype
    if d.is_float: edges, more = EDGES["float"], rng.normal(0, 4, count)
    else:
        lo, hi = bounds(n)
        edges = [lo, hi, *[v for v in (0, 1, -1, 2, lo + 1, hi - 1) if lo <= v <= hi]]
        near = rng.integers(max(lo, -20), min(hi, 20), count, endpoint=True) if lo <= 20 and hi >= -20 else np.full(count, lo)
        far = np.array([random.Random(int(s)).randint(lo, hi) for s in rng.integers(0, 1 << 30, count)], dtype=object)
        more = np.where(rng.random(count) < 0.5, near.astype(object), far)
    values = np.concatenate([np.array(edges, dtype=object), np.asarray(more, dtype=object)])
    return rng.permutation(values)[:count].astype(d.np_name)


def all_values(nodes: list[UOp], limit: int = 70_000) -> Values | None:
    """Every combination of the leaves' values, or None if there are more than `limit`."""
    spans = [bounds(n) for n in nodes]
    if any(n.dtype.is_float for n in nodes) or np.prod([float(hi - lo + 1) for lo, hi in spans]) > limit: return None
    grid = np.meshgrid(*[np.arange(lo, hi + 1) for lo, hi in spans], indexing="ij")
    return {n: v.reshape(-1).astype(n.dtype.np_name) for n, v in zip(nodes, grid)}


def check_equal(before: UOp, after: UOp, rng: np.random.Generator, what: str, count: int = 200) -> None:
    """Fail unless both have one dtype and one value, on all values of the leaves if there are few, else on random ones."""
    assert before.dtype is after.dtype, f"{what}: {before.dtype} became {after.dtype}: {expr(before)} -> {expr(after)}"
    nodes = leaves(before, after)
    at = all_values(nodes) or {n: samples(n, count, rng) for n in nodes}
    x, y = np.broadcast_arrays(evaluate(before, at), evaluate(after, at))
    wrong = np.flatnonzero(~np.atleast_1d(same(x, y, before.op in INEXACT)))
    if len(wrong):
        where = {expr(n): v[wrong[0]] for n, v in at.items()}
        raise AssertionError(f"{what}: {expr(before, declare=True)} -> {expr(after)}\n  at {where}: "
                             f"{np.atleast_1d(x)[wrong[0]]} became {np.atleast_1d(y)[wrong[0]]}")


def check_bounds(n: UOp, at: Values) -> None:
    """Fail if a value lies outside the interval that bounds() claims."""
    lo, hi = bounds(n)
    v = evaluate(n, at)
    assert int(v.min()) >= lo and int(v.max()) <= hi, f"bounds of {expr(n, declare=True)}: [{lo}, {hi}], seen [{v.min()}, {v.max()}]"


# ---- operands for rules ----------------------------------------------------------------------------------------------------------
INTS = (dtypes.int8, dtypes.uint8, dtypes.int16, dtypes.int32, dtypes.uint32, dtypes.int64)
FLOATS = (dtypes.float16, dtypes.float32, dtypes.float64)
KINDS = {"int": INTS, "bool": (dtypes.bool,), "float": FLOATS, "any": (*INTS, dtypes.bool, *FLOATS)}


def dtypes_of(rule: Rule) -> list[DType]:
    """The operand dtypes a rule claims to hold for."""
    return [d for word in rule.domain.split() for d in KINDS[word]]


def operand(name: str, d: DType, rng: random.Random) -> UOp:
    """A leaf for a hole: anything of the type, or a variable with bounds near zero."""
    slot = sum(map(ord, name))
    if d.is_float or d.is_bool: return UOp(Ops.PARAM, d, (), ParamArg(slot, "value", 1))
    if rng.random() < 0.4: return UOp(Ops.VAR, d, (), VarArg(name, int(d.min), int(d.max)))
    lo = max(rng.choice((0, 0, 1, -5, -100, 3)), int(d.min))
    return UOp(Ops.VAR, d, (), VarArg(name, lo, lo + rng.choice((0, 1, 3, 7, 20))))


def number(d: DType, rng: random.Random) -> Any:
    """A constant of the type, edges and small ones more often."""
    if d.is_bool: return rng.random() < 0.5
    if d.is_float: return d.const(rng.choice((*EDGES["float"], 2.0, 4.0, 0.5, -8.0, 3.0)))
    return d.const(rng.choice((0, 0, 1, 1, 2, 3, 4, 6, 8, 12, 16, -1, -2, 5, 7, 15, 100, int(d.max), int(d.min))))


def instance(p: Pat, d: DType, holes: dict[str, UOp], rng: random.Random, near: DType | None = None) -> UOp:
    """A node that the pattern finds, with operands of dtype `d`; conditions of WHERE are bool, casts come from any dtype they can.

    near:  the dtype of what a condition compares; without it any
    """
    if isinstance(p, Const): return holes.setdefault(p.name, UOp.const(d, number(d, rng)))
    if isinstance(p, Value): return UOp.const(d, eval(p.code, {"inf": float("inf"), "nan": float("nan")}))
    if p.ops is None: return holes.setdefault(p.name, operand(p.name, d, rng))
    op = rng.choice([o for o in Ops.alu() if p.src is None or o.arity == len(p.src)] if p.ops == ALU else p.ops)
    if op is Ops.CAST or op is Ops.BITCAST:
        inner = rng.choice([q for q in KINDS["any"] if op is Ops.CAST and (d.is_float or not q.is_float) or q.itemsize == d.itemsize and not
                            (q.is_bool or d.is_bool)] or [d])
        return UOp(op, d, (instance(p.src[0] if p.src else Pat("x"), inner, holes, rng),))
    pats = p.src or tuple(Pat(name) for name in "xyz"[:op.arity])
    if op is Ops.WHERE: src = (instance(pats[0], dtypes.bool, holes, rng, d), *[instance(s, d, holes, rng) for s in pats[1:]])
    else:
        inner = (near or rng.choice((*INTS, dtypes.bool))) if op.out == "bool" and d.is_bool and "x" not in holes else d
        src = tuple([instance(s, inner, holes, rng, near) for s in pats])
    return src[0].alu(op, *src[1:])


def check_rule(rule: Rule, tries: int = 150, enough: int = 10, seed: int = 0) -> int:
    """Build nodes that the rule finds, fire the compiled rule alone, compare. Returns how often it fired.

    At most `tries` nodes a dtype, fewer once it fired `enough` times. For 8-bit operands every value of every hole is tried, for the others edges
    and random ones.
    """
    rng, values = random.Random(f"{rule.name} {seed}"), np.random.default_rng(seed)
    alone = RuleSet("alone", [rule])
    fired = 0
    for d in dtypes_of(rule):
        before = fired
        for _ in range(tries):
            if fired == before + enough: break
            n = instance(rule.find, d, {}, rng)
            if not computable(n): continue
            match = alone.table[n.op]
            hit = match(n) if match else None
            if hit is None: continue
            fired += 1
            assert hit[1] == rule.name
            check_equal(n, hit[0], values, f"rule {rule.name} on {d.name}")
    return fired


CONSTANTS = (0, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 32, 64, 100, 127, -128, -127, -64, -16, -5, -3, -2, -1)


def check_constants(rule: Rule) -> int:
    """The rule with every pair of these constants, and every value of its other holes, in 8 bits."""
    names = sorted({p.name for p in walk(rule.find) if isinstance(p, Const)})
    alone, values, fired = RuleSet("alone", [rule]), np.random.default_rng(0), 0
    for d in (dtypes.int8, dtypes.uint8):
        for numbers in itertools.product(CONSTANTS, repeat=len(names)):
            holes = {name: UOp.const(d, v) for name, v in zip(names, numbers)}
            for p in walk(rule.find):
                if p.ops is None and not isinstance(p, Value): holes[p.name] = UOp(Ops.VAR, d, (), VarArg(p.name, int(d.min), int(d.max)))
            n = instance(rule.find, d, holes, random.Random(0))
            if not computable(n): continue
            hit = alone.table[n.op](n)
            if hit is None: continue
            fired += 1
            check_equal(n, hit[0], values, f"rule {rule.name} on {d.name}")
    return fired


def computable(n: UOp) -> bool:
    """Is every op below `n` one that its dtype has, and shifted by less than its width?"""
    for m in n.toposort():
        if m.op.is_alu and not forms.computes(m.op, m.src[-1].dtype): return False
        if m.op in (Ops.SHL, Ops.SHR) and not 0 <= bounds(m.src[1])[0] <= bounds(m.src[1])[1] < m.dtype.bits: return False
    return True


# ---- random graphs ---------------------------------------------------------------------------------------------------------------
def random_index(rng: random.Random, d: DType, size: int, wide: bool = False) -> UOp:
    """A random int expression over three axes; `wide`: also over variables of any value, so that it wraps around."""
    one = UOp.const(d, 1)
    pool = [UOp(Ops.RANGE, d, (UOp.const(d, rng.choice((2, 3, 4, 6, 8))),), RangeArg(i, "LOOP")) for i in range(3)]
    if wide: pool.append(UOp(Ops.VAR, d, (), VarArg("v", int(d.min), int(d.max))))
    elif rng.random() < 0.3: pool.append(UOp(Ops.VAR, d, (), VarArg("v", 1, rng.choice((2, 5, 9)))))
    conditions: list[UOp] = []
    for _ in range(size):
        x, y = rng.choice(pool[-6:]), rng.choice(pool)
        k = one.const_like(rng.choice((1, 2, 3, 4, 6, 8, 12, 16, 24)))
        kind = rng.random()
        if kind < 0.22: n = x + y
        elif kind < 0.42: n = x * k
        elif kind < 0.52: n = x // k
        elif kind < 0.62: n = x % k
        elif kind < 0.68: n = x + k
        elif kind < 0.74: n = x - rng.choice((y, k))
        elif kind < 0.78: n = rng.choice((x.max, x.min))(rng.choice((y, k)))
        elif kind < 0.80: n = rng.choice((-x, x * y, x // y, x % y, x & k, x | y, x ^ y))
        elif kind < 0.92:
            cond = rng.choice((x < k, k < x, x <= y, x < y, x.eq(k), x.ne(y), k <= x))
            if conditions: cond = rng.choice((cond, cond & conditions[-1], cond | rng.choice(conditions), cond.not_()))
            conditions.append(cond)
            continue
        elif conditions: n = rng.choice(conditions).where(x, rng.choice((x, y, k)))
        else: continue
        pool.append(n)
    if conditions and rng.random() < 0.3: return conditions[-1]
    return pool[-1]

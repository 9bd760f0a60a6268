"""Every rule of the algebra by itself: its docstring runs, its values are right, its place in the set does not matter."""
from __future__ import annotations

import random

import numpy as np
import pytest
import rule_checks as rc
from glassgrad.passes import algebra, bool_float, divmod
from glassgrad.rewrite.driver import rewrite
from glassgrad.rewrite.pattern import Const, Pat, Value, lo, op, walk
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import BufferArg, Ops
from glassgrad.uop.text import expr, parse_example
from glassgrad.uop.uop import UOp

RULES = {r.name: r for r in algebra.tensor.rules}
TRANSFORMS = [r for r in RULES.values() if not isinstance(r.give, Pat)]
BY_VALUE = [r for r in RULES.values() if r not in algebra.shapes.rules and r.find.ops[0] not in (Ops.LOAD, Ops.STORE)
            and r.name != "where_of_gated_load"]

@pytest.mark.parametrize("rule", TRANSFORMS, ids=lambda r: r.name)
def test_docstring_example(rule):
    before, after = parse_example(rule.doc.splitlines()[0])
    made = rewrite(before, algebra.tensor)
    assert made is rewrite(after, algebra.tensor), f"{rule.name}: {rule.doc}\n  gave {expr(made)}"
    assert made is not before


@pytest.mark.parametrize("rule", TRANSFORMS, ids=lambda r: r.name)
def test_docstring_example_needs_the_rule(rule):
    """The first node of the example that changes is changed by this rule, when the rule stands alone."""
    before, _ = parse_example(rule.doc.splitlines()[0])
    rest = RuleSet("rest", [r for r in algebra.tensor.rules if r.name != rule.name], shaped=True)
    alone = RuleSet("alone", [rule], shaped=True)
    assert rewrite(before, alone) is not before or rewrite(rewrite(before, rest), alone) is not rewrite(before, rest) or \
        rewrite(before, rest) is not rewrite(before, algebra.tensor)


@pytest.mark.parametrize("rule", BY_VALUE, ids=lambda r: r.name)
def test_values(rule):
    fired = rc.check_rule(rule)
    assert fired or rule.name in NEEDS_SHAPED_OPERANDS, f"{rule.name} never fired on random operands"


@pytest.mark.parametrize("rule", [r for r in BY_VALUE if "int" in r.domain.split() and any(isinstance(p, Const) for p in walk(r.find))],
                         ids=lambda r: r.name)
def test_constants(rule):
    rc.check_constants(rule)


# rules whose operands are sums, products or comparisons, not holes: the fuzz below and the proofs fire them
NEEDS_SHAPED_OPERANDS = {"collect_factors", "divide_by_symbol", "remainder_by_symbol", "without_common_terms", "negate_sum", "equal_sums",
                         "collect_conditions", "into_where", "where_on_the_right"}


@pytest.mark.parametrize("seed", range(150))
def test_random_expressions(seed):
    """Simplified or not, in whatever order of rules: one value, one node; and bounds hold what is seen."""
    rng = random.Random(seed)
    d = rng.choice((dtypes.int64, dtypes.int64, dtypes.int32, dtypes.int8, dtypes.uint8))
    n = rc.random_index(rng, d, rng.choice((4, 8, 16)), wide=rng.random() < 0.3)
    made = rewrite(n, algebra.index)
    rc.check_equal(n, made, np.random.default_rng(seed), f"seed {seed}")
    assert rewrite(made, algebra.index.as_("fresh")) is made, "a normal form is left alone"
    assert rewrite(n, algebra.index.shuffled(seed)) is made
    for m in made.toposort():
        at = {v: rc.samples(v, 100, np.random.default_rng(seed)) for v in rc.leaves(m)}
        if m.op is not Ops.RANGE and at: rc.check_bounds(m, at)


def test_random_expressions_use_most_rules():
    """The fuzz is worth its name: over its seeds nearly all rules on ints and bools fire."""
    seen = set()
    for seed in range(120):
        rng = random.Random(seed)
        n = rc.random_index(rng, dtypes.int64, 16, wide=rng.random() < 0.3)
        seen |= fired_rules(n, algebra.index.as_("traced"))
    ints = {r.name for r in (*algebra.sums.rules, *divmod.divmod.rules, *bool_float.comparisons.rules)}
    assert len(ints - seen) <= 14, f"never fired: {sorted(ints - seen)}"


def fired_rules(n: UOp, rules: RuleSet) -> set[str]:
    """The names of the rules that fire while `n` is rewritten."""
    from glassgrad.rewrite import trace
    names = set()

    class Names:
        def rule(self, name, before, after): names.add(name)
        def step(self, stage, name, before, after): pass
    before = trace.listen(Names())
    try: rewrite(n, rules)
    finally: trace.listen(before)
    return names


@pytest.mark.parametrize("seed", range(40))
def test_random_views(seed):
    """Chains of movement ops on tensors, with constants among the operands."""
    rng, values = random.Random(seed), np.random.default_rng(seed)
    x = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(seed, 24, "CPU"))
    at = {x: values.normal(size=24).astype(np.float32)}
    n = x.reshape((2, 3, 4))
    for _ in range(rng.choice((3, 6, 10))): n = random_view(n, rng)
    made = rewrite(n, algebra.tensor)
    assert made.shape == n.shape and made.dtype is n.dtype
    np.testing.assert_array_equal(np.broadcast_to(rc.evaluate(made, at), n.shape), np.broadcast_to(rc.evaluate(n, at), n.shape))
    assert rewrite(n, algebra.tensor.shuffled(seed)) is made


def random_view(n: UOp, rng: random.Random) -> UOp:
    shape = n.shape
    kind = rng.choice(("reshape", "permute", "pad", "shrink", "flip", "expand", "scalar", "full", "max", "full moved"))
    if kind == "reshape": return n.reshape(rng.choice((shape + (1,), (n.size,), (1, *shape), shape[::-1])))
    if kind == "permute": return n.permute(tuple(rng.sample(range(n.ndim), n.ndim)))
    if kind == "pad" and n.size < 500: return n.pad(tuple((rng.choice((0, 1)), rng.choice((0, 2))) for _ in shape))
    if kind == "shrink": return n.shrink(tuple((min(rng.choice((0, 1)), s - 1), s) for s in shape))
    if kind == "flip": return n.flip(tuple(i for i in range(n.ndim) if rng.random() < 0.5))
    if kind == "expand" and n.size < 500: return n.reshape((1, *shape)).expand((2, *shape))
    if kind == "scalar": return n * rng.choice((1.0, 2.0)) + rng.choice((-0.0, 1.5))
    if kind == "full": return n + UOp.const(n.dtype, rng.choice((0.0, -0.0, 3.0))).broadcast_to(shape)
    if kind == "full moved":
        c = UOp.const(n.dtype, 2.0).broadcast_to(shape).flip((0,) if shape else ())
        return c * c if rng.random() < 0.2 else n - c
    ones = tuple(i for i, s in enumerate(shape) if s == 1)
    return n.reduce(Ops.MAX, ones) if len(ones) < n.ndim else n


# ---- the checks catch wrong rules ------------------------------------------------------------------------------------------------
planted = RuleSet("planted")


@planted.algebra("int")
def wrong_ints(x: Pat, y: Pat, a: Const, b: Const):
    #      name                find                  give                 only if
    yield "div_without_check", (x * a) // b,         x * (a // b),        (b > 0) & (a % b == 0)    # x * a may wrap around
    yield "lost_sign",         (x // a) * a,         x,                   a > 0
    yield "mod_wrong_way",     (x % a) % b,          x % b,               (a > 0) & (b > 0) & (b % a == 0)
    yield "floor_not_trunc",   (x + a) // b,         x // b + a // b,     (b > 0) & (a % b == 0)
    yield "off_by_one",        x <= a,               x < a
    yield "less_wraps",        x + a < b,            x < b - a
    yield "shift_sign",        (x >> a) << a,        x,                   (a >= 0) & (a < 8)
    yield "max_as_min",        x.max(a).min(b),      x.min(b),            a < b
    yield "div_self_zero",     x // x,               Value("1"),          lo(x) >= 0
    yield "and_or",            x & (x | y),          y


@planted.algebra("float")
def wrong_floats(x: Pat, y: Pat):
    yield "times_zero",        x * 0.0,              Value("0.0")
    yield "minus_self",        x - x,                Value("0.0")
    yield "plus_zero",         x + 0.0,              x                    # -0.0 + 0.0 is 0.0
    yield "div_self",          x / x,                Value("1.0")
    yield "max_drops_nan",     (x < y).where(y, x),  x.max(y)
    yield "neg_of_sub",        -(x - y),             y - x                # 0.0 against -0.0
    yield "not_less",          (x < y).not_(),       y <= x


@planted.transform(op(Ops.CAST, op(Ops.CAST, Pat("x"))))
def casts_lose(n: UOp, x: UOp) -> UOp:
    """i32(i8(x:i16)) -> i32(x)"""
    return x.cast(n.dtype)


@pytest.mark.parametrize("rule", planted.rules, ids=lambda r: r.name)
def test_planted_bug_is_caught(rule):
    if rule.name == "not_less":     # a bool row that looks at floats below it
        x, y = (UOp(Ops.PARAM, dtypes.float32, (), rc.ParamArg(i, "value", 1)) for i in (0, 1))
        n = (x < y).not_()
        hit = RuleSet("alone", [rule._replace(domain="any")]).table[n.op](n)
        with pytest.raises(AssertionError, match="became"): rc.check_equal(n, hit[0], np.random.default_rng(0), rule.name)
        return
    with pytest.raises(AssertionError, match="became"): rc.check_rule(rule, tries=300, enough=300)


def test_planted_bug_in_a_set_is_caught_by_random_expressions():
    wrong = algebra.index + RuleSet("wrong", [r for r in planted.rules if r.name == "lost_sign"])
    with pytest.raises(AssertionError, match="became"):
        for seed in range(200):
            n = rc.random_index(random.Random(seed), dtypes.int64, 16)
            rc.check_equal(n, rewrite(n, wrong), np.random.default_rng(seed), f"seed {seed}")

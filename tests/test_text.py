"""Both written forms: what they say, and that they read back to the identical nodes."""
from __future__ import annotations

import random

import pytest
from glassgrad.uop import text
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import (BufferArg, KeyArg, Op, Ops, ParamArg, RangeArg, ReduceArg, ScatterArg, ScratchArg, SortArg, SpecialArg,
                               UnfoldArg, VarArg)
from glassgrad.uop.text import expr, parse_arg, parse_example, parse_expr, parse_text, show_arg, to_text
from glassgrad.uop.uop import UOp

B = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(3, 12, "CL:1"))
P = UOp(Ops.PARAM, dtypes.float32, (), ParamArg(0, "buffer", 64))
R = UOp.range(0, 8)


# ---- the text form ---------------------------------------------------------------------------------------------------------------
def test_one_line_a_node():
    assert to_text(UOp(Ops.LOAD, dtypes.float32, (P, R * 2)) + 0.5) == """\
%0 = param f32 ParamArg(slot=0, kind='buffer', size=64)
%1 = const i64 8
%2 = range i64 %1 RangeArg(id=0, kind='LOOP')
%3 = const i64 2
%4 = mul i64 %2 %3
%5 = load f32 %0 %4
%6 = const f32 0.5
%7 = add f32 %5 %6
"""


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-45, 3.4e38, float("inf"), float("-inf"), 2.0 ** -149, 1 / 3])
@pytest.mark.parametrize("d", [dtypes.float32, dtypes.float64, dtypes.bfloat16, dtypes.fp8e5m2], ids=lambda d: d.name)
def test_floats_are_exact(value, d):
    n = UOp.const(d, value)
    assert parse_text(to_text(n))[-1] is n


@pytest.mark.parametrize("n", [
    UOp.const(dtypes.float32, float("nan")), UOp.const(dtypes.bool, True), UOp.const(dtypes.uint64, (1 << 64) - 1), UOp.const(dtypes.int8, -128),
    UOp(Ops.CONST, dtypes.float32.vec(8), (), 1.5), UOp(Ops.LANES, dtypes.int32.vec(16)), B, B.reshape((3, 4)), B.reshape((3, 4)).permute((1, 0)),
    B.pad(((1, 2),)), B.shrink(((3, 7),)), B.flip((0,)), B.reduce(Ops.MAX, (0,)), UOp(Ops.KEY, dtypes.uint64, (), KeyArg(7, 1 << 40)),
    UOp(Ops.VAR, dtypes.int32, (), VarArg("n", -1, 99)), UOp.iota(5), UOp(Ops.LEAF, dtypes.float32, (B,), 17),
    UOp(Ops.UNFOLD, dtypes.float32, (B,), UnfoldArg(0, 3, 2, 1, 12)), UOp(Ops.CAT, dtypes.float32, (B, B), 0),
    UOp(Ops.SCAN, dtypes.float32, (B,), ReduceArg(Ops.ADD, (0,))), UOp(Ops.GATHER, dtypes.float32, (B, UOp.iota(3)), 0),
    UOp(Ops.SCATTER, dtypes.float32, (B, UOp.iota(3), B), ScatterArg(0, None)), UOp(Ops.SCATTER, dtypes.float32, (B, UOp.iota(3), B), ScatterArg(0, Ops.ADD)),
    UOp(Ops.SORT, dtypes.int32, (B,), SortArg(0, True)), UOp(Ops.COPY, dtypes.float32, (B,), "CPU"),
    UOp(Ops.SCRATCH, dtypes.float16, (), ScratchArg(1, 64, "shared")),
    UOp(Ops.SPECIAL, dtypes.int32, (), SpecialArg("gidx0", 4)), UOp(Ops.HREDUCE, dtypes.float32, (UOp(Ops.CONST, dtypes.float32.vec(4), (), 1.0),), Ops.ADD),
    UOp(Ops.HSCAN, dtypes.float32.vec(4), (UOp(Ops.CONST, dtypes.float32.vec(4), (), 1.0),), Ops.MAX),
    UOp(Ops.CONTIGUOUS, dtypes.float32, (B,), "a reason, with 'quotes' # and marks"), UOp.sink(B, P, R),
    UOp(Ops.STAGE, dtypes.float32, (B,), frozenset((1, 0))),
], ids=lambda n: n.op.name)
def test_round_trip(n):
    made = parse_text(to_text(n, sites=True))
    assert made[-1] is n and made == n.toposort()


@pytest.mark.parametrize("op", Ops.alu(), ids=str)
def test_round_trip_of_arithmetic(op: Op):
    d = dtypes.float32 if "float" in op.dtypes or op.dtypes in ("any", "number") else dtypes.uint64
    v = UOp(Ops.VAR, d, (), VarArg("v", 0, 9))
    src = (v,) * op.arity if op is not Ops.WHERE else (v.ne(v), v, v)
    n = src[0].alu(op, *src[1:])
    assert parse_text(to_text(n))[-1] is n


def test_a_program_keeps_its_order_and_what_stands_twice():
    one = R.const_like(1)
    program = [R.src[0], R, one, UOp(Ops.END, dtypes.void, (R,)), one, R.src[0]]
    assert parse_text(to_text(program)) == program


def test_normal_text_forgets_numbers():
    def graph(i):
        x, r = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(i, 8, "CPU")), UOp.range(i + 5, 8)
        return UOp.sink(UOp(Ops.LEAF, dtypes.float32, (x,), i), r, UOp.range(i + 1, 8), UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(i + 9, 8, "CPU")))
    assert to_text(graph(1), normal=True) == to_text(graph(100), normal=True) != to_text(graph(1))
    assert "BufferArg(id=1," in to_text(graph(100), normal=True)


def test_sites_are_comments():
    n = B.exp2().sin()
    n.site = "train.py:12"
    assert to_text(n, sites=True).endswith("# train.py:12\n") and parse_text(to_text(n, sites=True))[-1] is n


@pytest.mark.parametrize("line, why", [
    ("add f32 %1", "a line reads"), ("%1 = nothing f32", "op 'nothing'"), ("%1 = exp f33", "f33"), ("%1 = exp f32 %0", "%0"),
    ("%1 = const f32 open('/etc/passwd')", "arg"), ("%1 = const i32 __import__('os')", "arg"), ("%1 = const i32 (lambda: 1)()", "arg"),
])
def test_bad_text_is_named(line, why):
    with pytest.raises(UsageError, match="line 2") as e: parse_text("# comment\n" + line)
    assert why in str(e.value)


@pytest.mark.parametrize("arg", [None, 3, -4, 1.5, "x", (1, (2, 3)), (), (7,), Ops.ADD, dtypes.int8, dtypes.int8.vec(4), (None, True), float("inf"),
                                 ReduceArg(Ops.MAX, ()), RangeArg(4, "GLOBAL"), frozenset((2, 1))], ids=repr)
def test_args(arg):
    made = parse_arg(show_arg(arg))
    assert made == arg and type(made) is type(arg)


def test_arg_types_of_others():
    @text.add_arg_type
    class TileArg(ReduceArg):
        """A named tuple of somebody's pass."""
    assert parse_arg(show_arg(TileArg(Ops.ADD, (1,)))) == TileArg(Ops.ADD, (1,))


def test_text_of_a_deep_graph():
    n = P
    for _ in range(20_000): n = n.exp2()
    assert parse_text(to_text(n))[-1] is n
    assert expr(n).count("exp2") == 12


# ---- the short form --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shown", [
    "r0*16 + r1", "(r0 + r1)*16", "r0 - (r1 - r0)", "r0 - r1 - r0", "-r0 + r1", "-(r0 + r1)", "r0//4%2", "r0//(4%3)", "(r0 < 3) & (r1 < 2)",
    "r0 < 3", "not (r0 < 3)", "(r0 < 3) == (r1 < 2)", "where(r0 < 3, r1, 0)", "max(r0, r1)", "min(r0, 3)", "p0[r0*16 + r1]", "p0[r0, r1 < 2]",
    "p0[r0] + 1.5", "i32(r0)", "f32(r0)*0.5", "r0 << 2 | r1", "r0 & 3 ^ r1", "exp2(p0[r0])", "p0[r0]*-1.0", "p0[r0] + inf", "p0[r0] - -inf",
])
def test_expr_says_and_reads(shown):
    names = {"r0": UOp.range(0, 8), "r1": UOp.range(1, 4), "p0": UOp(Ops.PARAM, dtypes.float32, (), ParamArg(0, "value", 1))}
    n = parse_expr(shown, dict(names))
    assert expr(n) == shown
    assert parse_expr(expr(n, declare=True)) is n


@pytest.mark.parametrize("shown", ["b0:f32[12].reshape(3, 4).permute(1, 0).sum(0)", "b0:f32[12].pad((1, 2)).shrink((0, 3)).flip(0).amax(0)",
                                   "i:2..9 + 1", "x:i32*3", "r0:8i32 + i:-1..3i32", "3.0:f16.reshape(1).expand(4)"])
def test_declarations(shown):
    n = parse_expr(shown)
    assert parse_text(to_text(n))[-1] is n
    if "b0" in shown or "f16" not in shown: assert parse_expr(expr(n, declare=True)) is n


def test_random_expressions_read_back():
    rng = random.Random(0)
    axes = [UOp.range(i, 9) for i in range(3)]
    for _ in range(200):
        pool = list(axes)
        for _ in range(8):
            x, y = rng.choice(pool), rng.choice(pool)
            pool.append(rng.choice((x + y, x - y, x * 3, x // 4, x % 5, -x, x.max(y), (x < y).where(x, 7), x & y, x ^ 5, x << 2)))
        n = pool[-1]
        assert parse_expr(expr(n, depth=99, declare=True)) is n, expr(n, depth=99)


def test_examples():
    x, y = parse_example("r0:8 // 16 -> 0")
    assert expr(x) == "r0//16" and y is x.const_like(0)
    x, y = parse_example("p0:f32[r0:4, False] -> 0.0")
    assert x.op is Ops.LOAD and y is UOp.const(dtypes.float32, 0.0)


@pytest.mark.parametrize("shown, why", [("r0 + 1", "'r0' is not declared"), ("r0:8 +", "expression"), ("x:f32 + 1", "floats are kernel arguments"),
                                        ("[r0:8]", "cannot read")])
def test_bad_expressions_are_named(shown, why):
    with pytest.raises(UsageError, match=why): parse_expr(shown)


def test_bad_example_is_named():
    with pytest.raises(UsageError, match="before -> after"): parse_example("r0:8")

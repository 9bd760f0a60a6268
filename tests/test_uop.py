"""The node and what follows from it: identity, bounds, order, sums, forms."""
from __future__ import annotations

import gc
import math
import random
import subprocess
import sys

import pytest
from glassgrad.uop import forms
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds, fits, from_linear, interval, linear, order_key
from glassgrad.uop.ops import BufferArg, Ops, ParamArg, RangeArg, ReduceArg, SpecialArg, UnfoldArg, VarArg
from glassgrad.uop.text import expr, parse_expr
from glassgrad.uop.uop import UOp, nodes_alive, substitute, toposort

P = UOp(Ops.PARAM, dtypes.float32, (), ParamArg(0, "value", 1))


def param(slot: int = 0, dtype=dtypes.float32, kind: str = "buffer", size: int = 16) -> UOp:
    return UOp(Ops.PARAM, dtype, (), ParamArg(slot, kind, size))


# ---- identity --------------------------------------------------------------------------------------------------------------------
def test_the_same_node_twice_is_one_object():
    assert P + 1.0 is P + 1.0 and P + 1.0 is not P + 2.0
    assert UOp.const(dtypes.int32, 1) is not UOp.const(dtypes.bool, True)


def test_zero_has_a_sign_and_nan_is_one_constant():
    zero, minus = UOp.const(dtypes.float32, 0.0), UOp.const(dtypes.float32, -0.0)
    assert zero is not minus and math.copysign(1, minus.arg) == -1
    assert UOp.const(dtypes.float32, math.nan) is UOp.const(dtypes.float32, -math.nan)


def test_nodes_die_with_their_last_use():
    gc.collect()
    before = nodes_alive()
    n = P
    for i in range(50_000): n = n * P + float(i)
    assert nodes_alive() > before + 50_000
    del n
    gc.collect()
    assert nodes_alive() <= before + 10


def test_substitute_and_toposort_are_iterative():
    n = P
    for _ in range(50_000): n = n.exp2()
    other = P * 2.0
    made, = substitute((n,), {P: other})
    assert toposort((made,))[:1] == [P] and len(made.toposort()) == 50_003
    assert made.shape == ()


# ---- bounds ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, lo, hi", [
    ("r0:8", 0, 7), ("r0:8*16 + 3", 3, 115), ("7 - r0:8", 0, 7), ("-(r0:8)", -7, 0), ("r0:8 - 3", -3, 4), ("i:-3..5*i", 0, 25), ("i:-3..5*j:0..2", -6, 10),
    ("(r0:8 - 3)*-2", -8, 6), ("r0:8//3", 0, 2), ("(r0:8 - 9)//4", -2, 0), ("r0:20%8", 0, 7), ("r0:5%8", 0, 4), ("(r0:8 - 3)%4", -3, 3),
    ("r0:8//i:2..3", 0, 3), ("r0:8//(i:0..3)", 0, 7), ("r0:9%(i:2..3)", 0, 2), ("max(r0:8, 3)", 3, 7), ("min(r0:8, 3)", 0, 3),
    ("r0:300 & 15", 0, 15), ("i:-3..5 & 7", 0, 7), ("r0:5 | r1:9", 0, 15), ("r0:5 ^ r1:9", 0, 15), ("r0:8 << 2", 0, 28), ("r0:8 >> 1", 0, 3),
    ("where(r0:8 < 3, r1:5, 9)", 0, 9), ("where(r0:8 < 9, r1:5, 9)", 0, 4), ("r0:8 < 8", 1, 1), ("r0:8 < 0", 0, 0), ("r0:8 < 3", 0, 1),
    ("r0:8 <= 7", 1, 1), ("r0:8 == 9", 0, 0), ("r0:8 != 9", 1, 1), ("i8(r0:200)", -128, 127), ("i8(r0:100)", 0, 99), ("i64(r0:8 < 3)", 0, 1),
    ("b1(i:2..5)", 1, 1), ("i32(p0:f32)", -1 << 31, (1 << 31) - 1), ("x:u8 + 1", 0, 255), ("i:0..100i8 + 27", 27, 127), ("i:0..101i8 + 27", -128, 127),
    ("x:i8 - x", -128, 127), ("p0:i8[r0:8]", -128, 127), ("p0:f32 + 1.0", -math.inf, math.inf), ("p0:f32 < 1.0", 0, 1), ("not (r0:8 < 8)", 0, 0),
    ("(r0:8 < 3) & (r1:4 < 9)", 0, 1), ("(r0:8 < 9) | (r1:4 < 2)", 1, 1), ("mulacc(r0:3, r1:4, r2:5)", 0, 10),
])
def test_bounds(text, lo, hi):
    assert bounds(parse_expr(text)) == (lo, hi)


def test_bounds_of_what_has_lanes_shapes_or_hardware():
    lanes = UOp(Ops.LANES, dtypes.int32.vec(8))
    assert bounds(lanes) == (0, 7) and bounds(UOp(Ops.EXTRACT, dtypes.int32, (lanes,), 3)) == (0, 7)
    assert bounds(UOp(Ops.HREDUCE, dtypes.int32, (lanes,), Ops.ADD)) == (0, 56)
    assert bounds(UOp(Ops.SPECIAL, dtypes.int32, (), SpecialArg("gidx0", 12)) * 4) == (0, 44)
    n = UOp.iota(10).reshape((5, 2)).pad(((1, 0), (0, 0)))
    assert bounds(n) == (0, 9) and bounds(n.reduce(Ops.MAX, (1,))) == (0, 9) and bounds(n.reduce(Ops.ADD, (0, 1))) == (0, 108)
    assert bounds(UOp(Ops.BUFFER, dtypes.int16, (), BufferArg(0, 4, "CPU"))) == (-32768, 32767)


def test_bounds_of_a_deep_graph():
    n = parse_expr("r0:4i32")
    for _ in range(100_000): n = (n + 1) % 64
    assert bounds(n) == (0, 63)


# ---- order and sums --------------------------------------------------------------------------------------------------------------
def test_terms_are_ordered_by_axis():
    names = [expr(n) for n in sorted(map(parse_expr, ("p0:i64[r0:4]", "r2:4", "r10:4", "n:0..9", "r0:4", "r0:4//2")), key=order_key)]
    assert names[:4] == ["r0", "r2", "r10", "n"] and set(names[4:]) == {"p0[r0]", "r0//2"}


def test_order_is_the_same_in_every_process_and_blind_to_buffer_numbers():
    script = ("from glassgrad.uop.text import parse_expr; from glassgrad.uop.infer import order_key\n"
              "for i in range({}): parse_expr(f'b{{i}}:f32[3]')\n"
              "print([order_key(parse_expr(t)) for t in ('p0:i64[r0:4]//3 + 1', 'n:0..9*r1:4', 'where(r0:4 < 2, 1.5, p0:f32)', 'b7:f32[4] + 1.0')])")
    seen = {subprocess.run([sys.executable, "-c", script.format(i)], capture_output=True, text=True, check=True, env={
        "PYTHONHASHSEED": str(i), "PYTHONPATH": ":".join(sys.path)}).stdout for i in (0, 7)}
    assert len(seen) == 1
    x, y = (UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(i, 8, "CPU")) for i in (123, 456))
    assert order_key(x.exp()) == order_key(y.exp()) != order_key(x.sin())


@pytest.mark.parametrize("text, want", [
    ("r0:8*16 + r1:4 + 3", ({"r0": 16, "r1": 1}, 3)), ("(r0:8 - r1:4)*1 - r0*3", ({"r0": -2, "r1": -1}, 0)), ("-(r0:8 - 5)", ({"r0": -1}, 5)),
    ("r0:8*2*3", ({"r0": 6}, 0)), ("r0:1 + 4", ({}, 4)), ("r0:8//2*4 + r0//2", ({"r0//2": 5}, 0)), ("(r0:8 + r1:4)*3", ({"r0 + r1": 3}, 0)),
])
def test_linear(text, want):
    terms, const = linear(parse_expr(text))
    assert ({expr(t): k for t, k in terms.items()}, const) == want


def test_from_linear_is_one_node_for_one_sum():
    rng = random.Random(0)
    for _ in range(50):
        axes = [parse_expr(f"r{i}:8i32") for i in range(5)]
        terms = {a: rng.choice((-3, -1, 1, 2, 1 << 31)) for a in axes}
        made = from_linear(dtypes.int32, terms, 5)
        rng.shuffle(axes)
        assert from_linear(dtypes.int32, {a: terms[a] for a in axes}, 5) is made
        again, const = linear(made)
        assert const == 5 and from_linear(dtypes.int32, again, const) is made


def test_interval_and_fits():
    terms, const = linear(parse_expr("r0:8*16 - r1:4 + 3"))
    assert interval(terms, const) == (0, 115) and fits(dtypes.int8, (0, 115)) and not fits(dtypes.int8, (0, 128))


# ---- forms -----------------------------------------------------------------------------------------------------------------------
X = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(1, 12, "CPU"))
R = UOp.range(0, 8)
LOAD = UOp(Ops.LOAD, dtypes.float32, (param(1), R))


def store(*src: UOp) -> UOp: return UOp(Ops.STORE, dtypes.void, src)
def end(effect: UOp, *ranges: UOp) -> UOp: return UOp(Ops.END, dtypes.void, (effect, *ranges))


@pytest.mark.parametrize("form, graph", [
    ("TENSOR", (X.reshape((3, 4)).exp() + UOp.const(dtypes.float32, 1.0)).reduce(Ops.ADD, (1,))),
    ("TENSOR", UOp.sink(X.permute((0,)), X.reshape((3, 4)).pad(((1, 0), (0, 0))))),
    ("KERNEL", UOp.sink(end(store(param(0), R, LOAD.exp()), R))),
    ("KERNEL", UOp(Ops.REDUCE, dtypes.float32, (LOAD, R), ReduceArg(Ops.ADD, ()))),
    ("LINEAR", [param(0), param(1), R.src[0], R, LOAD, store(param(0), R, LOAD), UOp(Ops.END, dtypes.void, (R,))]),
])
def test_form_holds(form, graph):
    forms.check(form, graph, "a pass")


@pytest.mark.parametrize("form, graph, why", [
    ("KERNEL", UOp.sink(X.reshape((3, 4))), "BUFFER may not stand there"),
    ("KERNEL", UOp.sink(param().reshape((1, 1))), "RESHAPE may not stand there"),
    ("TENSOR", UOp.sink(R), "RANGE may not stand there"),
    ("LINEAR", [UOp(Ops.IOTA, dtypes.int32, (), 3)], "IOTA may not stand there"),
    ("TENSOR", UOp(Ops.ADD, dtypes.float32, (X, X.cast(dtypes.int32))), "its sources must have one dtype"),
    ("TENSOR", UOp(Ops.ADD, dtypes.int32, (X, X)), "its dtype must be that of its sources, f32"),
    ("TENSOR", UOp(Ops.ADD, dtypes.float32, (X,)), "ADD takes 2 sources, here are 1"),
    ("TENSOR", UOp(Ops.CMPLT, dtypes.float32, (X, X)), "a comparison is bool"),
    ("TENSOR", UOp(Ops.WHERE, dtypes.float32, (X, X, X)), "its condition must be bool"),
    ("TENSOR", UOp(Ops.EXP, dtypes.int32, (X.cast(dtypes.int32),)), "EXP is for float"),
    ("TENSOR", UOp(Ops.AND, dtypes.float32, (X, X)), "AND is for int bool"),
    ("TENSOR", UOp(Ops.BITCAST, dtypes.int64, (X,)), "one size"),
    ("TENSOR", UOp(Ops.CONST, dtypes.int8, (), 300), "an int from -128 to 127"),
    ("TENSOR", UOp(Ops.CONST, dtypes.float32, (), 1), "a float constant is a Python float"),
    ("TENSOR", UOp(Ops.CONST, dtypes.bool, (), 2), "True or False"),
    ("TENSOR", X.reshape((3, 5)), "(12,) has not the elements of (3, 5)"),
    ("TENSOR", X.reshape((3, 4)).expand((6, 4)), "does not expand to (6, 4)"),
    ("TENSOR", UOp(Ops.PERMUTE, X.dtype, (X.reshape((3, 4)),), (0, 0)), "no order of the axes"),
    ("TENSOR", X.shrink(((3, 20),)), "no box in (12,)"),
    ("TENSOR", X.reduce(Ops.ADD, (1,)), "no axes of (12,)"),
    ("TENSOR", X.reduce(Ops.SUB, (0,)), "nothing reduces with SUB"),
    ("TENSOR", X + X.reshape((3, 4)), "its sources have shapes (3, 4), (12,)"),
    ("TENSOR", UOp(Ops.UNFOLD, X.dtype, (X,), (0, 3, 2, 1, 12)), "its arg must be UnfoldArg"),
    ("KERNEL", UOp(Ops.LOAD, dtypes.float32, (R, R)), "must be a PARAM"),
    ("KERNEL", UOp(Ops.LOAD, dtypes.float32, (param(), P)), "its index must be an int"),
    ("KERNEL", UOp(Ops.LOAD, dtypes.float64, (param(), R)), "elements of f32, the value is f64"),
    ("KERNEL", UOp(Ops.LOAD, dtypes.float32, (param(), R, R)), "its gate must be bool"),
    ("KERNEL", store(param(), R), "it takes buffer, index, value"),
    ("KERNEL", end(store(param(), R, LOAD), R + 1), "the axes it closes"),
    ("KERNEL", UOp(Ops.RANGE, dtypes.int64, (UOp.const(dtypes.int32, 3),), RangeArg(0, "LOOP")), "that of its count"),
    ("LINEAR", [param(1), LOAD], "its source r0 does not stand before it"),
    ("LINEAR", [R.src[0], R], "the loop is never closed"),
    ("LINEAR", [R.src[0], R, UOp(Ops.END, dtypes.void, (R,)), R * 2], "its source"),
    ("LINEAR", [R.src[0], R, R.src[0]], "it stands there twice"),
    ("LINEAR", [UOp(Ops.SPLAT, dtypes.float32.vec(4), (R,))], "repeats a scalar of its dtype"),
    ("LINEAR", [UOp(Ops.SET, dtypes.void, (P, P))], "it takes an ACC"),
])
def test_form_is_broken(form, graph, why):
    with pytest.raises(CompilerBug) as e: forms.check(form, graph, "my pass")
    text = str(e.value)
    assert why in text and "after pass 'my pass'" in text and form in text and "node: " in text


def test_a_value_may_not_leave_its_loop():
    loop = [R.src[0], R, one := UOp.const(dtypes.int64, 1), n := R + 1, UOp(Ops.END, dtypes.void, (R,))]
    forms.check("LINEAR", loop)
    with pytest.raises(CompilerBug, match="computed in a loop that is closed"): forms.check("LINEAR", [*loop, n * 1])
    forms.check("LINEAR", [*loop, one * 1])


def test_unfold_in_tensor_form():
    forms.check("TENSOR", UOp(Ops.UNFOLD, X.dtype, (X,), UnfoldArg(0, 3, 1, 1, 12)))
    assert UOp(Ops.VAR, dtypes.int32, (), VarArg("n", 1, 9)).shape == ()

"""The loop nest of a linear program."""

from __future__ import annotations

import re

import sample
from sample import f32, i64, load, param

from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, ParamArg, RangeArg, ScratchArg
from glassgrad.uop.uop import UOp
from glassgrad.viz.loops import loops_text


def bare(*args):
    """Without the user's lines: nodes are shared by all tests of a process, and so are the lines that made them first."""
    return re.sub(r" +# .*\.py:\d+$", "", loops_text(*args), flags=re.M)


def in_order(*roots: UOp) -> list[UOp]:
    """All nodes, each after its sources, roots in the given order."""
    return list(dict.fromkeys(n for root in roots for n in root.toposort()))


def store(buf: UOp, index: UOp, value: UOp, *gate: UOp) -> UOp:
    return UOp(Ops.STORE, dtypes.void, (buf, index, value, *gate))


def test_reads_like_written_by_hand():
    p = sample.program()
    assert (
        loops_text(p.uops, p)
        == """\
kernel relu_matmul(p0: f32[8192], p1: f32[50176], p2: f32[100352]):
    gidx0 in 64  # workgroups, or chunks shared among threads
    for r0 in range(16):  # LOOP
        acc0: f32x8 = 0
        for r1 in range(784):  # REDUCE
            v0: i64 = r0*8
            acc0 = fma(p1[gidx0*784 + r1], p2[r1*128 + v0 :+8], acc0)
        p0[gidx0*128 + v0 :+8] = max(acc0, 0)    # /home/me/train.py:22
"""
    )


def test_a_read_before_a_write_gets_a_name():
    p, i = param(0, 8), UOp.const(i64, 0)
    old = load(p, i)
    uops = in_order(old, store(p, i, UOp.const(f32, 1.0)), store(param(1, 8), i, old + 2.0))
    assert bare(uops) == "v0: f32 = p0[0]\np0[0] = 1\np1[0] = v0 + 2\n"


def test_a_register_read_before_it_is_set_gets_a_name():
    acc = UOp(Ops.ACC, f32, (UOp.const(f32, 0.0),), 3)
    got = UOp(Ops.GET, f32, (acc,))
    uops = in_order(acc, got, UOp(Ops.SET, dtypes.void, (acc, UOp.const(f32, 5.0))), store(param(0, 1), UOp.const(i64, 0), got))
    assert bare(uops) == "acc3: f32 = 0\nv0: f32 = acc3\nacc3 = 5\np0[0] = v0\n"


def test_gates_parentheses_and_scratch():
    r = UOp(Ops.RANGE, i64, (UOp.const(i64, 4),), RangeArg(2, "LOOP"))
    s = UOp(Ops.SCRATCH, f32, (), ScratchArg(1, 16, "shared"))
    n = UOp(Ops.PARAM, i64, (), ParamArg(2, "value", 1))
    gated = UOp(Ops.LOAD, f32, (param(1, 8), (r + 1) * 2, r < n))
    uops = in_order(s, r, store(s, r - (n - 1), gated * -2.0, r < 3), UOp(Ops.END, dtypes.void, (r,)), UOp(Ops.BARRIER, dtypes.void))
    assert (
        loops_text(uops)
        == """\
s1 = shared f32[16]
for r2 in range(4):  # LOOP
    s1[r2 - (n2 - 1)] = (p1[(r2 + 1)*2] if r2 < n2 else 0)*-2 if r2 < 3
barrier()
"""
    )


def test_long_expressions_are_split():
    x = load(param(0, 8), UOp.const(i64, 0))
    y = x
    for i in range(40):
        y = (y + float(i)) * 1.5
    text = bare(in_order(store(param(1, 8), UOp.const(i64, 0), y)))
    assert len(text.splitlines()) > 3 and max(map(len, text.splitlines())) < 160


def test_every_op_has_a_text():
    for op in Ops.alu():
        src = tuple(load(param(i, 8), UOp.const(i64, i)) for i in range(op.arity))
        n = UOp(op, f32, src)
        assert "?" not in loops_text(in_order(store(param(9, 8), UOp.const(i64, 0), n)))

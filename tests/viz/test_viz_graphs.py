"""What a pass changed, told apart from what was rebuilt above it."""

from __future__ import annotations

import sample
from sample import load, param

from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, substitute
from glassgrad.viz import graphs
from glassgrad.viz.record import Group


def marked(before: UOp, after: UOp) -> tuple[dict[str, str], dict[str, str]]:
    """The marks by the name of the op."""
    g = Group(0, "kernel", "k")
    b, a = g.intern(before, 10_000), g.intern(after, 10_000)
    old, new, pairs = graphs.marks(g.rows, b, a)
    assert all(old[y] == "rebuilt" and new[x] == "rebuilt" for x, y in pairs.items())
    return {g.rows[n].op: m for n, m in old.items()}, {g.rows[n].op: m for n, m in new.items()}


def test_a_new_leaf_rebuilds_what_stands_above():
    x = param(0, 4)
    assert marked((x * 3.0).exp().sqrt(), (x * 4.0).exp().sqrt()) == (
        {"SQRT": "rebuilt", "EXP": "rebuilt", "MUL": "rebuilt", "CONST": "gone"},
        {"SQRT": "rebuilt", "EXP": "rebuilt", "MUL": "rebuilt", "CONST": "new"},
    )


def test_a_node_taken_out_is_gone_and_nothing_is_new():
    x = param(0, 4).sin()
    old, new = marked(x.exp().trunc().sqrt(), x.exp().sqrt())
    assert old == {"TRUNC": "gone", "SQRT": "rebuilt"} and new == {"SQRT": "rebuilt"}


def test_a_replaced_op_is_new_and_its_users_are_rebuilt():
    x = param(0, 4)
    old, new = marked(UOp.sink(x.exp() + x), UOp.sink((x * 1.5).exp2() + x))
    assert old == {"SINK": "rebuilt", "ADD": "rebuilt", "EXP": "gone"}
    assert new == {"SINK": "rebuilt", "ADD": "rebuilt", "EXP2": "new", "MUL": "new", "CONST": "new"}


def test_equal_graphs_have_no_marks():
    x = sample.matmul_ast()
    assert marked(x, x) == ({}, {})


def test_a_node_that_moved_is_found_again():
    x, r = param(0, 4), UOp.range(0, 4)
    moved = load(x, r * 7)
    _, new = marked(UOp.sink(moved.sin(), param(1, 2)), UOp.sink(param(1, 2), substitute((moved,), {r: r + 1})[0].sin(), param(2, 2)))
    assert new["SIN"] == "rebuilt" and new["LOAD"] == "rebuilt" and new["ADD"] == "new"


def test_nearest_starts_at_the_change_and_keeps_order():
    g = Group(0, "kernel", "k")
    x = param(0, 4)
    for _ in range(50):
        x = x.sin()
    root = g.intern(x, 1000)
    nodes = graphs.reach(g.rows, root)
    assert graphs.nearest(g.rows, nodes, [20], 5) == [18, 19, 20, 21, 22]
    assert graphs.nearest(g.rows, nodes, [20], 1000) == nodes


def test_a_node_put_in_leaves_the_rest_rebuilt():
    x = param(0, 4) * 2.0

    def mark(n: UOp) -> UOp:
        return UOp(Ops.CONTIGUOUS, n.dtype, (n,), "a reason")

    before = UOp.sink(((x.exp() + 1.0).sqrt() * x.sin()).cos())
    after = UOp.sink(mark((mark(mark(x.exp()) + 1.0).sqrt() * x.sin()).cos()))
    old, new = marked(before, after)
    assert "gone" not in old.values()
    assert {op for op, m in new.items() if m == "new"} == {"CONTIGUOUS"}


def test_swapped_sources_stay_rebuilt():
    x, y = param(0, 4), param(1, 4)
    old, new = marked((x * 2.0).sin() + (y * 3.0).cos(), (y * 3.0).cos() + (x * 4.0).sin())
    assert new == {"ADD": "rebuilt", "SIN": "rebuilt", "MUL": "rebuilt", "CONST": "new"} and old["CONST"] == "gone"

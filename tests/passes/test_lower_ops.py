"""Ops that a target lacks, decomposed: the values stay."""
import numpy as np
import pytest
from numpy_eval import evaluate

from glassgrad.passes.lower_ops import TABLE_OF_OPS, lower_op, lower_ops
from glassgrad.passes.transcend import FUNCTIONS
from glassgrad.target.python import python_target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Op, Ops, ParamArg
from glassgrad.uop.uop import UOp

ALL = python_target()
BASIC = ALL.with_(ops=frozenset(ALL.ops - set(TABLE_OF_OPS) - set(FUNCTIONS)) | {Ops.SUB})


def leaf(dtype, slot=0): return UOp(Ops.PARAM, dtype, (), ParamArg(slot, "value", 1))


def random(dtype, count=4000, seed=0):
    rng = np.random.default_rng(seed)
    if dtype.is_float: return np.concatenate([rng.standard_normal(count), [0, -0.0, np.inf, -np.inf, np.nan, 1]]).astype(dtype.np_name)
    if dtype.is_bool: return rng.integers(0, 2, count).astype(bool)
    few = rng.integers(-9 if dtype.kind == "int" else 0, 9, count)
    return np.concatenate([rng.integers(dtype.min, dtype.max, count, dtype=dtype.np_name, endpoint=True), few.astype(dtype.np_name),
                           np.array([dtype.min, dtype.max, 0, 1], dtype.np_name)])


def ops_left(graph, target): return {n.op for n in graph.toposort() if n.op.is_alu} - target.ops - {Ops.CAST, Ops.BITCAST, Ops.WHERE}


CASES = [(op, d) for op in TABLE_OF_OPS if op is not Ops.THREEFRY for d in dtypes.all if d.np_name
         and (d.is_float if op.dtypes == "float" else d.is_int if op.dtypes == "int" else not d.is_bool or op in (Ops.MAX, Ops.MIN))]


@pytest.mark.parametrize("op, dtype", CASES, ids=lambda x: x.name)
@pytest.mark.parametrize("lanes", [1, 2])
def test_values_stay(op: Op, dtype, lanes):
    if op in (Ops.CDIV, Ops.CMOD) and dtype.bits == 64: pytest.skip("division of 64-bit integers has no wider float to go through")
    xs = [leaf(dtype.vec(lanes), i) for i in range(op.arity)]
    known = {x: random(dtype, seed=i) for i, x in enumerate(xs)}
    known = {x: np.random.default_rng(i).permutation(v[:len(v) // 2 * 2]) for i, (x, v) in enumerate(known.items())}
    if lanes > 1: known = {x: v.reshape(-1, lanes) for x, v in known.items()}
    node = xs[0].alu(op, *xs[1:])
    low = lower_ops(node, BASIC)
    assert not ops_left(low, BASIC)
    np.testing.assert_array_equal(evaluate(low, known), evaluate(node, known))


@pytest.mark.parametrize("op", [Ops.CDIV, Ops.CMOD], ids=lambda o: o.name)
@pytest.mark.parametrize("by", [1, 2, -2, 8, -16, 64])
@pytest.mark.parametrize("dtype", dtypes.ints, ids=lambda d: d.name)
def test_division_by_powers_of_two(op, by, dtype):
    if not dtype.min <= by <= dtype.max: pytest.skip("not a number of this type")
    x = leaf(dtype)
    node = x.alu(op, UOp.const(dtype, by))
    low = lower_ops(node, BASIC)
    values = {x: random(dtype)}
    assert not ops_left(low, BASIC) and not any(n.dtype.is_float for n in low.toposort())
    np.testing.assert_array_equal(evaluate(low, values), evaluate(node, values))


def test_division_of_an_index_is_one_shift():
    r = UOp.range(0, 100)
    assert lower_ops(r // 8, BASIC) is r >> 3 and lower_ops(r % 8, BASIC) is r & 7


@pytest.mark.parametrize("lanes", [1, 4])
def test_threefry(lanes):
    x, key = leaf(dtypes.uint64.vec(lanes)), leaf(dtypes.uint64.vec(lanes), 1)
    node = x.alu(Ops.THREEFRY, key)
    rng = np.random.default_rng(0)
    known = {n: rng.integers(0, 2 ** 64, 400, dtype="u8").reshape((-1,) if lanes == 1 else (-1, lanes)) for n in (x, key)}
    low = lower_ops(node, BASIC)
    assert not ops_left(low, BASIC)
    np.testing.assert_array_equal(evaluate(low, known), evaluate(node, known))


@pytest.mark.parametrize("op", FUNCTIONS, ids=lambda o: o.name)
def test_functions_become_basic_ops(op):
    node = UOp(op, dtypes.float32, tuple(leaf(dtypes.float32, i) for i in range(op.arity)))
    low = lower_op(node, BASIC)
    assert not ops_left(low, BASIC)
    known = {x: np.random.default_rng(0).uniform(0.1, 3, 100).astype("f4") for x in node.src}
    np.testing.assert_allclose(evaluate(low, known), evaluate(node, known), rtol=1e-6)


def test_native_ops_stay_the_same_nodes():
    x = leaf(dtypes.float32)
    graph = (x + 1.0) * x.exp()
    assert lower_ops(graph, ALL) is graph and lower_op(graph, ALL) is None


def test_a_rows_own_decomposition_comes_first():
    op = Op("TWICE_FOR_A_TEST", "alu", 1, "x + x", decomp=lambda n: (n.src[0] + n.src[0]).max(n.src[0]))
    x = leaf(dtypes.float32)
    low = lower_ops(UOp(op, x.dtype, (x,)), BASIC)
    assert not ops_left(low, BASIC) and Ops.ADD in {n.op for n in low.toposort()}


def test_a_missing_op_without_decomposition_is_named():
    target = ALL.with_(ops=frozenset(ALL.ops - {Ops.SQRT}))
    with pytest.raises(CompilerBug, match="PYTHON lacks SQRT on f32"): lower_ops(leaf(dtypes.float32).sqrt(), target)


def test_deep_graphs_need_no_stack():
    x = leaf(dtypes.float32)
    for _ in range(5000): x = x.max(UOp.const(dtypes.float32, 0.0)) + 1.0
    assert not ops_left(lower_ops(x, BASIC), BASIC)

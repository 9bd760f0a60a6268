"""Floats that a target lacks: every value of every small type, against NumPy and ml_dtypes."""
import ml_dtypes
import numpy as np
import pytest
from numpy_eval import evaluate

from glassgrad.device.interp import Interpreter
from glassgrad.passes.lower_dtypes import decode, encode, is_lacking, lower_dtypes, round_value
from glassgrad.passes.lower_ops import lower_ops
from glassgrad.target.program import Program
from glassgrad.target.python import python_target
from glassgrad.uop.bits import bits_dtype, bits_to_float, compute_dtype, float_to_bits, round_to
from glassgrad.uop.dtype import TABLE, DType, dtypes
from glassgrad.uop.errors import DTypeError
from glassgrad.uop.ops import Ops, ParamArg, ReduceArg, ScratchArg, SpecialArg
from glassgrad.uop.uop import UOp, toposort

NEW = [DType("fp8e3m4", "f8e3", "float", 8, 19, exponent=3, mantissa=4), DType("tf24", "f24", "float", 32, 39, exponent=8, mantissa=15),
       DType("fp16e8finite", "f16f", "float", 16, 29, exponent=8, mantissa=7, finite=True)]
JUDGES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "fp8e4m3": ml_dtypes.float8_e4m3fn, "fp8e5m2": ml_dtypes.float8_e5m2,
          "fp8e3m4": ml_dtypes.float8_e3m4}
ROWS = [dtypes.bfloat16, dtypes.float16, dtypes.fp8e4m3, dtypes.fp8e5m2, *NEW]
SMALL = [row for row in ROWS if row.bits <= 16]
NATIVE = frozenset(python_target().dtypes - set(ROWS))
NARROW = python_target().with_(dtypes=NATIVE, storage_dtypes=NATIVE)
STORED = NARROW.with_(storage_dtypes=python_target().dtypes | set(NEW))
EDGES = [0, -0.0, np.inf, -np.inf, np.nan, 448, 464, 465, -480, 57344, 61439, 61440, 65519, 65520, 15.5, 15.75]
TARGETS = pytest.mark.parametrize("target", [NARROW, STORED], ids=["bits", "storage"])


@pytest.fixture(autouse=True, scope="module")
def new_rows():
    """Types that a user adds, for the time of these tests."""
    TABLE.update((row.name, row) for row in NEW)
    yield
    for row in NEW: del TABLE[row.name]


by_row = pytest.mark.parametrize("row", ROWS, ids=lambda d: d.name)


def leaf(dtype): return UOp(Ops.PARAM, dtype, (), ParamArg(0, "value", 1))
def param(slot, size, dtype): return UOp(Ops.PARAM, dtype, (), ParamArg(slot, "buffer", size))
def same(x, y): return (x == y) | (np.isnan(x) & np.isnan(y))


def any_floats(count=200_000, dtype="f4"):
    rng = np.random.default_rng(0)
    near = (rng.standard_normal(count) * 10.0 ** rng.integers(-9, 6, count)).astype(dtype)
    if dtype == "f8": return np.concatenate([near, rng.integers(0, 2 ** 64, count, dtype="u8").view("f8")])
    return np.concatenate([near, rng.integers(0, 2 ** 32, count, dtype="u4").view("f4"),
                           np.array(EDGES, "f4")])


def halfway(row):
    """All values of a type, those halfway between neighbours, and their float32 neighbours."""
    values = bits_to_float(row, np.arange(1 << row.bits).astype(f"u{row.itemsize}"))
    values = np.unique(values[np.isfinite(values)]).astype("f8")
    middle = ((values[1:] + values[:-1]) / 2).astype("f4")
    up, down = np.float32(np.inf), np.float32(-np.inf)
    return np.concatenate([values.astype("f4"), middle, np.nextafter(middle, up), np.nextafter(middle, down)])


def run(outs, bufs, grid, target=None):
    sink = UOp.sink(*outs)
    if target is not None: sink = lower_dtypes(lower_ops(sink, target), target)
    uops = list(toposort(sink.src))
    if target is not None:
        left = [u for u in uops if is_lacking(u.dtype, target) and u.op not in (Ops.PARAM, Ops.SCRATCH, Ops.AFTER)
                and not (u.dtype.scalar in target.storage_dtypes and u.op in (Ops.LOAD, Ops.CAST))]
        assert not left
    Interpreter(Program("test", uops, (), (grid, 1, 1), (1, 1, 1))).run(bufs)


@by_row
@pytest.mark.parametrize("lanes", [1, 4])
def test_encode_round_and_decode(row, lanes):
    x = np.concatenate([any_floats(), halfway(row) if row.bits <= 16 else any_floats(10)])
    x = x[:len(x) // 4 * 4]
    wide = compute_dtype(row)
    n = leaf(wide.vec(lanes))
    value = (x if lanes == 1 else x.reshape(-1, lanes)).astype(wide.np_name)
    bits = evaluate(encode(n, row), {n: value}).reshape(-1)
    want = float_to_bits(row, x)
    nan = np.isnan(round_to(row, x).astype("f4"))
    np.testing.assert_array_equal(bits[~nan], want[~nan])
    assert np.isnan(bits_to_float(row, bits[nan])).all()
    rounded = evaluate(round_value(n, row), {n: value}).reshape(-1)
    assert same(rounded, round_to(row, x)).all() and (np.signbit(rounded) == np.signbit(x))[~nan].all()
    raw = leaf(bits_dtype(row).vec(lanes))
    every = np.arange(1 << row.bits).astype(f"u{row.itemsize}") if row.bits <= 16 else want[:len(want) // 4 * 4]
    decoded = evaluate(decode(raw, row), {raw: every if lanes == 1 else every.reshape(-1, lanes)}).reshape(-1)
    assert same(decoded, bits_to_float(row, every)).all()


@pytest.mark.parametrize("row", [r for r in SMALL if r.name in JUDGES], ids=lambda d: d.name)
def test_bits_agree_with_ml_dtypes(row):
    x = np.concatenate([any_floats(), halfway(row)])
    with np.errstate(all="ignore"): judge = x.astype(JUDGES[row.name])
    nan = np.isnan(judge.astype("f4"))
    n = leaf(dtypes.float32)
    np.testing.assert_array_equal(evaluate(encode(n, row), {n: x})[~nan], judge.view(f"u{row.itemsize}")[~nan])


@TARGETS
@pytest.mark.parametrize("row", SMALL, ids=lambda d: d.name)
def test_unary_ops_on_all_values(row, target):
    count = 1 << row.bits
    g = UOp(Ops.SPECIAL, dtypes.int64, (), SpecialArg("gidx0", count))
    x = UOp(Ops.LOAD, row, (param(0, count, row), g))
    results = [-x, x.sqrt(), x.trunc(), x.recip(), x * x, x.max(UOp.const(row, 0.5)), (x < UOp.const(row, 1.0)).where(x, x + x)]
    outs = [UOp(Ops.STORE, dtypes.void, (param(1 + i, count, row), g, r)) for i, r in enumerate(results)]
    raw = np.arange(count).astype(f"u{row.itemsize}")
    got, want = ([raw, *(np.zeros_like(raw) for _ in outs)] for _ in range(2))
    run(outs, got, count, target)
    run(outs, want, count)
    for a, b in zip(got[1:], want[1:]): assert same(bits_to_float(row, a), bits_to_float(row, b)).all()


@TARGETS
@pytest.mark.parametrize("row", SMALL, ids=lambda d: d.name)
def test_binary_ops_round_each_time(row, target):
    count = 1 << 16
    g = UOp(Ops.SPECIAL, dtypes.int64, (), SpecialArg("gidx0", count))
    x, y = (UOp(Ops.LOAD, row, (param(i, count, row), g)) for i in range(2))
    results = [x + y, x - y, x * y, x / y, x.max(y), x * y + x - y, (x + y) * UOp.const(row, 0.3)]
    outs = [UOp(Ops.STORE, dtypes.void, (param(2 + i, count, row), g, r)) for i, r in enumerate(results)]
    flag = UOp(Ops.STORE, dtypes.void, (param(20, count, dtypes.bool), g, x + y < x * y))
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 1 << row.bits, count).astype(f"u{row.itemsize}") for _ in range(2))
    if row.bits == 8: a, b = np.divmod(np.arange(count), 256)[0].astype("u1"), np.arange(count).astype("u1")
    got, want = ([a, b, *(np.zeros_like(a) for _ in outs), *([None] * 11), np.zeros(count, "bool")] for _ in range(2))
    run([*outs, flag], got, count, target)
    run([*outs, flag], want, count)
    for i in range(2, 9): assert same(bits_to_float(row, got[i]), bits_to_float(row, want[i])).all()
    np.testing.assert_array_equal(got[20], want[20])
    if row.name in JUDGES:
        p, q = a.view(JUDGES[row.name]), b.view(JUDGES[row.name])
        with np.errstate(all="ignore"): judge = p * q + p
        z = UOp(Ops.STORE, dtypes.void, (param(2, count, row), g, x * y + x))
        bits = [a, b, np.zeros_like(a)]
        run([z], bits, count, target)
        assert same(bits_to_float(row, bits[2]), judge.astype("f4")).all()


@by_row
def test_casts_to_and_from_other_types(row):
    x64 = np.concatenate([any_floats(dtype="f8"), halfway(row).astype("f8") * (1 + 2.0 ** -40) if row.bits <= 16 else any_floats(10, "f8")])
    n = leaf(dtypes.float64)
    got = evaluate(lower_dtypes(n.cast(row).cast(dtypes.float64), NARROW), {n: x64})
    assert same(got, round_to(row, x64).astype("f8")).all()
    i = leaf(dtypes.int32)
    ints = np.random.default_rng(1).integers(-70000, 70000, 10000).astype("i4")
    assert same(evaluate(lower_dtypes(i.cast(row).cast(dtypes.float32), NARROW), {i: ints}), round_to(row, ints.astype("f4"))).all()
    f = leaf(dtypes.float32)
    small = np.random.default_rng(1).uniform(-10, 10, 10000).astype("f4")
    got = evaluate(lower_dtypes(f.cast(row).cast(dtypes.int32), NARROW), {f: small})
    np.testing.assert_array_equal(got, round_to(row, small).astype("i4"))


def test_one_small_float_to_another_by_value_and_by_bits():
    u = leaf(dtypes.uint16)
    raw = np.arange(1 << 16).astype("u2")
    value = u.bitcast(dtypes.bfloat16)
    got = evaluate(lower_dtypes(value.cast(dtypes.float16).bitcast(dtypes.uint16), NARROW), {u: raw})
    with np.errstate(all="ignore"): want = raw.view(ml_dtypes.bfloat16).astype("f4").astype("f2")
    assert same(got.view("f2"), want).all()
    got = evaluate(lower_dtypes(value.bitcast(dtypes.float16).bitcast(dtypes.uint16), NARROW), {u: raw})
    assert same(got.view("f2"), raw.view("f2")).all()


@TARGETS
def test_memory_inside_a_kernel_and_vectors(target):
    row, count = dtypes.fp8e4m3, 32
    g = UOp(Ops.SPECIAL, dtypes.int64, (), SpecialArg("gidx0", 8))
    x = UOp(Ops.LOAD, row.vec(4), (param(0, count, row), g * 4))
    room = UOp(Ops.SCRATCH, row, (), ScratchArg(0, 4, "private"))
    put = UOp(Ops.STORE, dtypes.void, (room, UOp.const(dtypes.int64, 0), x * x))
    back = UOp(Ops.LOAD, row, (UOp(Ops.AFTER, row, (room, put)), UOp.const(dtypes.int64, 2)))
    all_ = UOp(Ops.SPLAT, row.vec(4), (back + UOp(Ops.HREDUCE, row, (x,), Ops.MAX),)) + x
    out = UOp(Ops.STORE, dtypes.void, (param(1, count, row), g * 4, all_))
    raw = np.random.default_rng(0).integers(0, 100, count).astype("u1")
    got, want = [raw, np.zeros_like(raw)], [raw, np.zeros_like(raw)]
    run([out], got, 8, target)
    run([out], want, 8)
    np.testing.assert_array_equal(got[1], want[1])


def test_storing_rounds_once_and_casts_nothing_twice():
    g = UOp(Ops.SPECIAL, dtypes.int64, (), SpecialArg("gidx0", 8))
    x = UOp(Ops.LOAD, dtypes.float32, (param(0, 8, dtypes.float32), g))
    store = UOp(Ops.STORE, dtypes.void, (param(1, 8, dtypes.bfloat16), g, x.cast(dtypes.bfloat16)))
    assert lower_dtypes(store, STORED) is store
    low = lower_dtypes(store, NARROW)
    assert low.src[2].dtype is dtypes.uint16 and low.src[0] is store.src[0]
    assert len(low.src[2].toposort()) < 25


def test_reductions_are_made_in_the_wide_type():
    r = UOp.range(0, 8, "REDUCE")
    x = UOp(Ops.LOAD, dtypes.bfloat16, (param(0, 8, dtypes.bfloat16), r))
    total = UOp(Ops.REDUCE, dtypes.bfloat16, (x, r), ReduceArg(Ops.ADD, ()))
    low = lower_dtypes(total, NARROW)
    assert low.dtype is dtypes.float32 and [n.dtype for n in low.toposort() if n.op is Ops.REDUCE] == [dtypes.float32]


def test_a_graph_without_such_types_is_left_alone():
    x = leaf(dtypes.float32) + 1.0
    assert lower_dtypes(x, NARROW) is x


def test_no_wider_type_is_a_named_error():
    target = NARROW.with_(dtypes=frozenset(NARROW.dtypes - {dtypes.float64}))
    with pytest.raises(DTypeError, match="PYTHON cannot compute in float64"): lower_dtypes(leaf(dtypes.float64) + 1.0, target)

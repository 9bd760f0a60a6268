"""The PYTHON device: programs built by hand, NumPy is the judge."""
import numpy as np
import pytest

from glassgrad.device.interp import Interpreter
from glassgrad.target.program import Param, Program
from glassgrad.target.python import dump, parse, python_target, render
from glassgrad.uop.bits import bits_to_float, float_to_bits
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops, ParamArg, RangeArg, ScratchArg, SpecialArg
from glassgrad.uop.uop import UOp, toposort

I = dtypes.int64


def param(slot, size, dtype=dtypes.float32): return UOp(Ops.PARAM, dtype, (), ParamArg(slot, "buffer", size))
def special(name, size): return UOp(Ops.SPECIAL, I, (), SpecialArg(name, size))
def load(buf, *at, dtype=None): return UOp(Ops.LOAD, dtype or buf.dtype, (buf, *at))
def store(buf, *at): return UOp(Ops.STORE, dtypes.void, (buf, *at))
def i64(x): return UOp.const(I, x)


def program(uops, grid=(1, 1, 1), local=(1, 1, 1)):
    params = tuple(Param(u.arg.slot, u.arg.kind, u.arg.size, u.dtype) for u in uops if u.op is Ops.PARAM)
    return Program("test", list(uops), params, grid, local)


def run(uops, bufs, vals=(), **more):
    """Through the byte form, as from the disk cache."""
    Interpreter(parse(dump(program(uops, **more)))).run(bufs, vals)


@pytest.mark.parametrize("n, local", [(12, 1), (64, 16), (200_000, 8)])
def test_elementwise_over_the_grid(n, local):
    g, t = special("gidx0", n // local), special("lidx0", local)
    i = g * local + t
    out = store(param(0, n), i, load(param(1, n), i) * load(param(2, n), i) + 1.0)
    x, y, z = (np.random.default_rng(s).standard_normal(n).astype("float32") for s in range(3))
    run(toposort([out]), [z, x, y], grid=(n // local, 1, 1), local=(local, 1, 1))
    np.testing.assert_array_equal(z, x * y + np.float32(1))


def test_matmul_with_a_loop_and_an_accumulator():
    m, n, k = 5, 7, 9
    gm, gn = special("gidx1", m), special("gidx0", n)
    c, a, b = param(0, m * n), param(1, m * k), param(2, k * n)
    zero = UOp.const(dtypes.float32, 0.0)
    acc = UOp(Ops.ACC, dtypes.float32, (zero,), 0)
    count = i64(k)
    r = UOp(Ops.RANGE, I, (count,), RangeArg(0, "REDUCE"))
    get = UOp(Ops.GET, dtypes.float32, (acc, r))
    step = UOp(Ops.MULACC, dtypes.float32, (load(a, gm * k + r), load(b, r * n + gn), get))
    set_ = UOp(Ops.SET, dtypes.void, (acc, step))
    end = UOp(Ops.END, dtypes.void, (r,))
    last = UOp(Ops.GET, dtypes.float32, (acc, end))
    head = [x for x in toposort([set_]) if x not in (r, get)]
    before = [x for x in head if r not in toposort([x])]
    inside = [x for x in head if x not in before]
    tail = [x for x in toposort([store(c, gm * n + gn, last)]) if x not in (*head, r, end)]
    uops = [*before, r, get, *inside, end, last, *[x for x in tail if x is not last]]
    x, y = np.random.default_rng(0).standard_normal((m, k)).astype("f"), np.random.default_rng(1).standard_normal((k, n)).astype("f")
    z = np.zeros((m, n), "f")
    run(uops, [z, x, y], grid=(n, m, 1))
    np.testing.assert_allclose(z, x @ y, rtol=1e-5)


def test_vectors_load_compute_store():
    n = 24
    g, f8 = special("gidx0", 3), dtypes.float32.vec(8)
    x = UOp(Ops.LOAD, f8, (param(1, n), g * 8))
    rev = UOp.const(I.vec(8), 7) - UOp(Ops.LANES, I.vec(8), ()) + UOp(Ops.SPLAT, I.vec(8), (g * 8,))
    y = UOp(Ops.LOAD, f8, (param(2, n), rev))
    total = UOp(Ops.HREDUCE, dtypes.float32, (x,), Ops.ADD)
    z = x + y + UOp(Ops.SPLAT, f8, (total,)) + UOp(Ops.SPLAT, f8, (UOp(Ops.EXTRACT, dtypes.float32, (y,), 3),))
    gate = UOp(Ops.LANES, I.vec(8), ()) < UOp.const(I.vec(8), 6)
    outs = [store(param(0, n), g * 8, z, gate), store(param(3, n), rev, x)]
    a, b, out, rout = np.arange(n, dtype="f"), np.arange(n, dtype="f") ** 2, np.full(n, -1, "f"), np.zeros(n, "f")
    run(toposort(outs), [out, a, b, rout], grid=(3, 1, 1))
    x, y = a.reshape(3, 8), b.reshape(3, 8)[:, ::-1]
    want = x + y + x.sum(1, keepdims=True) + y[:, 3:4]
    want[:, 6:] = -1
    np.testing.assert_array_equal(out.reshape(3, 8), want)
    np.testing.assert_array_equal(rout.reshape(3, 8), x[:, ::-1])


def test_shared_memory_turns_a_row_around():
    n, local = 32, 8
    g, t = special("gidx0", n // local), special("lidx0", local)
    tile = UOp(Ops.SCRATCH, dtypes.int32, (), ScratchArg(0, local, "shared"))
    mine = UOp(Ops.SCRATCH, dtypes.int32, (), ScratchArg(1, 1, "private"))
    put = store(tile, t, load(param(1, n, dtypes.int32), g * local + t))
    wait = UOp(Ops.BARRIER, dtypes.void, (put,))
    back = load(UOp(Ops.AFTER, dtypes.int32, (tile, wait)), i64(local - 1) - t)
    keep = store(mine, i64(0), back)
    out = store(param(0, n, dtypes.int32), g * local + t, load(UOp(Ops.AFTER, dtypes.int32, (mine, keep)), i64(0)))
    x, z = np.arange(n, dtype="int32"), np.zeros(n, "int32")
    run(toposort([out]), [z, x], grid=(n // local, 1, 1), local=(local, 1, 1))
    np.testing.assert_array_equal(z, x.reshape(-1, local)[:, ::-1].reshape(-1))


@pytest.mark.parametrize("read_first", [False, True])
def test_a_missing_barrier_is_named(read_first):
    t = special("lidx0", 8)
    tile = UOp(Ops.SCRATCH, dtypes.int32, (), ScratchArg(0, 8, "shared"))
    put = store(tile, t, t.cast(dtypes.int32))
    back = load(UOp(Ops.AFTER, dtypes.int32, (tile,) if read_first else (tile, put)), i64(7) - t)
    out = store(param(0, 8, dtypes.int32), t, back)
    uops = toposort([out, put] if read_first else [out])
    with pytest.raises(CompilerBug, match=r"shared scratch 0\[\d\] is (read|written) by thread \d and (read|written) by another with no barrier"):
        run(uops, [np.zeros(8, "int32")], local=(8, 1, 1))


def test_value_params_gates_and_padding():
    n = 10
    g, shift = special("gidx0", n), UOp(Ops.PARAM, I, (), ParamArg(2, "value", 1))
    at = g - shift
    gate = i64(0) <= at
    out = store(param(0, n), g, load(param(1, n), at, gate))
    x, z = np.arange(1, n + 1, dtype="f"), np.full(n, 9, "f")
    run(toposort([out]), [z, x, None], [0, 0, 3], grid=(n, 1, 1))
    np.testing.assert_array_equal(z, [0, 0, 0, *range(1, 8)])


@pytest.mark.parametrize("make", [load, lambda b, i: store(b, i, UOp.const(dtypes.float32, 1.0))])
def test_an_access_out_of_bounds_is_named(make):
    g = special("gidx0", 8)
    node = make(param(1, 7), g)
    with pytest.raises(CompilerBug, match=r"buffer 1 has 7 elements of f32, the index is 7"):
        run(toposort([node]), [None, np.zeros(7, "f")], grid=(8, 1, 1))


@pytest.mark.parametrize("dtype", [dtypes.bfloat16, dtypes.fp8e4m3, dtypes.fp8e5m2], ids=lambda d: d.name)
def test_float_rows_that_numpy_lacks(dtype):
    n = 1 << dtype.bits
    g = special("gidx0", n)
    x = load(param(1, n, dtype), g)
    bits = load(param(1, n, dtype), g, dtype=dtypes.uint8 if dtype.bits == 8 else dtypes.uint16)
    outs = [store(param(0, n, dtype), g, x + x), store(param(2, n, bits.dtype), g, bits), store(param(3, n), g, x.cast(dtypes.float32))]
    raw = np.arange(n).astype("uint8" if dtype.bits == 8 else "uint16")
    twice, same, wide = np.zeros_like(raw), np.zeros_like(raw), np.zeros(n, "f")
    run(toposort(outs), [twice, raw, same, wide], grid=(n, 1, 1))
    value = bits_to_float(dtype, raw)
    np.testing.assert_array_equal(same, raw)
    np.testing.assert_array_equal(wide, value)
    np.testing.assert_array_equal(bits_to_float(dtype, twice), bits_to_float(dtype, float_to_bits(dtype, value + value)))


def test_casts_to_int_saturate():
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3.9, -3.9, 300, 127.5, 9.3e18], "f")
    for dtype in dtypes.ints:
        z = np.zeros(len(x), dtype.np_name)
        g = special("gidx0", len(x))
        run(toposort([store(param(0, len(x), dtype), g, load(param(1, len(x)), g).cast(dtype))]), [z, x], grid=(len(x), 1, 1))
        want = [0 if v != v else dtype.max if v > dtype.max else dtype.min if v < dtype.min else int(v) for v in x.tolist()]
        assert z.tolist() == want


def test_the_byte_form_keeps_special_floats():
    consts = [UOp.const(dtypes.float32, x) for x in (float("nan"), float("inf"), -0.0, 0.1)]
    again = parse(dump(program(consts))).uops
    assert list(again) == consts


def test_the_listing_names_ops_and_grows_with_the_tables():
    ones = store(param(0, 4), special("gidx0", 4), UOp.const(dtypes.float32, 1.0))
    text = render(program(toposort([ones]), grid=(4, 1, 1)), python_target())
    assert "SPECIAL" in text and "STORE" in text and "grid (4, 1, 1)" in text
    assert set(Ops.alu()) <= python_target().ops

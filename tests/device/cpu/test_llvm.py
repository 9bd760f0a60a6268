"""What the LLVM renderer writes, run on this machine; NumPy is the judge."""
import ml_dtypes
import numpy as np
import pytest
from linear_programs import Linear

from glassgrad import Tensor
from glassgrad.device.device import Device
from glassgrad.device.null import NullDevice
from glassgrad.show import follow
from glassgrad.target.llvm import ARITHMETIC, cpu_target, render
from glassgrad.uop.dtype import dtypes, round_float
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops

CPU = Device["CPU"]
I = dtypes.int64
NATIVE = [d for d in dtypes.all if not d.is_float] + [dtypes.float32, dtypes.float64]
NP = {dtypes.bfloat16: ml_dtypes.bfloat16}


def np_type(d): return NP.get(d.scalar) or np.dtype(d.np_name)


def run(k, *arrays, vals=(), **facts):
    """Compile and run the lines of `k` on arrays, one per buffer."""
    program = k.program(**facts)
    prog = CPU.load(program.name, CPU.compile(program, CPU.render(program)))
    assert [a.size for a in arrays] == [p.size for p in program.params if p.kind == "buffer"]
    CPU.launch(prog, [a.ctypes.data for a in arrays], vals, program.grid)
    return arrays[0]


def samples(d, n=48, seed=0):
    """Values of d with all its corners, n in all."""
    rng = np.random.default_rng(seed)
    if d.is_bool: return rng.integers(0, 2, n).astype(bool)
    if d.is_float:
        corners = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -2.5, 1e-40, 3e38, 127.5, 255.5, -128.9]
        with np.errstate(over="ignore"): return np.concatenate([corners, rng.normal(0, 50, n - len(corners))]).astype(np_type(d))
    lo, hi = int(d.min), int(d.max)
    corners = [lo, hi, 0, 1, hi - 1, lo + 1, 2, 3, 7, hi // 2]
    return np.array(corners + [int(x) for x in rng.integers(lo, hi, n - len(corners), endpoint=True, dtype=np_type(d))], np_type(d))


def elementwise(name, out, dtypes_, make, n, lanes):
    """A kernel: out[i] = make(x[i], y[i], …), `lanes` at once."""
    k = Linear(name, I)
    bufs = [k.buffer(d, n) for d in (out, *dtypes_)]
    i = k.put(k.group(0, n // lanes) * k.const(lanes))
    k.store(bufs[0], i, k.put(make(*(k.load(b, i, lanes=lanes) for b in bufs[1:]))))
    return k


@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("dtype", NATIVE, ids=lambda d: d.name)
def test_every_native_op(dtype, lanes):
    kinds = {"bool": "bool", "int": "int number", "uint": "int number", "float": "float number"}[dtype.kind].split()
    ops = [op for op in sorted(ARITHMETIC, key=lambda op: op.name) if op not in (Ops.CAST, Ops.BITCAST, Ops.WHERE, Ops.MULACC)
           and (op.dtypes == "any" or set(op.dtypes.split()) & set(kinds))]
    n = 48
    k = Linear(f"ops_{dtype.name}_{lanes}", I)
    outs = [k.buffer(dtypes.bool if op.out == "bool" else dtype, n) for op in ops]
    x, y = k.buffer(dtype, n), k.buffer(dtype, n)
    i = k.put(k.group(0, n // lanes) * k.const(lanes))
    a, b = (k.load(z, i, lanes=lanes) for z in (x, y))
    for op, out in zip(ops, outs, strict=True): k.store(out, i, k.put(a.alu(op, b) if op.arity == 2 else a.alu(op)))
    xs, ys = samples(dtype, n), np.roll(samples(dtype, n, 1), 5)
    got = [np.zeros(n, np_type(p.dtype)) for p in outs]
    run(k, *got, xs, ys)
    for op, out in zip(ops, got, strict=True):
        if op in (Ops.SHL, Ops.SHR): ys_ = (ys.astype(np.uint64) & np.uint64(dtype.bits - 1)).astype(ys.dtype)
        else: ys_ = ys
        with np.errstate(all="ignore"): want = op.np(xs, ys_) if op.arity == 2 else op.np(xs)
        if op in (Ops.SHL, Ops.SHR):
            shifted = k_shift(dtype, lanes, op, xs, ys_)
            np.testing.assert_array_equal(shifted, want.astype(shifted.dtype), err_msg=op.name)
        else: np.testing.assert_array_equal(out, want.astype(out.dtype), err_msg=op.name)


def k_shift(dtype, lanes, op, xs, ys):
    out = np.zeros(len(xs), np_type(dtype))
    return run(elementwise("shift", dtype, (dtype, dtype), lambda a, b: a.alu(op, b), len(xs), lanes), out, xs, ys)


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
@pytest.mark.parametrize("of", [*NATIVE, dtypes.float16, dtypes.bfloat16], ids=lambda d: d.name)
def test_cast(of, lanes):
    if of not in CPU.target.storage_dtypes: pytest.skip("this CPU has no float16 conversions")
    kinds = [d for d in (*NATIVE, dtypes.float16, dtypes.bfloat16) if d in CPU.target.storage_dtypes]
    x = samples(of)
    k = Linear("cast", I)
    outs, src = [k.buffer(d, len(x)) for d in kinds], k.buffer(of, len(x))
    i = k.put(k.group(0, len(x) // lanes) * k.const(lanes))
    v = k.load(src, i, lanes=lanes)
    for out in outs: k.store(out, i, k.put(v.cast(out.dtype)))
    got = [np.zeros(len(x), np_type(d)) for d in kinds]
    run(k, *got, x)
    for to, found in zip(kinds, got, strict=True):
        with np.errstate(all="ignore"): want = cast(x, of, to)
        exact = np.float64 if to.is_float else np_type(to)
        np.testing.assert_array_equal(found.astype(exact), want.astype(exact), err_msg=to.name)


def cast(x, of, to):
    if to.is_bool: return x != 0
    if of.is_float and not to.is_float:          # saturates
        wide = x.astype(np.float64).tolist()
        return np.array([0 if v != v else min(max(int(max(min(v, 1e30), -1e30)), to.min), to.max) for v in wide], np_type(to))
    return x.astype(np.float32).astype(np_type(to)) if to.bits == 16 and to.is_float else x.astype(np_type(to))


@pytest.mark.parametrize("of, to", [(dtypes.float32, dtypes.uint32), (dtypes.int64, dtypes.float64), (dtypes.uint8, dtypes.int8),
                                    (dtypes.bool, dtypes.uint8), (dtypes.float16, dtypes.uint16), (dtypes.uint16, dtypes.bfloat16),
                                    (dtypes.fp8e4m3, dtypes.uint8)], ids=str)
def test_bitcast(of, to):
    n = 16
    raw = np.random.default_rng(3).integers(0, 2 if of.is_bool else 256, n * of.itemsize, dtype=np.uint8)
    k = elementwise("bits", to, (of,), lambda a: a.bitcast(to), n, 8)
    out = run(k, np.zeros_like(raw).view(f"u{to.itemsize}"), raw.view(f"u{of.itemsize}"))
    np.testing.assert_array_equal(out.view(np.uint8), raw)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64, dtypes.int32, dtypes.uint8, dtypes.bool, dtypes.bfloat16],
                         ids=lambda d: d.name)
def test_constants(dtype):
    values = [0, 1] if dtype.is_bool else [0, 1, 3, dtype.max, dtype.min]
    if dtype.is_float: values += [round_float(dtype, 0.1), float("nan"), -0.0, float("inf")]
    k = Linear("constants", I)
    out = k.buffer(dtype, 9 * len(values))
    for j, v in enumerate(values):
        c = k.const(v, dtype)
        k.store(out, k.const(9 * j), c)
        k.store(out, k.const(9 * j + 1), k.add(Ops.CONST, dtype.vec(4), (), c.arg))
        k.store(out, k.const(9 * j + 5), k.add(Ops.SPLAT, dtype.vec(4), (c,)))
    got = run(k, np.zeros(9 * len(values), np_type(dtype)))
    np.testing.assert_array_equal(got.astype(np.float64), np.repeat(values, 9).astype(np_type(dtype)).astype(np.float64))


def test_wrapping_arithmetic_on_loop_counters():
    """A hash of the index wraps; what is known of counters must not reach it."""
    k = Linear("hash", I)
    out, g = k.buffer(I, 64), k.group(0, 64)
    mixed = k.put(g * k.const(0x1E3779B97F4A7C15) + k.const(7))
    k.store(out, k.put(g), k.put(mixed % 64))
    at = np.arange(64)
    with np.errstate(over="ignore"): want = Ops.CMOD.np(at * 0x1E3779B97F4A7C15 + 7, np.full(64, 64))
    assert (want < 0).any() and run(k, np.zeros(64, "i8")).tolist() == want.tolist()


def test_where_and_mulacc():
    n, f = 48, dtypes.float32
    x, y = samples(f, n), samples(f, n, 1)
    def make(a, b): return (a < b).where(a.alu(Ops.MULACC, b, a), b)
    got = run(elementwise("where", f, (f, f), make, n, 8), np.zeros(n, "f"), x, y)
    with np.errstate(all="ignore"): want = np.where(x < y, (x.astype("d") * y + x).astype("f"), y)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    k = Linear("scalar_condition", I)
    out, z = k.buffer(f, 8), k.buffer(f, 8)
    c = k.put(k.load(z, k.const(0)) < k.load(z, k.const(1)))
    a = k.load(z, k.const(0), lanes=8)
    k.store(out, k.const(0), k.put(c.where(a, a + a)))
    np.testing.assert_array_equal(run(k, np.zeros(8, "f"), x[32:40]), x[32:40] * (1 if x[32] < x[33] else 2))


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 64, -1, -3, 0])
@pytest.mark.parametrize("dtype", [dtypes.int32, dtypes.int64, dtypes.uint8], ids=lambda d: d.name)
def test_division_by_a_constant(dtype, divisor):
    if dtype.is_unsigned and divisor < 0: pytest.skip("no negative divisors in unsigned types")
    x = samples(dtype)
    for op in (Ops.CDIV, Ops.CMOD):
        got = run(elementwise("div", dtype, (dtype,), lambda a, op=op: a.alu(op, a.const_like(divisor)), 48, 8), np.zeros_like(x), x)
        with np.errstate(all="ignore"): want = op.np(x, np.full_like(x, divisor))
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 7])
@pytest.mark.parametrize("op", [Ops.ADD, Ops.MUL, Ops.MAX, Ops.MIN], ids=str)
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int32, dtypes.bool], ids=lambda d: d.name)
def test_reduce_lanes(dtype, op, lanes):
    x = samples(dtypes.int32)[-lanes:].astype(np_type(dtype))
    if dtype.is_float: x = np.random.default_rng(1).random(lanes, "f")
    k = Linear("hreduce", I)
    out, b = k.buffer(dtype, 1), k.buffer(dtype, lanes)
    k.store(out, k.const(0), k.add(Ops.HREDUCE, dtype, (k.load(b, k.const(0), lanes=lanes),), op))
    got = run(k, np.zeros(1, np_type(dtype)), x)
    table = {Ops.ADD: np.add, Ops.MUL: np.multiply, Ops.MAX: np.maximum, Ops.MIN: np.minimum}
    np.testing.assert_allclose(got[0], np.asarray(table[op].reduce(x)).astype(np_type(dtype)), rtol=1e-5)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 7])
@pytest.mark.parametrize("op", [Ops.ADD, Ops.MUL, Ops.MAX, Ops.MIN], ids=str)
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int32, dtypes.bool, dtypes.uint8], ids=lambda d: d.name)
def test_running_lanes(dtype, op, lanes):
    x = samples(dtypes.int32)[-lanes:].astype(np_type(dtype))
    if dtype.is_float: x = np.random.default_rng(1).random(lanes, "f")
    k = Linear("hscan", I)
    out, b = k.buffer(dtype, lanes), k.buffer(dtype, lanes)
    k.store(out, k.const(0), k.add(Ops.HSCAN, dtype.vec(lanes), (k.load(b, k.const(0), lanes=lanes),), op))
    got = run(k, np.zeros(lanes, np_type(dtype)), x)
    table = {Ops.ADD: np.add, Ops.MUL: np.multiply, Ops.MAX: np.maximum, Ops.MIN: np.minimum}
    np.testing.assert_allclose(got, table[op].accumulate(x).astype(np_type(dtype)), rtol=1e-5)


def test_reduce_lanes_is_a_tree_of_halves():
    x = np.random.default_rng(1).normal(0, 1e4, 8).astype("f")
    k = Linear("tree", I)
    out, b = k.buffer(dtypes.float32, 1), k.buffer(dtypes.float32, 8)
    k.store(out, k.const(0), k.add(Ops.HREDUCE, dtypes.float32, (k.load(b, k.const(0), lanes=8),), Ops.ADD))
    four = x[:4] + x[4:]
    two = four[:2] + four[2:]
    assert run(k, np.zeros(1, "f"), x)[0] == two[0] + two[1]


def test_pack_extract_lanes_splat():
    k = Linear("lanes", I)
    out, x = k.buffer(dtypes.int32, 12), k.buffer(dtypes.int32, 4)
    v = k.load(x, k.const(0), lanes=4)
    parts = [k.add(Ops.EXTRACT, dtypes.int32, (v,), j) for j in (3, 2, 1, 0)]
    k.store(out, k.const(0), k.add(Ops.PACK, dtypes.int32.vec(4), parts))
    k.store(out, k.const(4), k.add(Ops.LANES, dtypes.int32.vec(4)))
    k.store(out, k.const(8), k.add(Ops.SPLAT, dtypes.int32.vec(4), (parts[0],)))
    assert run(k, np.zeros(12, "i4"), np.array([5, 6, 7, 8], "i4")).tolist() == [8, 7, 6, 5, 0, 1, 2, 3, 8, 8, 8, 8]


# ---- memory ----------------------------------------------------------------------------------------------------------------------
def guarded(n, dtype="f"):
    """(n elements that end at an unreadable page, what keeps them): reading or writing one more ends the process."""
    import ctypes
    import mmap
    page = mmap.PAGESIZE
    size = -(-n * np.dtype(dtype).itemsize // page) * page
    memory = mmap.mmap(-1, size + page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + size), ctypes.c_size_t(page), 0) == 0
    return np.frombuffer(memory, dtype, n, size - n * np.dtype(dtype).itemsize), memory


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.uint8, dtypes.bool, dtypes.int64], ids=lambda d: d.name)
def test_gates_keep_memory_untouched(dtype):
    """The last 5 of 8 lanes lie in a page that may not be touched, as do all the elements of gated scalars."""
    n, lanes = 11, 8
    k = Linear("gates", I)
    out, x = k.buffer(dtype, n), k.buffer(dtype, n)
    i = k.put(k.group(0, 2) * k.const(lanes))
    at = k.put(k.add(Ops.SPLAT, I.vec(lanes), (i,)) + k.add(Ops.LANES, I.vec(lanes)))
    ok = k.put(at < k.add(Ops.CONST, I.vec(lanes), (), n))
    v = k.load(x, i, ok, lanes=lanes)
    total = k.add(Ops.HREDUCE, dtype, (v,), Ops.MAX)
    k.store(out, i, v, ok)
    far = k.put(i + k.const(1 << 40))
    never = k.put(i < k.const(0))
    k.store(out, far, k.load(x, far, never), never)
    k.store(out, far, k.load(x, far, never, lanes=lanes), never)
    k.store(out, k.put(i * k.const(0)), k.load(x, k.const(0)), k.put(i.eq(k.const(0))))
    assert total
    (o, keep), (a, keep2) = guarded(n, np_type(dtype)), guarded(n, np_type(dtype))
    a[:] = (np.arange(n) + 1).astype(a.dtype)
    np.testing.assert_array_equal(run(k, o, a), a)
    assert keep and keep2


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int64, dtypes.bool, dtypes.int8], ids=lambda d: d.name)
def test_gather_and_scatter(dtype, gated):
    n, lanes = 16, 8
    k = Linear("gather", I)
    out, x, index = k.buffer(dtype, n), k.buffer(dtype, n), k.buffer(I, n)
    i = k.put(k.group(0, n // lanes) * k.const(lanes))
    at = k.load(index, i, lanes=lanes)
    gate = k.put(at < k.add(Ops.CONST, I.vec(lanes), (), n)) if gated else None
    v = k.load(x, at, gate)
    k.store(out, at, v, gate)
    order = np.random.default_rng(4).permutation(n)
    if gated: order[::3] = 1 << 40
    a = samples(dtype, 48)[-n:]
    got = run(k, np.zeros(n, a.dtype), a, order)
    want = np.zeros(n, a.dtype)
    inside = order[order < n]
    want[inside] = a[inside]
    np.testing.assert_array_equal(got, want)


def test_scatter_of_equal_places_keeps_the_last():
    k = Linear("collide", I)
    out, x = k.buffer(dtypes.float32, 1), k.buffer(dtypes.float32, 8)
    k.store(out, k.add(Ops.CONST, I.vec(8), (), 0), k.load(x, k.const(0), lanes=8))
    assert run(k, np.zeros(1, "f"), np.arange(8, dtype="f"))[0] == 7


def test_values_loops_and_dynamic_counts():
    k = Linear("triangle", I)
    out, x = k.buffer(dtypes.int32, 20), k.buffer(dtypes.int32, 20)
    limit, add = k.value(I), k.value(dtypes.int8)
    g = k.group(0, 20)
    acc = k.acc(0, k.put(k.const(0, dtypes.int8) + add))
    wide = k.acc(1, k.const(0, dtypes.int32))
    r = k.loop(0, k.put(g.alu(Ops.MIN, limit)))
    k.set(wide, k.put(k.get(wide, r) + k.load(x, r)))
    e = k.end(r)
    k.store(out, g, k.put(k.get(wide, e) + k.get(acc, e).cast(dtypes.int32)))
    x = np.arange(20, dtype="i4") * 3
    got = run(k, np.zeros(20, "i4"), x, vals=(7, -5))
    assert got.tolist() == [int(x[:min(i, 7)].sum()) - 5 for i in range(20)]


@pytest.mark.parametrize("size", [8, 1 << 14, 1 << 18], ids=["small", "stack", "arena"])
def test_scratch(size):
    k = Linear(f"scratch{size}", I)
    out, x = k.buffer(dtypes.float32, 4), k.buffer(dtypes.float32, size)
    g = k.group(0, 4)
    memory, flags = k.scratch(0, dtypes.float32, size, "private"), k.scratch(1, dtypes.bool, size, "private")
    r = k.loop(0, size)
    v = k.load(x, r)
    k.store(memory, k.put(k.const(size - 1) - r), k.put(v * g.cast(dtypes.float32)))
    k.store(flags, r, k.put(v < 0.5))
    e = k.end(r)
    acc = k.acc(0, k.const(0.0, dtypes.float32))
    r = k.loop(1, size)
    on = k.load(k.after(flags, e), r)
    k.set(acc, k.put(k.get(acc, r) + on.where(k.load(k.after(memory, e), r), 0.0)))
    done = k.end(r)
    k.store(out, g, k.get(acc, done))
    x = np.random.default_rng(1).integers(0, 2, size).astype("f") / 2
    want = x[::-1][x < 0.5].sum(dtype="d") * np.arange(4)
    np.testing.assert_allclose(run(k, np.zeros(4, "f"), x), want, rtol=1e-4)


def test_registers_are_told_apart_by_more_than_their_number():
    k = Linear("registers", I)
    out, out2 = k.buffer(dtypes.float32, 1), k.buffer(dtypes.int32, 1)
    zero = k.const(0)
    a, b = k.acc(0, k.const(1.5, dtypes.float32)), k.acc(0, k.const(2, dtypes.int32))
    r = k.loop(0, 3)
    k.set(a, k.put(k.get(a, r) * 2.0))
    k.set(b, k.put(k.get(b, r) + 1))
    e = k.end(r)
    k.store(out, zero, k.get(a, e))
    k.store(out2, zero, k.get(b, e))
    x = np.zeros(1, "i4")
    assert run(k, np.zeros(1, "f"), x)[0] == 12 and x[0] == 5


def test_an_address_that_is_also_a_value():
    k = Linear("both", I)
    out, g = k.buffer(I, 12), k.group(0, 4)
    there = k.put(g + 8)
    k.store(out, there, there)
    k.store(out, k.put(g + 4), k.put(g * 2))
    assert run(k, np.zeros(12, "i8")).tolist() == [0, 0, 0, 0, 0, 2, 4, 6, 8, 9, 10, 11]
    text = render(k.program(), CPU.target)
    assert text.count("add nsw") == 1                        # g + 4 is folded into its access


def gemm(m, n, kk, rows=6, panels=2, lanes=8):
    """C = A @ B in register tiles of rows x panels*lanes."""
    k, f, w = Linear("gemm", I), dtypes.float32, panels * lanes
    c, a, b = k.buffer(f, m * n), k.buffer(f, m * kk), k.buffer(f, n * kk)
    g = k.group(0, n // w)
    i = k.loop(0, m // rows)
    zero = k.add(Ops.CONST, f.vec(lanes), (), 0.0)
    accs = [[k.acc(r * panels + p, zero) for p in range(panels)] for r in range(rows)]
    j = k.loop(1, kk)
    row, col = k.put(i * (rows * kk) + j), k.put(j * n + g * w)
    vb = [k.load(b, k.put(col + p * lanes), lanes=lanes) for p in range(panels)]
    for r in range(rows):
        va = k.add(Ops.SPLAT, f.vec(lanes), (k.load(a, k.put(row + r * kk)),))
        for p in range(panels): k.set(accs[r][p], k.put(va.alu(Ops.MULACC, vb[p], k.get(accs[r][p], j))))
    done = k.end(j)
    for r in range(rows):
        for p in range(panels): k.store(c, k.put(i * (rows * n) + g * w + (r * n + p * lanes)), k.get(accs[r][p], done))
    k.end(i)
    return k


def test_register_tile_matmul():
    m, n, kk = 48, 64, 40
    rng = np.random.default_rng(0)
    a, b = rng.random((m, kk), "f"), rng.random((kk, n), "f")
    got = run(gemm(m, n, kk), np.zeros(m * n, "f"), a.ravel(), b.ravel())
    np.testing.assert_allclose(got.reshape(m, n), a @ b, rtol=1e-5)


def test_register_tile_stays_in_registers():
    if not CPU.target.fma or CPU.target.lanes < 8: pytest.skip("needs AVX2 and FMA")
    text = CPU.disassemble(CPU.render(gemm(48, 64, 40).program()))
    assert text.count("vfmadd") == 12 and "(%rsp)" not in text.split("vfmadd")[6]


def body(k):
    return CPU.disassemble(CPU.render(k.program()))


def test_max_is_one_instruction_off_the_chain():
    if CPU.target.lanes != 8: pytest.skip("needs AVX2")
    f = dtypes.float32
    two = body(elementwise("max", f, (f, f), lambda a, b: a.max(b), 64, 8))
    assert two.count("vmaxps") == 1 and two.count("vblendvps") == 1 and "vorps" not in two
    one = body(elementwise("relu", f, (f,), lambda a: a.max(0.0), 64, 8))
    assert one.count("vmaxps") == 1 and "vcmp" not in one and "vblend" not in one


@pytest.mark.parametrize("to", [dtypes.int32, dtypes.int8, dtypes.uint8, dtypes.uint16, dtypes.uint32], ids=lambda d: d.name)
def test_casts_to_int_stay_vectors(to):
    if CPU.target.lanes != 8: pytest.skip("needs AVX2")
    assert "vcvttss2si" not in body(elementwise("cast", to, (dtypes.float32,), lambda a: a.cast(to), 64, 8))


def test_a_kernel_is_one_function_and_works_in_place():
    k = elementwise("twice", dtypes.float32, (dtypes.float32,), lambda a: a + a, 16, 8)
    assert render(k.program(), CPU.target).count("define") == 1
    x = np.arange(16, dtype="f")
    assert run(k, x, x, reuses=((0, 1),)).tolist() == [2.0 * i for i in range(16)]


@pytest.mark.parametrize("m, n, k", [(48, 64, 40), (96, 96, 64), (50, 70, 33)])
def test_a_product_and_what_is_read_across_it(m, n, k):
    """The transposed summand is read lane by lane around the product's loop: in a loop over the lanes."""
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (k, n), (n, m)))
    def out(): return Tensor(a) @ Tensor(b) + Tensor(c).T * 2
    np.testing.assert_allclose(out().numpy(), a @ b + c.T * 2, rtol=1e-4, atol=1e-4)
    (_, _, program), *_ = follow(out(), cpu_target("+avx,+avx2,+fma")).kernels
    text = render(program, cpu_target("+avx,+avx2,+fma"))
    assert "br label %lane" in text and text.count("insertelement") < 20


# ---- the text --------------------------------------------------------------------------------------------------------------------
def test_text_is_the_same_again():
    assert render(gemm(12, 16, 8).program(), CPU.target) == render(gemm(12, 16, 8).program(), CPU.target)


@pytest.mark.parametrize("features, lanes, registers, fma", [
    ("+sse2", 4, 16, False), ("+avx,+avx2,+fma", 8, 16, True), ("+avx2,-fma", 8, 16, False), ("+avx2,+fma,+avx512f", 16, 32, True),
    ("+avx2,-avx512f", 8, 16, False), ("+neon", 4, 32, True)])
def test_target_follows_from_the_features(features, lanes, registers, fma):
    t = cpu_target(features)
    assert (t.lanes, t.registers, t.fma) == (lanes, registers, fma)


def test_float16_is_native_only_with_the_feature():
    assert dtypes.float16 not in cpu_target("+avx2,+f16c").dtypes
    assert dtypes.float16 in cpu_target("+avx2,+f16c").storage_dtypes
    assert dtypes.float16 in cpu_target("+avx512f,+avx512fp16").dtypes


@pytest.mark.parametrize("features", ["+sse2,+sse4.1", "+avx,+avx2,+fma,+f16c", "+avx2,+fma,+f16c,+avx512f,+avx512vl,+avx512bw,+avx512dq"])
def test_compiles_for_other_machines(features):
    """All of the elementwise ops and memory forms, for machines this one need not be."""
    if "avx512f" in features:
        k = elementwise("wide", dtypes.float32, (dtypes.float32, dtypes.float32), lambda a, b: a.max(b), 64, 16)
        assert "%zmm" in CPU.llvm.assembly(render(k.program(), cpu_target(features)), features)
    k = elementwise("ops", dtypes.float32, (dtypes.float32, dtypes.float32),
                    lambda a, b: ((a.max(b) + b.recip()).sqrt() < a).where(a.trunc(), a.cast(dtypes.int32).cast(dtypes.float32)), 64, 16)
    out, index = k.buffer(dtypes.float32, 64), k.buffer(I, 64)
    at = k.load(index, k.const(0), lanes=16)
    gate = k.put(at < k.add(Ops.CONST, I.vec(16), (), 64))
    k.store(out, at, k.load(out, at, gate), gate)
    k.store(out, k.const(0), k.load(out, k.const(0), gate, lanes=16), gate)
    assert CPU.llvm.compile(render(k.program(), cpu_target(features)), features)


def test_emulated_dtype_is_refused():
    k = elementwise("half", dtypes.float16, (dtypes.float16, dtypes.float16), lambda a, b: a + b, 8, 8)
    with pytest.raises(CompilerBug, match="float16"): render(k.program(), cpu_target("+avx2,+f16c"))


def test_null_renders_for_one_machine_everywhere():
    null = NullDevice("NULL")
    program = gemm(12, 16, 8).program()
    assert "define void @\"gemm\"" in null.render(program) and null.compile(program, "") == b""
    assert null.launch(null.load("gemm", b""), [null.alloc(4)]) is None


def test_a_product_may_stand_in_two_loops():
    """A pure value is written once in each loop that uses it; only products with a loop's own counter are stepped along."""
    k = Linear("products", I)
    out, v = k.buffer(I, 8), k.value(I)
    k.group(0, 1)
    for i in range(2):
        r = k.loop(i, 4)
        m = k.put(v * 3)
        if i: k.uops.append(m)
        k.store(out, k.put(r + 4 * i), k.put(m + k.put(r * 2)))
        k.end(r)
    program = k.program()
    prog, x = CPU.load(program.name, CPU.compile(program, CPU.render(program))), np.zeros(8, "i8")
    CPU.launch(prog, [x.ctypes.data], (5,), (1, 1, 1))
    assert x.tolist() == [15, 17, 19, 21] * 2

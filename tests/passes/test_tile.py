"""Tiles, panels and the shares of threads: results on odd shapes, and what the schedule is for."""
from __future__ import annotations

import math

import numpy as np
import pytest

from glassgrad import Device, Tensor, dtypes
from glassgrad.show import follow
from glassgrad.target.llvm import cpu_target, render
from glassgrad.uop.ops import Ops

AVX2 = "+avx,+avx2,+fma,+sse2,+sse4.1"
FEATURES = {"avx2": AVX2, "avx512": AVX2 + ",+avx512f", "sse": "+sse2", "neon": "+neon"}


def data(*shape: int) -> Tensor: return Tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")).realize()


def programs(value: Tensor, features: str = AVX2, **facts: int) -> list:
    return [program for _, _, program in follow(value, cpu_target(features, **facts)).kernels]


@pytest.fixture(params=[1, 2, 5], ids=lambda n: f"{n} threads")
def cpu(request):
    device, before = Device["CPU"], Device.DEFAULT
    Device.DEFAULT, target = "CPU", device.target
    device.target = target.with_(threads=request.param)
    yield device
    Device.DEFAULT, device.target = before, target


def conv(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """By the definition, in float64."""
    x = np.pad(x.astype("f8"), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, w.astype("f8"), optimize=True)


# (images, channels in, side, channels out, window, stride, padding): rows that no vector divides, one image and several, far rows
CONVS = [(1, 64, 7, 96, 3, 1, 1), (2, 48, 14, 40, 3, 1, 1), (1, 3, 30, 20, 7, 2, 3), (3, 33, 9, 17, 1, 1, 0), (1, 40, 15, 64, 3, 2, 1),
         (2, 20, 28, 24, 5, 1, 2), (1, 130, 12, 33, 1, 2, 0), (8, 130, 9, 64, 3, 1, 0)]


@pytest.mark.parametrize("n,c,side,out,window,stride,padding", CONVS, ids=str)
def test_convolutions(cpu, n, c, side, out, window, stride, padding):
    x, w = data(n, c, side, side), data(out, c, window, window)
    expected = conv(x.numpy(), w.numpy(), stride, padding)
    np.testing.assert_allclose(x.conv2d(w, stride=stride, padding=padding).numpy(), expected, rtol=1e-4, atol=1e-5 * math.sqrt(c) * window * 4)


@pytest.mark.parametrize("m,k,n", [(97, 300, 131), (256, 256, 256), (33, 1030, 520), (640, 64, 17), (7, 700, 700), (300, 513, 1100)], ids=str)
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_products(cpu, m, k, n, turned):
    a, b = (data(k, m).T if "a" in turned else data(m, k)), (data(n, k).T if "b" in turned else data(k, n))
    np.testing.assert_allclose((a @ b + 1).numpy(), a.numpy().astype("f8") @ b.numpy() + 1, rtol=1e-4, atol=3e-5 * math.sqrt(k))


# few rows beside a matrix that no cache holds, and panels of long sums: rounds that divide the sum and such that do not
@pytest.mark.parametrize("b,m,k,n", [(1, 1, 1024, 512), (1, 3, 1003, 700), (1, 20, 515, 601), (3, 2, 700, 300), (1, 64, 1100, 200)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_sums_in_rounds(cpu, b, m, k, n, dtype):
    rng = np.random.default_rng(0)
    x, y = (Tensor(rng.integers(-8, 9, s).astype("float32")).cast(dtype).realize() for s in ((b, m, k), (b, k, n)))
    product = ((x.matmul(y, dtype="float32") if dtype == "bfloat16" else x @ y) * 2 + 1).relu()
    expected = x.cast("float32").numpy().astype("f8") @ y.cast("float32").numpy() * 2 + 1
    np.testing.assert_array_equal(product.numpy(), np.maximum(expected, 0))


SQUARES = [((64, 64), (1, 0)), ((33, 70), (1, 0)), ((9, 8), (1, 0)), ((5, 3, 40), (0, 2, 1)), ((12, 20, 31), (2, 1, 0)), ((2, 17, 3, 19), (0, 2, 3, 1))]


@pytest.mark.parametrize("shape,order", SQUARES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "bool", "bfloat16"])
def test_transposes(cpu, shape, order, dtype):
    x = data(*shape).cast(dtype).realize()
    np.testing.assert_array_equal((x.permute(order).contiguous() if dtype == "bool" else x.permute(order) * 2).cast("float32").numpy(),
                                  x.cast("float32").numpy().transpose(order) * (1 if dtype == "bool" else 2))


def test_a_transpose_is_turned_in_registers():
    """Squares of 8x8: three shuffles for each vector that is stored, and no element is loaded by itself."""
    program, = programs(Tensor.empty(512, 512).T.contiguous(), threads=1)
    ops = [n.op for n in program.uops]
    assert ops.count(Ops.SHUFFLE) == 3 * ops.count(Ops.STORE) and all(n.dtype.lanes == 8 for n in program.uops if n.op is Ops.LOAD)


def test_operands_are_widened_once():
    x, y = (Tensor.empty(512, 512, dtype="bfloat16") for _ in "xy")
    program, = programs(x @ y, threads=1)
    inner = [n for n in program.uops if n.op is Ops.RANGE and n.arg.kind == "REDUCE"]
    body = program.uops[program.uops.index(inner[0]):]
    assert len(inner) == 1 and not any(n.op is Ops.LOAD and n.dtype.scalar is not dtypes.float32 for n in body)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "uint8", "int16"])
@pytest.mark.parametrize("turned", ["", "a", "b"])
def test_products_of_narrow_types(cpu, dtype, turned):
    rng = np.random.default_rng(1)
    x, y = (Tensor(rng.integers(0 if dtype == "uint8" else -9, 10, s).astype("float32")).cast(dtype).realize() for s in ((150, 150), (150, 150)))
    a, b = (x.T if turned == "a" else x), (y.T if turned == "b" else y)
    wide = "int32" if "int" in dtype else "float32"
    expected = a.cast("float32").numpy().astype("f8") @ b.cast("float32").numpy()
    np.testing.assert_array_equal(a.matmul(b, dtype=wide).numpy(), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_extreme_products_in_pairs(cpu, dtype):
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.random.default_rng(2).choice(np.array([least, most, 0, 1], dtype), (40, 34))
    y = np.random.default_rng(3).choice(np.array([least, most, 0, 1], dtype), (34, 50))
    expected = x.astype("i8") @ y.astype("i8")
    np.testing.assert_array_equal(Tensor(x).matmul(Tensor(y), dtype="int32").numpy(), expected.astype("i4"))
    assert any(n.op is Ops.PAIRMUL for p in programs(Tensor(x).matmul(Tensor(y), dtype="int32")) for n in p.uops)


def test_a_long_sum_reads_few_far_rows_at_once():
    program, = programs(Tensor.empty(1, 2048) @ Tensor.empty(2048, 2048))
    assert [n.src[0].arg for n in program.uops if n.op is Ops.RANGE and n.arg.kind == "REDUCE"] == [8]


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("threads", [1, 8])
def test_every_target_has_a_schedule(features, threads):
    x, w = data(1, 64, 7, 7), data(96, 64, 3, 3)
    value = x.conv2d(w, padding=1).relu() + data(300, 200).T.matmul(data(300, 96)).sum()
    for program in programs(value, FEATURES[features], threads=threads): assert "define" in render(program, cpu_target(FEATURES[features]))


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("make", [lambda: data(512, 512) @ data(512, 512), lambda: data(2, 64, 28, 28).conv2d(data(64, 64, 3, 3))],
                         ids=["product", "convolution"])
def test_every_thread_has_pieces(make, threads):
    assert max(program.grid[0] for program in programs(make(), threads=threads)) >= 2 * threads


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_few_pieces_are_as_many_for_each_thread(threads):
    """43 tiles in 5 pieces would leave one of two threads with 27 of them."""
    program, = programs(data(256, 256) @ data(256, 128), threads=threads, l2_bytes=384 << 10)
    assert program.grid[0] % threads == 0


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_what_is_staged_for_all_is_staged_again_for_each_thread(threads):
    """All of the batch is one tile of lanes, and its padded image is staged outside every loop: pieces stage it anew."""
    x, w, g = data(16, 128, 4, 4), data(128, 128, 3, 3), data(16, 128, 4, 4)
    x.requires_grad = True
    gradient, = (x.conv2d(w, padding=1) * g).sum().gradient(x)
    assert programs(gradient, threads=threads)[-1].grid[0] >= threads


def test_operands_are_copied_once_for_a_block_of_tiles():
    (program,) = programs(data(1024, 1024) @ data(1024, 1024))
    scratch = [n for n in program.uops if n.op is Ops.SCRATCH]
    assert len(scratch) == 1 and 1024 * 16 * 4 < scratch[0].arg.size * 4 <= 512 << 10


def test_few_operands_wait_in_registers():
    """In the innermost loop the second operand is loaded when its turn comes, not before."""
    (program,) = programs(data(256, 256) @ data(256, 256))
    ops = [n.op for n in program.uops]
    first = ops.index(Ops.MULACC)
    assert Ops.LOAD in ops[first:len(ops) - 1 - ops[::-1].index(Ops.MULACC)]


@pytest.mark.parametrize("make", [lambda: data(64, 300)[:, ::3] * 2, lambda: data(64, 64).T + 1, lambda: data(32, 64)[:, ::2].exp()],
                         ids=["every third", "transposed", "every second"])
def test_equal_steps_are_constants(make):
    """No vector of places is computed where the lanes stand in equal steps."""
    for program in programs(make()): assert "x i64>" not in render(program, cpu_target(AVX2))


@pytest.mark.parametrize("rows,streams", [(4096, True), (512, False)])
def test_what_no_cache_holds_is_not_read_before_it_is_written(rows, streams):
    (program,) = programs(data(rows, 1024) + 1, llc_bytes=8 << 20)
    assert ("!nontemporal" in render(program, cpu_target(AVX2))) == streams


@pytest.mark.parametrize("shape,order", [((130, 75), (1, 0)), ((3, 64, 50), (0, 2, 1)), ((40, 33, 70), (2, 1, 0)), ((64, 128), (1, 0))], ids=str)
def test_transposed_values_are_read_by_lines(cpu, shape, order):
    x = data(*shape)
    np.testing.assert_array_equal((x.permute(order) + 1).numpy(), x.numpy().transpose(order) + 1)


def test_every_second_element_is_read_by_vectors():
    x = data(40, 126)
    np.testing.assert_array_equal((x[:, ::2] * 2).numpy(), x.numpy()[:, ::2] * 2)
    (program,) = programs(x[:, ::2] * 2)
    assert "shufflevector" in render(program, cpu_target(AVX2))


def test_small_random_tensors_compile_one_hash():
    few, many = (len(programs(Tensor.rand(n))[0].uops) for n in (9408, 1 << 22))
    assert 2 * few < many


def test_columns_are_stored_in_a_loop():
    (program,) = programs((data(64, 128) @ data(512, 128).T).T.contiguous())[-1:]
    text = render(program, cpu_target(AVX2))
    assert text.count("store float") <= 24 and "alloca <8 x float>" not in text, "no lane is written out, no register is memory"


def test_columns_stay_near_while_output_channels_go_by():
    x, w = Tensor.empty(8, 64, 56, 56), Tensor.empty(64, 64, 1, 1)
    (program,) = programs(x.conv2d(w))
    assert not any(n.op is Ops.SCRATCH for n in program.uops)
    assert program.grid[0] >= 8 * 100, "the columns are the outer loops"
    x, w = data(2, 48, 61, 67), data(50, 48, 1, 1)
    expected = np.einsum("nchw,oc->nohw", x.numpy().astype("f8"), w.numpy()[:, :, 0, 0].astype("f8"))
    np.testing.assert_allclose(x.conv2d(w).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_batch_of_small_products_needs_no_rounds():
    program, = programs(Tensor.empty(36, 1568, 64) @ Tensor.empty(36, 64, 64))
    assert [n.src[0].arg for n in program.uops if n.op is Ops.RANGE and n.arg.kind == "REDUCE"] == [64]


def test_no_panel_is_filled_anew_for_every_few_rows():
    """Rows that are normalised in scratch stand outside: a panel of the weights would be copied for each few of them."""
    x, w = Tensor.empty(128, 768), Tensor.empty(512, 768)
    program, = programs(x.layernorm() @ w.T)
    assert sum(n.op is Ops.SCRATCH for n in program.uops) == 1


@pytest.mark.parametrize("rows, columns, inside", [(128, 768, False), (16, 768, True), (128, 512, True), (1 << 15, 768, True)])
def test_rows_are_stored_where_a_product_would_read_its_weights_again(rows, columns, inside):
    """A product of few rows, of weights that a cache holds, or of more rows than any cache holds finds them in scratch."""
    x, w, v = Tensor.empty(rows, 768), Tensor.empty(columns, 768), Tensor.empty(768, columns)
    assert len(programs(x.layernorm() @ w.T)) == (1 if inside else 2)
    assert len(programs((x @ w.T).gelu() @ v.T)) == (1 if inside else 2)


@pytest.mark.parametrize("columns, is_whole", [(1024, False), (16384, True)])
def test_lines_that_no_cache_holds_are_stored_whole(columns, is_whole):
    """Vectors along the rows need no turned weights, and scatter the product: no loss only where a cache near holds it."""
    program, = programs(Tensor.empty(128, 768) @ Tensor.empty(columns, 768).T)
    places = [n.src[1].dtype.lanes for n in program.uops if n.op is Ops.STORE and n.src[0].op is Ops.PARAM]
    assert set(places) == ({1} if is_whole else {8})

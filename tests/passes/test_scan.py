"""Running reductions: in lanes along the axis, beside it and in a row of scratch, in parts of a long axis: against NumPy."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Context, Device, Tensor, dtypes
from glassgrad.passes.prepare import LONG, split_reductions
from glassgrad.show import follow
from glassgrad.target.llvm import cpu_target
from glassgrad.uop.ops import BufferArg, Ops, ReduceArg
from glassgrad.uop.uop import UOp

SHAPES = ((2,), (8,), (15,), (16,), (17,), (33,), (1000,), (5, 7), (40, 33), (3, 777), (4, 5, 64), (70, 8), (2, 65), (3, 100), (100, 1030), (2, 3, 9000))
LONG_SHAPES = ((LONG,), (LONG + 2,), (3, LONG + 4), (LONG, 2), (2, LONG, 3), (40009,))


def data(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return rng.integers(-3, 4, shape).astype(name) if name != "bool" else rng.random(shape) < 0.1


@pytest.mark.parametrize("name", ("float32", "float64", "int32", "int8", "uint8", "int64", "bool"))
@pytest.mark.parametrize("shape", SHAPES + LONG_SHAPES, ids=str)
def test_sums_and_extremes_along_every_axis(name: str, shape: tuple[int, ...]) -> None:
    x = data(name, shape)
    for axis in range(len(shape)):
        got = Tensor(x).cumsum(axis).numpy()
        np.testing.assert_array_equal(got, np.cumsum(x, axis, dtype=got.dtype))           # small whole numbers: exact in any order
        values, places = Tensor(x).cummax(axis)
        np.testing.assert_array_equal(values.numpy(), np.maximum.accumulate(x, axis))
        np.testing.assert_array_equal(np.take_along_axis(x, places.numpy(), axis), values.numpy())


@pytest.mark.parametrize("shape", ((100,), (6, 200), (200, 6), (90, 300)), ids=str)
def test_products_minima_and_what_is_special(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x = rng.choice(np.array([1, -1, 0.5, 2], "float32"), shape)
    for axis in range(len(shape)): np.testing.assert_allclose(Tensor(x).cumprod(axis).numpy(), np.cumprod(x, axis), rtol=1e-6)
    x[rng.random(shape) < 0.02] = np.nan
    x[rng.random(shape) < 0.02] = np.inf
    for axis in range(len(shape)):
        np.testing.assert_array_equal(Tensor(x).cummin(axis)[0].numpy(), np.minimum.accumulate(x, axis))
        np.testing.assert_array_equal(np.isnan(Tensor(x).cumsum(axis).numpy()), np.isnan(np.cumsum(x, axis)))


@pytest.mark.parametrize("name", ("float16", "bfloat16"))
def test_small_floats_are_summed_in_float32(name: str) -> None:
    x = Tensor(data("float32", (3, 500))).cast(getattr(dtypes, name))
    np.testing.assert_array_equal(x.cumsum(1).float().numpy(), Tensor(np.cumsum(x.float().numpy(), 1)).cast(x.dtype).float().numpy())


@pytest.mark.parametrize("device", ("CPU", "PYTHON", "CL"))
def test_every_device_gives_the_same(device: str) -> None:
    if (absent := Device.reason_absent(device)) is not None: pytest.skip(f"no {device} here: {absent}")
    x = data("float32", (3, 70))
    for axis in (0, 1): np.testing.assert_array_equal(Tensor(x).to(device).cumsum(axis).numpy(), np.cumsum(x, axis))


def test_gradients_of_long_sums_and_the_reference() -> None:
    x = Tensor(data("float32", (LONG,)), requires_grad=True)
    x.cumsum(0)[-3:].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.minimum(np.arange(LONG, 0, -1), 3))
    with Context(CHECK=2): np.testing.assert_array_equal(Tensor(data("float32", (5, 100))).cumsum(0).numpy(), np.cumsum(data("float32", (5, 100)), 0))


def test_a_long_axis_is_scanned_in_parts_and_only_then() -> None:
    def scans(*shape: int) -> list[UOp]:
        x = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(0, int(np.prod(shape)), "CPU")).reshape(shape)
        scan = UOp(Ops.SCAN, x.dtype, (x,), ReduceArg(Ops.ADD, (0,)))
        return [n for n in split_reductions(UOp.sink(scan), cpu_target("+avx2,+fma")).toposort() if n.op is Ops.SCAN]
    small, large = scans(1 << 20)
    assert small.shape == (15,) and large.shape == (1 << 20,) and large.src[1].shape == (16,)
    assert [len(n.src) for n in scans(1 << 10) + scans(1 << 20, 64)] == [1, 1], "it is short, or other axes keep all cores busy"


def test_a_sum_along_memory_waits_for_one_addition_a_vector() -> None:
    program = next(p for _, _, p in follow(Tensor.empty(64, 4096).cumsum(1), cpu_target("+avx2,+fma")).kernels if "scan" in p.name)
    scans = [n for n in program.uops if n.op is Ops.HSCAN]
    assert len(scans) == 2 and all(n.dtype.lanes == 8 for n in scans)
    assert sum(n.op is Ops.SET for n in program.uops) == 1


@pytest.mark.parametrize("shape, axis", [((16,), 0), ((17,), 0), ((3, 300), 1), ((40, 3), 0)])
def test_running_logsumexp_in_blocks(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype("float32") * 30
    x.flat[0] = -np.inf
    want = np.logaddexp.accumulate(x.astype("float64"), axis)
    np.testing.assert_allclose(Tensor(x).logcumsumexp(axis).numpy(), want, rtol=1e-5, atol=1e-5)
    x.flat[-2] = np.inf
    np.testing.assert_array_equal(np.isinf(Tensor(x).logcumsumexp(axis).numpy()), np.isinf(np.logaddexp.accumulate(x, axis)))

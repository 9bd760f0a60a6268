"""Whole graphs through every pass on the devices that have workgroups: CL, and CUDA text on the CPU shim."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine.graphs import array, full, values

from glassgrad.device import cuda
from glassgrad.device.device import Device
from glassgrad.engine.context import Context
from glassgrad.engine.realize import forget_everything
from glassgrad.uop.bits import from_storage, to_storage
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, ReduceArg, ScatterArg, UnfoldArg
from glassgrad.uop.uop import UOp


@pytest.fixture(scope="module", params=["CL", "CUDA on the shim", "CUDA"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.param.split()[0]
    with Context(CACHE="0"), pytest.MonkeyPatch.context() as patch:
        if request.param != name: use_shim(patch)
        elif (reason := Device.reason_absent(name)) is not None: pytest.skip(reason)
        yield name
        forget_everything()


def use_shim(patch: pytest.MonkeyPatch) -> None:
    """Make CUDA a device whose kernels run on the CPU."""
    patch.syspath_prepend(str(Path(__file__).parent / "cuda"))
    from fake_driver import FakeDriver, text_as_code
    from shim import HAS_COMPILER
    if not HAS_COMPILER: pytest.skip("the shim needs g++")
    patch.setattr(cuda, "driver", FakeDriver)
    patch.setattr(cuda, "compile_source", text_as_code)
    patch.setitem(Device._made, "CUDA", cuda.CUDADevice("CUDA"))


def normal(*shape: int, seed: int = 0) -> np.ndarray: return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
def repeat(n: UOp, shape: tuple[int, ...]) -> UOp: return n.reshape((*shape[:-1], 1)).expand(shape)
def matmul(x: UOp, y: UOp) -> UOp:
    (m, k), n = x.shape, y.shape[1]
    return (x.reshape((m, 1, k)).expand((m, n, k)) * y.permute((1, 0)).reshape((1, n, k)).expand((m, n, k))).reduce(Ops.ADD, (2,))


def close(got: UOp, want: np.ndarray, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(values(got), want, rtol=rtol, atol=atol)


@pytest.mark.parametrize("shape", [(7,), (37, 65), (2, 3, 5, 4), (4, 256)])
def test_elementwise(device: str, shape: tuple[int, ...]) -> None:
    x, y = normal(*shape), normal(*shape, seed=1)
    close((array(x, device) + array(y, device) * 2).max(full(shape, 0.0)), np.maximum(x + y * 2, 0))


def test_functions(device: str) -> None:
    x = np.abs(normal(64)) + 0.1
    a = array(x, device)
    for got, want in ((a.exp(), np.exp(x)), (a.log(), np.log(x)), (a.sin(), np.sin(x)), (a.sqrt(), np.sqrt(x)), (a.recip(), 1 / x)):
        close(got, want)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_reductions(device: str, axes: tuple[int, ...]) -> None:
    x = normal(37, 65)
    close(array(x, device).reduce(Ops.ADD, axes), x.sum(axes), 1e-4, 1e-4)
    close(array(x, device).reduce(Ops.MAX, axes), x.max(axes))


def test_long_reduction(device: str) -> None:
    close(array(np.ones((1, 300000), np.float32), device).reduce(Ops.ADD, (1,)), np.array([300000]))


@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (32, 64, 48), (5, 7, 3), (1, 33, 65), (64, 1, 40)])
def test_matmul(device: str, m: int, n: int, k: int) -> None:
    x, y = normal(m, k), normal(k, n, seed=1)
    close(matmul(array(x, device), array(y, device)), x @ y, 1e-4, 1e-4)


def test_softmax(device: str) -> None:
    x = normal(9, 65)
    a = array(x, device)
    e = (a - repeat(a.reduce(Ops.MAX, (1,)), x.shape)).exp()
    w = np.exp(x - x.max(1, keepdims=True))
    close(e / repeat(e.reduce(Ops.ADD, (1,)), x.shape), w / w.sum(1, keepdims=True), 1e-4)


def test_pad_flip_and_windows(device: str) -> None:
    x = normal(5, 12)
    close(array(x, device).pad(((1, 2), (3, 0))).flip((1,)), np.pad(x, ((1, 2), (3, 0)))[:, ::-1])
    a = array(x, device)
    windows = UOp(Ops.UNFOLD, a.dtype, (a,), UnfoldArg(1, 3, 2, 1, 12)).reduce(Ops.MAX, (2,))
    close(windows, np.stack([x[:, i:i + 3].max(1) for i in range(0, 10, 2)], 1))


def test_gather_scatter_scan(device: str) -> None:
    x, i = normal(6, 4), np.array([[5, 0, 2, 2], [1, 1, 3, 0]], np.int32)
    a, at = array(x, device), array(i, device)
    close(UOp(Ops.GATHER, a.dtype, (a, at), 0), np.take_along_axis(x, i, 0))
    want = np.zeros((6, 4), np.float32)
    np.add.at(want, (i, np.arange(4)[None]), x[:2])
    close(UOp(Ops.SCATTER, a.dtype, (full((6, 4), 0.0), at, array(x[:2], device)), ScatterArg(0, Ops.ADD)), want)
    close(UOp(Ops.SCAN, a.dtype, (a,), ReduceArg(Ops.ADD, (0,))), x.cumsum(0), 1e-4)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16, dtypes.fp8e4m3, dtypes.fp8e5m2], ids=lambda d: d.name)
def test_small_floats(device: str, dtype: Any) -> None:
    x, y = (to_storage(dtype, v) for v in (normal(24), normal(24, seed=1)))
    got = values(array(x, device, dtype) * array(y, device, dtype) + array(x, device, dtype), x.dtype.name)
    rounded = to_storage(dtype, from_storage(dtype, x) * from_storage(dtype, y))
    want = to_storage(dtype, from_storage(dtype, rounded) + from_storage(dtype, x))
    np.testing.assert_array_equal(got.view(x.dtype), want)


def test_integers_wrap(device: str) -> None:
    x = np.array([2 ** 31 - 1, -2 ** 31, 7, -7], np.int32)
    a = array(x, device)
    np.testing.assert_array_equal(values(a * 3 + 5), x * np.int32(3) + np.int32(5))
    np.testing.assert_array_equal(values(a // 0), np.zeros(4, np.int32))

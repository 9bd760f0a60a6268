"""Edges: gated reads along the SIMD axis, of short rows and long ones; the masks are bounds on the lane's number."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Tensor
from glassgrad.show import follow
from glassgrad.target.llvm import cpu_target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops


def numbers(*shape: int) -> np.ndarray: return np.random.default_rng(3).standard_normal(shape, np.float32)


@pytest.mark.parametrize("n", [1, 3, 7, 8, 9, 15, 56, 95, 96, 97, 230, 1000])
@pytest.mark.parametrize("ends", [(1, 1), (0, 3), (9, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool", "float64"])
def test_padded_rows(n, ends, dtype):
    x = (numbers(3, 5, n) * 4).astype(dtype)
    y = np.pad(x, ((0, 0), (2, 1), ends))
    np.testing.assert_array_equal(Tensor(x).pad(((0, 0), (2, 1), ends)).numpy(), y)


@pytest.mark.parametrize("n", [7, 33, 61, 200])
def test_bounds_on_either_side_of_an_index(n):
    x, i = numbers(4, n), np.arange(n)
    t, at = Tensor(x), Tensor.arange(n)
    for got, want in (((at < 5), i < 5), ((at >= 5), i >= 5), ((n - 3 > at), n - 3 > i), ((n - at <= 6), n - i <= 6), ((2 * at < n), 2 * i < n)):
        np.testing.assert_array_equal(got.where(t, 0).numpy(), np.where(want, x, 0))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 6])
def test_windows_that_reach_over_the_edge(stride, groups):
    x, w = numbers(2, 6, 13, 29), numbers(12, 6 // groups, 3, 5)
    padded = np.pad(x.astype("f8"), ((0, 0), (0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 5), (2, 3))[:, :, ::stride, ::stride]
    parts = [np.einsum("nchwij,ocij->nohw", v, k.astype("f8")) for v, k in zip(np.split(windows, groups, 1), np.split(w, groups, 0))]
    got = Tensor(x).conv2d(Tensor(w), groups=groups, stride=stride, padding=2).numpy()
    np.testing.assert_allclose(got, np.concatenate(parts, 1), rtol=1e-4, atol=1e-5)


def test_a_short_padded_row_has_constant_masks():
    (_, _, program), *_ = follow(Tensor.empty(8, 64, 56, 56).pad(((0, 0), (0, 0), (1, 1), (1, 1))), cpu_target("+avx,+avx2,+fma")).kernels
    vectors = [n for n in program.uops if n.op.name in ("CMPLT", "CMPLE") and n.src[0].dtype.lanes > 1]
    assert 1 <= len(vectors) <= 2
    assert all(n.src[0].dtype.scalar is dtypes.int32 for n in vectors)


def test_what_no_padded_axis_moves_is_read_without_a_gate():
    """A channel's scale before padding: read once for the channel, and not lane by lane under the image's mask."""
    x, scale = numbers(2, 6, 14, 14), numbers(6)
    padded = (Tensor(x) * Tensor(scale).reshape(6, 1, 1) + 1).pad(((0, 0), (0, 0), (1, 1), (1, 1)))
    (_, _, program), *_ = follow(padded, cpu_target("+avx,+avx2,+fma")).kernels
    assert all(n.src[0].arg.size == x.size for n in program.uops if n.op is Ops.LOAD and len(n.src) > 2)
    want = np.pad(x * scale.reshape(6, 1, 1) + 1, ((0, 0), (0, 0), (1, 1), (1, 1)))
    np.testing.assert_allclose(padded.numpy(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("h", "n"), [(1, 17), (5, 24), (6, 28), (9, 61), (3, 96), (4, 97), (3, 230)])
@pytest.mark.parametrize("pad", [(1, 1), (2, 0), (0, 2), (9, 1)])
def test_each_window_of_a_padded_image(h, n, pad):
    x, w, (rows, ends) = numbers(2, 3, h, n), numbers(3, 1, 3, 3), (2, pad)
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), ends))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    t = Tensor(x).pad(((0, 0), (0, 0), (rows, rows), ends))
    np.testing.assert_allclose(t.conv2d(Tensor(w), groups=3).numpy(), np.einsum("nchwij,cij->nchw", windows, w[:, 0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(t.avg_pool2d(3, 1).numpy(), windows.mean((-2, -1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(t.max_pool2d(3, 1).numpy(), windows.max((-2, -1)))


@pytest.mark.parametrize("dtype", ["int8", "int64", "float16", "float64", "bool"])
def test_windows_of_other_types(dtype):
    x = (numbers(3, 4, 40) * 4).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
    np.testing.assert_array_equal(Tensor(x).pad(((0, 0), (1, 1), (1, 1))).max_pool2d(3, 1).numpy(), windows.max((-2, -1)))


def test_rows_far_beyond_the_zeros():
    x = numbers(3, 5, 3000)
    for before, after in ((0, 1), (2, 2)):
        np.testing.assert_array_equal(Tensor(x).pad(((0, 0), (before, after), (0, 0))).numpy(), np.pad(x, ((0, 0), (before, after), (0, 0))))
    np.testing.assert_array_equal(Tensor(x).permute(0, 2, 1).pad(((1, 1), (0, 0), (0, 0))).numpy(), np.pad(x.transpose(0, 2, 1), ((1, 1), (0, 0), (0, 0))))


def test_a_depthwise_convolution_reads_its_image_in_place():
    image, weights = Tensor.empty(8, 128, 56, 56), Tensor.empty(128, 1, 3, 3)
    (_, _, program), = follow(image.conv2d(weights, padding=1, groups=128), cpu_target("+avx,+avx2,+fma")).kernels
    assert not any(n.op is Ops.SCRATCH for n in program.uops)
    loads = [n for n in program.uops if n.op is Ops.LOAD and n.dtype.lanes > 1]
    masked = [n for n in loads if n.src[2].op is Ops.AND]
    assert len(loads) >= 21 and len(masked) * 10 <= len(loads)

"""CUDA text, run on the CPU by the shim in both orders of the threads, without undefined behaviour."""
from __future__ import annotations

import math

import numpy as np
import pytest
from linear_cases import Case, cases, compare, fresh, normal
from shim import HAS_COMPILER, SHIM_TARGET, run_on_shim, to_arrays

from glassgrad.target.c import render
from glassgrad.target.program import Param, Program
from glassgrad.uop.dtype import dtypes, to_dtype

pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="needs g++")

HALVES = [c for c in cases() if "float16" in c.name]


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_case(case: Case) -> None:
    for reverse in (False, True) if math.prod(case.program.local) > 1 else (False,):
        arrays = fresh(case)
        vals = dict(enumerate(case.vals, len(arrays)))
        run_on_shim(case.program, to_arrays(case.program, arrays), vals, reverse=reverse, sanitize=True)
        compare(case, arrays)


@pytest.mark.parametrize("case", HALVES, ids=lambda c: c.name)
def test_float16_without_headers(case: Case) -> None:
    target = SHIM_TARGET.with_(dtypes=SHIM_TARGET.dtypes - {dtypes.float16, dtypes.bfloat16})
    assert "cuda_fp16" not in render(case.program, target)
    arrays = fresh(case)
    run_on_shim(case.program, to_arrays(case.program, arrays), target=target, sanitize=True)
    compare(case, arrays)


# ---- what the shim is for: mistakes it shows ---------------------------------------------------------------------------------------
def kernel(text: str, grid: tuple[int, int, int], local: tuple[int, int, int], *arrays: np.ndarray, reverse: bool = False) -> None:
    """Run hand-written CUDA text named `f` over arrays."""
    params = tuple(Param(i, "buffer", a.size, to_dtype(a.dtype.name)) for i, a in enumerate(arrays))
    p = Program("f", (), params, grid, local)
    run_on_shim(p, dict(enumerate(arrays)), source=text, reverse=reverse)


def test_missing_barrier_shows_in_reverse() -> None:
    text = """extern "C" __global__ void f(int* out) {
      __shared__ int s[64];
      s[threadIdx.x] = threadIdx.x;
      out[threadIdx.x] = s[(threadIdx.x + 1) % 64];
    }"""
    a, b = np.zeros(64, np.int32), np.zeros(64, np.int32)
    kernel(text, (1, 1, 1), (64, 1, 1), a)
    kernel(text, (1, 1, 1), (64, 1, 1), b, reverse=True)
    assert (a != b).any()
    fixed = text.replace("out[", "__syncthreads(); out[")
    for reverse in (False, True):
        kernel(fixed, (1, 1, 1), (64, 1, 1), a, reverse=reverse)
        np.testing.assert_array_equal(a, (np.arange(64) + 1) % 64)


def test_barrier_that_never_opens() -> None:
    text = """extern "C" __global__ void f(int* out) { if (threadIdx.x % 2) __syncwarp(); else __syncthreads(); out[0] = 1; }"""
    with pytest.raises(RuntimeError, match="wait at a barrier that others never reach"):
        kernel(text, (1, 1, 1), (64, 1, 1), np.zeros(1, np.int32))


def test_write_outside_of_a_buffer() -> None:
    text = """extern "C" __global__ void f(int* out) { out[threadIdx.x] = 1; }"""
    with pytest.raises(RuntimeError, match="wrote outside of buffer 0"): kernel(text, (1, 1, 1), (9, 1, 1), np.zeros(8, np.int32))


def test_shuffles() -> None:
    text = """extern "C" __global__ void f(float* out, const float* x) {
      float v = x[blockIdx.x * 64 + threadIdx.x];
      for (int k = 16; k; k /= 2) v += __shfl_xor_sync(0xffffffff, v, k);
      __shared__ float warps[2];
      if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
      __syncthreads();
      if (threadIdx.x < 32) {
        float w = threadIdx.x < 2 ? warps[threadIdx.x] : 0;
        w += __shfl_down_sync(0xffffffff, w, 1);
        if (threadIdx.x == 0) out[blockIdx.x] = w;
      }
    }"""
    x, out = normal(3, 64), np.zeros(3, np.float32)
    for reverse in (False, True):
        kernel(text, (3, 1, 1), (64, 1, 1), out, x, reverse=reverse)
        np.testing.assert_allclose(out, x.sum(1), rtol=1e-5)


def test_threads_in_three_dimensions() -> None:
    text = """extern "C" __global__ void f(int* out) {
      int b = blockIdx.x + 2 * (blockIdx.y + 3 * blockIdx.z), t = threadIdx.x + 4 * (threadIdx.y + 2 * threadIdx.z);
      out[b * 24 + t] = b * 100 + t;
    }"""
    out = np.zeros(12 * 24, np.int32)
    kernel(text, (2, 3, 2), (4, 2, 3), out)
    np.testing.assert_array_equal(out, (np.arange(12)[:, None] * 100 + np.arange(24)).ravel())


def test_text_that_does_not_compile() -> None:
    with pytest.raises(RuntimeError, match=r"g\+\+ refused the text of f[\s\S]*nothing"):
        kernel('extern "C" __global__ void f() { nothing; }', (1, 1, 1), (1, 1, 1))

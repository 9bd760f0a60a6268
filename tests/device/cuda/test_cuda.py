"""The CUDA device: its compiler, and its use of the driver over a fake one; on a GPU, the cases themselves."""
from __future__ import annotations

import math
import shutil

import linear_programs as lp
import numpy as np
import pytest
from fake_driver import FakeDriver, text_as_code
from linear_cases import Case, cases, compare, fresh, normal
from shim import HAS_COMPILER

from glassgrad.device import cuda
from glassgrad.device.device import Device, Launch, Slot
from glassgrad.target.c import render
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DeviceError

HAS_NVRTC = cuda.nvrtc() is not None
needs_compiler = pytest.mark.skipif(not HAS_NVRTC and not shutil.which("nvcc"), reason="neither NVRTC nor nvcc is here")
needs_gxx = pytest.mark.skipif(not HAS_COMPILER, reason="the fake driver runs kernels by g++, which is not here")
absent = Device.reason_absent("CUDA")


def run(dev: cuda.CUDADevice, case: Case) -> list[np.ndarray]:
    arrays, p = fresh(case), case.program
    prog = dev.load(p.name, dev.compile(p, dev.render(p)))
    handles = [dev.alloc(a.nbytes) for a in arrays]
    for h, a in zip(handles, arrays, strict=True): dev.copyin(h, memoryview(a).cast("B"))
    dev.launch(prog, handles, case.vals, p.grid, p.local)
    for h, a in zip(handles, arrays, strict=True): dev.copyout(memoryview(a).cast("B"), h)
    for h, a in zip(handles, arrays, strict=True): dev.free(h, a.nbytes)
    return arrays


# ---- on a GPU --------------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(absent is not None, reason=f"no GPU here: {absent}")
@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_case(case: Case) -> None:
    compare(case, run(Device["CUDA"], case))


# ---- the compiler ----------------------------------------------------------------------------------------------------------------
@needs_compiler
@pytest.mark.parametrize("arch", [80, 90])
def test_all_cases_compile(arch: int) -> None:
    target = cuda.cuda_target(arch)
    text = [render(c.program, target) for c in cases() if arch == 90 or c.program.name in ("vadd", "tiled_matmul")]
    for source in dict.fromkeys(text): assert cuda.compile_source(source, arch)[:4] == b"\x7fELF"


@needs_compiler
def test_vectors_are_vector_loads() -> None:
    if not HAS_NVRTC: pytest.skip("PTX is asked of NVRTC only")
    lib, cuda_archs = cuda.nvrtc(), cuda._nvrtc_archs(cuda.nvrtc())
    ptx = cuda._nvrtc_compile(lib, render(lp.vector_add(16), cuda.cuda_target(90)), str(max(cuda_archs) + 5), []).decode()
    assert ptx.count("ld.global") == 2 and "v4.f32" in ptx
    assert "fma." not in ptx and "add.rn.f32" in ptx            # x * 2 + y is rounded twice


@needs_compiler
def test_compiler_says_what_is_wrong() -> None:
    with pytest.raises(DeviceError, match=r"refused the source for sm_90[\s\S]*nothing[\s\S]*not_c"):
        cuda.compile_source('extern "C" __global__ void not_c() { nothing; }', 90)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "nvrtc", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match="pip install nvidia-cuda-nvrtc"): cuda.compile_source("", 90)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_nvcc_instead_of_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "nvrtc", lambda: None)
    assert cuda.compile_source(render(lp.vadd(16), cuda.cuda_target(90)), 90)[:4] == b"\x7fELF"


def test_target() -> None:
    target = cuda.cuda_target(90, threads=132)
    assert target.threads == 132 and target.has_grid
    assert (dtypes.float16 in target.dtypes) == (cuda.header_folder() is not None)
    assert dtypes.bfloat16 not in cuda.cuda_target(75).dtypes


@pytest.mark.skipif(absent is None, reason="there is a GPU")
def test_no_driver() -> None:
    with pytest.raises(DeviceError, match=r"libcuda|this machine has 0 GPUs|driver"): Device["CUDA"]


# ---- the driver, a fake one ------------------------------------------------------------------------------------------------------
@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> cuda.CUDADevice:
    monkeypatch.setattr(cuda, "driver", FakeDriver)
    monkeypatch.setattr(cuda, "compile_source", text_as_code)
    return cuda.CUDADevice("CUDA")


@needs_gxx
@pytest.mark.parametrize("case", [c for c in cases() if math.prod(c.program.local) > 1 or c.vals], ids=lambda c: c.name)
def test_launch(fake: cuda.CUDADevice, case: Case) -> None:
    compare(case, run(fake, case))


@needs_gxx
def test_graph_takes_new_handles_and_values(fake: cuda.CUDADevice) -> None:
    add, total = lp.vadd(16), lp.symbolic_sum(16)
    progs = [fake.load(p.name, fake.compile(p, fake.render(p))) for p in (add, total)]
    x, y = normal(3, 16), normal(16, seed=1)
    hx, hy, between, out = fake.alloc(x.nbytes), fake.alloc(64), fake.alloc(64), fake.alloc(4)
    fake.copyin(hx, memoryview(x).cast("B"))
    fake.copyin(hy, memoryview(y).cast("B"))
    replay = fake.graph([Launch(progs[0], [between, Slot(0, 64), hy], (), add.grid, add.local),
                         Launch(progs[1], [out, between], [Slot(0)], total.grid, total.local)])
    for i, n in ((0, 16), (1, 16), (1, 5), (1, 5)):
        replay.run([hx + 64 * i], [n])
        got = np.zeros(1, np.float32)
        fake.copyout(memoryview(got).cast("B"), out)
        np.testing.assert_allclose(got[0], (x[i + 1] + y)[:n].sum(), rtol=1e-5)
    calls = fake.lib.calls
    assert calls.count("cuGraphLaunch") == 4 and calls.count("cuGraphInstantiateWithFlags") == 1
    assert calls.count("cuGraphExecKernelNodeSetParams_v2") == 2 and "cuLaunchKernel" not in calls


@needs_gxx
def test_graph_with_a_grid_that_changes(fake: cuda.CUDADevice) -> None:
    p = lp.vadd(16, local=1)
    prog = fake.load(p.name, fake.compile(p, fake.render(p)))
    x, out = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    hx, ho = fake.alloc(64), fake.alloc(64)
    fake.copyin(hx, memoryview(x).cast("B"))
    replay = fake.graph([Launch(prog, [ho, hx, hx], (), (Slot(0), 1, 1), (1, 1, 1))])
    for n in (4, 0, 16):
        fake.copyin(ho, memoryview(np.zeros(16, np.float32)).cast("B"))
        replay.run([], [n])
        fake.copyout(memoryview(out).cast("B"), ho)
        np.testing.assert_array_equal(out, np.where(np.arange(16) < n, 2 * x, 0))


def test_errors(fake: cuda.CUDADevice) -> None:
    with pytest.raises(DeviceError, match="out of memory"): fake.alloc(1 << 40)
    with pytest.raises(DeviceError, match=r"nope: kernel of that name\n  CUDA error 500: what the driver says"): fake.load("nope", b"text")
    with pytest.raises(DeviceError, match="this machine has 1 GPUs"): cuda.CUDADevice("CUDA:3")


def test_nothing_to_copy(fake: cuda.CUDADevice) -> None:
    handle = fake.alloc(0)
    fake.copyin(handle, memoryview(b""))
    fake.copyout(memoryview(bytearray()), handle)
    fake.free(handle, 0)

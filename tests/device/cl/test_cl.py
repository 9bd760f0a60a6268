"""The CL device on whatever OpenCL driver is here (PoCL in our own tests)."""
from __future__ import annotations

from collections.abc import Iterator

import linear_programs as lp
import numpy as np
import pytest
from linear_cases import Case, cases, compare, fresh, normal

from glassgrad.device import cl
from glassgrad.device.device import Device, Launch, Slot
from glassgrad.uop.errors import DeviceError

absent = Device.reason_absent("CL")
here = pytest.mark.skipif(absent is not None, reason=f"no OpenCL here: {absent}")


def run(dev: cl.CLDevice, case: Case) -> list[np.ndarray]:
    arrays, p = fresh(case), case.program
    prog = dev.load(p.name, dev.compile(p, dev.render(p)))
    handles = [dev.alloc(a.nbytes) for a in arrays]
    for h, a in zip(handles, arrays, strict=True): dev.copyin(h, memoryview(a).cast("B"))
    dev.launch(prog, handles, case.vals, p.grid, p.local)
    for h, a in zip(handles, arrays, strict=True): dev.copyout(memoryview(a).cast("B"), h)
    for h, a in zip(handles, arrays, strict=True): dev.free(h, a.nbytes)
    return arrays


@here
@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_case(case: Case) -> None:
    compare(case, run(Device["CL"], case))


@pytest.fixture(params=["addresses", "cl_mem"])
def dev(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[cl.CLDevice]:
    """A device of its own, with shared virtual memory and as if there were none."""
    dev = cl.CLDevice("CL")
    if request.param == "cl_mem": dev.has_addresses = False
    elif not dev.has_addresses: pytest.skip("this OpenCL device has no shared virtual memory")
    yield dev
    dev.memory.trim()


SOME = [c for c in cases() if c.name in ("vadd", "tiled matmul", "symbolic length", "gates of vectors")]


@here
@pytest.mark.parametrize("case", SOME, ids=lambda c: c.name)
def test_both_kinds_of_memory(dev: cl.CLDevice, case: Case) -> None:
    compare(case, run(dev, case))


@here
def test_views(dev: cl.CLDevice) -> None:
    x, out = normal(512), np.zeros(16, np.float32)
    p = lp.vadd(16)
    prog, hx, ho = dev.load(p.name, dev.compile(p, dev.render(p))), dev.alloc(x.nbytes), dev.alloc(out.nbytes)
    dev.copyin(hx, memoryview(x).cast("B"))
    replay = dev.graph([Launch(prog, [ho, Slot(0, 1024), hx], (), p.grid, p.local)])
    replay.run([hx])
    dev.copyout(memoryview(out).cast("B"), ho)
    np.testing.assert_array_equal(out, x[256:272] + x[:16])
    dev.copyout(memoryview(out).cast("B"), dev.offset(hx, 256))
    np.testing.assert_array_equal(out, x[64:80])
    dev.free(hx, x.nbytes)
    if not dev.has_addresses:
        with pytest.raises(DeviceError, match=r"from byte 4 on \(this device wants multiples of \d+\)"): dev.offset(ho, 4)


@here
def test_nothing_to_do(dev: cl.CLDevice) -> None:
    handle = dev.alloc(0)
    dev.copyin(handle, memoryview(b""))
    dev.copyout(memoryview(bytearray()), handle)
    p = lp.vadd(16)
    dev.launch(dev.load(p.name, dev.compile(p, dev.render(p))), [handle] * 3, (), (0, 1, 1), p.local)
    dev.free(handle, 0)
    dev.synchronize()


@here
def test_read_only_host_memory(dev: cl.CLDevice) -> None:
    handle, back = dev.alloc(5), bytearray(5)
    dev.copyin(handle, memoryview(b"hello"))
    dev.copyout(memoryview(back), handle)
    assert bytes(back) == b"hello"


# ---- binaries --------------------------------------------------------------------------------------------------------------------
@here
def test_a_binary_the_driver_refuses() -> None:
    dev, case = Device["CL"], SOME[0]
    p = case.program
    source, blob = cl.unpack(p.name, dev.compile(p, dev.render(p)))
    assert source.decode() == dev.render(p) and blob
    foreign = cl.pack(source, b"not a binary of this driver")
    assert dev._from_binary(b"not a binary of this driver") is None
    assert dev.load(p.name, foreign).name == p.name
    assert dev.load(p.name, cl.pack(source, b"")).name == p.name


WHOLE = cl.pack(b"source", b"binary")


@pytest.mark.parametrize("torn", [WHOLE[:-1], WHOLE + b"x", b"", WHOLE[5:]], ids=["cut", "longer", "empty", "no head"])
def test_torn_bytes(torn: bytes) -> None:
    assert cl.unpack("f", WHOLE) == [b"source", b"binary"]
    with pytest.raises(DeviceError, match="no compiled CL program"): cl.unpack("f", torn)


@here
def test_source_that_does_not_compile() -> None:
    with pytest.raises(DeviceError, match=r"CL: the compiler refused vadd[\s\S]*nothing"):
        Device["CL"].compile(lp.vadd(16), "__kernel void vadd() { nothing; }")


@here
def test_too_many_threads() -> None:
    dev, p = Device["CL"], lp.vadd(16)
    prog, h = dev.load(p.name, dev.compile(p, dev.render(p))), dev.alloc(64)
    with pytest.raises(DeviceError, match=r"launch of \(1, 1, 1\) workgroups of \(100000, 1, 1\) threads on CL"):
        dev.launch(prog, [h, h, h], (), (1, 1, 1), (100000, 1, 1))


# ---- drivers ---------------------------------------------------------------------------------------------------------------------
def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl, "LIBRARIES", ("libnothing.so.1", "libnothing.so"))
    with pytest.raises(DeviceError, match="apt-get install pocl-opencl-icd ocl-icd-libopencl1"): cl.cl.__wrapped__()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        @staticmethod
        def clGetPlatformIDs(n: int, platforms: object, count: object) -> int: return -1001
    monkeypatch.setattr(cl, "cl", lambda: Loader)
    with pytest.raises(DeviceError, match=r"no driver has a device\n  try: apt-get install pocl-opencl-icd"): cl.devices.__wrapped__()


@here
def test_number_too_high() -> None:
    with pytest.raises(DeviceError, match=r"CL:99: there are \d+ OpenCL devices\n  try: CL to CL:"): Device["CL:99"]


@here
def test_target() -> None:
    t = Device["CL"].target
    assert t.name == "CL" and t.has_grid and t.lanes == 1 and t.max_local > 1 and t.shared_bytes > 1024 and t.features

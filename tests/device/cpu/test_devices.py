"""The registry, buffers, the allocator, and the devices that only hold data."""
import gc

import numpy as np
import pytest
from linear_programs import Linear

from glassgrad.device import npy
from glassgrad.device.buffer import Buffer
from glassgrad.device.device import CachingAllocator, Device, DeviceBase, Launch, Replay, Slot
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DeviceError, UsageError


def test_names():
    assert Device.canonicalize("cpu") == Device.canonicalize("CPU:0") == "CPU" and Device["cpu"] is Device["CPU"]
    assert Device["NULL:1"] is not Device["NULL:2"] and Device["null:1"] is Device["NULL:1"]
    assert Device.canonicalize("disk:/A/b:c") == "DISK:/A/b:c"
    with pytest.raises(DeviceError, match=r"no device named 'TPU'\n  try: one of CPU"): Device["TPU"]
    with pytest.raises(DeviceError, match="number"): Device["CPU:fast"]
    with pytest.raises(DeviceError, match="no file"): Device["DISK"]
    assert "CPU" in Device.available()


def test_buffer_is_lazy_and_given_back():
    memory = Device["CPU"].memory
    gc.collect()
    before = memory.used
    b = Buffer("CPU", 1000, dtypes.float32)
    assert not b.is_allocated and memory.used == before
    at = b.handle
    assert at % 64 == 0 and memory.used == before + 4032
    x = np.random.default_rng(0).random(1000, "f")
    b.copyin(x)
    assert (np.asarray(b.copyout(np.zeros(1000, "f"))) == x).all()
    del b
    assert memory.used == before
    assert Buffer("CPU", 1000, dtypes.float32).handle == at


def test_memoryview_keeps_the_buffer_alive():
    b = Buffer("CPU", 4, dtypes.int32).copyin(np.arange(4, dtype="i4"))
    view = np.frombuffer(b.as_memoryview(), "i4")
    at = b.handle
    del b
    gc.collect()
    other = Buffer("CPU", 4, dtypes.int32).copyin(np.full(4, 9, "i4"))
    assert view.tolist() == [0, 1, 2, 3] and other.handle != at
    view[:] = 7
    assert view.tolist() == [7] * 4


def test_views_share_memory():
    b = Buffer("CPU", 16, dtypes.int32).copyin(np.arange(16, dtype="i4"))
    v = b.view(4, dtypes.int32, 8).view(2, dtypes.int32, 4)
    assert v.base is b and np.frombuffer(v.as_memoryview(), "i4").tolist() == [3, 4]
    with pytest.raises(UsageError, match="does not fit"): b.view(16, dtypes.int32, 4)


def test_readonly_and_wrong_sources():
    b = Buffer("CPU", 4, dtypes.uint8).copyin(b"abcd")
    assert bytes(b.as_memoryview()) == b"abcd"
    with pytest.raises(UsageError, match="3 bytes"): b.copyin(b"abc")
    with pytest.raises(UsageError, match="contiguous"): b.copyin(np.zeros((4, 2), "u1")[:, 0])
    assert Buffer("CPU", 0, dtypes.uint8).copyin(b"").as_memoryview().nbytes == 0


def test_allocator_reuses_and_is_bounded():
    freed, made = [], iter(range(1, 100))
    a = CachingAllocator("TEST", lambda n: next(made), lambda h, n: freed.append((h, n)), limit=256)
    x, y = a.alloc(100), a.alloc(128)
    assert a.used == 256
    a.free(x, 100)
    assert a.alloc(65) == x and a.used == 256
    a.free(x, 65), a.free(y, 128)
    assert a.cached == 256 and not freed
    z = a.alloc(10)
    a.free(z, 10)
    assert freed == [(y, 128)] and a.cached == 192 and a.peak == 256
    a.trim()
    assert a.cached == 0 and len(freed) == 3


def test_out_of_memory_gives_cached_memory_back_first():
    free = [2]
    def alloc(n):
        if not free[0]: raise MemoryError
        free[0] -= 1
        return n
    a = CachingAllocator("TEST", alloc, lambda h, n: free.__setitem__(0, free[0] + 1), limit=1 << 20)
    a.free(a.alloc(64), 64)
    x = a.alloc(128), a.alloc(192)
    with pytest.raises(DeviceError, match="TEST: out of memory: asked for 64 bytes, 320 bytes are in use"): a.alloc(64)
    assert x and a.used == 320
    with pytest.raises(DeviceError, match="CPU: out of memory"): Device["CPU"].alloc(1 << 60)


def test_huge_buffers_start_at_a_huge_page():
    b = Buffer("CPU", 1 << 20, dtypes.float32)
    assert b.handle % (2 << 20) == 0


def test_npy_wraps_without_copy():
    x = np.arange(6, dtype="i4").reshape(2, 3)
    b = npy.wrap(x, dtypes.int32)
    x[0, 0] = 5
    assert b.size == 6 and Buffer("CPU", 6, dtypes.int32).copy_from(b).as_memoryview().cast("i").tolist() == [5, 1, 2, 3, 4, 5]
    with pytest.raises(DeviceError, match="only be read"): b.copyin(np.zeros(6, "i4"))
    with pytest.raises(UsageError, match="contiguous"): npy.wrap(x.T, dtypes.int32)
    with pytest.raises(DeviceError, match="runs no programs"): Device["NPY"].load("x", b"")


def test_disk_reads_and_writes(tmp_path):
    name = f"DISK:{tmp_path}/x.bin"
    x = np.arange(1000, dtype="i4")
    Buffer(name, 1000, dtypes.int32).copyin(x)
    assert np.fromfile(tmp_path / "x.bin", "i4").tolist() == x.tolist() and Device[name].file_bytes == 4000
    b = Buffer(name, 1000, dtypes.int32)
    part = b.view(3, dtypes.int32, 40)
    assert Buffer("CPU", 3, dtypes.int32).copy_from(part).as_memoryview().cast("i").tolist() == [10, 11, 12]
    part.copy_from(Buffer("CPU", 3, dtypes.int32).copyin(np.array([7, 8, 9], "i4")))
    assert np.fromfile(tmp_path / "x.bin", "i4")[9:14].tolist() == [9, 7, 8, 9, 13]
    with pytest.raises(DeviceError, match="No such file"): _ = Device[f"DISK:{tmp_path}/none"].file_bytes
    with pytest.raises(DeviceError, match="cannot map"): _ = Buffer(f"DISK:{tmp_path}/no/folder", 4, dtypes.int32).handle


def test_null_holds_nothing():
    b = Buffer("NULL", 1 << 40, dtypes.float32).allocate()
    assert b.copyin is not None and Device["NULL"].memory.cached >= 0
    del b
    c = Buffer("NULL:1", 2, dtypes.float32).copyin(np.ones(2, "f"))
    assert c.copyout(np.ones(2, "f")).tolist() == [0, 0]


def test_python_device_runs_a_program():
    k = Linear("scale", dtypes.int64)
    out, x, by = k.buffer(dtypes.float32, 8), k.buffer(dtypes.float32, 4), k.value(dtypes.int64)
    g = k.group(0, 4)
    k.store(out, k.put(g + 4), k.put(k.load(x, g) * by.cast(dtypes.float32)))
    program, dev = k.program(), Device["PYTHON"]
    prog = dev.load("scale", dev.compile(program, dev.render(program)))
    a, b = Buffer("PYTHON", 8, dtypes.float32).copyin(np.zeros(8, "f")), Buffer("PYTHON", 8, dtypes.float32).copyin(np.arange(8, dtype="f"))
    dev.launch(prog, [a.handle, b.view(4, dtypes.float32, 8).handle], [3], (4, 1, 1))
    assert Buffer("CPU", 8, dtypes.float32).copy_from(a).as_memoryview().cast("f").tolist() == [0, 0, 0, 0, 6, 9, 12, 15]
    view = a.as_memoryview()
    del a
    assert Buffer("PYTHON", 8, dtypes.float32).handle is not view.obj and view.cast("f")[7] == 15


def test_replay_of_any_device():
    calls = []
    class Fake(DeviceBase):
        def launch(self, prog, bufs, vals=(), grid=(1, 1, 1), local=(1, 1, 1)): calls.append((prog, bufs, vals, grid, local))
    Replay(Fake("FAKE"), [Launch("a", [5, Slot(1, 3)], [Slot(0, 2), 8], (Slot(1), 2, 1), (4, 1, 1))]).run([10, 20], [30, 40])
    assert calls == [("a", [5, 23], [32, 8], (40, 2, 1), (4, 1, 1))]

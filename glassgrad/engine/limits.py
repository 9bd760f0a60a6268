"""Limits: how fast a device can compute and move memory at best, measured once a machine by a few small programs and kept on disk.

What a kernel must at least take follows from them, and with the cycles that the cost model counted (passes/cost.py) what it should take.
Beside the measured time (DEBUG=2, VIZ) the one shows which kernels are worth a look, the other where the model is wrong.
"""
from __future__ import annotations

import functools
import time
from typing import NamedTuple

from glassgrad.device.device import Device, DeviceBase, Launch, Slot
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.lazy import Lazy
from glassgrad.uop.ops import BufferArg, Ops
from glassgrad.uop.uop import UOp

flow = Lazy("glassgrad.flow")

# independent multiply-adds on each element: as many as the units have in flight; enough to hide its load and store
CHAINS, LENGTH = 8, 8
COMPUTE_SIZE = 1 << 17       # elements; in and out they fit a last-level cache
COPY_BYTES = 64 << 20        # at least, and two last-level caches, in and out each
ROW = 1 << 12                # elements that are read for one result
MEASURE_S = 0.05


class Limits(NamedTuple):
    """float32 operations a second with all threads; bytes a second copied in memory (both ways), read from it, copied in the last-level
    cache; seconds that a launch takes."""
    flops: float
    bandwidth: float
    read_bandwidth: float
    cache_bandwidth: float
    launch_s: float

    def least_seconds(self, flops: float, nbytes: float) -> float:
        """What work of this size takes at best: computing and moving overlap."""
        return max(flops / self.flops, nbytes / self.bandwidth)

    def predict(self, cycles: float, read: float, written: float, grid: int, target: Target) -> float:
        """The seconds that a kernel should take which moves so many bytes and for which the cost model counted `cycles` of one core, two
        vector multiply-adds in each."""
        threads, total = min(max(grid, 1), target.threads), read + written
        computing = cycles * 4 * target.lanes / (self.flops * threads / target.threads)
        if total > target.llc_bytes // 2: moving = max(total / self.bandwidth, read / self.read_bandwidth)
        else: moving = total / self.cache_bandwidth if total > target.l2_bytes else 0.0
        return self.launch_s + max(computing, moving)


@functools.cache
def limits_of(device: DeviceBase) -> Limits | None:
    """The limits of a device; None for one that only imitates hardware or holds data."""
    if not device.is_hardware or not device.target.ops: return None
    found = Device.keep(f"limits {device.target.key}", lambda: " ".join(map(repr, _measure(device))).encode())
    return Limits(*map(float, found.split()))


def _measure(device: DeviceBase) -> Limits:
    sizes = COMPUTE_SIZE, max(COPY_BYTES, 2 * device.target.llc_bytes) // 4, max(device.target.llc_bytes // 32, 1 << 16), 1
    x, *copied = (UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(0, n, device.name)) for n in sizes)
    chains = [x + i for i in range(CHAINS)]
    for i in range(LENGTH): chains = [c * (0.5 + i / 64) + 0.25 for c in chains]      # different numbers: nothing can be factored out
    flops = (2 * CHAINS * LENGTH + 2 * CHAINS - 1) * COMPUTE_SIZE
    far, near, launch = (_fastest(device, -y, n) for y, n in zip(copied, sizes[1:]))
    rows = copied[0].reshape((sizes[1] // ROW, ROW)).reduce(Ops.MAX, (1,))
    return Limits(flops / _fastest(device, sum(chains[1:], chains[0]), COMPUTE_SIZE), 8 * sizes[1] / far, 4 * sizes[1] / _fastest(device, rows, sizes[1]),
                  8 * sizes[2] / near, launch)


def _fastest(device: DeviceBase, value: UOp, size: int) -> float:
    """Seconds of the kernel that computes `value`, of `size` float32, from a buffer of as many; the best of several runs."""
    call, = flow.schedule(UOp.sink(value), device.target)
    program = flow.lower(call.ast, device.target, call.name)
    prog = device.load(program.name, device.compile(program, device.render(program)))
    replay = device.graph([Launch(prog, tuple(map(Slot, call.bufs)), (), program.grid, program.local)])
    handles, best = [device.alloc(4 * size) for _ in range(2)], float("inf")
    device.copyin(handles[0], memoryview(bytes(4 * size)))
    replay.run(handles)                                                   # touches the memory for the first time
    device.synchronize()
    until = time.perf_counter() + MEASURE_S
    while (start := time.perf_counter()) < until:
        replay.run(handles)
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    for handle in handles: device.free(handle, 4 * size)
    return max(best, 1e-9)

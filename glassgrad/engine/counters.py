"""Counters: what this process has run, and how much memory it holds."""
from __future__ import annotations

from glassgrad.device.device import Device


class _Memory(type):
    """The counters that are asked of the devices."""
    @property
    def mem_used(cls) -> int:
        """Bytes of live buffers on all devices."""
        return sum(device.memory.used for device in Device.opened())
    @property
    def mem_peak(cls) -> int:
        """The most bytes that were in use, per device, added up."""
        return sum(device.memory.peak for device in Device.opened())


class GlobalCounters(metaclass=_Memory):
    """Totals since the last `reset()`: kernels launched, arithmetic operations, bytes moved, seconds (only when kernels are timed).

    `mem_used` and `mem_peak` are no totals: reset only forgets the peak.
    """
    kernel_count = 0
    global_ops = 0
    global_mem = 0
    time_sum_s = 0.0
    schedule_count = 0    # graphs that no plan cache knew
    compile_count = 0     # programs that no compile cache knew
    cache_hits = 0        # plans found on disk

    @staticmethod
    def reset() -> None:
        """All totals to zero."""
        c = GlobalCounters
        c.kernel_count = c.global_ops = c.global_mem = c.schedule_count = c.compile_count = c.cache_hits = 0
        c.time_sum_s = 0.0
        for device in Device.opened(): device.memory.peak = device.memory.used

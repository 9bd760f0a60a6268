"""Counters: what this process has run, and how much memory it holds."""
from __future__ import annotations

from glassgrad.device.device import Device


class Counters:
    """Totals since the last `reset()`: kernels launched, arithmetic operations, bytes moved, seconds (only when kernels are timed)."""
    __slots__ = ("cache_hits", "compile_count", "global_mem", "global_ops", "kernel_count", "schedule_count", "time_sum_s")

    def __init__(self) -> None:
        self.kernel_count = self.global_ops = self.global_mem = 0
        self.time_sum_s = 0.0
        self.schedule_count = 0    # graphs that no plan cache knew
        self.compile_count = 0     # programs that no compile cache knew
        self.cache_hits = 0        # plans found on disk

    def __repr__(self) -> str:
        return f"GlobalCounters({', '.join(f'{n}={getattr(self, n)}' for n in (*self.__slots__, 'mem_used'))})"

    @property
    def mem_used(self) -> int:
        """Bytes of live buffers on all devices."""
        return sum(device.memory.used for device in Device.opened())
    @property
    def mem_peak(self) -> int:
        """The most bytes that were in use since the last reset, per device, added up."""
        return sum(device.memory.peak for device in Device.opened())

    def reset(self) -> None:
        """All totals to zero, and the peak to what is in use."""
        self.__init__()  # type: ignore[misc]
        for device in Device.opened(): device.memory.peak = device.memory.used


GlobalCounters = Counters()

"""Counters: what this process has run, and how much memory it holds."""
from __future__ import annotations


class GlobalCounters:
    """Totals since the last `reset()`: kernels launched, arithmetic operations, bytes moved, seconds (only when kernels are timed).

    `mem_used` counts the bytes of live buffers and is no total: reset leaves it.
    """
    kernel_count = 0
    global_ops = 0
    global_mem = 0
    time_sum_s = 0.0
    mem_used = 0
    mem_peak = 0
    schedule_count = 0    # graphs that no plan cache knew
    compile_count = 0     # programs that no compile cache knew
    cache_hits = 0        # plans found on disk

    @staticmethod
    def reset() -> None:
        """All totals to zero."""
        c = GlobalCounters
        c.kernel_count = c.global_ops = c.global_mem = c.schedule_count = c.compile_count = c.cache_hits = 0
        c.time_sum_s, c.mem_peak = 0.0, c.mem_used

    @staticmethod
    def allocated(nbytes: int) -> None:
        """A buffer got memory (or, with a negative number, gave it back)."""
        c = GlobalCounters
        c.mem_used += nbytes
        if c.mem_used > c.mem_peak: c.mem_peak = c.mem_used

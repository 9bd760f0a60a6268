"""The machine's limits: kernels of vector FMAs and of vector loads, in LLVM IR, run on as many threads as asked.

python bench/limits.py 2        # GFLOP/s and GB/s of two threads
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

CHAINS = 12  # independent FMAs in flight: two units of 4 to 5 cycles need 8 to 10
FMA_TURNS = 2_000_000  # about 10 ms
ARRAY_BYTES = 192 << 20  # beyond any last-level cache but the largest


class Limits:
    """Measures on some threads: `fma()` GFLOP/s of float32, `read()` and `copy()` GB/s of memory (both ways)."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm
        import numpy as np

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        lanes = 16 if features.get("avx512f") else 8 if features.get("avx") else 4
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3
        )
        self.lanes, self.module = lanes, llvm.parse_assembly(kernels(lanes))
        self.engine = llvm.create_mcjit_compiler(self.module, machine)
        self.engine.finalize_object()
        make = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self.fn = {name: make(self.engine.get_function_address(name)) for name in ("fma", "read")}
        self.source, self.target = np.ones(ARRAY_BYTES // 4, np.float32), np.zeros(ARRAY_BYTES // 4, np.float32)
        self.out = np.zeros(64 * 1024, np.float32)

    def fma(self, threads: int) -> float:
        """GFLOP/s."""

        def work(i: int) -> None:
            self.fn["fma"](FMA_TURNS, None, self._out(i))

        return threads * FMA_TURNS * CHAINS * self.lanes * 2 / together(work, threads) / 1e9

    def read(self, threads: int) -> float:
        """GB/s."""
        turns = ARRAY_BYTES // threads // (CHAINS * self.lanes * 4)

        def work(i: int) -> None:
            self.fn["read"](turns, self._part(self.source, i, threads), self._out(i))

        return threads * turns * CHAINS * self.lanes * 4 / together(work, threads) / 1e9

    def copy(self, threads: int) -> float:
        """GB/s, read and written."""
        size = ARRAY_BYTES // threads

        def work(i: int) -> None:
            ctypes.memmove(self._part(self.target, i, threads), self._part(self.source, i, threads), size)

        return threads * size * 2 / together(work, threads) / 1e9

    def _out(self, i: int) -> int:
        return self.out.ctypes.data + i * 4096

    def _part(self, x: Any, i: int, threads: int) -> int:
        return x.ctypes.data + ARRAY_BYTES // threads // 64 * 64 * i


def together(work: Callable[[int], None], threads: int) -> float:
    """Seconds until all of work(0) ... work(threads - 1), started at once on threads of their own, are done."""
    if threads == 1:
        start = time.perf_counter()
        work(0)
        return time.perf_counter() - start
    gate = threading.Barrier(threads)
    starts: list[float] = []
    ends: list[float] = []

    def run(i: int) -> None:
        gate.wait()
        starts.append(time.perf_counter())
        work(i)
        ends.append(time.perf_counter())

    team = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for t in team:
        t.start()
    for t in team:
        t.join()
    return max(ends) - min(starts)


def kernels(lanes: int) -> str:
    """LLVM IR of two loops: `fma` repeats CHAINS vector FMAs in registers, `read` adds up CHAINS vectors a turn."""
    v, zero = f"<{lanes} x float>", "zeroinitializer"

    def loop(name: str, body: list[str], carried: str) -> str:
        phis = [f"  %a{i} = phi {v} [ {zero}, %entry ], [ %{carried}{i}, %loop ]" for i in range(CHAINS)]
        total = [
            f"  %t{i} = fadd {v} %{'t' + str(i - 1) if i > 1 else carried + '0'}, %{carried}{i}"
            for i in range(1, CHAINS)
        ]
        return "\n".join(
            [
                f"define void @{name}(i64 %n, ptr %src, ptr %out) #0 {{",
                "entry:",
                "  br label %loop",
                "loop:",
                "  %k = phi i64 [ 0, %entry ], [ %k1, %loop ]",
                *phis,
                *body,
                "  %k1 = add i64 %k, 1",
                "  %more = icmp slt i64 %k1, %n",
                "  br i1 %more, label %loop, label %end",
                "end:",
                *total,
                f"  store {v} %t{CHAINS - 1}, ptr %out, align 4",
                "  ret void",
                "}",
            ]
        )

    half = "splat (float 0.5)"
    fma = [f"  %b{i} = call {v} @llvm.fma.v{lanes}f32({v} %a{i}, {v} {half}, {v} {half})" for i in range(CHAINS)]
    read = [f"  %base = mul i64 %k, {CHAINS * lanes}"]
    for i in range(CHAINS):
        read += [
            f"  %i{i} = add i64 %base, {i * lanes}",
            f"  %p{i} = getelementptr float, ptr %src, i64 %i{i}",
            f"  %x{i} = load {v}, ptr %p{i}, align 4",
            f"  %b{i} = fadd {v} %a{i}, %x{i}",
        ]
    return "\n".join(
        [
            f"declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})",
            loop("fma", fma, "b"),
            loop("read", read, "b"),
            'attributes #0 = { nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512" }',
        ]
    )


if __name__ == "__main__":
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
    limits = Limits()
    for name in ("fma", "read", "copy"):
        print(name, " ".join(f"{getattr(limits, name)(threads):.1f}" for _ in range(7)))

"""Check: every kernel against the reference device (CHECK=2). The same kernel is lowered for PYTHON and run on copies of its inputs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from glassgrad.device.buffer import Buffer
from glassgrad.device.device import Device
from glassgrad.uop.bits import from_storage, storage_name
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.lazy import Lazy
from glassgrad.uop.ops import np
from glassgrad.uop.uop import UOp

flow = Lazy("glassgrad.flow")

MAX_FLOPS = 1 << 24             # the reference device is an interpreter: larger kernels are left out
ULPS = 64                       # of the largest magnitude in the output: sums are taken in another order


def begin(row: Any, bufs: Sequence[Buffer], vals: Sequence[int]) -> Callable[[], None] | None:
    """Copy what a kernel will read; what comes back compares what it wrote. None if the kernel is too large or its graph is not known."""
    ast: UOp | None = row.ast
    if ast is None: return None
    reference = Device["PYTHON"]
    program = flow.lower(ast, reference.target)
    if program.flops > MAX_FLOPS: return None
    copies = [Buffer("PYTHON", b.size, b.dtype).copy_from(b) for b in bufs]

    def compare() -> None:
        binary = reference.compile(program, getattr(program, "source", ""))
        reference.launch(reference.load(program.name, binary), [c.handle for c in copies], vals, program.grid, program.local)
        for i in program.outs: _compare(row.name, i, bufs[i], copies[i])
    return compare


def _compare(name: str, slot: int, found: Buffer, wanted: Buffer) -> None:
    dtype = found.dtype
    x, y = (from_storage(dtype, np.frombuffer(b.as_memoryview(), storage_name(dtype))) for b in (found, wanted))
    if not dtype.is_float: bad = x != y
    else:
        x, y = x.astype("float64"), y.astype("float64")
        finite = y[np.isfinite(y)]
        scale = float(np.abs(finite).max()) if finite.size else 0.0
        bad = ~((np.isnan(x) & np.isnan(y)) | (x == y) | (np.abs(x - y) <= scale * ULPS * 2.0 ** -dtype.mantissa))
    if not bad.any(): return
    k = int(np.flatnonzero(bad)[0])
    raise CompilerBug(f"CHECK: kernel {name} on {found.device} differs from the reference device in {int(bad.sum())} of {x.size} elements\n"
                      f"  argument {slot} ({dtype.name}), element {k}: found {x[k]}, wanted {y[k]}")

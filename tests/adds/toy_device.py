"""A device in less than 100 lines: plain Python scalars, one instruction after the other. It knows twenty ops and no small float; memory is bytes.

What it lacks (exp, max, float16, …) the compiler writes in what it has. `Device.register("TOY", ToyDevice)` is all that is to be done.
"""
from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from glassgrad.device.device import DeviceBase
from glassgrad.target.program import Program
from glassgrad.target.python import dump, parse, render
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

OPS = frozenset((Ops.ADD, Ops.SUB, Ops.MUL, Ops.FDIV, Ops.NEG, Ops.CDIV, Ops.CMOD, Ops.SQRT, Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR,
                 Ops.CMPLT, Ops.CMPLE, Ops.CMPEQ, Ops.CMPNE, Ops.WHERE, Ops.CAST, Ops.BITCAST))
CODES = dict(zip((d.name for d in (dtypes.bool, *dtypes.ints, dtypes.float32, dtypes.float64)), "?bBhHiIqQfd", strict=True))


def cast(x: Any, d: DType) -> Any:
    """Floats go toward zero and stay within bounds, NaN becomes 0; the rest is what `const` does."""
    if d.is_int and isinstance(x, float): x = 0 if x != x else int(min(max(x, d.min), d.max)) if math.isinf(x) else min(max(int(x), d.min), d.max)
    return d.const(x)


class ToyDevice(DeviceBase):
    """Handles are memoryviews; a binary is the list of instructions."""
    target = Target("TOY", OPS, frozenset(getattr(dtypes, name) for name in CODES))

    def _alloc(self, nbytes: int) -> memoryview: return memoryview(bytearray(nbytes))
    def offset(self, handle: memoryview, nbytes: int) -> memoryview: return handle[nbytes:]
    def copyin(self, handle: memoryview, src: memoryview) -> None: handle[:src.nbytes] = src
    def copyout(self, dst: memoryview, handle: memoryview) -> None: dst[:] = handle[:dst.nbytes]
    def render(self, program: Program) -> str: return render(program, self.target)
    def compile(self, program: Program, source: str) -> bytes: return dump(program)
    def load(self, program_name: str, binary: bytes) -> Program: return parse(binary)
    def launch(self, prog: Program, bufs: Sequence[memoryview], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        for chunk in range(grid[0]): Run(prog, [*bufs, *vals], chunk).run()


class Run:
    """One chunk of a program: the value of every instruction so far."""

    def __init__(self, program: Program, arguments: list[Any], chunk: int) -> None:
        self.uops, self.arguments, self.chunk = list(program.uops), arguments, chunk
        self.values: dict[UOp, Any] = {}
        self.begin: dict[UOp, int] = {}

    def run(self) -> None:
        at = 0
        while at < len(self.uops):
            n = self.uops[at]
            if n.op is Ops.RANGE:
                self.begin[n] = at
                self.values[n] = 0
                if self[n.src[0]] <= 0:
                    while not (self.uops[at].op is Ops.END and n in self.uops[at].src): at += 1
            elif n.op is Ops.END:
                loop = n.src[-1]
                self.values[loop] += 1
                if self.values[loop] < self[loop.src[0]]: at = self.begin[loop]
            else: self.values[n] = (STEPS.get(n.op) or alu)(self, n)
            at += 1

    def __getitem__(self, n: UOp) -> Any: return self.values[n]

    def place(self, n: UOp, d: DType, gate: int) -> tuple[str, Any, int] | None:
        """(code, memory, byte) of an access to elements of d; None if its gate is closed."""
        if len(n.src) > gate and not self[n.src[gate]]: return None
        return CODES[d.name], self[n.src[0]], self[n.src[1]] * d.itemsize

    def load(self, n: UOp) -> Any:
        at = self.place(n, n.dtype, 2)
        return n.dtype.const(0) if at is None else struct.unpack_from(*at)[0]
    def store(self, n: UOp) -> None:
        at = self.place(n, n.src[2].dtype, 3)
        if at is not None: struct.pack_into(*at, self[n.src[2]])
    def set(self, n: UOp) -> None: self.values[n.src[0]] = self[n.src[1]]


def alu(run: Run, n: UOp) -> Any:
    """Arithmetic is what the op table says it is, in the dtype of the node."""
    xs = [run[s] for s in n.src]
    if n.op is Ops.CAST: return cast(xs[0], n.dtype)
    if n.op is Ops.BITCAST: return struct.unpack(CODES[n.dtype.name], struct.pack(CODES[n.src[0].dtype.name], xs[0]))[0]
    return n.dtype.const(n.op.py(*xs))


STEPS: dict[Any, Callable[[Run, UOp], Any]] = {
    Ops.PARAM: lambda run, n: run.arguments[n.arg.slot], Ops.CONST: lambda run, n: n.arg, Ops.SPECIAL: lambda run, n: run.chunk, Ops.LOAD: Run.load,
    Ops.SCRATCH: lambda run, n: bytearray(n.arg.size * n.dtype.itemsize), Ops.AFTER: lambda run, n: run[n.src[0]], Ops.STORE: Run.store,
    Ops.ACC: lambda run, n: run[n.src[0]], Ops.GET: lambda run, n: run[n.src[0]], Ops.SET: Run.set}

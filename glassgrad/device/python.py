"""PYTHON: the reference device. What a program means, run by the interpreter; memory is plain bytes of the host."""
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from glassgrad.device.device import DeviceBase
from glassgrad.device.interp import Interpreter
from glassgrad.target.program import Program
from glassgrad.target.python import dump, parse, python_target, render
from glassgrad.target.target import Target
from glassgrad.uop.ops import np


class PythonDevice(DeviceBase):
    """Handles are memoryviews of bytes; a binary is the LINEAR form itself."""
    is_host, is_hardware = True, False

    @property
    def target(self) -> Target: return python_target()         # grows when the user adds ops and dtypes
    def _alloc(self, nbytes: int) -> memoryview: return memoryview(bytearray(nbytes))
    def offset(self, handle: memoryview, nbytes: int) -> memoryview: return handle[nbytes:]
    def copyin(self, handle: memoryview, src: memoryview) -> None: handle[:src.nbytes] = src
    def copyout(self, dst: memoryview, handle: memoryview) -> None: dst[:] = handle[:dst.nbytes]
    def as_memoryview(self, handle: memoryview, nbytes: int, owner: Any = None) -> memoryview:
        if not nbytes: return memoryview(bytearray())
        array = (ctypes.c_uint8 * nbytes).from_buffer(handle)      # unlike a memoryview it can carry what must stay alive
        array.owner = owner  # type: ignore[attr-defined]
        return memoryview(array).cast("B")

    def render(self, program: Program) -> str: return render(program, self.target)
    def compile(self, program: Program, source: str) -> bytes: return dump(program)
    def load(self, program_name: str, binary: bytes) -> Interpreter: return Interpreter(parse(binary))
    def launch(self, prog: Interpreter, bufs: Sequence[memoryview], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        if 0 not in grid: prog.run([np.frombuffer(b, "uint8") for b in bufs], [0] * len(bufs) + list(vals), grid, local)


DEVICE = PythonDevice

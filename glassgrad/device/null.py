"""NULL: a device that compiles and runs nothing and holds no memory, for schedules and compile times without hardware."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassgrad.device.device import DeviceBase
from glassgrad.target.llvm import cpu_target, render
from glassgrad.target.program import Program


class NullDevice(DeviceBase):
    """Renders for a fixed AVX2 machine, so that what it shows does not depend on the host."""
    is_hardware = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.target = cpu_target("+sse2,+sse4.1,+avx,+avx2,+fma,+f16c", threads=4)

    def _alloc(self, nbytes: int) -> int: return 64
    def copyin(self, handle: int, src: memoryview) -> None: pass
    def copyout(self, dst: memoryview, handle: int) -> None: dst[:] = bytes(len(dst))
    def render(self, program: Program) -> str: return render(program, self.target)
    def compile(self, program: Program, source: str) -> bytes: return b""
    def load(self, program_name: str, binary: bytes) -> str: return program_name
    def launch(self, prog: Any, bufs: Sequence[int], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None: pass


DEVICE = NullDevice

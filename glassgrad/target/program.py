"""Program: one kernel in the LINEAR form, ready for a renderer or the interpreter.

`uops` stand in execution order, every source before its use. The CPU's calling convention is
`void NAME(ptr bufs, ptr vals, i64 begin, i64 end)`: gidx0 runs from begin to end-1, `bufs` and `vals` are both indexed by slot.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from glassgrad.uop.dtype import DType
from glassgrad.uop.uop import UOp


class Param(NamedTuple):
    """An argument of a kernel: `kind` is "buffer" (`size` elements of `dtype`) or "value" (one scalar handed over at launch)."""
    slot: int
    kind: str
    size: int
    dtype: DType


@dataclass(frozen=True, eq=False)
class Program:
    """A kernel as a device gets it.

    `outs` and `ins` are the slots written and read; `reuses` has the pairs of them (written, read) that may be the same memory.
    `grid` counts workgroups (on a CPU grid[0] is the number of gidx0 values), `local` the threads in one; `cycles` is what the cost
    model expects of one core, 0 where it was not asked.
    """
    name: str
    uops: Sequence[UOp]
    params: Sequence[Param]
    grid: tuple[int, int, int] = (1, 1, 1)
    local: tuple[int, int, int] = (1, 1, 1)
    outs: tuple[int, ...] = ()
    ins: tuple[int, ...] = ()
    flops: int = 0
    bytes: int = 0
    reuses: tuple[tuple[int, int], ...] = ()
    cycles: float = 0.0

    def is_alone(self, slot: int) -> bool:
        """Whether no other slot is ever the same memory."""
        return not any(slot in pair for pair in self.reuses)

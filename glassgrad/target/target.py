"""Target: what the compiler knows of a machine. Passes ask it for facts, never for its name.

Whatever is missing from `ops` and `dtypes` is decomposed before the renderer sees it.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op


@dataclass(frozen=True)
class Target:
    """The facts of one machine. Sizes are in bytes; `lanes` and `registers` describe its float32 SIMD unit.

    `ops` and `dtypes` are computed natively, `storage_dtypes` can at least be loaded and stored as their bits.
    `features` is a text that tells machines of one name apart; it is part of every cache key.
    """
    name: str                                    # the renderer's: "CPU", "CUDA", "CL", "PYTHON", …
    ops: frozenset[Op]
    dtypes: frozenset[DType]
    storage_dtypes: frozenset[DType] = frozenset()
    lanes: int = 1                               # 1: one scalar per thread (GPUs) or per step (the interpreter)
    registers: int = 16
    has_grid: bool = False                       # workgroups of threads that share memory and meet at barriers
    max_local: int = 1                           # threads in one workgroup
    shared_bytes: int = 0
    threads: int = 1                             # that work at once: cores of a CPU
    index_dtype: DType = dtypes.int64
    fma: bool = False
    in_step: bool = False                        # all threads take the same turns of every loop: the interpreter
    wino: bool = True                            # whether convolutions may be transformed, at a loss of a few bits
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    llc_bytes: int = 8 << 20
    features: str = ""

    def with_(self, **facts: Any) -> Target:
        """The same target with some facts changed."""
        return replace(self, **facts)

    def is_native(self, op: Op, dtype: DType) -> bool:
        """Whether the renderer writes `op` on `dtype` itself."""
        return op in self.ops and dtype.scalar in self.dtypes

    @cached_property
    def key(self) -> str:
        """A text that is equal for equal targets in any process: for cache keys on disk."""
        sets = (sorted(o.name for o in self.ops), sorted(d.name for d in self.dtypes), sorted(d.name for d in self.storage_dtypes))
        facts = (self.name, self.lanes, self.registers, self.has_grid, self.max_local, self.shared_bytes, self.threads,
                 self.index_dtype.name, self.fma, self.in_step, self.wino, self.l1_bytes, self.l2_bytes, self.llc_bytes, self.features)
        return repr((facts, sets))

    @cached_property
    def _hash(self) -> int: return hash(self.key)
    def __hash__(self) -> int: return self._hash
    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Target) and self._hash == other._hash and self.key == other.key)

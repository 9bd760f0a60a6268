"""Sort: the SORT of one row spelled out as a bottom-up merge sort in scratch.

in:      a SORT instruction: (output, input, place of the row's first element, step between elements, count)
out:     loops over log2(count) passes, the pairs of runs of a pass, and the merge of a pair; stable, NaN after all numbers
source:  natural merge of von Neumann; Knuth, TAOCP vol. 3, 5.2.4, without the branches
"""
from __future__ import annotations

from collections.abc import Callable

from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Ops, RangeArg, ScratchArg
from glassgrad.uop.uop import UOp

FIRST_ID = 1000  # of the loops, accumulators and scratch made here: beyond any that a kernel has


def emit(put: Callable[[UOp], UOp], n: UOp, src: tuple[UOp, ...]) -> UOp:
    """Append the instructions of SORT `n` with its sources' instances; returns the last one."""
    out, x, first, step, count = src
    return _Sort(put, first.dtype).row(out, x, first, step, count.arg, n.arg.descending)


class _Sort:
    def __init__(self, put: Callable[[UOp], UOp], index: DType) -> None:
        self.put, self.index, self.ids = put, index, FIRST_ID

    def p(self, n: UOp) -> UOp:
        """Append `n` after its sources."""
        for s in n.toposort(): self.put(s)
        return n

    def const(self, x: int) -> UOp: return self.p(UOp.const(self.index, x))
    def loop(self, count: UOp) -> UOp:
        self.ids += 1
        return self.p(UOp(Ops.RANGE, self.index, (self.p(count),), RangeArg(self.ids, "LOOP")))
    def close(self, r: UOp) -> UOp: return self.put(UOp(Ops.END, dtypes.void, (r,)))
    def store(self, buf: UOp, at: UOp, value: UOp) -> UOp: return self.p(UOp(Ops.STORE, dtypes.void, (buf, at, value)))
    def scratch(self, dtype: DType, size: int) -> UOp:
        self.ids += 1
        return self.p(UOp(Ops.SCRATCH, dtype, (), ScratchArg(self.ids, size, "private")))
    def register(self, init: UOp) -> UOp:
        self.ids += 1
        return self.p(UOp(Ops.ACC, self.index, (init,), self.ids))

    def row(self, out: UOp, x: UOp, first: UOp, step: UOp, count: int, descending: bool) -> UOp:
        keys, places = self.scratch(x.dtype, 2 * count), self.scratch(dtypes.int32, 2 * count)
        i = self.loop(self.const(count))
        self.store(keys, i, UOp(Ops.LOAD, x.dtype, (x, first + i * step)))
        self.store(places, i, i.cast(dtypes.int32))
        self.close(i)
        passes = max(count - 1, 0).bit_length()
        if passes: self.merges(keys, places, count, passes, descending)
        i = self.loop(self.const(count))
        self.store(out, first + i * step, UOp(Ops.LOAD, dtypes.int32, (places, i + (passes & 1) * count)))
        return self.close(i)

    def merges(self, keys: UOp, places: UOp, count: int, passes: int, descending: bool) -> None:
        """Every pass merges pairs of sorted runs of 2**p elements from one half of the scratch into the other."""
        p = self.loop(self.const(passes))
        width = self.p(UOp.const(self.index, 1) << p)
        src = self.p((p & 1) * count)
        dst = self.p(src * -1 + count)
        pair = self.loop((width * 2 + (count - 1)) >> (p + 1))
        lo = self.p(pair * (width * 2))
        mid, hi = (self.p((end < count).where(end, count)) for end in (lo + width, lo + width * 2))
        left, right = self.register(lo), self.register(mid)
        t = self.loop(hi - lo)
        a, b = (self.p(UOp(Ops.GET, self.index, (r, t))) for r in (left, right))
        has_a, has_b = self.p(a < mid), self.p(b < hi)
        x, y = (self.p(UOp(Ops.LOAD, keys.dtype, (keys, src + i, ok))) for i, ok in ((a, has_a), (b, has_b)))
        take_a = self.p(has_a & (has_b & self.before(y, x, descending)).not_())
        at = self.p(dst + lo + t)
        self.store(keys, at, take_a.where(x, y))
        i, j = (self.p(UOp(Ops.LOAD, places.dtype, (places, src + i, ok))) for i, ok in ((a, has_a), (b, has_b)))
        self.store(places, at, take_a.where(i, j))
        for r, old, step in ((left, a, take_a), (right, b, take_a.not_())):
            self.p(UOp(Ops.SET, dtypes.void, (r, old + step.cast(self.index))))
        for r in (t, pair, p): self.close(r)

    def before(self, y: UOp, x: UOp, descending: bool) -> UOp:
        """Whether y must stand strictly before x."""
        if descending: x, y = y, x
        less = y < x
        if not x.dtype.is_float: return less
        return less | (x.ne(x) & y.eq(y))

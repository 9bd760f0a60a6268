"""Sort: the SORT of one row of integer keys spelled out as loops.

in:      a SORT instruction: (output, keys, place of the row's first element, count)
out:     a short row: each key's rank is the number of keys before it, counted in SIMD lanes; a long one: a radix sort by bytes, the lowest
         first. Both stable and without branches; the int32 places are stored where they belong
source:  Knuth, TAOCP vol. 3: 5.2, comparison counting, and 5.2.5, radix sorting
"""
from __future__ import annotations

from collections.abc import Callable

from glassgrad.target.target import Target
from glassgrad.uop.bits import bits_dtype
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Ops, RangeArg, ScratchArg
from glassgrad.uop.uop import UOp

FIRST_ID = 1000         # of the loops, accumulators and scratch made here: beyond any that a kernel has
# elements of a row for each SIMD lane up to which counting is quicker: 256 float32 with AVX2 take 14 ns each either way
SHORT_PER_LANE = 32
RADIX = 256             # values of a digit


def emit(put: Callable[[UOp], UOp], n: UOp, src: tuple[UOp, ...], target: Target) -> UOp:
    """Append the instructions of SORT `n` with its sources' instances; returns the last one."""
    out, x, first, count = src
    row = _Row(put, out, x, first, count.arg)
    return row.rank(target.lanes) if count.arg <= SHORT_PER_LANE * target.lanes else row.radix()


class _Row:
    def __init__(self, put: Callable[[UOp], UOp], out: UOp, x: UOp, first: UOp, count: int) -> None:
        self.put, self.out, self.x, self.first, self.count, self.ids = put, out, x, first, count, FIRST_ID
        self.index = first.dtype

    def p(self, n: UOp) -> UOp:
        """Append `n` after its sources."""
        for s in n.toposort(): self.put(s)
        return n

    def const(self, x: int) -> UOp: return UOp.const(self.index, x)
    def loop(self, count: UOp | int) -> UOp:
        self.ids += 1
        return self.p(UOp(Ops.RANGE, self.index, (count if isinstance(count, UOp) else self.const(count),), RangeArg(self.ids, "LOOP")))
    def close(self, r: UOp) -> UOp: return self.put(UOp(Ops.END, dtypes.void, (r,)))
    def load(self, buf: UOp, at: UOp, lanes: int = 1) -> UOp: return self.p(UOp(Ops.LOAD, buf.dtype.vec(lanes), (buf, at)))
    def store(self, buf: UOp, at: UOp, value: UOp) -> UOp: return self.p(UOp(Ops.STORE, dtypes.void, (buf, at, value)))
    def scratch(self, dtype: DType, size: int) -> UOp:
        self.ids += 1
        return self.p(UOp(Ops.SCRATCH, dtype, (), ScratchArg(self.ids, size, "private")))
    def register(self, init: UOp) -> UOp:
        self.ids += 1
        return self.p(UOp(Ops.ACC, init.dtype, (init,), self.ids))
    def get(self, acc: UOp, after: UOp) -> UOp: return self.p(UOp(Ops.GET, acc.dtype, (acc, after)))
    def set(self, acc: UOp, value: UOp) -> UOp: return self.p(UOp(Ops.SET, dtypes.void, (acc, value)))

    # ---- short rows ----------------------------------------------------------------------------------------------------------------
    def rank(self, lanes: int) -> UOp:
        """For a vector of keys at a time: the keys that are less, and of the equal ones those before it. The last vector overlaps."""
        lanes = min(lanes, 1 << (self.count.bit_length() - 1))
        b = self.loop(-(-self.count // lanes))
        start = b * lanes
        if self.count % lanes: start = (start < self.count - lanes).where(start, self.count - lanes)
        start = self.p(start)
        mine = self.load(self.x, self.first + start, lanes)
        rank = self.register(UOp.const(dtypes.int32.vec(lanes), 0))
        lane = UOp(Ops.LANES, dtypes.int32.vec(lanes), ()) if lanes > 1 else UOp.const(dtypes.int32, 0)
        j = self.loop(start)
        self.count_one(rank, j, self.key(j, lanes).alu(Ops.CMPLE, mine))
        self.close(j)
        if lanes > 1:
            j = self.loop(lanes)
            key = self.key(start + j, lanes)
            earlier = splat(j.cast(dtypes.int32), lanes).alu(Ops.CMPLT, lane)
            self.count_one(rank, j, (earlier & key.alu(Ops.CMPLE, mine)) | key.alu(Ops.CMPLT, mine))
            self.close(j)
        j = self.loop(start * -1 + (self.count - lanes))
        self.count_one(rank, j, self.key(start + lanes + j, lanes).alu(Ops.CMPLT, mine))
        end = self.close(j)
        places = self.get(rank, end).cast(self.index.vec(lanes))
        self.store(self.out, splat(self.first, lanes) + places, splat(start.cast(dtypes.int32), lanes) + lane)
        return self.close(b)

    def key(self, at: UOp, lanes: int) -> UOp: return splat(self.load(self.x, self.first + at), lanes)
    def count_one(self, rank: UOp, j: UOp, hit: UOp) -> UOp: return self.set(rank, self.get(rank, j) + hit.cast(rank.dtype))

    # ---- long rows -----------------------------------------------------------------------------------------------------------------
    def radix(self) -> UOp:
        """A digit's places are counted once for all passes; a pass moves each element to the next free place of its digit. Keys of up to
        32 bits move with their places in one word. The first pass reads the row, the last one writes the places."""
        digits, is_packed = self.x.dtype.bits // 8, self.x.dtype.bits <= 32
        free = self.scratch(dtypes.int32, digits * RADIX)
        i = self.loop(digits * RADIX)
        self.store(free, i, UOp.const(dtypes.int32, 0))
        self.close(i)
        i = self.loop(self.count)
        key = self.unsigned(i)
        for d in range(digits): self.take(free, key, d)
        self.close(i)
        self.sum_up(free, digits)
        halves = [[self.scratch(dtypes.uint64, self.count), *(() if is_packed else (self.scratch(dtypes.int32, self.count),))]
                  for _ in range(min(digits - 1, 2))]
        end = self.out
        for d in range(digits):
            i = self.loop(self.count)
            if d: record = [self.load(half, i) for half in halves[(d - 1) & 1]]
            else:
                key, place = self.unsigned(i), i.cast(dtypes.int32)
                record = [key.cast(dtypes.uint64) << 32 | place.cast(dtypes.uint64)] if is_packed else [key, place]
            at = self.take(free, record[0], d + (4 if is_packed else 0), d).cast(self.index)
            if d < digits - 1:
                for half, value in zip(halves[d & 1], record): self.store(half, at, value)
            else: self.store(self.out, self.first + at, record[-1].cast(dtypes.int32))
            end = self.close(i)
        return end

    def unsigned(self, i: UOp) -> UOp:
        """The key whose bytes order as it does."""
        x = self.load(self.x, self.first + i)
        return (x ^ x.dtype.min).bitcast(bits_dtype(x.dtype))

    def take(self, counts: UOp, key: UOp, byte: int, digit: int | None = None) -> UOp:
        """Count one more of what `byte` of the key says; returns how many there were."""
        value = (key >> 8 * byte & RADIX - 1).cast(self.index)
        at = self.p(value + RADIX * (byte if digit is None else digit))
        before = self.load(counts, at)
        self.store(counts, at, before + 1)
        return before

    def sum_up(self, counts: UOp, digits: int) -> None:
        """From how many there are of each value to where the first one goes."""
        sums = [self.register(UOp.const(dtypes.int32, 0)) for _ in range(digits)]
        v = self.loop(RADIX)
        for d, acc in enumerate(sums):
            at, before = self.p(v + RADIX * d), self.get(acc, v)
            here = self.load(counts, at)
            self.store(counts, at, before)
            self.set(acc, before + here)
        self.close(v)


def splat(x: UOp, lanes: int) -> UOp:
    """`x` in every lane."""
    return x if lanes == 1 else UOp(Ops.SPLAT, x.dtype.vec(lanes), (x,))

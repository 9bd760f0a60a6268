"""Order: sorts become sorts of integer keys in rows, and what is cut from the front of one is selected instead.

in:      TENSOR form
out:     TENSOR form, each SORT ascending, of signed integers, along the last axis
source:  order-preserving keys as in radix sorts of floats, M. Herf (2001); selection by the extremes of blocks is a tournament
         (Knuth, TAOCP vol. 3, 5.3.3)

A block that holds one of the first k elements is one of the k blocks whose first elements are first: each of the others has k elements
before all of its own. So the first k of n are found among the k blocks that a much smaller selection names.
"""
from __future__ import annotations

import math

from glassgrad.target.target import Target
from glassgrad.uop.bits import compute_dtype, special_bits
from glassgrad.uop.dtype import TABLE, dtypes
from glassgrad.uop.ops import Ops, SortArg
from glassgrad.uop.uop import UOp, consumers_of

WORTH = 4        # times fewer candidates than elements for which a selection is quicker than a sort
SMALL = 1 << 12  # elements that are sorted in the time of a few launches


def order_by_keys(sink: UOp, target: Target) -> UOp:
    """Every SORT on keys; where only its first places are read, a selection."""
    order = sink.toposort()
    if not any(n.op is Ops.SORT for n in order): return sink
    users = consumers_of(order)
    memo: dict[UOp, UOp] = {}
    for n in order:
        src = tuple(memo[s] for s in n.src)
        sort = n.src[0] if n.op is Ops.SHRINK and n.src[0].op is Ops.SORT and len(users[n.src[0]]) == 1 else None
        if n.op is Ops.SORT: memo[n] = _in_rows(src[0], n, n.shape[n.arg.axis])
        elif sort is not None and n.arg[sort.arg.axis][0] == 0 and n.size:
            a = sort.arg.axis
            box = tuple((0, hi - lo) if i == a else (lo, hi) for i, (lo, hi) in enumerate(n.arg))
            memo[n] = _in_rows(memo[sort.src[0]], sort, n.shape[a]).shrink(box)
        else: memo[n] = n if src == n.src else n.replace(src=src)
    return memo[sink]


def _in_rows(x: UOp, sort: UOp, k: int) -> UOp:
    """The first k places of a SORT of `x`; rows in memory are quicker than columns, which are first copied to rows."""
    a = sort.arg.axis
    last = (*(i for i in range(x.ndim) if i != a), a)
    rows = first(sort_key(x, sort.arg.descending).permute(last), k)
    for n in rows.toposort(stop=lambda m: m is x):
        if n is not x: n.site = n.site or sort.site
    return rows.permute(tuple(sorted(range(x.ndim), key=last.__getitem__)))


def sort_key(x: UOp, descending: bool) -> UOp:
    """Signed integers that order as `x` does, equal where `x` is: NaN is the largest, -0.0 is 0.0."""
    d = x.dtype
    if d.is_float and d.exponent + d.mantissa + 1 != d.bits: x, d = x.cast(compute_dtype(d)), compute_dtype(d)
    if d.is_bool: key = x.cast(dtypes.int8)
    else: key = x.bitcast(TABLE[f"int{d.bits}"])
    if d.is_unsigned: key = key ^ key.dtype.min
    if d.is_float:
        size, inf = key & key.dtype.max, special_bits(d)[1] - d.finite
        key = (key < 0).where(-size, size)
        key = (inf < size).where(key.dtype.max, key)
    return key ^ -1 if descending else key


def first(key: UOp, k: int) -> UOp:
    """The int32 places of the k least keys of each row, in order."""
    *lead, n = key.shape
    width = 1 << int(math.log2(max(n / k, 1)) / 2)          # then there are as many blocks as candidates
    if n < SMALL or k * width * WORTH > n:
        order = UOp(Ops.SORT, dtypes.int32, (key,), SortArg(len(lead), False))
        return _front(order, k)
    main = n // width * width
    blocks = _front(key, main).reshape((*lead, main // width, width))
    found = first(blocks.reduce(Ops.MIN, (len(lead) + 1,)), k)
    # equal keys stay in the order of their places
    found = _gather(found, UOp(Ops.SORT, dtypes.int32, (found,), SortArg(len(lead), False)))
    shape = (*lead, k, width)
    within = UOp.iota(width).broadcast_to(shape)
    places = ((found * width).reshape((*lead, k, 1)).expand(shape) + within).reshape((*lead, k * width))
    if main < n:
        rest = (UOp.iota(n - main) + main).broadcast_to((*lead, n - main))
        places = UOp(Ops.CAT, places.dtype, (places, rest), len(lead))
    return _gather(places, first(_gather(key, places), k))


def _front(x: UOp, k: int) -> UOp: return x.shrink((*((0, m) for m in x.shape[:-1]), (0, k)))
def _gather(x: UOp, places: UOp) -> UOp: return UOp(Ops.GATHER, x.dtype, (x, places), x.ndim - 1)

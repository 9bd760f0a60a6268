"""Lower dtypes: floats the target cannot compute are computed in a wider type and rounded after every operation.

in:      any kernel form; float dtypes of any row of the table
out:     the same; arithmetic only in target.dtypes, each result what the row's own arithmetic would give (ties to even, overflow to
         infinity, or NaN where the row has none, subnormal numbers exact)
source:  software floating point by integers, J. Hauser, Berkeley SoftFloat; rounding of subnormal numbers by adding a power of two, as
         F. Giesen does; round to odd against double rounding: S. Boldo, G. Melquiond, Emulation of FMA and correctly rounded sums (2008)

Memory keeps the narrow type. A row in target.storage_dtypes can be loaded, stored, and cast from and to float32; what else is in memory
is read as its bits: a LOAD whose dtype is the unsigned integer of the width, from a PARAM that keeps the row as its dtype, and a STORE of
such an integer. SCRATCH of such a row becomes SCRATCH of those integers.
"""
from __future__ import annotations

from glassgrad.passes.transcend import Arithmetic
from glassgrad.target.target import Target
from glassgrad.uop.bits import bits_dtype, compute_dtype, special_bits
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import DTypeError
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

EXACT = {Ops.NEG, Ops.MAX, Ops.MIN, Ops.TRUNC, Ops.WHERE, Ops.ACC, Ops.GET, Ops.SPLAT, Ops.EXTRACT, Ops.PACK}  # choose or move values
MEMORY = {Ops.SCRATCH, Ops.AFTER}


def lower_dtypes(graph: UOp, target: Target) -> UOp:
    """`graph` with every value of a float dtype that `target` lacks computed in a type that it has.

    errors:  DTypeError if the wider type is lacking too
    """
    order = graph.toposort()
    if not any(is_lacking(n.dtype, target) for n in order): return graph
    return _Lowering(target).run(order)[graph]


def is_lacking(dtype: DType, target: Target) -> bool: return dtype.is_float and dtype.scalar not in target.dtypes


class _Lowering:
    """`done` maps a node to its replacement; for values of lacking dtypes that is the wide value, rounded. `unrounded` keeps the
    value before, because storing rounds anyway."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.done: dict[UOp, UOp] = {}
        self.unrounded: dict[UOp, UOp] = {}

    def run(self, order: list[UOp]) -> dict[UOp, UOp]:
        for n in order:
            src = tuple([self.done[s] for s in n.src])
            if n.op is Ops.STORE and is_lacking(n.src[2].dtype, self.target): new = self.store(n, src)
            elif n.op is Ops.CAST or n.op is Ops.BITCAST: new = self.cast(n, src[0]) if n.op is Ops.CAST else self.bitcast(n, src[0])
            elif not is_lacking(n.dtype, self.target): new = n if src == n.src else n.replace(src=src)
            elif n.op in MEMORY or (n.op is Ops.PARAM and n.arg.kind == "buffer"): new = self.memory(n, src)
            else: new = self.value(n, src)
            self.done[n] = new
        return self.done

    def wide(self, dtype: DType) -> DType:
        wide = compute_dtype(dtype)
        if wide.scalar in self.target.dtypes: return wide
        raise DTypeError(f"{self.target.name} cannot compute in {dtype.name}, nor in {wide.name}, which could stand for it\n  try: float32")

    def is_stored(self, dtype: DType) -> bool: return dtype.scalar in self.target.storage_dtypes

    def memory(self, n: UOp, src: tuple[UOp, ...]) -> UOp:
        if n.op is Ops.PARAM or self.is_stored(n.dtype): return n if src == n.src else n.replace(src=src)
        return n.replace(src=src, dtype=src[0].dtype if n.op is Ops.AFTER else bits_dtype(n.dtype))

    def value(self, n: UOp, src: tuple[UOp, ...]) -> UOp:
        wide = self.wide(n.dtype)
        if n.op is Ops.CONST: return UOp.const(wide, n.arg)
        if n.op is Ops.LOAD or n.op is Ops.PARAM:
            if self.is_stored(n.dtype): return n.replace(src=src).cast(wide)
            return decode(n.replace(src=src, dtype=bits_dtype(n.dtype)), n.dtype)
        new = n.replace(src=src, dtype=wide)
        op = n.arg if n.op in (Ops.HREDUCE, Ops.HSCAN) else n.arg.op if n.op in (Ops.REDUCE, Ops.SCAN) else n.op
        return new if op in EXACT else self.rounded(n, new)

    def rounded(self, n: UOp, wide: UOp) -> UOp:
        self.unrounded[n] = wide
        if self.is_stored(n.dtype) and wide.dtype.scalar is dtypes.float32: return wide.cast(n.dtype).cast(wide.dtype)
        return round_value(wide, n.dtype)

    def cast(self, n: UOp, x: UOp) -> UOp:
        if not is_lacking(n.dtype, self.target): return x.cast(n.dtype)
        wide = self.wide(n.dtype)
        return self.rounded(n, round_to_odd(x, wide) if x.dtype.is_float and x.dtype.bits > wide.bits else x.cast(wide))

    def bitcast(self, n: UOp, x: UOp) -> UOp:
        if is_lacking(n.src[0].dtype, self.target): x = encode(x, n.src[0].dtype)
        return decode(x.bitcast(bits_dtype(n.dtype)), n.dtype) if is_lacking(n.dtype, self.target) else x.bitcast(n.dtype)

    def store(self, n: UOp, src: tuple[UOp, ...]) -> UOp:
        dtype, x = n.src[2].dtype, self.unrounded.get(n.src[2], src[2])
        x = x.cast(dtype) if self.is_stored(dtype) and x.dtype.scalar is dtypes.float32 else encode(x, dtype)
        return n.replace(src=(*src[:2], x, *src[3:]))


# ---- a float row in wider arithmetic ---------------------------------------------------------------------------------------------
class _Row:
    """What turns a wide value into one of `row` and back: `cut` mantissa bits go, exponents move by `rebias` (if
    that is 0, nothing is out of reach: compute_dtype gives finite rows more exponents than their own); below the smallest normal number
    `least` the sum with `shelf` has the row's last place as its own."""
    def __init__(self, wide: DType, row: DType) -> None:
        row = row.scalar
        self.a = Arithmetic(wide, False)
        self.row, self.cut = row, wide.mantissa - row.mantissa
        self.rebias = self.a.bias - (1 << row.exponent - 1) + 1
        self.least = 2.0 ** (2 - (1 << row.exponent - 1))
        self.shelf = self.least * 2.0 ** self.cut
        self.sign, self.inf, self.nan = special_bits(row)

    def round_bits(self, b: UOp) -> UOp:
        """b + half a unit of what stays, a little less if the last bit that stays is even: cutting then rounds ties to even."""
        return b + ((b >> self.cut & 1) + ((1 << self.cut - 1) - 1)) if self.cut else b


def round_value(x: UOp, row: DType) -> UOp:
    """Wide floats rounded to the values of `row`, still wide."""
    r = _Row(x.dtype, row)
    a, b = r.a, r.a.bits(x)
    y = a.value(r.round_bits(b) & (1 << a.dtype.bits) - (1 << r.cut))
    if r.rebias:
        size = a.abs(x)
        small = a.with_sign(size + r.shelf - r.shelf, a.sign_of(x))
        y = (size < r.least).where(small, y)
        over = a.const(float("nan")) if row.finite else a.with_sign(a.const(float("inf")), a.sign_of(x))
        y = (a.abs(y) <= r.row.largest).where(y, over)
    return x.ne(x).where(x, y)


def encode(x: UOp, row: DType) -> UOp:
    """Wide floats rounded to `row`, as its bits: unsigned integers of its width."""
    r = _Row(x.dtype, row)
    a, b = r.a, r.a.bits(x)
    if not r.rebias:                                           # the wide type's exponents: rounding carries into them by itself
        return x.ne(x).where(a.integer(r.nan), r.round_bits(b) >> r.cut).cast(bits_dtype(row))
    size = a.abs(x)
    u = r.round_bits(a.bits(size)) - (r.rebias << a.digits) >> r.cut
    u = (size < r.least).where(a.bits(size + r.shelf) - (a.bias + _exponent(r.shelf) << a.digits), u)
    if row.finite: u = (u < r.nan).where(u, r.nan)
    else: u = x.ne(x).where(a.integer(r.nan), (u < r.inf).where(u, r.inf))
    return (u | b >> a.dtype.bits - 1 - _exponent(r.sign) & r.sign).cast(bits_dtype(row))


def decode(bits: UOp, row: DType) -> UOp:
    """The wide floats that bits of `row` stand for."""
    r = _Row(compute_dtype(row).vec(bits.dtype.lanes), row)
    a, u = r.a, bits.cast(r.a.uint)
    place = a.dtype.bits - 1 - _exponent(r.sign)
    if not r.rebias: return a.value(u << place)
    size = u & r.sign - 1
    y = a.value(size << r.cut) * 2.0 ** r.rebias               # right digits, exponent too low by rebias: also for subnormals
    special = a.const(float("nan")) if row.finite else a.value(size << r.cut | a.inf_bits)
    y = (size < (r.nan if row.finite else r.inf)).where(y, special)
    return a.with_sign(y, (u & r.sign) << place)


def _exponent(x: float) -> int:
    """k with x = 2**k."""
    k = int(x).bit_length() - 1 if x >= 1 else -(int(1 / x).bit_length() - 1)
    assert 2.0 ** k == x, f"lower dtypes: {x} is no power of two"
    return k


def round_to_odd(x: UOp, wide: DType) -> UOp:
    """float64 cut to float32, the last bit set if anything was lost: rounding it again gives what rounding once would."""
    a = Arithmetic(wide, False)
    y = x.cast(wide)
    back, source = y.cast(x.dtype), Arithmetic(x.dtype, False)
    too_large = source.abs(x) < source.abs(back)
    odd = a.bits(y) - too_large.where(a.integer(1), 0) | 1
    return (back.eq(x) | x.ne(x)).where(y, a.value(odd))

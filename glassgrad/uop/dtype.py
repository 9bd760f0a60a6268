"""Data types: one row of one table each, and the rules by which they combine.

A row says how many bits a value has, what kind it is and, for floats, how the bits are split. All else
(ranges, promotion, accumulators, NumPy's name, how a device that lacks the type emulates it) follows from the row.
"""
from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass, field
from typing import Any

from glassgrad.uop.errors import DTypeError

Scalar = bool | int | float


@dataclass(frozen=True, eq=False)
class DType:
    """A data type. `lanes` > 1 is the SIMD vector of it that only kernels use; rows are singletons, compare with `is`.

    For floats: 1 sign bit, `exponent` bits, `mantissa` bits; `finite` floats have no infinity (only NaN at all ones).
    """
    name: str
    short: str
    kind: str                  # "bool" | "int" | "uint" | "float" | "void"
    bits: int
    rank: int                  # place in the promotion order
    exponent: int = 0
    mantissa: int = 0
    finite: bool = False
    np_name: str | None = None  # None: NumPy lacks it, it travels as float32
    lanes: int = 1
    _vecs: dict[int, DType] = field(default_factory=dict, repr=False)

    # asked for all the time, so they are found once
    itemsize: int = field(init=False)        # bytes of one scalar
    is_float: bool = field(init=False)
    is_int: bool = field(init=False)
    is_bool: bool = field(init=False)
    is_unsigned: bool = field(init=False)
    scalar: DType = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kind, scalar = self.kind, self if self.lanes == 1 else TABLE[self.name]
        facts = {"itemsize": max(self.bits // 8, 1), "is_float": kind == "float", "is_int": kind in ("int", "uint"), "is_bool": kind == "bool",
                 "is_unsigned": kind == "uint", "scalar": scalar}
        for name, fact in facts.items(): object.__setattr__(self, name, fact)

    def __repr__(self) -> str: return f"dtypes.{self.name}" + (f".vec({self.lanes})" if self.lanes > 1 else "")
    def __reduce__(self) -> Any: return _by_name, (self.name, self.lanes)

    def vec(self, lanes: int) -> DType:
        """The SIMD vector type of `lanes` scalars of this type."""
        if lanes == 1: return self.scalar
        base = self.scalar
        if lanes not in base._vecs:
            base._vecs[lanes] = DType(base.name, f"{base.short}x{lanes}", base.kind, base.bits, base.rank, base.exponent,
                                      base.mantissa, base.finite, base.np_name, lanes)
        return base._vecs[lanes]

    @property
    def min(self) -> Scalar:
        """Smallest value: -inf for floats (the largest negative number if the type has no infinity)."""
        if self.is_float: return -self.max
        return -(1 << (self.bits - 1)) if self.kind == "int" else (False if self.is_bool else 0)
    @property
    def max(self) -> Scalar:
        """Largest value: inf for floats (the largest number if the type has no infinity)."""
        if self.is_float: return self.largest if self.finite else float("inf")
        return True if self.is_bool else (1 << (self.bits - (self.kind == "int"))) - 1
    @property
    def largest(self) -> float:
        """The largest finite float."""
        bias = (1 << (self.exponent - 1)) - 1
        if self.finite: return (2 - 2.0 ** (1 - self.mantissa)) * 2.0 ** ((1 << self.exponent) - 1 - bias)
        return (2 - 2.0 ** -self.mantissa) * 2.0 ** bias

    def const(self, x: Scalar) -> Scalar:
        """The Python value that `x` has in this type: wrapped for integers, rounded for floats."""
        if self.is_bool: return bool(x)
        if self.is_int:
            try: return _wrap(int(x), self.bits, self.kind == "int")
            except (ValueError, OverflowError): raise DTypeError(f"{x} as {self.name}\n  ints have no such value\n  try: a float dtype") from None
        return round_float(self, float(x))


def _wrap(x: int, bits: int, signed: bool) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if signed and x >> (bits - 1) else x


TABLE: dict[str, DType] = {}


def add_dtype(name: str, short: str, kind: str, bits: int, rank: int, **more: Any) -> DType:
    """Add a row to the table of data types; every op and device can use it from then on.

    errors:  DTypeError if the name is taken
    """
    if name in TABLE: raise DTypeError(f"add_dtype: the name {name!r} is taken")
    row = DType(name, short, kind, bits, rank, **more)
    TABLE[name] = row
    setattr(dtypes, name, row)
    promote.cache_clear()
    return row


class _Groups(type):
    """The groups of data types, from the table as it is now: tuples in promotion order."""
    @property
    def all(cls) -> tuple[DType, ...]:
        """Those a tensor can have."""
        return tuple(sorted((d for d in TABLE.values() if d.kind != "void"), key=lambda d: d.rank))
    @property
    def floats(cls) -> tuple[DType, ...]: return tuple(d for d in cls.all if d.is_float)
    @property
    def ints(cls) -> tuple[DType, ...]: return tuple(d for d in cls.all if d.is_int)
    @property
    def sints(cls) -> tuple[DType, ...]: return tuple(d for d in cls.ints if not d.is_unsigned)
    @property
    def uints(cls) -> tuple[DType, ...]: return tuple(d for d in cls.ints if d.is_unsigned)
    @property
    def int8s(cls) -> tuple[DType, ...]: return tuple(d for d in cls.ints if d.bits == 8)
    @property
    def int16s(cls) -> tuple[DType, ...]: return tuple(d for d in cls.ints if d.bits == 16)
    @property
    def int32s(cls) -> tuple[DType, ...]: return tuple(d for d in cls.ints if d.bits == 32)
    @property
    def int64s(cls) -> tuple[DType, ...]: return tuple(d for d in cls.ints if d.bits == 64)
    @property
    def fp8s(cls) -> tuple[DType, ...]: return tuple(d for d in cls.floats if d.bits == 8)


class dtypes(metaclass=_Groups):
    """The data types by name, their aliases and groups (`dtypes.floats`, `dtypes.ints`, …).

    >>> dtypes.int16 in dtypes.sints
    True
    """
    default_int: DType
    default_float: DType
    bool: DType; int8: DType; uint8: DType; int16: DType; uint16: DType; int32: DType; uint32: DType
    int64: DType; uint64: DType; float16: DType; bfloat16: DType; float32: DType; float64: DType
    fp8e4m3: DType; fp8e5m2: DType; void: DType

    @staticmethod
    def is_float(x: DType) -> bool: return x.is_float
    @staticmethod
    def is_int(x: DType) -> bool: return x.is_int
    @staticmethod
    def is_unsigned(x: DType) -> bool: return x.is_unsigned
    @staticmethod
    def is_bool(x: DType) -> bool: return x.is_bool
    @staticmethod
    def min(x: DType) -> Scalar: return x.min
    @staticmethod
    def max(x: DType) -> Scalar: return x.max
    @staticmethod
    def finfo(x: DType) -> tuple[int, int]:
        """(exponent bits, mantissa bits) of a float type."""
        if not x.is_float: raise DTypeError(f"finfo: {x.name} is no float type")
        return x.exponent, x.mantissa
    @staticmethod
    def from_py(x: Any) -> DType:
        """The type a Python value gets: bool, default_int or default_float; a list gets its widest element's."""
        if isinstance(x, (list, tuple)): return promote(*map(dtypes.from_py, x)) if x else dtypes.default_float
        if type(x) is bool: return dtypes.bool
        if isinstance(x, int): return dtypes.default_int
        if isinstance(x, float): return dtypes.default_float
        raise DTypeError(f"no dtype for {x!r} of type {type(x).__name__}\n  try: bool, int or float, or lists of them")


@functools.cache
def promote(*ds: DType) -> DType:
    """The smallest type that holds values of all `ds`; ints meet floats in the float, uint64 meets int64 in default_float."""
    best = max(ds, key=lambda d: d.rank)
    if best.is_float:
        lost = [d for d in ds if d.is_float and d.bits == best.bits and (d.exponent > best.exponent or d.mantissa > best.mantissa)]
        if not lost: return best
        return min((d for d in dtypes.floats if d.bits > best.bits), key=lambda d: d.rank, default=best)
    if best.is_bool: return best
    signed = [d for d in ds if d.kind == "int"]
    unsigned = [d for d in ds if d.kind == "uint"]
    if not signed or not unsigned: return best
    need = max(max(d.bits for d in signed), max(d.bits for d in unsigned) * 2)
    return dtypes.default_float if need > 64 else TABLE[f"int{need}"]


def sum_dtype(d: DType) -> DType:
    """The type sums of `d` accumulate in: ints and bool in at least 32 bits, small floats in float32."""
    if d.is_bool: return dtypes.int32
    if d.is_int: return d if d.bits >= 32 else (dtypes.int32 if d.kind == "int" else dtypes.uint32)
    return dtypes.float32 if d.mantissa < dtypes.float32.mantissa and d.exponent <= dtypes.float32.exponent else d


def to_dtype(x: DType | str) -> DType:
    """`x` itself, or the type of that name or alias.

    errors:  DTypeError if there is no such name
    """
    if isinstance(x, DType): return x
    found = getattr(dtypes, x, None) if isinstance(x, str) else None
    if isinstance(found, DType): return found
    raise DTypeError(f"no dtype named {x!r}\n  try: one of {', '.join(d.name for d in dtypes.all)}")


def _by_name(name: str, lanes: int) -> DType: return TABLE[name].vec(lanes)


@functools.cache
def _float_codec(d: DType) -> tuple[int, int, float, float]:
    bias = (1 << (d.exponent - 1)) - 1
    return bias, 1 - bias, d.largest, 2.0 ** (1 - bias - d.mantissa)


def round_float(d: DType, x: float) -> float:
    """`x` rounded to the nearest value of float type `d`, ties to even; beyond the largest: inf, or NaN if `d` has no inf."""
    if d.name == "float64" or x != x or x in (float("inf"), float("-inf")):
        return float("nan") if d.finite and x in (float("inf"), float("-inf")) else x
    if d.name == "float32":
        try: return struct.unpack("f", struct.pack("f", x))[0]
        except OverflowError: return math.copysign(math.inf, x)
    _, _, largest, tiny = _float_codec(d)
    _, e = math.frexp(x)
    step = max(2.0 ** (e - 1 - d.mantissa) if x else tiny, tiny)
    y = round(x / step) * step
    if y == 0.0: return math.copysign(0.0, x)
    if abs(y) > largest: return float("nan") if d.finite else math.copysign(float("inf"), x)
    return y


for _row in (("void", "void", "void", 0, -1),):
    add_dtype(*_row)
add_dtype("bool", "b1", "bool", 8, 0, np_name="bool")
for _i, _bits in enumerate((8, 16, 32, 64)):
    add_dtype(f"int{_bits}", f"i{_bits}", "int", _bits, 1 + 2 * _i, np_name=f"int{_bits}")
    add_dtype(f"uint{_bits}", f"u{_bits}", "uint", _bits, 2 + 2 * _i, np_name=f"uint{_bits}")
add_dtype("fp8e4m3", "f8e4", "float", 8, 20, exponent=4, mantissa=3, finite=True)
add_dtype("fp8e5m2", "f8e5", "float", 8, 21, exponent=5, mantissa=2)
add_dtype("float16", "f16", "float", 16, 30, exponent=5, mantissa=10, np_name="float16")
add_dtype("bfloat16", "bf16", "float", 16, 31, exponent=8, mantissa=7)
add_dtype("float32", "f32", "float", 32, 40, exponent=8, mantissa=23, np_name="float32")
add_dtype("float64", "f64", "float", 64, 50, exponent=11, mantissa=52, np_name="float64")
for _alias, _name in (("half", "float16"), ("float", "float32"), ("double", "float64"), ("char", "int8"), ("uchar", "uint8"),
                      ("short", "int16"), ("ushort", "uint16"), ("int", "int32"), ("uint", "uint32"), ("long", "int64"),
                      ("ulong", "uint64"), ("default_int", "int32"), ("default_float", "float32")):
    setattr(dtypes, _alias, TABLE[_name])

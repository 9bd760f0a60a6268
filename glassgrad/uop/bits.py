"""Bits: what a value of any float row of the dtype table looks like in memory, in NumPy.

A row NumPy lacks is computed as float32 (or float64 where float32 cannot hold it) and rounded to the row after every operation;
in memory it is an unsigned integer: sign, exponent and mantissa packed at the low end. Everything follows from the row, so a
type added at run time needs no code.
"""
from __future__ import annotations

from typing import Any

from glassgrad.uop.dtype import TABLE, DType
from glassgrad.uop.ops import np

Array = Any


def compute_dtype(dtype: DType) -> DType:
    """The type values of `dtype` are computed in where the row itself is lacking: float32 if it holds them all, else float64.

    >>> from glassgrad.uop.dtype import dtypes
    >>> compute_dtype(dtypes.bfloat16)
    dtypes.float32
    """
    if not dtype.is_float: return dtype
    return TABLE["float32" if dtype.exponent + dtype.finite <= 8 and dtype.mantissa <= 23 else "float64"].vec(dtype.lanes)


def bits_dtype(dtype: DType) -> DType:
    """The unsigned integer type of the same width: what is in memory."""
    return TABLE[f"uint{dtype.itemsize * 8}"].vec(dtype.lanes)


def value_name(dtype: DType) -> str:
    """NumPy's name of the type an array of such values has."""
    return dtype.np_name or compute_dtype(dtype).scalar.np_name  # type: ignore[return-value]


def storage_name(dtype: DType) -> str:
    """NumPy's name of what is in memory."""
    return "uint8" if dtype.is_bool else dtype.np_name or bits_dtype(dtype).scalar.np_name  # type: ignore[return-value]


def special_bits(dtype: DType) -> tuple[int, int, int]:
    """(sign, infinity, NaN) as bits; a finite row has no infinity: the NaN stands in its place.

    >>> from glassgrad.uop.dtype import dtypes
    >>> [hex(b) for b in special_bits(dtypes.bfloat16)]
    ['0x8000', '0x7f80', '0x7fc0']
    """
    sign = 1 << dtype.exponent + dtype.mantissa
    if dtype.finite: return sign, sign - 1, sign - 1
    inf = sign - (1 << dtype.mantissa)
    return sign, inf, inf | 1 << max(dtype.mantissa - 1, 0)


def round_to(dtype: DType, x: Array) -> Array:
    """`x` (floats of any width) rounded to the nearest values of `dtype`, ties to even, as an array of `value_name(dtype)`."""
    name = value_name(dtype)
    if dtype.np_name: return x.astype(name, copy=False)
    wide = x.astype("float64", copy=False)
    lowest = 2 - (1 << dtype.exponent - 1)                     # exponent of the smallest normal number
    _, exponent = np.frexp(wide)
    step = np.maximum(exponent - 1, lowest) - dtype.mantissa
    with np.errstate(all="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(wide, -step)), step)
        rounded = np.where(np.isfinite(wide), rounded, wide)
        over = np.where(np.isnan(rounded), np.nan, np.copysign(np.nan if dtype.finite else np.inf, rounded))
        return np.where(np.abs(rounded) <= dtype.largest, rounded, over).astype(name)


def float_to_bits(dtype: DType, x: Array) -> Array:
    """The bits of floats `x` rounded to `dtype`, as unsigned integers."""
    bits = bits_dtype(dtype).scalar.np_name
    if dtype.np_name: return x.astype(dtype.np_name, copy=False).view(bits)
    sign, inf, nan = special_bits(dtype)
    x = round_to(dtype, x).astype("float64")
    size = np.abs(x)
    lowest = 2 - (1 << dtype.exponent - 1)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(size)
        field = np.maximum(np.where(size > 0, exponent - lowest, 1), 1)  # biased exponent; subnormals share the step of field 1
        mantissa = np.ldexp(size, dtype.mantissa + 1 - field - lowest)
        whole = mantissa.astype("int64") + ((field.astype("int64") - 1) << dtype.mantissa)
    whole = np.where(np.isnan(x), nan, np.where(np.isinf(x), inf, whole))
    return (whole | np.where(np.signbit(x), sign, 0)).astype(bits)


def bits_to_float(dtype: DType, raw: Array) -> Array:
    """The values that bits stand for, as an array of `value_name(dtype)`."""
    if dtype.np_name: return raw.view(dtype.np_name)
    sign, inf, nan = special_bits(dtype)
    raw = raw.astype("int64")
    size = raw & sign - 1
    field = np.maximum(size >> dtype.mantissa, 1)
    mantissa = size - ((field - 1) << dtype.mantissa)
    lowest = 2 - (1 << dtype.exponent - 1)
    value = np.ldexp(mantissa.astype("float64"), field - 1 + lowest - dtype.mantissa)
    if dtype.finite: value = np.where(size == nan, np.nan, value)
    else: value = np.where(size == inf, np.inf, np.where(size > inf, np.nan, value))
    return np.where(raw & sign, -value, value).astype(value_name(dtype))


def to_storage(dtype: DType, x: Array) -> Array:
    """Values as they stand in memory."""
    return x.astype(storage_name(dtype), copy=False) if dtype.np_name else float_to_bits(dtype, x)


def from_storage(dtype: DType, raw: Array) -> Array:
    """Values from what stands in memory."""
    if dtype.is_bool: return raw != 0
    return raw if dtype.np_name else bits_to_float(dtype, raw)

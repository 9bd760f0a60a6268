"""The quantised number formats of GGUF, as NumPy or as tensor expressions from one text.

A block is a few numbers with a common scale. Each format below is a function from blocks, uint8 (n, bytes of a block), to
float32 (n, numbers of a block). Called with tensors it stays lazy: the packed bytes are what lies in memory, and unpacking
happens inside the kernel that uses the weights.

source:  the layouts, ggml's block structures as the `gguf` package documents them
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import np

Blocks = Any  # uint8 (n, bytes): an ndarray or a Tensor
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice the value


def f32(x: Blocks) -> Blocks:
    """The numbers as float32."""
    return x.cast(dtypes.float32) if isinstance(x, Tensor) else x.astype(np.float32)


def i8(x: Blocks) -> Blocks:
    """Bytes read as signed numbers."""
    return x.bitcast(dtypes.int8) if isinstance(x, Tensor) else x.view(np.int8)


def f16(x: Blocks) -> Blocks:
    """Bytes (n, 2 k) read as k half floats, as float32."""
    if not isinstance(x, Tensor): return np.ascontiguousarray(x).view("<f2").astype(np.float32)
    pair = x.reshape(x.shape[0], -1, 2).cast(dtypes.uint16)
    return (pair[:, :, 0] | (pair[:, :, 1] << 8)).bitcast(dtypes.float16).cast(dtypes.float32)


def cat(*parts: Blocks, axis: int = 1) -> Blocks:
    """Parts one after the other along `axis`."""
    return parts[0].cat(*parts[1:], dim=axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis)


def look_up(values: tuple[int, ...], at: Blocks) -> Blocks:
    """`values` at the indices `at`."""
    table = np.array(values, np.float32)
    return Tensor(table)[at.cast(dtypes.int32)] if isinstance(at, Tensor) else table[at]


def nibbles(x: Blocks) -> Blocks:
    """(n, k) bytes -> (n, 2 k): all low halves, then all high halves."""
    return cat(x & 15, x >> 4)


def fields(x: Blocks, shifts: tuple[int, ...], mask: int) -> Blocks:
    """(n, g, k) bytes -> (n, g, len(shifts), k): the bit fields at `shifts`."""
    n, g, k = x.shape
    return cat(*[((x >> s) & mask).reshape(n, g, 1, k) for s in shifts], axis=2)


def bits(x: Blocks) -> Blocks:
    """(n, k) bytes -> (n, 8 k): every bit, lowest first."""
    n, k = x.shape
    return cat(*[((x >> s) & 1).reshape(n, k, 1) for s in range(8)], axis=2).reshape(n, 8 * k)


def scaled(q: Blocks, scale: Blocks, low: Blocks | None = None) -> Blocks:
    """(n, groups, k) numbers times a scale per group, less `low` per group, as (n, groups * k)."""
    n = q.shape[0]
    y = f32(q) * scale.reshape(n, -1, 1)
    return (y if low is None else y - low.reshape(n, -1, 1)).reshape(n, -1)


def q4_0(x: Blocks) -> Blocks:
    """32 numbers of 4 bits around zero."""
    return (f32(nibbles(x[:, 2:])) - 8) * f16(x[:, :2])


def q4_1(x: Blocks) -> Blocks:
    """32 numbers of 4 bits above a minimum."""
    return f32(nibbles(x[:, 4:])) * f16(x[:, :2]) + f16(x[:, 2:4])


def q5_0(x: Blocks) -> Blocks:
    """32 numbers of 5 bits around zero; the fifth bits stand apart."""
    return (f32(nibbles(x[:, 6:]) | (bits(x[:, 2:6]) << 4)) - 16) * f16(x[:, :2])


def q5_1(x: Blocks) -> Blocks:
    """32 numbers of 5 bits above a minimum; the fifth bits stand apart."""
    return f32(nibbles(x[:, 8:]) | (bits(x[:, 4:8]) << 4)) * f16(x[:, :2]) + f16(x[:, 2:4])


def q8_0(x: Blocks) -> Blocks:
    """32 numbers of 8 bits."""
    return f32(i8(x[:, 2:])) * f16(x[:, :2])


def iq4_nl(x: Blocks) -> Blocks:
    """32 numbers from a table of 16."""
    return look_up(IQ4_VALUES, nibbles(x[:, 2:])) * f16(x[:, :2])


def mxfp4(x: Blocks) -> Blocks:
    """32 four-bit floats under a power of two."""
    table = np.exp2(np.maximum(np.arange(256), 1) - 128.0).astype(np.float32)
    table[0] = 2.0 ** -128
    return look_up(FP4_VALUES, nibbles(x[:, 1:])) * look_up(tuple(table), x[:, :1])


def iq4_xs(x: Blocks) -> Blocks:
    """8 groups of 32, scales of 6 bits in two places."""
    n = x.shape[0]
    low = cat(*[((x[:, 4:8] >> s) & 15).reshape(n, 4, 1) for s in (0, 4)], axis=2).reshape(n, 8)
    high = cat(*[((x[:, 2:4] >> s) & 3).reshape(n, 2, 1) for s in (0, 2, 4, 6)], axis=2).reshape(n, 8)
    q = fields(x[:, 8:].reshape(n, 8, 16), (0, 4), 15).reshape(n, 8, 32)
    return scaled(look_up(IQ4_VALUES, q), f16(x[:, :2]) * (f32(low | (high << 4)) - 32))


def q2_k(x: Blocks) -> Blocks:
    """16 groups of 16, each with a 4-bit scale and a 4-bit minimum."""
    n = x.shape[0]
    q = fields(x[:, 16:80].reshape(n, 2, 32), (0, 2, 4, 6), 3).reshape(n, 16, 16)
    return scaled(q, f16(x[:, 80:82]) * f32(x[:, :16] & 15), f16(x[:, 82:84]) * f32(x[:, :16] >> 4))


def q3_k(x: Blocks) -> Blocks:
    """16 groups of 16 with 6-bit scales; the third bit of all numbers stands apart, inverted."""
    n = x.shape[0]
    low = fields(x[:, 32:96].reshape(n, 2, 32), (0, 2, 4, 6), 3).reshape(n, 16, 16)
    high = fields(x[:, :32].reshape(n, 1, 32), tuple(range(8)), 1).reshape(n, 16, 16)
    top = cat(*[(x[:, 104:108] >> s) & 3 for s in (0, 2, 4, 6)])
    scale = f32(nibbles(x[:, 96:104]) | (top << 4)) - 32
    return scaled(f32(low | (high << 2)) - 4, f16(x[:, 108:110]) * scale)


def _scales_and_minima(s: Blocks) -> tuple[Blocks, Blocks]:
    """8 scales and 8 minima of 6 bits each from 12 bytes."""
    a, b, c = s[:, :4], s[:, 4:8], s[:, 8:12]
    return f32(cat(a & 63, (c & 15) | ((a >> 6) << 4))), f32(cat(b & 63, (c >> 4) | ((b >> 6) << 4)))


def q4_k(x: Blocks) -> Blocks:
    """8 groups of 32, each with a scale and a minimum."""
    n = x.shape[0]
    scale, low = _scales_and_minima(x[:, 4:16])
    q = fields(x[:, 16:].reshape(n, 4, 32), (0, 4), 15).reshape(n, 8, 32)
    return scaled(q, f16(x[:, :2]) * scale, f16(x[:, 2:4]) * low)


def q5_k(x: Blocks) -> Blocks:
    """As q4_k, and the fifth bit of all numbers stands apart."""
    n = x.shape[0]
    scale, low = _scales_and_minima(x[:, 4:16])
    q = fields(x[:, 48:].reshape(n, 4, 32), (0, 4), 15).reshape(n, 8, 32)
    high = fields(x[:, 16:48].reshape(n, 1, 32), tuple(range(8)), 1).reshape(n, 8, 32)
    return scaled(q | (high << 4), f16(x[:, :2]) * scale, f16(x[:, 2:4]) * low)


def q6_k(x: Blocks) -> Blocks:
    """16 groups of 16 with 8-bit scales; four bits of each number here, two there."""
    n = x.shape[0]
    low = fields(x[:, :128].reshape(n, 2, 64), (0, 4), 15).reshape(n, 2, 4, 32)
    high = fields(x[:, 128:192].reshape(n, 2, 32), (0, 2, 4, 6), 3)
    q = f32(low | (high << 4)) - 32
    return scaled(q.reshape(n, 16, 16), f16(x[:, 208:210]) * f32(i8(x[:, 192:208])))


class Quant(NamedTuple):
    """A GGUF element type: numbers and bytes of a block; `dtype` if it is a plain type, else how blocks are unpacked."""
    name: str
    numbers: int
    nbytes: int
    dtype: DType | None = None
    unpack: Callable[[Blocks], Blocks] | None = None


TYPES: dict[int, Quant] = {
    0: Quant("F32", 1, 4, dtypes.float32), 1: Quant("F16", 1, 2, dtypes.float16), 28: Quant("F64", 1, 8, dtypes.float64),
    30: Quant("BF16", 1, 2, dtypes.bfloat16), 24: Quant("I8", 1, 1, dtypes.int8), 25: Quant("I16", 1, 2, dtypes.int16),
    26: Quant("I32", 1, 4, dtypes.int32), 27: Quant("I64", 1, 8, dtypes.int64),
    2: Quant("Q4_0", 32, 18, None, q4_0), 3: Quant("Q4_1", 32, 20, None, q4_1), 6: Quant("Q5_0", 32, 22, None, q5_0),
    7: Quant("Q5_1", 32, 24, None, q5_1), 8: Quant("Q8_0", 32, 34, None, q8_0), 10: Quant("Q2_K", 256, 84, None, q2_k),
    11: Quant("Q3_K", 256, 110, None, q3_k), 12: Quant("Q4_K", 256, 144, None, q4_k), 13: Quant("Q5_K", 256, 176, None, q5_k),
    14: Quant("Q6_K", 256, 210, None, q6_k), 20: Quant("IQ4_NL", 32, 18, None, iq4_nl), 23: Quant("IQ4_XS", 256, 136, None, iq4_xs),
    39: Quant("MXFP4", 32, 17, None, mxfp4),
    # unpacked by the `gguf` package
    16: Quant("IQ2_XXS", 256, 66), 17: Quant("IQ2_XS", 256, 74), 18: Quant("IQ3_XXS", 256, 98), 19: Quant("IQ1_S", 256, 50),
    21: Quant("IQ3_S", 256, 110), 22: Quant("IQ2_S", 256, 82), 29: Quant("IQ1_M", 256, 56), 34: Quant("TQ1_0", 256, 54),
    35: Quant("TQ2_0", 256, 66),
}

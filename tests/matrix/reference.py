"""What every op means, said a second time: by Python's integers, NumPy's wide floats, SciPy and ml_dtypes, without a line of the compiler's own
tables. `check` compares a result with that meaning in units of the last place.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import scipy.special

from glassgrad.uop.dtype import DType
from glassgrad.uop.ops import Op

Array = np.ndarray
LONG = np.longdouble
INF, NAN = float("inf"), float("nan")


# ---- rounding ----------------------------------------------------------------------------------------------------------------------
SMALL_FLOATS: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "fp8e4m3": ml_dtypes.float8_e4m3fn, "fp8e5m2": ml_dtypes.float8_e5m2}
"""Types NumPy lacks, by our name; a test that adds a type adds its row."""


@functools.cache
def every_value(name: str) -> tuple[Array, bool]:
    """(all finite values >= 0 of a small float type in order of their bits, whether it has an infinity)."""
    kind = np.dtype(SMALL_FLOATS[name])
    half = np.arange(1 << kind.itemsize * 8 - 1).astype(f"u{kind.itemsize}").view(kind).astype("float64")
    return half[np.isfinite(half)], bool(np.isinf(half).any())


def round_small(name: str, x: Array) -> Array:
    """The nearest value of the type, ties to even bits; beyond the largest infinity, or NaN where there is none."""
    values, has_inf = every_value(name)
    beyond = 2 * values[-1] - values[-2]
    steps = np.append(values, beyond)
    size = np.abs(x.astype("float64"))
    at = np.clip(np.searchsorted(steps, np.where(np.isnan(size), 0, size)), 1, len(steps) - 1)
    below, above = steps[at - 1], steps[at]
    middle = below + (above - below) / 2
    up = (size > middle) | ((size == middle) & (at % 2 == 0)) | (size >= above)
    near = np.where(up, above, below)
    near = np.where(near >= beyond, INF if has_inf else NAN, near)
    return np.where(np.isnan(size), NAN, np.copysign(near, x.astype("float64")))


def round_to(d: DType, x: Any) -> Array:
    """Numbers as values of `d`: wrapped integers, truth, or floats (as float64, which holds the values of all float types)."""
    if d.is_bool: return np.asarray(x).astype(bool)
    if d.is_int: return np.array([wrap(d, int(v)) for v in np.asarray(x, dtype=object).ravel()], dtype=d.np_name).reshape(np.shape(x))
    x = np.asarray(x)
    with np.errstate(all="ignore"):
        if d.np_name: return x.astype(d.np_name).astype("float64")
        if d.name in SMALL_FLOATS: return round_small(d.name, x)
    return np.array([round_exactly(d, float(v)) for v in x.ravel()]).reshape(x.shape)


def round_exactly(d: DType, x: float) -> float:
    """One number rounded by fractions, for types that nobody else knows: Python rounds ties to even."""
    if not math.isfinite(x) or x == 0: return NAN if d.finite and math.isinf(x) else x
    exponent = max(math.frexp(x)[1] - 1, 2 - (1 << d.exponent - 1)) - d.mantissa
    y = round(Fraction(x) / Fraction(2) ** exponent) * Fraction(2) ** exponent
    return math.copysign(float(y), x) if abs(y) <= d.largest else NAN if d.finite else math.copysign(INF, x)


def wrap(d: DType, x: int) -> int:
    """x modulo 2**bits, in the range of `d`."""
    lo = -(1 << d.bits - 1) if d.kind == "int" else 0
    return (x - lo) % (1 << d.bits) + lo


def unit(d: DType, x: Array) -> Array:
    """The distance of neighbouring values of `d` around x."""
    _, exponent = np.frexp(np.where(np.isfinite(x), x, 1).astype("float64"))
    return np.ldexp(1.0, np.maximum(exponent - 1, 2 - (1 << d.exponent - 1)) - d.mantissa)


# ---- comparing ---------------------------------------------------------------------------------------------------------------------
class Want(NamedTuple):
    """What is expected: `values` are alternatives before rounding, `ulps` and `atol` how far off a float may be; zeros keep their sign if `signs`."""
    dtype: DType
    values: tuple[Array, ...]
    ulps: float = 0
    atol: Any = 0.0
    signs: bool = False


def check(found: Array, want: Want) -> None:
    """Fail unless every element of `found` is as expected by one of the alternatives; the message shows the first that is not."""
    d = want.dtype
    assert found.shape == want.values[0].shape, f"shape {found.shape}, expected {want.values[0].shape}"
    if not d.is_float: good = np.logical_or.reduce([found == round_to(d, v) for v in want.values])
    else:
        found = found.astype("float64")
        good = np.logical_or.reduce([_is_close(found, v, want) for v in want.values])
    if good.all(): return
    bad = np.argwhere(~np.atleast_1d(good))[:3]
    first = [tuple(i) if found.ndim else () for i in bad]
    lines = [f"  at {i}: found {found[i]!r}, expected {' or '.join(repr(round_to(d, v)[i]) for v in want.values)}" for i in first]
    raise AssertionError(f"{(~good).sum()} of {good.size} elements are wrong (allowed: {want.ulps} ulp)\n" + "\n".join(lines))


def _is_close(found: Array, exact: Array, want: Want) -> Array:
    d, rounded = want.dtype, round_to(want.dtype, exact)
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    if want.signs: same &= (found != 0) | (np.signbit(found) == np.signbit(rounded))
    if not want.ulps and not np.any(want.atol): return same
    # beyond the largest value stands infinity (or NaN): that is one step too far, not an endless one
    edge = LONG(d.largest) + LONG(unit(d, np.array(d.largest)))
    out = np.isnan(found) & ~np.isnan(exact) if d.finite else np.isinf(found)
    step = np.where(out, np.copysign(edge, np.where(np.isnan(found), exact, found).astype(LONG)), found.astype(LONG))
    with np.errstate(all="ignore"):
        wide = exact.astype(LONG)
        capped = np.clip(wide, -edge, edge)
        near = np.abs(step - capped) <= (want.ulps + 0.5) * unit(d, rounded) + want.atol
    return same | (near & np.isfinite(wide))


# ---- ops on integers and truth -------------------------------------------------------------------------------------------------------
def divide(x: int, y: int) -> int: return 0 if y == 0 else int(Fraction(x, y))      # int() of a fraction goes toward zero


def threefry(x: int, key: int) -> int:
    """Threefry-2x32 with 20 rounds, from the description by Salmon et al. (2011); its known answers are tested beside it."""
    mask, rotations = 2 ** 32 - 1, [13, 15, 26, 6, 17, 29, 16, 24]
    k = [key & mask, key >> 32, 0]
    k[2] = k[0] ^ k[1] ^ 0x1BD11BDA
    left, right = ((x & mask) + k[0]) & mask, ((x >> 32) + k[1]) & mask
    for i in range(20):
        left = (left + right) & mask
        turn = rotations[i % 8]
        right = ((right << turn) | (right >> (32 - turn))) & mask
        right ^= left
        if i % 4 == 3:
            s = i // 4 + 1
            left, right = (left + k[s % 3]) & mask, (right + k[(s + 1) % 3] + s) & mask
    return right * 2 ** 32 + left


def half(x: int) -> int:
    """The lower 16 bits as a signed number."""
    return (x + 2 ** 15) % 2 ** 16 - 2 ** 15


COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "CMPLT": lambda x, y: x < y, "CMPLE": lambda x, y: x <= y, "CMPEQ": lambda x, y: x == y, "CMPNE": lambda x, y: x != y}
ON_INTS: dict[str, Callable[..., int]] = {
    "NEG": lambda x: -x, "ADD": lambda x, y: x + y, "SUB": lambda x, y: x - y, "MUL": lambda x, y: x * y, "MULACC": lambda x, y, z: x * y + z,
    "MAX": max, "MIN": min, "CDIV": divide, "CMOD": lambda x, y: x - divide(x, y) * y, "AND": lambda x, y: x & y, "OR": lambda x, y: x | y,
    "XOR": lambda x, y: x ^ y, "SHL": lambda x, y: x * 2 ** y, "SHR": lambda x, y: x // 2 ** y, "THREEFRY": threefry,
    "PAIRMUL": lambda x, y: half(x) * half(y) + half(x // 2 ** 16) * half(y // 2 ** 16), "WHERE": lambda x, y, z: y if x else z, **COMPARE}
ON_BOOLS: dict[str, Callable[..., bool]] = {
    "ADD": lambda x, y: x or y, "MUL": lambda x, y: x and y, "MAX": lambda x, y: x or y, "MIN": lambda x, y: x and y,
    "AND": lambda x, y: x and y, "OR": lambda x, y: x or y, "XOR": lambda x, y: x != y, "MULACC": lambda x, y, z: (x and y) or z,
    "WHERE": lambda x, y, z: y if x else z, **COMPARE}


# ---- ops on floats -------------------------------------------------------------------------------------------------------------------
def extreme(better: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    def choose(x: Array, y: Array) -> Array: return np.where(np.isnan(x) | np.isnan(y), NAN, np.where(better(y, x), y, x))
    return choose


EXACT: dict[str, Callable[..., Array]] = {          # float64 arithmetic, then one rounding: right also after the rounding to a type of half the digits
    "NEG": lambda x: -x, "RECIP": lambda x: 1.0 / x, "SQRT": np.sqrt, "TRUNC": lambda x: np.copysign(np.floor(np.abs(x)), x),
    "ADD": lambda x, y: x + y, "SUB": lambda x, y: x - y, "MUL": lambda x, y: x * y, "FDIV": lambda x, y: x / y,
    "MAX": extreme(lambda y, x: y > x), "MIN": extreme(lambda y, x: y < x), "WHERE": lambda c, y, z: np.where(c, y, z), **COMPARE}
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "EXP2": np.exp2, "LOG2": np.log2, "EXP": np.exp, "LOG": np.log, "SIN": np.sin, "COS": np.cos, "TANH": np.tanh,
    "ERF": lambda x: scipy.special.erf(x.astype("float64")), "POW": np.power}
# units in the last place that each device may be off: our own code stays within 2, NumPy within 3, OpenCL says itself what it promises
OPENCL_ULPS = {"EXP": 3, "EXP2": 3, "LOG": 3, "LOG2": 3, "SIN": 4, "COS": 4, "TANH": 5, "ERF": 16, "POW": 16}
CHOOSES = ("MAX", "MIN", "MULACC")                 # which zero they give is nobody's business


def is_small(d: DType) -> bool:
    """Whether a float type is computed in a wider one."""
    return d.bits < 32 or d.np_name is None


def ulps_of(op: str, d: DType, device: str) -> float:
    """How far a device may be off; a type of few digits is computed in a wide one and rounded once."""
    if op in EXACT or op == "MULACC": return 0
    if is_small(d): return 0.1
    return {"CPU": 2, "PYTHON": 3, "CL": OPENCL_ULPS.get(op, 4)}.get(device, 4)


def fused(x: float, y: float, z: float) -> float:
    """x * y + z, rounded once."""
    if not all(map(math.isfinite, (x, y, z))) or x * y == 0: return x * y + z
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    try: return float(exact) if exact else x * y + z
    except OverflowError: return INF if exact > 0 else -INF


def mulacc(d: DType, x: Array, y: Array, z: Array) -> tuple[Array, ...]:
    """In two steps or in one, and both also by way of a wider type, where a small one is computed."""
    once = np.array([fused(*map(float, v)) for v in zip(x.ravel(), y.ravel(), z.ravel(), strict=True)]).reshape(x.shape)
    twice = round_to(d, x * y) + z
    ways = [twice, once]
    if is_small(d): ways += [once.astype("float32").astype("float64"), ((x * y).astype("float32") + z.astype("float32")).astype("float64")]
    return tuple(ways)


def meaning(op: Op, out: DType, d: DType, xs: list[Array], device: str) -> Want:
    """What `op` on values `xs` of `d` (the condition of WHERE is bool) gives in `out`."""
    xs = list(np.broadcast_arrays(*xs))
    name = op.name
    if not d.is_float:
        table = ON_BOOLS if d.is_bool else ON_INTS
        rows = zip(*[[v.item() if isinstance(v, np.generic) else v for v in x.ravel()] for x in xs], strict=True)
        return Want(out, (np.array([table[name](*row) for row in rows], dtype=object).reshape(xs[0].shape),))
    with np.errstate(all="ignore"):
        if name == "MULACC": return Want(out, mulacc(d, *xs))
        if name in EXACT: values = EXACT[name](*xs)
        else: values = FUNCTIONS[name](*[x.astype(LONG) if d.bits == 64 else x for x in xs])
    return Want(out, (values,), ulps_of(name, d, device), signs=name not in CHOOSES and not out.is_bool)


def is_known(op: Op) -> bool:
    """Whether this file says what `op` means."""
    return op.name in ON_INTS or op.name in ON_BOOLS or op.name in EXACT or op.name in FUNCTIONS or op.name in ("CAST", "BITCAST")

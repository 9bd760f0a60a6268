"""Transcend: the functions of analysis in arithmetic that every device has: +, *, /, compare, select, integer shifts.

in:      one node of EXP EXP2 LOG LOG2 SIN COS TANH ERF POW TRUNC, scalar or vector, any float dtype
out:     a small graph of the same value; float32 and float64 within 2 ulp over their whole domain (measured: see
         tests/passes/test_transcend.py), inf, NaN, signed zeros and subnormal numbers as IEEE 754 and C99 (annex F) say;
         smaller floats are computed in float32 and rounded once; what `span` knows of an argument is not tested again
source:  argument reduction after W. Cody and W. Waite, Software manual for the elementary functions (1980), and for large
         arguments of SIN and COS after M. Payne and R. Hanek (SIGNUM 1983); POW in double-word arithmetic after T. Dekker (1971);
         the splitting of ERF into a polynomial and 1 - 2**polynomial as N. Juffa does; coefficients are our own (tools/polynomials.py)

The arithmetic must be kept as written: (x + MAGIC) - MAGIC rounds x to an integer, so a renderer may not reassociate floats.
"""
from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

from glassgrad.target.target import Target
from glassgrad.uop.bits import compute_dtype
from glassgrad.uop.dtype import TABLE, DType
from glassgrad.uop.infer import is_const
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

POLYNOMIALS = {  # name: coefficients for float32 and float64, lowest power first (tools/polynomials.py makes them)
    "EXP": ((1, 1, 0.49999994, 0.166665196, 0.04166824, 0.00836882368, 0.00138232135),
        (1, 1, 0.50000000000000133, 0.16666666666666488, 0.041666666666511018, 0.0083333333334433615,
         0.0013888888948082145, 0.00019841269621247553, 2.4801488904018929e-05, 2.7557481344673314e-06,
         2.7631633408292703e-07, 2.5033933336803017e-08)),
    "EXP2": ((1, 0.693147182, 0.240226477, 0.0555035956, 0.00961850025, 0.00133909716, 0.00015328922),
        (1, 0.69314718055994529, 0.24022650695910133, 0.055504108664822263, 0.0096181291075923686,
         0.0013333558146344528, 0.00015403530459977692, 1.5252733873363165e-05, 1.3215433647661493e-06,
         1.0178046630164164e-07, 7.07408850918126e-09, 4.4575324197556946e-10)),
    "LOG": ((0.333333313, -0.250008225, 0.200012371, -0.166233152, 0.142016813, -0.131605685, 0.127616748, -0.0763319284),
        (0.3333333333333286, -0.24999999999988237, 0.20000000000150067, -0.1666666666979173, 0.14285714271218605,
         -0.12499999689713839, 0.11111111619693755, -0.10000015584666233, 0.090909097628231711, -0.083328938844385289,
         0.076917781761101103, -0.071499293445255019, 0.066821334238441887, -0.061901698921912766, 0.056798713755918051,
         -0.057222357559651792, 0.064985423745978682, -0.058587901470340639, 0.025121129660760518)),
    "LOG2_PAIR": ((0.577078223, 0.412066996, 0.332492769),
        (0.57707801635558531, 0.41219858311129126, 0.32059889788893176, 0.26230820727598886, 0.22195125970564464,
         0.19245663192265591, 0.167006810863112, 0.18736348392992425)),
    "SIN": ((-0.166666552, 0.00833218265, -0.00019516825),
        (-0.1666666666666663, 0.0083333333333217834, -0.00019841269829276259, 2.755731349943725e-06,
         -2.5050726858473404e-08, 1.5894925390899855e-10)),
    "COS": ((0.0416666456, -0.00138873036, 2.44311959e-05),
        (0.041666666666666588, -0.0013888888888872162, 2.4801587288270165e-05, -2.7557314005620845e-07,
         2.0875676559017961e-09, -1.135724795237795e-11)),
    "TANH": ((-0.333333135, 0.133324444, -0.0538369492, 0.0210062824, -0.00617884798),
        (-0.33333333333333331, 0.13333333333332928, -0.05396825396794537, 0.02186948852438728, -0.0088632352668206859,
         0.003592124286113209, -0.0014557986272942616, 0.00058979361970375979, -0.00023807263379491567,
         9.3646507250677745e-05, -3.2549616762638021e-05, 7.2130508581623888e-06)),
    "ERFC": ((-0.000337983249, -1.6266619, -0.919647276, -0.149601415, 0.031902723, -0.00434932858, 0.000278490799),
        (-4.9060539153156207e-07, -1.6279019187183899, -0.91847290212143284, -0.14819593653821339, 0.027445845145113668,
         0.00052580332649939689, -0.0026951985182768917, 0.0010565733749495728, -0.00016014335178646515,
         -4.6418272363056176e-05, 3.963182197800814e-05, -1.4555615977705262e-05, 3.5670040800908272e-06,
         -6.257744710554104e-07, 7.8431936394168426e-08, -6.7142145593067045e-09, 3.5297072470411522e-10,
         -8.6102043275711188e-12)),
    "ERF": ((0.128379151, -0.376124889, 0.112817168, -0.02676199, 0.00498536369, -0.000594715937),
        (0.12837916709551259, -0.37612638903183898, 0.11283791670960193, -0.026866170645948498, 0.0052239776328141833,
         -0.00085483274337194368, 0.00012055347852449861, -1.4926010872740087e-05, 1.6467984260773035e-06,
         -1.6428681127607596e-07, 1.5222246141642386e-08, -1.3707768875923195e-09, 1.0221212677850297e-10)),
}

ROOT_HALF_BITS = {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}
FRACTION_BITS = 1400           # of pi: float64 needs 971 bits to find the window and 192 more inside it
NEAR = {(True, False): 2.0 ** 16, (True, True): 2.0 ** 27, (False, False): 2.0 ** 12, (False, True): 2.0 ** 20}   # fma, float64: |x| below
TANH_SPLIT, ERF_SPLIT = 0.5625, 0.9375


def transcend(node: UOp, target: Target) -> UOp | None:
    """The value of `node` in basic arithmetic, or None if its op is none of FUNCTIONS. MULACC is used where the target fuses it."""
    make = FUNCTIONS.get(node.op)
    if make is None or not node.dtype.is_float: return None
    wide = compute_dtype(node.dtype)
    fma = target.fma and Ops.MULACC in target.ops
    return make(Arithmetic(wide, fma), *[x.cast(wide) for x in node.src]).cast(node.dtype)


class Arithmetic:
    """Building blocks over one float type: `dtype` and the unsigned integers of its width, scalar or vector.

    `digits` counts the mantissa bits, `magic` is 1.5 * 2**digits: adding it leaves the nearest integer in the low bits.
    """
    def __init__(self, dtype: DType, fma: bool) -> None:
        self.dtype, self.fma, self.digits = dtype, fma, dtype.mantissa
        self.uint = TABLE[f"uint{dtype.bits}"].vec(dtype.lanes)
        self.wide = TABLE["uint64"].vec(dtype.lanes)
        self.bias = (1 << dtype.exponent - 1) - 1
        self.sign = 1 << dtype.bits - 1
        self.inf_bits = ((1 << dtype.exponent) - 1) << self.digits
        self.magic = 1.5 * 2.0 ** self.digits
        self.is_double = dtype.bits == 64

    def const(self, x: float) -> UOp: return UOp.const(self.dtype, x)
    def integer(self, x: int) -> UOp: return UOp.const(self.uint, x)
    def bits(self, x: UOp) -> UOp: return x.bitcast(self.uint)
    def value(self, x: UOp) -> UOp: return x.bitcast(self.dtype)
    def abs(self, x: UOp) -> UOp: return self.value(self.bits(x) & self.sign - 1)
    def with_sign(self, x: UOp, sign: UOp) -> UOp: return self.value(self.bits(x) | sign)
    def sign_of(self, x: UOp) -> UOp: return self.bits(x) & self.sign

    def add_mul(self, x: UOp, y: UOp | float, z: UOp | float) -> UOp:
        """x * y + z, in one rounding if the device can."""
        y, z = (v if isinstance(v, UOp) else self.const(v) for v in (y, z))
        return x.alu(Ops.MULACC, y, z) if self.fma else x * y + z

    def polynomial(self, name: str, x: UOp) -> UOp:
        """Horner's scheme; independent elements keep the pipeline full, so its latency costs nothing."""
        *rest, y = POLYNOMIALS[name][self.is_double]
        y = self.const(y)
        for c in reversed(rest): y = self.add_mul(y, x, c)
        return y

    def clamp(self, x: UOp, lo: float, hi: float) -> UOp:
        """One instruction for each limit that may be passed; NaN stays NaN."""
        least, most = span(x)
        if most > hi: x = (x > hi).where(self.const(hi), x)
        return (x < lo).where(self.const(lo), x) if least < lo else x

    def nearest(self, x: UOp, factor: float | None = None, more: int = 0) -> tuple[UOp, UOp]:
        """(t, n): n is x * factor rounded to an integer, as a float; t holds n + more in its low bits."""
        magic = self.magic + more
        t = x + magic if factor is None else self.add_mul(x, factor, magic)
        return t, t - magic

    def power_of_two(self, limits: tuple[float, float], unit: float = 1.0) -> tuple[int, Callable[[UOp, UOp], UOp]]:
        """(more, scale) for numbers n within limits * unit: scale(p, t) is p * 2**n, subnormal or infinite if need be, for the t of
        nearest(..., more). Whatever stands above the exponent in t is shifted out."""
        lo, hi = math.floor(limits[0] * unit), math.ceil(limits[1] * unit)
        bias, digits = self.bias, self.digits
        up = 2 - bias - lo if lo < 1 - bias else min(0, bias - hi)
        if 1 - bias <= lo + up and hi + up <= bias:                     # p * 2**(n + up) is normal: times 2**-up it is rounded once
            def in_one(p: UOp, t: UOp) -> UOp:
                p = p * self.value(self.bits(t) << digits)
                return p * 2.0 ** -up if up else p
            return bias + up, in_one

        def in_halves(p: UOp, t: UOp) -> UOp:
            half = self.bits(t) >> 1
            return p * self.value(half << digits) * self.value(self.bits(t) - half << digits)
        return 2 * bias, in_halves

    def two_sum(self, x: UOp, y: UOp) -> tuple[UOp, UOp]:
        """x + y without error as (sum, rest), for |x| >= |y| or x = 0."""
        s = x + y
        return s, y - (s - x)

    def two_product(self, x: UOp, y: UOp) -> tuple[UOp, UOp]:
        """x * y without error as (product, rest). The product is an x * y + 0, which no renderer fuses with a later addition."""
        if self.fma:
            p = self.add_mul(x, y, 0.0)
            return p, self.add_mul(x, y, -p)
        p = x * y
        (xh, xl), (yh, yl) = self.halves(x), self.halves(y)
        return p, xl * yl - (p - xh * yh - xl * yh - xh * yl)

    def halves(self, x: UOp) -> tuple[UOp, UOp]:
        """x = high + low with half the bits each, so that products of them are exact."""
        keep = (1 << self.dtype.bits) - (1 << self.digits // 2 + 1)
        high = self.value(self.bits(x) & keep)
        return high, x - high


# ---- constants, exact to FRACTION_BITS -------------------------------------------------------------------------------------------
@functools.cache
def pi() -> int:
    """pi * 2**FRACTION_BITS, after J. Machin (1706): 16 atan(1/5) - 4 atan(1/239)."""
    def atan(n: int) -> int:
        total, power, k = 0, (1 << FRACTION_BITS + 32) // n, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power, k = power // (n * n), k + 2
        return total
    return 16 * atan(5) - 4 * atan(239) >> 32


@functools.cache
def ln2() -> int:
    """ln(2) * 2**FRACTION_BITS to 200 bits: 2 atanh(1/3)."""
    return 2 * sum((1 << FRACTION_BITS) // ((2 * k + 1) * 3 ** (2 * k + 1)) for k in range(70))


CONSTANTS: dict[str, Callable[[], int]] = {
    "pi/2": lambda: pi() >> 1, "2/pi": lambda: (2 << 2 * FRACTION_BITS) // pi(),
    "ln2": ln2, "1/ln2": lambda: (1 << 2 * FRACTION_BITS) // ln2(),
    "2/ln2": lambda: (2 << 2 * FRACTION_BITS) // ln2(), "2/3ln2": lambda: (2 << 2 * FRACTION_BITS) // (3 * ln2()),
}


@functools.cache
def parts(name: str, *digits: int) -> tuple[float, ...]:
    """A constant as a sum of floats with so many digits each, largest first, each the nearest to what is left."""
    rest, out = CONSTANTS[name](), []
    for d in digits:
        cut = abs(rest).bit_length() - d
        nearest = rest + (1 << cut - 1) >> cut
        out.append(math.ldexp(nearest, cut - FRACTION_BITS))
        rest -= nearest << cut
    return tuple(out)


def span(x: UOp, depth: int = 4) -> tuple[float, float]:
    """Limits between which a float lies unless it is NaN, as its last few operations show: what was clamped need not be clamped again."""
    if x.op is Ops.CONST and x.arg == x.arg: return x.arg, x.arg
    if depth and x.op in (Ops.MIN, Ops.MAX): return tuple(map(x.op.py, *(span(s, depth - 1) for s in x.src)))  # type: ignore[return-value]
    if x.op is Ops.BITCAST and x.src[0].op is Ops.AND and is_const(x.src[0].src[1], (1 << x.dtype.bits - 1) - 1): return 0.0, math.inf
    if depth and x.op is Ops.ADD: return tuple(map(sum, zip(*(span(s, depth - 1) for s in x.src))))  # type: ignore[return-value]
    if depth and x.op is Ops.NEG: return tuple(-v for v in reversed(span(x.src[0], depth - 1)))  # type: ignore[return-value]
    if depth and x.op is Ops.CAST and x.src[0].dtype.is_float and x.src[0].dtype.bits < x.dtype.bits: return span(x.src[0], depth - 1)
    if depth and x.op is Ops.WHERE and x.src[0].op in (Ops.CMPLT, Ops.CMPLE):
        (small, large), yes, no = x.src[0].src, *x.src[1:]
        (a, b), (c, d) = (_where_less(v, *pair, depth - 1) for v, pair in ((yes, (small, large)), (no, (large, small))))
        return min(a, c), max(b, d)
    return -math.inf, math.inf


def exponent(n: UOp) -> UOp:
    """The x of exp(x), also where it is written exp(min(x, 0)) because x is known to be at most 0."""
    x = n.src[0]
    return x.src[0] if x.op is Ops.MIN and is_const(x.src[1], 0) else x


def _where_less(x: UOp, small: UOp, large: UOp, depth: int) -> tuple[float, float]:
    """span(x) where small <= large, of which it may be one, or one negated."""
    if x.op is Ops.NEG and x.src[0] in (small, large):
        lo, hi = _where_less(x.src[0], small, large, depth)
        return -hi, -lo
    lo, hi = span(x, depth)
    if x is small: hi = min(hi, span(large, depth)[1])
    if x is large: lo = max(lo, span(small, depth)[0])
    return lo, hi


# ---- exponentials ----------------------------------------------------------------------------------------------------------------
def exp(a: Arithmetic, x: UOp) -> UOp:
    """e**x = p * 2**n: x = n ln2 + r, |r| <= ln2 / 2, p a polynomial of r; n * high is exact also without a fused multiply-add."""
    high, low = parts("ln2", a.digits - 10 if not a.is_double else a.digits - 11, a.digits + 1)
    unit, = parts("1/ln2", 53)
    x = a.clamp(x, *((-746.0, 710.0) if a.is_double else (-104.0, 89.0)))
    more, scale = a.power_of_two(span(x), unit)
    t, n = a.nearest(x, unit, more)
    return scale(a.polynomial("EXP", a.add_mul(n, -low, a.add_mul(n, -high, x))), t)


def exp2(a: Arithmetic, x: UOp) -> UOp:
    """2**x: the whole part in the exponent, the rest by a polynomial."""
    x = a.clamp(x, *((-1076.0, 1024.0) if a.is_double else (-151.0, 128.0)))
    more, scale = a.power_of_two(span(x))
    t, n = a.nearest(x, None, more)
    return scale(a.polynomial("EXP2", x - n), t)


# ---- logarithms ------------------------------------------------------------------------------------------------------------------
def split_exponent(a: Arithmetic, x: UOp) -> tuple[UOp, UOp]:
    """(k, m) as floats with x = m * 2**k, sqrt(1/2) <= m < sqrt(2), for positive finite x."""
    digits, root = a.digits, ROOT_HALF_BITS[a.dtype.name]
    is_tiny = x < 2.0 ** (1 - a.bias)
    u = a.bits(is_tiny.where(x * 2.0 ** digits, x)) + ((a.bias << digits) - root)
    m = a.value((u & (1 << digits) - 1) + root)
    biased = a.value(u >> digits | a.bias + digits << digits)  # 2**digits + exponent: an integer in the low bits of a float
    return biased - is_tiny.where(a.const(2.0 ** digits + a.bias + digits), 2.0 ** digits + a.bias), m


def log_tail(a: Arithmetic, f: UOp) -> tuple[UOp, UOp]:
    """(f**2, f**3 P(f)) with log(1 + f) = f - f**2 / 2 + f**3 P(f)."""
    z = f * f
    return z, f * z * a.polynomial("LOG", f)


def log_edges(a: Arithmetic, x: UOp, y: UOp) -> UOp:
    """A logarithm with its edges: inf stays, 0 gives -inf, negative numbers NaN."""
    y = (x < float("inf")).where(y, x)
    return (a.const(0.0) < x).where(y, x.eq(0.0).where(a.const(-float("inf")), float("nan")))


def log(a: Arithmetic, x: UOp) -> UOp:
    """Natural logarithm: exponent and mantissa apart."""
    k, m = split_exponent(a, x)
    f = m - 1.0
    high, low = parts("ln2", a.digits - 10, a.digits + 1)
    z, w = log_tail(a, f)
    y = f + a.add_mul(z, -0.5, a.add_mul(k, low, w))
    return log_edges(a, x, a.add_mul(k, high, y))


def log2(a: Arithmetic, x: UOp) -> UOp:
    """Base-2 logarithm: exponent and mantissa apart."""
    k, m = split_exponent(a, x)
    f = m - 1.0
    high, low = parts("1/ln2", a.digits + 1, a.digits + 1)
    z, w = log_tail(a, f)
    y = a.add_mul(a.add_mul(z, -0.5, w), high, f * low)
    return log_edges(a, x, a.add_mul(f, high, y) + k)


# ---- sine and cosine -------------------------------------------------------------------------------------------------------------
def sin(a: Arithmetic, x: UOp) -> UOp: return sin_quadrant(a, x, 0)
def cos(a: Arithmetic, x: UOp) -> UOp: return sin_quadrant(a, x, 1)


def sin_quadrant(a: Arithmetic, x: UOp, turn: int) -> UOp:
    """sin(x + turn * pi/2), from |x| = q pi/2 + r, |r| <= pi/4: sine or cosine of r with a sign, by q modulo 4."""
    least, most = span(x)
    is_near, size = max(-least, most) <= NEAR[a.fma, a.is_double], a.abs(x)
    q, r = (near_quadrant if is_near else quadrant)(a, size)
    z = r * r
    sine = a.add_mul(r * z, a.polynomial("SIN", z), r)
    cosine = a.add_mul(z * z, a.polynomial("COS", z), a.add_mul(z, -0.5, 1.0))
    if turn: q = q + turn
    y = (q & 1).eq(0).where(sine, cosine)
    flip = (q >> 1) << a.dtype.bits - 1
    if not turn: flip = flip ^ a.sign_of(x)
    y = a.value(a.bits(y) ^ flip)
    return y if is_near else (size < float("inf")).where(y, float("nan"))


def quadrant(a: Arithmetic, x: UOp) -> tuple[UOp, UOp]:
    """(q, r) for x >= 0: q modulo 4 in the two low bits of an integer whose other bits mean nothing."""
    near_q, near_r = near_quadrant(a, x)
    far_q, far_r = far_quadrant(a, x)
    is_near = x <= NEAR[a.fma, a.is_double]
    return is_near.where(near_q, far_q), is_near.where(near_r, far_r)


def near_quadrant(a: Arithmetic, x: UOp) -> tuple[UOp, UOp]:
    """quadrant() for |x| <= NEAR."""
    if a.fma: digits = (a.digits + 1,) * 3
    else: digits = (33, 33, 33, 53) if a.is_double else (12, 12, 12, 24)
    t, n = a.nearest(x, *parts("2/pi", 53))
    *leads, last = parts("pi/2", *digits)
    r, lost = x, n * -last
    for p in leads:                                            # the leading digits cancel
        before, r = r, a.add_mul(n, -p, r)
        if not a.fma: lost = lost + (before - r - n * p)       # what rounding loses
    return a.bits(t), a.add_mul(n, -last, r) if a.fma else r + lost


def far_quadrant(a: Arithmetic, x: UOp) -> tuple[UOp, UOp]:
    """quadrant() for large x = m * 2**e: m times those bits of 2/pi whose products are neither multiples of 4 nor negligible."""
    mantissa = (a.bits(x) & (1 << a.digits) - 1 | 1 << a.digits).cast(a.wide)
    lead = 39 if a.is_double else 13                           # zeros in front of 2/pi: the window starts at e - 2 + lead >= 0
    start = (a.bits(x) >> a.digits).cast(a.wide) - (a.bias + a.digits + 2 - lead)
    words = window(start, lead, 10 if a.is_double else 7, 3 if a.is_double else 2)
    high, low = (multiply_double if a.is_double else multiply_single)(mantissa, *words)
    top = a.dtype.bits - 2                                     # high counts quadrants in units of 2**-top, low in 2**-bits of that
    q = high + (1 << top - 1) >> top
    rest = high - (q << top)
    negative = rest >> top + 1
    mask = a.integer(0) - negative
    r = quarter_turns(a, rest ^ mask, low ^ mask)
    return q, a.value(a.bits(r) | negative << top + 1)


def window(start: UOp, lead: int, start_bits: int, count: int) -> list[UOp]:
    """`count` words of 64 bits of 2/pi, from bit `start` on."""
    total = 64 * ((1 << start_bits - 6) + count)
    table = CONSTANTS["2/pi"]() >> FRACTION_BITS - (total - lead)
    words = [UOp.const(start.dtype, table >> total - 64 * (i + 1) & (1 << 64) - 1) for i in range(total // 64)]
    for bit in reversed(range(start_bits - 6)):                # halve the table by each bit of the word number
        is_set, step = (start >> 6 + bit & 1).ne(0), 1 << bit
        words = [is_set.where(words[i + step], words[i]) for i in range(step + count)]
    shift = start & 63
    back = shift ^ 63
    return [x << shift | y >> 1 >> back for x, y in itertools.pairwise(words)]


def multiply_single(m: UOp, w0: UOp, w1: UOp) -> tuple[UOp, UOp]:
    """Bits 2**96 and up, and those from 2**64, of m * (w0 w1) for a mantissa of 24 bits."""
    both = m * w0 + (m * (w1 >> 32) >> 32)
    return (both >> 32).cast(TABLE["uint32"]), both.cast(TABLE["uint32"])


def multiply_double(m: UOp, w0: UOp, w1: UOp, w2: UOp) -> tuple[UOp, UOp]:
    """Bits 2**128 and up, and those from 2**64, of m * (w0 w1 w2) for a mantissa of 53 bits."""
    middle = m * w1
    low = middle + high_product(m, w2)
    carry = (low < middle).where(UOp.const(m.dtype, 1), 0)
    return m * w0 + high_product(m, w1) + carry, low


def high_product(x: UOp, y: UOp) -> UOp:
    """The high 64 bits of a product of 64-bit integers, from halves of 32."""
    half = (1 << 32) - 1
    xh, xl, yh, yl = x >> 32, x & half, y >> 32, y & half
    cross = xh * yl + (xl * yl >> 32)                          # < 2**64: (2**32 - 1)**2 + 2**32 - 1
    return xh * yh + (cross >> 32) + ((cross & half) + xl * yh >> 32)


def quarter_turns(a: Arithmetic, high: UOp, low: UOp) -> UOp:
    """high, low (see far_quadrant) quadrants in radians, with no bit lost when the leading ones are 0."""
    if a.is_double: pieces = ((high >> 32, -30), (high & (1 << 32) - 1, -62), (low >> 32, -94), (low & (1 << 32) - 1, -126))
    else: pieces = ((high >> 8, -22), ((high & 255) << 14 | low >> 18, -44), (low & (1 << 18) - 1, -62))
    first, *rest = [(small_float(a, x), 2.0 ** e) for x, e in pieces]
    tail = rest[-1][0] * rest[-1][1]
    for x, unit in reversed(rest[:-1]): tail = a.add_mul(x, unit, tail)
    turn, more = parts("pi/2", a.digits + 1, a.digits + 1)
    rest_turns = a.add_mul(tail, turn, first[0] * (more * first[1]))
    if a.fma: return a.add_mul(first[0], turn * first[1], rest_turns)
    product, error = a.two_product(first[0], a.const(turn * first[1]))
    return product + (error + rest_turns)


def small_float(a: Arithmetic, x: UOp) -> UOp:
    """An integer 0 <= x < 2**digits as a float; where vectors of 64 bits have no conversion, through the low bits of 2**digits."""
    if not a.is_double: return x.bitcast(TABLE["int32"]).cast(a.dtype)
    return a.value(x | a.bias + a.digits << a.digits) - 2.0 ** a.digits


# ---- tanh and erf: a polynomial near 0, 1 - something small far from it ----------------------------------------------------------
def tanh(a: Arithmetic, x: UOp) -> UOp:
    """|x| < 9/16: an odd polynomial; else 1 - 2 / (exp(2|x|) + 1), whose last term is small enough to hide its error."""
    size = a.abs(x)
    z = size * size
    near = a.add_mul(size * z, a.polynomial("TANH", z), size)
    top = a.clamp(size, 0.0, 20.0 if a.is_double else 10.0)
    e = exp(a, top + top)
    far = a.add_mul(a.const(1.0) / (e + 1.0), -2.0, 1.0)
    return a.with_sign((size < TANH_SPLIT).where(near, far), a.sign_of(x))


def erf(a: Arithmetic, x: UOp) -> UOp:
    """|x| < 15/16: x + x P(x**2); else 1 - 2**G(|x|), G a polynomial for log2(erfc)."""
    size = a.abs(x)
    near = a.add_mul(size, a.polynomial("ERF", size * size), size)
    g = a.polynomial("ERFC", a.clamp(size, 0.0, 6.0 if a.is_double else 4.0))
    more, scale = a.power_of_two((-64, 0))                     # erfc(6) is 2**-55
    t, n = a.nearest(g, None, more)
    far = a.const(1.0) - scale(a.polynomial("EXP2", g - n), t)
    return a.with_sign((size < ERF_SPLIT).where(near, far), a.sign_of(x))


# ---- power -----------------------------------------------------------------------------------------------------------------------
def power(a: Arithmetic, x: UOp, y: UOp) -> UOp:
    """2**(y log2|x|) with the logarithm in two words, then the cases of C99, F.9.4.4."""
    size, inf = a.abs(x), float("inf")
    limit = 2.0 ** (66 if a.is_double else 33)                 # beyond it the result overflows or vanishes for every |x| but 1
    bounded = a.clamp(y, -limit, limit)
    high, low = log2_words(a, size)
    ph, pl = a.two_product(bounded, high)
    pl = a.add_mul(bounded, low, pl)
    lo, hi = (-1080.0, 1030.0) if a.is_double else (-160.0, 130.0)
    is_far = (ph < lo) | (ph > hi)
    ph = a.clamp(ph, lo, hi)
    more, scale = a.power_of_two((lo, hi))
    t, n = a.nearest(ph, None, more)
    r = scale(a.polynomial("EXP2", ph - n + is_far.where(a.const(0.0), pl)), t)
    is_zero, below = size.eq(0.0), y < 0.0
    r = (is_zero | size.eq(inf)).where((is_zero ^ below).where(a.const(0.0), inf), r)
    half = y * 0.5
    is_whole, is_odd = truncate(a, y).eq(y), truncate(a, half).ne(half)
    r = a.with_sign(r, (is_whole & is_odd).where(a.sign_of(x), 0))
    bad = ((x < 0.0) & is_whole.not_() & (size < inf)) | x.ne(x) | y.ne(y)
    return (y.eq(0.0) | x.eq(1.0)).where(a.const(1.0), bad.where(a.const(float("nan")), r))


def log2_words(a: Arithmetic, x: UOp) -> tuple[UOp, UOp]:
    """log2 of positive finite x as high + low: k + s (C1 + s**2 (C3 + s**2 R(s**2))), s = (m - 1) / (m + 1); all but R in two words."""
    k, m = split_exponent(a, x)
    top, bottom = m - 1.0, m + 1.0
    lost = m - (bottom - 1.0)
    inverse = a.const(1.0) / bottom
    s = top * inverse
    product, error = a.two_product(s, bottom)
    s_low = (top - product - error - s * lost) * inverse
    zh, zl = a.two_product(s, s)
    zl = a.add_mul(s + s, s_low, zl)
    (c1, c1_low), (c3, c3_low) = (parts(name, a.digits + 1, a.digits + 1) for name in ("2/ln2", "2/3ln2"))
    uh, ul = a.two_sum(a.const(c3), zh * a.polynomial("LOG2_PAIR", zh))
    ul = ul + c3_low
    vh, vl = a.two_product(zh, uh)
    vl = a.add_mul(zl, uh, a.add_mul(zh, ul, vl))
    wh, wl = a.two_sum(a.const(c1), vh)
    wl = wl + (vl + c1_low)
    lh, ll = a.two_product(s, wh)
    ll = a.add_mul(s_low, wh, a.add_mul(s, wl, ll))
    high, low = a.two_sum(k, lh)
    return a.two_sum(high, low + ll)


def truncate(a: Arithmetic, x: UOp) -> UOp:
    """Toward zero: the nearest integer, one less where that is larger; numbers with no fraction are left alone."""
    size = a.abs(x)
    n = size + 2.0 ** a.digits - 2.0 ** a.digits
    n = (n > size).where(n - 1.0, n)
    return (size < 2.0 ** a.digits).where(a.with_sign(n, a.sign_of(x)), x)


FUNCTIONS: dict[Op, Callable[..., UOp]] = {
    Ops.EXP: exp, Ops.EXP2: exp2, Ops.LOG: log, Ops.LOG2: log2, Ops.SIN: sin, Ops.COS: cos, Ops.TANH: tanh, Ops.ERF: erf, Ops.POW: power,
    Ops.TRUNC: truncate,
}

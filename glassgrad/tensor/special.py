"""Special: the functions of analysis and number theory that are compositions of the table's ops, and their relatives of two variables.

Small floats are computed in float32. Formulas are differentiated as they stand, unless a comment says otherwise.
"""
from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.elementwise import align, detach, power, with_gradient_of
from glassgrad.tensor.elementwise import atan as atan_of
from glassgrad.uop.bits import bits_dtype
from glassgrad.uop.dtype import dtypes, promote
from glassgrad.uop.errors import DTypeError, UsageError
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

SHIFT = 8           # the asymptotic series of the gamma family start here: their 7 terms are then exact to 1e-15
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
SQRT_PI = math.sqrt(math.pi)


def series(x: UOp, coefficients: tuple[float, ...]) -> UOp:
    """c[0] + c[1] x + c[2] x² + …, by Horner's scheme."""
    out: UOp = x.const_like(coefficients[-1])
    for c in reversed(coefficients[:-1]): out = out * x + c
    return out


# ---- the gamma family ------------------------------------------------------------------------------------------------------------------
def _lgamma(x: UOp) -> UOp:
    """Stirling's series of x + 8, brought back by the recurrence; the reflection formula below 1/2."""
    low = x < 0.5
    z = low.where(1 - x, x)
    near = z < SHIFT
    small = near.where(z, 1)
    product = small
    for k in range(1, SHIFT): product = product * (small + k)
    big = near.where(z + SHIFT, z)
    r = big.recip()
    tail = series(r * r, tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1))) * r
    huge = (big - big).ne(0)                                       # infinity: its product with log(x) - 1 is all that counts
    value = (big - 0.5) * big.log() - huge.where(0, big) + 0.5 * math.log(2 * math.pi) + tail
    value = value - near.where(product.log(), 0)
    whole = x.eq(x.trunc())
    safe = (low & whole.not_()).where(x - x.trunc(), 0.5)         # sin(pi x) without its sign
    wave = (safe * math.pi).sin()
    mirrored = math.log(math.pi) - (wave < 0).where(-wave, wave).log() - value
    return low.where(whole.where(x.const_like(math.inf), mirrored), value)


def _digamma(x: UOp) -> UOp:
    low = x < 0.5
    z = low.where(1 - x, x)
    near = z < SHIFT
    small = near.where(z, 1)
    before = small.recip()
    for k in range(1, SHIFT): before = before + (small + k).recip()
    big = near.where(z + SHIFT, z)
    r = big.recip()
    value = big.log() - r * 0.5 - series(r * r, (0.0, *(b / (2 * k) for k, b in enumerate(BERNOULLI, 1)))) - near.where(before, 0)
    whole = x.eq(x.trunc())
    part = (low & whole.not_()).where(x - x.trunc(), 0.25) * math.pi
    mirrored = value - part.cos() / part.sin() * math.pi
    return low.where(whole.where(x.eq(0).where(-x.recip(), x.const_like(math.nan)), mirrored), value)


def _polygamma(x: UOp, n: int) -> UOp:
    """The n-th derivative of digamma for x > 0: (-1)^(n+1) n! times the Hurwitz zeta function of n + 1."""
    def raised(y: UOp, k: int) -> UOp: return power(y, y.const_like(k))
    total = raised(x, -n - 1)
    for k in range(1, SHIFT): total = total + raised(x + k, -n - 1)
    z = x + SHIFT
    total = total + raised(z, -n) / n + raised(z, -n - 1) * 0.5
    for k, b in enumerate(BERNOULLI, 1):
        total = total + raised(z, -n - 2 * k) * (b * math.factorial(n + 2 * k - 1) / math.factorial(2 * k) / math.factorial(n))
    return total * ((-1) ** (n + 1) * math.factorial(n))


# ---- the error function's family ---------------------------------------------------------------------------------------------------------
ERFC = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277)
ERFINV_MIDDLE = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06, 3.43273939e-07,
                 2.81022636e-08)
ERFINV_TAIL = (2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322, 0.000100950558,
               -0.000200214257)


def _erfc(x: UOp) -> UOp:
    """float32: a fit of relative error 1.2e-7 (Numerical recipes, 6.2); float64: 1 - erf below 2, above it the continued fraction of
    Laplace.
    """
    low = x < 0
    z = low.where(-x, x)
    if x.dtype is not dtypes.float64:
        t = (z * 0.5 + 1).recip()
        half = t * (series(t, ERFC) - z * z).exp()
    else:
        far = z > 2
        y = far.where(z, 2)
        fraction = y
        for k in range(60, 0, -1): fraction = y + (k / 2) / fraction
        half = far.where((-y * y).exp() / (fraction * SQRT_PI), 1 - z.alu(Ops.ERF))
    half = with_gradient_of(detach(half), 1 - z.alu(Ops.ERF))
    return low.where(2 - half, half)


def _erfinv(y: UOp) -> UOp:
    """A polynomial in log(1 - y²) (M. Giles, Approximating the erfinv function, 2010), for float64 sharpened by Newton's steps."""
    w = -((1 - y) * (y + 1)).log()
    middle = w < 5
    near = series(middle.where(w - 2.5, 0), ERFINV_MIDDLE)
    far = series(middle.where(0, w).sqrt() - 3, ERFINV_TAIL)
    end = (y * y).eq(1)
    x = end.where(y * math.inf, middle.where(near, far) * y)
    def newton(x: UOp) -> UOp: return x + (y - x.alu(Ops.ERF)) * (x * x).exp() * (SQRT_PI / 2)
    if y.dtype is dtypes.float64: x = end.where(x, newton(newton(x)))
    x = detach(x)
    return with_gradient_of(x, newton(newton(x)))        # each step makes more derivatives exact: 1, then 3


class SpecialMixin:
    """Functions that few programs need."""
    __slots__ = ()

    def lgamma(self) -> Tensor:
        """The logarithm of the size of the gamma function; inf at 0, -1, -2, …

        >>> round(Tensor(5.0).lgamma().exp().item(), 3)
        24.0
        """
        return self._map(_lgamma, True)
    def digamma(self) -> Tensor:
        """The derivative of lgamma."""
        return self._map(_digamma, True)
    def polygamma(self, n: int) -> Tensor:
        """The n-th derivative of digamma, for positive x.

        errors:  UsageError for n < 0
        """
        if n < 0: raise UsageError(f"polygamma({n})\n  n must not be negative")
        return self.digamma() if n == 0 else self._map(lambda x: _polygamma(x, n), True)
    def mvlgamma(self, p: int) -> Tensor:
        """The logarithm of the multivariate gamma function of dimension p."""
        total = sum(((self - k / 2).lgamma() for k in range(1, p)), self.lgamma())
        return total + p * (p - 1) / 4 * math.log(math.pi)
    def erfc(self) -> Tensor:
        """1 - erf(x), also where that is tiny."""
        return self._map(_erfc, True)
    def erfinv(self) -> Tensor:
        """The y with erf(y) = x; ±inf at ±1, NaN beyond."""
        return self._map(_erfinv, True)
    def i0(self) -> Tensor:
        """The modified Bessel function of order 0."""
        return self._map(_i0, True)
    def sinc(self) -> Tensor:
        """sin(pi x) / (pi x), 1 at 0."""
        def value(x: UOp) -> UOp:
            zero = x.eq(0)
            y = zero.where(1, x) * math.pi
            return zero.where(1 - x * x * (math.pi ** 2 / 6), y.sin() / y)
        return self._map(value, True)
    def logit(self, eps: float | None = None) -> Tensor:
        """log(x / (1 - x)); with eps, x is first brought to [eps, 1 - eps]."""
        x = self if eps is None else self.clamp(eps, 1 - eps)
        return x._map(lambda x: (x / (1 - x)).log(), True)
    def xlogy(self, y: Any) -> Tensor:
        """x log(y), 0 where x is 0 (and y is a number)."""
        y = self.ufix(y)
        zero = (self == 0) & ~y.isnan()
        return zero.where(0.0, self * zero.where(1.0, y).log())
    def cbrt(self) -> Tensor:
        """The real cube root."""
        return self._map(lambda x: (x < 0).where(-1, x.const_like(1)) * power((x < 0).where(-x, x), x.const_like(1 / 3)), True)
    def deg2rad(self) -> Tensor: return self._map(lambda x: x * (math.pi / 180))
    def rad2deg(self) -> Tensor: return self._map(lambda x: x * (180 / math.pi))

    # ---- two variables -----------------------------------------------------------------------------------------------------------------
    def atan2(self, y: Any) -> Tensor:
        """The angle of the point (y, x) for this as the y coordinate: from -pi to pi.

        >>> round(Tensor(1.0).atan2(-1.0).item(), 4)
        2.3562
        """
        a, b, others = self._pair(y, "atan2", floats=True)
        d = a.dtype
        if d.bits < 32: a, b = a.cast(dtypes.float32), b.cast(dtypes.float32)
        return self._new(_atan2(*align(a, b)).cast(d), *others)
    def hypot(self, y: Any) -> Tensor:
        """sqrt(x² + y²) without overflow."""
        a, b, others = self._pair(y, "hypot", floats=True)
        a, b = align(a, b)
        p, q = (a < 0).where(-a, a), (b < 0).where(-b, b)
        big, small = p.max(q), p.min(q)
        safe = (big.eq(0) | (big - big).ne(0)).where(1, big)
        r = small / safe
        size = big.eq(0).where(big, (big - big).ne(0).where(big, safe * (r * r + 1).sqrt()))
        endless = p.eq(math.inf) | q.eq(math.inf)                   # also beside a NaN
        return self._new(endless.where(size.const_like(math.inf), size), *others)
    def float_power(self, y: Any) -> Tensor:
        """x ** y in float64."""
        return self.double() ** (y.double() if isinstance(y, type(self)) else y)
    def remainder(self, y: Any) -> Tensor:
        """The same as x % y: with the sign of y."""
        return self.mod(y)
    def divmod(self, y: Any) -> tuple[Tensor, Tensor]:
        """(x // y, x % y)"""
        return self.floordiv(y), self.mod(y)
    def fmax(self, y: Any) -> Tensor:
        """The larger of both; the other where one is NaN."""
        y = self.ufix(y)
        return self.isnan().where(y, y.isnan().where(self, self.maximum(y)))
    def fmin(self, y: Any) -> Tensor:
        """The smaller of both; the other where one is NaN."""
        y = self.ufix(y)
        return self.isnan().where(y, y.isnan().where(self, self.minimum(y)))
    def heaviside(self, values: Any) -> Tensor:
        """0 below 0, 1 above, `values` at 0."""
        values = self.ufix(values).cast(self.dtype)
        return self.isnan().where(self, (self == 0).where(values, (self > 0).cast(self.dtype)))
    def gcd(self, y: Any) -> Tensor:
        """The greatest common divisor of ints, by Euclid's algorithm; 0 of two zeros.

        errors:  DTypeError for other than ints
        """
        a, b, others = self._ints(y, "gcd")
        pair = self._new(a, *others).abs().stack(self._new(b, *others).abs())
        # consecutive Fibonacci numbers take longest: 1.44 steps a bit
        for _ in range(int(a.dtype.bits * 1.45)):
            a, b = pair.unbind()
            pair = (b == 0).where(a, b).stack((b == 0).where(0, a.fmod(b))).contiguous()
        return pair[0]
    def lcm(self, y: Any) -> Tensor:
        """The least common multiple of ints, 0 if one is 0."""
        common = self.gcd(y)
        return (self.floordiv((common == 0).where(1, common)) * y).abs()
    def _ints(self, y: Any, what: str) -> tuple[UOp, UOp, tuple[Tensor, ...]]:
        a, b, others = self._pair(y, what)
        if not a.dtype.is_int: raise DTypeError(f"{what} of {self.shape} {self.dtype.short}\n  only ints have divisors\n  try: x.int()")
        return (*align(a, b, what=what), others)
    def ldexp(self, exponent: Any) -> Tensor:
        """x * 2**exponent"""
        return self * self.ufix(exponent).cast(promote(self.dtype, dtypes.default_float)).exp2()
    def frexp(self) -> tuple[Tensor, Tensor]:
        """(m, e) with x = m 2**e and 0.5 <= |m| < 1; (x, 0) for 0, inf and NaN.

        errors:  DTypeError for other than floats
        """
        x = self.uop
        if not x.dtype.is_float: raise DTypeError(f"frexp of {x.shape} {x.dtype.short}\n  floats have exponents\n  try: x.float()")
        d = x.dtype
        bias, lift = (1 << d.exponent - 1) - 1, d.mantissa + 1
        tiny = (x < 0).where(-x, x) < 2.0 ** (1 - bias)
        word = tiny.where(x * 2.0 ** lift, x).bitcast(bits_dtype(d))        # what is below the normal numbers is lifted among them
        exponent = ((word >> d.mantissa) & ((1 << d.exponent) - 1)).cast(dtypes.int32)
        plain = x.eq(0) | (x - x).ne(0)
        mantissa = ((word & ~(((1 << d.exponent) - 1) << d.mantissa)) | ((bias - 1) << d.mantissa)).bitcast(d)
        scale = plain.where(0, exponent - (bias - 1) - tiny.where(lift, exponent.const_like(0)))
        value = with_gradient_of(plain.where(x, mantissa), x * (-detach(scale.cast(d))).exp2())
        return self._new(value), self._new(scale)
    def modf(self) -> tuple[Tensor, Tensor]:
        """(what stands behind the point, what before it), both with the sign of x."""
        whole = self.trunc()
        return self.isinf().where(0.0, self - self.isinf().where(0.0, whole)), whole

    # ---- signs and what is no number ---------------------------------------------------------------------------------------------------
    def signbit(self) -> Tensor:
        """Whether the sign is minus, also of -0.0."""
        x = self.uop
        if not x.dtype.is_float: return self < 0
        word = bits_dtype(x.dtype)
        return self._new((x.bitcast(word) >> (x.dtype.bits - 1)).ne(0))
    def isposinf(self) -> Tensor: return self.isinf(detect_negative=False)
    def isneginf(self) -> Tensor: return self.isinf(detect_positive=False)
    def nan_to_num(self, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """`nan` for NaN, the largest and smallest numbers (or posinf, neginf) for infinities.

        >>> Tensor([float("nan"), 1.0]).nan_to_num(7).tolist()
        [7.0, 1.0]
        """
        if not self.dtype.is_float: return self
        most = self.dtype.largest
        x = self.isposinf().where(most if posinf is None else posinf, self)
        x = self.isneginf().where(-most if neginf is None else neginf, x)
        return self.isnan().where(nan, x)
    def nextafter(self, y: Any) -> Tensor:
        """The next float from x towards y."""
        a, b, others = self._pair(y, "nextafter", floats=True)
        a, b = align(a, b)
        word = {16: dtypes.int16, 32: dtypes.int32, 64: dtypes.int64}[a.dtype.bits]
        bits = a.bitcast(word)
        away = (a < b).eq(a > 0)                                    # larger in size
        step = away.where(bits + 1, bits - 1).bitcast(a.dtype)
        first = (b < 0).where(bits.const_like(1 - (1 << word.bits - 1)), 1).bitcast(a.dtype)     # the smallest number, on the side of y
        out = a.eq(b).where(b, a.eq(0).where(first, step))
        return self._new(detach((a.ne(a) | b.ne(b)).where(a + b, out)), *others)

    # ---- activations ---------------------------------------------------------------------------------------------------------------------
    def glu(self, dim: int = -1) -> Tensor:
        """The first half of an axis times the sigmoid of the second."""
        a, b = self.chunk(2, dim)
        return a * b.sigmoid()
    def prelu(self, weight: Tensor) -> Tensor:
        """x where it is positive, else x * weight; one weight, or one for each index of axis 1."""
        if weight.numel() > 1 and self.ndim > 1: weight = weight.reshape(-1, *[1] * (self.ndim - 2))
        return (self > 0).where(self, self * weight)
    def rrelu(self, lower: float = 1 / 8, upper: float = 1 / 3) -> Tensor:
        """leaky_relu with a random slope for each element in training, else with the mean slope."""
        if not type(self).training: return self.leaky_relu((lower + upper) / 2)
        return (self >= 0).where(self, self * type(self).uniform(*self.shape, low=lower, high=upper, device=self._storage.device))
    def threshold(self, threshold: float, value: float) -> Tensor:
        """x where it is above threshold, else value."""
        return (self > threshold).where(self, value)
    def hardshrink(self, lambd: float = 0.5) -> Tensor: return (self.abs() > lambd).where(self, 0.0)
    def softshrink(self, lambd: float = 0.5) -> Tensor: return (self > lambd).where(self - lambd, (self < -lambd).where(self + lambd, 0.0))
    def tanhshrink(self) -> Tensor: return self - self.tanh()
    def gumbel_softmax(self, tau: float = 1.0, hard: bool = False, dim: int = -1) -> Tensor:
        """A random draw for each row of logits, softened so that it has a gradient; `hard`: one-hot, with the gradient of the soft one."""
        noise = -(-type(self).rand(*self.shape, device=self._storage.device).maximum(1e-30).log()).log()
        soft = ((self + noise) / tau).softmax(dim)
        if not hard: return soft
        a = self._axis(dim)
        one = soft.argmax(a, keepdim=True) == type(self).arange(self.shape[a]).reshape(*[-1 if i == a else 1 for i in range(self.ndim)])
        return one.cast(soft.dtype).with_gradient_of(soft)

    # ---- fused names
    # -----------------------------------------------------------------------------------------------------------------------
    def addcmul(self, a: Tensor, b: Tensor, value: float = 1.0) -> Tensor: return self + a * b * value
    def addcdiv(self, a: Tensor, b: Tensor, value: float = 1.0) -> Tensor: return self + a / b * value


def _i0(x: UOp) -> UOp:
    """Its power series up to 18, beyond that the asymptotic one times exp(x) / sqrt(2 pi x): both are then exact to 1e-15."""
    a = (x < 0).where(-x, x)
    near = a < 18
    q = near.where(a * a * 0.25, 1)
    terms = tuple(1 / math.factorial(k) ** 2 for k in range(46 if x.dtype is dtypes.float64 else 34))
    far = near.where(18, a)
    tail = functools.reduce(lambda c, k: [*c, c[-1] * (2 * k - 1) ** 2 / (8 * k)], range(1, 20), [1.0])
    scale = (far * 0.5).exp()                                            # in two parts: exp(far) overflows before the quotient does
    return near.where(series(q, terms), scale * (series(far.recip(), tuple(tail)) / (far * (2 * math.pi)).sqrt()) * scale)


def _atan2(y: UOp, x: UOp) -> UOp:
    low, left = _minus(y), _minus(x)
    p, q = (y < 0).where(-y, y), (x < 0).where(-x, x)
    steep = p > q
    big, small = steep.where(p, q), steep.where(q, p)
    both = (big - big).ne(0) & (small - small).ne(0) & big.eq(big) & small.eq(small)
    ratio = both.where(1, small / big.eq(0).where(1, (big - big).ne(0).where(1, big)))
    ratio = ((big - big).ne(0) & both.not_() & big.eq(big)).where(small * 0, ratio)
    angle = atan_of(ratio)
    angle = steep.where(math.pi / 2 - angle, angle)
    angle = left.where(math.pi - angle, angle)
    value = low.where(-angle, angle)
    return x.ne(x).where(x, y.ne(y).where(y, value))


def _minus(x: UOp) -> UOp:
    """Is the sign minus, also of -0.0?"""
    return (x.bitcast(bits_dtype(x.dtype)) >> (x.dtype.bits - 1)).ne(0)

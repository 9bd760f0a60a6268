"""Elementwise: arithmetic with broadcasting and promotion, comparisons, functions of one variable, activations.

Python numbers are weak: they take the tensor's dtype, or the default float beside an int tensor. Formulas are written so that neither the
value nor the gradient overflows where the true one does not; those of several steps compute small floats in float32.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import operand
from glassgrad.tensor.creation import iota
from glassgrad.uop.dtype import DType, dtypes, promote, to_dtype
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

LOG2E, LN2, LN10 = math.log2(math.e), math.log(2), math.log(10)
NUMBERS = (bool, int, float)


# ---- operands --------------------------------------------------------------------------------------------------------------------
def broadcast_shapes(*shapes: tuple[int, ...], what: str = "an operation") -> tuple[int, ...]:
    """The shape all broadcast to, by NumPy's rule.

    errors:  ShapeError naming the axis that does not fit
    """
    n = max(map(len, shapes))
    out = []
    for i in range(n):
        sizes = {s[i - n + len(s)] for s in shapes if i - n + len(s) >= 0} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"{what} of {' and '.join(map(str, shapes))}\n"
                             f"  axis {i - n} is {' and '.join(map(str, sorted(sizes)))}; the sizes must be equal or 1")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def align(*nodes: UOp, what: str = "an operation") -> tuple[UOp, ...]:
    """The nodes in one shape; scalars stay as they are."""
    first = None
    for x in nodes:
        if x.shape:
            if first is None: first = x.shape
            elif x.shape != first: break
    else: return nodes
    shape = broadcast_shapes(*(x.shape for x in nodes), what=what)
    return tuple(x.broadcast_to(shape) if x.shape else x for x in nodes)


def scalar_dtype(d: DType, value: Any) -> DType:
    """The dtype of a tensor of `d` together with a Python number."""
    if d.is_float: return d
    if isinstance(value, float): return dtypes.default_float
    if d.is_bool and type(value) is not bool: return dtypes.default_int
    return d


def _fit(x: UOp, value: Any, what: str, bits: bool, compare: bool) -> tuple[UOp, UOp]:
    """A node and a Python number in one dtype."""
    d = scalar_dtype(x.dtype, value)
    if d.is_int and type(value) is int and not d.min <= value <= d.max and not bits:
        wide = dtypes.int64 if compare and -(1 << 63) <= value < 1 << 63 and d is not dtypes.uint64 else dtypes.float64
        if not compare:
            raise DTypeError(f"{what} of {x.shape} {x.dtype.short} and {value}\n  {d.name} goes from {d.min} to {d.max}\n"
                             f"  try: .cast(dtypes.int64) first")
        d = wide
    return x.cast(d), UOp.const(d, value)


def _check_number(x: UOp, what: str) -> None:
    if x.dtype.is_bool: raise DTypeError(f"{what} of a bool tensor {x.shape}\n  bools are not subtracted\n  try: x.logical_not() or x ^ y")


def floor_div(x: UOp, y: UOp) -> UOp:
    """Python's //: toward minus infinity."""
    if x.dtype.is_float: return floor(x / y)
    if x.dtype.is_unsigned: return x // y
    rest = x % y
    if y.op is Ops.CONST and y.arg > 0: return x // y - (rest < 0).cast(x.dtype)
    return x // y - (((rest ^ y) < 0) & rest.ne(0) & y.ne(0)).cast(x.dtype)


def floor_mod(x: UOp, y: UOp) -> UOp:
    """Python's %: with the sign of y."""
    if x.dtype.is_float: return x - floor(x / y) * y
    if x.dtype.is_unsigned: return x % y
    rest = x % y
    wrong = rest < 0 if y.op is Ops.CONST and y.arg > 0 else ((rest ^ y) < 0) & rest.ne(0)
    return wrong.where(rest + y, rest)


def floor(x: UOp) -> UOp:
    """Toward minus infinity."""
    if not x.dtype.is_float: return x
    t = x.trunc()
    return (x < t).where(t - 1, t)


def power(x: UOp, y: UOp) -> UOp:
    """x ** y in their one dtype. Small constant exponents are multiplications."""
    constant = y.arg if y.op is Ops.CONST else None
    if not x.dtype.is_float: return _int_power(x, y, constant)
    if x.op is Ops.CONST: return y.exp2() if x.arg == 2 else x.pow(y)
    if constant is None: return x.pow(y)
    if constant == 0.5: return x.sqrt()
    if constant == -0.5: return x.sqrt().recip()
    if constant == 0: return x.const_like(1)
    if abs(constant) <= 4 and constant == int(constant):
        p = _multiply_up(x, int(abs(constant)))
        return p if constant > 0 else p.recip()
    return x.pow(y)


def _multiply_up(x: UOp, k: int) -> UOp:
    """x ** k for k > 0 by squaring."""
    out: UOp | None = None
    while k:
        if k & 1: out = x if out is None else out * x
        k >>= 1
        if k: x = x * x
    assert out is not None, "an exponent above zero has a bit"
    return out


def _int_power(x: UOp, y: UOp, constant: Any) -> UOp:
    if constant is not None: return _multiply_up(x, constant) if constant > 0 else x.const_like(1)
    out: UOp | None = None
    for bit in range(y.dtype.bits - (not y.dtype.is_unsigned)):
        has = ((y >> bit) & 1).ne(0)
        out = has.where(x, x.const_like(1)) if out is None else has.where(out * x, out)
        x = x * x
    assert out is not None, "an integer has bits"
    return out


# ---- functions of one variable -----------------------------------------------------------------------------------------------------
def detach(x: UOp) -> UOp: return UOp(Ops.DETACH, x.dtype, (x,))
def with_gradient_of(x: UOp, surrogate: UOp) -> UOp: return UOp(Ops.SURROGATE, x.dtype, (x, surrogate))


# where() with a branch on the side of zero, not abs(), keeps the gradient at zero the true one

def _log1p(x: UOp) -> UOp:
    u = x + 1
    lost = detach((x - (u - 1)) / u)                   # what 1 + x rounded away, relative to u
    near = (x < 1) & (x > -0.5)
    return u.log() + near.where(lost, 0)

def _expm1(x: UOp) -> UOp:
    small = (x < 1) & (x > -1)
    t = (small.where(x, 0) * 0.5).alu(Ops.TANH)
    return small.where(t * 2 / (1 - t), x.exp() - 1)

def _sigmoid(x: UOp) -> UOp:
    up = x >= 0
    e = up.where(-x, x).exp()                          # never overflows
    return up.where(1, e) / (e + 1)

def _softplus(x: UOp) -> UOp:
    up = x > 0
    return up.where(x, 0) + _log1p(up.where(-x, x).exp())

def _tan(x: UOp) -> UOp: return x.sin() / x.cos()

def atan(x: UOp) -> UOp:
    """Cephes' atan: the argument brought to [-0.66, 0.66], then a rational function."""
    low = x < 0
    a = low.where(-x, x)
    far, mid = a > 2.414213562373095, a > 0.66
    part = far.where(a, x.const_like(1)).recip()
    near = far.where(1, a)                             # infinity must not meet itself in the branch not taken
    y = far.where(-part, mid.where((near - 1) / (near + 1), a))
    z = y * y
    p = _poly(z, (-8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1, -1.228866684490136173410e2, -6.485021904942025371773e1))
    q = _poly(z, (1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2, 4.853903996359136964868e2, 1.945506571482613964425e2))
    r = far.where(x.const_like(math.pi / 2), mid.where(x.const_like(math.pi / 4), 0)) + (y * (z * (p / q)) + y)
    return low.where(-r, r)

def _poly(x: UOp, coefficients: tuple[float, ...]) -> UOp:
    out: UOp = x.const_like(coefficients[0])
    for c in coefficients[1:]: out = out * x + c if out.op is not Ops.CONST or out.arg != 1 else x + c
    return out

def _asin(x: UOp) -> UOp: return atan(x / ((1 - x) * (x + 1)).sqrt())
def _acos(x: UOp) -> UOp:
    low = x < 0                                        # acos(-x) = pi - acos(x)
    a = low.where(-x, x)
    r = atan(((1 - a) / (a + 1)).sqrt()) * 2
    return low.where(math.pi - r, r)

def _sinh(x: UOp) -> UOp:
    m = _expm1(x)
    small = (x < 1) & (x > -1)
    safe = small.where(m, 0)
    return small.where((safe + safe / (safe + 1)) * 0.5, (x.exp() - (-x).exp()) * 0.5)
def _cosh(x: UOp) -> UOp: return (x.exp() + (-x).exp()) * 0.5
def _asinh(x: UOp) -> UOp:
    low = x < 0
    a = low.where(-x, x)
    big = a > 1e9
    s = big.where(x.const_like(1), a)
    r = big.where(big.where(a, 1).log() + LN2, _log1p(s + s * s / ((s * s + 1).sqrt() + 1)))
    return low.where(-r, r)
def _acosh(x: UOp) -> UOp:
    big = x > 1e9
    t = big.where(x.const_like(1), x - 1)
    return big.where(big.where(x, 1).log() + LN2, _log1p(t + (t * (t + 2)).sqrt()))
def _atanh(x: UOp) -> UOp: return _log1p(x * 2 / (1 - x)) * 0.5

def _round(x: UOp) -> UOp:
    """Half to even."""
    t = x.trunc()
    rest = x - t
    size = (rest < 0).where(-rest, rest)
    odd = ((t * 0.5).trunc() * 2).ne(t)
    away = (size > 0.5) | (size.eq(0.5) & odd)
    return away.where(t + (x < 0).where(x.const_like(-1), 1), t)

def _gelu_tanh(x: UOp) -> UOp:
    """x (1 + tanh(u)) / 2 as x / (1 + exp(-2u)): one exponential instead of tanh's two branches, and no digits lost for x < 0."""
    def odd(c: float) -> UOp: return x * (x * x * (0.044715 * c) + c)
    c = math.sqrt(2 / math.pi)
    small = odd(-2 / math.log(2) * c).alu(Ops.MAX, x.const_like(-64.0))          # 1 + less than 2**-64 is 1
    return with_gradient_of(x / (small.exp2() + 1), x * 0.5 * (odd(c).alu(Ops.TANH) + 1))   # exp2 may overflow: its gradient would be NaN
def _gelu_erf(x: UOp) -> UOp: return x * 0.5 * ((x * (1 / math.sqrt(2))).alu(Ops.ERF) + 1)
def _clamp(x: UOp, lo: Any, hi: Any) -> UOp:
    if lo is not None: x = (x < lo).where(x.const_like(lo), x)
    if hi is not None: x = (x > hi).where(x.const_like(hi), x)
    return x
def _sign(x: UOp) -> UOp:
    if x.dtype.is_bool: return x
    out = (x < 0).where(x.const_like(0 if x.dtype.is_unsigned else -1), (x > 0).where(x.const_like(1), 0))
    return x.ne(x).where(x, out) if x.dtype.is_float else out
def _relu(x: UOp) -> UOp: return (x > 0).where(x, 0) if not x.dtype.is_float else ((x <= 0).where(x.const_like(0), x))   # NaN stays NaN


class ElementwiseMixin:
    """Methods that work on each element."""
    __slots__ = ()

    # ---- the three ways to apply a function ----------------------------------------------------------------------------------------
    def _map(self, f: Callable[[UOp], UOp], wide: bool = False) -> Tensor:
        """f on floats (ints become default_float); `wide`: computed in float32 at least."""
        x = self.uop
        d = x.dtype
        if not d.is_float: x, d = x.cast(dtypes.default_float), dtypes.default_float
        if wide and d.bits < 32: return self._new(f(x.cast(dtypes.float32)).cast(d))
        return self._new(f(x))

    def _pair(self, y: Any, what: str, bits: bool = False, compare: bool = False, floats: bool = False,
              reverse: bool = False) -> tuple[UOp, UOp, tuple[Tensor, ...]]:
        """This and `y` as nodes of one dtype and shape, in the order of the operands, and the tensors among `y`."""
        a = self.uop
        if isinstance(y, NUMBERS):
            if floats and not a.dtype.is_float: a = a.cast(dtypes.default_float)
            a, b = _fit(a, y, what, bits, compare)
            return (b, a, ()) if reverse else (a, b, ())
        if not isinstance(y, type(self)): y = operand(type(self), y, self, what)
        b = y.uop
        if a.dtype is not b.dtype or (floats and not a.dtype.is_float):
            d = promote(a.dtype, b.dtype)
            if floats and not d.is_float: d = dtypes.default_float
            a, b = a.cast(d), b.cast(d)
        if reverse: a, b = b, a
        a, b = align(a, b, what=what)
        return a, b, (y,)

    def _binary(self, op: Op, y: Any, what: str, reverse: bool = False, **more: bool) -> Tensor:
        a, b, others = self._pair(y, what, reverse=reverse, **more)
        return self._new(a.alu(op, b), *others)

    def alu(self, op: Op, *others: Any) -> Tensor:
        """An op of the op table on this tensor and others, broadcast, in their common dtype."""
        if not others: return self._new(self.uop.alu(op))
        if len(others) == 1: return self._binary(op, others[0], op.name.lower())
        ys = [y if isinstance(y, type(self)) else self.full_like(y) for y in others]
        return self._new(align(*(t.uop for t in (self, *ys)))[0].alu(op, *align(*(t.uop for t in (self, *ys)))[1:]), *ys)

    def ufix(self, x: Any) -> Tensor:
        """`x` as a tensor that this one can be combined with: a number takes this dtype where it fits.

        >>> Tensor([1.5]).ufix(2).dtype
        dtypes.float32
        """
        if not isinstance(x, NUMBERS): return operand(type(self), x, self, "ufix")
        return type(self)(x, device=self._storage.device, dtype=scalar_dtype(self.dtype, x))

    # ---- arithmetic ----------------------------------------------------------------------------------------------------------------
    def add(self, y: Any, reverse: bool = False) -> Tensor:
        """x + y; for bools: or."""
        a, b, others = self._pair(y, "add", reverse=reverse)
        return self._new(a.alu(Ops.OR if a.dtype.is_bool else Ops.ADD, b), *others)
    def sub(self, y: Any, reverse: bool = False) -> Tensor:
        """x - y

        errors:  DTypeError for two bools
        """
        a, b, others = self._pair(y, "sub", reverse=reverse)
        _check_number(a, "sub")
        return self._new(a.alu(Ops.SUB, b), *others)
    def mul(self, y: Any, reverse: bool = False) -> Tensor:
        """x * y; for bools: and."""
        a, b, others = self._pair(y, "mul", reverse=reverse)
        return self._new(a.alu(Ops.AND if a.dtype.is_bool else Ops.MUL, b), *others)
    def div(self, y: Any, reverse: bool = False, rounding_mode: str | None = None) -> Tensor:
        """x / y as floats; rounding_mode "trunc" or "floor" rounds and keeps ints ints.

        errors:  UsageError for another mode
        """
        if rounding_mode is None:
            a, b, others = self._pair(y, "div", floats=True, reverse=reverse)
            return self._new(a / b, *others)
        if rounding_mode not in ("trunc", "floor"):
            raise UsageError(f"div with rounding_mode={rounding_mode!r}\n  try: None, 'trunc' or 'floor'")
        a, b, others = self._pair(y, "div", reverse=reverse)
        if a.dtype.is_bool: a, b = a.cast(dtypes.default_int), b.cast(dtypes.default_int)
        if rounding_mode == "floor": return self._new(floor_div(a, b), *others)
        return self._new((a / b).trunc() if a.dtype.is_float else a // b, *others)
    def floordiv(self, y: Any, reverse: bool = False) -> Tensor:
        """x // y, toward minus infinity; an int divided by zero gives 0."""
        return self.div(y, reverse, "floor")
    def mod(self, y: Any, reverse: bool = False) -> Tensor:
        """x % y with the sign of y, as in Python.

        >>> (Tensor([-7, 7]) % 3).tolist()
        [2, 1]
        """
        a, b, others = self._pair(y, "mod", reverse=reverse)
        if a.dtype.is_bool: a, b = a.cast(dtypes.default_int), b.cast(dtypes.default_int)
        return self._new(floor_mod(a, b), *others)
    def fmod(self, y: Any) -> Tensor:
        """What x divided by y toward zero leaves over, with the sign of x, as in C."""
        a, b, others = self._pair(y, "fmod")
        if a.dtype.is_bool: a, b = a.cast(dtypes.default_int), b.cast(dtypes.default_int)
        return self._new(a - (a / b).trunc() * b if a.dtype.is_float else a % b, *others)
    def pow(self, y: Any, reverse: bool = False) -> Tensor:
        """x ** y

        errors:  UsageError for an int to a negative power
        """
        a, b, others = self._pair(y, "pow", reverse=reverse)
        if a.dtype.is_bool: a, b = a.cast(dtypes.default_int), b.cast(dtypes.default_int)
        if a.dtype.is_int and b.op is Ops.CONST and b.arg < 0:
            raise UsageError(f"pow of {self.shape} {self.dtype.short} and {b.arg}\n  ints have no negative powers\n"
                             f"  try: x.float() ** {b.arg}")
        x, y_ = align(a, b, what="pow")
        out = power(x, y_)
        if out.shape != x.shape and x.shape: out = out.broadcast_to(x.shape)
        return self._new(out, *others)
    def maximum(self, y: Any) -> Tensor:
        """The larger of both; NaN if one is."""
        return self._binary(Ops.MAX, y, "maximum")
    def minimum(self, y: Any) -> Tensor:
        """The smaller of both; NaN if one is."""
        return self._binary(Ops.MIN, y, "minimum")
    def neg(self) -> Tensor:
        """-x; for bools: not."""
        return self.logical_not() if self.dtype.is_bool else self._new(-self.uop)
    def reciprocal(self) -> Tensor: return self._map(UOp.recip)
    def square(self) -> Tensor:
        x = self.uop
        return self._new(x if x.dtype.is_bool else x * x)
    def lerp(self, end: Tensor, weight: Any) -> Tensor:
        """x + (end - x) * weight"""
        return self + (end - self) * weight
    def copysign(self, y: Any) -> Tensor:
        """The size of x with the sign of y; -0.0 counts as negative."""
        a, b, others = self._pair(y, "copysign", floats=True)
        word = {16: dtypes.int16, 32: dtypes.int32, 64: dtypes.int64, 8: dtypes.int8}[a.dtype.bits]
        wrong = ((a.bitcast(word) ^ b.bitcast(word)) < 0)
        return self._new(wrong.where(-a, a), *others)
    def logaddexp(self, y: Any) -> Tensor:
        """log(exp(x) + exp(y))"""
        a, b, others = self._pair(y, "logaddexp", floats=True)
        hi, lo = (a >= b).where(a, b), (a >= b).where(b, a)
        same = a.eq(b) & (hi - hi).ne(0)                # both inf or both -inf, where lo - hi is NaN
        gap = same.where(hi.const_like(0), lo - hi)
        return self._new(hi + _log1p(gap.exp()), *others)
    def logaddexp2(self, y: Any) -> Tensor: return (self * LN2).logaddexp((y if isinstance(y, type(self)) else type(self)(y)) * LN2) * LOG2E

    # ---- bits and logic ------------------------------------------------------------------------------------------------------------
    def _bits(self, op: Op, y: Any, what: str, reverse: bool = False) -> Tensor:
        a, b, others = self._pair(y, what, bits=True, reverse=reverse)
        if a.dtype.is_float:
            raise DTypeError(f"{what} of {self.shape} {self.dtype.short}\n  floats have no bits to combine\n  try: x.bitcast(dtypes.int32)")
        return self._new(a.alu(op, b), *others)
    def bitwise_and(self, y: Any, reverse: bool = False) -> Tensor: return self._bits(Ops.AND, y, "bitwise_and", reverse)
    def bitwise_or(self, y: Any, reverse: bool = False) -> Tensor: return self._bits(Ops.OR, y, "bitwise_or", reverse)
    def bitwise_xor(self, y: Any, reverse: bool = False) -> Tensor: return self._bits(Ops.XOR, y, "bitwise_xor", reverse)
    def bitwise_not(self) -> Tensor:
        x = self.uop
        if x.dtype.is_float:
            raise DTypeError(f"bitwise_not of {x.shape} {x.dtype.short}\n  floats have no bits to combine\n  try: x.logical_not()")
        return self._new(x ^ (True if x.dtype.is_bool else -1))
    def lshift(self, y: Any, reverse: bool = False) -> Tensor: return self._shift(Ops.SHL, y, "lshift", reverse)
    def rshift(self, y: Any, reverse: bool = False) -> Tensor: return self._shift(Ops.SHR, y, "rshift", reverse)
    def _shift(self, op: Op, y: Any, what: str, reverse: bool) -> Tensor:
        if isinstance(y, int) and not reverse and not 0 <= y < self.dtype.bits:
            raise UsageError(f"{what} of {self.shape} {self.dtype.short} by {y}\n  the shift must be from 0 to {self.dtype.bits - 1}")
        return self._bits(op, y, what, reverse)
    def logical_not(self) -> Tensor: return self._new(self.uop.cast(dtypes.bool) ^ True)
    def logical_and(self, y: Any) -> Tensor: return self.bool() & (y.bool() if isinstance(y, type(self)) else bool(y))
    def logical_or(self, y: Any) -> Tensor: return self.bool() | (y.bool() if isinstance(y, type(self)) else bool(y))
    def logical_xor(self, y: Any) -> Tensor: return self.bool() ^ (y.bool() if isinstance(y, type(self)) else bool(y))
    def threefry(self, key: Tensor) -> Tensor:
        """Random words from uint64 counters and a uint64 key."""
        a, b = align(self.uop.cast(dtypes.uint64), key.uop.cast(dtypes.uint64))
        return self._new(a.alu(Ops.THREEFRY, b), key)

    # ---- comparisons and choice ------------------------------------------------------------------------------------------------------
    def eq(self, y: Any) -> Tensor: return self._binary(Ops.CMPEQ, y, "eq", compare=True)
    def ne(self, y: Any) -> Tensor: return self._binary(Ops.CMPNE, y, "ne", compare=True)
    def lt(self, y: Any) -> Tensor: return self._binary(Ops.CMPLT, y, "lt", compare=True)
    def le(self, y: Any) -> Tensor: return self._binary(Ops.CMPLE, y, "le", compare=True)
    def gt(self, y: Any) -> Tensor: return self._binary(Ops.CMPLT, y, "gt", reverse=True, compare=True)
    def ge(self, y: Any) -> Tensor: return self._binary(Ops.CMPLE, y, "ge", reverse=True, compare=True)

    def where(self, x: Any, y: Any) -> Tensor:
        """x where this is true (not zero), else y.

        dtypes:  promote(x, y); a Python number takes the other's

        >>> Tensor([True, False]).where(1.5, 2).tolist()
        [1.5, 2.0]
        """
        cls = type(self)
        if isinstance(x, NUMBERS) and isinstance(y, NUMBERS):
            d = promote(dtypes.from_py(x), dtypes.from_py(y))
            a, b, others = UOp.const(d, x), UOp.const(d, y), ()
        elif isinstance(x, NUMBERS):
            y = operand(cls, y, self, "where")
            b, a = _fit(y.uop, x, "where", False, False)
            others = (y,)
        else:
            x = operand(cls, x, self, "where")
            a, b, others = x._pair(y, "where")
            others = (x, *others)
        cond = self.uop.cast(dtypes.bool)
        cond, a, b = align(cond, a, b, what="where")
        return self._new(cond.alu(Ops.WHERE, a, b), *others)
    def masked_fill(self, mask: Tensor, value: Any) -> Tensor:
        """`value` where the mask is true."""
        return mask.where(value, self)
    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """min where x is less, max where it is greater; NaN stays. The gradient passes where x was kept, bounds included.

        errors:  UsageError without any bound
        """
        if min is None and max is None: raise UsageError("clamp without min and max\n  at least one bound is needed")
        if all(b is None or isinstance(b, NUMBERS) for b in (min, max)):
            x = self.uop
            d = functools.reduce(scalar_dtype, [b for b in (min, max) if b is not None], x.dtype)
            return self._new(_clamp(x.cast(d), min, max))
        t = self if min is None else (self < min).where(min, self)
        return t if max is None else (t > max).where(max, t)
    def clip(self, min: Any = None, max: Any = None) -> Tensor: return self.clamp(min, max)
    def isnan(self) -> Tensor: return self._new(self.uop.ne(self.uop))
    def isinf(self, detect_positive: bool = True, detect_negative: bool = True) -> Tensor:
        up, down = self == float("inf"), self == float("-inf")
        return (up if detect_positive else up & False) | (down if detect_negative else down & False)
    def isfinite(self) -> Tensor:
        x = self.uop
        if not x.dtype.is_float: return self._new(x.eq(x))
        return self._new((x - x).eq(0))
    def isclose(self, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        """|x - y| <= atol + rtol * |y|"""
        y = y if isinstance(y, type(self)) else type(self)(y)
        near = self.isfinite() & y.isfinite() & ((self.sub(y) if not self.dtype.is_bool else self.int() - y.int()).abs() <= atol + rtol * y.abs())
        out = near | (self == y)
        return out | (self.isnan() & y.isnan()) if equal_nan else out
    def allclose(self, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Whether all elements are close, as a Python bool."""
        return bool(self.isclose(y, rtol, atol, equal_nan).all().item())

    # ---- functions -------------------------------------------------------------------------------------------------------------------
    def exp(self) -> Tensor: return self._map(UOp.exp)
    def exp2(self) -> Tensor: return self._map(UOp.exp2)
    def expm1(self) -> Tensor:
        """exp(x) - 1, also where x is small."""
        return self._map(_expm1, True)
    def log(self) -> Tensor: return self._map(UOp.log)
    def log2(self) -> Tensor: return self._map(UOp.log2)
    def log10(self) -> Tensor: return self._map(lambda x: x.log() * (1 / LN10), True)
    def log1p(self) -> Tensor:
        """log(1 + x), also where x is small."""
        return self._map(_log1p, True)
    def sqrt(self) -> Tensor: return self._map(UOp.sqrt)
    def rsqrt(self) -> Tensor: return self._map(lambda x: x.sqrt().recip())
    def sin(self) -> Tensor: return self._map(UOp.sin)
    def cos(self) -> Tensor: return self._map(UOp.cos)
    def tan(self) -> Tensor: return self._map(_tan, True)
    def asin(self) -> Tensor: return self._map(_asin, True)
    def acos(self) -> Tensor: return self._map(_acos, True)
    def atan(self) -> Tensor: return self._map(atan, True)
    def sinh(self) -> Tensor: return self._map(_sinh, True)
    def cosh(self) -> Tensor: return self._map(_cosh, True)
    def tanh(self) -> Tensor: return self._map(lambda x: x.alu(Ops.TANH))
    def asinh(self) -> Tensor: return self._map(_asinh, True)
    def acosh(self) -> Tensor: return self._map(_acosh, True)
    def atanh(self) -> Tensor: return self._map(_atanh, True)
    def erf(self) -> Tensor: return self._map(lambda x: x.alu(Ops.ERF))
    def sigmoid(self) -> Tensor: return self._map(_sigmoid, True)
    def logsigmoid(self) -> Tensor: return self._map(lambda x: -_softplus(-x), True)
    def softplus(self, beta: float = 1.0) -> Tensor:
        """log(1 + exp(beta * x)) / beta"""
        return self._map(_softplus if beta == 1 else lambda x: _softplus(x * beta) / beta, True)

    def trunc(self) -> Tensor: return self._new(self.uop.trunc()) if self.dtype.is_float else self
    def floor(self) -> Tensor: return self._new(floor(self.uop)) if self.dtype.is_float else self
    def ceil(self) -> Tensor: return self._new(-floor(-self.uop)) if self.dtype.is_float else self
    def round(self) -> Tensor:
        """The nearest whole number, half to even."""
        return self._new(_round(self.uop)) if self.dtype.is_float else self
    def frac(self) -> Tensor: return self - self.trunc()
    def abs(self) -> Tensor:
        x = self.uop
        if x.dtype.is_bool or x.dtype.is_unsigned: return self
        # max splits the gradient of a tie, so at 0 it is 0; adding 0 makes -0.0 positive
        return self._new(x.max(-x) + 0) if x.dtype.is_float else self._new((x < 0).where(-x, x))
    def sign(self) -> Tensor:
        """-1, 0 or 1; NaN for NaN."""
        return self._new(_sign(self.uop))

    # ---- activations -----------------------------------------------------------------------------------------------------------------
    def relu(self) -> Tensor:
        """max(x, 0); its gradient at 0 is 0."""
        return self._new(_relu(self.uop)) if not self.dtype.is_bool else self
    def relu6(self) -> Tensor: return self._map(lambda x: _edge_clamp(x, 0, 6))
    def leaky_relu(self, neg_slope: float = 0.01) -> Tensor: return self._map(lambda x: (x > 0).where(x, x * neg_slope))
    def elu(self, alpha: float = 1.0) -> Tensor:
        return self._map(lambda x: (x > 0).where(x, _expm1((x > 0).where(x.const_like(0), x)) * alpha), True)
    def celu(self, alpha: float = 1.0) -> Tensor:
        return self._map(lambda x: (x > 0).where(x, _expm1((x > 0).where(x.const_like(0), x) / alpha) * alpha), True)
    def selu(self, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
        return self._map(lambda x: (x > 0).where(x, _expm1((x > 0).where(x.const_like(0), x)) * alpha) * gamma, True)
    def gelu(self, approximate: str = "tanh") -> Tensor:
        """x times the share of a normal distribution below x: by "tanh" formula, or exactly ("none").

        errors:  UsageError for another word
        """
        if approximate not in ("tanh", "none"): raise UsageError(f"gelu with approximate={approximate!r}\n  try: 'tanh' or 'none'")
        return self._map(_gelu_tanh if approximate == "tanh" else _gelu_erf, True)
    def quick_gelu(self) -> Tensor: return self._map(lambda x: x * _sigmoid(x * 1.702), True)
    def silu(self) -> Tensor: return self._map(lambda x: x * _sigmoid(x), True)
    def swish(self) -> Tensor: return self.silu()
    def mish(self) -> Tensor: return self._map(lambda x: x * _softplus(x).alu(Ops.TANH), True)
    def hardswish(self) -> Tensor: return self._map(lambda x: x * _edge_clamp(x + 3, 0, 6) * (1 / 6), True)
    def hardsigmoid(self, alpha: float = 1 / 6, beta: float = 0.5) -> Tensor:
        return self._map(lambda x: _edge_clamp(x * alpha + beta, 0, 1), True)
    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0) -> Tensor: return self._map(lambda x: _edge_clamp(x, min_val, max_val))
    def softsign(self) -> Tensor: return self._map(lambda x: x / ((x < 0).where(-x, x) + 1), True)
    def one_hot(self, num_classes: int = -1) -> Tensor:
        """A new last axis with 1 at the place each int names, 0 elsewhere.

        errors:  DTypeError if these are no ints
        """
        if not self.dtype.is_int: raise DTypeError(f"one_hot of {self.shape} {self.dtype.short}\n  classes are ints\n  try: x.int()")
        if num_classes == -1: num_classes = int(self.max().item()) + 1
        if num_classes < 1: raise UsageError(f"one_hot of {self.shape} in {num_classes} classes\n  there must be at least one")
        x = self.uop
        shape = (*x.shape, num_classes)
        return self._new(x.reshape((*x.shape, 1)).expand(shape).eq(iota(num_classes).cast(x.dtype).broadcast_to(shape)).cast(dtypes.default_int))
    def sequential(self, functions: list[Callable[[Tensor], Tensor]]) -> Tensor:
        """Callables applied one after the other."""
        return functools.reduce(lambda x, f: f(x), functions, self)  # type: ignore[arg-type]
    def usum(self, *others: Any) -> Tensor: return functools.reduce(lambda x, y: x + y, others, self)  # type: ignore[return-value]
    def uprod(self, *others: Any) -> Tensor: return functools.reduce(lambda x, y: x * y, others, self)  # type: ignore[return-value]
    def astype(self, dtype: Any) -> Tensor: return self.cast(to_dtype(dtype))

    # ---- operators ---------------------------------------------------------------------------------------------------------------------
    def __add__(self, y: Any) -> Tensor: return self.add(y)
    def __radd__(self, y: Any) -> Tensor: return self.add(y, True)
    def __sub__(self, y: Any) -> Tensor: return self.sub(y)
    def __rsub__(self, y: Any) -> Tensor: return self.sub(y, True)
    def __mul__(self, y: Any) -> Tensor: return self.mul(y)
    def __rmul__(self, y: Any) -> Tensor: return self.mul(y, True)
    def __truediv__(self, y: Any) -> Tensor: return self.div(y)
    def __rtruediv__(self, y: Any) -> Tensor: return self.div(y, True)
    def __floordiv__(self, y: Any) -> Tensor: return self.floordiv(y)
    def __rfloordiv__(self, y: Any) -> Tensor: return self.floordiv(y, True)
    def __mod__(self, y: Any) -> Tensor: return self.mod(y)
    def __rmod__(self, y: Any) -> Tensor: return self.mod(y, True)
    def __pow__(self, y: Any) -> Tensor: return self.pow(y)
    def __rpow__(self, y: Any) -> Tensor: return self.pow(y, True)
    def __and__(self, y: Any) -> Tensor: return self.bitwise_and(y)
    def __rand__(self, y: Any) -> Tensor: return self.bitwise_and(y, True)
    def __or__(self, y: Any) -> Tensor: return self.bitwise_or(y)
    def __ror__(self, y: Any) -> Tensor: return self.bitwise_or(y, True)
    def __xor__(self, y: Any) -> Tensor: return self.bitwise_xor(y)
    def __rxor__(self, y: Any) -> Tensor: return self.bitwise_xor(y, True)
    def __lshift__(self, y: Any) -> Tensor: return self.lshift(y)
    def __rlshift__(self, y: Any) -> Tensor: return self.lshift(y, True)
    def __rshift__(self, y: Any) -> Tensor: return self.rshift(y)
    def __rrshift__(self, y: Any) -> Tensor: return self.rshift(y, True)
    def __neg__(self) -> Tensor: return self.neg()
    def __pos__(self) -> Tensor: return self
    def __abs__(self) -> Tensor: return self.abs()
    def __invert__(self) -> Tensor: return self.bitwise_not()
    def __lt__(self, y: Any) -> Tensor: return self.lt(y)
    def __le__(self, y: Any) -> Tensor: return self.le(y)
    def __gt__(self, y: Any) -> Tensor: return self.gt(y)
    def __ge__(self, y: Any) -> Tensor: return self.ge(y)
    def __eq__(self, y: Any) -> Any: return self.eq(y) if _comparable(y) else NotImplemented
    def __ne__(self, y: Any) -> Any: return self.ne(y) if _comparable(y) else NotImplemented


def _comparable(y: Any) -> bool: return y is not None and not isinstance(y, (str, dict, set)) and y is not Ellipsis


def _edge_clamp(x: UOp, lo: float, hi: float) -> UOp:
    """clamp whose gradient is zero on the bounds too: what relu6 and its kin are differentiated as."""
    x = (x <= lo).where(x.const_like(lo), x)
    return (x >= hi).where(x.const_like(hi), x)

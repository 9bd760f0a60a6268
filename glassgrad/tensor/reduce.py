"""Reduce: many elements to one along axes, running reductions, sorting, normalisation.

Sums accumulate in `sum_dtype`: small ints in 32 bits, small floats in float32. NaN wins in max and min and sorts last, as in NumPy.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import operand
from glassgrad.tensor.creation import iota
from glassgrad.tensor.elementwise import detach
from glassgrad.tensor.movement import cut_axis, join
from glassgrad.tensor.storage import fill
from glassgrad.uop.dtype import DType, dtypes, sum_dtype, to_dtype
from glassgrad.uop.errors import ShapeError, UsageError
from glassgrad.uop.ops import Op, Ops, ReduceArg, SortArg
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

UNITS = {Ops.ADD: 0, Ops.MUL: 1}
BLOCK = 16      # elements of a running logsumexp that are each compared with all before them


# ---- on nodes --------------------------------------------------------------------------------------------------------------------
def reduce(x: UOp, op: Op, axes: tuple[int, ...], keepdim: bool = False, what: str = "a reduction") -> UOp:
    """x combined along axes; over no elements sums give 0, products 1.

    errors:  UsageError for max and min over no elements
    """
    shape = x.shape
    out = tuple(n for i, n in enumerate(shape) if i not in axes)
    if any(shape[a] == 0 for a in axes):
        if op not in UNITS and 0 not in out:
            raise UsageError(f"{what} of {shape} over axes {axes}\n  there are no elements, and {op.name.lower()} of none is undefined")
        y = fill(x.const_like(UNITS.get(op, 0)), out)
    else: y = x.reduce(op, tuple(a for a in axes if shape[a] != 1))
    return y.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)) if keepdim else out)


def total(x: UOp, axes: tuple[int, ...], keepdim: bool = False, dtype: DType | None = None, op: Op = Ops.ADD) -> UOp:
    """Sum (or product) in the dtype sums of x accumulate in; small floats come back as they were."""
    acc = dtype or sum_dtype(x.dtype)
    y = reduce(x.cast(acc), op, axes, keepdim)
    return y if dtype is not None or not x.dtype.is_float else y.cast(x.dtype)


def mean(x: UOp, axes: tuple[int, ...], keepdim: bool = False) -> UOp:
    """The mean of floats, in float32 at least."""
    n = math.prod(x.shape[a] for a in axes)
    return (reduce(x.cast(sum_dtype(x.dtype)), Ops.ADD, axes, keepdim) * (1 / n if n else math.nan)).cast(x.dtype)


def spread(x: UOp, shape: tuple[int, ...]) -> UOp:
    """x, whose reduced axes were kept with length 1, over `shape`."""
    return x.expand(shape)


def scan(x: UOp, op: Op, a: int) -> UOp:
    """The running combine along axis a."""
    return UOp(Ops.SCAN, x.dtype, (x,), ReduceArg(op, (a,))) if x.size and x.shape[a] > 1 else x


def to_floats(x: UOp) -> UOp: return x if x.dtype.is_float else x.cast(dtypes.default_float)
def to_wide(x: UOp) -> UOp:
    """At least float32."""
    return x if x.dtype.is_float and x.dtype.bits >= 32 else x.cast(dtypes.float32)


def shifted_exp(x: UOp, axes: tuple[int, ...]) -> tuple[UOp, UOp]:
    """(x - max, exp(x - max)) with the maximum, which changes nothing, out of the gradient."""
    m = x - spread(detach(reduce(x, Ops.MAX, axes, True, "softmax")), x.shape)
    return m, m.exp()


class ReduceMixin:
    """Methods that combine elements."""
    __slots__ = ()

    # ---- reductions ----------------------------------------------------------------------------------------------------------------
    def sum(self, axis: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The sum along axes (all for None).

        dtypes:  floats stay; bool and small ints become int32 or uint32; or `dtype`

        >>> Tensor([[1, 2], [3, 4]]).sum(1).tolist()
        [3, 7]
        """
        return self._new(total(self.uop, self._axes(axis), keepdim, None if dtype is None else to_dtype(dtype)))
    def prod(self, axis: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The product along axes."""
        return self._new(total(self.uop, self._axes(axis), keepdim, None if dtype is None else to_dtype(dtype), Ops.MUL))
    def max(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The largest element along axes; NaN if one is. Equal ones share the gradient.

        errors:  UsageError over no elements
        """
        return self._new(reduce(self.uop, Ops.MAX, self._axes(axis), keepdim, "max"))
    def min(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The smallest element along axes; NaN if one is.

        errors:  UsageError over no elements
        """
        return self._new(reduce(self.uop, Ops.MIN, self._axes(axis), keepdim, "min"))
    def amax(self, axis: Any = None, keepdim: bool = False) -> Tensor: return self.max(axis, keepdim)
    def amin(self, axis: Any = None, keepdim: bool = False) -> Tensor: return self.min(axis, keepdim)
    def mean(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The mean along axes; ints become default_float."""
        return self._new(mean(to_floats(self.uop), self._axes(axis), keepdim))
    def var(self, axis: Any = None, keepdim: bool = False, correction: int = 1) -> Tensor:
        """The variance: squares around the mean over n - correction."""
        return self._new(self._variance(axis, keepdim, correction)[0])
    def std(self, axis: Any = None, keepdim: bool = False, correction: int = 1) -> Tensor:
        """The square root of the variance."""
        return self._new(self._variance(axis, keepdim, correction)[0].sqrt())
    def var_mean(self, axis: Any = None, keepdim: bool = False, correction: int = 1) -> tuple[Tensor, Tensor]:
        """(variance, mean)"""
        var, mid = self._variance(axis, keepdim, correction)
        return self._new(var), self._new(mid)
    def std_mean(self, axis: Any = None, keepdim: bool = False, correction: int = 1) -> tuple[Tensor, Tensor]:
        """(standard deviation, mean)"""
        var, mid = self._variance(axis, keepdim, correction)
        return self._new(var.sqrt()), self._new(mid)
    def _variance(self, axis: Any, keepdim: bool, correction: int) -> tuple[UOp, UOp]:
        x, axes = to_floats(self.uop), self._axes(axis)
        n = math.prod(x.shape[a] for a in axes)
        wide = to_wide(x)
        mid = mean(wide, axes, True)
        rest = wide - spread(mid, wide.shape)
        # as in NumPy and torch: no freedom left gives NaN (or inf)
        var = reduce(rest * rest, Ops.ADD, axes, keepdim)
        var = var * (1 / (n - correction)) if n > correction else var / fill(var.const_like(0), ())
        return var.cast(x.dtype), (mid if keepdim else mid.reshape(var.shape)).cast(x.dtype)
    def any(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """Whether an element along axes is true."""
        return self._logic(Ops.MAX, axis, keepdim, False)
    def all(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """Whether all elements along axes are true."""
        return self._logic(Ops.MIN, axis, keepdim, True)
    def _logic(self, op: Op, axis: Any, keepdim: bool, empty: bool) -> Tensor:
        x, axes = self.uop.cast(dtypes.bool), self._axes(axis)
        if not any(x.shape[a] == 0 for a in axes): return self._new(reduce(x, op, axes, keepdim))
        shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keepdim or i not in axes)
        return self._new(fill(x.const_like(empty), shape))
    def count_nonzero(self, axis: Any = None) -> Tensor: return (self != 0).sum(axis)
    def logsumexp(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """log(sum(exp(x))) along axes, without overflow."""
        x, axes = to_floats(self.uop), self._axes(axis)
        return self._new(_logsumexp(to_wide(x), axes, keepdim).cast(x.dtype))
    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Tensor:
        """The int32 place of the first largest element (or NaN) along an axis; of the flat tensor for None."""
        return self._arg(Ops.MAX, axis, keepdim, "argmax")
    def argmin(self, axis: int | None = None, keepdim: bool = False) -> Tensor:
        """The int32 place of the first smallest element (or NaN) along an axis; of the flat tensor for None."""
        return self._arg(Ops.MIN, axis, keepdim, "argmin")
    def _arg(self, op: Op, axis: int | None, keepdim: bool, what: str) -> Tensor:
        x = self.uop
        if axis is None: x, a = x.reshape((x.size,)), 0
        else: a = self._axis(axis)
        if not x.shape: return self._new(UOp.const(dtypes.int32, 0))
        n = x.shape[a]
        if not n: raise UsageError(f"{what} of {self.shape} over axis {axis}\n  there are no elements")
        if n == 1: place = fill(UOp.const(dtypes.int32, 0), tuple(m for i, m in enumerate(x.shape) if i != a))
        else:
            hit = x.eq(spread(reduce(x, op, (a,), True), x.shape))
            if x.dtype.is_float: hit = hit | x.ne(x)
            at = iota(n).reshape(tuple(n if i == a else 1 for i in range(x.ndim))).expand(x.shape)
            place = hit.where(at, n).reduce(Ops.MIN, (a,))
        if keepdim: place = place.reshape((1,) * self.ndim if axis is None else (*self.shape[:a], 1, *self.shape[a + 1:]))
        return self._new(place)

    # ---- softmax and norms ---------------------------------------------------------------------------------------------------------
    def softmax(self, axis: int = -1, dtype: Any = None) -> Tensor:
        """exp(x) / sum(exp(x)) along an axis, without overflow; small floats are computed in float32."""
        x, axes, d = self._soft(axis, dtype)
        e = shifted_exp(x, axes)[1]
        return self._new((e * spread(reduce(e, Ops.ADD, axes, True).recip(), e.shape)).cast(d))
    def log_softmax(self, axis: int = -1, dtype: Any = None) -> Tensor:
        """log(softmax(x)), without losing small probabilities."""
        x, axes, d = self._soft(axis, dtype)
        m, e = shifted_exp(x, axes)
        return self._new((m - spread(reduce(e, Ops.ADD, axes, True).log(), m.shape)).cast(d))
    def softmin(self, axis: int = -1, dtype: Any = None) -> Tensor: return (-self).softmax(axis, dtype)
    def _soft(self, axis: int, dtype: Any) -> tuple[UOp, tuple[int, ...], DType]:
        x = to_floats(self.uop) if dtype is None else self.uop.cast(to_dtype(dtype))
        return to_wide(x), self._axes(axis), x.dtype

    def normalize(self, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
        """x over its p-norm along an axis (at least eps).

        errors:  UsageError unless p > 0
        """
        if not p > 0: raise UsageError(f"normalize with p={p}\n  p must be above 0")
        norm = self.square().sum(dim, keepdim=True).sqrt() if p == 2 else (self.abs() ** p).sum(dim, keepdim=True) ** (1 / p)
        return self / norm.maximum(eps)
    def layernorm(self, axis: Any = -1, eps: float = 1e-5) -> Tensor:
        """Mean 0 and variance 1 along axes; computed in float32 at least."""
        x, axes = to_floats(self.uop), self._axes(axis)
        wide = to_wide(x)
        rest = wide - spread(mean(wide, axes, True), wide.shape)
        scale = (mean(rest * rest, axes, True) + eps).sqrt().recip()
        return self._new((rest * spread(scale, rest.shape)).cast(x.dtype))
    def batchnorm(self, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, axis: Any = 1) -> Tensor:
        """(x - mean) * invstd * weight + bias, each with the shape of the axes named."""
        axes = self._axes(axis)
        shape = tuple(n if i in axes else 1 for i, n in enumerate(self.shape))
        x = self - mean.reshape(shape)
        if weight is not None: x = x * weight.reshape(shape)
        x = x * (invstd if invstd.ndim == self.ndim else invstd.reshape(shape))
        return x if bias is None else x + bias.reshape(shape)
    def newton_schulz(self, steps: int, params: tuple[float, ...], eps: float = 1e-7) -> Tensor:
        """A matrix made nearly orthogonal by odd polynomials of it: steps times x -> sum(params[i] * (x xT)^i x).

        errors:  ShapeError below two axes
        """
        if self.ndim < 2: raise ShapeError(f"newton_schulz of {self.shape}\n  there must be at least two axes")
        x = self / (self.square().sum((-2, -1), keepdim=True).sqrt() + eps)
        tall = x.shape[-2] > x.shape[-1]
        if tall: x = x.mT
        for _ in range(steps):
            square, term = x @ x.mT, x
            out = term * params[0]
            for p in params[1:]:
                term = square @ term
                out = out + term * p
            x = out
        return x.mT if tall else x

    # ---- running reductions --------------------------------------------------------------------------------------------------------
    def cumsum(self, axis: int = 0) -> Tensor:
        """The running sum.

        >>> Tensor([1, 2, 3]).cumsum().tolist()
        [1, 3, 6]
        """
        return self._running(Ops.ADD, axis)
    def cumprod(self, axis: int = 0) -> Tensor:
        """The running product."""
        return self._running(Ops.MUL, axis)
    def _running(self, op: Op, axis: int) -> Tensor:
        x = self.uop
        if not x.shape: return self._new(x.cast(sum_dtype(x.dtype)) if not x.dtype.is_float else x)
        y = scan(x.cast(sum_dtype(x.dtype)), op, self._axis(axis))
        return self._new(y.cast(x.dtype) if x.dtype.is_float else y)
    def cummax(self, axis: int = 0) -> tuple[Tensor, Tensor]:
        """(running maximum, int32 place of its last occurrence so far)"""
        return self._record(Ops.MAX, axis)
    def cummin(self, axis: int = 0) -> tuple[Tensor, Tensor]:
        """(running minimum, int32 place of its last occurrence so far)"""
        return self._record(Ops.MIN, axis)
    def _record(self, op: Op, axis: int) -> tuple[Tensor, Tensor]:
        x = self.uop
        if not x.shape: return self._new(x), self._new(UOp.const(dtypes.int32, 0))
        a = self._axis(axis)
        values = scan(x, op, a)
        here = x.eq(values)
        if x.dtype.is_float: here = here | x.ne(x)
        at = iota(x.shape[a]).reshape(tuple(n if i == a else 1 for i, n in enumerate(x.shape))).expand(x.shape)
        return self._new(values), self._new(scan(here.where(at, 0), Ops.MAX, a))
    def logcumsumexp(self, axis: int = 0) -> Tensor:
        """log(cumsum(exp(x))), without overflow and exact where the running maximum jumps."""
        x = to_floats(self.uop)
        if not x.shape or not x.size: return self._new(x)
        a = self._axis(axis)
        last = (*(i for i in range(x.ndim) if i != a), a)
        out = _running_logsumexp(to_wide(x).permute(last)).permute(tuple(sorted(range(x.ndim), key=last.__getitem__)))
        return self._new(out.cast(x.dtype))

    # ---- order ---------------------------------------------------------------------------------------------------------------------
    def argsort(self, dim: int = -1, descending: bool = False) -> Tensor:
        """The int32 places that sort an axis; equal elements keep their order, NaN counts as largest."""
        return self._new(self._order(self.uop, self._axis(dim), descending) if self.ndim else UOp.const(dtypes.int32, 0))
    def sort(self, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
        """(sorted values, their places)

        >>> [t.tolist() for t in Tensor([3, 1, 2]).sort()]
        [[1, 2, 3], [1, 2, 0]]
        """
        x = self.uop
        if not x.shape: return self._new(x), self._new(UOp.const(dtypes.int32, 0))
        a = self._axis(dim)
        order = self._order(x, a, descending)
        return self._new(UOp(Ops.GATHER, x.dtype, (x, order), a) if x.size else x), self._new(order)
    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted_: bool = True) -> tuple[Tensor, Tensor]:
        """(the k largest values in order, their places)

        errors:  ShapeError if there are not k
        """
        x, a = self.uop, self._axis(dim)
        if not x.shape or not 0 <= k <= x.shape[a]:
            raise ShapeError(f"topk({k}) along axis {dim} of {self.shape}\n  there are not {k} elements")
        order = cut_axis(self._order(x, a, largest), a, 0, k)
        return self._new(UOp(Ops.GATHER, x.dtype, (x, order), a) if order.size else cut_axis(x, a, 0, k)), self._new(order)
    def _order(self, x: UOp, a: int, descending: bool) -> UOp:
        if x.shape[a] <= 1 or not x.size: return fill(UOp.const(dtypes.int32, 0), x.shape)
        return UOp(Ops.SORT, dtypes.int32, (x,), SortArg(a, descending))
    def searchsorted(self, values: Any, side: str = "left", sorter: Tensor | None = None) -> Tensor:
        """Where `values` would be inserted into this sorted axis to keep it sorted (int32): before equal elements, or behind them
        ("right").

        shapes:  (n,) with values of any shape, or (..., n) with values (..., k); the result has the shape of values
        errors:  ShapeError if the leading axes differ, UsageError for another side

        >>> Tensor([1, 3, 5]).searchsorted(Tensor([3, 4])).tolist()
        [1, 2]
        """
        if side not in ("left", "right"): raise UsageError(f"searchsorted with side={side!r}\n  try: 'left' or 'right'")
        v = operand(type(self), values, self, "searchsorted")
        if not self.ndim or self.ndim > 1 and self.shape[:-1] != v.shape[:-1]:
            raise ShapeError(f"searchsorted of {v.shape} in {self.shape}\n  it must be a sorted vector, or have the leading axes of the values")
        x = self if sorter is None else self.gather(-1, sorter)
        # halving: the numbers known to stand before grow by 2**k where the element there still belongs before
        n = x.shape[-1]
        found, row = v.zeros_like(dtype=dtypes.int32), x if x.ndim == 1 else None
        for k in reversed(range(n.bit_length())):
            at = found + ((1 << k) - 1)
            there = row[at.clamp(0, n - 1)] if row is not None else x.gather(-1, at.clamp(0, n - 1))
            before = (there < v) if side == "left" else (there <= v) | v.isnan()
            found = ((at < n) & before).where(at + 1, found).contiguous()
        return found


def _logsumexp(x: UOp, axes: tuple[int, ...], keepdim: bool) -> UOp:
    m = detach(reduce(x, Ops.MAX, axes, True, "logsumexp"))
    m = (m - m).eq(0).where(m, 0)                      # all -inf, or one inf: nothing to shift by
    s = reduce((x - spread(m, x.shape)).exp(), Ops.ADD, axes, keepdim).log()
    return s + (m if keepdim else m.reshape(s.shape))


def _running_logsumexp(x: UOp) -> UOp:
    """log(cumsum(exp(x))) along the last axis: in blocks, each element with those before it, then with what came before its block."""
    *lead, n = x.shape
    if n <= BLOCK:
        grid = (*lead, n, n)         # how far, and over which
        far, which = (iota(n).reshape(shape).broadcast_to(grid) for shape in ((n, 1), (1, n)))
        each = x.reshape((*lead, 1, n)).expand(grid)
        return _logsumexp((which <= far).where(each, -math.inf), (len(lead) + 1,), False)
    count = -(-n // BLOCK)
    none = fill(x.const_like(-math.inf), (*lead, count * BLOCK - n))
    blocks = join([x, none], len(lead)) if none.size else x
    within = _running_logsumexp(blocks.reshape((*lead, count, BLOCK)))
    ends = cut_axis(within, len(lead) + 1, BLOCK - 1, BLOCK).reshape((*lead, count))
    before = join([fill(x.const_like(-math.inf), (*lead, 1)), cut_axis(_running_logsumexp(ends), len(lead), 0, count - 1)], len(lead))
    pair = [y.reshape((*y.shape, 1)) for y in (before.reshape((*lead, count, 1)).expand(within.shape), within)]
    both = _logsumexp(join(pair, len(lead) + 2), (len(lead) + 2,), False)
    return cut_axis(both.reshape((*lead, count * BLOCK)), len(lead), 0, n)

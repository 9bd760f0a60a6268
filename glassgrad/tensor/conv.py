"""Convolution and pooling: windows are an UNFOLD of each spatial axis, a view; the rest is a product and a REDUCE. A transposed
convolution is a product and a FOLD, the sum of overlapping windows."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import to_ints
from glassgrad.tensor.creation import iota
from glassgrad.tensor.linalg import contract, in_acc
from glassgrad.tensor.movement import pad_with
from glassgrad.tensor.reduce import reduce, to_floats
from glassgrad.tensor.storage import fill
from glassgrad.uop.dtype import dtypes, promote, sum_dtype, to_dtype
from glassgrad.uop.errors import ShapeError, UsageError
from glassgrad.uop.ops import Ops, UnfoldArg
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

Pairs = tuple[tuple[int, int], ...]


def windows(x: UOp, first: int, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> UOp:
    """Sliding windows over the axes from `first` on: (..., *outputs, *places in the window)."""
    for i, (k, s, d) in enumerate(zip(size, stride, dilation)):
        x = UOp(Ops.UNFOLD, x.dtype, (x,), UnfoldArg(first + i, k, s, d, x.shape[first + i]))
    return x


def each(value: Any, n: int, what: str, name: str) -> tuple[int, ...]:
    """One number for each of n axes.

    errors:  ShapeError if there are neither one nor n, ArgumentError if they are no ints
    """
    if isinstance(value, int): return (value,) * n
    value = to_ints(value, f"{what} with {name}={value!r}")
    if len(value) != n: raise ShapeError(f"{what} with {name}={value}\n  there must be one number or one for each of {n} axes")
    return value


def to_pairs(padding: Any, n: int, what: str) -> Pairs:
    """Padding as (lo, hi) for each of n axes: one number, one an axis, or lo and hi of each axis, last axis first.

    errors:  ShapeError for another count of numbers
    """
    if isinstance(padding, int): return ((padding, padding),) * n
    is_pairs = isinstance(padding, (tuple, list)) and len(padding) == n and all(isinstance(p, (tuple, list)) and len(p) == 2 for p in padding)
    if is_pairs and n: return tuple((lo, hi) for lo, hi in (to_ints(p, what) for p in padding))
    padding = to_ints(padding, f"{what} with padding={padding!r}")
    if len(padding) == n: return tuple((p, p) for p in padding)
    if len(padding) == 2 * n: return tuple((padding[i], padding[i + 1]) for i in range(0, 2 * n, 2))[::-1]
    raise ShapeError(f"{what} with padding={padding}\n  there must be one number, {n} or {2 * n}")


class ConvMixin:
    """Methods that look at neighbourhoods."""
    __slots__ = ()

    def conv2d(self, weight: Tensor, bias: Tensor | None = None, groups: int = 1, stride: Any = 1, dilation: Any = 1, padding: Any = 0,
               dtype: Any = None) -> Tensor:
        """Cross-correlation over all axes behind the second (1-D, 2-D, 3-D, …).

        shapes:  x (B, C, *in), weight (O, C / groups, *k) -> (B, O, *out); padding: a number, one an axis, (lo, hi) of each axis last axis
                 first, "same" or "valid"
        dtypes:  promote(x, weight)
        errors:  ShapeError if channels, groups or sizes do not fit
        """
        n = weight.ndim - 2
        what = f"conv2d of x {self.shape} {self.dtype.short} and weight {weight.shape} {weight.dtype.short}"
        if n < 1 or self.ndim != n + 2:
            raise ShapeError(f"{what}\n  x must be (B, C, *in) and weight (O, C / groups, *k), with equally many axes behind")
        batch, channels, *space = self.shape
        outs, inner, *size = weight.shape
        if channels != inner * groups:
            raise ShapeError(f"{what}\n  with groups={groups}, x has {channels} channels, weight takes {inner} * {groups}")
        if outs % groups: raise ShapeError(f"{what}\n  {outs} output channels are no multiple of groups={groups}")
        stride, dilation = each(stride, n, what, "stride"), each(dilation, n, what, "dilation")
        pairs = _named_padding(padding, size, dilation, stride, what) if isinstance(padding, str) else to_pairs(padding, n, what)
        _check_windows(what, space, pairs, size, dilation, stride)
        d = promote(self.dtype, weight.dtype) if dtype is None else to_dtype(dtype)
        acc = sum_dtype(d)
        x, w = in_acc(self, d, acc), in_acc(weight, d, acc)
        x = windows(x.pad(((0, 0), (0, 0), *pairs)), 2, size, stride, dilation)
        out = x.shape[2:2 + n]
        x = x.reshape((batch, groups, 1, inner, *out, *size)).permute((0, 1, 2, *range(4, 4 + n), 3, *range(4 + n, 4 + 2 * n)))
        per = outs // groups
        grid = (batch, groups, per, *out, inner, *size)
        x = x.expand(grid)
        w = w.reshape((1, groups, per, *(1,) * n, inner, *size)).expand(grid)
        _check_bias(what, bias, outs)
        y = self._new(contract(x, w, d, tuple(range(3 + n, len(grid)))).reshape((batch, outs, *out)), weight)
        return y if bias is None else y + bias.reshape(1, -1, *(1,) * n)

    def conv_transpose2d(self, weight: Tensor, bias: Tensor | None = None, groups: int = 1, stride: Any = 1, dilation: Any = 1,
                         padding: Any = 0,
                         output_padding: Any = 0) -> Tensor:
        """The adjoint of conv2d: every element spreads a weighted window over the output.

        shapes:  x (B, C, *in), weight (C, O / groups, *k) -> (B, O, *((in - 1) * stride - padding + dilation * (k - 1) + output_padding +
        1)) errors:  ShapeError if channels, groups or sizes do not fit
        """
        n = weight.ndim - 2
        what = f"conv_transpose2d of x {self.shape} {self.dtype.short} and weight {weight.shape} {weight.dtype.short}"
        if n < 1 or self.ndim != n + 2:
            raise ShapeError(f"{what}\n  x must be (B, C, *in) and weight (C, O / groups, *k), with equally many axes behind")
        batch, channels, *space = self.shape
        given, per, *size = weight.shape
        if channels != given or channels % groups:
            raise ShapeError(f"{what}\n  with groups={groups}, x has {channels} channels, weight takes {given}")
        stride, dilation = each(stride, n, what, "stride"), each(dilation, n, what, "dilation")
        more = each(output_padding, n, what, "output_padding")
        pairs = to_pairs(padding, n, what)
        d = promote(self.dtype, weight.dtype)
        acc = sum_dtype(d)
        inner = channels // groups
        grid = (batch, groups, per, *space, *size, inner)
        x = in_acc(self, d, acc).reshape((batch, groups, 1, inner, *space, *(1,) * n)).permute((0, 1, 2, *range(4, 4 + 2 * n), 3)).expand(grid)
        w = in_acc(weight, d, acc).reshape((1, groups, inner, per, *(1,) * n, *size)).permute((0, 1, 3, *range(4, 4 + 2 * n), 2)).expand(grid)
        y = reduce(x * w, Ops.ADD, (len(grid) - 1,)).reshape((batch, groups * per, *space, *size))
        for i in reversed(range(n)):          # the last window axis belongs to the last spatial axis
            length = (space[i] - 1) * stride[i] + dilation[i] * (size[i] - 1) + 1
            y = UOp(Ops.FOLD, y.dtype, (y,), UnfoldArg(2 + i, size[i], stride[i], dilation[i], length))
        box = [(lo, m - hi + p) for m, (lo, hi), p in zip(y.shape[2:], pairs, more)]
        if any(lo > hi for lo, hi in box): raise ShapeError(f"{what}\n  padding={padding} leaves nothing of an output {y.shape[2:]}")
        y = y.pad(((0, 0), (0, 0), *((0, max(hi - m, 0)) for m, (_, hi) in zip(y.shape[2:], box)))).shrink(((0, batch), (0, groups * per), *box))
        _check_bias(what, bias, groups * per)
        t = self._new(y.cast(d), weight)
        return t if bias is None else t + bias.reshape(1, -1, *(1,) * n)

    # ---- pooling -------------------------------------------------------------------------------------------------------------------
    def max_pool2d(self, kernel_size: Any = (2, 2), stride: Any = None, dilation: Any = 1, padding: Any = 0, ceil_mode: bool = False,
                   return_indices: bool = False) -> Any:
        """The largest element of each window over the last axes; with return_indices also its place in the flat spatial axes.

        errors:  ShapeError if the sizes do not fit
        """
        x, _, n = self._windows("max_pool2d", kernel_size, stride, dilation, padding, ceil_mode, self.dtype.min)
        axes = tuple(range(x.ndim - n, x.ndim))
        out = reduce(x, Ops.MAX, axes)
        if not return_indices: return self._new(out)
        space = self.shape[self.ndim - n:]
        place = iota(math.prod(space)).reshape((*(1,) * (self.ndim - n), *space)).expand(self.shape)
        marks = self._new(place)
        marks = marks._windows("max_pool2d", kernel_size, stride, dilation, padding, ceil_mode, dtypes.int32.max)[0]
        hit = x.eq(out.reshape((*out.shape, *(1,) * n)).expand(x.shape))
        return self._new(out), self._new(reduce(hit.where(marks, dtypes.int32.max), Ops.MIN, axes))

    def avg_pool2d(self, kernel_size: Any = (2, 2), stride: Any = None, dilation: Any = 1, padding: Any = 0, ceil_mode: bool = False,
                   count_include_pad: bool = True) -> Tensor:
        """The mean of each window over the last axes; with count_include_pad padding counts as zeros.

        errors:  ShapeError if the sizes do not fit
        """
        x, size, n = self._windows("avg_pool2d", kernel_size, stride, dilation, padding, ceil_mode, 0)
        x = to_floats(x)
        axes = tuple(range(x.ndim - n, x.ndim))
        out = reduce(x.cast(sum_dtype(x.dtype)), Ops.ADD, axes)
        if count_include_pad and not ceil_mode: return self._new((out * (1 / math.prod(size))).cast(x.dtype))
        real = self._new(fill(UOp.const(out.dtype, 1), self.shape))
        if count_include_pad: real = real.pad([*[None] * (self.ndim - n), *to_pairs(padding, n, "avg_pool2d")], value=1.0)
        count = real._windows("avg_pool2d", kernel_size, stride, dilation, 0 if count_include_pad else padding, ceil_mode, 0,
                              self.shape[self.ndim - n:], to_pairs(padding, n, "avg_pool2d") if count_include_pad else None)[0]
        return self._new((out / reduce(count, Ops.ADD, axes)).cast(x.dtype))

    def max_unpool2d(self, indices: Tensor, kernel_size: Any = (2, 2), stride: Any = None, padding: Any = 0,
                     output_size: Any = None) -> Tensor:
        """Each element put back at its place of max_pool2d(return_indices=True), zeros elsewhere."""
        what = f"max_unpool2d of {self.shape} {self.dtype.short} with windows {kernel_size}"
        n = 2 if isinstance(kernel_size, int) else len(to_ints(kernel_size, what))
        size = each(kernel_size, n, what, "kernel_size")
        steps = each(size if stride is None else stride, n, what, "stride")
        pads = each(padding, n, what, "padding")
        lead, space = self.shape[:self.ndim - n], self.shape[self.ndim - n:]
        out = tuple(output_size)[-n:] if output_size is not None else tuple((m - 1) * s - 2 * p + k for m, s, p, k in zip(space, steps, pads, size))
        flat = self._new(fill(self.uop.const_like(0), (*lead, math.prod(out))))
        return flat.scatter(len(lead), indices.reshape(*lead, -1), self.reshape(*lead, -1)).reshape(*lead, *out)

    def _windows(self, what: str, kernel_size: Any, stride: Any, dilation: Any, padding: Any, ceil_mode: bool, value: Any,
                 space: Sequence[int] | None = None, real: Pairs | None = None) -> tuple[UOp, tuple[int, ...], int]:
        """(windows over the last axes, window size, their number). `real`: padding that is in x already, of a tensor with `space`."""
        what = f"{what} of {self.shape} {self.dtype.short} with windows {kernel_size}"
        n = 2 if isinstance(kernel_size, int) else len(to_ints(kernel_size, what))
        if self.ndim < n: raise ShapeError(f"{what}\n  there must be at least {n} axes")
        size = each(kernel_size, n, what, "kernel_size")
        stride, dilation = each(size if stride is None else stride, n, what, "stride"), each(dilation, n, what, "dilation")
        pairs = to_pairs(padding, n, what)
        x = self.uop
        lead = self.ndim - n
        space = tuple(space or x.shape[lead:])
        _check_windows(what, space, real or pairs, size, dilation, stride)
        ends = []
        for m, (lo, hi), k, s, d in zip(space, real or pairs, size, stride, dilation):
            span, full = d * (k - 1) + 1, m + lo + hi
            count = (full - span) // s + 1
            if ceil_mode and (full - span) % s and count * s < m + lo: count += 1     # the last window must start inside
            ends.append((count - 1) * s + span - full)
        if real: pairs = ((0, 0),) * n
        x = pad_with(x, (*((0, 0),) * lead, *((lo, hi + max(e, 0)) for (lo, hi), e in zip(pairs, ends))), value)
        return windows(x, lead, size, stride, dilation), size, n


def _named_padding(name: str, size: Sequence[int], dilation: Sequence[int], stride: Sequence[int], what: str) -> Pairs:
    if name == "valid": return ((0, 0),) * len(size)
    if name != "same": raise UsageError(f"{what} with padding={name!r}\n  try: 'same', 'valid' or numbers")
    if any(s != 1 for s in stride): raise UsageError(f"{what} with padding='same' and stride={tuple(stride)}\n  'same' needs stride 1")
    spans = [d * (k - 1) for k, d in zip(size, dilation)]
    return tuple((s // 2, s - s // 2) for s in spans)


def _check_bias(what: str, bias: Tensor | None, outs: int) -> None:
    if bias is not None and bias.numel() != outs:
        raise ShapeError(f"{what}\n  the bias is {bias.shape}; it must be ({outs},), one for each output channel")


def _check_windows(what: str, space: Sequence[int], pairs: Pairs, size: Sequence[int], dilation: Sequence[int],
                   stride: Sequence[int]) -> None:
    for i, (m, (lo, hi), k, d, s) in enumerate(zip(space, pairs, size, dilation, stride)):
        if k < 1 or d < 1 or s < 1: raise ShapeError(f"{what}\n  window, stride and dilation must be at least 1")
        if m + lo + hi < d * (k - 1) + 1:
            raise ShapeError(f"{what}\n  spatial axis {i} has {m} elements, {m + lo + hi} with padding: it is shorter than a window,"
                             f" which spans {d * (k - 1) + 1}")

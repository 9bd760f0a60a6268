"""Statistics: order statistics, counts, sets, moments; most sort once and gather."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from glassgrad.tensor.elementwise import NUMBERS
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

QUANTILES = ("linear", "lower", "higher", "nearest", "midpoint")


class ValuesIndices(NamedTuple):
    """Values and where along the axis they stand."""
    values: Tensor; indices: Tensor


class StatisticsMixin:
    """Methods that describe many elements by few."""
    __slots__ = ()

    def _flat_axis(self, dim: int | None) -> tuple[Tensor, int]:
        """(this tensor, flat for None; the axis)"""
        return (self.flatten(), 0) if dim is None else (self, self._long_axis(dim, "a statistic"))
    def _kept(self, out: Tensor, dim: int | None, keepdim: bool) -> Tensor:
        """The axis `dim`, which is gone, with length 1."""
        if not keepdim: return out
        return out.reshape((1,) * self.ndim) if dim is None else out.unsqueeze(self._axis(dim))

    # ---- order -------------------------------------------------------------------------------------------------------------------------
    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
        """The k-th smallest element along an axis (k from 1) and its place.

        errors:  ShapeError if there are not k
        """
        a = self._long_axis(dim, "kthvalue")
        if not 1 <= k <= self.shape[a]:
            raise ShapeError(f"kthvalue({k}) along axis {a} of {self.shape}\n  k must be from 1 to {self.shape[a]}")
        values, places = self.sort(a)
        return ValuesIndices(*(x.narrow(a, k - 1, 1) if keepdim else x.select(a, k - 1) for x in (values, places)))
    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower of the middle elements, NaN if one is: of all, or along an axis with its place.

        source:  torch.median; quantile(0.5) is NumPy's

        >>> Tensor([3., 1., 2., 9.]).median().item()
        2.0
        """
        if dim is None: return self.flatten().median(0).values
        a = self._long_axis(dim, "median")
        n = self.shape[a]
        if not n: raise UsageError(f"median of {self.shape} along axis {a}\n  there are no elements")
        values, places = self.sort(a)
        middle = [x.narrow(a, (n - 1) // 2, 1) for x in (values, places)]
        if self.dtype.is_float:                                     # NaN is sorted last
            last = [x.narrow(a, n - 1, 1) for x in (values, places)]
            middle = [last[0].isnan().where(y, x) for x, y in zip(middle, last)]
        return ValuesIndices(*(x if keepdim else x.squeeze(a) for x in middle))
    def nanmedian(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower of the middle elements that are numbers."""
        if dim is None: return self.flatten().nanmedian(0).values
        a = self._long_axis(dim, "nanmedian")
        values, places = self.sort(a)
        count = (~self.isnan()).sum(a, keepdim=True)
        at = ((count - 1) // 2).maximum(0)
        return ValuesIndices(*(x.gather(a, at) if keepdim else x.gather(a, at).squeeze(a) for x in (values, places)))
    def quantile(self, q: Any, dim: int | None = None, keepdim: bool = False, interpolation: str = "linear") -> Tensor:
        """The values below which shares q (0 to 1) of the elements lie; NaN if one is.

        shapes:  q () gives the shape without the axis, q (k,) one more axis of k in front
        errors:  UsageError for another interpolation than linear, lower, higher, nearest or midpoint

        >>> Tensor([1., 2., 3., 4.]).quantile(0.5).item()
        2.5
        """
        return self._quantile(q, dim, keepdim, interpolation, False)
    def nanquantile(self, q: Any, dim: int | None = None, keepdim: bool = False, interpolation: str = "linear") -> Tensor:
        """quantile of what is no NaN."""
        return self._quantile(q, dim, keepdim, interpolation, True)
    def percentile(self, q: Any, dim: int | None = None, keepdim: bool = False, interpolation: str = "linear") -> Tensor:
        """quantile with q from 0 to 100."""
        return self.quantile(q / 100 if isinstance(q, (*NUMBERS, type(self))) else [x / 100 for x in q], dim, keepdim, interpolation)
    def _quantile(self, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip: bool) -> Tensor:
        if interpolation not in QUANTILES:
            raise UsageError(f"quantile with interpolation={interpolation!r}\n  try: one of {', '.join(QUANTILES)}")
        x, a = (self if self.dtype.is_float else self.cast(dtypes.default_float))._flat_axis(dim)
        n = x.shape[a]
        if not n: raise UsageError(f"quantile of {self.shape} along axis {dim}\n  there are no elements")
        wide = dtypes.float64 if x.dtype is dtypes.float64 else dtypes.float32
        share = (q if isinstance(q, type(self)) else type(self)(q)).cast(wide)
        rows = x.movedim(a, -1).sort(-1)[0]
        bad = rows[..., -1:].isnan() if not skip else None
        count = (~rows.isnan()).sum(-1, keepdim=True).cast(wide) if skip else float(n)
        at = share.reshape(-1) * (count - 1)                       # (..., k)
        at = (at if skip else at.reshape((1,) * (rows.ndim - 1) + at.shape).expand(*rows.shape[:-1], at.shape[-1])).maximum(0.0)
        low, high = at.floor().int(), at.ceil().int()
        y, z = rows.gather(-1, low), rows.gather(-1, high)
        part = (at - low.cast(wide)).cast(x.dtype)
        if interpolation == "linear": out = y + (z - y) * part
        elif interpolation == "midpoint": out = (part == 0).where(y, (y + z) * 0.5)
        else: out = rows.gather(-1, {"lower": low, "higher": high}.get(interpolation, at.round().int()))
        if bad is not None: out = bad.where(math.nan, out)
        out = out.movedim(-1, 0)                                   # (k, …)
        if keepdim: out = out.reshape(out.shape[0], *[1 if dim is None or i == a else m for i, m in enumerate(self.shape)])
        return out.squeeze(0) if share.ndim == 0 else out
    def mode(self, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
        """The most frequent element along an axis (the smallest of several) and the last place where it stands."""
        a = self._long_axis(dim, "mode")
        x = self.movedim(a, -1)
        values = x.sort(-1)[0]
        run = values.unsqueeze(-1) == values.unsqueeze(-2)
        best = run.sum(-1).argmax(-1, keepdim=True)
        found = values.gather(-1, best)
        last = (x == found).where(type(self).arange(x.shape[-1]), -1).max(-1, keepdim=True)
        return ValuesIndices(*((t.squeeze(-1).unsqueeze(a) if keepdim else t.squeeze(-1)) for t in (found, last)))
    def aminmax(self, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        """(smallest, largest)"""
        return self.min(dim, keepdim), self.max(dim, keepdim)
    def ptp(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The largest minus the smallest element."""
        return self.max(axis, keepdim) - self.min(axis, keepdim)

    # ---- without NaN
    # -----------------------------------------------------------------------------------------------------------------------
    def _or(self, value: float) -> Tensor: return self.isnan().where(value, self) if self.dtype.is_float else self
    def nansum(self, axis: Any = None, keepdim: bool = False) -> Tensor: return self._or(0.0).sum(axis, keepdim)
    def nanprod(self, axis: Any = None, keepdim: bool = False) -> Tensor: return self._or(1.0).prod(axis, keepdim)
    def nancumsum(self, axis: int = 0) -> Tensor: return self._or(0.0).cumsum(axis)
    def nancumprod(self, axis: int = 0) -> Tensor: return self._or(1.0).cumprod(axis)
    def nanmean(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The mean of what is no NaN."""
        return self.nansum(axis, keepdim) / (~self.isnan()).sum(axis, keepdim)
    def nanvar(self, axis: Any = None, keepdim: bool = False, correction: int = 0) -> Tensor:
        """The variance of what is no NaN: squares around the mean over their number - correction."""
        rest = (self - self.nanmean(axis, True))._or(0.0)
        return rest.square().sum(axis, keepdim) / ((~self.isnan()).sum(axis, keepdim) - correction)
    def nanstd(self, axis: Any = None, keepdim: bool = False, correction: int = 0) -> Tensor:
        return self.nanvar(axis, keepdim, correction).sqrt()
    def nanmax(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The largest of what is no NaN; NaN if nothing is."""
        return self.isnan().all(axis, keepdim).where(math.nan, self._or(-math.inf).max(axis, keepdim))
    def nanmin(self, axis: Any = None, keepdim: bool = False) -> Tensor:
        """The smallest of what is no NaN; NaN if nothing is."""
        return self.isnan().all(axis, keepdim).where(math.nan, self._or(math.inf).min(axis, keepdim))
    def nanargmax(self, axis: int | None = None) -> Tensor: return self._or(-math.inf).argmax(axis)
    def nanargmin(self, axis: int | None = None) -> Tensor: return self._or(math.inf).argmin(axis)

    # ---- counts
    # ----------------------------------------------------------------------------------------------------------------------------
    def bincount(self, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """How often each int from 0 to the largest occurs, or the sum of the weights there. The largest is read, so this computes.

        errors:  DTypeError for other than ints, UsageError for negative ones

        >>> Tensor([0, 2, 2]).bincount().tolist()
        [1, 0, 2]
        """
        if not self.dtype.is_int: raise DTypeError(f"bincount of {self.shape} {self.dtype.short}\n  only ints are counted")
        if self.numel() and int(self.min().item()) < 0:
            raise UsageError(f"bincount of {self.shape}\n  there are negative numbers\n  try: x - x.min()")
        n = max(minlength, int(self.max().item()) + 1 if self.numel() else 0)
        cls, index = type(self), self.flatten()
        d = dtypes.int32 if weights is None else weights.dtype
        if not index.numel() or not n: return cls.zeros(n, dtype=d)
        source = cls.ones(index.numel(), dtype=d) if weights is None else weights.flatten()
        return cls.zeros(n, dtype=d).scatter_reduce(0, index, source, "sum")
    def histogram(self, bins: Any = 10, range: Any = None, weights: Tensor | None = None, density: bool = False) -> tuple[Tensor, Tensor]:
        """(counts, edges) of the elements in bins: a number of equal ones over `range` (the smallest to the largest element), or their
        edges. All bins are half open but the last.

        source:  numpy.histogram
        """
        cls = type(self)
        x = (self if self.dtype.is_float else self.cast(dtypes.default_float)).flatten()
        if isinstance(bins, int):
            if bins < 1: raise UsageError(f"histogram with bins={bins}\n  there must be at least one")
            lo, hi = (x.min(), x.max()) if range is None else (cls(float(v), dtype=x.dtype) for v in range)
            same = lo == hi
            lo, hi = same.where(lo - 0.5, lo), same.where(hi + 0.5, hi)
            part = cls.linspace(0, 1, bins + 1, dtype=x.dtype)
            edges = lo * (1 - part) + hi * part                  # exact at both ends
        else: edges = (bins if isinstance(bins, cls) else cls(bins)).cast(x.dtype)
        n = edges.shape[0] - 1
        place = edges.searchsorted(x, side="right") - 1
        place = (x == edges[-1]).where(n - 1, place)
        outside = (x < edges[0]) | (x > edges[-1]) | x.isnan()
        place = outside.where(n, place)
        source = cls.ones(x.shape[0], dtype=dtypes.int32) if weights is None else weights.flatten()
        counts = cls.zeros(n + 1, dtype=source.dtype).scatter_reduce(0, place, source, "sum")[:n]
        if density: counts = counts / (edges.diff() * counts.sum())
        return counts, edges
    def histc(self, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
        """The counts of `bins` equal bins from min to max; of the smallest to the largest element if both are 0.

        source:  torch.histc
        """
        found = self.histogram(bins, None if min == max == 0 else (min, max))[0]
        return found.cast(self.dtype if self.dtype.is_float else dtypes.default_float)
    def bucketize(self, boundaries: Tensor, right: bool = False) -> Tensor:
        """For each element in which bucket between sorted boundaries it lies: below the first is 0. `right`: a boundary belongs to the
        bucket above.

        source:  torch.bucketize
        """
        return boundaries.searchsorted(self, side="right" if right else "left")
    def digitize(self, bins: Tensor, right: bool = False) -> Tensor:
        """NumPy's bucketize: with `right`, a boundary belongs to the bucket below."""
        return bins.searchsorted(self, side="left" if right else "right")

    # ---- sets
    # --------------------------------------------------------------------------------------------------------------------------------
    def isin(self, test: Any, invert: bool = False) -> Tensor:
        """Whether each element is among those of `test`.

        >>> Tensor([1, 2, 3]).isin(Tensor([3, 1])).tolist()
        [True, False, True]
        """
        test = self.ufix(test).flatten()
        found = (self.unsqueeze(-1) == test).any(-1) if test.shape[0] else self.full_like(False, dtype=dtypes.bool)
        return ~found if invert else found
    def unique(self, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
        """The different values in rising order, or the different slices along `dim`. Their number is read from the values, so this
        computes.

        return_index: also where each first stands; return_inverse: also which of them each element is; return_counts: also how often
                      each occurs.
        errors:  UsageError for slices of floats with NaN

        >>> Tensor([3, 1, 3]).unique().tolist()
        [1, 3]
        """
        if dim is not None: return self._unique_slices(self._axis(dim), return_index, return_inverse, return_counts)
        values, order = self.flatten().sort(0)
        return self._runs(values, values, order, self.shape, return_index, return_inverse, return_counts)
    def unique_consecutive(self, return_inverse: bool = False, return_counts: bool = False) -> Any:
        """The elements of the flat tensor without those that equal the one before. Their number is read, so this computes."""
        x = self.flatten()
        return self._runs(x, x, type(self).arange(x.shape[0]), self.shape, False, return_inverse, return_counts)
    def _runs(self, rows: Tensor, values: Tensor, order: Tensor, shape: tuple[int, ...], index: bool, inverse: bool, counts: bool) -> Any:
        """What `unique` gives, from rows in order: those that differ from the one before begin a run."""
        cls, n = type(self), rows.shape[0]
        fresh = (rows[1:] != rows[:-1]) if n > 1 else cls.zeros(0, dtype=dtypes.bool)
        if fresh.ndim > 1: fresh = fresh.any(tuple(range(1, fresh.ndim)))
        first = cls.ones(min(n, 1), dtype=dtypes.bool).cat(fresh) if n else fresh
        starts = first.nonzero().squeeze(1)
        out = [values[starts]]
        if index: out.append(order[starts])
        if inverse:
            out.append(cls.zeros(n, dtype=dtypes.int32).scatter(0, order, first.cumsum(0) - 1).reshape(*shape) if n
                       else order.reshape(*shape))
        if counts: out.append(starts.cat(cls([n])).diff() if n else starts)
        return out[0] if len(out) == 1 else tuple(out)
    def _unique_slices(self, a: int, index: bool, inverse: bool, counts: bool) -> Any:
        x = self.movedim(a, 0)
        rows = x.reshape(x.shape[0], -1)
        order = type(self).arange(rows.shape[0])
        for column in rows.unbind(1)[::-1]: order = order[column[order].argsort()]
        found = self._runs(rows[order], x[order], order, (x.shape[0],), index, inverse, counts)
        many = isinstance(found, tuple)
        first = (found[0] if many else found).movedim(0, a)
        return (first, *found[1:]) if many else first
    def union1d(self, y: Tensor) -> Tensor: return self.flatten().cat(y.flatten()).unique()
    def intersect1d(self, y: Tensor) -> Tensor:
        """The different values that are in both."""
        x = self.unique()
        return x[x.isin(y)]
    def setdiff1d(self, y: Tensor) -> Tensor:
        """The different values that are not in y."""
        x = self.unique()
        return x[x.isin(y, invert=True)]
    def setxor1d(self, y: Tensor) -> Tensor: return self.setdiff1d(y).cat(y.setdiff1d(self)).sort()[0]
    def unique_values(self) -> Tensor: return self.unique()
    def unique_counts(self) -> tuple[Tensor, Tensor]: return self.unique(return_counts=True)
    def unique_inverse(self) -> tuple[Tensor, Tensor]: return self.unique(return_inverse=True)
    def unique_all(self) -> tuple[Tensor, ...]: return self.unique(True, True, True)
    def equal(self, y: Tensor) -> bool:
        """Whether shape and all elements are equal, as a Python bool."""
        return self.shape == y.shape and bool((self == y).all().item())
    def array_equal(self, y: Tensor) -> bool: return self.equal(y)

    # ---- moments
    # -------------------------------------------------------------------------------------------------------------------------------
    def average(self, axis: Any = None, weights: Tensor | None = None, keepdim: bool = False) -> Tensor:
        """The mean weighted by `weights` (of this shape, or a vector along one axis)."""
        if weights is None: return self.mean(axis, keepdim)
        if weights.ndim == 1 and isinstance(axis, int):
            weights = weights.reshape(*[-1 if i == self._axis(axis) else 1 for i in range(self.ndim)])
        return (self * weights).sum(axis, keepdim) / weights.expand(*self.shape).sum(axis, keepdim)
    def cov(self, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
        """The covariances of the rows (variables) over the columns (observations).

        shapes:  (n, m) -> (n, n); (m,) -> ()
        errors:  ShapeError above two axes
        source:  torch.cov
        """
        if self.ndim > 2: raise ShapeError(f"cov of {self.shape}\n  it must be a matrix: variables by observations")
        x = (self if self.dtype.is_float else self.cast(dtypes.default_float)).atleast_2d()
        w = None
        for more in (fweights, aweights):
            if more is not None: w = more if w is None else w * more
        if w is None:
            rest = x - x.mean(1, keepdim=True)
            out = rest @ rest.T / max(x.shape[1] - correction, 0)
        else:
            w = w.cast(x.dtype)
            total = w.sum()
            rest = x - (x * w).sum(1, keepdim=True) / total
            freedom = total - correction * ((w * aweights).sum() / total if aweights is not None else 1)
            out = (rest * w) @ rest.T / freedom.maximum(0.0)
        return out.reshape(()) if self.ndim < 2 else out
    def corrcoef(self) -> Tensor:
        """The correlations of the rows over the columns, from -1 to 1."""
        c = self.cov()
        if not c.ndim: return c / c
        size = c.diagonal().sqrt()
        return (c / size.unsqueeze(0) / size.unsqueeze(1)).clamp(-1, 1)
    def interp(self, xp: Tensor, fp: Tensor, left: float | None = None, right: float | None = None) -> Tensor:
        """The piecewise linear function through (xp, fp), xp rising, at each element; beyond the ends `left`, `right` or the values there.

        source:  numpy.interp
        """
        n = xp.shape[0]
        high = xp.searchsorted(self, side="right").clamp(1, max(n - 1, 1))
        x0, x1, y0, y1 = xp[high - 1], xp[high], fp[high - 1], fp[high]
        out = y0 + (y1 - y0) * ((self - x0) / (x1 - x0)) if n > 1 else fp[0].expand(*self.shape)
        out = (self < xp[0]).where(fp[0] if left is None else left, out)
        return (self > xp[-1]).where(fp[-1] if right is None else right, (self == xp[-1]).where(fp[-1], out))

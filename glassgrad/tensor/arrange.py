"""Arrange: more ways to cut, join, turn and repeat tensors, and to write at places of an axis. Compositions of movement, gather and
scatter.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import tensors, to_ints
from glassgrad.tensor.creation import to_shape
from glassgrad.uop.dtype import dtypes, to_dtype
from glassgrad.uop.errors import IndexError_, ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor


def listed(parts: tuple[Any, ...], what: str) -> list[Any]:
    """Tensors given as f(x, y) or f([x, y])."""
    return tensors(list(parts[0]) if len(parts) == 1 and isinstance(parts[0], (tuple, list)) else list(parts), what)


class ArrangeMixin:
    """Methods that cut, join and place."""
    __slots__ = ()

    def _rank(self) -> int:
        """The number of axes."""
        return self.ndim
    def _along(self, a: int, part: Any) -> tuple[Any, ...]:
        """The index that is `part` on axis a."""
        return (*(slice(None),) * a, part)

    # ---- turn and repeat ---------------------------------------------------------------------------------------------------------------
    def rot90(self, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
        """The plane of two axes turned k times by 90 degrees, from the first axis towards the second. A view.

        errors:  ShapeError if there are not two different axes

        >>> Tensor([[1, 2], [3, 4]]).rot90().tolist()
        [[2, 4], [1, 3]]
        """
        a, b = (self._axis(d) for d in dims)
        if a == b: raise ShapeError(f"rot90 of {self.shape} over axes {tuple(dims)}\n  the two axes must differ")
        k %= 4
        if k == 0: return self.reshape(self.shape)
        if k == 2: return self.flip(a, b)
        return self.flip(b).transpose(a, b) if k == 1 else self.transpose(a, b).flip(b)
    def fliplr(self) -> Tensor: return self.flip(1)
    def flipud(self) -> Tensor: return self.flip(0)
    def tile(self, *repeats: Any) -> Tensor:
        """The whole tensor so many times along each axis; axes that are not named, the first, stay.

        >>> Tensor([1, 2]).tile(2).tolist()
        [1, 2, 1, 2]
        """
        times = to_shape(repeats, "tile by")
        return self.repeat((1,) * (self.ndim - len(times)) + times)

    # ---- cut ---------------------------------------------------------------------------------------------------------------------------
    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along an axis, without it. Views."""
        a = self._long_axis(dim, "unbind")
        return tuple(self[self._along(a, i)] for i in range(self.shape[a]))
    def unstack(self, axis: int = 0) -> tuple[Tensor, ...]: return self.unbind(axis)
    def select(self, dim: int, index: int) -> Tensor:
        """One slice of an axis, without it. A view."""
        return self[self._along(self._long_axis(dim, "select"), index)]
    def tensor_split(self, sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
        """That many pieces, the first ones longer by one if they cannot all be equal; or cut before each of these places. Views.

        errors:  ShapeError for less than one piece
        """
        a = self._long_axis(dim, "tensor_split")
        n = self.shape[a]
        if isinstance(sections, int):
            if sections < 1:
                raise ShapeError(f"tensor_split of axis {a} of {self.shape} into {sections}\n  there must be at least one piece")
            size, more = divmod(n, sections)
            return self.split([size + (i < more) for i in range(sections)], a)
        cuts = [slice(None, k).indices(n)[1] for k in to_ints(sections, f"tensor_split of axis {a} of {self.shape}")]
        return tuple(self[self._along(a, slice(lo, hi))] for lo, hi in zip((0, *cuts), (*cuts, n)))
    def array_split(self, sections: Any, dim: int = 0) -> tuple[Tensor, ...]: return self.tensor_split(sections, dim)
    def hsplit(self, sections: Any) -> tuple[Tensor, ...]: return self.tensor_split(sections, 0 if self.ndim == 1 else 1)
    def vsplit(self, sections: Any) -> tuple[Tensor, ...]: return self.tensor_split(sections, 0)
    def dsplit(self, sections: Any) -> tuple[Tensor, ...]: return self.tensor_split(sections, 2)
    def trace(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """The sum of a diagonal."""
        return self.diagonal(offset, dim1, dim2).sum(-1)
    def diag_embed(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
        """Matrices with the last axis on a diagonal, zeros elsewhere.

        shapes:  (..., n) -> (..., n + |offset|, n + |offset|), the two new axes at dim1 and dim2
        """
        n = self.shape[-1]
        wide = self.unsqueeze(-1).pad((0, n)).flatten(-2)[..., :n * n].reshape(*self.shape, n) if n else self.reshape(*self.shape, 0)
        wide = wide.pad((max(offset, 0), max(-offset, 0), max(-offset, 0), max(offset, 0)))
        a, b = wide._axis(dim1), wide._axis(dim2)
        if a == b: raise IndexError_(f"diag_embed of {self.shape} at axes {dim1} and {dim2}\n  they must differ")
        order = iter(range(wide.ndim - 2))
        return wide.permute(*[wide.ndim - 2 if i == a else wide.ndim - 1 if i == b else next(order) for i in range(wide.ndim)])
    def diagflat(self, offset: int = 0) -> Tensor: return self.flatten().diag(offset)

    # ---- join --------------------------------------------------------------------------------------------------------------------------
    def atleast_1d(self) -> Tensor: return self if self.ndim else self.reshape(1)
    def atleast_2d(self) -> Tensor: return self if self.ndim > 1 else self.reshape(1, -1)
    def atleast_3d(self) -> Tensor: return self if self.ndim > 2 else self.unsqueeze(-1) if self.ndim == 2 else self.reshape(1, -1, 1)
    @staticmethod
    def hstack(*parts: Any) -> Tensor:
        """Tensors side by side: along axis 1, of vectors along axis 0."""
        xs = [x.atleast_1d() for x in listed(parts, "hstack")]
        return xs[0].cat(xs[1:], dim=0 if xs[0].ndim == 1 else 1)
    @staticmethod
    def vstack(*parts: Any) -> Tensor:
        """Tensors below each other, vectors as rows."""
        xs = [x.atleast_2d() for x in listed(parts, "vstack")]
        return xs[0].cat(xs[1:], dim=0)
    @staticmethod
    def dstack(*parts: Any) -> Tensor:
        """Tensors behind each other, along the third axis."""
        xs = [x.atleast_3d() for x in listed(parts, "dstack")]
        return xs[0].cat(xs[1:], dim=2)
    @staticmethod
    def column_stack(*parts: Any) -> Tensor:
        """Tensors side by side, vectors as columns."""
        xs = [x if x.ndim > 1 else x.reshape(-1, 1) for x in listed(parts, "column_stack")]
        return xs[0].cat(xs[1:], dim=1)
    @staticmethod
    def block_diag(*parts: Any) -> Tensor:
        """Matrices along the diagonal of one, zeros elsewhere."""
        xs = [x.atleast_2d() for x in listed(parts, "block_diag")]
        width, at, rows = sum(x.shape[1] for x in xs), 0, []
        for x in xs:
            rows.append(x.pad((at, width - at - x.shape[1])))
            at += x.shape[1]
        return rows[0].cat(rows[1:], dim=0)
    @staticmethod
    def broadcast_tensors(*parts: Any) -> tuple[Tensor, ...]:
        """Tensors expanded to their common shape. Views."""
        xs = listed(parts, "broadcast_tensors")
        shape = (sum(x.zeros_like() for x in xs)).shape if xs else ()
        return tuple(x.expand(*shape) for x in xs)
    @staticmethod
    def cartesian_prod(*parts: Any) -> Tensor:
        """All ways to pick one element of each vector, one way a row."""
        xs = listed(parts, "cartesian_prod")
        if len(xs) == 1: return xs[0]
        grids = xs[0].meshgrid(*xs[1:])
        return grids[0].stack(*grids[1:], dim=-1).reshape(-1, len(xs))
    def combinations(self, r: int = 2, with_replacement: bool = False) -> Tensor:
        """All ways to pick r elements of a vector, in order, one way a row.

        errors:  ShapeError if this is no vector
        """
        if self.ndim != 1: raise ShapeError(f"combinations of {self.shape}\n  it must be a vector")
        pick = itertools.combinations_with_replacement if with_replacement else itertools.combinations
        rows = list(pick(range(self.shape[0]), r))
        return self[rows] if rows else self[:0].reshape(0, 1).expand(0, r)

    # ---- triangles and grids
    # ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def tril_indices(cls, n: int, m: int | None = None, offset: int = 0, *, device: str | None = None) -> Tensor:
        """The places on and below a diagonal of an n x m matrix: a row of row numbers and a row of column numbers (int32)."""
        m = n if m is None else m
        return cls._pairs([(i, j) for i in range(n) for j in range(max(min(i + offset + 1, m), 0))], device)
    @classmethod
    def triu_indices(cls, n: int, m: int | None = None, offset: int = 0, *, device: str | None = None) -> Tensor:
        """The places on and above a diagonal of an n x m matrix: a row of row numbers and a row of column numbers (int32)."""
        m = n if m is None else m
        return cls._pairs([(i, j) for i in range(n) for j in range(max(i + offset, 0), m)], device)
    @classmethod
    def _pairs(cls, pairs: list[tuple[int, int]], device: str | None) -> Tensor:
        if not pairs: return cls.zeros(2, 0, dtype=dtypes.int32, device=device)
        return cls([[p[k] for p in pairs] for k in range(2)], dtype=dtypes.int32, device=device)
    @classmethod
    def tri(cls, n: int, m: int | None = None, k: int = 0, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """Ones on and below a diagonal of an n x m matrix."""
        return cls.ones(n, n if m is None else m, device=device, dtype=dtype).tril(k)
    @classmethod
    def logspace(cls, start: float, stop: float, steps: int, base: float = 10.0, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """base to the power of `steps` values from start to stop."""
        d = to_dtype(dtype or dtypes.default_float)
        wide = dtypes.float64 if d is dtypes.float64 else dtypes.float32
        return (cls.linspace(start, stop, steps, device=device, dtype=wide) * math.log2(base)).exp2().cast(d)
    @classmethod
    def geomspace(cls, start: float, stop: float, steps: int, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """`steps` values from start to stop with equal ratios.

        errors:  UsageError unless both bounds are positive or both negative
        """
        if not start * stop > 0: raise UsageError(f"geomspace({start}, {stop}, {steps})\n  both bounds must be positive, or both negative")
        return math.copysign(1, start) * cls.logspace(math.log10(abs(start)), math.log10(abs(stop)), steps, device=device, dtype=dtype)
    def vander(self, n: int | None = None, increasing: bool = False) -> Tensor:
        """The powers of a vector's elements, each in a row: n of them, the highest first unless increasing."""
        n = self.shape[0] if n is None else n
        powers = [self.ones_like()]
        for _ in range(n - 1): powers.append(powers[-1] * self)
        powers = powers[:n] if increasing else powers[:n][::-1]
        return powers[0].stack(*powers[1:], dim=-1) if powers else self.reshape(-1, 1)[:, :0]

    # ---- differences
    # -----------------------------------------------------------------------------------------------------------------------
    def diff(self, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
        """Each element minus the one before it along an axis, n times over; for bools whether they differ.

        >>> Tensor([1, 4, 9]).diff().tolist()
        [3, 5]
        """
        a = self._long_axis(dim, "diff")
        x = self
        if prepend is not None: x = prepend.cat(x, dim=a)
        if append is not None: x = x.cat(append, dim=a)
        for _ in range(min(n, x.shape[a])):
            late, early = x[self._along(a, slice(1, None))], x[self._along(a, slice(None, max(x.shape[a] - 1, 0)))]
            x = late ^ early if x.dtype.is_bool else late - early
        return x
    def trapezoid(self, x: Tensor | None = None, dx: float = 1.0, dim: int = -1) -> Tensor:
        """The integral along an axis by trapezoids, over the places x or with steps of dx."""
        return self._trapezoids(x, dx, dim).sum(dim)
    def cumulative_trapezoid(self, x: Tensor | None = None, dx: float = 1.0, dim: int = -1) -> Tensor:
        """The running integral along an axis by trapezoids."""
        return self._trapezoids(x, dx, dim).cumsum(dim)
    def _trapezoids(self, x: Tensor | None, dx: float, dim: int) -> Tensor:
        a = self._long_axis(dim, "trapezoid")
        sums = (self[self._along(a, slice(1, None))] + self[self._along(a, slice(None, self.shape[a] - 1))]) * 0.5
        if x is None: return sums * dx
        step = x.diff(dim=-1 if x.ndim == 1 else a)
        return sums * (step.reshape(*[-1 if i == a else 1 for i in range(self.ndim)]) if x.ndim == 1 else step)
    def unwrap(self, discont: float | None = None, axis: int = -1, period: float = 2 * math.pi) -> Tensor:
        """Angles made continuous: jumps of more than half a period become their complement."""
        a = self._axis(axis)
        jump = self.diff(dim=a)
        folded = (jump + period / 2) % period - period / 2
        folded = ((folded == -period / 2) & (jump > 0)).where(period / 2, folded)
        fix = (jump.abs() < (period / 2 if discont is None else discont)).where(0.0, folded - jump).cumsum(a)
        return self[self._along(a, slice(0, 1))].cat(self[self._along(a, slice(1, None))] + fix, dim=a)

    # ---- write at places, as copies
    # ----------------------------------------------------------------------------------------------------------
    def index_add(self, dim: int, index: Tensor, source: Tensor, alpha: float = 1) -> Tensor:
        """A copy to whose slices at `index` of an axis those of `source` are added; equal indices add up."""
        return self._at_slices(dim, index, source * alpha if alpha != 1 else source, "sum")
    def index_copy(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """A copy whose slices at `index` of an axis are those of `source`."""
        return self._at_slices(dim, index, source, None)
    def index_fill(self, dim: int, index: Tensor, value: float) -> Tensor:
        """A copy whose slices at `index` of an axis are `value`."""
        a = self._axis(dim)
        shape = [index.numel() if i == a else n for i, n in enumerate(self.shape)]
        return self._at_slices(dim, index, type(self).full(shape, value, dtype=self.dtype, device=self._storage.device), None)
    def index_reduce(self, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool = True) -> Tensor:
        """A copy into whose slices at `index` of an axis those of `source` are combined; reduce as in scatter_reduce."""
        return self._at_slices(dim, index, source, reduce, include_self)
    def _at_slices(self, dim: int, index: Tensor, source: Tensor, reduce: str | None, include_self: bool = True) -> Tensor:
        a = self._axis(dim)
        shape = tuple(index.numel() if i == a else n for i, n in enumerate(self.shape))
        if source.shape != shape:
            raise ShapeError(f"writing slices of {source.shape} at {index.numel()} places of axis {a} of {self.shape}\n"
                             f"  the slices must be {shape}")
        at = self._counted(index.flatten(), self.shape[a]).reshape(*[-1 if i == a else 1 for i in range(self.ndim)]).expand(*shape)
        return self.scatter(a, at, source) if reduce is None else self.scatter_reduce(a, at, source, reduce, include_self)
    def _counted(self, index: Tensor, n: int) -> Tensor:
        """Negative places counted from the end."""
        return (index < 0).where(index + n, index) if not index.dtype.is_unsigned else index
    def index_put(self, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Tensor:
        """A copy with `values` written (or added) at x[indices]."""
        if accumulate:
            flat = type(self).arange(self.numel(), dtype=dtypes.int32).reshape(self.shape)[tuple(indices)]
            source = self.ufix(values).cast(self.dtype).expand(*flat.shape).flatten()
            return self.flatten().index_add(0, flat.flatten(), source).reshape(self.shape)
        out = self.clone()
        out[tuple(indices)] = values
        return out
    def put(self, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
        """A copy with the elements of `source` written (or added) at these places of the flat tensor."""
        flat, at = self.flatten(), index.flatten()
        return (flat.index_add(0, at, source.flatten()) if accumulate else flat.index_copy(0, at, source.flatten())).reshape(self.shape)
    def masked_scatter(self, mask: Tensor, source: Tensor) -> Tensor:
        """A copy with the elements of `source`, in order, where the mask is true."""
        m = mask.expand(*self.shape).flatten()
        place = (m.cumsum(0) - 1).maximum(0)
        return m.where(source.flatten()[place], self.flatten()).reshape(self.shape)
    def select_scatter(self, source: Tensor, dim: int, index: int) -> Tensor:
        """A copy with `source` as slice `index` of an axis."""
        return self._with(self._along(self._axis(dim), index), source)
    def slice_scatter(self, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
        """A copy with `source` as a slice of an axis."""
        return self._with(self._along(self._axis(dim), slice(start, end, step)), source)
    def diagonal_scatter(self, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """A copy with `source` on a diagonal."""
        out = self.clone()
        out.diagonal(offset, dim1, dim2).assign(source)
        return out
    def fill_diagonal(self, value: float, offset: int = 0) -> Tensor:
        """A copy of matrices with `value` on a diagonal."""
        i, j = (type(self).arange(n).reshape(*shape) for n, shape in zip(self.shape[-2:], ((-1, 1), (1, -1))))
        return (j - i == offset).where(value, self)
    def _with(self, key: tuple[Any, ...], source: Tensor) -> Tensor:
        out = self.clone()
        out[key] = source
        return out

    # ---- as NumPy has them
    # -------------------------------------------------------------------------------------------------------------------
    def argwhere(self) -> Tensor: return self.nonzero()
    def flatnonzero(self) -> Tensor: return self.flatten().nonzero().squeeze(1)
    def compress(self, condition: Tensor, axis: int | None = None) -> Tensor:
        """The slices of an axis (of the flat tensor for None) where the condition is true. It is read, so this computes it."""
        x = self.flatten() if axis is None else self
        a = x._axis(axis or 0)
        return x[self._along(a, condition.nonzero().squeeze(1))]
    def choose(self, *choices: Any) -> Tensor:
        """From the choices, at each place the one this tensor of ints names there."""
        xs = listed(choices, "choose")
        xs = list(type(self).broadcast_tensors(self, *xs))
        return xs[1].stack(*xs[2:]).gather(0, xs[0].unsqueeze(0)).squeeze(0)
    def msort(self) -> Tensor: return self.sort(0)[0]
    def ravel_index(self, *dims: Any) -> Tensor:
        """From rows of places, one row an axis, the places in the flat tensor of shape `dims`.

        >>> Tensor([[1], [2]]).ravel_index(3, 4).tolist()
        [6]
        """
        shape = to_shape(dims, "ravel_index into")
        if self.shape[0] != len(shape): raise ShapeError(f"ravel_index of {self.shape} into {shape}\n  there must be one row an axis")
        out = self[0]
        for i, n in enumerate(shape[1:], 1): out = out * n + self[i]
        return out
    def unravel_index(self, *dims: Any) -> tuple[Tensor, ...]:
        """From places in the flat tensor of shape `dims` the places along each axis."""
        rest, out = self, []
        for n in reversed(to_shape(dims, "unravel_index into")):
            out.append(rest % n)
            rest = rest // n
        return tuple(out[::-1])
    def lexsort(self) -> Tensor:
        """The places that sort by the last row, where it is equal by the row before it, and so on."""
        order = self[0].argsort()
        for row in self.unbind()[1:]: order = order[row[order].argsort()]
        return order

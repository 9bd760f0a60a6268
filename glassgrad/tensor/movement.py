"""Movement: other shapes of the same elements. What moves no data is a view; pad, cat, roll and the like make new values."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import tensors, to_ints
from glassgrad.tensor.creation import iota, to_shape
from glassgrad.tensor.storage import Step, fill
from glassgrad.uop.dtype import dtypes, promote
from glassgrad.uop.errors import IndexError_, ShapeError, UsageError
from glassgrad.uop.ops import Ops, UnfoldArg
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor


class MovementMixin:
    """Methods that change shapes."""
    __slots__ = ()

    # ---- axes --------------------------------------------------------------------------------------------------------------------
    def _axis(self, dim: int, extra: int = 0) -> int:
        """`dim` counted from the front; `extra` more axes are allowed.

        errors:  IndexError_ if there is no such axis
        """
        n = self.ndim + extra
        if not isinstance(dim, int) or not -max(n, 1) <= dim < max(n, 1):
            raise IndexError_(f"axis {dim!r} of a tensor {self.shape} {self.dtype.short}\n  axes go from {-n} to {n - 1}")
        return dim + n if dim < 0 else dim
    def _long_axis(self, dim: int, what: str) -> int:
        """`_axis` of what cannot be a scalar.

        errors:  ShapeError for shape (), IndexError_ if there is no such axis
        """
        if not self.ndim: raise ShapeError(f"{what} of shape () {self.dtype.short}\n  a scalar has no axes\n  try: x.reshape(1)")
        return self._axis(dim)

    def _axes(self, axis: Any) -> tuple[int, ...]:
        """All axes for None, else those named, in order and each once."""
        if axis is None: return tuple(range(self.ndim))
        given = axis if isinstance(axis, (tuple, list)) else (axis,)
        if not self.ndim and all(a in (0, -1) for a in given): return ()
        axes = sorted(self._axis(a) for a in given)
        if len(set(axes)) < len(axes):
            raise IndexError_(f"axes {axis!r} of a tensor {self.shape} {self.dtype.short}\n  an axis is named twice")
        return tuple(axes)

    # ---- views -------------------------------------------------------------------------------------------------------------------
    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in row-major order in another shape; -1 is whatever is left, None keeps an axis. A view.

        errors:  ShapeError if the sizes do not multiply to the number of elements

        >>> Tensor.arange(6).reshape(2, -1).shape
        (2, 3)
        """
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)): shape = tuple(shape[0])
        old = self.shape
        sizes = [old[i] if s is None and i < len(old) else s for i, s in enumerate(shape)]
        if sizes.count(-1) > 1: raise ShapeError(f"reshape of {old} {self.dtype.short} to {tuple(shape)}\n  only one size can be -1")
        total = math.prod(old)
        if -1 in sizes:
            rest = -math.prod(sizes)
            if rest == 0 or total % rest: raise self._reshape_error(shape, total)
            sizes[sizes.index(-1)] = total // rest
        new = to_shape(sizes, f"reshape of {old} to")
        if new == old: return self._viewed()
        if math.prod(new) != total: raise self._reshape_error(shape, total)
        return self._viewed(Step(Ops.RESHAPE, new))
    def _reshape_error(self, shape: Any, total: int) -> ShapeError:
        made = f"\n  made at {self.uop.site}" if self.uop.site else ""
        return ShapeError(f"reshape of {self.shape} {self.dtype.short} to {tuple(shape)}\n  {total} elements do not fill it{made}")
    def view(self, *shape: Any) -> Tensor:
        """The same as reshape."""
        return self.reshape(*shape)

    def expand(self, *shape: Any) -> Tensor:
        """Axes of length 1 repeated, new axes in front; -1 keeps a length. A view that cannot be written to.

        errors:  ShapeError if an axis longer than 1 would change
        """
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)): shape = tuple(shape[0])
        old = self.shape
        if len(shape) < len(old):
            raise ShapeError(f"expand of {old} {self.dtype.short} to {tuple(shape)}\n  there must be at least {len(old)} axes")
        padded = (1,) * (len(shape) - len(old)) + old
        new = to_shape(tuple([n if s in (-1, None) else s for s, n in zip(shape, padded)]), f"expand of {old} to")
        if any(n not in (1, s) for s, n in zip(new, padded)):
            raise ShapeError(f"expand of {old} {self.dtype.short} to {tuple(shape)}\n  only axes of length 1 can be expanded")
        steps = []
        if padded != old: steps.append(Step(Ops.RESHAPE, padded))
        if new != padded: steps.append(Step(Ops.EXPAND, new))
        return self._viewed(*steps)
    def broadcast_to(self, *shape: Any) -> Tensor: return self.expand(*shape)
    def expand_as(self, x: Tensor) -> Tensor: return self.expand(x.shape)
    def view_as(self, x: Tensor) -> Tensor: return self.reshape(x.shape)

    def permute(self, *axes: Any) -> Tensor:
        """Axes in another order: output axis i is input axis axes[i]. A view.

        errors:  IndexError_ if they are no permutation
        """
        if len(axes) == 1 and isinstance(axes[0], (tuple, list)): axes = tuple(axes[0])
        order = tuple(self._axis(a) for a in axes)
        if sorted(order) != list(range(self.ndim)):
            raise IndexError_(f"permute of {self.shape} by {tuple(axes)}\n  every axis must be named exactly once")
        return self._viewed() if order == tuple(range(self.ndim)) else self._viewed(Step(Ops.PERMUTE, order))
    def transpose(self, dim0: int = 1, dim1: int = 0) -> Tensor:
        """Two axes swapped. A view."""
        order = list(range(self.ndim))
        a, b = self._axis(dim0), self._axis(dim1)
        if order: order[a], order[b] = order[b], order[a]
        return self.permute(*order)
    def swapaxes(self, dim0: int, dim1: int) -> Tensor: return self.transpose(dim0, dim1)
    def movedim(self, source: Any, destination: Any) -> Tensor:
        """Axes moved to other places, the others in order. A view.

        errors:  IndexError_ if not every axis named has one place of its own
        """
        a, b = ([self._axis(d) for d in (v if isinstance(v, (tuple, list)) else (v,))] for v in (source, destination))
        if len(set(a)) != len(a) or len(set(b)) != len(b) or len(a) != len(b):
            raise IndexError_(f"movedim of {self.shape} from {source} to {destination}\n  every axis must have one place of its own")
        goal, rest = dict(zip(b, a)), iter([i for i in range(self.ndim) if i not in a])
        return self.permute(*[goal[i] if i in goal else next(rest) for i in range(self.ndim)])
    @property
    def T(self) -> Tensor:
        """The axes in reverse order (of a matrix: its transpose). A view."""
        return self.permute(*reversed(range(self.ndim)))
    @property
    def mT(self) -> Tensor: return self.transpose(-2, -1)

    def flip(self, *axis: Any) -> Tensor:
        """These axes reversed (all, if none is named). A view."""
        if len(axis) == 1 and isinstance(axis[0], (tuple, list)): axis = tuple(axis[0])
        axes = self._axes(axis if axis else None)
        return self._viewed(Step(Ops.FLIP, axes)) if axes else self._viewed()

    def shrink(self, arg: Sequence[Any]) -> Tensor:
        """A box ((start, end), …), one pair an axis, None keeps an axis. A view.

        errors:  ShapeError if it does not lie inside
        """
        if not isinstance(arg, (tuple, list)) or len(arg) != self.ndim or any(p is not None and not is_pair(p) for p in arg):
            raise ShapeError(f"shrink of {self.shape} to {arg!r}\n  there must be one pair (start, end) for each axis, or None to keep it")
        box = tuple([(0, n) if p is None else to_ints(p, f"shrink of {self.shape} to {arg!r}") for p, n in zip(arg, self.shape)])
        if any(not 0 <= lo <= hi <= n for (lo, hi), n in zip(box, self.shape)):
            raise ShapeError(f"shrink of {self.shape} to {box}\n  each pair must be 0 <= start <= end <= length")
        return self._viewed() if box == tuple((0, n) for n in self.shape) else self._viewed(Step(Ops.SHRINK, box))
    def shrink_to(self, *shape: Any) -> Tensor:
        """The first elements of each axis; None keeps an axis. A view."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return self.shrink([None if s is None else (0, s) for s in sizes])
    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """`length` elements of one axis from `start` on. A view."""
        a = self._axis(dim)
        return self.shrink([(start, start + length) if i == a else None for i in range(self.ndim)])

    def squeeze(self, dim: Any = None) -> Tensor:
        """Axes of length 1 dropped: all, or those named that have length 1. A view."""
        if dim is None: drop: set[int] = {i for i, n in enumerate(self.shape) if n == 1}
        else: drop = {a for a in self._axes(dim) if self.shape[a] == 1}
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in drop))
    def unsqueeze(self, dim: int) -> Tensor:
        """A new axis of length 1 at `dim`. A view."""
        a = self._axis(dim, 1)
        return self.reshape((*self.shape[:a], 1, *self.shape[a:]))
    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from start_dim to end_dim as one. A view."""
        if not self.ndim: return self.reshape(1)
        a, b = self._axis(start_dim), self._axis(end_dim)
        if a > b: raise IndexError_(f"flatten of {self.shape} from axis {a} to axis {b}\n  the first must not come after the last")
        return self.reshape((*self.shape[:a], math.prod(self.shape[a:b + 1]), *self.shape[b + 1:]))
    def ravel(self) -> Tensor: return self.flatten()
    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """One axis as several of these sizes; one may be -1. A view."""
        a = self._long_axis(dim, "unflatten")
        sizes = list(to_ints(sizes, f"unflatten of axis {a} of {self.shape}"))
        if sizes.count(-1) == 1:
            rest = -math.prod(sizes)
            if rest and self.shape[a] % rest == 0: sizes[sizes.index(-1)] = self.shape[a] // rest
        if math.prod(sizes) != self.shape[a]:
            raise ShapeError(f"unflatten of axis {a} of {self.shape} to {tuple(sizes)}\n  {self.shape[a]} elements do not fill it")
        return self.reshape((*self.shape[:a], *sizes, *self.shape[a + 1:]))

    def rearrange(self, formula: str, **sizes: int) -> Tensor:
        """Axes named, split, joined and reordered by an einops formula.

        errors:  ShapeError if the formula does not fit

        >>> Tensor.arange(6).reshape(2, 3).rearrange("a b -> (b a)").tolist()
        [0, 3, 1, 4, 2, 5]
        """
        what = f"rearrange of {self.shape} by {formula!r}"
        if formula.count("->") != 1: raise ShapeError(f"{what}\n  a formula is 'axes -> axes'")
        left, right = (_parse_side(side, what) for side in formula.split("->"))
        if any("..." in g for g in left):
            at, more = left.index(["..."]), self.ndim - len(left) + 1
            if more < 0: raise ShapeError(f"{what}\n  the tensor has {self.ndim} axes, the left side names {len(left) - 1}")
            dots = [[f"...{i}"] for i in range(more)]
            left[at:at + 1] = dots
            right = [h for g in right for h in (dots if g == ["..."] else [[x for y in g for x in ([d[0] for d in dots] if y == "..." else [y])]])]
        if len(left) != self.ndim: raise ShapeError(f"{what}\n  the tensor has {self.ndim} axes, the left side names {len(left)}")
        names = [n for g in left for n in g]
        if sorted(n for n in names if n != "1") != sorted(n for g in right for n in g if n != "1"):
            raise ShapeError(f"{what}\n  both sides must name the same axes, each once")
        known, first = dict(sizes), []
        for group, n in zip(left, self.shape):
            unknown = [x for x in group if x not in known and x != "1"]
            rest = math.prod(known.get(x, 1) for x in group)
            if len(unknown) > 1:
                raise ShapeError(f"{what}\n  the sizes of {' and '.join(unknown)} are both unknown\n"
                                 f"  try: rearrange(formula, {unknown[0]}=…)")
            if rest == 0 or n % rest or (not unknown and rest != n):
                raise ShapeError(f"{what}\n  an axis of {n} does not split into {' '.join(group)}")
            if unknown: known[unknown[0]] = n // rest
            first += [known.get(x, 1) for x in group if x != "1"]
        order = [n for n in names if n != "1"]
        goal = [n for g in right for n in g if n != "1"]
        return self.reshape(first).permute(*[order.index(n) for n in goal]).reshape([math.prod(known.get(x, 1) for x in g) for g in right])

    def split(self, sizes: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of this size (the last may be shorter), or of these sizes. Views.

        errors:  ShapeError if the sizes do not add up
        """
        a = self._long_axis(dim, "split")
        n = self.shape[a]
        if not isinstance(sizes, int): sizes = to_ints(sizes, f"split of axis {a} of {self.shape}")
        else:
            if sizes < 1: raise ShapeError(f"split of axis {a} of {self.shape} into pieces of {sizes}\n  pieces must not be empty")
            sizes = [min(sizes, n - i) for i in range(0, max(n, 1), sizes)]
        if sum(sizes) != n:
            raise ShapeError(f"split of axis {a} of {self.shape} into {tuple(sizes)}\n  the sizes add up to {sum(sizes)}, not {n}")
        out, at = [], 0
        for size in sizes:
            out.append(self.narrow(a, at, size))
            at += size
        return tuple(out)
    def chunk(self, chunks: int, dim: int = 0) -> list[Tensor]:
        """At most `chunks` pieces of equal size (the last may be shorter). Views."""
        if chunks < 1: raise ShapeError(f"chunk of {self.shape} into {chunks}\n  there must be at least one")
        return list(self.split(max(-(-self.shape[self._long_axis(dim, "chunk")] // chunks), 1), dim))

    def unfold(self, dim: int, size: int, step: int = 1) -> Tensor:
        """Sliding windows of an axis; the place in the window is a new last axis. A view that cannot be written to where windows overlap.

        >>> Tensor.arange(5).unfold(0, 3, 2).tolist()
        [[0, 1, 2], [2, 3, 4]]
        """
        a = self._long_axis(dim, "unfold")
        if size < 1 or step < 1 or size > self.shape[a]:
            raise ShapeError(f"unfold of axis {a} of {self.shape} with windows of {size}, step {step}\n"
                             f"  0 < size <= {self.shape[a]} and step > 0 are needed")
        return self._viewed(Step(Ops.UNFOLD, UnfoldArg(a, size, step, 1, self.shape[a])))

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """The elements with index2 = index1 + offset, as a new last axis."""
        a, b = self._axis(dim1), self._axis(dim2)
        if a == b: raise IndexError_(f"diagonal of {self.shape} over axes {dim1} and {dim2}\n  they must differ")
        x = self.permute(*[i for i in range(self.ndim) if i not in (a, b)], a, b)
        n, m = x.shape[-2:]
        k = max(min(n, m - offset) if offset >= 0 else min(n + offset, m), 0)
        rows, cols = max(-offset, 0), max(offset, 0)
        if not k: return x.shrink([*[None] * (x.ndim - 2), (0, 0), (0, min(m, 1))]).reshape((*x.shape[:-2], 0))
        box = x.shrink([*[None] * (x.ndim - 2), (rows, rows + k), (cols, cols + k)])
        if k == 1: return box.reshape((*x.shape[:-2], 1))
        flat = box.reshape((*x.shape[:-2], k * k))     # every (k+1)-th element
        step = Step(Ops.UNFOLD, UnfoldArg(flat.ndim - 1, 1, k + 1, 1, k * k))
        return flat._viewed(step).reshape((*x.shape[:-2], k))

    # ---- new values --------------------------------------------------------------------------------------------------------------
    def pad(self, padding: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Tensor:
        """More elements around. `padding` is flat, last axis first, (lo, hi, lo, hi, …), or one pair (or None) for each axis; negative
        numbers cut.

        mode:    "constant" (value), "reflect" (without the edge), "replicate" (the edge), "circular"
        errors:  UsageError for another mode, ShapeError if the padding does not fit the shape

        >>> Tensor([1, 2, 3]).pad((1, 2)).tolist()
        [0, 1, 2, 3, 0, 0]
        """
        pairs = self._pad_pairs(padding)
        if mode not in ("constant", "reflect", "replicate", "circular"):
            raise UsageError(f"pad with mode={mode!r}\n  try: 'constant', 'reflect', 'replicate' or 'circular'")
        if mode != "constant": return self._pad_around(pairs, mode)
        x = self.uop
        cut = tuple((max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in zip(pairs, x.shape))
        if any(lo > hi for lo, hi in cut): raise ShapeError(f"pad of {self.shape} by {tuple(pairs)}\n  it cuts more than there is")
        x = x.shrink(cut)
        return self._new(pad_with(x, tuple((max(lo, 0), max(hi, 0)) for lo, hi in pairs), value))
    def pad_to(self, *shape: Any, value: float = 0.0) -> Tensor:
        """`value` behind the elements of each axis up to this shape; None keeps an axis."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if len(sizes) != self.ndim: raise ShapeError(f"pad_to of {self.shape} to {tuple(sizes)}\n  there must be one size for each axis")
        more = to_ints([0 if s is None else s for s in sizes], f"pad_to of {self.shape} to {tuple(sizes)!r}")
        return self.pad([None if s is None else (0, k - n) for s, k, n in zip(sizes, more, self.shape)], value=value)
    def _pad_pairs(self, padding: Sequence[Any]) -> list[tuple[int, int]]:
        if not isinstance(padding, (tuple, list)) or any(not (p is None or isinstance(p, int) or is_pair(p)) for p in padding):
            raise ShapeError(f"pad of {self.shape} by {padding!r}\n  there must be two numbers or one pair for each axis\n"
                             f"  try: x.pad((1, 1)) for the last axis")
        if all(isinstance(p, int) for p in padding):
            if len(padding) % 2 or len(padding) > 2 * self.ndim:
                raise ShapeError(f"pad of {self.shape} by {tuple(padding)}\n  a flat padding has two numbers an axis, last axis first")
            pairs = [(padding[i], padding[i + 1]) for i in range(0, len(padding), 2)][::-1]
            return [(0, 0)] * (self.ndim - len(pairs)) + pairs
        if len(padding) != self.ndim: raise ShapeError(f"pad of {self.shape} by {tuple(padding)}\n  there must be one pair for each axis")
        if any(isinstance(p, int) for p in padding):
            raise ShapeError(f"pad of {self.shape} by {tuple(padding)}\n  numbers and pairs cannot stand side by side")
        return [(0, 0) if p is None else to_ints(p, f"pad of {self.shape} by {tuple(padding)}") for p in padding]
    def _pad_around(self, pairs: list[tuple[int, int]], mode: str) -> Tensor:
        x = self.uop
        for a, (lo, hi) in enumerate(pairs):
            n = x.shape[a]
            most = n - 1 if mode == "reflect" else n
            if mode != "replicate" and max(lo, hi) > most or n == 0 and (lo > 0 or hi > 0):
                raise ShapeError(f"pad of {self.shape} by {tuple(pairs)} with mode={mode!r}\n"
                                 f"  axis {a} of length {n} can give at most {most} elements")
            x, lo, hi = cut_axis(x, a, max(-lo, 0), n - max(-hi, 0)), max(lo, 0), max(hi, 0)
            m = x.shape[a]
            if mode == "replicate": before, after = _repeat_axis(cut_axis(x, a, 0, 1), a, lo), _repeat_axis(cut_axis(x, a, m - 1, m), a, hi)
            elif mode == "reflect": before, after = cut_axis(x, a, 1, lo + 1).flip((a,)), cut_axis(x, a, m - 1 - hi, m - 1).flip((a,))
            else: before, after = cut_axis(x, a, m - lo, m), cut_axis(x, a, 0, hi)
            x = join([p for p, k in ((before, lo), (x, 1), (after, hi)) if k], a)
        return self._new(x)

    def cat(self, *others: Any, dim: int = 0) -> Tensor:
        """Tensors one after the other along an axis; all other axes must be equal.

        dtypes:  promote of all
        errors:  ShapeError naming the tensor that does not fit

        >>> Tensor([1, 2]).cat(Tensor([3])).tolist()
        [1, 2, 3]
        """
        parts = tensors([self, *(others[0] if len(others) == 1 and isinstance(others[0], (tuple, list)) else others)], "cat")
        if not self.ndim: raise ShapeError("cat of tensors of shape ()\n  scalars have no axis to join along\n  try: x.stack(y)")
        a = self._axis(dim)
        for k, x in enumerate(parts):
            if x.ndim != self.ndim or any(n != m for i, (n, m) in enumerate(zip(x.shape, self.shape)) if i != a):
                raise ShapeError(f"cat along axis {a} of {', '.join(str(p.shape) for p in parts[:8])}\n"
                                 f"  tensor {k} is {x.shape}; all axes but {a} must be as in {self.shape}")
        d = promote(*(x.dtype for x in parts))
        return self._new(join([x.uop.cast(d) for x in parts], a), *parts[1:])
    def stack(self, *others: Any, dim: int = 0) -> Tensor:
        """Tensors of one shape along a new axis.

        errors:  ShapeError if the shapes differ
        """
        parts = tensors([self, *(others[0] if len(others) == 1 and isinstance(others[0], (tuple, list)) else others)], "stack")
        a = self._axis(dim, 1)
        if any(x.shape != self.shape for x in parts):
            raise ShapeError(f"stack of {', '.join(str(p.shape) for p in parts[:8])}\n  all shapes must be equal")
        d = promote(*(x.dtype for x in parts))
        new = (*self.shape[:a], 1, *self.shape[a:])
        return self._new(join([x.uop.cast(d).reshape(new) for x in parts], a), *parts[1:])

    def repeat(self, *repeats: Any) -> Tensor:
        """The whole tensor so many times along each axis (axes are added in front if there are more numbers).

        >>> Tensor([1, 2]).repeat(2, 2).tolist()
        [[1, 2, 1, 2], [1, 2, 1, 2]]
        """
        times = to_shape(repeats, "repeat by")
        if len(times) < self.ndim: raise ShapeError(f"repeat of {self.shape} by {times}\n  there must be at least {self.ndim} numbers")
        base = (1,) * (len(times) - self.ndim) + self.shape
        x = self.uop.reshape(tuple(s for n in base for s in (1, n))).expand(tuple(s for t, n in zip(times, base) for s in (t, n)))
        return self._new(x.reshape(tuple(t * n for t, n in zip(times, base))))
    def repeat_interleave(self, repeats: Any, dim: int | None = None) -> Tensor:
        """Each element (or slice along `dim`) so many times in a row; `repeats` may be one number for each.

        >>> Tensor([1, 2]).repeat_interleave(2).tolist()
        [1, 1, 2, 2]
        """
        x = self.flatten() if dim is None else self
        a = x._long_axis(0 if dim is None else dim, "repeat_interleave")
        if not isinstance(repeats, int):
            counts = repeats.tolist() if hasattr(repeats, "tolist") else repeats
            counts = to_ints(counts if isinstance(counts, (tuple, list)) else [counts], f"repeat_interleave of {self.shape}")
            if len(counts) == 1: repeats = counts[0]
            elif len(counts) != x.shape[a]:
                raise ShapeError(f"repeat_interleave of axis {a} of {x.shape} by {len(counts)} numbers\n  there must be {x.shape[a]}")
            else: return x[(slice(None),) * a + ([i for i, k in enumerate(counts) for _ in range(k)],)]
        if repeats < 0: raise UsageError(f"repeat_interleave by {repeats}\n  the number of repeats must not be negative")
        u = x.uop.reshape((*x.shape[:a + 1], 1, *x.shape[a + 1:])).expand((*x.shape[:a + 1], repeats, *x.shape[a + 1:]))
        return x._new(u.reshape((*x.shape[:a], x.shape[a] * repeats, *x.shape[a + 1:])))

    def roll(self, shifts: Any, dims: Any = None) -> Tensor:
        """Elements moved along axes; what leaves at the end comes in at the front. Without `dims` the tensor is rolled flat.

        >>> Tensor([1, 2, 3]).roll(1).tolist()
        [3, 1, 2]
        """
        what = f"roll of {self.shape} by {shifts!r} along {dims!r}"
        shifts, dims = (v if v is None else (v,) if isinstance(v, int) else to_ints(v, what) for v in (shifts, dims))
        if shifts is None: raise UsageError(f"roll of {self.shape} by None\n  try: x.roll(1)")
        if dims is None: return self.flatten().roll(sum(shifts), 0).reshape(self.shape)
        if len(shifts) != len(dims): raise ShapeError(f"roll by {shifts} along {dims}\n  there must be one shift for each axis")
        x = self.uop
        for k, dim in zip(shifts, dims):
            a = self._long_axis(dim, "roll")
            n = x.shape[a]
            k = k % n if n else 0
            if k: x = join([cut_axis(x, a, n - k, n), cut_axis(x, a, 0, n - k)], a)
        return self._new(x)

    def diag(self, offset: int = 0) -> Tensor:
        """A matrix with this vector on a diagonal; of a matrix, its diagonal."""
        if self.ndim == 2: return self.diagonal(offset)
        if self.ndim != 1: raise ShapeError(f"diag of {self.shape}\n  it must be a vector or a matrix\n  try: x.diagonal()")
        n = self.shape[0]
        if n: square = self.uop.reshape((n, 1)).pad(((0, 0), (0, n))).reshape((n * (n + 1),)).shrink(((0, n * n),)).reshape((n, n))
        else: square = fill(self.uop.const_like(0), (0, 0))
        return self._new(square.pad(((max(-offset, 0), max(offset, 0)), (max(offset, 0), max(-offset, 0)))))

    def triu(self, diagonal: int = 0) -> Tensor:
        """Zeros below a diagonal."""
        return self._triangle(diagonal, upper=True)
    def tril(self, diagonal: int = 0) -> Tensor:
        """Zeros above a diagonal."""
        return self._triangle(diagonal, upper=False)
    def _triangle(self, diagonal: int, upper: bool) -> Tensor:
        if self.ndim < 2: raise ShapeError(f"{'triu' if upper else 'tril'} of {self.shape}\n  there must be at least two axes")
        x = self.uop
        n, m = x.shape[-2:]
        rows, cols = iota(n).reshape((n, 1)).broadcast_to(x.shape), iota(m).broadcast_to(x.shape)
        keep = (cols >= rows + diagonal) if upper else (cols <= rows + diagonal)
        return self._new(keep.where(x, x.const_like(0)))


def is_pair(p: Any) -> bool: return isinstance(p, (tuple, list)) and len(p) == 2


# ---- on nodes --------------------------------------------------------------------------------------------------------------------
def cut_axis(x: UOp, a: int, lo: int, hi: int) -> UOp:
    """Elements lo .. hi-1 of axis a."""
    return x.shrink(tuple((lo, hi) if i == a else (0, n) for i, n in enumerate(x.shape)))


def join(parts: list[UOp], a: int) -> UOp:
    """Nodes one after the other along axis a."""
    full = [p for p in parts if p.shape[a]] or parts[:1]
    return full[0] if len(full) == 1 else UOp(Ops.CAT, full[0].dtype, tuple(full), a)


def pad_with(x: UOp, pairs: tuple[tuple[int, int], ...], value: Any = 0) -> UOp:
    """`value` around x."""
    if all(p == (0, 0) for p in pairs): return x
    if value == 0: return x.pad(pairs)
    inside = fill(UOp.const(dtypes.bool, True), x.shape).pad(pairs)
    return inside.where(x.pad(pairs), x.const_like(value))


def _repeat_axis(x: UOp, a: int, k: int) -> UOp: return x.expand(tuple(k if i == a else n for i, n in enumerate(x.shape)))


def _parse_side(text: str, what: str) -> list[list[str]]:
    """ "a (b c) 1" -> [[a], [b, c], [1]] """
    groups: list[list[str]] = []
    inside: list[str] | None = None
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(" and inside is None: inside = []
        elif word == ")" and inside is not None:
            groups.append(inside)
            inside = None
        elif word in "()": raise ShapeError(f"{what}\n  the parentheses do not match")
        elif inside is not None: inside.append(word)
        else: groups.append([word])
    if inside is not None: raise ShapeError(f"{what}\n  the parentheses do not match")
    return groups

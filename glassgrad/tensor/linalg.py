"""Linear algebra: products are a multiplication of views and one REDUCE over the joined axes; the schedule makes a GEMM of that.

Small floats are multiplied and summed in float32, small ints in int32; the result comes back as promote of the operands.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import operand, tensors
from glassgrad.tensor.elementwise import broadcast_shapes
from glassgrad.tensor.reduce import reduce
from glassgrad.uop.dtype import DType, promote, sum_dtype, to_dtype
from glassgrad.uop.errors import ShapeError
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def contract(x: UOp, y: UOp, dtype: DType, axes: tuple[int, ...]) -> UOp:
    """Sum of x * y over axes, two views of one shape; `dtype` is the result's."""
    return reduce(x * y, Ops.ADD, axes).cast(dtype)


def in_acc(x: Any, dtype: DType, acc: DType) -> UOp:
    """A tensor's node in `dtype`, ready to be multiplied in `acc`."""
    return x.uop.cast(dtype).cast(acc)


class LinalgMixin:
    """Products of matrices."""
    __slots__ = ()

    def matmul(self, w: Any, reverse: bool = False, dtype: Any = None) -> Tensor:
        """Matrix product over the last axis of x and the second-to-last axis of w (the only one of a vector).

        shapes:  x (..., M, K), w (..., K, N) -> (..., M, N); leading axes broadcast
        dtypes:  promote(x, w), or `dtype`, which the sum is then taken in too
        errors:  ShapeError if the two K differ or one is a scalar

        >>> Tensor([[1., 2.]]).matmul(Tensor([[3.], [4.]])).tolist()
        [[11.0]]
        """
        x = self
        if not isinstance(w, type(self)): w = operand(type(self), w, self, "matmul")
        if reverse: x, w = w, x
        xs, ws = x.shape, w.shape
        if not xs or not ws:
            raise ShapeError(f"matmul of x {xs} {x.dtype.short} and w {ws} {w.dtype.short}\n  both must have at least one axis\n"
                             f"  try: x * w")
        k = ws[-2] if len(ws) > 1 else ws[0]
        if xs[-1] != k: raise ShapeError(_matmul_text(x, w))
        d = promote(x.dtype, w.dtype) if dtype is None else to_dtype(dtype)
        acc = sum_dtype(d)
        a, b = in_acc(x, d, acc), in_acc(w, d, acc)
        rows = xs[-2] if len(xs) > 1 else 1
        cols = ws[-1] if len(ws) > 1 else 1
        batch = broadcast_shapes(xs[:-2], ws[:-2], what="matmul over leading axes") if len(xs) > 2 or len(ws) > 2 else ()
        grid = (*batch, rows, cols, k)
        a = a.reshape((*(1,) * (len(batch) - len(xs[:-2])), *xs[:-2], rows, 1, k)).expand(grid)
        if len(ws) > 1: b = b.permute((*range(len(ws) - 2), len(ws) - 1, len(ws) - 2))
        b = b.reshape((*(1,) * (len(batch) - len(ws[:-2])), *ws[:-2], 1, cols, k)).expand(grid)
        out = contract(a, b, d, (len(grid) - 1,))
        return self._new(out.reshape((*batch, *((rows,) if len(xs) > 1 else ()), *((cols,) if len(ws) > 1 else ()))), w if x is self else x)
    def dot(self, w: Any, dtype: Any = None) -> Tensor:
        """The same as matmul."""
        return self.matmul(w, dtype=dtype)
    def __matmul__(self, w: Any) -> Tensor: return self.matmul(w)
    def __rmatmul__(self, w: Any) -> Tensor: return self.matmul(w, True)
    def outer(self, y: Tensor) -> Tensor:
        """All products of two vectors."""
        return self.reshape(-1, 1) * y.reshape(1, -1)

    def linear(self, weight: Tensor, bias: Tensor | None = None, dtype: Any = None) -> Tensor:
        """x @ weight + bias (x * weight for a vector as weight), with weight (in, out).

        errors:  ShapeError as matmul
        """
        x = self.mul(weight) if weight.ndim == 1 else self.matmul(weight, dtype=dtype)
        return x if bias is None else x + bias

    @staticmethod
    def einsum(formula: str, *operands: Any, dtype: Any = None) -> Tensor:
        """Products and sums by axis names: "ij,jk->ik"; "..." broadcasts, a name twice in one operand is its diagonal.

        errors:  ShapeError if names and shapes do not fit

        >>> Tensor.einsum("ij,j->i", Tensor([[1, 2], [3, 4]]), Tensor([1, 1])).tolist()
        [3, 7]
        """
        xs = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
        return _einsum(formula, tensors(xs, f"einsum {formula!r}"), dtype)


def _matmul_text(x: Any, w: Any) -> str:
    k = w.shape[-2] if w.ndim > 1 else w.shape[0]
    which = "the second-to-last axis of w" if w.ndim > 1 else "the axis of w"
    lines = [f"matmul of x {x.shape} {x.dtype.short} and w {w.shape} {w.dtype.short}",
             f"  the last axis of x is {x.shape[-1]}, {which} is {k}; they must be equal"]
    sites = [f"{name} made at {t.uop.site}" for name, t in (("x", x), ("w", w)) if t.uop.site]
    if sites: lines.append("  " + ", ".join(sites))
    if w.ndim > 1 and w.shape[-1] == x.shape[-1]: lines.append("  try: x.matmul(w.T)  or name the axes with einsum")
    return "\n".join(lines)


# ---- einsum ------------------------------------------------------------------------------------------------------------------------
def _einsum(formula: str, xs: list[Any], dtype: Any) -> Any:
    what = f"einsum {formula!r} of {', '.join(str(x.shape) for x in xs)}"
    inputs, output = _parse(formula.replace(" ", ""), xs, what)
    sizes: dict[str, int] = {}
    for names, x in zip(inputs, xs):
        if len(names) != x.ndim: raise ShapeError(f"{what}\n  {names!r} names {len(names)} axes, the operand {x.shape} has {x.ndim}")
        for c, n in zip(names, x.shape):
            if sizes.setdefault(c, n) != n and 1 not in (n, sizes[c]):
                raise ShapeError(f"{what}\n  the axis {c!r} is {sizes[c]} and {n}; the sizes must be equal")
            sizes[c] = max(sizes[c], n) if n != 0 else 0
    missing = [c for c in output if c not in sizes]
    if missing: raise ShapeError(f"{what}\n  {missing[0]!r} after -> is in no operand")
    d = promote(*(x.dtype for x in xs)) if dtype is None else to_dtype(dtype)
    acc = sum_dtype(d)
    terms = [_diagonal(x.uop.cast(d).cast(acc), names) for x, names in zip(xs, inputs)]
    while len(terms) > 1:
        (x, a), (y, b), *rest = terms
        kept = set(output).union(*(names for _, names in rest))
        terms = [_multiply(x, a, y, b, kept, sizes), *rest]
    x, names = terms[0]
    gone = tuple(i for i, c in enumerate(names) if c not in output)
    x = reduce(x, Ops.ADD, gone)
    names = "".join(c for c in names if c in output)
    x = x.permute(tuple(names.index(c) for c in output))
    return xs[0]._new(x.cast(d), *xs[1:])


def _parse(formula: str, xs: list[Any], what: str) -> tuple[list[str], str]:
    left, arrow, output = formula.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(xs): raise ShapeError(f"{what}\n  the formula names {len(inputs)} operands, {len(xs)} are given")
    spare = [c for c in LETTERS if c not in formula]
    most = max((x.ndim - len(names.replace("...", "")) for names, x in zip(inputs, xs) if "..." in names), default=0)
    dots = "".join(spare[:max(most, 0)])
    full = []
    for names, x in zip(inputs, xs):
        k = x.ndim - len(names.replace("...", ""))
        if "..." in names and k < 0: raise ShapeError(f"{what}\n  {names!r} names more axes than the operand {x.shape} has")
        full.append(names.replace("...", dots[len(dots) - k:] if k else ""))
    if not arrow:
        joined = "".join(full)
        output = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    else: output = output.replace("...", dots)
    bad = [c for c in "".join(full) + output if not c.isalpha()]
    if bad: raise ShapeError(f"{what}\n  {bad[0]!r} is no axis name; names are single letters")
    if len(set(output)) < len(output): raise ShapeError(f"{what}\n  an axis is named twice after ->")
    return full, output


def _diagonal(x: UOp, names: str) -> tuple[UOp, str]:
    """Each name once: axes named alike become their diagonal."""
    for c in dict.fromkeys(names):
        while names.count(c) > 1:
            i = names.index(c)
            j = names.index(c, i + 1)
            n = x.shape[i]
            order = (*(k for k in range(x.ndim) if k not in (i, j)), i, j)
            x = x.permute(order)
            lead = x.shape[:-2]
            x = x.reshape((*lead, n * n)).pad((*((0, 0),) * len(lead), (0, n))).reshape((*lead, n, n + 1)).shrink((*((0, m) for m in lead), (0, n), (0, 1)))
            x = x.reshape((*lead, n))
            names = "".join(names[k] for k in order[:-1])
    return x, names


def _multiply(x: UOp, a: str, y: UOp, b: str, kept: set[str], sizes: dict[str, int]) -> tuple[UOp, str]:
    """The product of two operands, summed over the names nobody needs any more."""
    x, a = _sum_alone(x, a, kept | set(b))
    y, b = _sum_alone(y, b, kept | set(a))
    names = "".join([c for c in a if c in kept] + [c for c in b if c in kept and c not in a] + [c for c in a if c in b and c not in kept])
    shape = tuple(max(x.shape[a.index(c)] if c in a else 1, y.shape[b.index(c)] if c in b else 1) for c in names)
    x, y = _spread(x, a, names, shape), _spread(y, b, names, shape)
    axes = tuple(i for i, c in enumerate(names) if c not in kept)
    return reduce(x * y, Ops.ADD, axes), "".join(c for c in names if c in kept)


def _sum_alone(x: UOp, names: str, needed: set[str]) -> tuple[UOp, str]:
    axes = tuple(i for i, c in enumerate(names) if c not in needed)
    return reduce(x, Ops.ADD, axes), "".join(c for c in names if c in needed)


def _spread(x: UOp, names: str, goal: str, shape: tuple[int, ...]) -> UOp:
    mine = [c for c in goal if c in names]
    x = x.permute(tuple(names.index(c) for c in mine))
    sizes = dict(zip(mine, x.shape))
    return x.reshape(tuple(sizes.get(c, 1) for c in goal)).expand(shape) if shape else x


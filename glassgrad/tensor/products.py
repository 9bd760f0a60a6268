"""Products: of vectors, matrices and more axes, all by way of matmul and einsum; distances and similarities."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import operand
from glassgrad.tensor.arrange import listed
from glassgrad.uop.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor


class ProductsMixin:
    """Products and distances."""
    __slots__ = ()

    # ---- products ------------------------------------------------------------------------------------------------------------------
    def kron(self, y: Tensor) -> Tensor:
        """Kronecker's product: each element of x times the whole of y.

        shapes:  (a, b), (c, d) -> (a c, b d); missing axes are added in front

        >>> Tensor([1, 10]).kron(Tensor([1, 2])).tolist()
        [1, 2, 10, 20]
        """
        n = max(self.ndim, y.ndim)
        x, y = (t.reshape((1,) * (n - t.ndim) + t.shape) for t in (self, y))
        out = x.reshape([s for m in x.shape for s in (m, 1)]) * y.reshape([s for m in y.shape for s in (1, m)])
        return out.reshape([a * b for a, b in zip(x.shape, y.shape)])
    def cross(self, y: Tensor, dim: int = -1) -> Tensor:
        """The vector product along an axis of 3.

        errors:  ShapeError if the axis is not 3
        """
        x, y = type(self).broadcast_tensors(self, operand(type(self), y, self, "cross"))
        a = x._axis(dim)
        if x.shape[a] != 3: raise ShapeError(f"cross of {self.shape} and {y.shape} along axis {dim}\n  the axis must be 3")
        return x.roll(-1, a) * y.roll(-2, a) - x.roll(-2, a) * y.roll(-1, a)
    def inner(self, y: Tensor) -> Tensor:
        """The sums of products over the last axes of both."""
        return self * y if not self.ndim or not y.ndim else self.tensordot(y, ([-1], [-1]))
    def vdot(self, y: Tensor) -> Tensor:
        """The sum of all products of elements."""
        return self.flatten().matmul(y.flatten())
    def vecdot(self, y: Tensor, axis: int = -1) -> Tensor:
        """The sums of products along an axis."""
        return (self * y).sum(axis)
    def tensordot(self, y: Tensor, dims: Any = 2) -> Tensor:
        """The sums of products over the last `dims` axes of x and the first of y, or over the axes named: (of x, of y).

        errors:  ShapeError if the axes do not fit
        source:  numpy.tensordot
        """
        if isinstance(dims, int): mine, theirs = list(range(self.ndim - dims, self.ndim)), list(range(dims))
        else:
            mine, theirs = ([t._axis(d) for d in (part if isinstance(part, (tuple, list)) else (part,))] for t,
                            part in zip((self, y), dims))
        if [self.shape[a] for a in mine] != [y.shape[b] for b in theirs]:
            raise ShapeError(f"tensordot of {self.shape} and {y.shape} over axes {mine} and {theirs}\n  the lengths differ")
        left, right = ([a for a in range(t.ndim) if a not in used] for t, used in ((self, mine), (y, theirs)))
        k = math.prod(self.shape[a] for a in mine)
        x = self.permute(*left, *mine).reshape(math.prod(self.shape[a] for a in left), k)
        w = y.permute(*theirs, *right).reshape(k, math.prod(y.shape[b] for b in right))
        return x.matmul(w).reshape([self.shape[a] for a in left] + [y.shape[b] for b in right])
    @staticmethod
    def multi_dot(*parts: Any) -> Tensor:
        """The product of several matrices, in the order that takes the fewest multiplications; the first and last may be vectors.

        source:  T. Cormen et al., Introduction to algorithms, 15.2
        """
        xs = listed(parts, "multi_dot")
        if len(xs) < 3: return xs[0] if len(xs) == 1 else xs[0].matmul(xs[1])
        sizes = [xs[0].shape[0] if xs[0].ndim > 1 else 1, *[x.shape[0] for x in xs[1:]], xs[-1].shape[-1] if xs[-1].ndim > 1 else 1]
        n = len(xs)
        cost, cut = {(i, i): 0 for i in range(n)}, {}
        for length in range(1, n):
            for i in range(n - length):
                j = i + length
                cost[i, j], cut[i, j] = min((cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j))
        done: dict[tuple[int, int], Tensor] = {(i, i): x for i, x in enumerate(xs)}
        for i, j in sorted(cut, key=lambda ij: ij[1] - ij[0]): done[i, j] = done[i, cut[i, j]].matmul(done[cut[i, j] + 1, j])
        return done[0, n - 1]
    def bmm(self, y: Tensor) -> Tensor:
        """Matrix products of two batches.

        errors:  ShapeError unless both have three axes
        """
        return self._of_rank(3, "bmm", y).matmul(y)
    def mm(self, y: Tensor) -> Tensor:
        """The product of two matrices.

        errors:  ShapeError unless both have two axes
        """
        return self._of_rank(2, "mm", y).matmul(y)
    def mv(self, y: Tensor) -> Tensor:
        """A matrix times a vector."""
        if self.ndim != 2 or y.ndim != 1:
            raise ShapeError(f"mv of {self.shape} and {y.shape}\n  it takes a matrix and a vector\n  try: x @ y")
        return self.matmul(y)
    def _of_rank(self, n: int, what: str, *others: Tensor) -> Tensor:
        for x in (self, *others):
            if x.ndim != n:
                raise ShapeError(f"{what} of {', '.join(str(t.shape) for t in (self, *others))}\n  all must have {n} axes\n  try: x @ y")
        return self
    def addmm(self, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor: return self * beta + a.matmul(b) * alpha
    def baddbmm(self, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor: return self * beta + a.bmm(b) * alpha
    def addbmm(self, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor: return self * beta + a.bmm(b).sum(0) * alpha
    def addmv(self, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor: return self * beta + a.mv(b) * alpha
    def addr(self, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor: return self * beta + a.outer(b) * alpha
    def convolve(self, kernel: Tensor, mode: str = "full") -> Tensor:
        """The convolution of two vectors: "full", "same" (as long as the longer) or "valid" (where they overlap wholly).

        errors:  UsageError for another mode, ShapeError for other than vectors
        source:  numpy.convolve
        """
        x, k = (self, kernel) if self.numel() >= kernel.numel() else (kernel, self)
        if mode not in ("full", "same", "valid"): raise UsageError(f"convolve with mode={mode!r}\n  try: 'full', 'same' or 'valid'")
        if x.ndim != 1 or k.ndim != 1: raise ShapeError(f"convolve of {self.shape} and {kernel.shape}\n  both must be vectors")
        m = k.shape[0]
        pad = {"full": (m - 1, m - 1), "same": (m // 2, m - 1 - m // 2), "valid": (0, 0)}[mode]
        return x.pad(pad).unfold(0, m).matmul(k.flip(0))
    def correlate(self, kernel: Tensor, mode: str = "valid") -> Tensor:
        """The correlation of two vectors: convolve with the second reversed."""
        return self.convolve(kernel.flip(0), mode)
    def polyval(self, x: Any) -> Tensor:
        """The polynomial with these coefficients, the highest power first, at x."""
        out = (x := operand(type(self), x, self, "polyval")) * 0
        for c in self.unbind(): out = out * x + c
        return out

    # ---- distances -------------------------------------------------------------------------------------------------------------------
    def cdist(self, y: Tensor, p: float = 2.0) -> Tensor:
        """The distance of every row of x from every row of y, in the norm of order p.

        shapes:  (..., n, d), (..., m, d) -> (..., n, m)
        errors:  ShapeError if d differs
        """
        if self.ndim < 2 or y.ndim < 2 or self.shape[-1] != y.shape[-1]:
            raise ShapeError(f"cdist of {self.shape} and {y.shape}\n  the rows must be equally long")
        return (self.unsqueeze(-2) - y.unsqueeze(-3)).vector_norm(p, -1)
    def pdist(self, p: float = 2.0) -> Tensor:
        """The distances of all pairs of rows, those of the first first.

        shapes:  (n, d) -> (n (n - 1) / 2,)
        """
        i, j = type(self).triu_indices(self.shape[0], offset=1).unbind()
        return (self[i] - self[j]).vector_norm(p, -1)
    def dist(self, y: Tensor, p: float = 2.0) -> Tensor:
        """The norm of order p of all differences."""
        return (self - y).vector_norm(p)
    def pairwise_distance(self, y: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
        """The distance of each row of x from the same row of y."""
        return (self - y + eps).vector_norm(p, -1, keepdim)
    def cosine_similarity(self, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
        """The cosine of the angle between vectors along an axis."""
        return (self * y).sum(dim) / (self.vector_norm(2, dim).maximum(eps) * y.vector_norm(2, dim).maximum(eps))
    def renorm(self, p: float, dim: int, maxnorm: float) -> Tensor:
        """Each slice of an axis scaled down to a norm of at most maxnorm."""
        a = self._axis(dim)
        size = self.vector_norm(p, tuple(i for i in range(self.ndim) if i != a), True)
        return self * (size > maxnorm).where(maxnorm / (size + 1e-7), 1.0)
    def bilinear(self, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x weight[k] y for every k.

        shapes:  x (..., n), y (..., m), weight (k, n, m), bias (k,) -> (..., k)
        """
        out = type(self).einsum("...i,kij,...j->...k", self, weight, y)
        return out if bias is None else out + bias

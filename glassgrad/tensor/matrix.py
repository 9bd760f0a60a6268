"""Matrix: inverses, factors, eigenvalues and norms of (..., n, m) matrices, all in batches.

Nothing is read back and nothing is raised for what only the values can tell: a singular matrix gives inf or NaN, one that is not positive
definite NaN. Small floats and ints are computed in float32.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from glassgrad.tensor import factor
from glassgrad.tensor.arguments import operand
from glassgrad.tensor.factor import Eliminated, Factors, differentiable
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

SQUARINGS = 24          # of matrix_exp at most: norms up to 2**23


class LeastSquares(NamedTuple):
    """What lstsq finds: the solution (..., n, k), the squared distances (..., k), the rank and the singular values of the matrix."""
    solution: Tensor; residuals: Tensor; rank: Tensor; singular_values: Tensor


class MatrixMixin:
    """Methods that take matrices apart."""
    __slots__ = ()

    def _matrix(self, what: str, square: bool = False) -> Tensor:
        """These matrices as floats that factors are computed in.

        errors:  ShapeError below two axes, or if `square` and they are not
        """
        if self.ndim < 2: raise ShapeError(f"{what} of {self.shape} {self.dtype.short}\n  a matrix has two axes")
        if square and self.shape[-1] != self.shape[-2]:
            raise ShapeError(f"{what} of {self.shape} {self.dtype.short}\n"
                             f"  the last two axes are {self.shape[-2]} and {self.shape[-1]}; they must be equal")
        return self.cast(factor.wide_dtype(self.dtype))
    def _back(self, *found: Tensor) -> Any:
        """Results in the dtype these matrices came in."""
        d = self.dtype if self.dtype.is_float else dtypes.default_float
        return found[0].cast(d) if len(found) == 1 else tuple(x.cast(d) for x in found)

    # ---- factors -------------------------------------------------------------------------------------------------------------------
    def cholesky(self, upper: bool = False) -> Tensor:
        """The lower triangular L with L LT = x (or its transpose), of symmetric positive definite matrices; their lower triangle is read.

        shapes:  (..., n, n) -> (..., n, n)
        errors:  ShapeError if they are not square; NaN where x is not positive definite

        >>> Tensor([[4., 2.], [2., 5.]]).cholesky().tolist()
        [[2.0, 0.0], [1.0, 2.0]]
        """
        a = self._matrix("cholesky", True)
        raw = factor.cholesky(a.detach())
        low = differentiable(a, (raw, factor.invert_lower(raw)), factor.change_cholesky)[0]
        return self._back(low.mT if upper else low)

    def lu(self) -> tuple[Tensor, Tensor, Tensor]:
        """(P, L, U) with P L U = x: L has ones on the diagonal, U is upper triangular, P exchanges rows.

        shapes:  (..., m, n) -> (..., m, m), (..., m, k), (..., k, n) with k = min(m, n)
        """
        a = self._matrix("lu")
        *_, m, n = a.shape
        k = min(m, n)
        packed, order = factor.eliminate(a.detach())
        p = factor.permutation(order, a.dtype)
        moved = p @ a
        low, high = factor.lu_parts(packed)
        square = low[..., :k, :], high[..., :k]
        raw = (*square, factor.invert_lower(square[0]), factor.invert_upper(square[1]))
        top, left, top_inv, left_inv = differentiable(moved[..., :k, :k], raw, factor.change_lu)
        if m > k: top = low.with_gradient_of(top.cat(moved[..., k:, :] @ left_inv, dim=-2))
        if n > k: left = high.with_gradient_of(left.cat(top_inv @ moved[..., k:], dim=-1))
        return self._back(p.mT, top, left)

    def qr(self, mode: str = "complete") -> tuple[Tensor, Tensor]:
        """(q, r) with q r = x, q orthogonal, r upper triangular, by reflections.

        mode:    "complete": q (..., m, m), r (..., m, n); "reduced": q (..., m, k), r (..., k, n) with k = min(m, n). Columns of q
                 beyond the k-th have no gradient: they are one basis of many.
        errors:  ShapeError below two axes, UsageError for another mode
        """
        if mode not in ("complete", "reduced"): raise UsageError(f"qr with mode={mode!r}\n  try: 'complete' or 'reduced'")
        a = self._matrix("qr")
        *_, m, n = a.shape
        k = min(m, n)
        q, r = factor.reflect(a.detach())
        square = r[..., :k, :k]
        first, head, _ = differentiable(a[..., :k], (q[..., :k], square, factor.invert_upper(square)), factor.change_qr)
        if n > k: head = r[..., :k, :].with_gradient_of(head.cat(first.mT @ a[..., k:], dim=-1))
        if mode == "complete" and m > k: first, head = first.cat(q[..., k:], dim=-1), head.cat(r[..., k:, :], dim=-2)
        return self._back(first, head)

    def svd(self, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """(u, s, vh) with u diag(s) vh = x; u and vh orthogonal, s not negative, the largest first. By rotations (Jacobi's method).

        shapes:  (..., m, n) -> (..., m, m), (..., k), (..., n, n); without full_matrices (..., m, k), (..., k), (..., k, n); k = min(m, n).
                 What goes beyond the k-th vector has no gradient: it is one basis of many.
        source:  torch.linalg.svd
        """
        a = self._matrix("svd")
        *_, m, n = a.shape
        k = min(m, n)
        tall = a if m >= n else a.mT
        u, s, v = factor.svd(tall.detach())
        rest = u[..., k:]
        u, s, v = differentiable(tall, (u[..., :k], s, v), factor.change_svd)
        if full_matrices and m != n: u = u.cat(rest, dim=-1)
        return self._back(u, s, v.mT) if m >= n else self._back(v, s, u.mT)
    def svdvals(self) -> Tensor:
        """The singular values, the largest first.

        shapes:  (..., m, n) -> (..., min(m, n))
        """
        return self.svd(False)[1]

    def eigh(self) -> tuple[Tensor, Tensor]:
        """(eigenvalues in rising order, eigenvectors as columns) of symmetric matrices; their lower triangle is read. By rotations
        (Jacobi's method).

        shapes:  (..., n, n) -> (..., n), (..., n, n)
        source:  torch.linalg.eigh

        >>> Tensor([[2., 0.], [0., 1.]]).eigh()[0].tolist()
        [1.0, 2.0]
        """
        a = self._matrix("eigh", True)
        whole = (a.tril() + a.tril(-1).mT).detach()
        return self._back(*differentiable(a, factor.eigh(whole), factor.change_eigh))
    def eigvalsh(self) -> Tensor:
        """The eigenvalues of symmetric matrices, in rising order."""
        return self.eigh()[0]

    # ---- inverses --------------------------------------------------------------------------------------------------------------------
    def inv(self) -> Tensor:
        """The inverse of square matrices, by elimination with partial pivoting; inf or NaN where there is none.

        shapes:  (..., n, n) -> (..., n, n)
        errors:  ShapeError if they are not square

        >>> Tensor([[2., 0.], [0., 4.]]).inv().tolist()
        [[0.5, 0.0], [0.0, 0.25]]
        """
        a = self._matrix("inv", True)
        return self._back(*differentiable(a, (Eliminated(a).inverse,), factor.change_inverse))
    def inverse(self) -> Tensor:
        """The same as inv."""
        return self.inv()

    def solve(self, b: Tensor) -> Tensor:
        """The y with x y = b, by elimination with partial pivoting and one step of refinement.

        shapes:  x (..., n, n), b (..., n, k) -> (..., n, k); a b of one axis less than x and of x's leading axes is a vector for each
                 matrix
        errors:  ShapeError if the shapes do not fit
        source:  torch.linalg.solve

        >>> Tensor([[2., 0.], [0., 4.]]).solve(Tensor([2., 2.])).tolist()
        [1.0, 0.5]
        """
        a = self._matrix("solve", True)
        b, is_vector = self._right_side(b, "solve", a)
        raw = Eliminated(a).inverse
        fixed, found = a.detach(), raw @ b.detach()
        found = found + raw @ (b.detach() - fixed @ found)
        found = found.with_gradient_of(differentiable(a, (raw,), factor.change_inverse)[0] @ b)
        return self._back(found.squeeze(-1) if is_vector else found)
    def _right_side(self, b: Any, what: str, a: Tensor) -> tuple[Tensor, bool]:
        """(b as columns in the dtype of a, whether it was a vector)"""
        b = operand(type(self), b, self, what)
        is_vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
        columns = (b.unsqueeze(-1) if is_vector else b).cast(factor.wide_dtype(b.dtype))
        if b.ndim < 1 or columns.shape[-2] != a.shape[-2]:
            raise ShapeError(f"{what} of x {self.shape} and b {b.shape}\n  x has {a.shape[-2]} rows, b must have as many")
        return columns, is_vector

    def solve_triangular(self, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
        """The y with x y = b (y x = b if not left) of triangular matrices, of which the other triangle is not read.

        shapes:  x (..., n, n), b (..., n, k) (or (..., k, n)) -> as b
        errors:  ShapeError if the shapes do not fit
        source:  torch.linalg.solve_triangular
        """
        a = self._matrix("solve_triangular", True)
        if not left: return self.mT.solve_triangular(b.mT, upper=not upper, unitriangular=unitriangular).mT
        columns, is_vector = self._right_side(b, "solve_triangular", a)
        part = a.triu(int(unitriangular)) if upper else a.tril(-int(unitriangular))
        if unitriangular: part = part + factor.identity(a, a.shape[-1])
        inverse = factor.invert_upper(part) if upper else factor.invert_lower(part)
        found = inverse @ columns
        found = found + inverse @ (columns - part @ found)
        return self._back(found.squeeze(-1) if is_vector else found)
    def cholesky_solve(self, low: Tensor, upper: bool = False) -> Tensor:
        """The y with a y = x, given the Cholesky factor of a."""
        first = low.solve_triangular(self, upper=False) if not upper else low.mT.solve_triangular(self, upper=False)
        return (low.mT if not upper else low).solve_triangular(first, upper=True)

    def pinv(self, rtol: float | None = None) -> Tensor:
        """The pseudoinverse (Moore and Penrose): singular values up to rtol times the largest count as zero.

        shapes:  (..., m, n) -> (..., n, m)
        """
        a = self._matrix("pinv")
        if a.shape[-2] < a.shape[-1]: return self.mT.pinv(rtol).mT
        long, size, v = factor.orthogonalize(a.detach())
        known = size > size[..., :1] * self._rtol(a, rtol)
        scale = known.where(1 / known.where(size, 1.0).square(), 0.0)
        raw = (v * scale.unsqueeze(-2)) @ long.mT
        return self._back(differentiable(a, (raw, a.detach()), factor.change_pinv)[0])
    def pinverse(self, rcond: float | None = None) -> Tensor:
        """The same as pinv."""
        return self.pinv(rcond)
    @staticmethod
    def _rtol(a: Tensor, rtol: float | None) -> float: return max(a.shape[-2:]) * 2.0 ** -a.dtype.mantissa if rtol is None else rtol

    def lstsq(self, b: Tensor, rcond: float | None = None) -> LeastSquares:
        """The y that makes |x y - b| smallest, and of those the smallest; what else numpy.linalg.lstsq tells: see LeastSquares.

        shapes:  x (..., m, n), b (..., m, k) or (m,)
        errors:  ShapeError if the rows differ
        """
        a = self._matrix("lstsq")
        b, is_vector = self._right_side(b, "lstsq", a)
        found = a.pinv(rcond) @ b
        far = (a @ found - b).square().sum(-2)
        size = a.svdvals()
        rank = (size > size[..., :1] * self._rtol(a, rcond)).sum(-1)
        return LeastSquares(self._back(found.squeeze(-1) if is_vector else found), self._back(far), rank, self._back(size))

    # ---- numbers -------------------------------------------------------------------------------------------------------------------
    def det(self) -> Tensor:
        """The determinant; its gradient needs an inverse.

        shapes:  (..., n, n) -> (...)
        """
        a = self._matrix("det", True)
        found = Eliminated(a)
        raw = found.pivots.prod(-1) * factor.parity(found.order)
        return self._back(differentiable(a, (raw, found.inverse), _change_det)[0])
    def slogdet(self) -> tuple[Tensor, Tensor]:
        """(sign, logarithm of the size) of the determinant: (0, -inf) if it is zero.

        shapes:  (..., n, n) -> (...), (...)
        """
        a = self._matrix("slogdet", True)
        found = Eliminated(a)
        sign = found.pivots.sign().prod(-1) * factor.parity(found.order)
        return self._back(sign, differentiable(a, (found.pivots.abs().log().sum(-1), found.inverse), _change_logdet)[0])
    def logdet(self) -> Tensor:
        """The logarithm of the determinant; NaN where it is negative."""
        sign, size = self.slogdet()
        return (sign < 0).where(math.nan, size)
    def matrix_rank(self, rtol: float | None = None) -> Tensor:
        """How many singular values are above rtol times the largest.

        shapes:  (..., m, n) -> (...) int32
        """
        a = self._matrix("matrix_rank")
        size = a.svdvals()
        return (size > size[..., :1] * self._rtol(a, rtol)).sum(-1)
    def cond(self, p: Any = None) -> Tensor:
        """The norm of x times that of its inverse: how much solve can enlarge an error. p as in matrix_norm; 2 unless given.

        shapes:  (..., m, n) -> (...)
        """
        if p in (None, 2, -2):
            size = self.svdvals()
            return size[..., 0] / size[..., -1] if p != -2 else size[..., -1] / size[..., 0]
        return self.matrix_norm(p) * self.inv().matrix_norm(p)

    # ---- functions -------------------------------------------------------------------------------------------------------------------
    def matrix_power(self, n: int) -> Tensor:
        """x @ x @ … n times; the inverse's for n < 0, the identity for 0.

        errors:  ShapeError if the matrices are not square
        """
        x = self.inv() if n < 0 else self._matrix("matrix_power", True).cast(self.dtype)
        if n == 0: return factor.identity(self, self.shape[-1]).expand(self.shape)
        out, n = None, abs(n)
        while n:
            if n & 1: out = x if out is None else out @ x
            n >>= 1
            if n: x = x @ x
        return out  # type: ignore[return-value]

    def matrix_exp(self) -> Tensor:
        """1 + x + x²/2 + x³/6 + …: the series of x / 2**s, squared s times.

        shapes:  (..., n, n) -> (..., n, n)
        errors:  ShapeError if the matrices are not square
        source:  C. Moler, C. Van Loan, Nineteen dubious ways to compute the exponential of a matrix (2003), method 3
        """
        a = self._matrix("matrix_exp", True)
        one = factor.identity(a, a.shape[-1])
        size = a.detach().abs().sum(-2).max(-1).reshape(*a.shape[:-2], 1, 1)
        halvings = (size.log2().ceil() + 1).clamp(0, SQUARINGS)
        x = a * (-halvings).exp2()
        out = one.expand(a.shape)
        for k in range(15 if a.dtype is dtypes.float64 else 9, 0, -1): out = one + x @ out / k
        for k in factor.steps(SQUARINGS): out = (type(self)(k) < halvings).where(out @ out, out).contiguous()
        return self._back(out)

    # ---- norms -----------------------------------------------------------------------------------------------------------------------
    def vector_norm(self, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
        """(sum |x|**ord) ** (1 / ord) along axes; inf and -inf give the largest and the smallest size, 0 counts what is not zero.

        >>> Tensor([3., 4.]).vector_norm().item()
        5.0
        """
        x = self if self.dtype.is_float else self.cast(dtypes.default_float)
        if ord == 2: return _root(x.square().sum(dim, keepdim))
        size = x.abs()
        if ord == math.inf: return size.max(dim, keepdim)
        if ord == -math.inf: return size.min(dim, keepdim)
        if ord == 0: return (x != 0).cast(x.dtype).sum(dim, keepdim)
        return size.sum(dim, keepdim) if ord == 1 else (size ** ord).sum(dim, keepdim) ** (1 / ord)
    def matrix_norm(self, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
        """A norm of matrices: "fro" (of all elements), "nuc" (sum of singular values), 2 and -2 (largest and smallest), 1 and -1
        (largest and smallest column sum), inf and -inf (row sum). None is "fro".

        errors:  UsageError for another ord, ShapeError if `dim` does not name two axes
        """
        axes = tuple(self._axis(d) for d in dim)
        if len(set(axes)) != 2: raise ShapeError(f"matrix_norm of {self.shape} over axes {dim}\n  there must be two")
        if ord in (None, "fro"): return self.vector_norm(2, axes, keepdim)
        if ord in (2, -2, "nuc"):
            size = self.permute(*(a for a in range(self.ndim) if a not in axes), *axes).svdvals()
            out = size.sum(-1) if ord == "nuc" else size[..., 0] if ord == 2 else size[..., -1]
        elif ord in (1, -1, math.inf, -math.inf):
            along, across = axes if abs(ord) == 1 else axes[::-1]
            sums = self.abs().sum(along, keepdim=True)
            out = (sums.max(across, keepdim=True) if ord > 0 else sums.min(across, keepdim=True)).squeeze(axes)
        else: raise UsageError(f"matrix_norm with ord={ord!r}\n  try: 'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
        if not keepdim: return out
        for a in sorted(axes): out = out.unsqueeze(a)
        return out
    def norm(self, p: Any = None, dim: Any = None, keepdim: bool = False) -> Tensor:
        """vector_norm over one axis or all, matrix_norm over two; of all elements for None.

        source:  numpy.linalg.norm, torch.norm
        """
        if p in (None, "fro"): return self.vector_norm(2, dim, keepdim)
        if isinstance(dim, (tuple, list)) and len(dim) == 2 or p == "nuc": return self.matrix_norm(p, dim or (-2, -1), keepdim)
        return self.vector_norm(p, dim, keepdim)


def _root(x: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0: the norm of zeros."""
    zero = x == 0
    return zero.where(0.0, zero.where(1.0, x).sqrt())


def _change_det(factors: Factors, da: Tensor) -> Factors:
    det, x = factors
    return det * (x.mT * da).sum((-2, -1)), -(x @ da @ x)


def _change_logdet(factors: Factors, da: Tensor) -> Factors:
    _, x = factors
    return (x.mT * da).sum((-2, -1)), -(x @ da @ x)

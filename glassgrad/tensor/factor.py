"""Factor: matrices taken apart (LU, Cholesky, QR, SVD, eigenvalues), as chains of equal steps.

A step is one or two kernels over the whole batch of matrices; the number of the step is a Variable, so the steps are compiled once and
launched n times. Rotations go round a tournament, whose next pairing is the same permutation each time, so that all rounds are one
program too. What steps find is differentiated in closed form (`with_gradient_of`), not through the steps.
source:  G. Golub, C. Van Loan, Matrix computations (3.4, 4.2, 5.2, 8.6); the derivatives: M. Giles, Collected matrix derivative results
         (2008)
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.storage import fill
from glassgrad.tensor.variable import Variable
from glassgrad.uop.dtype import DType, dtypes

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

Factors = tuple["Tensor", ...]


def wide_dtype(d: DType) -> DType:
    """What factors of a matrix of `d` are computed in: a float of at least 32 bits."""
    return dtypes.float64 if d is dtypes.float64 else dtypes.float32


def differentiable(a: Tensor, raw: Factors, change: Callable[[Factors, Tensor], Factors]) -> Factors:
    """`raw`, which was found from `a` without its gradient, with the derivative that `change` states: change(factors, da) is what a
    small change of a does to each. Second derivatives are right too: the midpoint rule for d(factors) = change(factors, da) is exact to
    the second order.
    """
    nothing = a._new(fill(a.uop.const_like(0), a.shape)).with_gradient_of(a)
    middle = tuple(x.with_gradient_of(d * 0.5) for x, d in zip(raw, change(raw, nothing)))
    return tuple(x.with_gradient_of(d) for x, d in zip(raw, change(middle, nothing)))


def steps(count: int, name: str = "step") -> list[Variable]:
    """0 … count-1, each as a number that a program gets when it runs."""
    return [Variable(name, 0, max(count - 1, 0)).bind(k) for k in range(count)]


def places(like: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    """(row numbers (n, 1), column numbers (1, m))"""
    return type(like).arange(n).reshape(n, 1), type(like).arange(m).reshape(1, m)


def identity(like: Tensor, n: int) -> Tensor:
    """The n x n identity in the dtype of `like`."""
    i, j = places(like, n, n)
    return (i == j).cast(like.dtype)


def column(x: Tensor, k: Any) -> Tensor:
    """Column k as (..., n, 1)."""
    return x[..., k].unsqueeze(-1)


# ---- triangles -------------------------------------------------------------------------------------------------------------------------
def invert_lower(x: Tensor) -> Tensor:
    """The inverse of lower triangular matrices: of diagonal blocks of 1, 2, 4, …: [[A, 0], [C, B]] has [[A', 0], [-B' C A', B']]."""
    n = x.shape[-1]
    i, j = places(x, n, n)
    out = (i == j).where(1 / x.diagonal(0, -2, -1).unsqueeze(-1), 0.0)
    for level in steps(max(n - 1, 0).bit_length(), "level"):
        size = type(x)(level)
        odd = i >> size
        pairs = ((odd & 1) == 1) & ((odd ^ 1) == (j >> size))
        out = out - out @ pairs.where(x, 0.0) @ out
    return out


def invert_upper(x: Tensor) -> Tensor:
    """The inverse of upper triangular matrices."""
    return invert_lower(x.mT).mT


# ---- Gauss -----------------------------------------------------------------------------------------------------------------------------
def eliminate(a: Tensor) -> tuple[Tensor, Tensor]:
    """(L below the diagonal and U on and above it, where each row comes from): partial pivoting.

    Row numbers ride along as a last column: a pivot then moves them with their rows.
    """
    cls = type(a)
    *lead, m, n = a.shape
    i, j = places(a, m, n + 1)
    w = a.cat(i.cast(a.dtype).expand(*lead, m, 1), dim=-1)
    for k in steps(min(m - 1, n)):
        now = cls(k)
        pivot = (i.flatten() >= now).where(w[..., k].abs(), -1.0).argmax(-1).contiguous().reshape(*lead, 1, 1)
        source = (i == now).where(pivot, (i == pivot).where(now, i))
        moved, top = w.gather(-2, source.expand(*lead, m, n + 1)), w.gather(-2, pivot.expand(*lead, 1, n + 1))
        head = column(top, k)
        factor = (head == 0).where(0.0, column(moved, k) / (head == 0).where(1.0, head))
        below = i > now
        w = (below & (j > now) & (j < n)).where(moved - factor * top, (below & (j == now)).where(factor, moved)).contiguous()
    return w[..., :n], w[..., n].int()


def lu_parts(packed: Tensor) -> tuple[Tensor, Tensor]:
    """(L with ones on the diagonal, U) of what `eliminate` gives."""
    m, n = packed.shape[-2:]
    k = min(m, n)
    i, j = places(packed, m, k)
    low, high = packed[..., :k].tril(-1), packed[..., :k, :].triu()
    return low + (i == j).cast(packed.dtype), high


def permutation(order: Tensor, dtype: DType) -> Tensor:
    """The matrix P with (P x)[i] = x[order[i]]."""
    return (order.unsqueeze(-1) == type(order).arange(order.shape[-1])).cast(dtype)


def parity(order: Tensor) -> Tensor:
    """1 or -1: whether a permutation is even."""
    n = order.shape[-1]
    i, j = places(order, n, n)
    swapped = (order.unsqueeze(-1) > order.unsqueeze(-2)) & (i < j)
    return 1 - (swapped.sum((-2, -1)) % 2) * 2


class Eliminated:
    """What elimination finds of square matrices, none of it with a gradient."""

    def __init__(self, a: Tensor) -> None:
        self.packed, self.order = eliminate(a.detach())

    @functools.cached_property
    def inverse(self) -> Tensor:
        """U' L' P"""
        low, high = lu_parts(self.packed)
        return invert_upper(high) @ (invert_lower(low) @ permutation(self.order, low.dtype))

    @property
    def pivots(self) -> Tensor: return self.packed.diagonal(0, -2, -1)


def change_inverse(factors: Factors, da: Tensor) -> Factors:
    """d(X) of X = 1/A"""
    (x,) = factors
    return (-(x @ da @ x),)


def change_lu(factors: Factors, da: Tensor) -> Factors:
    """d(L), d(U) and of their inverses, for a change of P A"""
    low, high, low_inv, high_inv = factors
    h = low_inv @ da @ high_inv
    return low @ h.tril(-1), h.triu() @ high, -(h.tril(-1) @ low_inv), -(high_inv @ h.triu())


# ---- Cholesky --------------------------------------------------------------------------------------------------------------------------
def cholesky(a: Tensor) -> Tensor:
    """L with L LT = a, of which the lower triangle is read; NaN where a is not positive definite. One kernel a step."""
    cls, n = type(a), a.shape[-1]
    i, j = places(a, n, n)
    w = a.tril() + a.tril(-1).mT
    for k in steps(n - 1):
        now = cls(k)
        left, top = w[..., k], w[..., k, :]
        w = ((i > now) & (j > now)).where(w - left.unsqueeze(-1) * top.unsqueeze(-2) / top[..., k].reshape(*top.shape[:-1], 1, 1),
                                          w).contiguous()
    return w.tril() / w.diagonal(0, -2, -1).sqrt().unsqueeze(-2)


def change_cholesky(factors: Factors, da: Tensor) -> Factors:
    """d(L) and d(1/L)"""
    low, inverse = factors
    half = inverse @ (da + da.mT) @ inverse.mT * 0.5
    part = half.tril(-1) + half.diagonal(0, -2, -1).unsqueeze(-1) * identity(half, half.shape[-1]) * 0.5
    return low @ part, -(part @ inverse)


# ---- Householder -----------------------------------------------------------------------------------------------------------------------
def reflect(a: Tensor) -> tuple[Tensor, Tensor]:
    """(Q (m, m), R (m, n)): in a step the products of all columns with column k, then the reflection by it.

    The reflections are kept below R (with 1 on the diagonal) and multiplied in the compact form I - V T VT of Schreiber and Van Loan
    (1989).
    """
    cls = type(a)
    *_, m, n = a.shape
    count = min(m - 1, n)
    i, j = places(a, m, n)
    w = a
    for k in steps(count):
        now = cls(k)
        x = (i >= now).where(column(w, k), 0.0)
        products = (x * w).sum(-2).contiguous().unsqueeze(-2)
        row = w[..., k, :].unsqueeze(-2)
        head, square = column(row, k), column(products, k)
        size = square.sqrt()
        first = head + (head < 0).where(-size, size)
        first = (first == 0).where(1.0, first)                                    # a column of zeros is reflected too
        scale = 2 * first / (square - head.square() + first.square())
        tail = (i > now).where(column(w, k) / first, (i == now).cast(a.dtype))
        down = (products - head * row) / first + row
        new = w - tail * (scale * first) * down
        w = (j > now).where(new, ((j == now) & (i >= now)).where((i == now).where(new, tail), w)).contiguous()
    i, j = places(a, m, count)
    v = (i > j).where(w[..., :count], (i == j).cast(a.dtype))
    gram = v.mT @ v
    inner = gram.triu(1) + identity(gram, count) * gram.diagonal(0, -2, -1).unsqueeze(-1) * 0.5
    q = identity(a, m) - v @ invert_upper(inner) @ v.mT if count else identity(a, m).expand(*a.shape[:-2], m, m)
    return q, w.triu()


def change_qr(factors: Factors, da: Tensor) -> Factors:
    """d(Q), d(R) and d(1/R) of a matrix with at least as many rows as columns"""
    q, r, inverse = factors
    whole = da @ inverse
    e = q.mT @ whole
    turn = e.tril(-1) - e.tril(-1).mT
    return q @ turn + (whole - q @ e), (e - turn) @ r, -(inverse @ (e - turn))


# ---- Jacobi ----------------------------------------------------------------------------------------------------------------------------
def tournament(n: int) -> list[int]:
    """Where each place of a table of pairs (i, n/2 + i) takes its player from for the next round, so that in n-1 rounds all have met."""
    half = n // 2
    top, bottom = list(range(half)), list(range(half, n))
    return [0, *bottom[:1], *top[1:-1], *bottom[1:], *top[-1:]] if half > 1 else [0, 1]


def sweeps(n: int, dtype: DType) -> int:
    """Rounds of all pairs until the columns are orthogonal: measured on random, clustered, rank-deficient and Hilbert matrices up to n =
    128.
    """
    return 3 + (n - 1).bit_length() + (dtype is dtypes.float64)


def orthogonalize(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(a V, lengths of its columns, V) with orthogonal V and orthogonal columns, the longest first, of m x n matrices with m >= n.

    source:  one-sided rotations, M. Hestenes (1958); all pairs of a round at once
    """
    cls = type(a)
    *lead, m, n = a.shape
    even = n + n % 2
    half = even // 2
    w = a.cat(identity(a, n).expand(*lead, n, n), dim=-2)
    if even > n: w = w.pad((0, 1))
    if n > 1:
        table = tournament(even)
        source, partner = cls(table), cls([(s + half) % even for s in table])
        which, sign = cls([s % half for s in table]), cls([-1.0 if s < half else 1.0 for s in table], dtype=a.dtype)
        tiny = 2.0 ** -a.dtype.mantissa
        for _ in range((even - 1) * sweeps(n, a.dtype)):
            x, y = w[..., :m, :half], w[..., :m, half:]
            xx, yy, xy = (x * x).sum(-2), (y * y).sum(-2), (x * y).sum(-2)
            turns = xy.abs() > (xx * yy).sqrt() * tiny
            z = (yy - xx) / (turns.where(xy, 1.0) * 2)
            t = turns.where((z < 0).where(-1.0, 1.0) / (z.abs() + (z * z + 1).sqrt()), 0.0).contiguous()
            t = t[..., which].unsqueeze(-2)
            w = ((w[..., source] + w[..., partner] * (sign * t)) / (t * t + 1).sqrt()).contiguous()
    v = w[..., m:, :n]
    # Newton's step towards orthogonal: rotations leave an error of 3 n rounding units
    v = (v * 1.5 - v @ (v.mT @ v) * 0.5).contiguous()
    long = (a @ v).contiguous()
    size, order = long.square().sum(-2).sqrt().sort(-1, descending=True)
    return tuple(x.gather(-1, order.unsqueeze(-2).expand(x.shape)) if x.ndim == a.ndim else x for x in (long, size, v))


def svd(a: Tensor) -> Factors:
    """(U (m, m), S (n,), V (n, n)) of m x n matrices with m >= n. Columns of U that belong to no length are completed by reflections."""
    *_, m, n = a.shape
    long, size, v = orthogonalize(a)
    known = size > size[..., :1] * (2.0 ** -a.dtype.mantissa * m)
    q, r = reflect(known.unsqueeze(-2).where(long / known.where(size, 1.0).unsqueeze(-2), 0.0).contiguous())
    signs = (r.diagonal(0, -2, -1) < 0).where(-1.0, 1.0).cast(a.dtype)
    if m > n: signs = signs.pad((0, m - n), value=1.0)
    return q * signs.unsqueeze(-2), size, v


def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    """(eigenvalues in rising order, eigenvectors) of symmetric matrices: the singular vectors of a + c, positive semidefinite."""
    n = a.shape[-1]
    shift = a.abs().sum(-1).max(-1).reshape(*a.shape[:-2], 1, 1)
    v = orthogonalize(a + shift * identity(a, n))[2].flip(-1)
    return (v * (a @ v)).sum(-2) / v.square().sum(-2), v


def gaps(x: Tensor) -> Tensor:
    """1 / (x[j] - x[i]) at (i, j), 0 where they are equal."""
    d = x.unsqueeze(-2) - x.unsqueeze(-1)
    return (d == 0).where(0.0, 1 / (d == 0).where(1.0, d))


def change_eigh(factors: Factors, da: Tensor) -> Factors:
    """d(eigenvalues), d(eigenvectors); equal eigenvalues are taken to stay equal"""
    w, v = factors
    p = v.mT @ (da + da.mT) @ v * 0.5
    return p.diagonal(0, -2, -1), v @ (gaps(w) * p)


def change_svd(factors: Factors, da: Tensor) -> Factors:
    """d(U), d(S), d(V) of U (m, k), S (k,), V (n, k)"""
    u, s, v = factors
    p = u.mT @ da @ v
    f = gaps(s.square())
    row, col = s.unsqueeze(-2), s.unsqueeze(-1)
    inverse = (row == 0).where(0.0, 1 / (row == 0).where(1.0, row))
    du, dv = (da @ v) * inverse, (da.mT @ u) * inverse
    return (u @ (f * (p * row + col * p.mT)) + du - u @ (u.mT @ du), p.diagonal(0, -2, -1),
            v @ (f * (col * p + p.mT * row)) + dv - v @ (v.mT @ dv))


def change_pinv(factors: Factors, da: Tensor) -> Factors:
    """d(X) of the pseudoinverse X of a, and d(a)"""
    x, a = factors
    n, m = x.shape[-2:]
    left, right = identity(x, n) - x @ a, identity(x, m) - a @ x
    return x @ x.mT @ da.mT @ right + left @ da.mT @ x.mT @ x - x @ da @ x, da

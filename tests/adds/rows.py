"""What the tests of this folder add: dtypes, ops; and how a row is taken out of its table again. Every function that adds is counted."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from glassgrad.uop import dtype as dtype_table
from glassgrad.uop.dtype import DType, add_dtype, dtypes, promote
from glassgrad.uop.ops import Op, Ops, add_op, np
from glassgrad.uop.uop import UOp


# ---- dtypes ----------------------------------------------------------------------------------------------------------------------------
def fp8e3m4() -> DType:
    """Eight bits, more digits and less range than the others."""
    return add_dtype("fp8e3m4", "f8e3", "float", 8, 22, exponent=3, mantissa=4)


def fp8e5m2f() -> DType:
    """Eight bits without infinity: all ones are NaN, the rest are numbers."""
    return add_dtype("fp8e5m2f", "f8e5f", "float", 8, 19, exponent=5, mantissa=2, finite=True)


def tf32() -> DType:
    """The range of float32 and the digits of float16, in 32 bits of memory."""
    return add_dtype("tf32", "tf32", "float", 32, 35, exponent=8, mantissa=10)


def float48() -> DType:
    """Wider than float32: 10 bits of exponent, 37 of mantissa, in 64 bits of memory."""
    return add_dtype("float48", "f48", "float", 64, 45, exponent=10, mantissa=37)


def remove_dtype(row: DType) -> None:
    """Take a dtype out of the table."""
    del dtype_table.TABLE[row.name]
    delattr(dtypes, row.name)
    promote.cache_clear()


# ---- ops -------------------------------------------------------------------------------------------------------------------------------
def softplus() -> Op:
    """log(1 + e**x): a function of one variable, decomposed into others."""
    def decomp(n: UOp) -> UOp:
        size = n.src[0].max(-n.src[0])
        return n.src[0].max(0.0) + ((-size).exp() + 1).log()
    return add_op("SOFTPLUS", doc="log(1 + e**x)", dtypes="float", cost=25, domain=(-4, 4), npf=lambda x: np.logaddexp(x.dtype.type(0), x),
                  decomp=decomp, grad=lambda n, g: (g / ((-n.src[0]).exp() + 1),))


def hypot() -> Op:
    """The length of (x, y), without squares that overflow: two sources, each with its gradient."""
    def decomp(n: UOp) -> UOp:
        x, y = (s.max(-s) for s in n.src)
        large = x.max(y)
        ratio = x.min(y) / large.eq(0).where(1.0, large)
        return large * (ratio * ratio + 1).sqrt()
    return add_op("HYPOT", arity=2, doc="sqrt(x*x + y*y)", commutes=True, dtypes="float", cost=12, npf=lambda x, y: np.hypot(x, y),
                  decomp=decomp, grad=lambda n, g: (g * n.src[0] / n, g * n.src[1] / n))


def absdiff() -> Op:
    """|x - y| of any two numbers, without the wrapped difference of unsigned ones."""
    def grad(n: UOp, g: UOp) -> tuple[UOp, UOp]:
        x, y = n.src
        d = (x < y).where(-g, (y < x).where(g, 0))
        return d, -d
    return add_op("ABSDIFF", arity=2, doc="|x - y|", commutes=True, dtypes="number", cost=3, py=lambda x, y: abs(x - y), grad=grad,
                  decomp=lambda n: (n.src[0] < n.src[1]).where(n.src[1] - n.src[0], n.src[0] - n.src[1]))


def between() -> Op:
    """x < y < z, a truth of three numbers."""
    return add_op("BETWEEN", arity=3, doc="x < y < z", out="bool", cost=3, py=lambda x, y, z: x < y < z, grad=lambda n, g: (None, None, None),
                  decomp=lambda n: (n.src[0] < n.src[1]) & (n.src[1] < n.src[2]))


def remove_op(row: Op) -> None:
    """Take an op out of the table."""
    delattr(Ops, row.name)


# ---- counting --------------------------------------------------------------------------------------------------------------------------
def lines_of(what: Callable[..., Any]) -> int:
    """Lines of source, docstring and all."""
    return len(inspect.getsource(what).splitlines())


DTYPES: dict[str, Callable[[], DType]] = {f.__name__: f for f in (fp8e3m4, fp8e5m2f, tf32, float48)}
OPS: dict[str, Callable[[], Op]] = {f.__name__: f for f in (softplus, hypot, absdiff, between)}

"""Spelled tables: sums, products and maxima over constant matrices, and of nothing but their numbers."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Context, Tensor, flow
from glassgrad.target.llvm import cpu_target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp
from tests import oracle

TARGET = cpu_target("+avx2,+fma", threads=2, l1_bytes=32 << 10, l2_bytes=512 << 10, llc_bytes=32 << 20)
ROWS = ((1.0, 0.0, -1.0, 0.5), (0.0, 2.0, -1.0, 0.0), (-3.0, 1.0, 1.0, -0.25))
X = np.random.default_rng(3).standard_normal((6, 4), np.float32)


def table(shape: tuple[int, ...], grid: tuple[int, ...]) -> UOp:
    return UOp(Ops.TABLE, dtypes.float32, (), tuple(v for row in ROWS for v in row)).reshape(shape).expand(grid)


def check(y: UOp) -> None:
    """The value, and that no table is left when tiles are made."""
    y = UOp(Ops.CONTIGUOUS, y.dtype, (y,))
    for c in flow.schedule(UOp.sink(y), TARGET, check=True): assert not any(n.op is Ops.TABLE for n in flow.up_to("tile", c.ast, TARGET).toposort())
    with Context(CACHE="0"): np.testing.assert_allclose(Tensor(y).numpy(), oracle.evaluate(y)[0], rtol=1e-6)


@pytest.mark.parametrize("op", [Ops.ADD, Ops.MAX, Ops.MIN, Ops.MUL], ids=str)
@pytest.mark.parametrize("axes", [(2,), (1, 2), (1,)], ids=str)
def test_products_with_a_table_are_reduced(op, axes):
    x = Tensor(X).uop.reshape((6, 1, 4)).expand((6, 3, 4))
    check((x * table((1, 3, 4), (6, 3, 4))).reduce(op, axes))


@pytest.mark.parametrize("op", [Ops.ADD, Ops.MAX, Ops.MIN, Ops.MUL], ids=str)
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1)], ids=str)
def test_a_table_is_reduced_alone(op, axes):
    t = UOp(Ops.TABLE, dtypes.float32, (), tuple(v for row in ROWS for v in row)).reshape((3, 4))
    check(t.reduce(op, axes))

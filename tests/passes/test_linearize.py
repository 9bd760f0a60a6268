"""Linearize: what becomes of the indices of unrolled copies."""
from __future__ import annotations

import pytest

from glassgrad.passes.linearize import affine, join_remainders
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, RangeArg
from glassgrad.uop.uop import UOp


@pytest.mark.parametrize("factor", [1, 3, -2])
@pytest.mark.parametrize("stride", [30, 28, 0])
def test_of_two_divisions_one_is_left(factor, stride):
    """(6r + 5) % 28 and (6r + 5) // 28 in one sum."""
    r = UOp(Ops.RANGE, dtypes.int64, (UOp.const(dtypes.int64, 100),), RangeArg(0, "LOOP"))
    x, c = r * 6 + 5, UOp.const(dtypes.int64, 28)
    remainder, quotient = UOp(Ops.CMOD, dtypes.int64, (x, c)), UOp(Ops.CDIV, dtypes.int64, (x, c))
    terms, const = join_remainders(*affine(remainder * factor + quotient * stride + 7))
    assert remainder not in terms or stride == 0
    for value in range(100):
        at = 6 * value + 5
        known = {r: value, remainder: at % 28, quotient: at // 28}
        assert sum(k * known[n] for n, k in terms.items()) + const == factor * (at % 28) + stride * (at // 28) + 7

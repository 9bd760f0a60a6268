"""Linearize: what becomes of the indices of unrolled copies."""
from __future__ import annotations

import pytest

from glassgrad import Tensor
from glassgrad.passes.linearize import affine, join_remainders
from glassgrad.show import follow
from glassgrad.target.llvm import cpu_target
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


@pytest.mark.parametrize(("shape", "ahead"), [((4096, 1024), 2048), ((4096, 768), 2304), ((512, 4096), 4096), ((64, 1024), None), ((65536, 64), None)])
def test_the_second_walk_of_a_row_asks_for_the_next(shape, ahead):
    (_, _, program), *_ = follow(Tensor.empty(*shape).softmax(-1), cpu_target("+avx,+avx2,+fma")).kernels
    asked = [n for n in program.uops if n.op is Ops.PREFETCH]
    read = [affine(n.src[1]) for n in program.uops if n.op is Ops.LOAD and n.src[0].op is Ops.PARAM]
    assert bool(asked) == (ahead is not None)
    for terms, const in (affine(n.src[1]) for n in asked): assert (terms, const - ahead) in read
    place = {n: i for i, n in enumerate(program.uops)}
    ends = [i for i, n in enumerate(program.uops) if n.op is Ops.END]
    assert all(ends[0] < place[n] < ends[1] for n in asked)     # the second loop

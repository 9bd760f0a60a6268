"""Long reductions: their values by partial results, over any axes of arrays and views of any memory order."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import GlobalCounters, Tensor
from glassgrad.passes.prepare import bound_exponents
from glassgrad.show import follow
from glassgrad.target.llvm import cpu_target
from glassgrad.uop.uop import UOp

VIEWS = {
    "plain": lambda x, permute: x, "transposed": lambda x, permute: permute(2, 0, 1), "swapped": lambda x, permute: permute(0, 2, 1),
    "every second": lambda x, permute: x[::2],
    "without an edge": lambda x, permute: x[:, 3:], "backwards": lambda x, permute: x[:, :, ::-1],
    "squares": lambda x, permute: x * x,
}
SHAPES = [(523, 7, 41), (3, 211, 401), (67, 1009, 3), (35001, 5, 1), (9, 10, 1601)]
CASES = [(SHAPES[0], view) for view in VIEWS] + [(shape, "plain") for shape in SHAPES[1:]]


@pytest.mark.parametrize(("shape", "view"), CASES, ids=str)
def test_sums_by_parts(shape, view):
    x = np.random.default_rng(5).random(shape, np.float32)
    t, y = VIEWS[view](Tensor(x), Tensor(x).permute), VIEWS[view](x, x.transpose)
    for axes in ((0,), (1,), (0, 1), (0, 2), (0, 1, 2)):
        np.testing.assert_allclose(t.sum(axes).numpy(), y.sum(axes, np.float64), rtol=1e-5)
    np.testing.assert_array_equal(t.max((0, 1)).numpy(), y.max((0, 1)))


def test_the_sum_of_a_view_walks_through_memory_in_order():
    (_, _, program), *_ = follow(Tensor.empty(1649, 3409).T.sum(), cpu_target("+avx2,+fma")).kernels
    assert not any(n.op.name in ("CDIV", "CMOD") for n in program.uops)
    assert sum(n.op.name == "LOAD" and n.dtype.lanes == 8 for n in program.uops) >= 8


def test_narrow_rows_are_added_side_by_side():
    (_, _, program), *_ = follow(Tensor.empty(61000, 3).sum(0), cpu_target("+avx2,+fma")).kernels
    assert all(n.dtype.lanes == 8 for n in program.uops if n.op.name == "LOAD")


@pytest.mark.parametrize("f, bounded", [
    (lambda x: x.softmax(-1), True), (lambda x: x.softmax(0), True), (lambda x: x.log_softmax(1), True), (lambda x: x.T.softmax(0), True),
    (lambda x: (x - x.max(1, keepdim=True)).exp(), True), (lambda x: (x - x.max(0)).exp(), True),
    (lambda x: (x - x.max(2).unsqueeze(1)).exp(), False), (lambda x: (x - x.max((1, 2)).reshape(1, 1, 4)).exp(), False),
    (lambda x: (x - x.min(1, keepdim=True)).exp(), False), (lambda x: (x * 2 - x.max()).exp(), False)])
def test_only_exponents_below_their_maximum_are_bounded(f, bounded):
    sink = bound_exponents(UOp.sink(f(Tensor.empty(4, 4, 4)).uop), cpu_target("+avx2,+fma"))
    assert any(n.op.name == "MIN" for n in sink.toposort()) is bounded


def test_parts_are_the_same_for_any_number_of_threads():
    x = Tensor.empty(1000003)
    names = [[call.name for call, _, _ in follow(x.sum(), cpu_target("+avx2,+fma", threads=n)).kernels] for n in (1, 2, 7)]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64"])
def test_a_place_is_compared_as_it_is(dtype):
    got = (Tensor.zeros(600) + 1).scatter(0, Tensor(np.array([3], dtype)), Tensor([5.0])).numpy()      # 259 and 515 are 3 in 8 bits
    np.testing.assert_array_equal(np.flatnonzero(got != 1), [3])


@pytest.mark.parametrize("reduce", [None, "add", "multiply"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_place_of_each_row_is_compared(reduce, place):
    """Written elementwise, in one kernel with what is done before and after."""
    x, y = np.arange(15, dtype=np.float32).reshape(3, 5), np.full((3, 1), 2, np.float32)
    index = np.full((3, 1), place, np.int32)
    want = x + 1
    want[:, place] = {None: y, "add": want[:, [place]] + y, "multiply": want[:, [place]] * y}[reduce][:, 0]
    lazy = (Tensor(x) + 1).scatter(1, Tensor(index), Tensor(y), **({"reduce": reduce} if reduce else {})) * 3
    GlobalCounters.reset()
    np.testing.assert_array_equal(lazy.numpy(), want * 3)
    assert GlobalCounters.kernel_count == 1

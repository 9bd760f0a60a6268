"""FOLDs become windows: the values stay, no overlapping FOLD is left where the operands allow it, no zero is multiplied for a stride."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Tensor
from glassgrad.passes.views import is_disjoint
from glassgrad.passes.windows import fold_to_windows
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import BufferArg, Ops, UnfoldArg
from glassgrad.uop.uop import UOp
from tests import oracle

RNG = np.random.default_rng(7)


def data(*shape: int) -> Tensor: return Tensor(RNG.standard_normal(shape, np.float32), requires_grad=True)


def slope(y: Tensor, x: Tensor) -> UOp: return y.gradient(x, gradient=data(*y.shape))[0].uop


def folds(graph: UOp) -> list[UOp]: return [n for n in graph.toposort() if n.op is Ops.FOLD and not is_disjoint(n)]


def check(graph: UOp, left: int = 0) -> UOp:
    made = fold_to_windows(UOp.sink(graph), None)
    assert folds(graph) and len(folds(made)) == left
    for got, want in zip(oracle.evaluate(*made.src), oracle.evaluate(graph)): np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    return made.src[0]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("size", "padding"), [(2, 0), (3, 1), (4, 1), (5, 2), (5, 0)])
def test_gradient_of_a_convolution(size, padding, stride):
    x = data(2, 4, 7, 8)
    if stride < size: check(slope(x.conv2d(data(6, 4, size, size), stride=stride, padding=padding), x))


@pytest.mark.parametrize("options", [{"groups": 2, "padding": 1}, {"dilation": 2}, {"padding": (1, 0, 2, 1)}, {"groups": 4}])
def test_other_convolutions(options):
    x = data(2, 4, 7, 8)
    check(slope(x.conv2d(data(8, 4 // options.get("groups", 1), 3, 3), **options), x))


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (2, 1, 0), (5, 3, 2)])
@pytest.mark.parametrize("kind", ["max_pool2d", "avg_pool2d"])
def test_gradient_of_pooling(kind, size, stride, padding):
    x = data(2, 3, 8, 9)
    check(slope(getattr(x, kind)(size, stride, padding=padding), x))


def test_transposed_convolution():
    for stride, padding in ((1, 0), (2, 1), (3, 1)): check(data(2, 4, 5, 6).conv_transpose2d(data(4, 3, 4, 4), stride=stride, padding=padding).uop)


def test_one_axis_and_three():
    x, y = data(2, 3, 9), data(1, 2, 4, 5, 4)
    check(slope(x.conv2d(data(4, 3, 3), padding=1), x))
    check(slope(y.conv2d(data(3, 2, 2, 3, 2)), y))


def test_one_window_sums_nothing():
    x = data(2, 4, 1, 1)
    made = check(slope(x.conv2d(data(6, 4, 3, 3), padding=1), x))
    assert all(n.arg.axes != (2, 6, 7) for n in made.toposort() if n.op is Ops.REDUCE)


def test_stride_multiplies_no_zeros():
    x = data(1, 8, 16, 16)
    made = check(slope(x.conv2d(data(8, 8, 2, 4), stride=2, padding=(1, 1, 0, 0)), x))
    assert sum(n.src[0].size for n in made.toposort() if n.op is Ops.REDUCE) == 8 * 8 * 16 * (9 * 2) * 2


def test_other_folds_stay():
    source = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(0, 24, "CPU")).reshape((6, 4))
    fold = UOp(Ops.FOLD, dtypes.float32, (source,), UnfoldArg(0, 4, 1, 1, 9))
    assert folds(fold_to_windows(UOp.sink(fold), None)) == [fold]
    product = UOp(Ops.FOLD, dtypes.float32, (source * source + 1,), UnfoldArg(0, 4, 2, 1, 14))
    assert len(folds(fold_to_windows(UOp.sink(product), None))) == 1

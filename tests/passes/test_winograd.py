"""Small convolutions by transforms: the same values, kernels without tables, and only where the model says that it pays."""
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from glassgrad import Context, Tensor, flow
from glassgrad.engine import plan
from glassgrad.passes import winograd
from glassgrad.target.llvm import cpu_target
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp
from tests import oracle

RNG = np.random.default_rng(5)
TARGET = cpu_target("+avx2,+fma", threads=2, l1_bytes=32 << 10, l2_bytes=512 << 10, llc_bytes=32 << 20)


@pytest.fixture
def always(monkeypatch):
    """Every convolution that can be transformed is, and no plan made so stays."""
    plan.forget_plans()
    monkeypatch.setattr(winograd, "pays", lambda conv, target: True)
    with Context(CACHE="0"): yield
    plan.forget_plans()


def data(*shape: int) -> Tensor: return Tensor(RNG.standard_normal(shape, np.float32), requires_grad=True)
def tables(graph: UOp) -> int: return sum(n.op is Ops.TABLE for n in graph.toposort())


@pytest.mark.parametrize("r", [3, 4, 5])
def test_the_transforms_are_exact(r):
    image, weight, result = winograd.transforms(r)
    exact = [[Fraction(w).limit_denominator(100) for w in row] for row in weight]
    for i in range(winograd.POINTS - r + 1):        # output i is sum_j w[j] * x[i + j]
        for j in range(r):
            for k in range(winograd.POINTS):
                got = sum(Fraction(result[i][p]) * exact[p][j] * Fraction(image[p][k]) for p in range(winograd.POINTS))
                assert got == (k == i + j)


CONVOLUTIONS = {
    "3x3": ((2, 5, 8, 12), (7, 5, 3, 3), {"padding": 1}), "edges": ((1, 3, 7, 9), (4, 3, 3, 3), {"padding": 1}), "valid": ((2, 3, 10, 6), (4, 3, 3, 3), {}),
    "4x4": ((1, 3, 9, 11), (4, 3, 4, 4), {"padding": 1}), "5x5": ((1, 3, 8, 8), (4, 3, 5, 5), {"padding": 2}), "3x5": ((1, 3, 8, 8), (4, 3, 3, 5), {}),
    "one axis": ((2, 6, 21), (5, 6, 3), {"padding": 1}), "three": ((1, 3, 5, 6, 8), (4, 3, 3, 3, 3), {"padding": 1}),
    "groups": ((2, 6, 8, 8), (4, 3, 3, 3), {"groups": 2, "padding": 1}), "depthwise": ((1, 6, 8, 8), (6, 1, 3, 3), {"groups": 6}),
    "uneven": ((1, 3, 8, 8), (4, 3, 3, 3), {"padding": (2, 0, 1, 3)}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_values_and_gradients(name, always):
    shape, weight, how = CONVOLUTIONS[name]
    x, w = data(*shape), data(*weight)
    y = x.conv2d(w, **how)
    graphs = [y.uop, *(g.uop for g in y.gradient(x, w, gradient=data(*y.shape)))]
    assert tables(flow.run_passes("tensor graph", flow.TENSOR_FLOW, UOp.sink(graphs[0]), TARGET))
    for want, got in zip(oracle.evaluate(*graphs), (Tensor(g) for g in graphs)): np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("last", [False, True])
def test_what_is_around_joins_its_kernels(last, always):
    x, w, b, r = data(1, 8, 12, 16), data(8, 8, 3, 3), data(8, 1, 1), data(1, 8, 12, 16)
    y = ((x.relu().conv2d(w, padding=1) + b).relu() + r) * 2
    if last: y = y.permute(0, 2, 3, 1)
    calls = flow.schedule(UOp.sink(UOp(Ops.CONTIGUOUS, y.dtype, (y.uop,))), TARGET, check=True)
    # relu, as it is read by several tiles; the transforms axis by axis; the products. What follows has vectors along rows, so that it is a
    # kernel of its own; where channels stay innermost the last transform has it
    assert len(calls) == 9 - last
    assert not any(tables(flow.up_to("tile", c.ast, TARGET)) for c in calls)
    np.testing.assert_allclose(y.numpy(), oracle.evaluate(y.uop)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("view", [lambda y: y[:, :, 1:6, 2:], lambda y: y.flip(2), lambda y: y.permute(0, 2, 3, 1), lambda y: y.reshape(-1, 3, 8),
                                  lambda y: y.max((2, 3)),
                                  lambda y: y.pad((1, 2, 1, 1)), lambda y: y.sum(1), lambda y: y.max_pool2d(2), lambda y: y.softmax(-1)])
def test_it_is_read_anywhere(view, always):
    y = view(data(1, 4, 12, 8).conv2d(data(6, 4, 3, 3), padding=1))
    np.testing.assert_allclose(y.numpy(), oracle.evaluate(y.uop)[0], rtol=1e-4, atol=1e-4)


def test_a_place_that_no_loop_names_is_chosen(always, monkeypatch):
    monkeypatch.setattr("glassgrad.passes.fuse.is_spelled", lambda i: True)
    y = data(1, 4, 12, 8).conv2d(data(6, 4, 3, 3), padding=1)[:, :, 1:6, 3:]
    np.testing.assert_allclose(y.numpy(), oracle.evaluate(y.uop)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_transformed_in_float32(dtype, always):
    x, w = data(1, 8, 8, 8).cast(dtype), data(8, 8, 3, 3).cast(dtype)
    y = x.conv2d(w, padding=1)
    assert tables(flow.run_passes("tensor graph", flow.TENSOR_FLOW, UOp.sink(y.uop), TARGET))
    np.testing.assert_allclose(y.float().numpy(), oracle.evaluate(y.float().uop)[0], rtol=1e-2, atol=1e-2)


def convolution(b: int, c: int, side: int, dtype: str = "float32", **how: int) -> UOp:
    x, w = Tensor.empty(b, c, side, side, dtype=dtype), Tensor.empty(c, c, 3, 3, dtype=dtype)
    return UOp.sink(x.conv2d(w, padding=1, **how).uop)


@pytest.mark.parametrize(("graph", "pays"), [
    (convolution(1, 64, 56), True), (convolution(1, 128, 28), True), (convolution(8, 256, 14), True), (convolution(8, 512, 7), True),
    (convolution(1, 512, 7), False),
    (convolution(1, 4, 56), False), (convolution(1, 64, 56, "float64"), False), (convolution(1, 64, 56, stride=2), False),
    (convolution(1, 64, 56, dilation=2), False)])
def test_only_where_it_pays(graph, pays):
    made = winograd.small_convolutions(graph, TARGET)
    assert (made is not graph) == pays == (tables(made) > 0)
    for other in (TARGET.with_(lanes=1), TARGET.with_(wino=False)): assert winograd.small_convolutions(graph, other) is graph


def test_the_error_stays_small():
    x, w = RNG.standard_normal((1, 128, 28, 28), np.float32), RNG.standard_normal((128, 128, 3, 3), np.float32) / 34
    with Context(CACHE="0"): y = Tensor(x).conv2d(Tensor(w), padding=1).numpy()
    with Context(CACHE="0", WINO=0): plain = Tensor(x).conv2d(Tensor(w), padding=1).numpy()
    exact = Tensor(x.astype(np.float64)).conv2d(Tensor(w.astype(np.float64)), padding=1).numpy()
    assert not np.array_equal(y, plain)
    assert np.abs(plain - exact).max() < 3e-6 * np.abs(exact).max()
    assert np.abs(y - exact).max() < 6e-6 * np.abs(exact).max()

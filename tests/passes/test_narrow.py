"""Loops end where a mask leaves nothing: the values stay, the turns go."""
import numpy as np
import pytest

from glassgrad import Tensor
from glassgrad.device.device import Device
from glassgrad.flow import lower, schedule
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

rng = np.random.default_rng(3)


def attention(q, k, v, see):
    """In float64."""
    s = np.where(see, q.astype(float) @ k.astype(float).swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def programs(x: Tensor) -> list:
    """The instructions of each kernel of a value, for the CPU."""
    target = Device["CPU"].target
    return [lower(c.ast, target, c.name, check=True).uops for c in schedule(UOp.sink(x.contiguous().uop), target, check=True)]


def bounded(x: Tensor) -> int:
    """Loops whose count is no constant."""
    return sum(n.op is Ops.RANGE and n.src[0].op is not Ops.CONST for uops in programs(x) for n in uops)


@pytest.mark.parametrize("n, m, d", [(64, 64, 16), (100, 100, 24), (40, 130, 8), (130, 40, 8), (33, 33, 8), (1, 50, 16), (50, 1, 16), (7, 7, 7)])
def test_causal_attention(n, m, d):
    q, k, v = (rng.standard_normal((2, a, d)).astype(np.float32) for a in (n, m, m))
    out = Tensor(q).scaled_dot_product_attention(Tensor(k), Tensor(v), is_causal=True).numpy()
    np.testing.assert_allclose(out, attention(q, k, v, np.arange(m) <= np.arange(n)[:, None]), atol=3e-6)


@pytest.mark.parametrize("n, m", [(64, 64), (50, 77), (77, 50), (5, 5), (1, 40), (300, 300)])
@pytest.mark.parametrize("diagonal", [-3, 0, 2])
def test_sums_and_maxima_of_triangles(n, m, diagonal):
    x = rng.standard_normal((n, m)).astype(np.float32)
    np.testing.assert_allclose(Tensor(x).tril(diagonal).sum(1).numpy(), np.tril(x, diagonal).sum(1, dtype=float), atol=1e-4)
    np.testing.assert_allclose(Tensor(x).tril(diagonal).sum(0).numpy(), np.tril(x, diagonal).sum(0, dtype=float), atol=1e-4)
    np.testing.assert_allclose(Tensor(x).triu(diagonal).sum(1).numpy(), np.triu(x, diagonal).sum(1, dtype=float), atol=1e-4)
    see = np.tril(np.ones((n, m), bool), diagonal)
    i, j = Tensor.arange(n).reshape(n, 1), Tensor.arange(m).reshape(1, m)
    out = (j <= i + diagonal).where(Tensor(x), float("-inf")).max(1).numpy()
    np.testing.assert_array_equal(out, np.where(see, x, -np.inf).max(1))


def test_a_triangle_times_a_matrix():
    x, y = rng.standard_normal((70, 70)).astype(np.float32), rng.standard_normal((70, 20)).astype(np.float32)
    np.testing.assert_allclose((Tensor(x).tril() @ Tensor(y)).numpy(), np.tril(x).astype(float) @ y, atol=1e-4)


def test_all_loops_over_keys_are_bounded():
    q = Tensor.empty(2, 128, 64)
    assert bounded(q.scaled_dot_product_attention(q, q)) == 0
    assert bounded(q.scaled_dot_product_attention(q, q, is_causal=True)) == 5     # scores, maximum, exponentials, their sum, weighted sum


def test_a_row_without_keys_is_nan():
    """softmax over nothing."""
    see = Tensor.arange(40).reshape(1, 40) <= Tensor.arange(40).reshape(40, 1) - 4
    scores = see.where(Tensor.ones(40, 40), float("-inf"))
    out = (scores.softmax(-1) @ Tensor.ones(40, 3)).numpy()
    assert np.isnan(out[:4]).all()
    np.testing.assert_allclose(out[4:], 1, rtol=1e-6)


@pytest.mark.parametrize("heads, shape", [(2, (6, 50, 16)), (1, (4, 1, 16))])
def test_weights_are_divided_after_they_are_summed_with(heads, shape):
    """Shared keys, a single query: one kernel each, and as exact."""
    q = rng.standard_normal((heads, *shape)).astype(np.float32)
    k, v = (rng.standard_normal((heads, shape[0] // 2, 70, 16)).astype(np.float32) for _ in "kv")
    out = Tensor(q).scaled_dot_product_attention(Tensor(k), Tensor(v), enable_gqa=True).numpy()
    np.testing.assert_allclose(out, attention(q, k.repeat(2, 1), v.repeat(2, 1), np.True_), atol=3e-6)


def test_weights_that_are_wanted_are_divided():
    s, v = rng.standard_normal((20, 30)).astype(np.float32), rng.standard_normal((30, 4)).astype(np.float32)
    w = Tensor(s).softmax(-1)
    both = (w @ Tensor(v)), w
    Tensor.realize(*both)
    e = np.exp(s.astype(float))
    e /= e.sum(-1, keepdims=True)
    np.testing.assert_allclose(both[1].numpy(), e, atol=1e-6)
    np.testing.assert_allclose(both[0].numpy(), e @ v, atol=1e-5)


@pytest.mark.parametrize("n, m, d", [(20, 4096, 16), (17, 6144, 24)])
@pytest.mark.parametrize("is_masked", [False, True])
def test_long_rows_go_in_rounds(n, m, d, is_masked):
    """One kernel without a row of scores; rounds that see nothing, and rows that see nothing at all."""
    q, k, v = (rng.standard_normal((2, a, d)).astype(np.float32) for a in (n, m, m))
    see = rng.random((n, m)) < 0.5
    see[:, :2500] = False
    see[0] = False
    mask = np.where(see if is_masked else True, 0, -np.inf).astype(np.float32)
    out = Tensor(q).scaled_dot_product_attention(Tensor(k), Tensor(v), Tensor(mask))
    (uops,) = programs(out)
    assert max(n.arg.size for n in uops if n.op is Ops.SCRATCH) < 16 * m
    with np.errstate(invalid="ignore"): expected = attention(q, k, v, see if is_masked else np.True_)
    np.testing.assert_allclose(out.numpy(), expected, atol=3e-6)
    assert np.isnan(out.numpy()[:, 0]).all() == is_masked


def test_a_product_of_itself_many_times_over_is_walked_once():
    x = Tensor(np.full((40, 40), 0.5, np.float32))
    y = (x + 0.5).tril()
    for _ in range(40): y = y * y
    assert y.sum().item() == 40 * 41 / 2

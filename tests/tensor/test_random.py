"""Random tensors: distributions, seeds, independence of the order of computing."""

import numpy as np
import pytest
from scipy import stats

from glassgrad import Tensor, dtypes
from glassgrad.engine.counters import GlobalCounters
from glassgrad.tensor.random import THREEFRY_KEY
from glassgrad.uop.errors import ArgumentError, DTypeError, ShapeError, UsageError
from glassgrad.uop.ops import Ops


def test_known_bits():
    """The stream is part of the interface: the same in every version, on every device."""
    Tensor.manual_seed(0)
    first = Tensor.random_bits(4).numpy()
    assert first.tolist() == [Ops.THREEFRY.py(i, THREEFRY_KEY) for i in range(4)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_rand_is_even(dtype):
    x = Tensor.rand(4000, dtype=dtype)
    values = x.numpy().astype("float64")
    assert x.dtype.name == dtype and values.min() >= 0 and values.max() < 1
    steps = 2**9 if dtype == "bfloat16" else 2**12
    assert stats.kstest(values + np.random.default_rng(0).uniform(0, 1 / steps, 4000), "uniform").pvalue > 1e-3


def test_randn_is_normal():
    x = Tensor.randn(8000).numpy()
    assert stats.kstest(x, "norm").pvalue > 1e-3 and np.isfinite(x).all()
    y = Tensor.normal(8000, mean=3.0, std=2.0).numpy()
    assert stats.kstest((y - 3) / 2, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.05


@pytest.mark.parametrize(
    "low,high,dtype", [(0, 10, "int32"), (-3, 4, "int8"), (5, 6, "int32"), (0, 256, "uint8"), (-(2**31), 2**31, "int64")]
)
def test_randint(low, high, dtype):
    x = Tensor.randint(5000, low=low, high=high, dtype=dtype)
    v = x.numpy()
    assert x.dtype.name == dtype and v.min() >= low and v.max() < high
    if 1 < high - low < 300:
        assert stats.chisquare(np.bincount(v.astype(int) - low, minlength=high - low)).pvalue > 1e-4


def test_uniform_and_initialisers():
    x = Tensor.uniform(3000, low=-2.0, high=5.0).numpy()
    assert -2 <= x.min() < -1.9 and 4.9 < x.max() < 5
    assert Tensor.uniform(5, low=0, high=3, dtype="int32").dtype is dtypes.int32
    for t, bound in (
        (Tensor.scaled_uniform(20, 30), (600) ** -0.5),
        (Tensor.glorot_uniform(20, 30), (6 / 50) ** 0.5),
        (Tensor.kaiming_uniform(20, 30, a=0.0), (6 / 30) ** 0.5),
    ):
        assert abs(abs(t.numpy()).max() / bound - 1) < 0.02
    assert Tensor.kaiming_normal(200, 50, a=0.0).numpy().std() == pytest.approx((2 / 50) ** 0.5, rel=0.05)


def test_permutations_and_draws():
    p = Tensor.randperm(500)
    assert sorted(p.tolist()) == list(range(500)) and p.tolist() != list(range(500)) and p.dtype is dtypes.int32
    w = Tensor([0.0, 1.0, 3.0])
    draws = np.bincount(w.multinomial(4000, replacement=True).numpy(), minlength=3)
    assert draws[0] == 0 and abs(draws[1] / 4000 - 0.25) < 0.03
    rows = Tensor([[1.0, 0.0], [0.0, 1.0]]).multinomial(3, replacement=True)
    assert rows.tolist() == [[0, 0, 0], [1, 1, 1]]
    few = Tensor.ones(50, 4).multinomial(3).numpy()
    assert all(len(set(r)) == 3 for r in few.tolist())
    assert Tensor([0.0, 2.0]).multinomial().tolist() == [1]


def test_a_seed_repeats():
    Tensor.manual_seed(5)
    a, b = Tensor.rand(3).tolist(), Tensor.randn(3).tolist()
    Tensor.manual_seed(5)
    assert (Tensor.rand(3).tolist(), Tensor.randn(3).tolist()) == (a, b)
    Tensor.manual_seed(6)
    assert Tensor.rand(3).tolist() != a
    assert Tensor.rand(3).tolist() != Tensor.rand(3).tolist()


def test_the_order_of_reading_does_not_matter():
    a, b = Tensor.rand(5), Tensor.rand(5)
    later = b.numpy(), a.numpy()
    Tensor.manual_seed(1234)
    np.testing.assert_array_equal(Tensor.rand(5).numpy(), later[1])
    np.testing.assert_array_equal(Tensor.rand(5).numpy(), later[0])
    assert not np.array_equal(*later)
    c = Tensor.rand(5)
    assert ((c + 1) - (c + 1)).abs().max().item() == 0


def test_a_seed_or_a_later_place_compiles_nothing():
    Tensor.rand(33).numpy()
    GlobalCounters.reset()
    Tensor.rand(33).numpy()
    Tensor.manual_seed(77)
    Tensor.rand(33).numpy()
    assert GlobalCounters.schedule_count == 0 and GlobalCounters.compile_count == 0


def test_dropout():
    x = Tensor.ones(4000)
    assert x.dropout(0.5) is x
    with Tensor.train():
        y = x.dropout(0.25).numpy()
        assert set(np.unique(y)) <= {0.0, np.float32(1 / 0.75)} and abs((y == 0).mean() - 0.25) < 0.03
        assert x.dropout(1.0).sum().item() == 0 and x.dropout(0.0) is x
        with Tensor.test():
            assert x.dropout(0.5) is x
        z = x.dropout(0.5)
        np.testing.assert_array_equal(z.sum().gradient(x)[0].numpy(), z.numpy())
    assert Tensor.training is False
    with pytest.raises(UsageError):
        x.dropout(2)


def test_like():
    x = Tensor.zeros(2, 3, dtype="float16")
    assert (
        x.rand_like().dtype is dtypes.float16 and x.randn_like().shape == (2, 3) and x.randint_like(0, 5, dtype="int8").dtype is dtypes.int8
    )


def test_random_leaves_have_gradients():
    x = Tensor.randn(3)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "f,error",
    [
        (lambda: Tensor.rand(3, dtype="int32"), DTypeError),
        (lambda: Tensor.randint(3, low=5, high=5), UsageError),
        (lambda: Tensor.randint(3, dtype="float32"), DTypeError),
        (lambda: Tensor.randint(3, high=2.5), ArgumentError),
        (lambda: Tensor.ones(3).multinomial(4), UsageError),
        (lambda: Tensor.ones(3, 3, 3).multinomial(), ShapeError),
        (lambda: Tensor.rand(-1), ShapeError),
    ],
)
def test_mistakes_are_named(f, error):
    with pytest.raises(error):
        f()


def test_none():
    assert (
        Tensor.rand(0).shape == (0,)
        and Tensor.rand().shape == ()
        and Tensor.randn(2, 0).numpy().shape == (2, 0)
        and Tensor.randperm(0).shape == (0,)
        and 0 <= Tensor.rand().item() < 1
    )

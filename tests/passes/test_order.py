"""Order: sorts by keys, counted or by digits, selections, and rows taken by an index: against NumPy, for every dtype."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Context, Device, Tensor, dtypes
from glassgrad.passes import order
from glassgrad.passes.order import first, order_by_keys, sort_key
from glassgrad.target.llvm import cpu_target
from glassgrad.uop.ops import BufferArg, Ops, SortArg
from glassgrad.uop.uop import UOp

CPU = cpu_target("+avx2,+fma")
LENGTHS = (2, 3, 7, 8, 9, 64, 255, 256, 257, 1000)
SPECIAL = (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, -1e-45, 0.0, -0.0, np.nan)


def places(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """NumPy's stable order; descending it is the ascending order from behind, of the row from behind."""
    if not descending: return np.argsort(x, axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)


def data(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values with many ties and, of floats, all that is special."""
    d, rng = getattr(dtypes, name), np.random.default_rng(len(shape) + sum(shape))
    if d.is_bool: return Tensor(rng.random(shape) < 0.5)
    if d.is_int:
        x = rng.integers(d.min, d.max, shape, dtype=name, endpoint=True)
        x = np.where(rng.random(shape) < 0.3, rng.choice(np.array([d.min, d.max, 0, 1], name), shape), x)
        return Tensor(x.astype(name))
    x = np.round(rng.standard_normal(shape) * 8) / 4
    x = np.where(rng.random(shape) < 0.2, rng.choice(np.array(SPECIAL), shape), x)
    return Tensor(x.astype("float64" if name == "float64" else "float32")).cast(d).realize()


def seen(x: Tensor) -> np.ndarray: return x.numpy() if x.dtype.np_name else x.float().numpy()


@pytest.mark.parametrize("descending", (False, True))
@pytest.mark.parametrize("name", [d.name for d in dtypes.all])
def test_every_dtype_and_length(name: str, descending: bool) -> None:
    for n in LENGTHS:
        x = data(name, (3, n))
        np.testing.assert_array_equal(x.argsort(1, descending).numpy(), places(seen(x), 1, descending), f"rows of {n}")


@pytest.mark.parametrize("shape, axis", [((5, 4, 3), 0), ((5, 300, 3), 1), ((2, 3, 600), 2), ((700, 2), 0)])
def test_every_axis_gives_values_and_places(shape: tuple[int, ...], axis: int) -> None:
    x = data("float32", shape)
    values, found = x.sort(axis)
    want = places(seen(x), axis, False)
    np.testing.assert_array_equal(found.numpy(), want)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(seen(x), want, axis))


@pytest.mark.parametrize("device", ("CPU", "PYTHON", "CL"))
@pytest.mark.parametrize("n", (20, 300))
def test_every_device_gives_the_same(device: str, n: int) -> None:
    if (absent := Device.reason_absent(device)) is not None: pytest.skip(f"no {device} here: {absent}")
    x = data("float32", (2, n))
    np.testing.assert_array_equal(x.to(device).argsort(1).numpy(), places(seen(x), 1, False))


@pytest.mark.parametrize("name", ("float32", "bfloat16", "int8", "uint64", "bool"))
@pytest.mark.parametrize("n, k", [(1, 1), (9, 9), (5000, 1), (5000, 7), (5003, 10), (40000, 20), (40000, 3000)])
def test_topk_is_the_front_of_the_sort(name: str, n: int, k: int) -> None:
    x = data(name, (n,))
    for largest in (True, False):
        want = places(seen(x), 0, largest)[:k]
        values, found = x.topk(k, largest=largest)
        np.testing.assert_array_equal(found.numpy(), want)
        np.testing.assert_array_equal(seen(values), seen(x)[want])


def test_topk_along_any_axis_and_of_none() -> None:
    x = data("float32", (3, 5000, 2))
    np.testing.assert_array_equal(x.topk(6, dim=1)[1].numpy(), places(seen(x), 1, True)[:, :6])
    assert x.topk(0, dim=1)[0].shape == (3, 0, 2) and Tensor.empty(0, 4).sort(0)[0].shape == (0, 4)


def test_a_selection_does_not_sort_the_row() -> None:
    x = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(0, 1 << 20, "CPU"))
    sort = UOp(Ops.SORT, dtypes.int32, (x,), SortArg(0, True))
    def sorted_at_once(*roots: UOp) -> int:
        return max(n.src[0].shape[-1] for n in order_by_keys(UOp.sink(*roots), CPU).toposort() if n.op is Ops.SORT)
    assert sorted_at_once(sort.shrink(((0, 100),))) < order.SMALL
    assert sorted_at_once(sort.shrink(((1, 100),))) == sorted_at_once(sort, sort.shrink(((0, 100),))) == 1 << 20
    assert sorted_at_once(sort.shrink(((0, 1 << 19),))) == 1 << 20, "half of a row is no selection"


def test_keys_are_signed_integers_of_the_width() -> None:
    for name, key in (("float16", "int16"), ("uint8", "int8"), ("bool", "int8"), ("float64", "int64"), ("uint32", "int32")):
        x = UOp(Ops.BUFFER, getattr(dtypes, name), (), BufferArg(0, 8, "CPU"))
        assert sort_key(x, True).dtype.name == key
    assert first(sort_key(x, False), 3).shape == (3,)


def test_selections_are_checked_against_the_reference() -> None:
    x = data("float32", (6000,))
    with Context(CHECK=2): np.testing.assert_array_equal(x.topk(4)[1].numpy(), places(seen(x), 0, True)[:4])


def test_the_gradient_goes_to_what_was_selected() -> None:
    x = Tensor(np.random.default_rng(0).permutation(5000).astype("float32"), requires_grad=True)
    x.topk(3)[0].sum().backward()
    np.testing.assert_array_equal(np.flatnonzero(x.grad.numpy()), np.sort(np.argsort(-x.numpy())[:3]))


@pytest.mark.parametrize("width, axis", [(256, 0), (250, 0), (96, 1)])
@pytest.mark.parametrize("n", (64, 301))
def test_rows_that_an_index_names_are_copied(width: int, axis: int, n: int) -> None:
    rng = np.random.default_rng(n)
    table = rng.standard_normal((1500, width) if axis == 0 else (3, 1500, width)).astype("float32")      # larger than an L2 cache
    at = rng.integers(-1500, 1500, n).astype("int32")
    np.testing.assert_array_equal(Tensor(table)[(slice(None),) * axis + (Tensor(at),)].numpy(), np.take(table, at, axis))
    outside = np.where(rng.random(n) < 0.3, rng.choice(np.array([1500, -1501, 2 ** 31 - 1, -2 ** 31], "int32"), n), at)
    want = np.where(((outside >= -1500) & (outside < 1500)).reshape(-1, 1), np.take(table, np.clip(outside, -1500, 1499), axis), 0)
    with Context(CHECK=1): np.testing.assert_array_equal(Tensor(table)[(slice(None),) * axis + (Tensor(outside),)].numpy(), want)

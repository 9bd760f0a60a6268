"""Indexing: reading and writing by ints, slices, lists, tensors and masks, as NumPy does; gather and scatter as torch does."""

import numpy as np
import pytest
import torch
from judge import agree, data, same

from glassgrad import Context, Tensor, dtypes
from glassgrad.tensor.variable import Variable
from glassgrad.uop.errors import DTypeError, IndexError_, ShapeError, UsageError

I, J = np.array([0, 2, 1, -1]), np.array([1, 0, 3, -2])
KEYS = [
    0,
    -1,
    slice(1, 3),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(3, None, -2),
    slice(-2, None),
    slice(5, 1),
    slice(1, 1),
    Ellipsis,
    None,
    (1, 2),
    (1, slice(None), 2),
    (Ellipsis, 1),
    (0, Ellipsis, slice(None, None, 2)),
    (slice(1, 4, 2), slice(None, None, -2), slice(0, 3)),
    (None, 1, None, slice(2)),
    (slice(None), None, -1),
    (slice(4, 0, -3), Ellipsis, slice(-1, None, -1)),
    (3, 4, 1),
    (slice(100), slice(-100, 100)),
    [0, 2],
    [-1, 1, 1],
    I,
    (I, J),
    (slice(None), I),
    (slice(None), slice(None), [0, 2, 1]),
    (I, slice(None), [0, 1, 2, 0]),
    ([[0], [1]], [[1, 2, 3]]),
    (I[:, None], J),
    (slice(1, 3), I),
    (I, slice(None, None, 2)),
    (0, I),
    (I, 0),
    (None, I),
    (Ellipsis, [0, 1]),
    (I, None, J),
    np.array([[0, 1], [2, 3]]),
    (slice(None, None, -1), I, slice(2)),
    [],
    (slice(None), []),
    np.array(2),
    range(2),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_read(key):
    same(lambda x: x[key], lambda x: torch.tensor(x.numpy()[key].copy()), data(4, 5, 3), grad=False)


@pytest.mark.parametrize(
    "key",
    [
        k
        for k in KEYS
        if isinstance(k, (int, slice))
        or (isinstance(k, tuple) and not any(isinstance(v, slice) and (v.step or 1) < 0 for v in k))
        or isinstance(k, list)
    ],
    ids=str,
)
def test_read_gradient(key):
    if isinstance(key, slice) and (key.step or 1) < 0:
        pytest.skip("torch has no negative steps")
    to_torch = lambda k: torch.tensor(k) if isinstance(k, np.ndarray) else torch.tensor(k, dtype=torch.long) if k == [] else k
    want = tuple(to_torch(k) for k in key) if isinstance(key, tuple) else to_torch(key)
    same(lambda x: x[key], lambda x: x[want], data(4, 5, 3))


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("scalar", [True, False])
def test_write(key, scalar):
    want = data(4, 5, 3)
    x = Tensor(want)
    view = x.flatten()
    value = np.float32(7) if scalar else data(*want[key].shape, lo=10, hi=20)
    if isinstance(key, list) and key == [-1, 1, 1] and not scalar:
        value[2] = value[1]  # of equal places NumPy's last counts, ours too
    x[key] = 7 if scalar else Tensor(value)
    want[key] = value
    agree(x, want)
    agree(view, want.ravel())


@pytest.mark.parametrize("key", [[0, 2], (slice(None), [1]), slice(1, 3), (Ellipsis, 0)], ids=str)
def test_write_in_place_operator_and_broadcast(key):
    want = data(4, 5, 3)
    x = Tensor(want)
    x[key] += 1
    want[key] += 1
    agree(x, want)
    x[key] = Tensor(want[key].ravel()[:1])
    want[key] = want[key].ravel()[:1]
    agree(x, want)


def test_writes_happen_in_program_order():
    x = Tensor.zeros(4)
    y = x + 1
    x[0] = 5
    z = x * 2
    x[0:2] = y[2:]
    assert z.tolist() == [10, 0, 0, 0] and y.tolist() == [1, 1, 1, 1] and x.tolist() == [1, 1, 0, 0]
    x[1:] = x[:-1]
    assert x.tolist() == [1, 1, 1, 0]


def test_written_values_have_gradients():
    a, b = data(4, 3), data(2, 3, seed=9)

    def f(x, y):
        z = x * 1
        z[1:3] = y
        return z * z

    same(f, f, a, b)

    def g(x, y):
        z = x * 1
        z[[3, 0]] = y
        return z * z

    same(g, g, a, b)


MASKS = [np.array([True, False, True, True]), np.array([False] * 4), np.arange(20).reshape(4, 5) % 3 == 0]


@pytest.mark.parametrize("mask", MASKS, ids=["rows", "none", "two axes"])
def test_masks(mask):
    want = data(4, 5, 3)
    agree(Tensor(want)[Tensor(mask)], want[mask])
    agree(Tensor(want)[mask], want[mask])
    x = Tensor(want)
    x[Tensor(mask)] = 3
    want[mask] = 3
    agree(x, want)
    x[mask] = Tensor(np.ones(want[mask].shape, "float32"))
    want[mask] = 1
    agree(x, want)


def test_a_mask_beside_other_indices():
    want = data(4, 5, 3)
    agree(Tensor(want)[MASKS[0], :, 1], want[MASKS[0], :, 1])
    agree(Tensor(want)[:, [True, False, True, False, False]], want[:, [True, False, True, False, False]])
    agree(Tensor(want)[True], want[True])
    agree(Tensor(want)[False], want[False])
    x = Tensor(want)
    x[x < 0] = 0
    agree(x, np.maximum(want, 0))


def test_masked_select_and_nonzero():
    x = data(3, 4, lo=-2, hi=2, dtype="int32")
    agree(Tensor(x).masked_select(Tensor(x) > 0), x[x > 0])
    agree(Tensor(x).nonzero(), np.argwhere(x).astype("int32"))
    fixed = Tensor(x).nonzero(size=5, fill_value=-7).numpy()
    found = np.argwhere(x)[:5]
    np.testing.assert_array_equal(fixed[: len(found)], found)
    few = Tensor([0, 1, 0]).nonzero(size=3, fill_value=-7)
    assert few.tolist() == [[1], [-7], [-7]]


@pytest.mark.parametrize("index", [Tensor, np.array, list], ids=["tensor", "array", "list"])
def test_index_kinds(index):
    x = data(6, 2)
    agree(Tensor(x)[index([5, -1, 0])], x[[5, -1, 0]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64", "uint32"])
def test_index_dtypes(dtype):
    x = data(6, 2)
    agree(Tensor(x)[Tensor(np.array([5, 1, 0], dtype=dtype))], x[[5, 1, 0]])


def test_a_computed_index_out_of_range_reads_zero_and_writes_nothing():
    x = Tensor([1.0, 2.0, 3.0])
    i = Tensor([0, 7]) + 0
    assert x[i].tolist() == [1.0, 0.0]
    x[i] = 9
    assert x.tolist() == [9.0, 2.0, 3.0]
    y = Tensor.ones(2, 3)
    assert y[Tensor([0, 1]), Tensor([5, 1])].tolist() == [0.0, 1.0]


def test_variables_index():
    x = Tensor(data(5, 2))
    v = Variable("i", 0, 4)
    for k in (0, 3):
        agree(x[v.bind(k)], data(5, 2)[k])
    with pytest.raises(UsageError, match="no value"):
        int(v)
    with pytest.raises(UsageError, match="from 0 to 4"):
        v.bind(5)


@pytest.mark.parametrize(
    "key,error",
    [
        (4, IndexError_),
        (-5, IndexError_),
        ((0, 0, 0, 0), IndexError_),
        ((Ellipsis, Ellipsis), IndexError_),
        ([0, 9], IndexError_),
        (1.5, IndexError_),
        ("a", IndexError_),
        (slice(None, None, 0), IndexError_),
        (slice(0.5, 2), IndexError_),
        ([0.5], IndexError_),
        (np.array([True, False]), IndexError_),
    ],
    ids=str,
)
def test_bad_indices_are_named(key, error):
    with pytest.raises(error):
        Tensor.ones(4, 5, 3)[key].numpy()


def test_bad_writes_are_named():
    x = Tensor([1, 2, 3])
    with pytest.raises(DTypeError, match="do not fit"):
        x[0] = 1.5
    with pytest.raises(DTypeError, match="do not fit"):
        x[[0]] = Tensor([1.5])
    with pytest.raises(ShapeError):
        x[:2] = Tensor([1, 2, 3])
    with pytest.raises(ShapeError):
        x[[0, 1]] = Tensor([1, 2, 3])
    with pytest.raises(UsageError):
        del x[0]
    assert x.tolist() == [1, 2, 3]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather(dim):
    x = data(4, 5, 3)
    i = np.random.default_rng(3).integers(0, 3, (3, 4, 2))
    same(lambda x: x.gather(dim, Tensor(i)), lambda x: x.gather(dim, torch.tensor(i)), x)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("reduce", [None, "add", "multiply"])
def test_scatter(dim, reduce):
    x, y = data(4, 5, 3), data(3, 4, 2, seed=5)
    order = (
        np.argsort(np.random.default_rng(3).random((3, 4, 3)), axis=(dim if dim >= 0 else 2))[:, :, :2]
        if reduce is None
        else np.random.default_rng(3).integers(0, 3, (3, 4, 2))
    )
    i = np.clip(order, 0, 2) if reduce is None and dim % 3 == 2 else order if reduce else np.minimum(order, [3, 4, 2][dim])
    more = {} if reduce is None else {"reduce": reduce}
    same(
        lambda x, y: x.scatter(dim, Tensor(i), y, **more),
        lambda x, y: x.scatter(dim, torch.tensor(i), y, **more),
        x,
        y,
        grad=reduce is None,
        rtol=1e-4,
    )


def test_scatter_add_gradient():
    i = np.array([[0, 1, 1], [2, 0, 0]])
    same(lambda x, y: x.scatter_add(1, Tensor(i), y), lambda x, y: x.scatter_add(1, torch.tensor(i), y), data(2, 4), data(2, 3))
    same(lambda x: x.scatter(1, Tensor(i), 2.0), lambda x: x.scatter(1, torch.tensor(i), 2.0), data(2, 4))


def test_of_equal_places_the_last_counts_also_for_the_gradient():
    x, y = Tensor([0.0, 0.0]), Tensor([1.0, 2.0, 3.0])
    z = x.scatter(0, Tensor([1, 1, 1]), y)
    assert z.tolist() == [0.0, 3.0]
    dx, dy = (z * Tensor([10.0, 100.0])).sum().gradient(x, y)
    assert dx.tolist() == [10.0, 0.0] and dy.tolist() == [0.0, 0.0, 100.0]


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce(reduce, include_self):
    i = np.random.default_rng(3).integers(0, 4, (4, 6))
    f = lambda x, y: x.scatter_reduce(1, Tensor(i) if isinstance(x, Tensor) else torch.tensor(i), y, reduce, include_self=include_self)
    same(f, f, data(4, 5, lo=0.5), data(4, 6, lo=0.5, seed=2), rtol=1e-4, atol=1e-5)


def test_selection():
    x = data(5, 4)
    i = np.array([4, 0, 0])
    agree(Tensor(x).index_select(0, Tensor(i)), x[i])
    agree(Tensor(x).index_select(1, Tensor(i[1:])), x[:, i[1:]])
    agree(Tensor(x).take(Tensor(i)), x.ravel()[i])
    agree(Tensor(x).take_along_axis(Tensor(np.argsort(x, 1)), 1), np.sort(x, 1))
    with pytest.raises(ShapeError):
        Tensor(x).gather(0, Tensor([0]))
    with pytest.raises(ShapeError):
        Tensor(x).gather(0, Tensor.zeros(1, 9, dtype="int32"))
    with pytest.raises(IndexError_):
        Tensor(x).gather(0, Tensor.zeros(1, 4))
    with pytest.raises(UsageError):
        Tensor(x).scatter(0, Tensor.zeros(1, 4, dtype="int32"), 1.0, reduce="max")
    with pytest.raises(UsageError):
        Tensor(x).scatter_reduce(0, Tensor.zeros(1, 4, dtype="int32"), 1.0, "median")


def test_items():
    x = Tensor([[1, 2]])
    assert (
        x[0, 1].item() == 2
        and x[0][1].dtype is dtypes.int32
        and int(x[0, 0]) == 1
        and float(x[0, 0]) == 1.0
        and bool(x[0, 0] == 1)
        and [10, 20, 30][x[0, 1]] == 30
    )
    assert 2 in x and 5 not in x
    with pytest.raises(UsageError, match="exactly one"):
        x.item()
    with pytest.raises(UsageError, match=r"all\(\) or x.any\(\)"):
        bool(x)


def test_computed_indices_count_from_the_end_and_are_checked_on_request():
    x, i = data(4, 3), np.array([[-1, 0, 2], [-4, 3, -2]])
    at = Tensor(i) + 0                                              # computed, not known
    agree(Tensor(x).gather(0, at), np.take_along_axis(x, i, 0))
    filled = x.copy()
    np.put_along_axis(filled, i, 9, 0)
    agree(Tensor(x).scatter(0, at, 9.0), filled)
    assert Tensor(x).gather(0, at + 4).shape == (2, 3)              # out of range: reads 0
    with Context(CHECK=2):
        agree(Tensor(x).gather(0, at), np.take_along_axis(x, i, 0))
        for wrong in (lambda: Tensor(x).gather(0, at + 4), lambda: Tensor(x)[at + 4], lambda: Tensor(x).scatter(0, at - 4, 1.0)):
            with pytest.raises(IndexError_, match="must be from -4 to 3"):
                wrong()

"""Tensors as such: what they are made of, reading, assigning, places, printing."""

import copy
import pickle

import numpy as np
import pytest
import torch
from judge import agree, data

from glassgrad import Device, Tensor, dtypes
from glassgrad.engine import realize as engine
from glassgrad.engine.counters import GlobalCounters
from glassgrad.uop.errors import ArgumentError, DeviceError, DTypeError, ShapeError, UsageError
from glassgrad.uop.ops import Ops


@pytest.mark.parametrize(
    "x,dtype",
    [
        (1, "int32"),
        (1.5, "float32"),
        (True, "bool"),
        ([1, 2], "int32"),
        ([1, 2.5], "float32"),
        ([[True], [False]], "bool"),
        ([], "float32"),
        ([[], []], "float32"),
    ],
    ids=str,
)
def test_python_data(x, dtype):
    agree(Tensor(x), np.array(x, dtype=dtype))


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_numpy_data(dtype):
    x = data(3, 4, lo=0, hi=5, dtype=dtype)
    agree(Tensor(x), x)
    agree(Tensor(x.T), x.T)
    agree(Tensor(x[:, ::2]), x[:, ::2])
    assert Tensor(x).tolist() == x.tolist()


@pytest.mark.parametrize("dtype", [d.name for d in dtypes.all])
def test_dtype_asked_for(dtype):
    x = Tensor([0, 1, 2], dtype=dtype)
    assert x.dtype.name == dtype and x.numpy().astype(float).tolist() == ([0, 1, 1] if dtype == "bool" else [0, 1, 2])
    assert Tensor(np.array([0, 1, 2], "int16"), dtype=dtype).dtype.name == dtype and Tensor(2, dtype=dtype).dtype.name == dtype


def test_numpy_data_is_copied():
    a = np.zeros(3, dtype="float32")
    x = Tensor(a)
    a[0] = 5
    assert x.tolist() == [0, 0, 0]
    b = x.numpy()
    b[1] = 7
    assert x.tolist() == [0, 0, 0]


def test_read_only_memory_is_wrapped():
    a = np.arange(100_000, dtype="float32")
    x = Tensor(np.frombuffer(a.tobytes(), dtype="float32"))
    assert x.uop.op is Ops.COPY
    agree(x[5:9] * 2, a[5:9] * 2)
    agree(x.reshape(10, -1).sum(1), a.reshape(10, -1).sum(1), rtol=1e-4)


def test_other_sources(tmp_path):
    agree(Tensor(b"abc"), np.frombuffer(b"abc", np.uint8))
    agree(Tensor(torch.tensor([1.5, 2.5])), np.array([1.5, 2.5], "float32"))
    agree(Tensor([Tensor([1, 2]), Tensor([3, 4])]), np.array([[1, 2], [3, 4]], "int32"))
    agree(Tensor([np.float32(1), np.float32(2)]), np.array([1, 2], "float32"))
    agree(Tensor(np.array([1, 2], dtype=">f4")), np.array([1, 2], "float32"))
    agree(Tensor(Tensor([1.0]).uop), np.array([1.0], "float32"))
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(10)))
    x = Tensor(path)
    assert x.device == f"DISK:{path}" and x.tolist() == list(range(10)) and x[2:4].tolist() == [2, 3] and x.to("CPU").sum().item() == 45
    ml = pytest.importorskip("ml_dtypes")
    assert Tensor(np.array([1.5], dtype=ml.bfloat16)).dtype is dtypes.bfloat16


@pytest.mark.parametrize(
    "x,error",
    [
        ([[1, 2], [3]], ShapeError),
        ([1, [2]], ShapeError),
        (["a"], DTypeError),
        (np.array(["a"]), DTypeError),
        (np.array([1j]), DTypeError),
        ("abc", DTypeError),
        (object(), DTypeError),
    ],
)
def test_bad_data_is_named(x, error):
    with pytest.raises(error):
        Tensor(x)


CREATED = [
    ("zeros", lambda: Tensor.zeros(2, 3), np.zeros((2, 3), "f")),
    ("ones", lambda: Tensor.ones((2, 3)), np.ones((2, 3), "f")),
    ("full", lambda: Tensor.full((2,), 7), np.full(2, 7, "i")),
    ("full f", lambda: Tensor.full([2, 1], 0.5), np.full((2, 1), 0.5, "f")),
    ("full ()", lambda: Tensor.full((), True), np.array(True)),
    ("eye", lambda: Tensor.eye(3), np.eye(3, dtype="f")),
    ("eye 2 4", lambda: Tensor.eye(2, 4, dtype="int8"), np.eye(2, 4, dtype="int8")),
    ("arange", lambda: Tensor.arange(5), np.arange(5, dtype="i")),
    ("arange 2 5", lambda: Tensor.arange(2, 5), np.arange(2, 5, dtype="i")),
    ("arange back", lambda: Tensor.arange(5, 0, -2), np.arange(5, 0, -2, dtype="i")),
    ("arange f", lambda: Tensor.arange(0, 1, 0.25), np.arange(0, 1, 0.25, dtype="f")),
    ("arange none", lambda: Tensor.arange(5, 2), np.arange(5, 2, dtype="i")),
    ("arange 0.5", lambda: Tensor.arange(0.5, 3), np.arange(0.5, 3, dtype="f")),
    ("arange u8", lambda: Tensor.arange(3, dtype="uint8"), np.arange(3, dtype="uint8")),
    ("arange i64", lambda: Tensor.arange(2**33, 2**33 + 3), np.arange(2**33, 2**33 + 3)),
    ("linspace", lambda: Tensor.linspace(-1, 3, 9), np.linspace(-1, 3, 9, dtype="f")),
    ("linspace 1", lambda: Tensor.linspace(2, 3, 1), np.array([2], "f")),
    ("zeros_like", lambda: Tensor([1, 2]).zeros_like(), np.zeros(2, "i")),
    ("ones_like", lambda: Tensor([1.5]).ones_like(dtype="int8"), np.ones(1, "int8")),
    ("full_like", lambda: Tensor([1.5]).full_like(3), np.full(1, 3, "f")),
    ("const", lambda: Tensor.const(3.0), np.float32(3)),
]


@pytest.mark.parametrize("name,f,want", CREATED, ids=[c[0] for c in CREATED])
def test_creation(name, f, want):
    agree(f(), want)


def test_empty_has_its_shape():
    assert (
        Tensor.empty(3, 4, dtype="int8").numpy().shape == (3, 4)
        and Tensor([1]).empty_like().dtype is dtypes.int32
        and Tensor(None).shape == (0,)
    )


@pytest.mark.parametrize("f", [lambda: Tensor.zeros(-1), lambda: Tensor.ones(2, "a"), lambda: Tensor.eye(-1), lambda: Tensor.zeros(1.5)])
def test_bad_shapes_are_named(f):
    with pytest.raises(ShapeError):
        f()


def test_bad_ranges_are_named():
    with pytest.raises(UsageError):
        Tensor.arange(1, 2, 0)
    with pytest.raises(UsageError):
        Tensor.linspace(0, 1, -1)
    with pytest.raises(UsageError):
        Tensor([1]).meshgrid(Tensor([1]), indexing="no")


# ---- laziness ------------------------------------------------------------------------------------------------------------------------
def test_nothing_is_computed_before_it_is_read():
    GlobalCounters.reset()
    x = Tensor([1.0, 2.0]) * 3 + 1
    assert GlobalCounters.kernel_count == 0 and x.shape == (2,)
    x.numpy()
    assert GlobalCounters.kernel_count == 1
    x.numpy()
    x.realize()
    assert GlobalCounters.kernel_count == 1
    (x + 1).realize()
    assert GlobalCounters.kernel_count == 2


def test_mistakes_are_found_before_anything_is_computed():
    GlobalCounters.reset()
    x = Tensor.rand(3, 4)
    for f in (
        lambda: x @ x,
        lambda: x + Tensor.ones(5),
        lambda: x.reshape(5),
        lambda: x[7],
        lambda: x.sum(3),
        lambda: x.cat(Tensor.ones(2)),
    ):
        with pytest.raises((ValueError, IndexError)):
            f()
    assert GlobalCounters.kernel_count == 0


@pytest.mark.parametrize("when", ["never", "x", "y", "both", "read"])
def test_results_do_not_depend_on_when_something_is_realized(when):
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * x
    r = Tensor.rand(3)
    s = Tensor.rand(3)
    if when in ("x", "both"):
        x.realize()
    if when in ("y", "both"):
        y.realize()
    if when == "read":
        s.numpy(), y.numpy(), r.numpy(), x.numpy()
    z = (y * 3 + r).sum()
    if when == "both":
        z.realize()
    z.backward()
    assert x.grad.tolist() == [6.0, 12.0, 18.0]
    Tensor.manual_seed(1234)
    np.testing.assert_array_equal(r.numpy(), Tensor.rand(3).numpy())
    np.testing.assert_array_equal(s.numpy(), Tensor.rand(3).numpy())


def test_reading_does_not_cut_the_gradient_of_leaves():
    x = Tensor([1.0, 2.0])
    y = x * 2
    y.numpy(), repr(y), y[0].item()
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_value_realized_after_its_use_still_gets_its_gradient():
    x = Tensor.rand(3) * 1
    x.requires_grad = True
    y = (x * 3).sum()
    x.realize()
    y.backward()
    assert x.grad.tolist() == [3.0] * 3
    z = Tensor.rand(3)
    w = (z * 3).sum()
    z.realize()
    w.backward()
    assert z.grad.tolist() == [3.0] * 3


def test_history_goes_when_nobody_asks_for_gradients():
    x = Tensor([1.0])
    for _ in range(5):
        x = (x * 2).realize()
    assert x.uop.op in (Ops.RESHAPE, Ops.BUFFER) and x.tolist() == [32.0]


def test_training_does_not_keep_old_steps():
    from glassgrad.uop.uop import nodes_alive

    w = Tensor([1.0, 2.0], requires_grad=True)
    m = Tensor.zeros(2)
    counts = []
    for _ in range(12):
        w.grad = None
        (w * w).sum().backward()
        m.assign(m * 0.9 + w.grad)
        w.assign(w.detach() - m * 0.01)
        Tensor.realize(w, m)
        counts.append(nodes_alive())
    assert counts[-1] <= counts[5] + 5, counts


def test_deep_graphs():
    x = Tensor([1.0])
    for _ in range(3000):
        x = x + 1
    assert x.item() == 3001


# ---- assign --------------------------------------------------------------------------------------------------------------------------
def test_assign():
    x = Tensor([1.0, 2.0])
    y, old = x[:1], x + 0
    x.assign(Tensor([5.0, 6.0]))
    assert x.tolist() == [5, 6] and y.tolist() == [5] and old.tolist() == [1, 2]
    x.assign(3)
    assert x.tolist() == [3, 3]
    x.assign(Tensor([1, 2]))
    assert x.tolist() == [1, 2] and x.dtype is dtypes.float32
    x.assign(x + x)
    assert x.tolist() == [2, 4]


def test_assign_mistakes_are_named():
    x = Tensor([1, 2])
    with pytest.raises(ShapeError, match="does not broadcast"):
        x.assign(Tensor([1, 2, 3]))
    with pytest.raises(DTypeError, match="do not fit"):
        x.assign(Tensor([1.5, 2]))
    with pytest.raises(DTypeError, match="do not fit"):
        x += 1.5
    with pytest.raises(DTypeError):
        x /= 2
    with pytest.raises(DeviceError, match="one device"):
        x.assign(Tensor([1, 2], device="PYTHON"))
    assert x.tolist() == [1, 2]


def test_pending_writes_are_computed_with_the_next_realize():
    x, y = Tensor([1.0]), Tensor([2.0])
    x.assign(x * 5)
    assert engine.buffer_of(x.uop) is None
    (y + 1).realize()
    assert engine.buffer_of(x.uop) is not None and x.tolist() == [5.0]


OPERATORS = {
    "+=": lambda x, y: x.__iadd__(y),
    "-=": lambda x, y: x.__isub__(y),
    "*=": lambda x, y: x.__imul__(y),
    "//=": lambda x, y: x.__ifloordiv__(y),
    "%=": lambda x, y: x.__imod__(y),
    "**=": lambda x, y: x.__ipow__(y),
    "&=": lambda x, y: x.__iand__(y),
    "|=": lambda x, y: x.__ior__(y),
    "^=": lambda x, y: x.__ixor__(y),
    "<<=": lambda x, y: x.__ilshift__(y),
    ">>=": lambda x, y: x.__irshift__(y),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_in_place_operators(name):
    a = np.array([5, 6, 7], dtype="int32")
    x = Tensor(a)
    view = x[1:]
    result = OPERATORS[name](x, 2)
    want = OPERATORS[name](a, 2)
    assert result is x
    agree(x, want)
    agree(view, want[1:])


def test_assigning_through_nested_views_of_unrealized_values():
    x = Tensor.arange(12).reshape(3, 4) * 1
    x.T[1:3].flip(0)[:, 1] = 0
    want = np.arange(12, dtype="int32").reshape(3, 4)
    want.T[1:3][::-1][:, 1] = 0
    agree(x, want)


def test_replace_and_clone_and_copies():
    x, y = Tensor([1.0]), Tensor([2.0])
    x.replace(y)
    x += 1
    assert y.tolist() == [3.0]
    for z in (y.clone(), copy.copy(y), copy.deepcopy(y), Tensor(y)):
        z += 1
        assert y.tolist() == [3.0] and z.tolist() == [4.0]
    with pytest.raises(ShapeError):
        x.replace(Tensor([1.0, 2.0]))
    a, b = y.clone(), y.clone()
    da, db = (a * 2 + b * 3).sum().gradient(a, b)
    assert (da.item(), db.item()) == (2.0, 3.0)


@pytest.mark.parametrize("dtype", [d.name for d in dtypes.all])
def test_pickle(dtype):
    x = Tensor([0, 1, 2], dtype=dtype)
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype is x.dtype and y.tolist() == x.tolist()
    if x.dtype.is_float:
        assert pickle.loads(pickle.dumps(Tensor([1.0], requires_grad=True))).requires_grad


# ---- places ----------------------------------------------------------------------------------------------------------------------------
def test_devices():
    x = Tensor([1.0, 2.0])
    assert x.device == Device.DEFAULT and x.to(None).device == Device.DEFAULT and x.to(x.device) is x
    y = x.to("PYTHON")
    assert y.device == "PYTHON" and (y * 2).device == "PYTHON" and (y * 2).tolist() == [2, 4] and (y + 1).to("CPU").tolist() == [2, 3]
    assert Tensor.ones(2, device="PYTHON").device == "PYTHON" and Tensor.rand(2, device="python").device == "PYTHON"
    assert (Tensor.ones(2) + y).device == "PYTHON"
    x.to_("PYTHON")
    assert x.device == "PYTHON" and x.tolist() == [1, 2]
    with pytest.raises(DeviceError, match="both must be on one device"):
        y + Tensor([1.0, 2.0])
    with pytest.raises(DeviceError, match="no device named"):
        x.to("ABACUS")


def test_random_bits_are_the_same_on_every_device():
    a = Tensor.randn(50).tolist()
    Tensor.manual_seed(1234)
    np.testing.assert_allclose(Tensor.randn(50, device="PYTHON").numpy(), a, rtol=1e-5, atol=1e-6)


def test_gradients_cross_devices():
    x = Tensor([1.0, 2.0])
    (x.to("PYTHON") * 3).to("CPU").sum().backward()
    assert x.grad.tolist() == [3, 3] and x.grad.device == "CPU"


@pytest.mark.parametrize("shape", [(2000,), (40, 50), (3, 4, 200), (1001, 0), (7, 7, 7, 7), (1, 1200)], ids=str)
def test_repr_of_long_ones_is_as_numpy_has_it(shape):
    x = np.arange(int(np.prod(shape))).reshape(shape)
    expected = np.array2string(x, prefix="Tensor(", separator=", ", threshold=1000)
    assert repr(Tensor(x)) == f"Tensor({expected}, shape={shape}, dtypes.int64, device='{Device.DEFAULT}')"


def test_repr_computes_only_what_it_shows():
    x = Tensor.arange(1 << 20).reshape(1 << 10, 1 << 10).float().exp2()
    GlobalCounters.reset()
    assert "..." in repr(x)
    assert 0 < GlobalCounters.global_mem < 1 << 16


# ---- printing, protocols -----------------------------------------------------------------------------------------------------------------
def test_repr():
    assert repr(Tensor([1.0, 2.0])) == f"Tensor([1., 2.], shape=(2,), dtypes.float32, device='{Device.DEFAULT}')"
    assert repr(Tensor([1.0]) + 1) == f"Tensor([2.], shape=(1,), dtypes.float32, device='{Device.DEFAULT}')"
    assert repr(Tensor([[True], [False]])).startswith("Tensor([[ True],\n        [False]], shape=(2, 1)")
    assert repr(Tensor([1, 2], device="NULL") + 1).endswith("device='NULL', not realized)")
    assert "requires_grad=True" in repr(Tensor([1.0], requires_grad=True))


def test_sites_are_the_users_lines():
    x = Tensor([1.0])
    y = x.softmax()
    assert all("test_tensor.py" in n.site for n in y.uop.toposort())
    lines = {n.site for n in (y * 2).uop.toposort()}
    assert len(lines) >= 3
    (y * y).sum().backward()
    assert all(n.site for n in x.grad.uop.toposort())


def test_protocols():
    x = Tensor([[1, 2], [3, 4]])
    assert (
        np.asarray(x).tolist() == x.tolist()
        and np.array(x, dtype="float64").dtype == np.float64
        and len(x) == 2
        and [r.tolist() for r in x] == [[1, 2], [3, 4]]
    )
    assert x.data().tolist() == [[1, 2], [3, 4]] and len({x, x}) == 1 and (x == None) is False
    with pytest.raises(UsageError):
        len(Tensor(1.0))
    with pytest.raises(UsageError):
        iter(Tensor(1.0))
    with pytest.raises(DTypeError):
        Tensor([1.0], dtype="bfloat16").data()
    with pytest.raises(DTypeError):
        [1, 2][Tensor(1.0)]


def test_graphs_stay_small():
    x, w = Tensor.rand(4, 8).realize(), Tensor.rand(8, 4).realize()
    assert len((x @ w).uop.toposort()) <= 11
    assert len(x.softmax().uop.toposort()) <= 16
    assert len((x + 1).uop.toposort()) == 4
    assert len(Tensor.rand(4, 4, 8, 8).realize().conv2d(Tensor.rand(2, 4, 3, 3).realize()).uop.toposort()) <= 15
    assert len((x @ w).relu().sum().uop.toposort()) <= 15


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
def test_dlpack_both_ways(dtype):
    x = np.arange(6).reshape(2, 3).astype(dtype)
    for there in (np.from_dlpack(Tensor(x)), torch.from_dlpack(Tensor(x)).numpy()):
        np.testing.assert_array_equal(there, x)
        assert there.dtype == x.dtype
    for back in (Tensor.from_dlpack(x), Tensor.from_dlpack(torch.tensor(x)), Tensor.from_numpy(x)):
        np.testing.assert_array_equal(back.numpy(), x)
    with pytest.raises(ArgumentError, match="no __dlpack__"):
        Tensor.from_dlpack([1.0])
    with pytest.raises(DTypeError, match="try: x.float"):
        np.from_dlpack(Tensor([1.0], dtype="bfloat16"))

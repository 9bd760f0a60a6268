"""Launchers: a replay written out as code gives what the general way gives, and takes no call that is not exactly its own."""
import collections
import gc
import threading
import weakref

import numpy as np
import pytest

from glassgrad.device.device import Device
from glassgrad.engine.context import Context
from glassgrad.engine.counters import GlobalCounters
from glassgrad.engine.jit import WRITE_AT, jit
from glassgrad.engine.replay import MISS
from glassgrad.tensor.tensor import Tensor

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Pair = collections.namedtuple("Pair", "a b")


def make(k=0): return Tensor(X + k).realize()
def warm(f, *args, **kwargs):
    """f after enough calls to have a launcher for such arguments."""
    for _ in range(WRITE_AT + 2): out = f(*args, **kwargs)
    assert len(f.launches) >= 1
    return out
class Uses:
    """Counts how often the launchers of a jit take a call."""
    def __init__(self, f):
        self.taken = 0
        def counted(launch):
            def fn(args, kwargs):
                out = launch(args, kwargs)
                self.taken += out is not MISS
                return out
            return fn
        f.launches = [counted(launch) for launch in f.launches]


class Cell:
    def __init__(self): self.h, self.scale, self.parts = make(), 2.0, [make(1), {"k": make(2)}]
    def step(self, x):
        self.h = self.h * 0.5 + x * self.parts[0] + self.parts[1]["k"] * self.scale
        return self.h.sum()


def grads(x, w):
    w.grad = None
    (w * x).square().sum().backward()
    w.assign((w - w.grad * 0.1).detach())
    return w


def makers():
    """(name, a maker of (function, arguments of call number k)); each is run with and without launchers, from the same start."""
    def plain(): return (lambda x, y: x @ y.T + 1), lambda k: (make(k), make(2 * k))
    def nested():
        def fn(x, more): return {"s": x[0] + more["b"], "p": Pair(x[1] * 2, [more["b"]]), "c": (3, "t")}
        return fn, lambda k: ([make(k), make(1)], {"b": make(k)})
    def state():
        c = Cell()
        return c.step, lambda k: (make(k),)
    def written():
        w = make()
        def fn(x):
            w.assign(w + x)
            return w * 2, w.sum()
        return fn, lambda k: (make(k),)
    def argument_written():
        def fn(x, y):
            x.assign(x * 2 + y)
            return x, x[0], x.T
        return fn, lambda k: (make(k), make(1))
    def random(): return (lambda x: x + Tensor.rand(2, 3)), lambda k: (make(k),)
    def gradients():
        w = make(1).requires_grad_()
        return (lambda x: grads(x, w)), lambda k: (make(k),)
    def argument_gradients():
        w = make(1).requires_grad_()
        return grads, lambda k: (make(k), w)
    def arrays(): return (lambda x, k: x * k), lambda k: (make(k), 2.5)
    def temporaries(): return (lambda x: ((x @ x.T).softmax() @ x).sort()[0].sum(axis=0)), lambda k: (make(k),)
    def views(): return (lambda x: (x[1], x.T + x.T.exp())), lambda k: (make(k),)
    return [plain, nested, state, written, argument_written, random, gradients, argument_gradients, arrays, temporaries, views]


def leaves(x):
    if isinstance(x, Tensor): return [x.numpy(), *([x.grad.numpy()] if x.grad is not None else [])]
    if isinstance(x, dict): x = list(x.values())
    return [y for part in x for y in leaves(part)] if isinstance(x, (list, tuple)) else [x]


@pytest.mark.parametrize("maker", makers(), ids=lambda m: m.__name__)
def test_gives_what_the_general_way_gives(maker):
    def outcome(has_launchers):
        Tensor.manual_seed(1)
        fn, args = maker()
        f, out, uses = jit(fn), [], None
        for k in range(6):
            out += leaves(f(*args(k)))
            if not has_launchers: f.launches.clear()
            elif f.launches and uses is None: uses, left = Uses(f), 5 - k
        assert not has_launchers or uses.taken == left >= 2, "the launcher took every call"
        return out, Tensor.rand(1).item(), f.traces
    for a, b in zip(outcome(True)[0], outcome(False)[0], strict=True): np.testing.assert_array_equal(a, b)
    assert outcome(True)[1:] == outcome(False)[1:]


# ---- what it must not take ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("x, y", [
    (lambda: make()[0], make), (lambda: make().T.contiguous().T, make), (lambda: Tensor(X.astype(np.int32)).realize(), make),
    (lambda: Tensor(X[:1]).realize(), make), (lambda: make() * 2, make), (lambda: 3.0, make), (lambda: make().requires_grad_(), make),
    (lambda: Tensor(X, device="CPU:1").realize(), lambda: Tensor(X, device="CPU:1").realize()),
])
def test_other_arguments_are_answered_rightly(x, y):
    fn = lambda x, y: x * 10 + y
    f = jit(fn)
    warm(f, make(), make(1))
    for _ in range(4):
        a, b = x(), y()
        np.testing.assert_array_equal(f(a, b).numpy(), fn(a, b).numpy())
    a = make(3)
    np.testing.assert_array_equal(f(a, a).numpy(), X * 11 + 33)
    np.testing.assert_array_equal(f(make(), make(1)).numpy(), X * 11 + 1)


def test_python_values_are_compared_exactly():
    f = jit(lambda x, k, *, more: x * k + more)
    warm(f, make(), 1, more=0.0)
    for k, more in [(1, 0.0), (True, 0.0), (1.0, 0.0), (2, 0.0), (1, -0.0), (1, 1.0)]:
        got = f(make(), k, more=more)
        np.testing.assert_array_equal(got.numpy(), X * k + more)
    g = jit(lambda x, k: x * 0 + k)
    warm(g, Tensor([-1.0]).realize(), 0.0)
    assert np.signbit(g(Tensor([-1.0]).realize(), -0.0).numpy()).all() and not np.signbit(g(Tensor([1.0]).realize(), 0.0).numpy()).any()


def test_what_is_reachable_is_watched():
    class Model:
        k, names = 2.0, ["a"]
        def __init__(self): self.w, self.table = make(), {"t": 1.0}
        def __call__(self, x): return (x * self.w + self.table["t"]) * self.k * len(self.names)
    m, scale = Model(), 3.0
    f = jit(lambda x: m(x) * scale)
    def right(): np.testing.assert_allclose(f(make()).numpy(), (X * m.w.numpy() + m.table["t"]) * m.k * len(m.names) * scale)
    def change_w(): m.w = make(5)
    def change_k(): m.k = 4.0
    def change_class(): Model.names = ["a", "b"]
    def change_item(): m.table["t"] = 7.0
    def change_closure():
        nonlocal scale
        scale = 0.5
    def write(): m.w.assign(m.w + 1)
    for change in (change_w, change_k, change_class, change_item, change_closure, write, lambda: m.w.assign(m.w * 1)):
        warm(f, make())
        right()
        change()
        right()


def test_renamed_items_are_seen():
    d = {"a": make(), "b": make(1)}
    f = jit(lambda: d.get("a", d["b"]) * 1)
    warm(f)
    d["c"] = d.pop("a")
    d["b"] = d.pop("b")
    np.testing.assert_array_equal(f().numpy(), X + 1)


def test_settings_are_seen():
    f = jit(lambda x: x * (2.0 if Tensor.training else 1.0))
    x = make()
    warm(f, x)
    with Tensor.train(): np.testing.assert_array_equal(f(x).numpy(), X * 2)
    traces = f.traces
    with Context(JIT=0): assert f(x).numpy()[1, 2] == 5 and f.replays == WRITE_AT + 1
    with Context(THREADS=1): assert f(x).numpy()[1, 2] == 5 and f.traces == traces + 1
    f(x)
    used = Uses(f)
    f(x)
    assert used.taken == 1, "after one call by the general way the launcher holds again"
    with Context(CHECK=2): assert f(x).numpy()[1, 2] == 5


def test_inside_another_trace_it_is_part_of_it():
    inner = jit(lambda x: x * 2)
    warm(inner, make())
    outer = jit(lambda x: inner(x) + 1)
    for k in range(4): np.testing.assert_array_equal(outer(make(k)).numpy(), (X + k) * 2 + 1)


def test_weights_stay_alone_in_their_memory_from_the_second_call_on():
    n = 1 << 12
    w, x = Tensor(np.zeros(n, np.float32)).realize(), Tensor(np.ones(n, np.float32)).realize()
    def step(x):
        w.assign(w + x)
        return x.sum()
    f, memory, places = jit(step), Device["CPU"].memory, []
    for k in range(6):
        before = memory.used
        memory.peak = before
        f(x)
        gc.collect()
        if k: assert memory.peak - before < 4 * n, f"call {k} took a second copy"
        places.append(w._storage.held and w._storage.held.buf.handle)
    assert len(set(places[1:])) == 1
    old = w * 1
    f(x)
    np.testing.assert_array_equal(old.numpy(), np.full(n, 6, np.float32))
    np.testing.assert_array_equal(w.numpy(), np.full(n, 7, np.float32))


def test_results_of_live_calls_never_share_memory():
    f = jit(lambda x: x + 1)
    x = make()
    warm(f, x)
    kept = [f(x) for _ in range(20)]
    assert len({t._storage.held.buf.handle for t in kept}) == 20
    used = GlobalCounters.mem_used
    for _ in range(50): kept[0] = f(x)
    assert GlobalCounters.mem_used == used
    for t in kept: np.testing.assert_array_equal(t.numpy(), X + 1)


def test_counts_are_those_of_the_general_way():
    f = jit(lambda x: (x + 1).sum())
    x = make()
    warm(f, x)
    def counts():
        GlobalCounters.reset()
        f(x)
        return GlobalCounters.kernel_count, GlobalCounters.global_ops, GlobalCounters.global_mem
    fast = counts()
    f.launches.clear()
    assert fast == counts()


def test_threads_at_once():
    f, wrong = jit(lambda x, y: (x @ y).sum(axis=0)), []
    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal((8, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)) for _ in range(4)]
    warm(f, Tensor(pairs[0][0]).realize(), Tensor(pairs[0][1]).realize())
    def work(a, b):
        x, y, want = Tensor(a).realize(), Tensor(b).realize(), (a @ b).sum(axis=0)
        for _ in range(200):
            if not np.allclose(f(x, y).numpy(), want, atol=1e-4): wrong.append(1)
    team = [threading.Thread(target=work, args=p) for p in pairs]
    for t in team: t.start()
    for t in team: t.join()
    assert not wrong


def test_it_goes_with_its_function():
    def use():
        w = make()
        warm(jit(lambda x: x + w), make())
        return weakref.ref(w)
    ref = use()
    gc.collect()
    assert ref() is None

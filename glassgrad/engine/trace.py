"""Trace: the one run of a function as Python that becomes a capture.

Every storage the function reads or writes is given a leaf that stands for what it holds; at the end the leaves are the inputs, and what
storages, gradients, attributes and the result hold by then is what a replay must compute. Nothing runs until the function has returned;
if it raises, nothing has happened.
"""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from glassgrad.engine import capture, replay
from glassgrad.engine import realize as engine
from glassgrad.engine.capture import RandomState
from glassgrad.engine.replay import Argument, Call, Capture, Constant, Fresh, Nest, ViewOf, describe
from glassgrad.engine.signature import Signature
from glassgrad.engine.watch import SIMPLE, Place, Watch
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp


class Touched:
    """A storage from outside that the function read or wrote: its value before, and the leaf that stands for it."""
    __slots__ = ("before", "inside", "leaf", "place", "store")
    def __init__(self, store: Any, leaf: UOp) -> None:
        self.store, self.before, self.leaf = store, store.value, leaf
        self.inside = engine.shaped(leaf, store.value.shape)
        self.place: Place | None = None     # where its tensor is kept, if the function puts another there


class Trace:
    """The trace in progress, as the Tensor layer sees it (`capture.current`)."""

    def __init__(self, name: str) -> None:
        self.name, self.thread = name, threading.get_ident()
        self.touched: dict[Any, Touched] = {}
        self.numbers: dict[UOp, UOp] = {}
        self.grad_was_read: dict[int, bool] = {}       # by the id of a tensor: whether its gradient was read before it was set

    def meets_grad(self, tensor: Any, is_read: bool) -> None:
        """A tensor's gradient is read or set."""
        if threading.get_ident() == self.thread: self.grad_was_read.setdefault(id(tensor), is_read)

    def use_number(self, bound: UOp) -> None:
        """The value of a variable is used as a Python number: it is a constant of what is captured."""
        self.numbers[bound.src[0]] = bound

    def touch(self, store: Any) -> None:
        """A storage from outside is about to be read or written."""
        if store in self.touched or threading.get_ident() != self.thread: return
        leaf = replay.leaf_under(store.value)
        if leaf is None:
            engine.compute([store.value])
            leaf = replay.leaf_under(store.value)
        assert leaf is not None, "a computed value has memory"
        self.touched[store] = touched = Touched(store, engine.buffer_uop(leaf.memory))
        store.value = touched.inside

    def restore(self) -> None:
        """All storages as they were."""
        for touched in self.touched.values(): touched.store.value = touched.before


def trace(name: str, fn: Callable, roots: list[Any], call: Call, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Capture | None, str]:
    """Run `fn` once: (its result, the capture, what it did that no replay can repeat).

    `roots` is where the search for what `fn` reaches begins. Without a capture the result holds all the same.
    """
    watch = Watch([*roots, *call.objects], capture.tensor_type, describe)
    lazy = dict.fromkeys(t._storage for t in (*call.tensors, *watch.tensors.values()))
    engine.realize(*[s.value for s in lazy if replay.leaf_under(s.value) is None and s.value.size])
    grads = [t._grad for t in call.tensors]
    random = RandomState(capture.random_state.seed, capture.random_state.counter)
    given, host_random = _leaves((args, kwargs)), _host_random()
    traced = capture.current = Trace(name)
    try:
        result = fn(*args, **kwargs)
        finish = _Finish(traced, call, watch, grads)
        if _leaves((args, kwargs)) != given: finish.changed = "changes a list or dict it was given"
        elif _host_random() != host_random: finish.changed = "draws random numbers of Python or NumPy"
        spec = finish.spec(result)
    except BaseException:
        traced.restore()
        for t, g in zip(call.tensors, grads): t._grad = g
        for place, before, _ in watch.changes():
            if place.box is watch.grads: place.put(before)
        capture.random_state.seed, capture.random_state.counter = random.seed, random.counter
        raise
    finally: capture.current = None
    made = finish.capture(random)
    made.result = spec
    return result, None if finish.changed else made, finish.changed


def _leaves(x: Any) -> list[Any]:
    """What the arguments are made of, to see whether the function changed them."""
    if isinstance(x, SIMPLE): return [x]
    if isinstance(x, (list, tuple)): return [type(x), len(x), *[y for part in x for y in _leaves(part)]]
    if isinstance(x, dict): return [type(x), *x, *[y for part in x.values() for y in _leaves(part)]]
    return [id(x)]


def _host_random() -> list[Any]:
    """How far Python's and NumPy's own random numbers have come, where they are in use."""
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    state: Any = numpy.get_state() if numpy is not None else ()
    parts = state if isinstance(state, tuple) else (str(state),)
    return [python.getstate() if python is not None else None, *[x.tobytes() if hasattr(x, "tobytes") else x for x in parts]]


class _Finish:
    """After the function has returned: what it made and where it put it."""

    def __init__(self, traced: Trace, call: Call, watch: Watch, grads: list[Any]) -> None:
        self.traced, self.call, self.watch = traced, call, watch
        self.roots: list[UOp] = []
        self.stores: dict[Any, int] = {}
        self.touched = list(traced.touched.values())
        self.index = {store: i for i, store in enumerate(traced.touched)}
        self.known: dict[int, Any] = {}
        for i, t in reversed(list(enumerate(call.tensors))): self.known[id(t)] = Argument(i)
        self.changed = ""
        self.places = [(place, self.spec(now)) for place, before, now in watch.changes() if self.is_state(place, before, now)]
        self.grads = [(i, self.spec(t._grad)) for i, (t, g) in enumerate(zip(call.tensors, grads)) if t._grad is not g]
        self.written = [(i, self.root(t.store)) for i, t in enumerate(self.touched) if t.store.value is not t.inside]

    def is_state(self, place: Place, before: Any, now: Any) -> bool:
        """Whether a replay can make this change: a tensor for a tensor, or a gradient that comes or goes."""
        tensor = capture.tensor_type
        if isinstance(before, tensor):
            touched = self.traced.touched.get(before._storage)
            if touched is not None: touched.place = place
            if now is None: return True
            if isinstance(now, tensor):
                place.box.free[place.at] = describe(before)
                return True
        elif before is None and isinstance(now, tensor): return True
        self.changed = self.changed or f"changes {place}"
        return False

    def root(self, store: Any) -> int:
        """The number of a storage's value among the results."""
        if store not in self.stores:
            self.stores[store] = len(self.roots)
            self.roots.append(store.value)
        return self.stores[store]

    def spec(self, x: Any) -> Any:
        """How a replay builds x."""
        if isinstance(x, capture.tensor_type): return self.tensor(x)
        if isinstance(x, (list, tuple)):
            kind = type(x)
            return Nest(kind._make if hasattr(kind, "_make") else kind, [self.spec(y) for y in x])  # type: ignore[attr-defined]
        if isinstance(x, dict):
            names, kind = list(x), type(x)
            return Nest(lambda parts: kind(zip(names, parts)), [self.spec(y) for y in x.values()])
        return Constant(x)

    def tensor(self, x: Any) -> Any:
        """The same tensor has the same spec, wherever it appears."""
        if id(x) not in self.known:
            store = x._storage
            if store.trace is self.traced: self.known[id(x)] = Fresh(self.root(store), x._chain, store.device)
            elif store in self.index and id(x) not in self.watch.tensors: self.known[id(x)] = ViewOf(self.index[store], x._chain)
            else: self.known[id(x)] = Constant(x)
        return self.known[id(x)]

    def capture(self, random: RandomState) -> Capture:
        """Compute everything for the first time, put it where it belongs, and note how to do it again."""
        try: signature, recipe = engine.compute(self.roots) if self.roots else (Signature((), {}, [], []), None)
        except BaseException:
            self.traced.restore()
            raise
        for t in self.touched: t.store.value = engine.settled(t.store.value) if t.store in self.stores else t.before
        for store in self.stores:
            if store.trace is self.traced:
                store.value, store.trace = engine.settled(store.value), None
                store.is_leaf = store.is_leaf or store.value.dtype.is_float
        self.watch.forget_grads(list(filter(self.sets_first, self.watch.grads.owner)))
        c = Capture(recipe, self.watch, self.call)
        c.sources = [self.source(t) for t in self.touched]
        c.fixed = [(t.store, t.before.shape, t.before.dtype) for t, s in zip(self.touched, c.sources) if s is t.store]
        leaves = {t.leaf: i for i, t in enumerate(self.touched)}
        c.feeds = [leaves.get(b, b) for b in signature.buffers]
        c.values = [n.arg.counter - random.counter if n.op is Ops.KEY and n.arg.seed == random.seed else n for n in signature.values]
        c.shapes = [r.shape for r in self.roots]
        if recipe is not None and recipe.single is not None:
            rebound, could = {i for i, _ in self.written}, set(recipe.single.donors.values())
            c.donors = [(k, f) for k, f in enumerate(c.feeds) if f.__class__ is int and f in rebound and k in could]
        c.dropped = [place for place, _ in self.places if place.box is self.watch.grads and self.sets_first(place.box.owner[place.at])]
        c.numbers = {var: bound for var, bound in self.traced.numbers.items() if var in self.call.variables}
        c.written, c.places, c.grads = self.written, self.places, self.grads
        c.world = {t._storage: self.call.stores.get(t._storage) for t in self.watch.tensors.values()}
        c.world |= {store: None for store, _, _ in c.fixed}
        c.shared = {n for n in c.world.values() if n is not None}
        now = capture.random_state
        if now.seed != random.seed: c.random = (True, now.seed, now.counter)
        elif now.counter != random.counter: c.random = (False, now.seed, now.counter - random.counter)
        return c

    def sets_first(self, tensor: Any) -> bool:
        """Whether the function sets this tensor's gradient before it reads it, if ever."""
        return self.traced.grad_was_read.get(id(tensor)) is False

    def source(self, t: Touched) -> Any:
        """Where a replay finds the storage: as an argument, at a place, or always here."""
        number = self.call.stores.get(t.store)
        return number if number is not None else t.store if t.place is None else t.place

"""Launch: the replay of one capture, written out as Python code for the very structure it was traced with.

The general way of a call (Call, Capture.fits, Capture.replay) asks of every argument what it is. Here what has been found is written
down as a function of straight code: guards, the kernels in one native call, the results. It gives MISS where anything is not exactly so,
before anything has happened, and then the general way decides. A call of a small graph takes 4 us instead of 20.

    def launch(args, kwargs):                                # of jit(lambda x, y: x + y)
        if len(args) != 2 or kwargs: return MISS
        t0 = args[0]
        if t0.__class__ is not Tensor or t0._chain != () or t0._requires_grad is not None: return MISS
        s0 = t0._storage; h0 = s0.held
        ...
        o0 = owned('CPU', 16, k6, k7)
        call(pack(k9, p0, p1, o0._handle))
        return result(Held(o0, (4, 4)), 'CPU', ())
"""
from __future__ import annotations

import itertools
from collections.abc import Callable
from operator import is_
from typing import Any

from glassgrad.device.buffer import owned
from glassgrad.device.device import Device
from glassgrad.engine import capture, context
from glassgrad.engine import realize as engine
from glassgrad.engine.counters import GlobalCounters
from glassgrad.engine.plan import WORD, Plan
from glassgrad.engine.replay import MISS, Argument, Call, Capture, Constant, Fresh, Nest, ViewOf, facts, has_sole_memory, hold_memory
from glassgrad.engine.watch import SIMPLE, Box, Place
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.uop import UOp

MAX_LINES = 2000            # of a larger graph the kernels take so long that the general way is not seen
MANY = 4                    # storages, compared each with each
NAMES = {"MISS": MISS, "Held": engine.Held, "owned": owned, "has_sole_memory": has_sole_memory, "hold_memory": hold_memory, "is_": is_,
         "capture": capture, "context": context, "counters": GlobalCounters, "devices": Device, "lock": engine.lock}


class Unfit(Exception):
    """A capture that has no launcher."""


def write_launch(c: Capture, call: Call, args: tuple, kwargs: dict[str, Any]) -> Callable[[tuple, dict[str, Any]], Any] | None:
    """The launcher of a capture that fits this call; None where only the general way will do."""
    try: return _Writer(c, call).write(args, kwargs)
    except Unfit: return None


class _Writer:
    """Lines of code, and the objects they name. First come guards, which may give MISS, then actions."""

    def __init__(self, c: Capture, call: Call) -> None:
        self.capture, self.call = c, call
        self.names: dict[str, Any] = {**NAMES, "Tensor": capture.tensor_type, "random": capture.random_state, "result": capture.new_result,
                                      "tensor": capture.new_tensor, "version": context.version, "training": capture.tensor_type.training}
        self.guards: list[str] = []
        self.actions: list[str] = []
        self.lines = self.guards
        self.bound: dict[int, str] = {}
        self.tensors: list[str] = []                   # the argument tensors, as the call numbers them
        self.stores: dict[Any, str] = {}               # their storages
        self.places: dict[tuple[int, int], str] = {}   # storages of tensors at places that may change
        self.memory: dict[str, tuple[str, str]] = {}   # of a storage: what it holds, the buffer
        self.built: dict[int, str] = {}
        self.roots: dict[int, str] = {}
        self.numbers = itertools.count()

    # ---- pieces of text -----------------------------------------------------------------------------------------------------------
    def add(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) > MAX_LINES: raise Unfit

    def miss(self, *when: str) -> None: self.add(f"if {' or '.join(when)}: return MISS")

    def new(self, kind: str, text: str) -> str:
        """A variable for the value of `text`."""
        name = f"{kind}{next(self.numbers)}"
        self.add(f"{name} = {text}")
        return name

    def bind(self, x: Any) -> str:
        """A name for an object."""
        if id(x) not in self.bound:
            self.bound[id(x)] = f"k{len(self.bound)}"
            self.names[self.bound[id(x)]] = x
        return self.bound[id(x)]

    def value(self, x: Any) -> str:
        """An object, spelled out if that is short."""
        plain = (type(None), bool, int, str)
        return repr(x) if type(x) in plain or (type(x) is tuple and all(type(y) in plain for y in x)) else self.bind(x)

    # ---- the whole ----------------------------------------------------------------------------------------------------------------
    def write(self, args: tuple, kwargs: dict[str, Any]) -> Callable[[tuple, dict[str, Any]], Any]:
        c = self.capture
        if c.recipe is None or c.recipe.single is None or c.recipe.picks is not None or self.call.variables: raise Unfit
        self.miss(f"len(args) != {len(args)}", f"len(kwargs) != {len(kwargs)}", "capture.current is not None",
                  "context.version is not version", "Tensor.training is not training", f"devices._default != {Device.DEFAULT!r}")
        for i, x in enumerate(args): self.argument(x, f"args[{i}]")
        for k in sorted(kwargs): self.argument(kwargs[k], f"kwargs[{k!r}]")
        self.guard_identities()
        for box in c.watch.boxes: self.guard_box(box)
        for store, shape, dtype in c.fixed: self.guard_store(self.bind(store), shape, dtype)
        sources = [self.source(s) for s in c.sources]
        handles = [self.handle(f, sources) for f in c.feeds]
        self.lines = self.actions
        values = self.run(c.recipe.single, handles, sources)
        for index, root in c.written: self.add(f"{sources[index]}.hold({values[root]})")
        self.finish(values, sources)
        code = ["def launch(args, kwargs):", "    try:", *[f"        {line}" for line in self.guards],
                "    except (AttributeError, IndexError, KeyError, ValueError): return MISS", *[f"    {line}" for line in self.actions]]
        exec(compile("\n".join(code), f"<launch of {self.call.name}>", "exec"), self.names)
        return self.names.pop("launch")      # no cycle: what it holds goes with the capture

    # ---- guards: arguments --------------------------------------------------------------------------------------------------------
    def argument(self, x: Any, text: str) -> None:
        """What makes a part of a call's key."""
        kind = type(x)
        if isinstance(x, capture.tensor_type): return self.tensor(x, text)
        v = self.new("a", text)
        if kind is float: self.miss(f"{v}.__class__ is not {self.bind(float)}", f"{v}.hex() != {x.hex()!r}")
        elif isinstance(x, SIMPLE): self.miss(f"{v}.__class__ is not {self.bind(kind)}", f"{v} != {self.value(x)}")
        elif isinstance(x, (list, tuple)):
            self.miss(f"{v}.__class__ is not {self.bind(kind)}", f"len({v}) != {len(x)}")
            for i, y in enumerate(x): self.argument(y, f"{v}[{i}]")
        elif isinstance(x, dict):
            self.miss(f"{v}.__class__ is not {self.bind(kind)}", f"[*{v}] != {self.bind([*x])}")
            for k, y in x.items(): self.argument(y, f"{v}[{self.value(k)}]")
        elif kind.__module__ == "numpy": raise Unfit
        else: self.miss(f"{v} is not {self.bind(x)}")
        return None

    def tensor(self, x: Any, text: str) -> None:
        t = self.new("t", text)
        self.tensors.append(t)
        store = x._storage
        s = self.guard_view(t, x._chain, x._requires_grad)
        if store in self.stores: self.miss(f"{s} is not {self.stores[store]}")
        else:
            self.stores[store] = s
            self.guard_store(s, *facts(store))
            self.miss(f"{s}.device != {store.device!r}")
        if x._grad is None: self.miss(f"{t}._grad is not None")
        else: self.tensor(x._grad, f"{t}._grad")

    def guard_view(self, t: str, chain: tuple, requires_grad: bool | None) -> str:
        """The storage of a tensor that views it so."""
        links = self.bind(chain) if chain else "()"
        self.miss(f"{t}.__class__ is not Tensor", f"{t}._chain != {links}", f"{t}._requires_grad is not {requires_grad}")
        return self.new("s", f"{t}._storage")

    def guard_store(self, s: str, shape: tuple[int, ...], dtype: DType) -> None:
        """It holds memory, of this shape and type."""
        h = self.new("h", f"{s}.held or hold_memory({s})")
        b = self.new("b", f"{h}.buf")
        self.memory[s] = h, b
        self.miss(f"{b}.dtype is not {self.bind(dtype)}", f"{h}.shape != {shape}")

    def guard_identities(self) -> None:
        """Different arguments are different storages; those reachable otherwise are where they were."""
        c, names = self.capture, list(self.stores.values())
        if len(names) <= MANY: pairs = [f"{a} is {b}" for a, b in itertools.combinations(names, 2)]
        else: pairs = [f"len({{{', '.join(names)}}}) != {len(names)}"]
        if pairs: self.miss(*pairs)
        for store, s in self.stores.items():
            if self.call.stores[store] in c.shared:
                if c.world.get(store) != self.call.stores[store]: raise Unfit
                self.miss(f"{s} is not {self.bind(store)}")
            elif c.world: self.miss(f"{s} in {self.bind(c.world)}")

    # ---- guards: what is reachable otherwise --------------------------------------------------------------------------------------
    def guard_box(self, box: Box) -> None:
        self.miss(*[f"not {check}" for check in box.checks(self.bind)])
        for i, (shape, dtype, device, chain, requires_grad) in box.free.items():
            t = self.new("t", box.text(i, self.bind))
            s = self.places[id(box), i] = self.guard_view(t, chain, requires_grad)
            self.guard_store(s, shape, dtype)
            self.miss(f"{s}.device != {device!r}", *[f"{s} is {other}" for other in self.stores.values()])

    def source(self, s: int | Place | Any) -> str:
        """The storage of an input."""
        if type(s) is int: return self.stores[self.call.tensors[s]._storage]
        if type(s) is not Place: return self.bind(s)
        if (id(s.box), s.at) not in self.places: raise Unfit
        return self.places[id(s.box), s.at]

    def handle(self, feed: int | UOp, sources: list[str]) -> str:
        """The memory of an input of the recipe."""
        if not isinstance(feed, int): return f"{self.bind(feed.memory)}.handle"
        p = self.new("p", f"{self.memory[sources[feed]][1]}._handle")
        self.miss(f"{p} is None")
        return p

    # ---- actions --------------------------------------------------------------------------------------------------------------------
    def run(self, plan: Plan, handles: list[str], sources: list[str]) -> list[str]:
        """The kernels; gives what holds each result."""
        c = self.capture
        for place in c.dropped: self.add(f"{place.box.text(place.at, self.bind)} = None")
        donors, outs = dict(c.donors), []
        for k, (size, dtype, shelf) in enumerate(plan.out_facts):
            fresh = f"owned({plan.name!r}, {size}, {self.bind(dtype)}, {self.bind(shelf)})"
            s = sources[donors[plan.donors[k]]] if plan.donors.get(k) in donors else None
            outs.append(self.new("o", f"{self.memory[s][1]} if has_sole_memory({s}, 1) else {fresh}" if s else fresh))
        handles = handles + [f"{o}._handle" for o in outs]
        if plan.arena is not None:
            arena = self.new("o", f"owned({plan.name!r}, {plan.peak_bytes}, {self.bind(dtypes.uint8)}, {self.bind(plan.arena)})")
            handles.append(f"{arena}._handle")
        values = [f"(random.seed << 32) + random.counter + {v} & {WORD}" if type(v) is int else str(engine.value_of(v) & WORD)
                  for v in c.values]
        replay = plan.prepared()
        if plan.is_quick:
            q = replay.quick
            words = ", ".join([str(q.first), *handles[:q.n_handles], *values[:q.n_vals]])
            self.add(f"{self.bind(q.call)}({self.bind(q.pack)}({words}))")
        else: self.add(f"with lock: {self.bind(replay)}.run([{', '.join(handles)}], [{', '.join(values)}])")
        self.add(f"counters.kernel_count += {len(plan.rows)}; counters.global_ops += {plan.flops}; counters.global_mem += {plan.bytes}")
        if c.random is not None:
            is_absolute, seed, counter = c.random
            self.add(f"random.seed, random.counter = {seed}, {counter}" if is_absolute else f"random.counter += {counter}")
        return [self.new("v", f"Held({o}, {shape})") for o, shape in zip(outs, c.shapes, strict=True)]

    def finish(self, values: list[str], sources: list[str]) -> None:
        """New tensors where they belong, and the result."""
        c = self.capture
        places = [(place.box.text(place.at, self.bind), self.build(spec, values, sources)) for place, spec in c.places]
        for text, x in places: self.add(f"{text} = {x}")
        for number, spec in c.grads: self.add(f"{self.tensors[number]}._grad = {self.build(spec, values, sources)}")
        self.add(f"return {self.build(c.result, values, sources)}")

    def build(self, spec: Any, values: list[str], sources: list[str]) -> str:
        """Text that builds a result."""
        kind = type(spec)
        if kind is Constant: return self.bind(spec.value)
        if kind is Argument: return self.tensors[spec.number]
        if kind is Nest:
            parts = [self.build(p, values, sources) for p in spec.parts]
            if spec.build is tuple: return f"({', '.join([*parts, ''])})" if parts else "()"
            return f"[{', '.join(parts)}]" if spec.build is list else f"{self.bind(spec.build)}([{', '.join(parts)}])"
        if id(spec) not in self.built:
            chain = self.bind(spec.chain) if spec.chain else "()"
            if kind is ViewOf: text = f"tensor({sources[spec.number]}, {chain})"
            elif spec.root in self.roots: text = f"tensor({self.roots[spec.root]}._storage, {chain})"
            else: text = f"result({values[spec.root]}, {spec.device!r}, {chain})"
            made = self.built[id(spec)] = self.new("t", text)
            if kind is Fresh: self.roots.setdefault(spec.root, made)
        return self.built[id(spec)]

"""Replay: what a traced call needs to happen again: the recipe, where its inputs come from, and where its results go."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, NamedTuple

from glassgrad.engine import capture
from glassgrad.engine import realize as engine
from glassgrad.engine.recipe import Recipe
from glassgrad.engine.watch import MISSING, SIMPLE, Place, Watch
from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import JitError
from glassgrad.uop.ops import KeyArg, Ops
from glassgrad.uop.uop import UOp


MISS: Any = object()
"""What a launcher gives for a call that it is not written for."""
OWN_REFERENCES = 3          # to what one object holds: its own, the variable's that asks, getrefcount's
TRIM_BYTES = 16 << 20      # kept memory: less is not worth the page faults of asking again


# ---- the structure of a call -------------------------------------------------------------------------------------------------------
class Call:
    """The arguments of one call: `key` is equal where a capture may be replayed; `tensors` are in the order they were met, `stores`
    numbers their storages, `variables` has the value bound to each VAR, `objects` are known by identity."""
    __slots__ = ("key", "name", "objects", "stores", "tensors", "variables")

    def __init__(self, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        self.name = name
        self.tensors: list[Any] = []
        self.stores: dict[Any, int] = {}
        self.variables: dict[UOp, UOp] = {}
        self.objects: list[Any] = []
        key: list[Any] = []
        for x in args: self.add(x, key)
        for k in sorted(kwargs):
            key.append(k)
            self.add(kwargs[k], key)
        self.key = tuple(key)

    def add(self, x: Any, key: list[Any]) -> None:
        kind = type(x)
        if isinstance(x, capture.tensor_type):
            store, grad, tensors = x._storage, x._grad, self.tensors
            shape, dtype = facts(store)
            key.append((self.stores.setdefault(store, len(tensors)), shape, dtype, store.device, x._chain, x._requires_grad, grad is None))
            tensors.append(x)
            if grad is not None: self.add(grad, key)
        elif kind is float: key.append((float, x.hex()))
        elif isinstance(x, SIMPLE): key.append((kind, x))
        elif isinstance(x, (list, tuple)):
            key.append((kind, len(x)))
            for y in x: self.add(y, key)
        elif isinstance(x, dict):
            key.append((kind, tuple(x)))
            for y in x.values(): self.add(y, key)
        elif isinstance(x, (UOp, DType)): self.add_node(x, key)
        elif kind.__module__ == "glassgrad.tensor.variable" and x.value is not None: self.add_node(x.uop, key)
        elif kind.__module__ == "numpy" and hasattr(x, "tobytes"):
            if x.shape: raise JitError(f"jit: {self.name} was called with a NumPy array {x.shape} of {x.dtype}\n"
                                       "  its values would be constants of the captured code\n  try: pass Tensor(array)")
            key.append((kind, x.item()))
        else:
            key.append((kind, id(x)))
            self.objects.append(x)

    def add_node(self, x: Any, key: list[Any]) -> None:
        """A bound variable counts without its value."""
        if isinstance(x, UOp) and x.op is Ops.BIND:
            self.variables[x.src[0]] = x
            x = x.src[0]
        key.append(x)


def facts(store: Any) -> tuple[tuple[int, ...], DType]:
    """The shape and type of what a storage holds."""
    held = store.held
    if held is not None: return held.shape, held.buf.dtype
    value = store.value
    return value.shape, value.dtype


# ---- how a result is built -----------------------------------------------------------------------------------------------------------
class Fresh(NamedTuple):
    """A new tensor: a view of result number `root`."""
    root: int
    chain: tuple
    device: str | None
class ViewOf(NamedTuple):
    """A new view of input `number`."""
    number: int
    chain: tuple
class Argument(NamedTuple):
    """The argument tensor of that number itself."""
    number: int
class Constant(NamedTuple):
    """A Python value, or a tensor that was there before."""
    value: Any
class Nest(NamedTuple):
    """A container: `build` makes it of its parts."""
    build: Callable[[list[Any]], Any]
    parts: list[Any]


class Builder:
    """One replay's results: `values` as they were computed, new tensors each once."""

    def __init__(self, call: Call, stores: Sequence[Any], values: Sequence[engine.Held]) -> None:
        self.call, self.stores, self.values = call, stores, values
        self.made: dict[int, Any] = {}
        self.tensors: dict[int, Any] = {}

    def build(self, spec: Any) -> Any:
        kind = type(spec)
        if kind is Constant: return spec.value
        if kind is Argument: return self.call.tensors[spec.number]
        if kind is Nest: return spec.build([self.build(p) for p in spec.parts])
        t = self.tensors.get(id(spec))
        if t is None:
            store = self.stores[spec.number] if kind is ViewOf else self.storage(spec)
            t = self.tensors[id(spec)] = capture.new_tensor(store, spec.chain)
        return t

    def storage(self, spec: Fresh) -> Any:
        store = self.made.get(spec.root)
        if store is None: store = self.made[spec.root] = capture.new_storage(self.values[spec.root], spec.device)
        return store


# ---- the capture -----------------------------------------------------------------------------------------------------------------------
class Capture:
    """A traced call, ready to be replayed.

    `sources` tells where the storages it read or wrote are found; `feeds` has for each buffer of the recipe the number of one, or a
    leaf that always stays; `values` for each value the offset of the random counter, or the node that stays; `written` are (input,
    result); `places` and `grads` are (where, how to build it).
    """

    def __init__(self, recipe: Recipe | None, watch: Watch, call: Call) -> None:
        self.recipe, self.watch = recipe, watch
        self.objects = call.objects                      # alive, since their ids are in the key
        self.sources: list[Any] = []                     # of the inputs: an argument's number, a Place, or a storage
        self.feeds: list[int | UOp] = []
        self.values: list[int | UOp] = []
        self.shapes: list[tuple[int, ...]] = []          # of the results
        self.written: list[tuple[int, int]] = []
        self.places: list[tuple[Place, Any]] = []
        self.grads: list[tuple[int, Any]] = []
        self.dropped: list[Place] = []                   # gradients that are set anew without being read
        self.donors: list[tuple[int, int]] = []          # (input of the recipe, storage) of what is written, and could be so in place
        self.result: Any = None
        self.world: dict[Any, int | None] = {}           # storages reachable without the arguments -> the argument they are too
        self.shared: set[int] = set()                    # the arguments among these
        self.numbers: dict[UOp, UOp] = {}                # variables of which the function used the value as a Python number
        self.random: tuple[bool, int, int] | None = None  # (absolute, seed, counter or its increase) after the call, if it changes
        self.fixed: list[tuple[Any, tuple[int, ...], DType]] = []   # storages that are inputs of every replay
        self.replays = 0
        self.launch: Callable[[tuple, dict[str, Any]], Any] | None = None

    def fits(self, call: Call) -> bool:
        """Whether all that is not in the key is as it was when the function was traced."""
        world, shared = self.world, self.shared
        for store, number in call.stores.items():
            if store in world:
                if world[store] != number: return False
            elif number in shared: return False
        for store, shape, dtype in self.fixed:
            if facts(store) != (shape, dtype): return False
        for var, bound in self.numbers.items():
            if call.variables[var] is not bound: return False
        for s in self.sources:
            if s.__class__ is Place and s.get()._storage in call.stores: return False
        return self.watch.change() is None

    def trim(self) -> None:
        """Give back what calls before the first replay needed and no other does: while the function is traced, what it writes lies beside
        what was there before (44 of 141 MB for a training step of ResNet-18), and what compiling leaves behind."""
        devices = {p.device for p in self.recipe.plans} if self.recipe is not None else ()
        for device in devices:
            if device.memory.cached >= TRIM_BYTES: device.trim()

    def replay(self, call: Call) -> Any:
        """Run the recipe on what the inputs hold now, write what is to be written, build the result."""
        tensors, recipe = call.tensors, self.recipe
        stores = [tensors[s]._storage if s.__class__ is int else s.get()._storage if s.__class__ is Place else s for s in self.sources]
        values: list[engine.Held] = []
        if recipe is not None:
            for place in self.dropped: place.put(None)
            self._hold(stores)
            given = [k for k, f in self.donors if has_sole_memory(stores[f])] if self.donors else ()
            ins = [stores[f].held.buf if f.__class__ is int else f.memory for f in self.feeds]
            with engine.lock: outs = recipe.run(ins, self._values(call) if self.values else (), (), given)
            values = [engine.Held(buf, shape) for buf, shape in zip(outs, self.shapes)]
        if self.random is not None: self._advance_random()
        for index, root in self.written: stores[index].hold(values[root])
        if self.result.__class__ is Fresh and not self.places and not self.grads:
            return capture.new_tensor(capture.new_storage(values[self.result.root], self.result.device), self.result.chain)
        builder = Builder(call, stores, values)
        for place, x in [(place, builder.build(spec)) for place, spec in self.places]: place.put(x)
        for number, spec in self.grads: tensors[number]._grad = builder.build(spec)
        return builder.build(self.result)

    def _hold(self, stores: list[Any]) -> None:
        """See to it that every input is known as memory; lazy inputs are computed first, all at once."""
        todo = [stores[f] for f in self.feeds if f.__class__ is int and hold_memory(stores[f]) is None]
        if todo: engine.realize(*[s.value for s in stores])
        for s in todo: hold_memory(s)
        for _, f in self.donors: _forget_node(stores[f])

    def _values(self, call: Call) -> list[int]:
        state = capture.random_state
        out = []
        for v in self.values:
            if type(v) is int: out.append(engine.key_value(KeyArg(state.seed, state.counter + v)))
            else: out.append(engine.value_of(call.variables.get(v.src[0], v) if v.op is Ops.BIND else v))  # type: ignore[union-attr]
        return out

    def _advance_random(self) -> None:
        state = capture.random_state
        is_absolute, seed, counter = self.random  # type: ignore[misc]
        if is_absolute: state.seed, state.counter = seed, counter
        else: state.counter += counter


def hold_memory(store: Any) -> engine.Held | None:
    """What a storage holds; None if its value has not been computed."""
    if store.held is None:
        value = store.value
        leaf = leaf_under(value)
        if leaf is not None: store.held = engine.Held(leaf.memory, value.shape, value)
    return store.held


def has_sole_memory(store: Any, more: int = 0) -> bool:
    """Whether the memory a storage holds is known to it alone: no node, no array, no other storage. The caller has `more` references to
    what is held and to its buffer."""
    held = store.held
    if held is None or store.is_known or held.is_known: return False
    buf = held.buf
    return getrefcount(held) == getrefcount(buf) == OWN_REFERENCES + more and buf.shelf is not None


def _forget_node(store: Any) -> None:
    """Let go of the node that stands for a storage's memory if nobody else has it: the storage is about to hold something else."""
    held = store.held
    if held is None or not held.is_known or store._value is not held.node(): return
    node = held.node()                        # references: the storage, what it holds, this name, getrefcount
    leaf = node.src[0] if node.op is Ops.RESHAPE else node
    if leaf.op is not Ops.BUFFER or getrefcount(node) != (4 if leaf is not node else 5) or (leaf is not node and getrefcount(leaf) != 3):
        return
    store.hold(engine.Held(held.buf, held.shape))


def leaf_under(value: UOp) -> UOp | None:
    """The BUFFER whose elements, in order, are this value; None if it has not been computed."""
    while value.op is not Ops.BUFFER:
        if value.memory is not None: return value.memory
        if value.op not in (Ops.RESHAPE, Ops.LEAF, Ops.DETACH, Ops.CONTIGUOUS): return None
        value = value.src[0]
    return value


def describe(x: Any) -> Any:
    """What must be alike in two tensors for one to stand in for the other."""
    if not isinstance(x, capture.tensor_type): return MISSING
    return *facts(x._storage), x._storage.device, x._chain, x._requires_grad


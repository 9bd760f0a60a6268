"""Realize: values become memory. Structure in, recipe out (from memory, from disk, or made now), and the recipe runs."""
from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from glassgrad.device.buffer import Buffer
from glassgrad.device.device import Device
from glassgrad.engine import capture
from glassgrad.engine.context import code_key, on_change
from glassgrad.engine.plan import forget_plans
from glassgrad.engine.recipe import Recipe, make_recipe, store_recipe, stored_recipe
from glassgrad.engine.signature import Signature, normalise, sign
from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import BufferArg, KeyArg, Ops
from glassgrad.uop.uop import UOp, fresh_id

MAX_RECIPES = 4096
FIRST_ID = 1 << 32           # of real buffers: small numbers are the slots of normalised graphs
pending: list[Callable[[], Sequence[UOp]]] = []
"""Each gives values that must be realized along with the next ones: what was assigned and not yet computed."""
_recipes: dict[tuple, Recipe] = {}
lock = threading.RLock()
_ticks = itertools.count()


def buffer_uop(buf: Buffer) -> UOp:
    """A BUFFER leaf that stands for this memory, which it keeps alive."""
    n = UOp(Ops.BUFFER, buf.dtype, (), BufferArg(FIRST_ID + fresh_id(), buf.size, buf.device))
    n.memory, n._shape = buf, (buf.size,)
    return n


def shaped(leaf: UOp, shape: tuple[int, ...]) -> UOp:
    """The elements of a BUFFER in this shape."""
    if leaf._shape == shape: return leaf
    n = UOp(Ops.RESHAPE, leaf.dtype, (leaf,), shape)
    n._shape = shape
    return n


class Held:
    """A value that is memory and nothing else. Its node is made when someone asks: most results of a replay go straight into the next."""
    __slots__ = ("_node", "buf", "shape")
    def __init__(self, buf: Buffer, shape: tuple[int, ...], node: UOp | None = None) -> None:
        self.buf, self.shape, self._node = buf, shape, node
    @property
    def is_known(self) -> bool:
        """Whether a node stands for it."""
        return self._node is not None
    def node(self) -> UOp:
        """The elements of the memory, in this shape."""
        if self._node is None: self._node = shaped(buffer_uop(self.buf), self.shape)
        return self._node


def new_buffer(device: str, size: int, dtype: DType) -> UOp:
    """A BUFFER leaf with memory of its own, not yet filled."""
    return buffer_uop(Buffer(device, size, dtype))


def buffer_of(n: UOp) -> Buffer | None:
    """The memory that holds the value of n, row by row; None if it has not been realized."""
    if n.op is Ops.BUFFER: return n.memory
    if n.memory is not None: return n.memory.memory
    while n.op in (Ops.RESHAPE, Ops.LEAF, Ops.DETACH, Ops.CONTIGUOUS):
        n = n.src[0]
        if n.op is Ops.BUFFER: return n.memory
        if n.memory is not None: return n.memory.memory
    return None


def settled(n: UOp) -> UOp:
    """n without its history, if it has been realized: a view of its memory. Drops the graph behind it, and so its gradient."""
    if n.op is Ops.BUFFER or n.memory is None: return n
    return shaped(n.memory, n.shape)


def realize(*roots: UOp) -> list[Buffer]:
    """Compute all of these (and what is pending); gives the memory of each. Inside a traced function it asks for nothing.

    errors:  DeviceError for an op across devices or a device out of memory; UsageError for a variable without a value
    """
    if capture.current is not None and capture.is_tracing(): return [capture.Unread(r.site) for r in roots]  # type: ignore[misc]
    with lock:
        for more in pending:
            found = more()
            if found: roots += tuple(n for n in found if n.memory is None)
        todo = [n for n in roots if n.memory is None]
        if todo: compute(todo)
        return [_memory(n) for n in roots]


def _memory(n: UOp) -> Buffer:
    buf = buffer_of(n)
    if buf is None: raise UsageError(f"realize: {n} has no memory; its device never filled it")
    return buf


def compute(roots: Sequence[UOp]) -> tuple[Signature, Recipe]:
    """Run the recipe of these values and remember in each node where its value lies."""
    signature = sign(roots, (Device.DEFAULT, code_key()))
    recipe = recipe_for(roots, signature)
    outs = recipe.run([b.memory for b in signature.buffers], [value_of(n) for n in signature.values], [r.site for r in roots])
    leaves: dict[int, UOp] = dict(enumerate(signature.buffers))
    for r, slot, buf in zip(roots, recipe.outputs, outs, strict=True):
        if slot not in leaves: leaves[slot] = buffer_uop(buf)      # results that lie in one slot share a leaf
        if r.op is not Ops.BUFFER: r.memory = leaves[slot]
        # the same value without its mark; constants are shared by everyone and stay as they are
        while r.op in (Ops.DETACH, Ops.CONTIGUOUS) and r.src[0].op.kind not in ("leaf", "movement"):
            r = r.src[0]
            r.memory = leaves[slot]
    return signature, recipe


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Tracing and compiling make many small objects that stay until it is done, and hardly a cycle: the garbage collector would walk
    through them again and again and find nothing (10 % of the time for ResNet-18, also of a warm start)."""
    was_on = gc.isenabled()
    gc.disable()
    try: yield
    finally:
        if was_on: gc.enable()


def recipe_for(roots: Sequence[UOp], signature: Signature) -> Recipe:
    """The recipe of this structure; made when it is seen for the first time in this process."""
    recipe = _recipes.get(signature.key)
    if recipe is None:
        recipe = stored_recipe(signature)
        if recipe is None:
            with without_collector(): recipe = make_recipe(normalise(roots, signature), Device.DEFAULT)
            store_recipe(signature, recipe)
        if len(_recipes) >= MAX_RECIPES: _forget_old_recipes()
        _recipes[signature.key] = recipe
    recipe.used = next(_ticks)
    return recipe


def value_of(n: UOp) -> int:
    """What a KEY or BIND leaf is at launch."""
    return key_value(n.arg) if n.op is Ops.KEY else n.src[1].arg


def key_value(key: KeyArg) -> int:
    """A random key as the kernel sees it: the seed in the upper, the counter in the lower 32 bits.

    >>> hex(key_value(KeyArg(3, 5)))
    '0x300000005'
    """
    return (key.seed << 32) + key.counter & 0xFFFFFFFFFFFFFFFF


def forget_everything() -> None:
    """Drop recipes, plans and programs from memory (not from disk): what follows is a warm start."""
    with lock:
        _recipes.clear()
        forget_plans()


def _forget_old_recipes() -> None:
    order = sorted(_recipes, key=lambda key: _recipes[key].used)
    for key in order[:len(order) // 4]: del _recipes[key]


def _follow(name: str, value: Any) -> None:
    """Variables that devices look at when they are opened, changed later."""
    if name == "DEV": Device.DEFAULT = value
    if name == "THREADS":
        for device in Device.opened():
            if hasattr(device, "set_threads"): device.set_threads(value)


on_change.append(_follow)

"""Storage: what tensors share. A value is an immutable graph; writing rebinds the storage, also through a view of it.

A view is a storage and a chain of movement steps. Reading applies the chain; writing walks it backwards and composes the old value
with the new one, so every tensor on the storage sees the write and no graph ever holds an assignment.
"""
from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any, NamedTuple

from glassgrad.engine import capture
from glassgrad.engine import realize as engine
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp, fresh_id

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class _Ref(weakref.ref):
    __slots__ = ("key",)


class _Living:
    """Live objects in the order they came, by identity: a WeakSet would compare tensors, and `==` makes tensors."""

    def __init__(self) -> None:
        self._refs: dict[int, _Ref] = {}
        refs = self._refs
        def forget(ref: _Ref) -> None: refs.pop(ref.key, None)
        self._forget = forget
    def __bool__(self) -> bool: return bool(self._refs)
    def add(self, x: Any) -> None:
        key = id(x)
        if key in self._refs: return
        ref = self._refs[key] = _Ref(x, self._forget)
        ref.key = key
    def discard(self, x: Any) -> None: self._refs.pop(id(x), None)
    def __iter__(self) -> Iterator[Any]: return iter([x for r in list(self._refs.values()) if (x := r()) is not None])


class Step(NamedTuple):
    """A movement op and its argument: one link of a view's chain."""
    op: Op
    arg: Any


class Storage:
    """A value that tensors share. `device` is None for a value that no memory ties to one; `is_leaf`: a variable, not a result.

    `was` refers to the graph that stood for the value before it was realized, as long as other graphs use it.
    """
    __slots__ = ("_value", "held", "device", "is_leaf", "trace", "was", "__weakref__")
    _value: UOp | None; held: engine.Held | None; device: str | None; is_leaf: bool; trace: Any; was: weakref.ref[UOp] | None

    def __init__(self, value: UOp | None, device: str | None = None, is_leaf: bool = False, held: engine.Held | None = None) -> None:
        self._value, self.held, self.device, self.is_leaf, self.was = value, held, device, is_leaf, None
        self.trace = capture.current if capture.current is not None and capture.is_tracing() else None

    @property
    def value(self) -> UOp:
        """The value, as no trace is told of it."""
        if self._value is None: self._value = self.held.node()  # type: ignore[union-attr]
        return self._value
    @value.setter
    def value(self, value: UOp) -> None: self._value, self.held = value, None
    @property
    def is_known(self) -> bool:
        """Whether a node stands for the value."""
        return self._value is not None
    def hold(self, held: engine.Held) -> None:
        """Rebind to what a replay computed."""
        self._value, self.held = None, held

    def read(self) -> UOp:
        """The value now."""
        self._tell()
        return self.value

    def write(self, value: UOp) -> None:
        """Rebind; the next realize of anything computes the value too."""
        self._tell()
        self.value, self.was = value, None
        _pending.add(self)

    def _tell(self) -> None:
        """A trace in progress wants to know what it uses from outside."""
        if capture.current is not None and self.trace is not capture.current and capture.is_tracing(): capture.current.touch(self)

    def settle(self) -> None:
        """After a realize: let go of the graph, unless a tensor with requires_grad=True is differentiable through it."""
        old = self.value
        new = engine.settled(old)
        if new is old: return
        past = _past_worth_keeping(old)
        if past: history[new] = old
        else: self.is_leaf = self.is_leaf or old.dtype.is_float
        self.value, self.was = new, weakref.ref(old)


_pending: _Living = _Living()
trainable: _Living = _Living()
"""Tensors with requires_grad=True."""
leaves: _Living = _Living()
"""Tensors on a storage that is a leaf."""
history: weakref.WeakKeyDictionary[UOp, UOp] = weakref.WeakKeyDictionary()
"""What realized values were computed from, where a gradient may want to know."""


def pending_values() -> Sequence[UOp]:
    """The values of storages that were written and not yet realized."""
    if not _pending: return ()
    return [s.value for s in _pending if s.trace is None and engine.buffer_of(s.value) is None]


def settle_pending() -> None:
    """Storages whose pending value has been computed are done."""
    if not _pending: return
    for s in _pending:
        if engine.buffer_of(s.value) is not None:
            s.settle()
            _pending.discard(s)


engine.pending.append(pending_values)
capture.storage_type = Storage


def _past_worth_keeping(value: UOp) -> bool:
    """Is the value of a tensor with requires_grad=True below `value`? Past that lost its tensors is dropped on the way."""
    if not trainable: return False
    wanted = {t._storage.value for t in trainable}
    seen: set[UOp] = set()
    stack = [s for s in value.src]
    pasts = []
    while stack:
        n = stack.pop()
        if n in seen or n.op is Ops.DETACH or not n.dtype.is_float: continue
        if n in wanted: return True
        seen.add(n)
        past = history.get(n)
        if past is not None: pasts.append(n)
        stack.extend((past,) if past is not None else n.src)
    for n in pasts: history.pop(n, None)
    return False


# ---- views -----------------------------------------------------------------------------------------------------------------------
def apply_step(x: UOp, step: Step) -> UOp:
    """The movement step on a value."""
    return UOp(step.op, x.dtype, (x,), step.arg)


def read_chain(value: UOp, chain: tuple[Step, ...]) -> UOp:
    """The view of `value` that the chain describes."""
    for op, arg in chain: value = UOp(op, value.dtype, (value,), arg)
    return value


def write_chain(value: UOp, chain: tuple[Step, ...], new: UOp) -> UOp:
    """`value` with `new` in the place the chain views.

    errors:  UsageError if elements of the view share memory (expand, overlapping windows)
    """
    stages = [value]
    for step in chain: stages.append(apply_step(stages[-1], step))
    for step, old in zip(reversed(chain), reversed(stages[:-1])): new = _write_step(step, old, new)
    return new


def _write_step(step: Step, old: UOp, new: UOp) -> UOp:
    op, arg, shape = step.op, step.arg, old.shape
    if op is Ops.RESHAPE: return new.reshape(shape)
    if op is Ops.PERMUTE: return new.permute(tuple(sorted(range(len(arg)), key=arg.__getitem__)))
    if op is Ops.FLIP: return new.flip(arg)
    if op is Ops.PAD: return new.shrink(tuple((lo, lo + n) for n, (lo, _) in zip(shape, arg)))
    if op is Ops.SHRINK:
        around = tuple((lo, n - hi) for n, (lo, hi) in zip(shape, arg))
        if all(p == (0, 0) for p in around): return new
        return _true(new.shape).pad(around).where(new.pad(around), old)
    if op is Ops.UNFOLD and arg.dilation == 1 and arg.size <= arg.stride:
        a, n = arg.axis, new.shape[arg.axis]
        parts = new.permute((*range(a + 1), new.ndim - 1, *range(a + 1, new.ndim - 1)))     # window after window, with gaps
        spread = _pad_axis(parts, a + 1, arg.stride - arg.size).reshape((*shape[:a], n * arg.stride, *shape[a + 1:]))
        at = UOp.iota(shape[a])
        here = (at % arg.stride < arg.size) & (at < n * arg.stride)
        here = here.reshape((shape[a],) + (1,) * (len(shape) - a - 1)).broadcast_to(shape)
        return here.where(_fit_axis(spread, a, shape[a]), old)
    raise UsageError(f"write through a view made by {op.name.lower()}\n  several of its elements lie in one place\n"
                     f"  try: x.clone() first, then write")


def _pad_axis(x: UOp, a: int, more: int) -> UOp: return x.pad(tuple((0, more if i == a else 0) for i in range(x.ndim)))
def _fit_axis(x: UOp, a: int, n: int) -> UOp:
    if x.shape[a] < n: return _pad_axis(x, a, n - x.shape[a])
    return x.shrink(tuple((0, n if i == a else m) for i, m in enumerate(x.shape)))
def _true(shape: tuple[int, ...]) -> UOp: return fill(UOp.const(dtypes.bool, True), shape)


def fill(x: UOp, shape: tuple[int, ...]) -> UOp:
    """A scalar node repeated over `shape`."""
    return x if shape == () else x.reshape((1,) * len(shape)).expand(shape)


def leaf(x: UOp) -> UOp:
    """`x` with an identity of its own."""
    return UOp(Ops.LEAF, x.dtype, (x,), fresh_id())


def identified(x: UOp) -> UOp:
    """`x`, as a leaf if it is made of nothing but constants: those nodes are shared by all graphs, and so would be their memory."""
    seen: set[UOp] = set()
    stack = [x]
    while stack:
        n = stack.pop()
        if n.op in _IDENTITIES: return x
        if n not in seen:
            seen.add(n)
            stack.extend(n.src)
    return leaf(x)


_IDENTITIES = frozenset((Ops.LEAF, Ops.BUFFER, Ops.KEY, Ops.BIND, Ops.COPY))


def is_constant(x: UOp) -> bool:
    """Is `x` a constant behind views and casts?"""
    while x.op.is_movement or x.op is Ops.CAST: x = x.src[0]
    return x.op is Ops.CONST or x.op is Ops.IOTA


# ---- the user's line -------------------------------------------------------------------------------------------------------------
_seen: dict[int, tuple[CodeType, dict[int, str] | None]] = {}      # by id: a code object's hash looks at all of its code
_MAX_SEEN = 10_000


def user_site(depth: int = 2) -> str | None:
    """The "file:line" of the first frame outside the package."""
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        known = _seen.get(id(code)) or _see(code)
        sites = known[1]
        if sites is not None:
            at = frame.f_lasti           # the line's number takes a search
            site = sites.get(at)
            if site is None: site = sites[at] = f"{code.co_filename}:{frame.f_lineno}"
            return site
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _see(code: CodeType) -> tuple[CodeType, dict[int, str] | None]:
    """(the code, which stays alive so that its id is its own, the sites of its instructions or None if it is ours)"""
    if len(_seen) >= _MAX_SEEN: _seen.clear()
    known = _seen[id(code)] = code, None if code.co_filename.startswith(PACKAGE) else {}
    return known


def stamp(x: UOp, site: str | None) -> None:
    """Give `x` and the nodes below it that have no site this one."""
    if x.site is not None or site is None: return
    stack = [x]
    while stack:
        n = stack.pop()
        n.site = site
        for s in n.src:
            if s.site is None: stack.append(s)


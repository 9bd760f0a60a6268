"""Recipe: what to do for a graph that spans devices: plans, and copies between them, in order.

A COPY is a border: its source is computed on the source's device, copied, and read as a buffer from there on. A graph on one device is
a recipe of a single plan.
"""
from __future__ import annotations

import time
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from glassgrad.device.buffer import Buffer
from glassgrad.device.device import Device
from glassgrad.engine import cache, debug
from glassgrad.engine.plan import Plan, SlotFacts, disk_for, plan_for, read_entry, stored_plan
from glassgrad.engine.signature import Signature
from glassgrad.uop.dtype import DType, to_dtype
from glassgrad.uop.errors import CompilerBug, DeviceError
from glassgrad.uop.ops import BufferArg, KeyArg, Ops, VarArg
from glassgrad.uop.uop import UOp, substitute, toposort


class Run(NamedTuple):
    """Run a plan on the slots `ins`, with the values numbered `vals`; the results become the slots `outs`."""
    plan: Plan
    ins: tuple[int, ...]
    vals: tuple[int, ...]
    outs: tuple[int, ...]


class Copy(NamedTuple):
    """`size` elements of `dtype`, which start `offset` bytes into slot `src`, copied to the device (viewed, if they are on it already)
    as slot `out`."""
    src: int
    offset: int
    size: int
    dtype: DType
    device: str
    out: int


VIEWS = (Ops.RESHAPE, Ops.SHRINK, Ops.BITCAST, Ops.CONTIGUOUS)   # ops that may leave a value where it lies


class Span(NamedTuple):
    """A value that lies in memory as it stands: `size` elements from `offset` bytes into a BUFFER on."""
    buf: UOp
    offset: int
    size: int


class Recipe:
    """Steps over numbered slots: the inputs first, then what the steps make. `outputs` has the slot of each root."""

    def __init__(self, inputs: int, steps: Sequence[Run | Copy], outputs: Sequence[int]) -> None:
        self.inputs, self.steps, self.outputs = inputs, list(steps), tuple(outputs)
        self.slots = 1 + max([inputs - 1, *(s for step in self.steps for s in (step.outs if isinstance(step, Run) else (step.out,)))])
        self.used = 0
        only = self.steps[0] if len(self.steps) == 1 and isinstance(self.steps[0], Run) else None
        self.single: Plan | None = None      # the recipe is one run of this plan on all inputs and values, as they come
        self.picks: list[int] | None = None  # and the results are these of its outputs; None: all of them
        if only is not None and (only.ins, only.vals) == (tuple(range(inputs)), tuple(range(len(only.vals)))):
            if only.outs == self.outputs: self.single = only.plan
            elif set(self.outputs) <= set(only.outs): self.single, self.picks = only.plan, [only.outs.index(s) for s in self.outputs]

    @property
    def plans(self) -> list[Plan]: return [step.plan for step in self.steps if isinstance(step, Run)]
    @property
    def peak_bytes(self) -> int:
        """Bytes of temporaries alive at once; inputs and outputs come on top."""
        return max((p.peak_bytes for p in self.plans), default=0)

    def run(self, ins: Sequence[Buffer], vals: Sequence[int] = (), sites: Sequence[str | None] = (), given: Container[int] = ()) -> list[Buffer]:
        """Run all steps; gives one buffer for each root. The memory of the inputs `given` may be overwritten (see Plan.run)."""
        if self.single is not None:
            if self.picks is None: return self.single.run(ins, vals, sites, given)
            asked = dict(zip(self.picks, sites, strict=False))
            made = self.single.run(ins, vals, [asked.get(k) for k in range(self.single.outputs)] if sites else (), given)
            return [made[k] for k in self.picks]
        slots: list[Any] = [*ins, *[None] * (self.slots - self.inputs)]
        site = dict(zip(self.outputs, sites, strict=False))
        for step in self.steps:
            if isinstance(step, Run):
                made = step.plan.run([slots[s] for s in step.ins], [vals[k] for k in step.vals], [site.get(s) for s in step.outs])
                for s, buf in zip(step.outs, made, strict=True): slots[s] = buf
            else: slots[step.out] = _copy(slots[step.src], step, site.get(step.out))
        return [slots[s] for s in self.outputs]


def _copy(src: Buffer, step: Copy, site: str | None) -> Buffer:
    whole = step.offset == 0 and step.size == src.size and step.dtype is src.dtype
    if step.device == src.device: return src.view(step.size, step.dtype, step.offset)
    start = time.perf_counter()
    out = Buffer(step.device, step.size, step.dtype).copy_from(src if whole else src.view(step.size, step.dtype, step.offset))
    if debug.is_watching():
        out.dev.synchronize()
        name = f"copy {src.device.partition('/')[0]} to {step.device}"
        debug.kernel_ran(name, out.device, start, time.perf_counter(), out.nbytes, 0, [site] if site else [])
    return out


def span_of(n: UOp) -> Span | None:
    """Where `n` lies in memory if it is nothing but a contiguous piece of a BUFFER, else None."""
    chain = []
    while n.op is not Ops.BUFFER:
        if n.op not in VIEWS: return None
        chain.append(n)
        n = n.src[0]
    offset, size = 0, n.arg.size
    for m in reversed(chain):
        if m.op is Ops.SHRINK:
            shape, dims = m.src[0].shape, [i for i, (lo, hi) in enumerate(m.arg) if hi - lo != 1]
            # contiguous: below the first axis that is longer than 1, every axis is whole
            if dims and any(m.arg[i] != (0, shape[i]) for i in range(dims[0] + 1, len(shape))): return None
            start, stride = 0, 1
            for (lo, _), extent in zip(reversed(m.arg), reversed(shape), strict=True):
                start, stride = start + lo * stride, stride * extent
            offset += start * m.dtype.itemsize
        size = m.size
    return Span(n, offset, size)


def make_recipe(roots: Sequence[UOp], default: str) -> Recipe:
    """The recipe for normalised roots. `default` is the device of values that no buffer or COPY ties to one.

    errors:  DeviceError if an op has sources on two devices, or is wanted on a device that only holds data
    """
    return _Maker(_compute_elsewhere(roots), default).recipe()


def stored_recipe(signature: Signature) -> Recipe | None:
    """The recipe that an earlier process made for this structure, with all its plans, if they are on disk."""
    disk = _disk(signature)
    entry = read_entry(disk, _key(signature)) if disk is not None else None
    if entry is None: return None
    steps: list[Run | Copy] = []
    for kind, *facts in entry.meta["steps"]:
        if kind == "copy": steps.append(Copy(*facts[:3], to_dtype(facts[3]), *facts[4:]))
        else:
            plan = stored_plan(facts[0], Device[facts[1]])
            if plan is None: return None
            steps.append(Run(plan, *map(tuple, facts[2:])))
    return Recipe(entry.meta["inputs"], steps, entry.meta["outputs"])


def store_recipe(signature: Signature, recipe: Recipe) -> None:
    """Keep the recipe for later processes; its plans are entries of their own."""
    disk = _disk(signature)
    if disk is None or not all(p.key for p in recipe.plans): return
    steps = [("run", s.plan.key, s.plan.name, s.ins, s.vals, s.outs) if isinstance(s, Run) else
             ("copy", s.src, s.offset, s.size, s.dtype.name, s.device, s.out) for s in recipe.steps]
    disk.put(_key(signature), {"inputs": recipe.inputs, "outputs": recipe.outputs, "steps": steps}, [])


def _disk(signature: Signature) -> cache.DiskCache | None: return disk_for(signature.order, map(Device.__getitem__, _places(signature)))


def _key(signature: Signature) -> str:
    return cache.cache_key("recipe", "\n".join(map(repr, signature.key)), *[Device[d].target.key for d in _places(signature)])


def _places(signature: Signature) -> list[str]:
    """The devices that a graph of this signature is about."""
    copies = [n.arg for n in signature.order if n.op is Ops.COPY]
    return list(dict.fromkeys([Device.DEFAULT, *[b.arg.device for b in signature.buffers], *copies]))


class _Maker:
    """Level by level: a value's level counts the borders (COPY nodes that really move data) below it."""

    def __init__(self, roots: tuple[UOp, ...], default: str) -> None:
        self.roots, self.default, self.order = roots, default, toposort(roots)
        self.devices = _devices(self.order)
        self.inputs = self.slots = 1 + max((n.arg.id for n in self.order if n.op is Ops.BUFFER), default=-1)
        self.table: dict[UOp, UOp] = {}    # what has been computed, as the BUFFER it is in; a BUFFER's id is its slot
        self.steps: list[Run | Copy] = []

    def recipe(self) -> Recipe:
        levels: dict[UOp, int] = {}
        for n in self.order: levels[n] = max((levels[s] for s in n.src), default=0) + self.is_border(n)
        for level in range(max(levels.values(), default=0) + 1):
            copies = [n for n in self.order if levels[n] == level + 1 and self.is_border(n)]
            self.compute([r for r in self.roots if levels[r] == level], [n.src[0] for n in copies])
            for n in copies: self.copy(n, n.arg)
        return Recipe(self.inputs, self.steps, [self.slot(r) for r in self.roots])

    def is_border(self, n: UOp) -> bool:
        """A COPY of what is there already, or of what can be computed there, moves nothing."""
        return n.op is Ops.COPY and self.devices[n.src[0]] not in (None, n.arg)

    def new_leaf(self, n: UOp, device: str) -> UOp:
        """A slot for the value of n."""
        self.slots += 1
        return UOp(Ops.BUFFER, n.dtype, (), BufferArg(self.slots - 1, n.size, device))

    def place(self, n: UOp) -> UOp:
        """n with what is in memory put in its place, as deep as a view goes."""
        if n in self.table: return self.table[n]
        if n.op is Ops.COPY and not self.is_border(n): return self.place(n.src[0])
        return n.replace(src=(self.place(n.src[0]),)) if n.op in VIEWS else n

    def slot(self, n: UOp) -> int:
        span = span_of(self.place(n))
        if span is None: raise CompilerBug(f"recipe: {n} was not computed")
        return span.buf.arg.id

    def compute(self, roots: list[UOp], sources: list[UOp]) -> None:
        """Make sure that roots lie in buffers of their own, and the sources of copies somewhere in memory."""
        wanted: dict[str, list[UOp]] = {}
        for n in dict.fromkeys([*sources, *roots]):
            device = self.devices[n] or self.default
            span = span_of(self.place(n)) if n.size else None
            if n in self.table or (span is not None and (n not in roots or _is_whole(span, n))): continue
            if n.size == 0: self.make_empty(n, device)
            elif span is not None and not Device[device].target.ops: self.copy(n, device, span)
            else: wanted.setdefault(device, []).append(n)
        for device, group in wanted.items(): self.run(group, device)

    def run(self, group: list[UOp], device: str) -> None:
        """One plan for all these values, its leaves numbered anew."""
        if not Device[device].target.ops:
            raise DeviceError(f"{group[0].op} of shape {group[0].shape} on {device}: this device holds data and computes nothing\n"
                              "  try: copy the tensor to another device first, x.to('CPU')")
        memo = dict(self.table)
        for n in toposort(group, stop=lambda n: n in self.table):
            if n in memo: continue
            src = tuple([memo[s] for s in n.src])
            # a COPY that is no border is what it copies
            memo[n] = src[0] if n.op is Ops.COPY and not self.is_border(n) else n if src == n.src else n.replace(src=src)
        leaf_of: dict[UOp, UOp] = {}
        for n in group:
            if memo[n] not in leaf_of: leaf_of[memo[n]] = self.new_leaf(n, device)
            self.table[n] = leaf_of[memo[n]].reshape(n.shape)
        order = toposort(leaf_of)
        leaves = [n for n in order if n.op is Ops.BUFFER]
        values = [n for n in order if n.op in (Ops.KEY, Ops.VAR)]
        names = {n: n.replace(arg=BufferArg(i, n.arg.size, device)) for i, n in enumerate(leaves)}
        names |= {n: n.replace(arg=KeyArg(0, k) if n.op is Ops.KEY else VarArg(str(k), n.arg.lo, n.arg.hi)) for k, n in enumerate(values)}
        plan = plan_for(UOp.sink(*substitute(tuple(leaf_of), names)), Device[device])
        numbers = tuple(n.arg.counter if n.op is Ops.KEY else int(n.arg.name) for n in values)
        self.steps.append(Run(plan, tuple(n.arg.id for n in leaves), numbers, tuple(n.arg.id for n in leaf_of.values())))

    def copy(self, n: UOp, device: str, span: Span | None = None) -> None:
        """The piece of memory that n, or else its source, is; on `device`."""
        if n.size == 0: return self.make_empty(n, device)
        span = span or span_of(self.place(n.src[0]))
        if span is None: raise CompilerBug(f"recipe: the source of {n} is not in memory")
        leaf = self.new_leaf(n, device)
        self.table[n] = leaf.reshape(n.shape)
        self.steps.append(Copy(span.buf.arg.id, span.offset, span.size, n.dtype, device, leaf.arg.id))
        return None

    def make_empty(self, n: UOp, device: str) -> None:
        """No elements, no kernel."""
        leaf = self.new_leaf(n, device)
        self.table[n] = leaf.reshape(n.shape)
        self.steps.append(Run(Plan(Device[device], 0, 1, [SlotFacts(0, n.dtype)], [], []), (), (), (leaf.arg.id,)))


def _is_whole(span: Span, n: UOp) -> bool: return span.offset == 0 and span.size == span.buf.arg.size and span.buf.dtype is n.dtype


def _devices(order: Sequence[UOp]) -> dict[UOp, str | None]:
    """The device of each node; None where nothing ties it to one."""
    out: dict[UOp, str | None] = {}
    for n in order:
        if n.op is Ops.BUFFER: out[n] = n.arg.device
        elif n.op is Ops.COPY: out[n] = n.arg
        else:
            found = {out[s]: s for s in n.src if out[s] is not None}
            if len(found) > 1:
                made = {d: f", made at {s.site}" if s.site else "" for d, s in found.items()}
                places = ", ".join(f"{s.op} {s.shape} {s.dtype.name} on {d}{made[d]}" for d, s in found.items())
                raise DeviceError(f"{n.op} of sources on two devices\n  {places}\n  try: move one of them, x.to({next(iter(found))!r})")
            out[n] = next(iter(found), None)
    return out


def _compute_elsewhere(roots: Sequence[UOp]) -> tuple[UOp, ...]:
    """A COPY of something computed on a device that only holds data (a file) computes it after copying instead."""
    order = toposort(roots)
    devices = _devices(order)
    table: dict[UOp, UOp] = {}
    for n in order:
        if n.op is not Ops.COPY: continue
        src, home = n.src[0], devices[n.src[0]]
        if home is None or Device[home].target.ops or span_of(src) is not None: continue
        moved = {b: UOp(Ops.COPY, b.dtype, (b,), n.arg) for b in toposort((src,)) if b.op is Ops.BUFFER}
        table[n] = substitute(substitute((src,), table), moved)[0]
    return substitute(tuple(roots), table) if table else tuple(roots)

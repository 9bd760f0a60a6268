"""Cut kernels: one launch for the stored values of each kernel, written as loads, loops and stores.

in:      TENSOR form with stores marked (CONTIGUOUS, with the kernel's number) and stages marked (STAGE)
out:     KERNEL form: per kernel a SINK of END(STORE(PARAM, index, value), *loops), or of END(SINK(STORE, ...), *loops); the first PARAMs
         are the outputs
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from glassgrad.passes.algebra import simplify
from glassgrad.passes.fuse import stored_under
from glassgrad.passes.linearize import identity
from glassgrad.passes.views import INDEX, TRUE, ZERO, Axes, Demand, Index, both, demands
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds, free_axes
from glassgrad.uop.ops import Ops, ParamArg, ReduceArg, ScratchArg, StoreArg
from glassgrad.uop.uop import UOp, substitute, toposort


@dataclass(frozen=True)
class KernelCall:
    """One launch of a schedule.

    `bufs` are graph slots in the order of the kernel's buffer params (the outputs come first), `vals` the numbers of the random keys
    and variables in the order of its value params; `new_slots` are the slots this call fills: slot -> (elements, dtype).
    """
    ast: UOp
    bufs: tuple[int, ...]
    vals: tuple[int, ...]
    new_slots: dict[int, tuple[int, DType]]
    name: str
    reason: str
    sites: tuple[str, ...] = ()
    kind: str = "kernel"
    folded: int = field(default=0, compare=False)


def cut_kernels(sink: UOp) -> list[KernelCall]:
    """The kernels of a marked graph in the order they run. Results get the first free slots, in order; temporaries follow."""
    sink = _tell_apart(sink)
    order = sink.toposort()
    inputs = [n for n in order if n.op is Ops.BUFFER]
    slots: dict[UOp, int] = {n: n.arg.id for n in inputs}
    free = max(slots.values(), default=-1) + 1
    for s in sink.src:
        if s not in slots:
            slots[s] = free
            free += 1
    kernels: dict[int, list[UOp]] = {}
    for n in order:
        if n.op is not Ops.CONTIGUOUS: continue
        if n not in slots:
            slots[n] = free
            free += 1
        kernels.setdefault(n.arg.kernel, []).append(n)
    known: dict = {}
    written: dict[tuple, tuple[_Cutter, list[UOp]]] = {}
    calls = []
    for roots in kernels.values():
        key, nodes = _structure(roots, slots)
        if key not in written: written[key] = _Cutter(roots, known), nodes
        cutter, own = written[key]
        calls.append(cutter.call(roots, slots, dict(zip(own, nodes))))
    return in_order(calls, {slots[s] for s in sink.src})


def _structure(roots: list[UOp], slots: dict[UOp, int]) -> tuple[tuple, list[UOp]]:
    """What decides how a kernel is written, so that kernels alike (the blocks of a transformer) are written once; and its nodes, in
    order."""
    place = {r: i for i, r in enumerate(roots)}
    parts: list[Any] = [len(roots)]
    for n in toposort([r.src[0] for r in roots], stop=slots.__contains__):
        if n in place: continue
        place[n] = len(place)
        if n in slots: parts.append((n.dtype, n.shape))
        elif n.op is Ops.KEY: parts.append(n.op)
        elif n.op is Ops.VAR: parts.append((n.op, n.dtype, n.arg.lo, n.arg.hi))
        else: parts.append((n.op, n.dtype, n.arg.hex() if n.arg.__class__ is float else n.arg, *[place[s] for s in n.src]))
    return (*parts, *[place[r.src[0]] for r in roots]), list(place)


def in_order(calls: list[KernelCall], results: set[int]) -> list[KernelCall]:
    """The calls in an order in which they can run: depth first, but what frees at least the memory it takes runs as soon as it can."""
    nbytes = {slot: 0 if slot in results else size * dtype.itemsize for c in calls for slot, (size, dtype) in c.new_slots.items()}
    maker = {slot: i for i, c in enumerate(calls) for slot in c.new_slots}
    reads = [tuple(dict.fromkeys(s for s in c.bufs if s in maker and s not in c.new_slots)) for c in calls]
    readers: dict[int, list[int]] = {slot: [] for slot in maker}
    for i, slots in enumerate(reads):
        for s in slots: readers[s].append(i)
    waits = [len(slots) for slots in reads]
    left = {s: len(users) for s, users in readers.items()}
    done = [False] * len(calls)
    order: list[KernelCall] = []

    def saves(i: int) -> bool:
        freed = sum(nbytes[s] for s in reads[i] if left[s] == 1)
        return not done[i] and not waits[i] and freed >= sum(nbytes[s] for s in calls[i].new_slots)

    def run(first: int) -> None:
        todo = [first]
        while todo:
            i = todo.pop()
            if i != first and not saves(i): continue
            done[i] = True
            order.append(calls[i])
            for s in calls[i].new_slots:
                for j in readers[s]: waits[j] -= 1
                todo += readers[s]
            for s in reads[i]:
                left[s] -= 1
                if left[s] == 1: todo += [j for j in readers[s] if not done[j]]
    for i in range(len(calls)):
        stack = [i]
        while stack:
            j = stack[-1]
            missing = [maker[s] for s in reads[j] if not done[maker[s]]] if not done[j] else []
            if missing: stack += reversed(missing)
            else:
                stack.pop()
                if not done[j]: run(j)
    return order


def _tell_apart(sink: UOp) -> UOp:
    """Each result has a buffer of its own, also one that turned out to be the same value as another (x and x.T.T)."""
    if len(set(sink.src)) == len(sink.src): return sink
    out: list[UOp] = []
    free = 1 + max(n.arg.kernel for n in sink.toposort() if n.op is Ops.CONTIGUOUS)
    for i, s in enumerate(sink.src):
        out.append(UOp(Ops.CONTIGUOUS, s.dtype, (s,), StoreArg(f"result {i} has the value of another", free + i)) if s in out else s)
    return UOp.sink(*out)


class _Cutter:
    """Writes one kernel: `lower` gives the value wanted at an index, once per (node, index, gate); `ast` is the whole."""

    def __init__(self, roots: list[UOp], known: dict) -> None:
        self.roots = roots
        self.made: dict[UOp, tuple[UOp, UOp]] = {}       # what this kernel stores: its place and its value
        self.memo: dict[tuple[UOp, Index, UOp], UOp] = {}
        self.params: dict[UOp, UOp] = {}
        self.bufs: list[UOp] = []
        self.vals: list[UOp] = []
        self.axes = Axes(known)
        self.staged: dict[tuple[UOp, Index], list[Demand]] = {}
        self.scratch: dict[UOp, UOp] = {}
        self.noted: dict[UOp, None] = {}
        self.ops: dict[str, int] = {}
        self.ast = self.numbered(self.closed_once(UOp.sink(self.write())))

    def param(self, n: UOp, kind: str, size: int) -> UOp:
        """The kernel's argument for a stored value, a random key or a variable."""
        if n not in self.params:
            self.params[n] = UOp(Ops.PARAM, n.dtype, (), ParamArg(len(self.params), kind, size))
            (self.bufs if kind == "buffer" else self.vals).append(n)
        return self.params[n]

    def call(self, roots: list[UOp], slots: dict[UOp, int], alike: dict[UOp, UOp]) -> KernelCall:
        """The launch of this kernel that fills `roots`; `alike` says which nodes of theirs stand for the nodes it was written of."""
        bufs, vals = ([alike[n] for n in leaves] for leaves in (self.bufs, self.vals))
        sites = dict.fromkeys(alike[n].site for n in self.noted)
        numbers = tuple(n.arg.counter if n.op is Ops.KEY else int(n.arg.name) for n in vals)
        reason = "; ".join(dict.fromkeys(root.arg.reason for root in roots))
        new_slots = {slots[root]: (root.size, root.dtype) for root in roots}
        return KernelCall(self.ast, tuple(slots[n] for n in bufs), numbers, new_slots, self.name(roots[0].src[0]), reason, tuple(filter(None, sites)))

    def write(self) -> UOp:
        """The effect of the kernel."""
        outs = [self.param(root, "buffer", root.size) for root in self.roots]
        n = self.roots[0].src[0]
        if n.op is Ops.SCAN: return self.scan(n, outs[0])
        if n.op is Ops.SORT: return self.sort(n, outs[0])
        if n.op is Ops.SCATTER: return self.scatter(n, outs[0])
        loops = tuple(r for m in n.shape if (r := self.axes.new(m)) is not ZERO)
        stores = [self.stored(root, out, loops) for root, out in zip(self.roots, outs)]
        return end(stores[0] if len(stores) == 1 else UOp.sink(*stores), loops)

    def stored(self, root: UOp, out: UOp, loops: Index) -> UOp:
        """The store of one value at the kernel's loops; axes of length 1 have none."""
        n, rest = root.src[0], iter(loops)
        idx = tuple(ZERO if m == 1 else next(rest) for m in n.shape)
        value = self.lower(n, idx, TRUE)
        at = self.axes.flat(idx, n.shape)
        self.made[root] = at, value
        return store(out, at, value)

    def closed_once(self, sink: UOp) -> UOp:
        """Two reductions over one range (a sum that was merged into another, and is wanted by itself too) get a range each, and so do
        those inside, which the new range makes another value."""
        claimed: dict[UOp, UOp] = {}
        memo: dict[UOp, UOp] = {}
        for n in sink.toposort():
            src = tuple([memo[s] for s in n.src])
            new = n if src == n.src else n.replace(src=src)
            if n.op is Ops.REDUCE:
                if any(claimed.get(r, new) is not new for r in new.src[1:]):
                    stale = dict.fromkeys(new.src[1:])
                    for c in reversed(new.toposort()):
                        if c.op is Ops.REDUCE and not stale.keys().isdisjoint(c.toposort()): stale |= dict.fromkeys(c.src[1:])
                    new = substitute((new,), {r: self.axes.new(r.src[0].arg, r.arg.kind) for r in stale})[0]
                for r in new.src[1:]: claimed[r] = new
            memo[n] = new
        return memo[sink]

    def numbered(self, sink: UOp) -> UOp:
        """Value params take the slots after the buffers."""
        if not self.vals: return sink
        ordered = sorted(self.params.values(), key=lambda p: (p.arg.kind == "value", p.arg.slot))
        return substitute((sink,), {p: p.replace(arg=p.arg._replace(slot=i)) for i, p in enumerate(ordered)})[0]

    def name(self, n: UOp) -> str:
        """A readable name: what the kernel mainly does, and the shape it fills."""
        kinds = [k for k in ("SORT", "SCATTER", "SCAN", "FOLD", "REDUCE", "GATHER") if k in self.ops]
        what = {"REDUCE": "r", "FOLD": "fold", "GATHER": "g"}.get(kinds[0], kinds[0].lower()) if kinds else "e"
        return "_".join([what, *map(str, n.shape or (1,))]) + "_" + "_".join(str(k) for k in [sum(self.ops.values())])

    def note(self, n: UOp) -> None:
        self.noted[n] = None
        self.ops[n.op.name] = self.ops.get(n.op.name, 0) + 1

    def lower(self, n: UOp, idx: Index, gate: UOp) -> UOp:
        """The kernel expression for `n` at `idx` under `gate`; iterative, since chains may be very deep."""
        memo = self.memo
        plans: dict[tuple[UOp, Index, UOp], list[Demand]] = {}
        stack = [(n, idx, gate)]
        while stack:
            key = stack[-1]
            if key in memo:
                stack.pop()
                continue
            n, idx, gate = key
            wanted = plans.get(key)
            if wanted is None:
                leaf = self.leaf(n, idx, gate)
                if leaf is not None:
                    memo[key] = leaf
                    stack.pop()
                    continue
                if n.op is Ops.GATHER:
                    at = memo.get((n.src[1], idx, gate))
                    if at is None:
                        stack.append((n.src[1], idx, gate))
                        continue
                    wanted = demands(n, idx, gate, self.axes, lambda *_, at=at: simplify(at.cast(INDEX)))[:1]
                elif n.op is Ops.STAGE and (n, shared := tuple(idx[a] for a in n.arg)) in self.staged: wanted = self.staged[n, shared]
                elif n.op is Ops.STAGE:
                    axes = tuple(i if a in n.arg else self.axes.new(m) for a, (i, m) in enumerate(zip(idx, n.shape)))
                    wanted = self.staged[n, shared] = [Demand(n.src[0], axes, TRUE)]
                else: wanted = demands(n, idx, gate, self.axes, None)  # type: ignore[arg-type]
                plans[key] = wanted
            missing = [(d.src, d.idx, d.gate) for d in wanted if (d.src, d.idx, d.gate) not in memo]
            if missing:
                stack.extend(reversed(missing))
                continue
            memo[key] = self.combine(n, idx, gate, wanted, [memo[d.src, d.idx, d.gate] for d in wanted])
            stack.pop()
        return memo[key]

    def leaf(self, n: UOp, idx: Index, gate: UOp) -> UOp | None:
        if n.op is Ops.CONST: return n
        if n in self.made:
            at, value = self.made[n]
            if self.axes.flat(idx, n.shape) is not at:
                raise CompilerBug(f"kernels: read elsewhere in the kernel that stores it: {n.arg.reason}")
            return value
        if n.op is Ops.CONTIGUOUS or n.op is Ops.BUFFER:
            at = self.axes.flat(idx, n.shape)
            if gate is not TRUE and free_axes(gate) - free_axes(at) and 0 <= bounds(at)[0] and bounds(at)[1] < n.size:
                gate = TRUE     # a channel's scale in a padded image: what is read outside is not used, so it need not be read under masks
            return load(self.param(n, "buffer", n.size), at, gate)
        if n.op is Ops.IOTA: return simplify(idx[0].cast(n.dtype))
        if n.op is Ops.TABLE: return n.replace(src=idx)
        if n.op in (Ops.KEY, Ops.VAR): return self.param(n, "value", 1)
        return None

    def combine(self, n: UOp, idx: Index, gate: UOp, wanted: list[Demand], values: list[UOp]) -> UOp:
        self.note(n)
        if n.op.is_alu: return UOp(n.op, n.dtype, tuple(values))
        if n.op is Ops.PAD or n.op is Ops.GATHER: return gated(wanted[0].gate, values[0])
        if n.op is Ops.FOLD or n.op is Ops.REDUCE:
            value = gated(wanted[0].gate, values[0]) if n.op is Ops.FOLD else values[0]
            op = Ops.ADD if n.op is Ops.FOLD else n.arg.op
            return reduce(op, value, wanted[0].ranges)
        if n.op is Ops.CAT:
            value, at = values[-1], n.shape[n.arg] - n.src[-1].shape[n.arg]
            for s, v in zip(reversed(n.src[:-1]), reversed(values[:-1])):
                value = simplify(idx[n.arg] < at).where(v, value) if v is not value else v
                at -= s.shape[n.arg]
            return value
        if n.op is Ops.STAGE:
            inner = tuple(i for a, i in enumerate(wanted[0].idx) if a not in n.arg)
            shape = tuple(m for a, m in enumerate(n.shape) if a not in n.arg)
            kept = self.scratch.get(values[0])
            if kept is None:
                kept = self.scratch[values[0]] = stage(values[0], self.axes.flat(inner, shape), inner, len(self.scratch), math.prod(shape))
            return load(kept, self.axes.flat(tuple(i for a, i in enumerate(idx) if a not in n.arg), shape), gate)
        return values[0]

    def scan(self, n: UOp, out: UOp) -> UOp:
        """Running values of each row, or of each run of one: as many as `before` has along the axis."""
        x, axis = n.src[0], n.arg.axes[0]
        self.note(n)
        runs = n.src[1].shape[axis] if len(n.src) > 1 else 1
        rows = tuple(self.axes.new(runs if a == axis else m) for a, m in enumerate(n.shape))
        step = self.axes.new(n.shape[axis] // runs)
        at = tuple(simplify(r * (n.shape[axis] // runs) + step) if a == axis else r for a, r in enumerate(rows))
        before = self.lower(n.src[1], rows, TRUE) if len(n.src) > 1 else UOp.const(n.dtype, identity(n.arg.op, n.dtype))
        value = self.lower(x, at, TRUE)
        value = UOp(Ops.SCAN, n.dtype, (value, before, step), n.arg) if step is not ZERO else before.alu(n.arg.op, value)
        return end(store(out, self.axes.flat(at, n.shape), value), (*rows, step))

    def scatter(self, n: UOp, out: UOp) -> UOp:
        """base copied to the output, then the sources combined into it in order; the other axes stay outer loops of both."""
        base, index, x = n.src
        axis = n.arg.axis
        self.note(n)
        rows = tuple(ZERO if a == axis else self.axes.new(m) for a, m in enumerate(x.shape))
        whole = all(a == axis or m == n.shape[a] for a, m in enumerate(x.shape))
        at = tuple(self.axes.new(m) if a == axis or not whole else rows[a] for a, m in enumerate(n.shape))
        first = end(store(out, self.axes.flat(at, n.shape), self.lower(base, at, TRUE)), tuple(r for r in at if r not in rows or r is ZERO))
        t = tuple(self.axes.new(m) if a == axis else rows[a] for a, m in enumerate(x.shape))
        where = simplify(self.lower(index, t, TRUE).cast(INDEX))
        value = self.lower(x, t, TRUE)
        inside = both(simplify(where >= 0), simplify(where < n.shape[axis]))
        place = self.axes.flat(tuple(where if a == axis else r for a, r in enumerate(t)), n.shape)
        after = UOp(Ops.AFTER, out.dtype, (out, first))
        if n.arg.op is not None: value = load(after, place, inside).alu(n.arg.op, value)
        second = end(UOp(Ops.STORE, dtypes.void, (after, place, value, inside)), (t[axis],))
        return end(second, rows)

    def sort(self, n: UOp, out: UOp) -> UOp:
        """One SORT for each row: (output, keys, place of the row's first element, its length)."""
        x = n.src[0]
        self.note(n)
        rows = (*(self.axes.new(m) for m in n.shape[:-1]), ZERO)
        src = self.param(stored_under(x) or x, "buffer", x.size)
        effect = UOp(Ops.SORT, dtypes.void, (out, src, self.axes.flat(rows, n.shape), UOp.const(INDEX, n.shape[-1])), n.arg)
        return end(effect, rows)


def load(buf: UOp, at: UOp, gate: UOp) -> UOp: return UOp(Ops.LOAD, buf.dtype, (buf, at) if gate is TRUE else (buf, at, gate))
def store(buf: UOp, at: UOp, value: UOp) -> UOp: return UOp(Ops.STORE, dtypes.void, (buf, at, value))
def end(effect: UOp, ranges: Index) -> UOp:
    """The effect for every value of the loops among `ranges`."""
    loops = tuple(r for r in ranges if r is not ZERO)
    return UOp(Ops.END, dtypes.void, (effect, *loops)) if loops else effect


def stage(value: UOp, place: UOp, ranges: Index, id: int, size: int) -> UOp:
    """Scratch memory once `value` stands in it at `place` for all `ranges`."""
    scratch = UOp(Ops.SCRATCH, value.dtype, (), ScratchArg(id, size, "private"))
    return UOp(Ops.AFTER, value.dtype, (scratch, end(store(scratch, place, value), ranges)))


def gated(gate: UOp, value: UOp) -> UOp:
    """value where the gate holds, else 0."""
    n = value
    while n.op is Ops.CAST: n = n.src[0]
    if gate is TRUE or n.op is Ops.LOAD and len(n.src) == 3 and n.src[2] is gate: return value
    return gate.where(value, value.const_like(0))


def reduce(op: object, value: UOp, ranges: tuple[UOp, ...]) -> UOp:
    """REDUCE over the ranges; a sum of a gated sum is one sum."""
    from_gate, inner = None, value
    if value.op is Ops.WHERE and value.src[2].op is Ops.CONST and value.src[2].arg == 0: from_gate, inner = value.src[0], value.src[1]
    if op is Ops.ADD and inner.op is Ops.REDUCE and inner.arg.op is Ops.ADD and ranges:
        body = inner.src[0] if from_gate is None else gated(from_gate, inner.src[0])
        return UOp(Ops.REDUCE, value.dtype, (body, *ranges, *inner.src[1:]), inner.arg)
    return UOp(Ops.REDUCE, value.dtype, (value, *ranges), ReduceArg(op, ())) if ranges else value  # type: ignore[arg-type]

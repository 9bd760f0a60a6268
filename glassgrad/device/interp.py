"""The PYTHON device: what a program means, in NumPy. All threads of all workgroups go through it in lock step.

A value is an array over the threads (length 1 where all agree), with one more axis for the lanes of a vector. Shared memory is
one row a workgroup, private memory one row a thread. Two things are errors here that no hardware reports: an access outside a buffer,
and shared memory that two threads use, one of them writing, with no barrier between. So this device proves every program it runs.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from glassgrad.target.program import Program
from glassgrad.uop.bits import from_storage, round_to, storage_name, to_storage, value_name
from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops, np
from glassgrad.uop.uop import UOp

Array = Any
Step = Callable[["State"], None]
CHUNK_THREADS = 1 << 16        # threads in flight: bounds the memory of one value to 64k elements, and loses nothing in speed
UNWRITTEN = 0xFF               # fills scratch memory: NaN as a float, -1 as an integer, so that a missing store shows
EXACT = (Ops.NEG, Ops.MAX, Ops.MIN, Ops.WHERE, Ops.TRUNC)  # results need no rounding where the sources are rounded


class State:
    """One run over a chunk of workgroups: the values so far, the memory, who the threads are."""
    def __init__(self, values: int, memory: dict[int, Array], vals: Sequence[Any], first: int, groups: int, grid: Sequence[int],
                 local: Sequence[int]) -> None:
        self.regs: list[Any] = [None] * values
        self.memory, self.vals, self.grid, self.local = memory, vals, grid, local
        in_group = math.prod(local)
        self.groups, self.threads = groups, groups * in_group
        self.group = np.repeat(np.arange(groups), in_group)
        self.thread = np.tile(np.arange(in_group), groups)
        self.guards: dict[int, Guard] = {}
        self.special: dict[str, Array] = {}
        for letter, index, sizes in (("g", self.group + first, grid), ("l", self.thread, local)):
            for i, size in enumerate(sizes):
                self.special[f"{letter}idx{i}"], index = index % size, index // size


class Guard:
    """Which threads read and wrote each element of shared memory since the last barrier: the least and the largest of them."""
    def __init__(self, name: str, shape: tuple[int, int]) -> None:
        self.name, self.shape = name, shape
        self.clear()

    def clear(self) -> None:
        """A barrier: all that happened is visible to all."""
        self.first = {True: np.full(self.shape, 1 << 30, "int32"), False: np.full(self.shape, 1 << 30, "int32")}
        self.last = {True: np.full(self.shape, -1, "int32"), False: np.full(self.shape, -1, "int32")}

    def use(self, place: tuple[Array, Array], thread: Array, writes: bool) -> None:
        """errors:  CompilerBug if another thread wrote what is read, or read what is written"""
        others = (self.first[not writes][place] < thread) | (self.last[not writes][place] > thread)
        if others.any():
            at = int(np.argmax(others.reshape(-1)))
            who, index, deeds = thread.reshape(-1)[at], place[1].reshape(-1)[at], ("written", "read") if writes else ("read", "written")
            raise CompilerBug(f"{self.name}[{index}] is {deeds[0]} by thread {who} and {deeds[1]} by another with no barrier between")
        np.minimum.at(self.first[writes], place, thread)
        np.maximum.at(self.last[writes], place, thread)


class Interpreter:
    """A program made ready to run: one Python closure a node, called in order; loops jump."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.number = {u: i for i, u in enumerate(dict.fromkeys(program.uops))}
        self.uops = list(program.uops)
        self.steps = [self._step(u) for u in self.uops]
        self.jumps = self._match_loops()

    def run(self, bufs: Sequence[Array], vals: Sequence[Any] = (), grid: Sequence[int] | None = None,
            local: Sequence[int] | None = None) -> None:
        """Run over the whole grid. `bufs[slot]` is the memory of a buffer (a contiguous NumPy array of any type), `vals[slot]` a value.

        errors:  CompilerBug for an access out of bounds, or a loop whose count differs between threads
        """
        grid, local = tuple(grid or self.program.grid), tuple(local or self.program.local)
        memory = self._memory(bufs)
        groups = math.prod(grid)
        chunk = max(1, CHUNK_THREADS // math.prod(local))
        with np.errstate(all="ignore"):
            for first in range(0, groups, chunk):
                self._run_chunk(State(len(self.number), memory, vals, first, min(chunk, groups - first), grid, local))

    def _memory(self, bufs: Sequence[Array]) -> dict[int, Array]:
        memory = {}
        for u in self.number:
            if u.op is not Ops.PARAM or u.arg.kind != "buffer": continue
            raw = np.ascontiguousarray(bufs[u.arg.slot]).reshape(-1).view("uint8")
            need = u.arg.size * u.dtype.itemsize
            if raw.size < need: raise CompilerBug(f"{self.program.name}: buffer {u.arg.slot} has {raw.size} bytes, the kernel says {need}")
            memory[self.number[u]] = raw[:need]
        return memory

    def _run_chunk(self, state: State) -> None:
        at, end, left = 0, len(self.steps), {}
        while at < end:
            u = self.uops[at]
            if u.op is Ops.RANGE:
                count = self._count(u, state)
                if count <= 0:
                    at = self.jumps[at] + 1
                    continue
                left[u] = count
                state.regs[self.number[u]] = np.zeros(1, value_name(u.dtype))
            elif u.op is Ops.END:
                loop = self.uops[self.jumps[at]]
                left[loop] -= 1
                if left[loop] > 0:
                    state.regs[self.number[loop]] = state.regs[self.number[loop]] + np.ones(1, value_name(loop.dtype))
                    at = self.jumps[at]
            else: self.steps[at](state)
            at += 1

    def _count(self, u: UOp, state: State) -> int:
        count = state.regs[self.number[u.src[0]]]
        if not (count == count.flat[0]).all():
            raise CompilerBug(f"{self.program.name}: loop {u.arg} has another count in each thread: {count.min()} to {count.max()}")
        return int(count.flat[0])

    def _match_loops(self) -> dict[int, int]:
        """RANGE position -> END position and back."""
        jumps, open_loops = {}, []
        for i, u in enumerate(self.uops):
            if u.op is Ops.RANGE: open_loops.append(i)
            elif u.op is Ops.END:
                if not open_loops or self.uops[open_loops[-1]] not in u.src:
                    raise CompilerBug(f"{self.program.name}: END at {i} does not close the innermost loop")
                jumps[i] = open_loops.pop()
                jumps[jumps[i]] = i
        if open_loops: raise CompilerBug(f"{self.program.name}: loop {self.uops[open_loops[-1]].arg} is never closed")
        return jumps

    # ---- one closure a node ------------------------------------------------------------------------------------------------------
    def _step(self, u: UOp) -> Step:
        if u.op.is_alu: return self._alu_step(u)
        if u.op in (Ops.RANGE, Ops.END): return lambda s: None
        make = getattr(self, f"_{u.op.name.lower()}_step", None)
        if make is None: raise CompilerBug(f"{self.program.name}: {u.op} cannot stand in a program (PYTHON)")
        return make(u)

    def _alu_step(self, u: UOp) -> Step:
        out, src = self.number[u], [self.number[x] for x in u.src]
        meaning = alu_meaning(u)
        if u.op is Ops.WHERE and u.dtype.lanes > 1 and u.src[0].dtype.lanes == 1:
            def step(s: State) -> None: s.regs[out] = meaning(s.regs[src[0]][:, None], *[s.regs[i] for i in src[1:]])
            return step
        def step(s: State) -> None: s.regs[out] = meaning(*[s.regs[i] for i in src])
        return step

    def _const_step(self, u: UOp) -> Step:
        out, value = self.number[u], np.full((1,) if u.dtype.lanes == 1 else (1, u.dtype.lanes), u.arg, value_name(u.dtype))
        def step(s: State) -> None: s.regs[out] = value
        return step

    def _lanes_step(self, u: UOp) -> Step:
        out, value = self.number[u], np.arange(u.dtype.lanes, dtype=value_name(u.dtype))[None]
        def step(s: State) -> None: s.regs[out] = value
        return step

    def _special_step(self, u: UOp) -> Step:
        out, name = self.number[u], value_name(u.dtype)
        def step(s: State) -> None: s.regs[out] = s.special[u.arg.name].astype(name)
        return step

    def _param_step(self, u: UOp) -> Step:
        out, name = self.number[u], value_name(u.dtype)
        if u.arg.kind == "buffer": return lambda s: None
        def step(s: State) -> None:                              # a value is a 64-bit word; its low bytes are the scalar
            word = np.array([int(s.vals[u.arg.slot]) & (1 << 64) - 1], "uint64")
            s.regs[out] = from_storage(u.dtype, word.view("uint8")[:u.dtype.itemsize].view(storage_name(u.dtype))).astype(name)
        return step

    def _scratch_step(self, u: UOp) -> Step:
        out, row = self.number[u], u.arg.size * u.dtype.itemsize
        def step(s: State) -> None:
            rows = s.groups if u.arg.space == "shared" else s.threads
            s.memory[out] = np.full((rows, row), UNWRITTEN, "uint8")
            if u.arg.space == "shared": s.guards[out] = Guard(f"{self.program.name}: shared scratch {u.arg.id}", (rows, u.arg.size))
        return step

    def _after_step(self, u: UOp) -> Step: return lambda s: None
    def _barrier_step(self, u: UOp) -> Step:
        def step(s: State) -> None:
            for guard in s.guards.values(): guard.clear()
        return step

    def _splat_step(self, u: UOp) -> Step:
        out, src, lanes = self.number[u], self.number[u.src[0]], u.dtype.lanes
        def step(s: State) -> None: s.regs[out] = np.repeat(s.regs[src][:, None], lanes, axis=1)
        return step

    def _extract_step(self, u: UOp) -> Step:
        out, src = self.number[u], self.number[u.src[0]]
        def step(s: State) -> None: s.regs[out] = s.regs[src][:, u.arg]
        return step

    def _pack_step(self, u: UOp) -> Step:
        out, src = self.number[u], [self.number[x] for x in u.src]
        def step(s: State) -> None: s.regs[out] = np.stack(np.broadcast_arrays(*[s.regs[i] for i in src]), axis=1)
        return step

    def _shuffle_step(self, u: UOp) -> Step:
        out, (x, y), picks = self.number[u], [self.number[s] for s in u.src], list(u.arg)
        def step(s: State) -> None: s.regs[out] = np.concatenate(np.broadcast_arrays(s.regs[x], s.regs[y]), axis=1)[:, picks]
        return step

    def _hreduce_step(self, u: UOp) -> Step:
        out, src, meaning = self.number[u], self.number[u.src[0]], alu_meaning(UOp(u.arg, u.dtype, (u.src[0], u.src[0])))
        def step(s: State) -> None:
            x = s.regs[src]
            while x.shape[1] > 1:                                # a fixed tree: lane i with lane i + half
                half = x.shape[1] // 2
                y = meaning(x[:, :half], x[:, half:2 * half])
                x = np.concatenate([y, x[:, 2 * half:]], axis=1) if x.shape[1] % 2 else y
            s.regs[out] = x[:, 0]
        return step

    def _hscan_step(self, u: UOp) -> Step:
        out, src, meaning = self.number[u], self.number[u.src[0]], alu_meaning(UOp(u.arg, u.dtype, (u.src[0], u.src[0])))
        def step(s: State) -> None:
            x, by = s.regs[src], 1
            while by < x.shape[1]:                               # lane i with lane i - by, in steps of 1, 2, 4, …
                x = np.concatenate([x[:, :by], meaning(x[:, :-by], x[:, by:])], axis=1)
                by *= 2
            s.regs[out] = x
        return step

    def _acc_step(self, u: UOp) -> Step:
        out, src = self.number[u], self.number[u.src[0]]
        def step(s: State) -> None: s.regs[out] = s.regs[src]
        return step

    def _set_step(self, u: UOp) -> Step:
        acc, src = self.number[u.src[0]], self.number[u.src[1]]
        def step(s: State) -> None: s.regs[acc] = s.regs[src]
        return step

    def _get_step(self, u: UOp) -> Step:
        out, acc = self.number[u], self.number[u.src[0]]
        def step(s: State) -> None: s.regs[out] = s.regs[acc]
        return step

    # ---- memory ------------------------------------------------------------------------------------------------------------------
    def _load_step(self, u: UOp) -> Step:
        out, lanes = self.number[u], u.dtype.lanes
        buf, place = _pointer(u.src[0]), self._place(u, u.src[1], u.src[2] if len(u.src) > 2 else None, lanes)
        raw_name, shared = storage_name(u.dtype), buf.op is Ops.SCRATCH and buf.arg.space == "shared"
        def step(s: State) -> None:
            index, gate = place(s)
            memory = s.memory[self.number[buf]].view(raw_name)
            if memory.size == 0: raw = np.zeros(index.shape, raw_name)
            elif buf.op is Ops.PARAM: raw = memory[index]
            else:
                rows = _row(s, shared, index.ndim)
                raw = memory[rows, index]
                if shared: self._guard(s, buf, (rows, index), gate, False)
            value = from_storage(u.dtype.scalar, raw)
            s.regs[out] = value if gate is None else np.where(gate, value, np.zeros((), value.dtype))
        return step

    def _store_step(self, u: UOp) -> Step:
        buf, value_of, dtype = _pointer(u.src[0]), self.number[u.src[2]], u.src[2].dtype
        place = self._place(u, u.src[1], u.src[3] if len(u.src) > 3 else None, dtype.lanes)
        raw_name, shared = storage_name(dtype), buf.op is Ops.SCRATCH and buf.arg.space == "shared"
        def step(s: State) -> None:
            index, gate = place(s)
            memory = s.memory[self.number[buf]].view(raw_name)
            raw = to_storage(dtype.scalar, s.regs[value_of])
            if raw.ndim < index.ndim: raw = raw[:, None]
            rows = np.zeros((1,) * index.ndim, "int64") if buf.op is Ops.PARAM else _row(s, shared, index.ndim)
            index, raw, gate, rows = np.broadcast_arrays(index, raw, np.True_ if gate is None else gate, rows)
            memory[index[gate] if buf.op is Ops.PARAM else (rows[gate], index[gate])] = raw[gate]
            if shared: self._guard(s, buf, (rows, index), gate, True)
        return step

    def _guard(self, s: State, buf: UOp, place: tuple[Array, Array], gate: Array | None, writes: bool) -> None:
        """Tell the guard of shared memory who uses what."""
        thread = s.thread if place[1].ndim == 1 else s.thread[:, None]
        rows, index, thread, gate = np.broadcast_arrays(*place, thread, np.True_ if gate is None else gate)
        s.guards[self.number[buf]].use((rows[gate], index[gate]), thread[gate], writes)

    def _place(self, u: UOp, index: UOp, gate: UOp | None, lanes: int) -> Callable[[State], tuple[Array, Array]]:
        """A function that gives the element numbers of an access, proved to lie inside, and its gate or None."""
        buf = _pointer(u.src[0])
        if buf.op not in (Ops.PARAM, Ops.SCRATCH): raise CompilerBug(f"{self.program.name}: {u.op} from {buf!r}, which is no memory")
        size, at = buf.arg.size, self.number[index]
        gate_at = None if gate is None else self.number[gate]
        def place(s: State) -> tuple[Array, Array]:
            i = s.regs[at].astype("int64", copy=False)
            if lanes > 1 and i.ndim == 1: i = i[:, None] + np.arange(lanes)
            open_ = None if gate_at is None else s.regs[gate_at]
            if open_ is not None and open_.ndim < i.ndim: open_ = open_[:, None]
            outside = (i < 0) | (i >= size)
            if open_ is not None: outside = outside & open_
            if outside.any():
                wrong = np.broadcast_to(i, outside.shape)[outside]
                name = f"buffer {buf.arg.slot}" if buf.op is Ops.PARAM else f"{buf.arg.space} scratch {buf.arg.id}"
                raise CompilerBug(f"{self.program.name}: {u.op} out of bounds\n  {name} has {size} elements of {buf.dtype.short}, "
                                  f"the index is {wrong.flat[0]} ({wrong.size} such accesses)")
            return (i if open_ is None else np.where(open_, i, 0)), open_
        return place


def alu_meaning(u: UOp) -> Callable[..., Array]:
    """The NumPy function of an arithmetic node: its row's meaning, then rounded to the node's dtype."""
    dtype, source = u.dtype.scalar, u.src[0].dtype.scalar
    if u.op is Ops.CAST: return _cast_meaning(source, dtype)
    if u.op is Ops.BITCAST: return lambda x: from_storage(dtype, to_storage(source, x).view(storage_name(dtype)))
    meaning, name = u.op.np, value_name(dtype)
    if meaning is None:
        by_element = np.vectorize(lambda *xs: dtype.const(u.op.py(*xs)), otypes=[name])
        meaning = lambda *xs: by_element(*np.broadcast_arrays(*xs))
    if dtype.is_float and dtype.np_name is None and u.op not in EXACT: return lambda *xs: round_to(dtype, meaning(*xs))
    return lambda *xs: meaning(*xs).astype(name, copy=False)


def _cast_meaning(source: DType, dtype: DType) -> Callable[[Array], Array]:
    if dtype.is_float: return lambda x: round_to(dtype, x if source.is_float else x.astype(value_name(dtype)))
    if dtype.is_bool: return lambda x: x != 0
    if source.is_float: return lambda x: _saturate(x.astype("float64"), dtype)
    name = value_name(dtype)
    return lambda x: x.astype(name)


def _saturate(x: Array, dtype: DType) -> Array:
    """Floats to the nearest integers toward zero that `dtype` has; NaN to 0."""
    below, above = x < dtype.min, x >= 2.0 ** (dtype.bits - (dtype.kind == "int"))
    whole = np.where(below | above | np.isnan(x), 0, x).astype(dtype.np_name)
    return np.where(above, np.array(dtype.max, dtype.np_name), np.where(below, np.array(dtype.min, dtype.np_name), whole))


def _pointer(buf: UOp) -> UOp:
    while buf.op is Ops.AFTER: buf = buf.src[0]
    return buf


def _row(s: State, shared: bool, ndim: int) -> Array:
    """The row of scratch memory that each thread uses."""
    row = s.group if shared else np.arange(s.threads)
    return row if ndim == 1 else row[:, None]

"""Plan: a graph made ready to run on one device: programs, launches, and where every intermediate value lies.

A plan knows slots, not buffers: slots 0 .. inputs-1 are handed over at each run, then come the outputs (fresh at each run), then the
temporaries, which share one arena. The launches are replayed by the device in one call.
"""
from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from glassgrad.device.buffer import Buffer, owned
from glassgrad.device.device import Device, DeviceBase, Launch, Replay, Slot
from glassgrad.engine import cache, check, debug
from glassgrad.engine.context import BEAM, CHECK, DEBUG, VIZ, WINO, code_key
from glassgrad.engine.counters import GlobalCounters
from glassgrad.engine.limits import Limits, limits_of
from glassgrad.engine.memory import ALIGN_BYTES, Life, MemoryPlan, plan_memory
from glassgrad.engine.overlap import find_groups
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes, to_dtype
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.lazy import Lazy
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp
from glassgrad.viz import record

# a warm start compiles nothing; subprocesses are for those who search
flow, beam = Lazy("glassgrad.flow"), Lazy("glassgrad.engine.beam")

GPU_ALIGN_BYTES = 256        # what sub-buffers and vector loads of any GPU ask for
MAX_PLANS, MAX_UNITS = 2048, 8192
# of a plan that may run with Python's lock held, which costs less than to give it away: some 30 us of float arithmetic, or as much else
# as can be done to 8,000 numbers (integer work, such as sorting, is not counted)
QUICK_BYTES, QUICK_FLOPS = 1 << 15, 100_000
WORD = 0xFFFFFFFFFFFFFFFF
BUILT_IN_OPS = frozenset(Ops.all())
BUILT_IN_DTYPES = frozenset(dtypes.all) | {dtypes.void}


class SlotFacts(NamedTuple):
    """What a slot holds: `size` elements of `dtype`."""
    size: int
    dtype: DType
    @property
    def nbytes(self) -> int: return self.size * self.dtype.itemsize


class Unit:
    """A compiled program: what is kept of it once it is binary.

    `binary` may hold other programs as well, `entry` is the name of this one in it; `prog` is the device's handle, loaded at first use;
    `recorded` VIZ's number.
    """
    __slots__ = ("binary", "buffers", "bytes", "cycles", "entry", "flops", "grid", "local", "name", "outs", "prog", "recorded", "reuses",
                 "source")
    FACTS = ("name", "entry", "grid", "local", "buffers", "outs", "flops", "bytes", "reuses", "cycles")

    def __init__(self, binary: bytes, source: str | None = None, **facts: Any) -> None:
        self.binary, self.source, self.prog, self.recorded = binary, source, None, None
        for name in self.FACTS: setattr(self, name, facts[name])
        self.grid, self.local, self.outs, self.reuses = tuple(self.grid), tuple(self.local), tuple(self.outs), tuple(map(tuple, self.reuses))

    def facts(self) -> dict[str, Any]: return {name: getattr(self, name) for name in self.FACTS}


class Row(NamedTuple):
    """One launch of a plan: which program, which slots, which values (numbers of KEY and VAR leaves); and for people why it exists."""
    unit: int
    bufs: tuple[int, ...]
    vals: tuple[int, ...]
    name: str
    reason: str
    sites: tuple[str, ...] = ()
    ast: UOp | None = None        # only in the process that scheduled it


class Plan:
    """See the module. `slots` has the facts of every slot; `inputs` and `outputs` count them."""

    def __init__(self, device: DeviceBase, inputs: int, outputs: int, slots: Sequence[SlotFacts], units: Sequence[Unit],
                 rows: Sequence[Row], memory: MemoryPlan | None = None) -> None:
        self.device, self.inputs, self.outputs = device, inputs, outputs
        self.slots, self.units, self.rows = list(slots), list(units), list(rows)
        self.memory = memory or _plan_temporaries(self)
        self.flops = sum(self.units[r.unit].flops for r in self.rows)
        self.bytes = sum(self.units[r.unit].bytes for r in self.rows)
        self.out_facts = [(s.size, s.dtype, device.shelf(s.nbytes)) for s in self.slots[inputs:inputs + outputs]]
        self.arena = device.shelf(self.memory.peak_bytes) if self.memory.peak_bytes else None
        self.donors = _find_donors(self)
        self.replay: Replay | None = None
        self.is_quick = False
        self.recorded: int | None = None
        self.name = device.name
        self.key = ""                # of its entry on disk, if it has one

    @property
    def peak_bytes(self) -> int:
        """Bytes of temporaries alive at once, known before the plan runs; inputs and outputs come on top."""
        return self.memory.peak_bytes

    # ---- running -----------------------------------------------------------------------------------------------------------------
    def run(self, ins: Sequence[Buffer], vals: Sequence[int] = (), sites: Sequence[str | None] = (), given: Container[int] = ()) -> list[Buffer]:
        """Run on these inputs and values; gives the outputs. `sites` are the user lines that asked for each output; the memory of the
        inputs `given` (their numbers) may be overwritten: an output that can is computed there, and is that buffer."""
        name, arena = self.name, None
        handles = [b.handle for b in ins]
        outs = []
        taken = {o: i for o, i in self.donors.items() if i in given} if given and CHECK.value < 2 else {}
        for k, (size, dtype, shelf) in enumerate(self.out_facts):
            out = ins[taken[k]] if k in taken else owned(name, size, dtype, shelf)
            handles.append(out.handle)
            outs.append(out)
        if self.arena is not None:
            arena = owned(name, self.memory.peak_bytes, dtypes.uint8, self.arena)
            handles.append(arena.handle)
        if debug.is_watching() or CHECK.value >= 2: self._run_watched([*ins, *outs], handles, arena, vals, sites)
        else:
            replay = self.replay or self.prepared()
            if self.is_quick: replay.quick.call(self.words(handles, vals))
            else: replay.run(handles, vals)
            GlobalCounters.kernel_count += len(self.rows)
        GlobalCounters.global_ops += self.flops
        GlobalCounters.global_mem += self.bytes
        return outs

    def prepared(self) -> Replay:
        """The launches, ready to run on the handles of inputs, outputs and arena: all of them the quick way, or none."""
        if self.replay is None:
            launches = self._launches()
            made = self.device.graph([launches[step]._replace(beside=len(g) - k) for g in find_groups(self) for k, step in enumerate(g)])
            is_alone = all(u.grid[0] == 1 for u in self.units)      # what several threads should share is not done by one
            self.is_quick = made.quick is not None and is_alone and self.bytes <= QUICK_BYTES and self.flops <= QUICK_FLOPS
            self.replay = made
        return self.replay

    def words(self, handles: Sequence[Any], vals: Sequence[int]) -> bytes:
        """What `quick.call` takes."""
        q = self.replay.quick
        return q.pack(q.first, *handles[:q.n_handles], *[v & WORD for v in vals[:q.n_vals]])

    def _place(self, slot: int) -> Slot:
        known = self.inputs + self.outputs
        return Slot(slot) if slot < known else Slot(known, self.memory.offsets[slot])

    def _launches(self) -> list[Launch]:
        todo = [u for u in self.units if u.prog is None]
        for unit, prog in zip(todo, self.device.load_all([(u.entry, u.binary) for u in todo]), strict=True): unit.prog = prog
        return [Launch(u.prog, tuple([self._place(s) for s in r.bufs]), tuple([Slot(k) for k in r.vals]), u.grid, u.local)
                for r in self.rows for u in (self.units[r.unit],)]

    def _run_watched(self, known: list[Buffer], handles: list[Any], arena: Buffer | None, vals: Sequence[int],
                     sites: Sequence[str | None]) -> None:
        """Launch by launch, each timed and, with CHECK=2, compared with the reference device."""
        device, offset = self.device, self.device.offset
        if record.recorder is not None:
            record.recorder.ran(self.record())
            record.recorder.memory(time.perf_counter(), device.memory.used, device.name, self.rows[-1].name if self.rows else "")
            if (limits := limits_of(device)) is not None: record.recorder.device(device.name, **limits._asdict())
        for row, launch in zip(self.rows, self._launches(), strict=True):
            unit = self.units[row.unit]
            bufs = [offset(handles[b.index], b.offset) for b in launch.bufs]
            values = [vals[v.index] for v in launch.vals]
            if DEBUG.value >= 4: debug.show_source(row.name, unit.source)
            checking = check.begin(row, self._views(row, known, arena), values) if CHECK.value >= 2 else None
            device.synchronize()
            start = time.perf_counter()
            device.launch(launch.prog, bufs, values, launch.grid, launch.local)
            device.synchronize()
            end = time.perf_counter()
            GlobalCounters.kernel_count += 1
            asked = [sites[s - self.inputs] for s in row.bufs if self.inputs <= s < self.inputs + len(sites)]
            limits = limits_of(device) if DEBUG.value >= 2 or VIZ.value else None
            note, predicted = "", 0.0
            if limits is not None:
                least = limits.least_seconds(unit.flops, unit.bytes)
                if unit.cycles: predicted = self._predict(row, limits)
                note = f"{least / max(end - start, least):4.0%} of limit"
            debug.kernel_ran(row.name, device.name, start, end, unit.bytes, unit.flops, [*filter(None, asked), *row.sites], unit.recorded, note,
                             predicted)
            if checking is not None: checking()

    def _predict(self, row: Row, limits: Limits) -> float:
        unit = self.units[row.unit]
        written = sum(self.slots[row.bufs[o]].nbytes for o in unit.outs)
        return limits.predict(unit.cycles, max(unit.bytes - written, 0), written, unit.grid[0], self.device.target)

    def _views(self, row: Row, known: list[Buffer], arena: Buffer | None) -> list[Buffer]:
        out = []
        for s in row.bufs:
            if s < len(known): out.append(known[s])
            else:
                assert arena is not None, "a plan with temporaries has an arena"
                out.append(arena.view(self.slots[s].size, self.slots[s].dtype, self.memory.offsets[s]))
        return out

    def _calls(self) -> list[Any]:
        texts = [debug.buffer_text(i, s.size, s.dtype) for i, s in enumerate(self.slots)]
        out = []
        for r in self.rows:
            unit = self.units[r.unit]
            written = {r.bufs[i] for i in unit.outs}
            out.append(record.Call(r.name, r.sites, r.reason, (), self.name, tuple(texts[s] for s in r.bufs if s in written),
                                   tuple(texts[s] for s in r.bufs if s not in written), unit.bytes, unit.flops, unit.recorded))
        return out

    def record(self) -> int:
        """The number of this plan in VIZ's record, where it is entered once."""
        assert record.recorder is not None, "record is called when there is a recorder"
        if self.recorded is None: self.recorded = record.recorder.schedule(self._calls(), runs=0, peak_bytes=self.peak_bytes)
        return self.recorded

    # ---- for people and for the disk ---------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        """The schedule, one line a kernel, with the reason why its output is stored."""
        head = (f"plan on {self.name}: {len(self.rows)} kernels, {len(self.units)} programs,"
                f" temporaries {debug.human(self.memory.total_bytes, 'B')} in an arena of {debug.human(self.peak_bytes, 'B')}")
        lines = [f"  {i:3} {r.name:<36} {' '.join(self._slot_text(s) for s in r.bufs)}  {r.reason}" for i, r in enumerate(self.rows)]
        return "\n".join([head, *lines])

    def _slot_text(self, slot: int) -> str:
        kind = "in" if slot < self.inputs else "out" if slot < self.inputs + self.outputs else "tmp"
        return f"{kind}{slot}:{self.slots[slot].dtype.short}[{self.slots[slot].size}]"

    def binaries(self) -> list[bytes]:
        """Those of the units, each once."""
        return list(dict.fromkeys(u.binary for u in self.units))

    def to_json(self) -> dict[str, Any]:
        """All but the binaries and what only the scheduling process knows."""
        place = {binary: i for i, binary in enumerate(self.binaries())}
        return {"inputs": self.inputs, "outputs": self.outputs, "slots": [(s.size, s.dtype.name) for s in self.slots],
                "units": [(place[u.binary], u.facts()) for u in self.units],
                "rows": [(r.unit, r.bufs, r.vals, r.name, r.reason) for r in self.rows],
                "offsets": list(self.memory.offsets.items()), "peak": self.memory.peak_bytes, "total": self.memory.total_bytes}

    @staticmethod
    def from_json(data: dict[str, Any], binaries: Sequence[bytes], device: DeviceBase) -> Plan:
        """The inverse of `to_json` and `binaries`."""
        units = [Unit(binaries[place], **facts) for place, facts in data["units"]]
        rows = [Row(unit, tuple(bufs), tuple(vals), name, reason) for unit, bufs, vals, name, reason in data["rows"]]
        memory = MemoryPlan({slot: offset for slot, offset in data["offsets"]}, data["peak"], data["total"])
        return Plan(device, data["inputs"], data["outputs"], [SlotFacts(n, to_dtype(d)) for n, d in data["slots"]], units, rows, memory)


def _find_donors(plan: Plan) -> dict[int, int]:
    """For outputs (by number): the input whose memory they can take, since nothing reads it afterwards. No input is taken twice."""
    last: dict[int, int] = {}
    for step, row in enumerate(plan.rows):
        for s in row.bufs: last[s] = step
    found: dict[int, int] = {}
    for step, row in enumerate(plan.rows):
        pairs = plan.units[row.unit].reuses
        choices = Counter(out for out, _ in pairs)
        for out, source in sorted(pairs, key=lambda pair: choices[pair[0]]):      # those with few choices first
            o, i = row.bufs[out] - plan.inputs, row.bufs[source]
            is_alike = plan.slots[i] == plan.slots[row.bufs[out]]
            if not (0 <= o < plan.outputs and i < plan.inputs and last[i] == step and row.bufs.count(i) == 1 and is_alike): continue
            if o not in found and i not in found.values(): found[o] = i
    return found


def _plan_temporaries(plan: Plan) -> MemoryPlan:
    """Where each temporary lies: alive from the step that writes it to the last that reads it."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    known = plan.inputs + plan.outputs
    for step, row in enumerate(plan.rows):
        for s in row.bufs:
            if s >= known:
                first.setdefault(s, step)
                last[s] = step
    lives = [Life(s, plan.slots[s].nbytes, first[s], last[s]) for s in first]
    return plan_memory(lives, ALIGN_BYTES if plan.device.is_host else GPU_ALIGN_BYTES)


# ---- making plans ------------------------------------------------------------------------------------------------------------------
_plans: dict[tuple, Plan] = {}
_units: dict[tuple, Unit] = {}
_greeted: set[DeviceBase] = set()


def plan_for(graph: UOp, device: DeviceBase) -> Plan:
    """The plan of a normalised SINK: from memory, else from disk, else made now."""
    key = (graph, device.name, device.target, code_key())
    plan = _plans.get(key)
    if plan is None:
        debug.watch_passes()
        _greet(device)
        is_kept = _disk(graph, device) is not None
        plan = (stored_plan(_key("plan", graph, device.target), device) if is_kept else None) or _make_plan(graph, device)
        if len(_plans) >= MAX_PLANS: _plans.pop(next(iter(_plans)))
        _plans[key] = plan
    return plan


def _greet(device: DeviceBase) -> None:
    """A line about a device when its first plan is made or read."""
    if device not in _greeted: debug.say(1, lambda: f"device {device.name}: {_facts(device.target)}")
    _greeted.add(device)


def _facts(t: Target) -> str:
    """A machine in one line."""
    return (f"target {t.name}, {t.threads} threads, {t.lanes} lanes, caches {t.l1_bytes >> 10}k {t.l2_bytes >> 10}k {t.llc_bytes >> 10}k,"
            f" threads in a workgroup {t.max_local}, {t.features}")


def forget_plans() -> None:
    """Drop what is kept in memory: plans, and compiled programs."""
    _plans.clear()
    _units.clear()


def _make_plan(graph: UOp, device: DeviceBase) -> Plan:
    start = time.perf_counter()
    leaves = {n.arg.id: n for n in graph.toposort() if n.op is Ops.BUFFER}
    slots = {slot: SlotFacts(n.arg.size, n.dtype) for slot, n in leaves.items()}
    inputs, outputs = len(slots), len(graph.src)
    GlobalCounters.schedule_count += 1
    units: dict[int, int] = {}
    programs: list[Unit] = []
    rows: list[Row] = []
    calls = list(flow.schedule(graph, device.target.with_(wino=WINO.value != 0), check=CHECK.value >= 1))
    for call, unit in zip(calls, units_for([(c.ast, c.name) for c in calls], device), strict=True):
        for slot, (size, dtype) in call.new_slots.items(): slots[slot] = SlotFacts(size, dtype)
        if id(unit) not in units:
            units[id(unit)] = len(programs)
            programs.append(unit)
        name = call.name or unit.name
        rows.append(Row(units[id(unit)], tuple(call.bufs), tuple(call.vals), name, call.reason, tuple(call.sites), call.ast))
    if sorted(slots) != list(range(len(slots))): raise CompilerBug(f"schedule: the slots {sorted(slots)} are not numbered without gaps")
    rows = _delay_updates(rows, programs, inputs, outputs)
    plan = Plan(device, inputs, outputs, [slots[i] for i in range(len(slots))], programs, rows)
    if record.recorder is not None: plan.record()
    debug.say(3, lambda: f"{plan}\n  scheduled and compiled in {debug.seconds(time.perf_counter() - start)}")
    _write_plan(graph, plan)
    return plan


def _delay_updates(rows: Sequence[Row], units: Sequence[Unit], inputs: int, outputs: int) -> list[Row]:
    """A launch that makes only results, of inputs and results alone, waits for the last reader of the inputs that it may then overwrite:
    a weight is updated when the backward pass is through with it."""
    readers: dict[int, list[int]] = {}
    for step, row in enumerate(rows):
        for k, s in enumerate(row.bufs):
            if k not in units[row.unit].outs: readers.setdefault(s, []).append(step)
    late: dict[int, int] = {}
    for step, row in enumerate(rows):
        unit, known = units[row.unit], inputs + outputs
        if max(row.bufs, default=0) >= known or any(row.bufs[o] in readers for o in unit.outs): continue
        late[step] = max((readers[row.bufs[i]][-1] for _, i in unit.reuses if row.bufs[i] < inputs), default=step)
    return [rows[step] for step in sorted(range(len(rows)), key=lambda step: (late.get(step, step), late.get(step, step) > step))]


def units_for(kernels: Sequence[tuple[UOp, str]], device: DeviceBase) -> list[Unit]:
    """The compiled programs of kernels (ast, name): identical ones once a process, and once a disk. Those that are new are lowered one by
    one as the device takes them, which may compile some while the next is lowered."""
    found: dict[UOp, Unit] = {}
    new: list[tuple[UOp, Unit]] = []
    shared: dict[str, bytes] = {}
    lowering = 0.0

    def programs() -> Iterator[tuple[Program, str]]:
        nonlocal lowering
        for ast, name in kernels:
            if ast in found: continue
            began, program = time.perf_counter(), None
            unit = _units.get((ast, device.target, code_key()))
            if unit is None:
                best = ast
                if BEAM.value > 0 and device.is_hardware:
                    best = beam.search(ast, device, BEAM.value, _disk(ast, device), _key(f"beam {BEAM.value}", ast, device.target))
                unit = _read_unit(best, device, shared)
                if unit is None:
                    unit, program = _lower(best, device, name)
                    new.append((best, unit))
            found[ast] = unit
            lowering += time.perf_counter() - began
            if program is not None: yield program, unit.source
    start = time.perf_counter()
    made = device.compile_all(programs())
    if new: _name_binaries(new, made, device, time.perf_counter() - start - lowering)
    for ast, unit in found.items():
        key = ast, device.target, code_key()
        if key not in _units and len(_units) >= MAX_UNITS: _units.pop(next(iter(_units)))
        _units[key] = unit
    return [found[ast] for ast, _ in kernels]


def _lower(ast: UOp, device: DeviceBase, name: str) -> tuple[Unit, Program]:
    """A kernel's program, and its unit, which lacks the binary."""
    recorder, start = record.recorder, time.perf_counter()
    number = recorder.kernel_begin(name, ast) if recorder is not None else None
    try:
        program = flow.lower(ast, device.target, name, check=CHECK.value >= 1)
        source = getattr(program, "source", "") or device.render(program)
    except Exception as error:
        if recorder is not None: recorder.kernel_end(name, error=f"{type(error).__name__}: {error}")
        raise
    done = time.perf_counter()
    debug.say(3, lambda: f"  lowered {program.name}: {debug.seconds(done - start)}, {len(program.uops)} uops, {len(source)} bytes of source")
    asm = getattr(device, "disassemble", None)
    if asm is not None: debug.say(6, lambda: f"---- machine code of {program.name}\n{asm(source)}")
    if recorder is not None:
        recorder.program(source=source, asm=functools.partial(asm, source) if asm else "", program=program, grid=program.grid,
                         local=program.local)
        recorder.kernel_end(name)
    unit = Unit(b"", source, name=program.name, entry="", grid=program.grid, local=program.local,
                buffers=sum(p.kind == "buffer" for p in program.params), outs=program.outs, flops=program.flops, bytes=program.bytes,
                reuses=program.reuses, cycles=program.cycles)
    unit.recorded = number
    return unit, program


def _name_binaries(new: Sequence[tuple[UOp, Unit]], made: Sequence[tuple[str, bytes]], device: DeviceBase, waited: float) -> None:
    """Give units their binaries, and keep them on disk: a binary of several programs once, named by what is in it."""
    GlobalCounters.compile_count += len(new)
    if record.recorder is not None: record.recorder.compiled(len(new), waited)
    times = Counter(binary for _, binary in made)
    debug.say(3, lambda: f"  compiled {len(new)} programs: {sum(map(len, times))} bytes, waited {debug.seconds(waited)}")
    shared: dict[bytes, str] = {}
    for (ast, unit), (unit.entry, unit.binary) in zip(new, made, strict=True):
        disk = _disk(ast, device)
        if disk is None: continue
        if times[unit.binary] > 1 and unit.binary not in shared:
            shared[unit.binary] = cache.content_key(unit.binary)
            disk.put(shared[unit.binary], None, [unit.binary])
        held = shared.get(unit.binary, "")
        disk.put(_key("program", ast, device.target), {"held": held, "facts": unit.facts()}, [] if held else [unit.binary])


# ---- on disk -----------------------------------------------------------------------------------------------------------------------
def disk_for(nodes: Iterable[UOp], devices: Iterable[DeviceBase]) -> cache.DiskCache | None:
    """The disk cache, where it may be used: ops, dtypes and devices that the user added mean what this process says: not kept."""
    disk = cache.disk_cache()
    if disk is None or any(not type(d).__module__.startswith("glassgrad.") for d in devices): return None
    kinds = {(n.op, n.dtype) for n in nodes}
    return disk if all(op in BUILT_IN_OPS and dtype.scalar in BUILT_IN_DTYPES for op, dtype in kinds) else None


def read_entry(disk: cache.DiskCache | None, name: str) -> cache.Entry | None:
    """An entry, unless someone wants to see how it is made."""
    return None if disk is None or VIZ.value or CHECK.value or DEBUG.value >= 4 else disk.get(name)


def _disk(graph: UOp, device: DeviceBase) -> cache.DiskCache | None: return disk_for(graph.toposort(), [device])


def _key(kind: str, graph: UOp, target: Target) -> str:
    return cache.cache_key(kind, _text(graph), target.key, repr(code_key()))


@functools.lru_cache(maxsize=8)
def _text(graph: UOp) -> str: return cache.graph_text(graph)


def _read_unit(ast: UOp, device: DeviceBase, shared: dict[str, bytes]) -> Unit | None:
    """A kernel's unit from disk; `shared` are the binaries of several programs read so far, by their keys."""
    disk = _disk(ast, device)
    entry = read_entry(disk, _key("program", ast, device.target)) if disk is not None else None
    if entry is None: return None
    held = entry.meta["held"]
    if not held: return Unit(entry.blobs[0], **entry.meta["facts"])
    if held not in shared:
        binary = read_entry(disk, held)
        if binary is None: return None                # pruned, or damaged
        shared[held] = binary.blobs[0]
    return Unit(shared[held], **entry.meta["facts"])


def stored_plan(name: str, device: DeviceBase) -> Plan | None:
    """The plan of that name on disk, if it is there."""
    entry = read_entry(cache.disk_cache(), name)
    if entry is None: return None
    _greet(device)
    GlobalCounters.cache_hits += 1
    plan = Plan.from_json(entry.meta, entry.blobs, device)
    plan.key = name
    debug.say(1, lambda: f"cache: a plan of {len(plan.rows)} kernels for {device.name}")
    debug.say(3, lambda: str(plan))
    return plan


def _keep(key: str, make: Callable[[], bytes]) -> bytes:
    """make()'s bytes, perhaps from an earlier process: devices keep what they compile for themselves."""
    disk = cache.disk_cache()
    if disk is None: return make()
    name = cache.cache_key("device", key)
    entry = disk.get(name)
    if entry is not None: return entry.blobs[0]
    made = make()
    disk.put(name, None, [made])
    return made


Device.keep = _keep


def _write_plan(graph: UOp, plan: Plan) -> None:
    disk = _disk(graph, plan.device)
    if disk is None: return
    plan.key = _key("plan", graph, plan.device.target)
    disk.put(plan.key, plan.to_json(), plan.binaries())

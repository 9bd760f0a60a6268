"""Record: what VIZ shows, collected while a program runs.

The engine and the pass driver call the methods of the one active `Recorder`; a call stores references and returns. Graphs are
written out as rows only when someone looks (`Group.settle`), except outside kernels, where a reference would keep buffers alive.
Every list is bounded: what is old falls out, and a note on the page says how much.
"""
from __future__ import annotations

import functools
import os
import re
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from glassgrad.uop.ops import BufferArg, Op, ParamArg, RangeArg, ReduceArg, ScratchArg, SpecialArg
from glassgrad.uop.text import to_text
from glassgrad.uop.uop import UOp, nodes_alive, toposort
from glassgrad.viz.loops import loops_text

Text = str | Callable[[], str]
Event = tuple[str, str, int, float, float, int, int]    # lane, name, group, start, end, bytes, flops
_LLVM = re.compile(r"^define ", re.M)
Graph = UOp | Sequence[UOp]     # a root, several, or a linear program


class Limits(NamedTuple):
    """How much is kept. Counts, not bytes: a row is about 400 bytes, an event about 150."""
    groups: int = 4_000             # kernels and schedules that are listed
    detailed: int = 500             # of these, how many keep their graphs and code
    steps: int = 200                # passes of one kernel
    fired: int = 500                # rule applications of one pass (their counts are always kept)
    rows: int = 60_000              # graph nodes of one kernel or schedule
    rows_in_all: int = 2_000_000
    events: int = 200_000
    samples: int = 50_000           # memory samples; halved in resolution when full
    nodes_alive: int = 3_000_000    # more live nodes than this: the oldest kernels give up their graphs


class Call(NamedTuple):
    """One line of a schedule: a kernel launch, a copy, or a call of a library."""
    name: str                           # the kernel's name, as given to kernel_begin and launch
    sites: tuple[str, ...] = ()         # the user's "file:line"s it computes
    why: str = ""                       # why its output is stored at all
    unfused: tuple[str, ...] = ()       # why it is not one kernel with its neighbours
    device: str = ""
    outs: tuple[str, ...] = ()          # buffers written, as text: "f32[64,128] #7"
    ins: tuple[str, ...] = ()
    bytes: int = 0
    flops: int = 0
    kernel: int | None = None           # what kernel_begin gave; without it the name decides


class Fired(NamedTuple):
    """One application of a rule; before and after are nodes, or row numbers once settled."""
    rule: str; before: Any; after: Any


class _Pending(NamedTuple):
    """Rules that fired since the last pass: the first ones, and how often each."""
    kept: list[tuple[str, UOp, UOp]]; counts: dict[str, int]


class Row(NamedTuple):
    """A node as data: `src` are row numbers of the same group."""
    op: str; dtype: str; arg: str; src: tuple[int, ...]; shape: tuple[int, ...] | None; site: str | None


class Step:
    """One pass over one graph. `before` and `after` are roots: nodes, row numbers once settled, or None if not kept."""
    __slots__ = ("stage", "name", "before", "after", "fired", "counts", "seconds", "why", "seen")

    def __init__(self, stage: str, name: str, before: Any, after: Any, fired: list[Fired], counts: dict[str, int],
                 seconds: float | None = None, why: str = "") -> None:
        self.stage, self.name, self.before, self.after = stage, name, before, after
        self.fired, self.counts, self.seconds, self.why = fired, counts, seconds, why
        self.seen: Any = None   # the counts of changed nodes, worked out by views


class Group:
    """A kernel or a schedule: its passes, the nodes of all their graphs (each once), its texts and the reasons for it."""

    def __init__(self, id: int, kind: str, name: str, root: Any = None) -> None:
        self.id, self.kind, self.name, self.root = id, kind, name, root
        self.rows: list[Row] = []
        self.steps: list[Step] = []
        self.unsettled: list[Step] = []
        self.texts: dict[str, Text] = {}
        self.facts: dict[str, Any] = {}
        self.why: list[tuple[str, str]] = []
        self.calls: list[Call] = []
        self.sites: tuple[str, ...] = ()
        self.notes: list[str] = []
        self.error: str | None = None
        self.runs, self.seconds, self.fastest, self.bytes, self.flops = 0, 0.0, float("inf"), 0, 0
        self.began, self.took, self.schedule, self.lost = 0.0, 0.0, -1, 0
        self.predicted = 0.0    # seconds of a launch by the cost model, 0 where it was not asked
        self.inside = 0.0   # of a schedule's time, what went into compiling its kernels
        self.numbers: weakref.WeakKeyDictionary[UOp, int] = weakref.WeakKeyDictionary()

    def intern(self, root: Any, limit: int) -> int | None:
        """The row number of a node, adding rows for what is new below it; None if that would pass the limit."""
        if not isinstance(root, UOp): return root  # type: ignore[no-any-return]
        numbers, rows = self.numbers, self.rows
        if root in numbers: return numbers[root]
        fresh = [n for n in toposort((root,), stop=lambda n: n in numbers) if n not in numbers]
        if len(rows) + len(fresh) > limit:
            self.lost += 1
            return None
        for n in fresh:
            numbers[n] = len(rows)
            rows.append(Row(n.op.name, n.dtype.short, arg_text(n.arg), tuple([numbers[s] for s in n.src]), shape_of(n), n.site))
        return numbers[root]

    def settle(self, limit: int) -> None:
        """Write the graphs that are still held as nodes into rows, and let the nodes go."""
        while self.unsettled:
            step = self.unsettled[0]
            step.before, step.after = self.intern(step.before, limit), self.intern(step.after, limit)
            step.fired = [Fired(f.rule, self.intern(f.before, limit), self.intern(f.after, limit)) for f in step.fired]
            self.unsettled.pop(0)
        if isinstance(self.root, UOp): self.root = self.intern(self.root, limit)
        if "graph" in self.texts: self.text("graph")

    def text(self, key: str) -> str:
        """One of the texts; those given as functions are made now, and kept."""
        made = self.texts.get(key, "")
        if callable(made):
            try: made = made()
            except Exception as error: made = f"no {key}: {type(error).__name__}: {error}"  # shown in its place on the page
            self.texts[key] = made
        return made

    def forget(self) -> None:
        """Drop graphs and code, keep name, times and reasons."""
        self.rows, self.steps, self.unsettled, self.texts, self.root = [], [], [], {}, None
        self.numbers = weakref.WeakKeyDictionary()
        self.notes = ["The graphs and the code of this kernel were dropped to bound memory; newer kernels keep theirs."]


def arg_text(arg: Any) -> str:
    """A node's argument for people: the shortest text that tells two of them apart."""
    if arg is None: return ""
    if isinstance(arg, RangeArg): return f"r{arg.id} {arg.kind}"
    if isinstance(arg, ParamArg): return f"p{arg.slot} [{arg.size}]" if arg.kind == "buffer" else f"n{arg.slot}"
    if isinstance(arg, BufferArg): return f"#{arg.id} [{arg.size}] {arg.device}"
    if isinstance(arg, ScratchArg): return f"s{arg.id} [{arg.size}] {arg.space}"
    if isinstance(arg, SpecialArg): return f"{arg.name} {arg.size}"
    if isinstance(arg, ReduceArg): return f"{arg.op} {list(arg.axes)}" if arg.axes else str(arg.op)
    if isinstance(arg, tuple) and hasattr(arg, "_fields"):
        return " ".join(f"{k}={_short(v)}" for k, v in zip(arg._fields, arg, strict=True))
    return _short(arg)


def _short(x: Any) -> str:
    text = x.name if isinstance(x, Op) else x if isinstance(x, str) else repr(x)
    return text if len(text) <= 200 else text[:197] + "…"


def one_root(graph: Any) -> Any:
    """A graph as one node: several roots, or the nodes of a linear program that no other uses, go under a SINK."""
    if not isinstance(graph, (list, tuple)): return graph
    used = {s for n in graph for s in n.src}
    return UOp.sink(*[n for n in graph if n not in used])


def shape_of(n: UOp) -> tuple[int, ...] | None:
    """A node's shape, or None where it has none: a broken graph must still be shown."""
    try: return tuple(n.shape)
    except Exception: return None


class Recorder:
    """What the running program reports to. All methods are cheap and never raise for want of room.

    Times are `time.perf_counter()` seconds. The methods may be called from any thread; passes go to the kernel that
    the calling thread has begun, and outside one to the schedule in the making.
    """

    def __init__(self, title: str = "", limits: Limits | None = None) -> None:
        self.title, self.limits = title or _program(), limits or Limits()
        self.origin, self.started, self.ended = time.perf_counter(), time.time(), False
        self.groups: dict[int, Group] = {}
        self.events: deque[Event] = deque(maxlen=self.limits.events)
        self.event_count = 0
        self.samples: dict[str, list[tuple[float, int]]] = {}
        self.peaks: dict[str, tuple[float, int, str]] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.dropped = {"kernels and schedules": 0, "details of kernels": 0, "passes": 0, "timeline events": 0, "memory samples": 0}
        self.version, self.lock = 0, threading.RLock()
        self._by_name: dict[str, int] = {}
        self._here = threading.local()
        self._next = 0

    # ---- what the compiler reports -----------------------------------------------------------------------------------------------
    def kernel_begin(self, name: str, ast: UOp | None = None) -> int:
        """A kernel is about to be compiled: the passes that follow on this thread are its own. Gives its number."""
        g = self._group("kernel", name, ast)
        self._by_name[name] = g.id
        self._here.kernel, self._here.fired = g, None
        if ast is not None: g.texts["graph"] = functools.partial(to_text, ast, sites=True)
        return g.id

    def kernel_end(self, name: str | None = None, error: str | None = None) -> None:
        """The kernel of this thread is done; `name` if it has another by now, `error` if it failed."""
        g = getattr(self._here, "kernel", None)
        if g is None: return
        if error is not None and isinstance(g.root, UOp): g.sites = tuple(dict.fromkeys(n.site for n in g.root.toposort() if n.site))
        if name is not None and name != g.name:
            g.name = name
            self._by_name[name] = g.id
        g.took, g.error, self._here.kernel = time.perf_counter() - self.origin - g.began, error, None
        self._span("compile", g.name, g.id, g.began, g.began + g.took)
        schedule = getattr(self._here, "schedule", None)
        if schedule is not None: schedule.inside += g.took
        self._bound()
        self.version += 1

    def compiled(self, programs: int, waited: float) -> None:
        """The machine code of programs whose kernels have ended is there, after so many seconds of waiting for it."""
        now = time.perf_counter()
        self.span("compile", f"machine code of {programs} programs", now - waited, now)
        schedule = getattr(self._here, "schedule", None)
        if schedule is not None: schedule.inside += waited

    def pass_(self, stage: str, name: str, before: Graph, after: Graph, fired: Iterable[tuple[str, UOp, UOp]] = (),
              counts: dict[str, int] | None = None, seconds: float | None = None, why: str = "") -> None:
        """A pass ran. `fired` are (rule, before, after) in order; `counts` how often each rule fired, if `fired` is only a part."""
        kernel = getattr(self._here, "kernel", None)
        g = kernel or self._schedule_in_the_making()
        pending = getattr(self._here, "fired", None)
        if pending is not None and not fired:
            fired, counts = pending[0], pending[1]
            self._here.fired = None
        kept: list[Fired] = []
        tally = dict(counts) if counts is not None else {}
        for row in fired:
            if counts is None: tally[row[0]] = tally.get(row[0], 0) + 1
            if len(kept) < self.limits.fired: kept.append(Fired(row[0], row[1], row[2]))
        if len(g.steps) >= self.limits.steps:
            self.dropped["passes"] += 1
            g.notes = [f"Only the first {self.limits.steps} passes are kept."]
            return
        step = Step(stage, name, one_root(before), one_root(after), kept, tally, seconds, why)
        g.unsettled.append(step)
        g.steps.append(step)
        if kernel is None:   # a tensor graph holds on to its buffers: keep data, not nodes
            with self.lock: g.settle(self.limits.rows)
        self.version += 1

    def rule(self, name: str, before: UOp, after: UOp) -> None:
        """A rule fired in the pass that this thread runs; the next `pass_` takes it along. (What rewrite.trace calls.)"""
        pending = getattr(self._here, "fired", None)
        if pending is None:
            pending = self._here.fired = _Pending([], {})
        kept, counts = pending
        counts[name] = counts.get(name, 0) + 1
        if len(kept) < self.limits.fired: kept.append((name, before, after))

    def step(self, stage: str, name: str, before: Graph, after: Graph) -> None:
        """A pass has run. (What rewrite.trace calls.)"""
        self.pass_(stage, name, before, after)

    def why(self, subject: str, reason: str) -> None:
        """A decision and its reason: ("tile", "6x4x16: 24 accumulators, 91% of peak by the model")."""
        g = getattr(self._here, "kernel", None) or self._schedule_in_the_making()
        if len(g.why) < 1_000: g.why.append((subject, reason))

    def program(self, kernel: str | int | None = None, source: Text = "", asm: Text = "", ir: Text = "", loops: Text = "",
                program: Any = None, **facts: Any) -> None:
        """The texts of a kernel (None: the one this thread compiles), each a string or a function that makes it when someone looks.

        `program` (target.program.Program) gives the loop nest, `facts` are shown as they are.
        """
        mine: Group | None = getattr(self._here, "kernel", None)
        g = mine if kernel is None else self._find(kernel)
        if g is None: return
        if isinstance(source, str) and not ir and _LLVM.search(source): source, ir = "", source
        if program is not None:
            loops = loops or functools.partial(loops_text, program.uops, program)
            if g is mine and g.steps: self.pass_("program", "linearize", g.steps[-1].after, program.uops)
        for key, text in (("loops", loops), ("source", source), ("ir", ir), ("asm", asm)):
            if text: g.texts[key] = text
        g.facts.update(facts)
        self.version += 1

    def schedule(self, calls: Sequence[Call], name: str = "", sites: tuple[str, ...] = (), runs: int = 1, **facts: Any) -> int:
        """A schedule was made: its calls in order. Gives its number; `runs` is 0 if it waits for `ran`."""
        g = self._schedule_in_the_making()
        self._here.schedule = None
        g.calls, g.runs, g.sites = list(calls), runs, sites or tuple(dict.fromkeys(s for c in calls for s in c.sites))
        end = time.perf_counter() - self.origin
        g.name, g.took = name or (g.sites[0] if g.sites else f"schedule {g.id}"), end - g.began - g.inside
        g.facts.update(facts)
        for i, call in enumerate(g.calls):
            kernel = self._find(call.name if call.kernel is None else call.kernel) or self._group("kernel", call.name)
            self._by_name.setdefault(call.name, kernel.id)
            g.calls[i] = call._replace(kernel=kernel.id)
            if kernel.schedule < 0 or kernel.schedule not in self.groups:
                kernel.schedule, kernel.bytes, kernel.flops = g.id, call.bytes, call.flops
                kernel.sites = call.sites
        self._span("schedule", g.name, g.id, g.began, end)
        self._bound()
        self.version += 1
        return g.id

    # ---- what the run reports ----------------------------------------------------------------------------------------------------
    def ran(self, schedule: int) -> None:
        """A schedule runs (once more)."""
        g = self.groups.get(schedule)
        if g is not None: g.runs += 1

    def launch(self, kernel: str | int, t0: float, t1: float, bytes: int = 0, flops: int = 0, device: str = "CPU",
               predicted: float = 0.0) -> None:
        """A kernel, a copy or a captured graph ran from t0 to t1 on a device; `predicted` seconds by the cost model."""
        g = self._find(kernel)
        if g is not None:
            g.runs += 1
            g.seconds += t1 - t0
            if t1 - t0 < g.fastest: g.fastest = t1 - t0
            if bytes: g.bytes = bytes
            if flops: g.flops = flops
            if predicted: g.predicted = predicted
        self._span(device, kernel if isinstance(kernel, str) else g.name if g else f"#{kernel}", g.id if g else -1,
                   t0 - self.origin, t1 - self.origin, bytes, flops)

    def span(self, lane: str, name: str, t0: float, t1: float) -> None:
        """Anything else worth a bar on the timeline: compiling, a data loader, a training step."""
        self._span(lane, name, -1, t0 - self.origin, t1 - self.origin)

    def memory(self, t: float, bytes: int, device: str = "CPU", cause: str = "") -> None:
        """`bytes` are in use on a device from time t on; `cause` names what was just allocated, and is kept for the peak."""
        t -= self.origin
        samples = self.samples.setdefault(device, [])
        if bytes >= self.peaks.get(device, (0, -1, ""))[1]: self.peaks[device] = (t, bytes, cause)
        samples.append((t, bytes))
        if len(samples) > self.limits.samples:   # keep the higher one of each pair: peaks survive
            self.samples[device] = [max(pair, key=lambda s: s[1]) for pair in zip(samples[::2], samples[1::2], strict=False)]
            self.dropped["memory samples"] += len(samples) // 2
        self.version += 1

    def device(self, name: str, **facts: Any) -> None:
        """What a device is: any facts; `flops` and `bandwidth` (per second, at best) give the roofline."""
        self.devices.setdefault(name, {}).update(facts)

    def end(self) -> None:
        """The program has ended; what is recorded now is final."""
        self.ended = True
        self.version += 1

    def settle(self) -> None:
        """Write all graphs into rows."""
        with self.lock:
            for g in list(self.groups.values()): g.settle(self.limits.rows)

    # ---- inside ------------------------------------------------------------------------------------------------------------------
    def _group(self, kind: str, name: str, root: Any = None) -> Group:
        with self.lock:
            g = self.groups[self._next] = Group(self._next, kind, name, root)
            self._next += 1
        g.began = time.perf_counter() - self.origin
        return g

    def _schedule_in_the_making(self) -> Group:
        g = getattr(self._here, "schedule", None)
        if g is None: g = self._here.schedule = self._group("schedule", "")
        return g

    def _find(self, kernel: str | int) -> Group | None:
        return self.groups.get(kernel if isinstance(kernel, int) else self._by_name.get(kernel, -1))

    def _span(self, lane: str, name: str, group: int, t0: float, t1: float, bytes: int = 0, flops: int = 0) -> None:
        if len(self.events) == self.limits.events: self.dropped["timeline events"] += 1
        self.events.append((lane, name, group, t0, t1, bytes, flops))
        self.event_count += 1
        self.version += 1

    def _bound(self) -> None:
        """Let the oldest go until everything is within the limits."""
        limits = self.limits
        with self.lock:
            while len(self.groups) > limits.groups:
                g = self.groups.pop(next(iter(self.groups)))
                if self._by_name.get(g.name) == g.id: del self._by_name[g.name]
                self.dropped["kernels and schedules"] += 1
            detailed = [g for g in self.groups.values() if g.steps or g.texts]
            rows = sum(len(g.rows) for g in detailed)
            crowded = nodes_alive() > limits.nodes_alive
            while detailed and (len(detailed) > limits.detailed or rows > limits.rows_in_all or (crowded and len(detailed) > 8)):
                g = detailed.pop(0)
                rows -= len(g.rows)
                g.forget()
                self.dropped["details of kernels"] += 1
                crowded = nodes_alive() > limits.nodes_alive


def _program() -> str:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.basename(main) if main else "interactive session"


recorder: Recorder | None = None
"""The active recorder, None when VIZ is off: `if record.recorder is not None: record.recorder.launch(...)`."""

"""Debug: what the engine says while it works, to people (DEBUG), to VIZ and to programs (`events`)."""
from __future__ import annotations

import importlib
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from glassgrad.engine.context import DEBUG, PROFILE, VIZ
from glassgrad.engine.counters import GlobalCounters
from glassgrad.rewrite import trace
from glassgrad.uop.dtype import DType
from glassgrad.uop.uop import UOp
from glassgrad.viz import record


class Event(NamedTuple):
    """A kernel or a copy that ran on a device, in `time.perf_counter()` seconds."""
    name: str
    device: str
    start: float
    end: float
    bytes: int
    flops: int


MAX_EVENTS = 100_000
events: deque[Event] = deque(maxlen=MAX_EVENTS)
shown: set[str] = set()


def is_watching() -> bool:
    """Whether kernels are launched one by one and timed."""
    return DEBUG.value >= 2 or PROFILE.value > 0 or VIZ.value > 0


def say(level: int, text: str | Callable[[], str]) -> None:
    """Print to stderr when DEBUG asks for this level."""
    if DEBUG.value >= level: print(text if isinstance(text, str) else text(), file=sys.stderr)


def human(x: float, unit: str = "") -> str:
    """Three digits and a power of 1000.

    >>> human(1_234_000, "B"), human(999), human(0.5)
    ('1.23 MB', '999 ', '0.50 ')
    """
    for prefix in ("", "k", "M", "G", "T"):
        if x < 999.5 or prefix == "T": break
        x /= 1000
    digits = 0 if prefix == "" and x == int(x) else 2 if x < 9.995 else 1 if x < 99.95 else 0
    return f"{x:.{digits}f} {prefix}{unit}"


def seconds(t: float) -> str:
    """A short time.

    >>> seconds(0.00123), seconds(2.5e-6), seconds(3)
    ('1.23 ms', '2.50 us', '3.00 s')
    """
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if t >= scale: return f"{t / scale:.2f} {unit}"
    return f"{t * 1e6:.2f} us"


def kernel_ran(name: str, device: str, start: float, end: float, nbytes: int, flops: int, sites: Sequence[str] = (),
               recorded: int | None = None, note: str = "", predicted: float = 0.0) -> None:
    """One launch is complete: count it, keep the event (`recorded`: under that number of VIZ's record), print the line. `predicted` are the
    seconds the cost model expected, if it was asked."""
    took = max(end - start, 1e-9)
    GlobalCounters.time_sum_s += took
    events.append(Event(name, device, start, end, nbytes, flops))
    if record.recorder is not None:
        record.recorder.launch(name if recorded is None else recorded, start, end, nbytes, flops, device, predicted)
    if predicted: note += f", predicted {seconds(predicted)}"
    if DEBUG.value >= 2:
        speed = f"{human(flops / took, 'FLOP/s'):>12} {human(nbytes / took, 'B/s'):>10}"
        where = sites[0] if sites else ""
        memory = human(GlobalCounters.mem_used, "B")
        print(f"{device:>6} {GlobalCounters.kernel_count:5} {name:<36} {seconds(took):>10} {speed}  mem {memory:>8}"
              f"  {where}{'  ' + note if note else ''}", file=sys.stderr)


def show_source(name: str, source: str | None) -> None:
    """Print a kernel's code, each only once a process; programs from the cache on disk come without."""
    if source is None or source in shown: return
    shown.add(source)
    print(f"---- {name}\n{source}", file=sys.stderr)


class PassPrinter:
    """Prints every pass that changes a graph (DEBUG=5), with how many nodes it leaves and which rules fired."""

    def __init__(self) -> None:
        self.fired: dict[str, int] = {}
        self.since = time.perf_counter()

    def rule(self, name: str, before: UOp, after: UOp) -> None: self.fired[name] = self.fired.get(name, 0) + 1

    def step(self, stage: str, name: str, before: UOp, after: UOp) -> None:
        took = time.perf_counter() - self.since
        if before is not after:
            rules = ", ".join(f"{rule} x{count}" for rule, count in sorted(self.fired.items(), key=lambda x: -x[1]))
            sizes = f"{len(before.toposort()):5} -> {len(after.toposort()):5} nodes"
            print(f"  {stage}: {name:<24} {sizes} {seconds(took):>10}  {rules}", file=sys.stderr)
        self.__init__()  # type: ignore[misc]


def watch_passes() -> None:
    """Let DEBUG=5 show the passes from now on; whoever listens already keeps listening instead."""
    if DEBUG.value >= 5 and trace.tracer is None: trace.listen(PassPrinter())
    elif DEBUG.value < 5 and isinstance(trace.tracer, PassPrinter): trace.listen(None)


def buffer_text(slot: int, size: int, dtype: DType) -> str:
    """A buffer for people: f32[64] #3."""
    return f"{dtype.short}[{size}] #{slot}"


if VIZ.value: importlib.import_module("glassgrad.viz.server").start(VIZ.value)   # the page is up before the first kernel is made

"""Beam: with BEAM=n the tiling of each kernel is chosen by measuring around the cost model's choice, instead of trusting it.

From the n best tilings so far all that differ in one choice (passes/choices.py) are ranked by the model, and the first ones are compiled
and timed beside the model's own in another process (trial.py), until nothing better turns up or the time is over. What was measured is kept
on disk: a search that was broken off goes on where it stopped, one that was finished is not done again. A tiling that fails, hangs or
computes something else is out; one that is not clearly faster than the model's is not taken.
"""
from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from glassgrad import flow
from glassgrad.device.device import DeviceBase
from glassgrad.engine import debug
from glassgrad.engine.cache import DiskCache
from glassgrad.passes.choices import neighbours
from glassgrad.passes.tile import tile
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops, Tiling
from glassgrad.uop.text import parse_arg, show_arg, to_text
from glassgrad.uop.uop import UOp

BUDGET_S = 8.0           # for one kernel
ANSWER_S = 10.0          # that one tiling may take to compile and run
PER_PLACE = 8            # tilings measured around each of the n best, at a time
CLEARLY = 0.97           # of the default's time


class Trials:
    """The other process: started when there is something to measure, and again after a tiling that took it down."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; an `error` if there is none in time."""
        if self.process is None:
            env = {**os.environ, "BEAM": "0", "DEBUG": "0", "VIZ": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self.process = subprocess.Popen([sys.executable, "-m", "glassgrad.engine.trial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None and pipe_out is not None
        try:
            pipe_in.write(json.dumps(request).encode() + b"\n")
            pipe_in.flush()
            if select.select([pipe_out], [], [], ANSWER_S)[0] and (line := pipe_out.readline()): return json.loads(line)
        except OSError: pass
        except BaseException:       # Ctrl-C: an answer that comes later must not be taken for that of the next request
            self.close()
            raise
        code = self.process.poll()
        self.close()
        return {"error": "no answer in time" if code is None else f"the process ended with {code}", "died": True}

    def close(self) -> None:
        """End the process."""
        if self.process is None: return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None: pipe.close()
        self.process = None


_trials = Trials()
atexit.register(_trials.close)


def search(ast: UOp, device: DeviceBase, width: int, disk: DiskCache | None, key: str) -> UOp:
    """The kernel with the best tiling found as the arg of its SINK, or as it is. `key` names the search on disk."""
    if device.target.lanes == 1 or any(n.op in (Ops.SORT, Ops.SCAN) or n.op is Ops.PARAM and n.arg.kind != "buffer" for n in ast.toposort()):
        return ast
    entry = disk.get(key) if disk is not None else None
    known: dict[Tiling, float] = {parse_arg(text): ratio for text, ratio in entry.meta["ratios"]} if entry is not None else {}
    if entry is None or not entry.meta["done"]: _measure(ast, device, width, known, disk, key)
    best = min(known, key=known.__getitem__, default=None)
    if best is None or known[best] > CLEARLY: return ast
    debug.say(1, lambda: f"beam: {known[best]:.2f} of the default's time with {show_arg(best)}")
    return ast.replace(arg=best)


def _measure(ast: UOp, device: DeviceBase, width: int, known: dict[Tiling, float], disk: DiskCache | None, key: str) -> None:
    """Add to `known` what tilings take, as shares of the default's time."""
    until = time.monotonic() + BUDGET_S
    kernel = {"kernel": to_text(ast), "device": device.name, "threads": device.target.threads}
    opened = _trials.ask(**kernel)
    if "error" in opened:       # too large to try, or to try in time: the model's tiling stands
        debug.say(1, f"beam: not searched: {opened['error']}")
        return
    before = flow.up_to("tile", ast, device.target)
    known.setdefault(_spelled(before, Tiling(), device)[0], 1.0)
    done = False
    while not done and time.monotonic() < until:
        places = sorted(known, key=known.__getitem__)[:width]
        fresh: dict[Tiling, float] = {}
        for place in places:
            for choice in neighbours(before, place, device.target):
                try: tiling, cycles = _spelled(before, choice, device)
                except CompilerBug: continue            # there is no such tiling
                if tiling not in known: fresh[tiling] = cycles
        for tiling in sorted(fresh, key=fresh.__getitem__)[:PER_PLACE * len(places)]:
            if time.monotonic() > until: break
            found = _trials.ask(tiling=show_arg(tiling))
            known[tiling] = found["seconds"] / found["default"] if "error" not in found else float("inf")
            debug.say(3, f"  beam: {known[tiling]:6.2f} {show_arg(tiling)} {found.get('error', '')}")
            if found.get("died") and "error" in _trials.ask(**kernel): return
        else: done = min(known, key=known.__getitem__) in places
        if disk is not None: disk.put(key, {"done": done, "ratios": [(show_arg(s), r) for s, r in known.items()]})


def _spelled(before: UOp, tiling: Tiling, device: DeviceBase) -> tuple[Tiling, float]:
    """A tiling with all choices filled in, and the cycles that the model expects."""
    made = tile(before.replace(arg=tiling), device.target).arg
    return made._replace(cycles=0.0), made.cycles

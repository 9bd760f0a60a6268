"""Trial: a process of its own that compiles and times tilings of kernels for BEAM, so that a bad one takes nobody along.

It reads lines of JSON: `{"kernel": text, "device": name, "threads": n}` compiles a kernel as the cost model tiles it, keeps what it
computes as the reference and answers `{"seconds": s}`; `{"tiling": text}` times that tiling beside the default, by turns. Answers are lines
as well, `{"error": text}` where a tiling fails or computes something else.
"""
from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

from glassgrad import flow
from glassgrad.device.device import Device, Launch
from glassgrad.uop.bits import from_storage, storage_name, to_storage, value_name
from glassgrad.uop.ops import np
from glassgrad.uop.text import parse_arg, parse_text
from glassgrad.uop.uop import UOp

TURNS, TURN_S = 5, 0.004     # of each tiling; a turn is as many runs as fit
TOLERANCE = 64               # units in the last place of the largest value: a tiling may sum in another order


class Trial:
    """One kernel with its inputs, and what the default tiling makes of them."""

    def __init__(self, ast: UOp, device: str, threads: int) -> None:
        self.ast, self.device = ast, Device[device]
        if threads != self.device.target.threads: self.device.set_threads(threads)  # type: ignore[attr-defined]
        self.params = flow.lower(ast, self.device.target).params
        self.handles = [self.device.alloc(p.size * p.dtype.itemsize) for p in self.params]
        self.default = self.compile(ast)
        self.run(self.default)
        self.reference = [self.values(i) for i in self.outs]

    def close(self) -> None:
        """Give the memory back."""
        for p, handle in zip(self.params, self.handles): self.device.free(handle, p.size * p.dtype.itemsize)

    def compile(self, ast: UOp) -> Any:
        """The kernel, ready to be replayed."""
        program = flow.lower(ast, self.device.target)
        self.outs = program.outs
        binary = self.device.compile(program, getattr(program, "source", "") or self.device.render(program))
        launch = Launch(self.device.load(program.name, binary), self.handles, (), program.grid, program.local)
        return self.device.graph([launch])

    def run(self, replay: Any) -> None:
        """Once, on fresh inputs: an output may be an input as well. Numbers that may be places are 0, others between 0.5 and 1.5."""
        for p, handle in zip(self.params, self.handles):
            values = np.random.default_rng(p.slot).random(p.size, np.float32) + 0.5 if p.dtype.is_float else np.zeros(p.size, value_name(p.dtype))
            self.device.copyin(handle, memoryview(to_storage(p.dtype, values)).cast("B"))
        replay.run(())
        self.device.synchronize()

    def values(self, slot: int) -> Any:
        """What a parameter holds now."""
        p = next(p for p in self.params if p.slot == slot)
        raw = bytearray(p.size * p.dtype.itemsize)
        self.device.copyout(memoryview(raw), self.handles[self.params.index(p)])
        return from_storage(p.dtype, np.frombuffer(raw, storage_name(p.dtype)))

    def differs(self) -> bool:
        """Whether the outputs are not those of the default tiling."""
        for slot, wanted in zip(self.outs, self.reference):
            found, dtype = self.values(slot), next(p.dtype for p in self.params if p.slot == slot)
            if not dtype.is_float: same = np.array_equal(found, wanted)
            else:
                x, y = found.astype(np.float64), wanted.astype(np.float64)
                room = np.abs(y[np.isfinite(y)]).max(initial=0.0) * TOLERANCE * 2.0 ** -dtype.mantissa
                same = np.allclose(x, y, rtol=0, atol=room, equal_nan=True)
            if not same: return True
        return False

    def seconds(self, replay: Any) -> float:
        """Of one run: the fastest of a turn."""
        best, until = float("inf"), time.perf_counter() + TURN_S
        while True:
            start = time.perf_counter()
            replay.run(())
            self.device.synchronize()
            end = time.perf_counter()
            best = min(best, end - start)
            if end > until: return best

    def measure(self, tiling: Any) -> dict[str, Any]:
        """The seconds of the default and of a tiling, medians of turns taken one after the other."""
        replay = self.compile(self.ast.replace(arg=tiling))
        self.run(replay)
        if self.differs(): return {"error": "it computes something else"}
        turns = [(self.seconds(self.default), self.seconds(replay)) for _ in range(TURNS)]
        return {"default": statistics.median(t[0] for t in turns), "seconds": statistics.median(t[1] for t in turns)}


def serve() -> None:
    """Answer requests until there are no more; prints nothing else."""
    out, trial = os.fdopen(os.dup(1), "w"), None
    os.dup2(2, 1)               # what anybody else prints must not look like an answer
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "kernel" in asked:
                if trial is not None: trial.close()
                trial = None
                trial = Trial(parse_text(asked["kernel"])[-1], asked["device"], asked["threads"])
                answer: dict[str, Any] = {"seconds": trial.seconds(trial.default)}
            else:
                assert trial is not None, "a kernel comes before its tilings"
                answer = trial.measure(parse_arg(asked["tiling"]))
        except Exception as e: answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__": serve()

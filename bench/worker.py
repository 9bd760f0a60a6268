"""A worker: one framework on some threads in a process of its own, told on its standard input what to do.

One JSON line each way. {"do": "open", "case", "folder", "save"} readies a case (its inputs lie in the folder as .npy,
results are saved), {"do": "turn", "mode", "seconds"} times calls, {"do": "close"} drops the case, {"do": "draw", "family",
"number", "save"} readies a held-out shape, {"do": "kernels"} counts kernels, {"do": "quit"}. Between commands it waits.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MOST_CALLS = 1000  # of one turn
SLOW_CALL_S = 2.0  # who takes longer at the second call is warm enough
WARM_CALLS = 3  # before anything is timed: a jit that captures on its second call replays on its third


class Worker:
    """Carries out commands; holds the open case.

    `idle` in an answer: the CPU seconds used while it waited for the command, and how long it waited.
    """

    def __init__(self, name: str, threads: int) -> None:
        import frameworks

        self.name, self.threads = name, threads
        self.framework = None if name == "limits" else frameworks.open_framework(name, threads)
        self.calls: dict[str, Any] = {}
        self.last: tuple[float, float] | None = None

    def open(self, case: str, folder: str, save: str) -> dict[str, Any]:
        """Load the inputs, run each mode until it is warm, save what it computed."""
        import cases
        import frameworks
        import numpy as np

        if self.name == "limits":
            return self.open_limits()
        self.calls, firsts, lasts = {}, {}, {}
        found = next(c for c in cases.cases() if c.name == case)
        try:
            inputs = [self.framework.load(np.load(Path(folder, f"{i.name}.npy")), i.dtype) for i in found.inputs]
            calls = self.framework.calls(found, inputs)
        except frameworks.Absent as e:
            return {"modes": [], "first_s": {}, "last_s": {}, "absent": str(e)}
        for mode, call in calls.items():
            losses = []
            for turn in range(WARM_CALLS):
                start = time.perf_counter()
                result = call()
                lasts[mode] = time.perf_counter() - start
                firsts.setdefault(mode, lasts[mode])
                if found.trains:
                    losses.append(self.framework.read(result)[0])
                elif turn and lasts[mode] > SLOW_CALL_S:
                    break
            if mode != "build":
                np.savez(Path(save, f"{mode}.npz"), *([np.stack(losses)] if found.trains else self.framework.read(result)))
        self.calls = calls
        return {"modes": list(calls), "first_s": firsts, "last_s": lasts}

    def draw(self, family: str, number: int, save: str) -> dict[str, Any]:
        """Ready a random program of heldout.py as the mode `timed`; save what it computes, and torch also in float64."""
        import heldout
        import numpy as np

        found = heldout.draws(family)[number]
        fn = found.program(heldout.TorchNames(self.framework.torch) if self.name == "torch" else heldout.GlassgradNames())
        arrays = found.inputs()
        call = self.framework.timed(fn, [self.framework.load(x) for x in arrays])
        start = time.perf_counter()
        call()
        first = time.perf_counter() - start
        call()
        np.save(Path(save, f"{self.name}.npy"), self.framework.read(call())[0])
        if self.name == "torch":
            wide = [self.framework.load(x, "float64") for x in arrays]
            np.save(Path(save, "expected.npy"), self.framework.read(fn(*wide))[0])
        self.calls = {"timed": call}
        return {"first_s": first}

    def open_limits(self) -> dict[str, Any]:
        """The machine's limits as a framework of three modes."""
        import limits

        if self.framework is None:
            self.framework = limits.Limits()
        self.calls = {
            name: lambda name=name: getattr(self.framework, name)(self.threads) for name in ("fma", "read", "copy")
        }
        return {"modes": list(self.calls), "first_s": {}, "last_s": {}}

    def turn(self, mode: str, seconds: float) -> dict[str, Any]:
        """Times of single calls for about `seconds`, after one that is not timed; where one takes that long, its time."""
        call, times = self.calls[mode], []
        is_rate = self.name == "limits"
        start = time.perf_counter()
        call()
        spent = time.perf_counter() - start
        if spent > seconds and not is_rate:
            return {"times": [spent]}
        end = start + spent + seconds
        while not times or (time.perf_counter() < end and len(times) < MOST_CALLS):
            start = time.perf_counter()
            value = call()
            times.append(value if is_rate else time.perf_counter() - start)
        return {"times": times}

    def kernels(self) -> dict[str, Any]:
        return {"kernels": self.framework.kernels()}

    def close(self) -> dict[str, Any]:
        self.calls = {}
        if self.name == "torch.compile":
            self.framework.torch.compiler.reset()
        gc.collect()
        return {}

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command."""
        now = (time.process_time(), time.perf_counter())
        idle = [round(a - b, 6) for a, b in zip(now, self.last)] if self.last else [0.0, 0.0]
        do = command.pop("do")
        try:
            reply = getattr(self, do)(**command)
        except Exception as e:
            reply = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"[:300]}
        self.last = (time.process_time(), time.perf_counter())
        return {**reply, "idle": idle}


def main() -> None:
    """Serve commands until quit or the end of input: `python bench/worker.py FRAMEWORK THREADS [CPU,CPU...]`."""
    name, threads = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        os.sched_setaffinity(0, map(int, sys.argv[3].split(",")))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not stand between the answers
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:1] = [here, os.path.dirname(here)]
    try:
        worker: Worker | None = Worker(name, threads)
    except Exception as e:
        worker, why = None, f"{type(e).__name__}: {e}"
    print(json.dumps({"ready": worker is not None, "error": None if worker else why}), file=out, flush=True)
    if worker is None:
        return
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            break
        print(json.dumps(worker.run(command)), file=out, flush=True)


if __name__ == "__main__":
    main()

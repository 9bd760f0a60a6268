"""A worker: one framework on some threads in a process of its own, told on its standard input what to do.

One JSON line each way. {"do": "open", "case", "folder", "save"} readies a case (its inputs lie in the folder as .npy,
results are saved), {"do": "turn", "mode", "seconds"} times calls, {"do": "close"} drops the case, {"do": "kernels"}
counts kernels, {"do": "quit"}. Between commands a worker only waits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Calls = dict[str, Callable[[], Any]]
MOST_CALLS = 1000  # of one turn
WARM_CALLS = 3  # before anything is timed: a jit that captures on its second call replays on its third


# ---- frameworks: family -> function of tensors, and how it is run --------------------------------------------------
class Shared:
    """glassgrad and tinygrad, by the names they share."""

    def __init__(self, names: dict[str, Any], modes: tuple[str, ...], synchronize: Callable[[], None]) -> None:
        self.names, self.modes, self.synchronize = names, modes, synchronize

    def load(self, x: Any) -> Any:
        return self.names["tensor"](x).realize()

    def read(self, x: Any) -> Any:
        return x.numpy()

    def function(self, family: str) -> Callable[..., Any]:
        """What the family computes, lazily."""
        import cases

        def chain(x: Any, y: Any) -> Any:
            for _ in range(cases.CHAIN):
                x = x + y
            return x

        if family == "resnet18":
            import compile_time
            import models

            return compile_time.load_net(self.names, "resnet18_forward", models.resnet18_weights())
        return {
            "matmul": lambda x, y: x @ y,
            "conv": lambda x, w: x.conv2d(w, padding=1),
            "sum": lambda x: x.sum(),
            "softmax": lambda x: x.softmax(-1),
            "layernorm": lambda x, w, b: x.layernorm(-1, 1e-5) * w + b,
            "gelu": lambda x: (x * cases.SCALE + cases.SHIFT).gelu("tanh"),
            "attention": lambda q, k, v: q.scaled_dot_product_attention(k, v),
            "add": lambda x, y: x + y,
            "chain": chain,
        }[family]

    def calls(self, family: str, inputs: list[Any]) -> Calls:
        """Mode -> call that returns a finished result. A chain of additions is about laziness: it is never captured."""
        fn = self.function(family)

        def done(x: Any) -> Any:
            self.synchronize()
            return x

        made = {"jit": self.timed(fn, inputs), "eager": lambda: done(fn(*inputs).realize())}
        return {mode: made[mode] for mode in self.modes_of(family)}

    def timed(self, fn: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
        """A call of the captured function that returns when its result is there."""
        jitted = self.names["jit"](lambda *xs: fn(*xs).realize())

        def call() -> Any:
            x = jitted(*inputs)
            self.synchronize()
            return x

        return call

    def modes_of(self, family: str) -> tuple[str, ...]:
        if family == "resnet18":  # its weights are trainable, so what was computed is kept as long as the result: the next call costs nothing
            return ("jit",)
        return ("eager",) if family == "chain" else ("jit", "eager") if family == "add" else self.modes

    def kernels(self, counters: Any) -> dict[str, int]:
        """Kernels of one realize of each."""
        tensor = self.names["tensor"]

        def random(*shape: int) -> Any:
            return tensor.randn(*shape).realize()

        x, w, b, r = random(64, 96), random(96, 128), random(128), random(64, 128)
        q, k, v = (random(1, 4, 64, 32) for _ in "qkv")
        scale, shift = random(96), random(96)
        graphs = {
            "softmax": lambda: x.softmax(-1),
            "log_softmax": lambda: x.log_softmax(-1),
            "layernorm": lambda: x.layernorm(-1) * scale + shift,
            "argmax": lambda: x.argmax(-1),
            "attention": lambda: q.scaled_dot_product_attention(k, v),
            "matmul+bias+gelu+residual": lambda: (x @ w + b).gelu("tanh") + r,
        }
        counts = {}
        for name, graph in graphs.items():
            counters.reset()
            graph().realize()
            counts[name] = counters.kernel_count
        return counts


def open_glassgrad() -> tuple[Any, Callable[[], dict[str, int]]]:
    import compile_time

    names = compile_time.glassgrad_names()
    from glassgrad import Device, GlobalCounters

    framework = Shared(names, ("jit", "eager"), Device[Device.DEFAULT].synchronize)
    return framework, lambda: framework.kernels(GlobalCounters)


def open_tinygrad() -> tuple[Any, Callable[[], dict[str, int]]]:
    import compile_time

    names = compile_time.tinygrad_names()
    from tinygrad import Device, GlobalCounters

    framework = Shared(names, ("jit",), Device[Device.DEFAULT].synchronize)
    return framework, lambda: framework.kernels(GlobalCounters)


class Torch:
    """torch, eager."""

    def __init__(self, threads: int) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def load(self, x: Any) -> Any:
        return self.torch.from_numpy(x)

    def read(self, x: Any) -> Any:
        return x.numpy()

    def calls(self, family: str, inputs: list[Any]) -> Calls:
        import cases
        import models

        F = self.torch.nn.functional

        def chain(x: Any, y: Any) -> Any:
            for _ in range(cases.CHAIN):
                x = x + y
            return x

        fn = (
            models.torch_resnet18(models.resnet18_weights()).eval()
            if family == "resnet18"
            else {
                "matmul": lambda x, y: x @ y,
                "conv": lambda x, w: F.conv2d(x, w, padding=1),
                "sum": lambda x: x.sum(),
                "softmax": lambda x: x.softmax(-1),
                "layernorm": lambda x, w, b: F.layer_norm(x, w.shape, w, b),
                "gelu": lambda x: F.gelu(x * cases.SCALE + cases.SHIFT, approximate="tanh"),
                "attention": F.scaled_dot_product_attention,
                "add": lambda x, y: x + y,
                "chain": chain,
            }[family]
        )
        return {"eager": self.timed(fn, inputs)}

    def timed(self, fn: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
        return lambda: fn(*inputs)


class Jax:
    """jax, jitted."""

    def __init__(self) -> None:
        import jax

        self.jax = jax

    def load(self, x: Any) -> Any:
        return self.jax.numpy.asarray(x).block_until_ready()

    def read(self, x: Any) -> Any:
        import numpy as np

        return np.asarray(x)

    def calls(self, family: str, inputs: list[Any]) -> Calls:
        import cases
        import models

        jax, jnp = self.jax, self.jax.numpy

        def attention(q: Any, k: Any, v: Any) -> Any:
            return jax.nn.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v

        def layernorm(x: Any, w: Any, b: Any) -> Any:
            rest = x - x.mean(-1, keepdims=True)
            return rest * jax.lax.rsqrt((rest * rest).mean(-1, keepdims=True) + 1e-5) * w + b

        def chain(x: Any, y: Any) -> Any:
            for _ in range(cases.CHAIN):
                x = x + y
            return x

        if family == "resnet18":
            weights = {k: jnp.asarray(v) for k, v in models.resnet18_weights().items()}
            forward = jax.jit(lambda w, x: models.jax_resnet18(w, x)[0])
            return {"jit": lambda: forward(weights, *inputs).block_until_ready()}
        fn = {
            "matmul": lambda x, y: x @ y,
            "conv": lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME"),
            "sum": lambda x: x.sum(),
            "softmax": lambda x: jax.nn.softmax(x),
            "layernorm": layernorm,
            "gelu": lambda x: jax.nn.gelu(x * cases.SCALE + cases.SHIFT, approximate=True),
            "attention": attention,
            "add": lambda x, y: x + y,
            "chain": chain,
        }[family]
        jitted, made = jax.jit(fn), {}
        if family != "chain":
            made["jit"] = lambda: jitted(*inputs).block_until_ready()
        if family in ("add", "chain"):
            made["eager"] = lambda: jnp.asarray(fn(*inputs)).block_until_ready()
        return made


# ---- the worker ----------------------------------------------------------------------------------------------------
class Worker:
    """Carries out commands; holds the open case.

    `idle` in an answer: the CPU seconds used while it waited for the command, and how long it waited.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads, self.count = name, threads, None
        if name == "glassgrad":
            self.framework, self.count = open_glassgrad()
        elif name == "tinygrad":
            self.framework, self.count = open_tinygrad()
        elif name == "torch":
            self.framework = Torch(threads)
        elif name == "jax":
            self.framework = Jax()
        else:
            self.framework = None
        self.calls: Calls = {}
        self.last: tuple[float, float] | None = None

    def open(self, case: str, folder: str, save: str) -> dict[str, Any]:
        """Load the inputs, run each mode until it is warm, save what it computed."""
        import cases
        import numpy as np

        if self.name == "limits":
            return self.open_limits()
        self.calls, firsts = {}, {}
        found = next(c for c in cases.cases() if c.name == case)
        inputs = [self.framework.load(np.load(Path(folder, f"{name}.npy"))) for name in found.shapes]
        self.calls = self.framework.calls(found.family, inputs)
        for mode, call in self.calls.items():
            start = time.perf_counter()
            call()
            firsts[mode] = time.perf_counter() - start
            for _ in range(WARM_CALLS - 1):
                result = call()
            np.save(Path(save, f"{mode}.npy"), self.framework.read(result))
        return {"modes": list(self.calls), "first_s": firsts}

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
        np.save(Path(save, f"{self.name}.npy"), self.framework.read(call()))
        if self.name == "torch":
            wide = [self.framework.load(x).double() for x in arrays]
            np.save(Path(save, "expected.npy"), self.framework.read(fn(*wide)))
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
        return {"modes": list(self.calls), "first_s": {}}

    def turn(self, mode: str, seconds: float) -> dict[str, Any]:
        """Times of single calls for about `seconds`, after one that is not timed."""
        call, times = self.calls[mode], []
        is_rate = self.name == "limits"
        call()
        end = time.perf_counter() + seconds
        while not times or (time.perf_counter() < end and len(times) < MOST_CALLS):
            start = time.perf_counter()
            value = call()
            times.append(value if is_rate else time.perf_counter() - start)
        return {"times": times}

    def kernels(self) -> dict[str, Any]:
        return {"kernels": self.count() if self.count else None}

    def close(self) -> dict[str, Any]:
        self.calls = {}
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

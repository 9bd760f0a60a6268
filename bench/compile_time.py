"""Compile time of one net in one framework, in this fresh process: prints one JSON line.

    python bench/compile_time.py glassgrad resnet18_forward [--warm] [--save FILE.npy]
    python bench/compile_time.py glassgrad unet          # schedules and compiles for the device NULL, which runs nothing

CPU seconds of the calls until the steady state (tracing, scheduling, lowering, compiling; children included), less what
as many steady calls take; building the net and loading its weights is not counted. Caches on disk are off unless --warm
says that an earlier process has filled them. All frameworks get the same weights and inputs; what they computed goes to
FILE.npy, to be compared.
The framework `reference` is torch in float64, not timed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

NETS = ("resnet18_forward", "gpt2_forward", "resnet18_train", "resnet50_forward")
CALLS = 3  # until the steady state: a jit that captures on its second call runs on its third
STEADY_CALLS = 4
NO_CACHE = {"CACHE": "0", "CACHELEVEL": "0", "CCACHE": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"}
# tinygrad would compile in a pool of processes: its CPU seconds are counted whole, in one process
ONE_PROCESS = {"PARALLEL": "0"}


def case_of(net: str) -> Any:
    """The net as a case of the speed table."""
    import cases

    family = net.removesuffix("_forward")
    known = {c.family: c for c in cases.cases()[::-1]}
    return known[family] if family in known else known["resnet18"]._replace(name=net, family=family)


def cpu_seconds() -> float:
    """CPU seconds of this process, its threads and the children that have ended."""
    t = os.times()
    return time.process_time() + t.children_user + t.children_system


def unet() -> dict[str, Any]:
    """CPU seconds from the call of the denoiser until every kernel is rendered (NULL) and, apart, compiled by LLVM."""
    os.environ["DEV"] = "NULL"
    import models
    from glassgrad import Device, Tensor, nn
    from glassgrad.nn import state

    net = models.UNet(nn)
    for p in state.get_parameters(net):
        p.replace(Tensor.empty(*p.shape))
    null, cpu, sources = Device["NULL"], Device["CPU"], []
    render = null.render

    def keep(program: Any) -> str:
        source = render(program)
        sources.append((program, source))
        return source

    null.render = keep
    u = models.UNET
    inputs = [(1, u.latent, u.size, u.size), (1, u.widths[0]), (1, u.tokens, u.context)]
    start = cpu_seconds(), time.perf_counter()
    net(*[Tensor.empty(*s) for s in inputs]).realize()
    null_cpu, null_wall = cpu_seconds() - start[0], time.perf_counter() - start[1]
    start = cpu_seconds()
    for program, source in sources:
        cpu.compile(program, source)
    return {"null_cpu_s": null_cpu, "null_wall_s": null_wall, "llvm_cpu_s": cpu_seconds() - start, "kernels": len(sources)}


def main(framework: str, net: str, warm: bool, save: str | None) -> None:
    """Measure and print."""
    os.environ.update(ONE_PROCESS if warm else {**NO_CACHE, **ONE_PROCESS})
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:1] = [here, os.path.dirname(here)]
    if net == "unet":
        print(json.dumps({"framework": framework, "net": net, **unet()}))
        return
    import frameworks
    import numpy as np

    case = case_of(net)
    arrays = case.arrays()
    if framework == "reference":
        results = case.reference(arrays, CALLS)
        np.save(save, results[0] if case.trains else np.stack(results * CALLS))
        return
    opened = frameworks.open_framework(framework, 0)
    ((_, calculate),) = opened.calls(case, [opened.load(a, i.dtype) for a, i in zip(arrays.values(), case.inputs)]).items()

    def call() -> Any:
        return opened.read(calculate())[0]

    cpu, wall = cpu_seconds(), time.perf_counter()
    results = [np.array(call()) for _ in range(CALLS)]
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    if save:
        np.save(save, np.stack(results))
    steady, turns = [], []
    for _ in range(STEADY_CALLS):
        c, w = cpu_seconds(), time.perf_counter()
        call()
        steady.append(cpu_seconds() - c)
        turns.append(time.perf_counter() - w)
    print(
        json.dumps(
            {
                "framework": framework,
                "net": net,
                "warm": warm,
                "compile_cpu_s": max(cpu - CALLS * sorted(steady)[1], 0.0),
                "compile_wall_s": max(wall - CALLS * sorted(turns)[1], 0.0),
                "step_s": sorted(turns)[1],
            }
        )
    )


if __name__ == "__main__":
    options = sys.argv[3:]
    main(
        sys.argv[1],
        sys.argv[2],
        "--warm" in options,
        options[options.index("--save") + 1] if "--save" in options else None,
    )

"""Two measurements that need a process from its start: prints one JSON line.

    python bench/fresh.py memory FRAMEWORK    # bytes that a training step of ResNet-18 adds at its peak, resident
    python bench/fresh.py first START         # seconds since START (time.monotonic) until the first result of ResNet-18
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 4


def memory(framework: str) -> dict[str, Any]:
    """The resident peak of steps in their steady state, less what was resident before the first: weights and inputs are loaded by then.

    What the first steps leave behind is part of it: compiled code, momenta, gradients, memory kept for the next step.
    """
    import cases
    import frameworks
    import machine

    case = next(c for c in cases.cases() if c.family == "resnet18_train")
    opened = frameworks.open_framework(framework, 0)
    (step,) = opened.calls(case, [opened.load(a, i.dtype) for a, i in zip(case.arrays().values(), case.inputs)]).values()
    before = machine.resident_bytes()
    losses = [float(opened.read(step())[0]) for _ in range(STEPS)]
    machine.forget_peak()
    losses += [float(opened.read(step())[0]) for _ in range(STEPS)]
    return {"peak_bytes": machine.peak_bytes() - before, "before_bytes": before, "losses": losses}


def first(start: float) -> dict[str, Any]:
    """What a user waits for: the interpreter's start, imports, the net, its weights loaded, compilation, one forward.

    Not counted: drawing the random weights and the image.
    """
    import models

    began = time.monotonic()
    import numpy as np

    drawing = time.monotonic()
    weights, image = models.resnet_weights("resnet18"), np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    drawn = time.monotonic() - drawing
    from glassgrad import Tensor, nn
    from glassgrad.nn import state

    net = models.ResNet(nn, "resnet18")
    state.load_state_dict(net, {k: Tensor(v) for k, v in weights.items()}, verbose=False)
    loaded = time.monotonic()
    result = net(Tensor(image)).numpy()
    end = time.monotonic()
    return {"wall_s": end - start - drawn, "start_s": began - start, "forward_s": end - loaded, "sum": float(result.sum())}


if __name__ == "__main__":
    sys.path[:1] = [HERE, os.path.dirname(HERE)]
    print(json.dumps(memory(sys.argv[2]) if sys.argv[1] == "memory" else first(float(sys.argv[2]))))

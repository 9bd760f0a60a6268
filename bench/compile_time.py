"""Compile time of one net in one framework, in this fresh process: prints one JSON line.

    python bench/compile_time.py glassgrad resnet18_forward [--warm] [--save FILE.npy]

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
from collections.abc import Callable
from typing import Any

NETS = ("resnet18_forward", "gpt2_forward", "resnet18_train")
CALLS = 3  # until the steady state: a jit that captures on its second call runs on its third
STEADY_CALLS = 4
LR, MOMENTUM, CLASSES, BATCH = 0.01, 0.9, 10, 16
NO_CACHE = {"CACHE": "0", "CACHELEVEL": "0", "CCACHE": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"}
# tinygrad would compile in a pool of processes: its CPU seconds are counted whole, in one process
ONE_PROCESS = {"PARALLEL": "0"}


def tinygrad_names() -> dict[str, Any]:
    """The shared names in tinygrad, its CPU device with the LLVM renderer."""
    os.environ.setdefault("DEV", "CPU:LLVM")
    import tinygrad
    from tinygrad import nn
    from tinygrad.nn import optim

    return {
        "tensor": tinygrad.Tensor,
        "nn": nn,
        "optim": optim,
        "jit": tinygrad.TinyJit,
        "state": nn.state,
        "train": lambda: tinygrad.Context(TRAINING=1),
    }


def glassgrad_names() -> dict[str, Any]:
    """The shared names in glassgrad."""
    import glassgrad
    from glassgrad import nn
    from glassgrad.nn import optim

    return {
        "tensor": glassgrad.Tensor,
        "nn": nn,
        "optim": optim,
        "jit": glassgrad.TinyJit,
        "state": nn.state,
        "train": glassgrad.Tensor.train,
    }


def net_inputs(net: str) -> tuple[Any, ...]:
    """The inputs as NumPy arrays."""
    import models
    import numpy as np

    rng = np.random.default_rng(0)
    if net == "gpt2_forward":
        return rng.integers(0, models.GPT2.vocab, (1, models.GPT2.tokens), dtype=np.int32), np.arange(
            models.GPT2.tokens, dtype=np.int32
        )[None]
    if net == "resnet18_forward":
        return (rng.standard_normal((1, 3, 224, 224), np.float32),)
    return rng.standard_normal((BATCH, 3, 32, 32), np.float32), (np.arange(BATCH) % CLASSES).astype(np.int32)


def net_weights(net: str) -> dict[str, Any]:
    """The weights as NumPy arrays."""
    import models

    return (
        models.gpt2_weights()
        if net == "gpt2_forward"
        else models.resnet18_weights(1000 if net == "resnet18_forward" else CLASSES)
    )


def load_net(names: dict[str, Any], net: str, weights: dict[str, Any]) -> Any:
    """The net in glassgrad or tinygrad, its weights realized."""
    import models

    tensor, nn, state = names["tensor"], names["nn"], names["state"]
    model = models.Gpt2(nn) if net == "gpt2_forward" else models.ResNet18(nn, weights["fc.bias"].size)
    state.load_state_dict(model, {k: tensor(v) for k, v in weights.items()}, verbose=False)
    for p in state.get_parameters(model):
        p.realize()
    return model


def shared(names: dict[str, Any], net: str) -> Callable[[], Any]:
    """One call of the net in glassgrad or tinygrad."""
    model = load_net(names, net, net_weights(net))
    inputs = [names["tensor"](x).realize() for x in net_inputs(net)]
    if net != "resnet18_train":
        forward = names["jit"](lambda *xs: model(*xs).realize())
        return lambda: forward(*inputs).numpy()
    opt = names["optim"].SGD(names["state"].get_parameters(model), lr=LR, momentum=MOMENTUM)

    def step(x: Any, y: Any) -> Any:
        with names["train"]():
            opt.zero_grad()
            loss = model(x).sparse_categorical_crossentropy(y).backward()
            return loss.realize(*opt.schedule_step())

    train = names["jit"](step)
    return lambda: train(*inputs).numpy()


def jax(net: str) -> Callable[[], Any]:
    """One call of the net in jax."""
    import jax
    import jax.numpy as jnp
    import models
    import numpy as np

    weights = {k: jnp.asarray(v) for k, v in net_weights(net).items()}
    inputs = [jnp.asarray(x) for x in net_inputs(net)]
    if net != "resnet18_train":
        forward = jax.jit(
            (lambda w, tokens, _: models.jax_gpt2(w, tokens))
            if net == "gpt2_forward"
            else lambda w, x: models.jax_resnet18(w, x)[0]
        )
        return lambda: np.asarray(forward(weights, *inputs))
    kept = {k: v for k, v in weights.items() if "running" in k or "tracked" in k}
    learnt = {k: v for k, v in weights.items() if k not in kept}

    def loss_of(p: Any, kept: Any, x: Any, y: Any) -> Any:
        logits, new = models.jax_resnet18({**p, **kept}, x, True)
        return -jax.nn.log_softmax(logits)[jnp.arange(BATCH), y].mean(), new

    @jax.jit
    def step(p: Any, kept: Any, m: Any, x: Any, y: Any) -> Any:
        (loss, kept), g = jax.value_and_grad(loss_of, has_aux=True)(p, kept, x, y)
        m = jax.tree_util.tree_map(lambda a, b: MOMENTUM * a + b, m, g)
        return jax.tree_util.tree_map(lambda a, b: a - LR * b, p, m), kept, m, loss

    state = [learnt, kept, jax.tree_util.tree_map(jnp.zeros_like, learnt)]

    def call() -> Any:
        *state[:], loss = step(*state, *inputs)
        return np.asarray(loss)

    return call


def reference(net: str) -> Callable[[], Any]:
    """One call of the net in torch, in float64."""
    import models
    import torch

    weights, inputs = net_weights(net), [torch.tensor(x) for x in net_inputs(net)]
    if net == "gpt2_forward":
        wide = {k: torch.tensor(v).double() for k, v in weights.items()}
        return lambda: models.torch_gpt2(wide, inputs[0]).numpy()
    model = models.torch_resnet18(weights, weights["fc.bias"].size).double()
    if net == "resnet18_forward":
        return lambda: model.eval()(inputs[0].double()).detach().numpy()
    opt = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def call() -> Any:
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.train()(inputs[0].double()), inputs[1].long())
        loss.backward()
        opt.step()
        return loss.detach().numpy()

    return call


def cpu_seconds() -> float:
    """CPU seconds of this process, its threads and the children that have ended."""
    t = os.times()
    return time.process_time() + t.children_user + t.children_system


def main(framework: str, net: str, warm: bool, save: str | None) -> None:
    """Measure and print."""
    os.environ.update(ONE_PROCESS if warm else {**NO_CACHE, **ONE_PROCESS})
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:1] = [here, os.path.dirname(here)]
    import numpy as np

    call = {
        "glassgrad": lambda: shared(glassgrad_names(), net),
        "tinygrad": lambda: shared(tinygrad_names(), net),
        "jax": lambda: jax(net),
        "reference": lambda: reference(net),
    }[framework]()
    cpu, wall = cpu_seconds(), time.perf_counter()
    results = [np.array(call()) for _ in range(CALLS)]
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    if save:
        np.save(save, np.stack(results))
    if framework == "reference":
        return
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

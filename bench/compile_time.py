"""Compile time of one net in one framework, in this fresh process: prints one JSON line.

    python bench/compile_time.py glassgrad resnet18_forward

CPU seconds of the calls until the steady state (tracing, scheduling, lowering, compiling), less what the same number of steady calls
takes; loading weights is not counted. Caches on disk are off unless --warm says that an earlier process has filled them.
"""
from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

NETS = ("resnet18_forward", "gpt2_forward", "resnet18_train")
CALLS = 3     # until the steady state: a jit that captures on its second call runs on its third


def likely_tinygrad() -> Any:
    """The shared names in tinygrad, its CPU device with the LLVM renderer."""
    os.environ.setdefault("DEV", "CPU:LLVM")
    import tinygrad
    from tinygrad import nn
    from tinygrad.nn import optim
    return tinygrad.Tensor, nn, optim, tinygrad.TinyJit, nn.state.get_parameters


def ours() -> Any:
    """The shared names in glassgrad."""
    import glassgrad
    from glassgrad import nn
    from glassgrad.nn import optim
    return glassgrad.Tensor, nn, optim, glassgrad.TinyJit, nn.state.get_parameters


def shared(names: Any, net: str) -> Callable[[], None]:
    """One call of the net in glassgrad or tinygrad, weights realized."""
    import models
    tensor, nn, optim, jit, parameters = names
    if net == "gpt2_forward":
        model = models.Gpt2(nn)
        tokens, places = tensor([[i % 50257 for i in range(models.GPT2.tokens)]]).realize(), tensor([list(range(models.GPT2.tokens))]).realize()
        for p in parameters(model): p.realize()
        forward = jit(lambda t, p: model(t, p).realize())
        return lambda: forward(tokens, places).numpy()
    model = models.ResNet18(nn, 1000 if net == "resnet18_forward" else 10)
    for p in parameters(model): p.realize()
    if net == "resnet18_forward":
        x = tensor.randn(1, 3, 224, 224).realize()
        forward = jit(lambda x: model(x).realize())
        return lambda: forward(x).numpy()
    x, y = tensor.randn(16, 3, 32, 32).realize(), tensor([i % 10 for i in range(16)]).realize()
    opt = optim.SGD(parameters(model), lr=0.01, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        with tensor.train():
            opt.zero_grad()
            loss = model(x).sparse_categorical_crossentropy(y).backward()
            opt.step()
            return loss.realize()
    train = jit(step)
    return lambda: train(x, y).numpy()


def jax(net: str) -> Callable[[], None]:
    """One call of the net in jax."""
    import models
    import numpy as np

    import jax
    import jax.numpy as jnp
    rng = np.random.default_rng(0)
    if net == "gpt2_forward":
        params, apply = models.jax_gpt2(rng)
        forward, tokens = jax.jit(apply), jnp.arange(models.GPT2.tokens)[None]
        return lambda: np.asarray(forward(params, tokens))
    params, apply = models.jax_resnet18(rng, 1000 if net == "resnet18_forward" else 10)
    if net == "resnet18_forward":
        forward, x = jax.jit(apply), jnp.asarray(rng.standard_normal((1, 3, 224, 224), dtype="float32"))
        return lambda: np.asarray(forward(params, x))
    x, y = jnp.asarray(rng.standard_normal((16, 3, 32, 32), dtype="float32")), jnp.arange(16) % 10
    moments = jax.tree_util.tree_map(jnp.zeros_like, params)

    def loss_of(p: Any, x: Any, y: Any) -> Any: return -jax.nn.log_softmax(apply(p, x, True))[jnp.arange(16), y].mean()
    @jax.jit
    def step(p: Any, m: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        m = jax.tree_util.tree_map(lambda a, b: 0.9 * a + b, m, g)
        return jax.tree_util.tree_map(lambda a, b: a - 0.01 * b, p, m), m, loss
    state = [params, moments]

    def call() -> None:
        *state[:], loss = step(*state, x, y)
        np.asarray(loss)
    return call


def main(framework: str, net: str, warm: bool) -> None:
    """Measure and print."""
    if not warm: os.environ.update({"CACHE": "0", "CACHELEVEL": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"})
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    call = {"glassgrad": lambda: shared(ours(), net), "tinygrad": lambda: shared(likely_tinygrad(), net), "jax": lambda: jax(net)}[framework]()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(CALLS): call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    steady, turns = [], []
    for _ in range(4):
        c, w = time.process_time(), time.perf_counter()
        call()
        steady.append(time.process_time() - c)
        turns.append(time.perf_counter() - w)
    print(json.dumps({"framework": framework, "net": net, "warm": warm, "compile_cpu_s": max(cpu - CALLS * sorted(steady)[1], 0.0),
                      "compile_wall_s": max(wall - CALLS * sorted(turns)[1], 0.0), "step_s": sorted(turns)[1]}))


if __name__ == "__main__": main(sys.argv[1], sys.argv[2], "--warm" in sys.argv)

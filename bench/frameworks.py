"""What each framework is asked to compute, in its own words: case -> calls that return finished results.

A framework has `load(array, dtype)`, `read(result)` (a list of arrays) and `calls(case, inputs)`: mode -> call. torch,
jax and ONNX compute the nets of models.py over the few operations in their `Ops`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import cases
import models
import numpy as np

Calls = dict[str, Callable[[], Any]]


class Absent(Exception):
    """The framework has no way to say this: its cell is a dash."""


def weights_of(family: str) -> models.Weights:
    """Of the nets."""
    kind = family.partition("_")[0]
    if kind in ("resnet18", "resnet50"):
        return models.resnet_weights(kind, cases.CLASSES if family.endswith("_train") else 1000)
    return models.mlp_weights() if kind == "mlp" else models.gpt2_weights()


NETS = ("resnet18", "resnet50", "resnet18_train", "mlp_train", "gpt2", "decode")


def chain(x: Any, y: Any) -> Any:
    for _ in range(cases.CHAIN):
        x = x + y
    return x


# ---- glassgrad and tinygrad ----------------------------------------------------------------------------------------
class Shared:
    """glassgrad and tinygrad, by the names they share."""

    def __init__(self, package: Any, modes: tuple[str, ...]) -> None:
        self.package, self.modes = package, modes
        self.tensor, self.nn, self.jit = package.Tensor, package.nn, package.TinyJit
        self.state, self.optim = package.nn.state, package.nn.optim
        self.synchronize = package.Device[package.Device.DEFAULT].synchronize

    def load(self, x: np.ndarray, dtype: str = "float32") -> Any:
        made = self.tensor(x)
        return (made.cast(dtype) if dtype == cases.BF16 else made).realize()

    def read(self, x: Any) -> list[np.ndarray]:
        many = x if isinstance(x, tuple) else (x,)
        return [(y.cast("float32") if str(y.dtype).endswith(("bf16", "bfloat16")) else y).numpy() for y in many]

    def calls(self, case: cases.Case, inputs: list[Any]) -> Calls:
        """A chain of additions is about laziness: it is never captured."""
        family = case.family
        if family in NETS:
            return {"jit": self.net(family, inputs)}
        fn = self.function(family, case.how)
        if family == "chain":
            return {"eager": lambda: self.done(fn(*inputs).realize()), "build": lambda: fn(*inputs)}
        made = {"jit": self.timed(fn, inputs)}
        return {**made, "eager": lambda: self.done(fn(*inputs).realize())} if family == "add" else made

    def done(self, x: Any) -> Any:
        self.synchronize()
        return x

    def timed(self, fn: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
        """A call of the captured function that returns when its results are there."""

        def realized(*xs: Any) -> Any:
            found = fn(*xs)
            if isinstance(found, tuple):
                found[0].realize(*found[1:])
                return found
            return found.realize()

        jitted = self.jit(realized)
        return lambda: self.done(jitted(*inputs))

    def function(self, family: str, how: dict[str, Any]) -> Callable[..., Any]:
        """What the family computes, lazily."""
        return {
            "matmul": lambda x, y: x @ y,
            "matmul_int8": lambda x, y: x.matmul(y, dtype="int32"),
            "conv": lambda x, w: x.conv2d(w, **how),
            "sum": lambda x: x.sum(),
            "softmax": lambda x: x.softmax(-1),
            "layernorm": lambda x, w, b: x.layernorm(-1, 1e-5) * w + b,
            "gelu": lambda x: x.gelu("tanh"),
            "attention": lambda q, k, v: q.scaled_dot_product_attention(k, v),
            "embedding": lambda w, i: w[i],
            "cumsum": lambda x: x.cumsum(0),
            "sort": lambda x: x.sort()[0],
            "argsort": lambda x: x.argsort(),
            "topk": lambda x: tuple(x.topk(how["k"])),
            "add": lambda x, y: x + y,
            "chain": chain,
        }[family]

    def model(self, family: str, weights: models.Weights) -> Any:
        """The net with its weights in memory."""
        kind = family.partition("_")[0]
        made = (
            models.ResNet(self.nn, kind, weights["fc.bias"].size)
            if kind.startswith("resnet")
            else models.Mlp(self.nn) if kind == "mlp" else models.Gpt2(self.nn)
        )
        self.state.load_state_dict(made, {k: self.tensor(v) for k, v in weights.items()}, verbose=False)
        for p in self.state.get_parameters(made):
            p.realize()
        return made

    def net(self, family: str, inputs: list[Any]) -> Callable[[], Any]:
        """One call of a net: a forward, a step of training or of decoding."""
        model = self.model(family, weights_of(family))
        if family == "decode":
            return self.decode(model, *inputs)
        if not family.endswith("_train"):
            return self.timed(model, inputs)
        opt = self.optim.SGD(self.state.get_parameters(model), lr=cases.LR, momentum=cases.MOMENTUM)

        def step(x: Any, y: Any) -> Any:
            with self.training():
                opt.zero_grad()
                loss = model(x).sparse_categorical_crossentropy(y).backward()
                return loss.realize(*opt.schedule_step())

        train = self.jit(step)
        return lambda: self.done(train(*inputs))

    def training(self) -> Any:
        raise NotImplementedError

    def decode(self, model: Any, tokens: Any, cache: Any) -> Callable[[], Any]:
        raise NotImplementedError

    def kernels(self) -> dict[str, int]:
        """Kernels of one realize of each."""

        def random(*shape: int) -> Any:
            return self.tensor.randn(*shape).realize()

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
        counts, counters = {}, self.package.GlobalCounters
        for name, graph in graphs.items():
            counters.reset()
            graph().realize()
            counts[name] = counters.kernel_count
        return counts


class Glassgrad(Shared):
    def __init__(self, threads: int) -> None:
        import glassgrad
        from glassgrad import flow, nn  # noqa: F401  the compiler is imported at its first use: that is no time of compiling
        from glassgrad.nn import optim, state  # noqa: F401  nn imports them at their first use

        super().__init__(glassgrad, ("jit",))
        assert nn is glassgrad.nn

    def training(self) -> Any:
        return self.tensor.train()

    def decode(self, model: Any, tokens: Any, cache: Any) -> Callable[[], Any]:
        """The position is a Variable: the cache is written there, in place."""
        Tensor, v = self.tensor, self.package.Variable("position", 0, models.CACHE_TOKENS - 1)
        caches = [[cache[i, j].contiguous().realize() for j in range(2)] for i in range(models.GPT2.layers)]

        @self.jit
        def step(tokens: Any, at: Any) -> Any:
            def write(kept: Any, new: Any) -> Any:
                kept[:, :, at] = new[:, :, 0]
                return kept

            here = Tensor(at)
            mask = Tensor.arange(models.CACHE_TOKENS) <= here
            return model.step(tokens, here.reshape(1, 1), caches, write, mask).realize()

        return lambda: self.done(step(tokens, v.bind(models.POSITION)))


class Tinygrad(Shared):
    def __init__(self, threads: int) -> None:
        os.environ.setdefault("DEV", "CPU:LLVM")
        import tinygrad
        from tinygrad import nn  # noqa: F401

        super().__init__(tinygrad, ("jit",))

    def training(self) -> Any:
        return self.package.Context(TRAINING=1)

    def function(self, family: str, how: dict[str, Any]) -> Callable[..., Any]:
        if family == "matmul_int8":  # with only dtype="int32" its products are int8, and overflow
            return lambda x, y: x.cast("int32") @ y.cast("int32")
        return super().function(family, how)

    def decode(self, model: Any, tokens: Any, cache: Any) -> Callable[[], Any]:
        """As its own language models do it: the position is a bound Variable, the cache is assigned a slice."""
        Tensor, v = self.tensor, self.package.Variable("position", 1, models.CACHE_TOKENS - 1)
        caches = [[cache[i, j].contiguous().realize() for j in range(2)] for i in range(models.GPT2.layers)]
        places = Tensor(np.array([[models.POSITION]], np.int32)).realize()

        @self.jit
        def step(tokens: Any, places: Any, at: Any) -> Any:
            def write(kept: Any, new: Any) -> Any:
                kept[:, :, at : at + 1].assign(new).realize()
                return kept[:, :, : at + 1]

            return model.step(tokens, places, caches, write, None).realize()

        return lambda: self.done(step(tokens, places, v.bind(models.POSITION)))


# ---- torch ---------------------------------------------------------------------------------------------------------
class TorchOps:
    """The operations of the nets in torch."""

    def __init__(self, torch: Any, train: bool) -> None:
        F = self.F = torch.nn.functional
        self.torch, self.train, self.relu = torch, train, torch.relu
        self.linear, self.attention = F.linear, F.scaled_dot_product_attention

    def conv(self, x: Any, w: Any, stride: int, padding: int) -> Any:
        return self.F.conv2d(x, w, stride=stride, padding=padding)

    def batch_norm(self, x: Any, w: dict[str, Any], at: str) -> Any:
        if self.train:
            w[at + ".num_batches_tracked"].add_(1)
        return self.F.batch_norm(
            x, w[at + ".running_mean"], w[at + ".running_var"], w[at + ".weight"], w[at + ".bias"], self.train
        )

    def max_pool(self, x: Any) -> Any: return self.F.max_pool2d(x, 3, 2, 1)
    def mean_space(self, x: Any) -> Any: return x.mean((2, 3))
    def layer_norm(self, x: Any, w: Any, b: Any) -> Any: return self.F.layer_norm(x, w.shape, w, b)
    def gelu(self, x: Any) -> Any: return self.F.gelu(x, approximate="tanh")
    def embedding(self, w: Any, i: Any) -> Any: return self.F.embedding(i, w)
    def causal_attention(self, q: Any, k: Any, v: Any) -> Any: return self.attention(q, k, v, is_causal=True)

    def heads(self, x: Any, n: int) -> Any:
        b, t, d = x.shape
        return (y.reshape(b, t, n, d // 3 // n).transpose(1, 2) for y in x.chunk(3, -1))

    def join(self, x: Any) -> Any:
        b, h, t, d = x.shape
        return x.transpose(1, 2).reshape(b, t, h * d)


class Torch:
    """torch: eager, or compiled by its inductor; `wide` computes the nets in float64."""

    def __init__(self, threads: int, compiled: bool = False, wide: bool = False) -> None:
        import torch

        self.torch, self.compiled, self.wide = torch, compiled, wide
        if threads:
            torch.set_num_threads(threads)

    def load(self, x: np.ndarray, dtype: str = "float32") -> Any:
        made = self.torch.from_numpy(x)
        return made.to(getattr(self.torch, dtype)) if dtype in (cases.BF16, "float64") else made

    def read(self, x: Any) -> list[np.ndarray]:
        many = x if isinstance(x, tuple) else (x,)
        return [(y.float() if y.dtype is self.torch.bfloat16 else y).detach().numpy() for y in many]

    def build(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.torch.compile(fn, dynamic=False) if self.compiled else fn

    def calls(self, case: cases.Case, inputs: list[Any]) -> Calls:
        mode = "compile" if self.compiled else "eager"
        if case.family == "chain" and self.compiled:
            raise Absent("a chain of additions is about laziness")
        if case.trains:
            return {mode: self.trainer(case.family, inputs)}
        fn = self.net(case.family) if case.family in NETS else self.function(case.family, case.how)
        return {mode: self.timed(fn, self.extended(case.family, inputs))}

    def timed(self, fn: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
        built, torch = self.build(fn), self.torch

        def call() -> Any:
            with torch.inference_mode():
                return built(*inputs)

        return call

    def extended(self, family: str, inputs: list[Any]) -> list[Any]:
        """Decoding writes a cache of its own, in pieces."""
        if family != "decode":
            return inputs
        tokens, cache = inputs
        return [tokens, self.torch.tensor([[models.POSITION]]), [c.clone() for c in cache.flatten(0, 1)]]

    def function(self, family: str, how: dict[str, Any]) -> Callable[..., Any]:
        torch, F = self.torch, self.torch.nn.functional
        return {
            "matmul": lambda x, y: x @ y,
            "matmul_int8": torch._int_mm,
            "conv": lambda x, w: F.conv2d(x, w, **how),
            "sum": lambda x: x.sum(),
            "softmax": lambda x: x.softmax(-1),
            "layernorm": lambda x, w, b: F.layer_norm(x, w.shape, w, b),
            "gelu": lambda x: F.gelu(x, approximate="tanh"),
            "attention": F.scaled_dot_product_attention,
            "embedding": lambda w, i: F.embedding(i, w),
            "cumsum": lambda x: x.cumsum(0),
            "sort": lambda x: x.sort().values,
            "argsort": lambda x: x.argsort(),
            "topk": lambda x: tuple(x.topk(how["k"])),
            "add": lambda x, y: x + y,
            "chain": chain,
        }[family]

    def weights(self, family: str) -> dict[str, Any]:
        wide = self.torch.float64 if self.wide else self.torch.float32
        made = {k: self.torch.from_numpy(v) for k, v in weights_of(family).items()}
        return {k: v.to(wide) if v.is_floating_point() else v for k, v in made.items()}

    def net(self, family: str) -> Callable[..., Any]:
        w, f = self.weights(family), TorchOps(self.torch, False)
        if family == "gpt2":
            return lambda tokens, places: models.gpt2(f, w, tokens, places)
        if family != "decode":
            return lambda x: models.resnet(f, w, x, family)

        def step(tokens: Any, place: Any, caches: list[Any]) -> Any:
            at = models.POSITION

            def attend(i: int, q: Any, k: Any, v: Any) -> Any:
                for kept, new in ((caches[2 * i], k), (caches[2 * i + 1], v)):
                    kept[:, :, at : at + 1] = new
                return f.attention(q, *(kept[:, :, : at + 1] for kept in caches[2 * i : 2 * i + 2]))

            return models.gpt2(f, w, tokens, place, attend)

        return step

    def trainer(self, family: str, inputs: list[Any]) -> Callable[[], Any]:
        """A step of SGD with momentum."""
        torch, w, f = self.torch, self.weights(family), TorchOps(self.torch, True)
        learnt = [v.requires_grad_() for k, v in w.items() if not ("running" in k or "tracked" in k)]
        opt = torch.optim.SGD(learnt, lr=cases.LR, momentum=cases.MOMENTUM)
        x, y = inputs[0], inputs[1].long()

        def loss_of(x: Any, y: Any) -> Any:
            logits = models.mlp(f, w, x) if family == "mlp_train" else models.resnet(f, w, x, "resnet18")
            return torch.nn.functional.cross_entropy(logits, y)

        built = self.build(loss_of)

        def call() -> Any:
            opt.zero_grad()
            loss = built(x, y)
            loss.backward()
            opt.step()
            return loss

        return call


# ---- jax -----------------------------------------------------------------------------------------------------------
class JaxOps:
    """The operations of the nets in jax; `kept` collects new running statistics."""

    def __init__(self, jax: Any, train: bool) -> None:
        self.jax, self.jnp, self.train, self.kept = jax, jax.numpy, train, {}
        self.relu = jax.nn.relu

    def conv(self, x: Any, w: Any, stride: int, padding: int) -> Any:
        return self.jax.lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2)

    def batch_norm(self, x: Any, w: dict[str, Any], at: str) -> Any:
        lax, per_channel = self.jax.lax, (slice(None), None, None)
        m, v = w[at + ".running_mean"], w[at + ".running_var"]
        if self.train:
            mean, var, n = x.mean((0, 2, 3)), x.var((0, 2, 3)), x.size // x.shape[1]
            self.kept.update(
                {
                    at + ".running_mean": 0.9 * m + 0.1 * lax.stop_gradient(mean),
                    at + ".num_batches_tracked": w[at + ".num_batches_tracked"] + 1,
                    at + ".running_var": 0.9 * v + 0.1 * n / (n - 1) * lax.stop_gradient(var),
                }
            )
            m, v = mean, var
        scale = (lax.rsqrt(v + 1e-5) * w[at + ".weight"])[per_channel]
        return (x - m[per_channel]) * scale + w[at + ".bias"][per_channel]

    def max_pool(self, x: Any) -> Any:
        lax = self.jax.lax
        return lax.reduce_window(x, -self.jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))

    def mean_space(self, x: Any) -> Any: return x.mean((2, 3))
    def linear(self, x: Any, w: Any, b: Any) -> Any: return x @ w.T if b is None else x @ w.T + b
    def gelu(self, x: Any) -> Any: return self.jax.nn.gelu(x, approximate=True)
    def embedding(self, w: Any, i: Any) -> Any: return w[i]

    def layer_norm(self, x: Any, w: Any, b: Any) -> Any:
        rest = x - x.mean(-1, keepdims=True)
        return rest * self.jax.lax.rsqrt((rest * rest).mean(-1, keepdims=True) + 1e-5) * w + b

    def heads(self, x: Any, n: int) -> Any:
        b, t, d = x.shape
        return (y.reshape(b, t, n, d // 3 // n).transpose(0, 2, 1, 3) for y in self.jnp.split(x, 3, -1))

    def join(self, x: Any) -> Any:
        b, h, t, d = x.shape
        return x.transpose(0, 2, 1, 3).reshape(b, t, h * d)

    def attention(self, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        return self.jax.nn.softmax(scores if mask is None else self.jnp.where(mask, scores, -self.jnp.inf)) @ v

    def causal_attention(self, q: Any, k: Any, v: Any) -> Any:
        t = q.shape[2]
        return self.attention(q, k, v, self.jnp.tril(self.jnp.ones((t, t), bool)))


class Jax:
    """jax, jitted, arrays on its device."""

    def __init__(self, threads: int) -> None:
        import jax

        self.jax = jax

    def load(self, x: np.ndarray, dtype: str = "float32") -> Any:
        return self.jax.numpy.asarray(x, dtype).block_until_ready()

    def read(self, x: Any) -> list[np.ndarray]:
        many = x if isinstance(x, tuple) else (x,)
        return [np.asarray(y.astype("float32") if y.dtype == "bfloat16" else y) for y in many]

    def timed(self, fn: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
        jitted = self.jax.jit(fn)
        return lambda: self.jax.block_until_ready(jitted(*inputs))

    def calls(self, case: cases.Case, inputs: list[Any]) -> Calls:
        family, jnp = case.family, self.jax.numpy
        if family in NETS:
            return {"jit": self.net(family, inputs)}
        fn = self.function(family, case.how)
        if family == "chain":
            return {"eager": lambda: self.jax.block_until_ready(fn(*inputs))}
        made = {"jit": self.timed(fn, inputs)}
        return {**made, "eager": lambda: jnp.asarray(fn(*inputs)).block_until_ready()} if family == "add" else made

    def function(self, family: str, how: dict[str, Any]) -> Callable[..., Any]:
        jax, jnp, f = self.jax, self.jax.numpy, JaxOps(self.jax, False)

        def conv(x: Any, w: Any) -> Any:
            s, p = how["stride"], how["padding"]
            return jax.lax.conv_general_dilated(x, w, (s, s), [(p, p)] * 2, feature_group_count=how["groups"])

        return {
            "matmul": lambda x, y: x @ y,
            "matmul_int8": lambda x, y: jax.lax.dot(x, y, preferred_element_type=jnp.int32),
            "conv": conv,
            "sum": lambda x: x.sum(),
            "softmax": lambda x: jax.nn.softmax(x),
            "layernorm": f.layer_norm,
            "gelu": f.gelu,
            "attention": f.attention,
            "embedding": f.embedding,
            "cumsum": lambda x: x.cumsum(),
            "sort": lambda x: jnp.sort(x),
            "argsort": lambda x: jnp.argsort(x),
            "topk": lambda x: tuple(jax.lax.top_k(x, how["k"])),
            "add": lambda x, y: x + y,
            "chain": chain,
        }[family]

    def net(self, family: str, inputs: list[Any]) -> Callable[[], Any]:
        jax, jnp = self.jax, self.jax.numpy
        w, f = {k: jnp.asarray(v) for k, v in weights_of(family).items()}, JaxOps(jax, False)
        if family.endswith("_train"):
            return self.trainer(family, w, inputs)
        if family == "decode":
            return self.decode(w, *inputs)
        forward = jax.jit(
            (lambda w, tokens, places: models.gpt2(f, w, tokens, places))
            if family == "gpt2"
            else lambda w, x: models.resnet(f, w, x, family)
        )
        return lambda: forward(w, *inputs).block_until_ready()

    def decode(self, w: dict[str, Any], tokens: Any, cache: Any) -> Callable[[], Any]:
        """The caches are donated, so that they are written in place."""
        jax, jnp, f = self.jax, self.jax.numpy, JaxOps(self.jax, False)
        place, state = jnp.full((1, 1), models.POSITION), [[jnp.array(c) for layer in cache for c in layer]]

        def step(w: dict[str, Any], caches: list[Any], tokens: Any, place: Any) -> Any:
            at, new_caches = place[0, 0], list(caches)
            mask = jnp.arange(models.CACHE_TOKENS) <= at

            def attend(i: int, q: Any, k: Any, v: Any) -> Any:
                for j, new in ((2 * i, k), (2 * i + 1, v)):
                    new_caches[j] = jax.lax.dynamic_update_slice_in_dim(caches[j], new, at, 2)
                return f.attention(q, *new_caches[2 * i : 2 * i + 2], mask)

            return models.gpt2(f, w, tokens, place, attend), new_caches

        jitted = jax.jit(step, donate_argnums=1)

        def call() -> Any:
            logits, state[0] = jitted(w, state[0], tokens, place)
            return logits.block_until_ready()

        return call

    def trainer(self, family: str, w: dict[str, Any], inputs: list[Any]) -> Callable[[], Any]:
        """A step of SGD with momentum; weights and momenta are donated."""
        jax, jnp = self.jax, self.jax.numpy
        kept = {k: v for k, v in w.items() if "running" in k or "tracked" in k}
        learnt = {k: v for k, v in w.items() if k not in kept}

        def loss_of(p: Any, kept: Any, x: Any, y: Any) -> Any:
            f = JaxOps(jax, True)
            logits = models.mlp(f, p, x) if family == "mlp_train" else models.resnet(f, {**p, **kept}, x, "resnet18")
            return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean(), f.kept

        def step(p: Any, kept: Any, m: Any, x: Any, y: Any) -> Any:
            (loss, kept), g = jax.value_and_grad(loss_of, has_aux=True)(p, kept, x, y)
            m = jax.tree_util.tree_map(lambda a, b: cases.MOMENTUM * a + b, m, g)
            return jax.tree_util.tree_map(lambda a, b: a - cases.LR * b, p, m), kept, m, loss

        jitted = jax.jit(step, donate_argnums=(0, 1, 2))
        state = [learnt, kept, jax.tree_util.tree_map(jnp.zeros_like, learnt)]

        def call() -> Any:
            *state[:], loss = jitted(*state, *inputs)
            return jax.block_until_ready((loss, *state))[0]

        return call


def open_framework(name: str, threads: int) -> Any:
    """The framework of this name, on so many threads."""
    if name == "onnxruntime":
        import onnx_models

        return onnx_models.Onnx(threads)
    if name in ("torch", "torch.compile"):
        return Torch(threads, compiled=name == "torch.compile")
    return {"glassgrad": Glassgrad, "tinygrad": Tinygrad, "jax": Jax}[name](threads)

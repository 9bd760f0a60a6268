"""The nets of the benchmark over names glassgrad and tinygrad share, and in torch and jax; one set of weights for all."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

RESNET18 = ((64, 1), (128, 2), (256, 2), (512, 2))
GPT2 = SimpleNamespace(layers=12, dim=768, heads=12, vocab=50257, context=1024, tokens=128)


class Block:
    def __init__(self, nn: Any, inner: int, outer: int, stride: int) -> None:
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False), nn.BatchNorm(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm(outer)
        self.down = (
            [nn.Conv2d(inner, outer, 1, stride=stride, bias=False), nn.BatchNorm(outer)]
            if stride != 1 or inner != outer
            else []
        )

    def __call__(self, x: Any) -> Any:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + x.sequential(self.down)).relu()


class ResNet18:
    """ResNet-18 (He et al. 2015)."""

    def __init__(self, nn: Any, classes: int = 1000) -> None:
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm(64)
        self.blocks, inner = [], 64
        for outer, stride in RESNET18:
            self.blocks += [Block(nn, inner, outer, stride), Block(nn, outer, outer, 1)]
            inner = outer
        self.fc = nn.Linear(512, classes)

    def __call__(self, x: Any) -> Any:
        x = self.bn1(self.conv1(x)).relu().max_pool2d((3, 3), stride=2, padding=1)
        return self.fc(x.sequential(self.blocks).mean((2, 3)))


class Attention:
    def __init__(self, nn: Any, dim: int, heads: int) -> None:
        self.qkv, self.out, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def __call__(self, x: Any) -> Any:
        b, t, d = x.shape
        q, k, v = (y.reshape(b, t, self.heads, d // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        return self.out(q.scaled_dot_product_attention(k, v, is_causal=True).transpose(1, 2).reshape(b, t, d))


class Layer:
    def __init__(self, nn: Any, dim: int, heads: int) -> None:
        self.ln1, self.ln2, self.attention = nn.LayerNorm(dim), nn.LayerNorm(dim), Attention(nn, dim, heads)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def __call__(self, x: Any) -> Any:
        x = x + self.attention(self.ln1(x))
        return x + self.down(self.up(self.ln2(x)).gelu("tanh"))


class Gpt2:
    """The shape of GPT-2 small, with the head tied to the embedding."""

    def __init__(self, nn: Any, shape: Any = GPT2) -> None:
        self.tokens, self.places = nn.Embedding(shape.vocab, shape.dim), nn.Embedding(shape.context, shape.dim)
        self.layers = [Layer(nn, shape.dim, shape.heads) for _ in range(shape.layers)]
        self.ln = nn.LayerNorm(shape.dim)

    def __call__(self, tokens: Any, places: Any) -> Any:
        x = (self.tokens(tokens) + self.places(places)).sequential(self.layers)
        return self.ln(x) @ self.tokens.weight.T


# ---- weights -------------------------------------------------------------------------------------------------------
Weights = dict[str, np.ndarray]


def resnet18_weights(classes: int = 1000) -> Weights:
    """Random weights of ResNet-18 by name; the running statistics are random too, so that leaving them out shows."""
    rng, w = np.random.default_rng(18), Weights()

    def convolution(name: str, *shape: int) -> None:
        w[name + ".weight"] = rng.standard_normal(shape, np.float32) * np.float32((2 / math.prod(shape[1:])) ** 0.5)

    def norm(name: str, n: int) -> None:
        for part, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.1, 0.1),
            ("running_mean", -0.1, 0.1),
            ("running_var", 0.5, 1.5),
        ):
            w[f"{name}.{part}"] = rng.uniform(low, high, n).astype(np.float32)
        w[name + ".num_batches_tracked"] = np.array(0, np.int64)

    convolution("conv1", 64, 3, 7, 7)
    norm("bn1", 64)
    inner = 64
    for i, (outer, stride) in enumerate(blocks_of_resnet18()):
        at = f"blocks.{i}"
        convolution(at + ".conv1", outer, inner, 3, 3)
        norm(at + ".bn1", outer)
        convolution(at + ".conv2", outer, outer, 3, 3)
        norm(at + ".bn2", outer)
        if stride != 1 or inner != outer:
            convolution(at + ".down.0", outer, inner, 1, 1)
            norm(at + ".down.1", outer)
        inner = outer
    w["fc.weight"], w["fc.bias"] = (
        rng.uniform(-0.05, 0.05, (classes, 512)).astype(np.float32),
        rng.uniform(-0.05, 0.05, classes).astype(np.float32),
    )
    return w


def blocks_of_resnet18() -> list[tuple[int, int]]:
    """(channels, stride) of each block."""
    return [(outer, stride if j == 0 else 1) for outer, stride in RESNET18 for j in range(2)]


def gpt2_weights(shape: Any = GPT2) -> Weights:
    """Random weights of the GPT-2 shape by name."""
    rng, d = np.random.default_rng(2), shape.dim

    def normal(*s: int) -> np.ndarray:
        return rng.standard_normal(s, np.float32) * np.float32(0.02)

    w = {"tokens.weight": normal(shape.vocab, d), "places.weight": normal(shape.context, d)}
    norms = ["ln", *[f"layers.{i}.{n}" for i in range(shape.layers) for n in ("ln1", "ln2")]]
    for name in norms:
        w[name + ".weight"], w[name + ".bias"] = 1 + normal(d), normal(d)
    for i in range(shape.layers):
        for name, outer, inner in (
            ("attention.qkv", 3 * d, d),
            ("attention.out", d, d),
            ("up", 4 * d, d),
            ("down", d, 4 * d),
        ):
            w[f"layers.{i}.{name}.weight"], w[f"layers.{i}.{name}.bias"] = normal(outer, inner), normal(outer)
    return w


# ---- torch ---------------------------------------------------------------------------------------------------------
def torch_resnet18(weights: Weights, classes: int = 1000) -> Any:
    """The same net in torch."""
    import torch
    from torch import nn

    class TorchBlock(nn.Module):
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
            self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
            down = (
                [nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)]
                if stride != 1 or inner != outer
                else []
            )
            self.down = nn.Sequential(*down)

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.down(x))

    class TorchResNet18(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            shapes = [(64, 1), *blocks_of_resnet18()]
            self.blocks = nn.Sequential(
                *[TorchBlock(inner, outer, stride) for (inner, _), (outer, stride) in pairwise(shapes)]
            )
            self.fc = nn.Linear(512, classes)

        def forward(self, x: Any) -> Any:
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            return self.fc(self.blocks(x).mean((2, 3)))

    net = TorchResNet18()
    net.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    return net


def torch_gpt2(w: dict[str, Any], tokens: Any, shape: Any = GPT2) -> Any:
    """The same net in torch, as a function of its weights (tensors) and tokens (1, T)."""
    import torch
    from torch.nn import functional as F

    t, heads = tokens.shape[1], (1, tokens.shape[1], shape.heads, shape.dim // shape.heads)

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (shape.dim,), w[name + ".weight"], w[name + ".bias"])

    x = w["tokens.weight"][tokens] + w["places.weight"][torch.arange(t)]
    for i in range(shape.layers):
        at = f"layers.{i}."
        q, k, v = (
            y.reshape(heads).transpose(1, 2) for y in linear(norm(x, at + "ln1"), at + "attention.qkv").chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, t, shape.dim)
        x = x + linear(mixed, at + "attention.out")
        x = x + linear(F.gelu(linear(norm(x, at + "ln2"), at + "up"), approximate="tanh"), at + "down")
    return norm(x, "ln") @ w["tokens.weight"].T


# ---- jax -----------------------------------------------------------------------------------------------------------
def jax_resnet18(w: dict[str, Any], x: Any, train: bool = False) -> tuple[Any, dict[str, Any]]:
    """(result, new running statistics) of the same net in jax; in training the batch's statistics normalise."""
    import jax.numpy as jnp
    from jax import lax, nn

    kept: dict[str, Any] = {}
    per_channel = (slice(None), None, None)

    def conv(x: Any, name: str, stride: int, padding: int) -> Any:
        return lax.conv_general_dilated(x, w[name + ".weight"], (stride, stride), [(padding, padding)] * 2)

    def norm(x: Any, name: str) -> Any:
        m, v = w[name + ".running_mean"], w[name + ".running_var"]
        if train:
            mean, var, n = x.mean((0, 2, 3)), x.var((0, 2, 3)), x.size // x.shape[1]
            kept.update(
                {
                    name + ".running_mean": 0.9 * m + 0.1 * lax.stop_gradient(mean),
                    name + ".num_batches_tracked": w[name + ".num_batches_tracked"] + 1,
                    name + ".running_var": 0.9 * v + 0.1 * n / (n - 1) * lax.stop_gradient(var),
                }
            )
            m, v = mean, var
        return (x - m[per_channel]) * (lax.rsqrt(v + 1e-5) * w[name + ".weight"])[per_channel] + w[name + ".bias"][
            per_channel
        ]

    x = nn.relu(norm(conv(x, "conv1", 2, 3), "bn1"))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i, (_, stride) in enumerate(blocks_of_resnet18()):
        at = f"blocks.{i}."
        y = norm(conv(nn.relu(norm(conv(x, at + "conv1", stride, 1), at + "bn1")), at + "conv2", 1, 1), at + "bn2")
        x = nn.relu(y + (norm(conv(x, at + "down.0", stride, 0), at + "down.1") if at + "down.0.weight" in w else x))
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"], kept


def jax_gpt2(w: dict[str, Any], tokens: Any, shape: Any = GPT2) -> Any:
    """The GPT-2 shape in jax, its layers written out."""
    import jax
    import jax.numpy as jnp

    t, heads = tokens.shape[1], (1, tokens.shape[1], shape.heads, shape.dim // shape.heads)
    mask = jnp.tril(jnp.ones((t, t), bool))

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x: Any, name: str) -> Any:
        rest = x - x.mean(-1, keepdims=True)
        return (
            rest * jax.lax.rsqrt((rest * rest).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]
        )

    x = w["tokens.weight"][tokens] + w["places.weight"][jnp.arange(t)]
    for i in range(shape.layers):
        at = f"layers.{i}."
        q, k, v = (
            y.reshape(heads).transpose(0, 2, 1, 3)
            for y in jnp.split(linear(norm(x, at + "ln1"), at + "attention.qkv"), 3, -1)
        )
        scores = jnp.where(mask, q @ k.transpose(0, 1, 3, 2) / math.sqrt(heads[-1]), -jnp.inf)
        x = x + linear(
            (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(1, t, shape.dim), at + "attention.out"
        )
        x = x + linear(jax.nn.gelu(linear(norm(x, at + "ln2"), at + "up"), approximate=True), at + "down")
    return norm(x, "ln") @ w["tokens.weight"].T

"""The nets of the benchmark, one set of weights for all frameworks.

As classes over the names that glassgrad and tinygrad share (`nn` is their module of layers), and as functions of a
dictionary of weights over a handful of operations `f` that torch, jax and ONNX each spell their own way (frameworks.py).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

GPT2 = SimpleNamespace(layers=12, dim=768, heads=12, vocab=50257, context=1024, tokens=128)
CACHE_TOKENS, POSITION = 256, 200  # of the decoding step: the cache's length, and where the new token stands
MLP = (784, 512, 512, 10)
UNET = SimpleNamespace(widths=(320, 640, 1280, 1280), heads=8, context=768, groups=32, tokens=77, size=64, latent=4)


# ---- residual networks: what they consist of -----------------------------------------------------------------------
class BlockShape(NamedTuple):
    """A block's convolutions as (channels in, out, kernel, stride), and its shortcut's where it has one."""

    convs: tuple[tuple[int, int, int, int], ...]
    down: tuple[int, int, int, int] | None


def resnet_blocks(name: str) -> list[BlockShape]:
    """Of resnet18 (basic blocks) and resnet50 (bottlenecks with the stride in the middle; He et al. 2015)."""
    counts, deep = {"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}[name]
    blocks, inner = [], 64
    for i, count in enumerate(counts):
        width = 64 << i
        for j in range(count):
            stride, outer = 2 if i and not j else 1, width * (4 if deep else 1)
            convs = (
                ((inner, width, 1, 1), (width, width, 3, stride), (width, outer, 1, 1))
                if deep
                else ((inner, width, 3, stride), (width, width, 3, 1))
            )
            blocks.append(BlockShape(convs, (inner, outer, 1, stride) if stride != 1 or inner != outer else None))
            inner = outer
    return blocks


def resnet_flops(name: str, side: int = 224, classes: int = 1000) -> float:
    """Two for each multiply-add of the convolutions and the last layer, for one image."""
    side //= 2
    total, outer = 2 * side * side * 64 * 3 * 49, 64
    side //= 2
    for block in resnet_blocks(name):
        before = side
        for inner, outer, kernel, stride in block.convs:
            side //= stride
            total += 2 * side * side * outer * inner * kernel * kernel
        if block.down:
            total += 2 * (before // block.down[3]) ** 2 * block.down[0] * block.down[1]
    return total + 2 * outer * classes


# ---- glassgrad and tinygrad ----------------------------------------------------------------------------------------
class Block:
    def __init__(self, nn: Any, shape: BlockShape) -> None:
        self.convs = [nn.Conv2d(i, o, k, stride=s, padding=k // 2, bias=False) for i, o, k, s in shape.convs]
        self.norms = [nn.BatchNorm(o) for _, o, _, _ in shape.convs]
        self.down = []
        if shape.down:
            i, o, k, s = shape.down
            self.down = [nn.Conv2d(i, o, k, stride=s, bias=False), nn.BatchNorm(o)]

    def __call__(self, x: Any) -> Any:
        y = x
        for conv, norm in zip(self.convs[:-1], self.norms):
            y = norm(conv(y)).relu()
        return (self.norms[-1](self.convs[-1](y)) + x.sequential(self.down)).relu()


class ResNet:
    """ResNet-18 and ResNet-50."""

    def __init__(self, nn: Any, name: str, classes: int = 1000) -> None:
        shapes = resnet_blocks(name)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm(64)
        self.blocks = [Block(nn, s) for s in shapes]
        self.fc = nn.Linear(shapes[-1].convs[-1][1], classes)

    def __call__(self, x: Any) -> Any:
        x = self.bn1(self.conv1(x)).relu().max_pool2d((3, 3), stride=2, padding=1)
        return self.fc(x.sequential(self.blocks).mean((2, 3)))


class Attention:
    def __init__(self, nn: Any, dim: int, heads: int) -> None:
        self.qkv, self.out, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def __call__(self, x: Any) -> Any:
        q, k, v = self.split(x)
        return self.join(q.scaled_dot_product_attention(k, v, is_causal=True))

    def step(self, x: Any, cache: Any, write: Any, mask: Any) -> Any:
        """One token: its key and value are written into the cache, and it attends to all that the mask allows."""
        q, k, v = self.split(x)
        k, v = write(cache[0], k), write(cache[1], v)
        return self.join(q.scaled_dot_product_attention(k, v, attn_mask=mask))

    def split(self, x: Any) -> Any:
        b, t, d = x.shape
        return (y.reshape(b, t, self.heads, d // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))

    def join(self, x: Any) -> Any:
        b, h, t, d = x.shape
        return self.out(x.transpose(1, 2).reshape(b, t, h * d))


class Layer:
    def __init__(self, nn: Any, dim: int, heads: int) -> None:
        self.ln1, self.ln2, self.attention = nn.LayerNorm(dim), nn.LayerNorm(dim), Attention(nn, dim, heads)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def __call__(self, x: Any) -> Any:
        return self.rest(x + self.attention(self.ln1(x)))

    def step(self, x: Any, cache: Any, write: Any, mask: Any) -> Any:
        return self.rest(x + self.attention.step(self.ln1(x), cache, write, mask))

    def rest(self, x: Any) -> Any:
        return x + self.down(self.up(self.ln2(x)).gelu("tanh"))


class Gpt2:
    """The shape of GPT-2 small, with the head tied to the embedding."""

    def __init__(self, nn: Any, shape: Any = GPT2) -> None:
        self.tokens, self.places = nn.Embedding(shape.vocab, shape.dim), nn.Embedding(shape.context, shape.dim)
        self.layers = [Layer(nn, shape.dim, shape.heads) for _ in range(shape.layers)]
        self.ln = nn.LayerNorm(shape.dim)

    def __call__(self, tokens: Any, places: Any) -> Any:
        return self.head((self.tokens(tokens) + self.places(places)).sequential(self.layers))

    def step(self, tokens: Any, places: Any, caches: Any, write: Any, mask: Any) -> Any:
        """The logits of one token, with a cache for each layer."""
        x = self.tokens(tokens) + self.places(places)
        for layer, cache in zip(self.layers, caches):
            x = layer.step(x, cache, write, mask)
        return self.head(x)

    def head(self, x: Any) -> Any:
        return self.ln(x) @ self.tokens.weight.T


class Mlp:
    """Digits by linear layers with ReLU between them."""

    def __init__(self, nn: Any) -> None:
        self.layers = [nn.Linear(i, o) for i, o in zip(MLP, MLP[1:])]

    def __call__(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


# ---- weights -------------------------------------------------------------------------------------------------------
Weights = dict[str, np.ndarray]


def resnet_weights(name: str, classes: int = 1000) -> Weights:
    """Random weights by name; the running statistics are random too, so that leaving them out shows."""
    rng, w = np.random.default_rng(18), Weights()

    def pair(conv: str, norm: str, i: int, o: int, k: int) -> None:
        w[conv + ".weight"] = rng.standard_normal((o, i, k, k), np.float32) * np.float32((2 / (i * k * k)) ** 0.5)
        for part, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.1, 0.1),
            ("running_mean", -0.1, 0.1),
            ("running_var", 0.5, 1.5),
        ):
            w[f"{norm}.{part}"] = rng.uniform(low, high, o).astype(np.float32)
        w[norm + ".num_batches_tracked"] = np.array(0, np.int64)

    pair("conv1", "bn1", 3, 64, 7)
    last = 64
    for n, block in enumerate(resnet_blocks(name)):
        for j, (i, last, k, _) in enumerate(block.convs):
            pair(f"blocks.{n}.convs.{j}", f"blocks.{n}.norms.{j}", i, last, k)
        # a deep sum of blocks must not grow without bound
        w[f"blocks.{n}.norms.{len(block.convs) - 1}.weight"] *= np.float32(0.5)
        if block.down:
            pair(f"blocks.{n}.down.0", f"blocks.{n}.down.1", block.down[0], block.down[1], 1)
    w["fc.weight"] = rng.uniform(-0.05, 0.05, (classes, last)).astype(np.float32)
    w["fc.bias"] = rng.uniform(-0.05, 0.05, classes).astype(np.float32)
    return w


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


def mlp_weights() -> Weights:
    """Random weights by name."""
    rng, w = np.random.default_rng(3), Weights()
    for n, (i, o) in enumerate(zip(MLP, MLP[1:])):
        w[f"layers.{n}.weight"] = rng.standard_normal((o, i), np.float32) * np.float32((2 / i) ** 0.5)
        w[f"layers.{n}.bias"] = np.zeros(o, np.float32)
    return w


# ---- torch, jax and ONNX: functions of weights, over operations f ---------------------------------------------------
def resnet(f: Any, w: dict[str, Any], x: Any, name: str) -> Any:
    """The same net. `f.batch_norm(x, w, at)` knows whether it trains."""
    x = f.max_pool(f.relu(f.batch_norm(f.conv(x, w["conv1.weight"], 2, 3), w, "bn1")))
    for n, block in enumerate(resnet_blocks(name)):
        at, y, last = f"blocks.{n}.", x, len(block.convs) - 1
        for j, (_, _, k, stride) in enumerate(block.convs):
            y = f.batch_norm(f.conv(y, w[f"{at}convs.{j}.weight"], stride, k // 2), w, f"{at}norms.{j}")
            y = y if j == last else f.relu(y)
        if block.down:
            x = f.batch_norm(f.conv(x, w[at + "down.0.weight"], block.down[3], 0), w, at + "down.1")
        x = f.relu(y + x)
    return f.linear(f.mean_space(x), w["fc.weight"], w["fc.bias"])


def gpt2(f: Any, w: dict[str, Any], tokens: Any, places: Any, attend: Any = None, shape: Any = GPT2) -> Any:
    """The same net. `attend(layer, q, k, v)` may keep keys and values; without it every token sees those before it."""

    def linear(x: Any, name: str) -> Any:
        return f.linear(x, w[name + ".weight"], w[name + ".bias"])

    def norm(x: Any, name: str) -> Any:
        return f.layer_norm(x, w[name + ".weight"], w[name + ".bias"])

    x = f.embedding(w["tokens.weight"], tokens) + f.embedding(w["places.weight"], places)
    for i in range(shape.layers):
        at = f"layers.{i}."
        q, k, v = f.heads(linear(norm(x, at + "ln1"), at + "attention.qkv"), shape.heads)
        mixed = attend(i, q, k, v) if attend else f.causal_attention(q, k, v)
        x = x + linear(f.join(mixed), at + "attention.out")
        x = x + linear(f.gelu(linear(norm(x, at + "ln2"), at + "up")), at + "down")
    return f.linear(norm(x, "ln"), w["tokens.weight"], None)


def mlp(f: Any, w: dict[str, Any], x: Any) -> Any:
    """The same net."""
    for n in range(len(MLP) - 2):
        x = f.relu(f.linear(x, w[f"layers.{n}.weight"], w[f"layers.{n}.bias"]))
    return f.linear(x, w[f"layers.{len(MLP) - 2}.weight"], w[f"layers.{len(MLP) - 2}.bias"])


# ---- the denoiser of Stable Diffusion 1.5, by its shapes -------------------------------------------------------------
class ResBlock:
    """Two convolutions after GroupNorm and SiLU, with the time's embedding added between them."""

    def __init__(self, nn: Any, inner: int, outer: int, time: int) -> None:
        self.norm1, self.conv1 = nn.GroupNorm(UNET.groups, inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.time = nn.Linear(time, outer)
        self.norm2, self.conv2 = nn.GroupNorm(UNET.groups, outer), nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = [nn.Conv2d(inner, outer, 1)] if inner != outer else []

    def __call__(self, x: Any, time: Any, _context: Any) -> Any:
        y = self.conv1(self.norm1(x).silu()) + self.time(time.silu()).reshape(x.shape[0], -1, 1, 1)
        return self.conv2(self.norm2(y).silu()) + x.sequential(self.skip)


class CrossAttention:
    def __init__(self, nn: Any, dim: int, context: int) -> None:
        self.q, self.k, self.v = (nn.Linear(n, dim, bias=False) for n in (dim, context, context))
        self.out = nn.Linear(dim, dim)

    def __call__(self, x: Any, context: Any) -> Any:
        b, t, d = x.shape
        q, k, v = (
            f(y).reshape(b, y.shape[1], UNET.heads, d // UNET.heads).transpose(1, 2)
            for f, y in ((self.q, x), (self.k, context), (self.v, context))
        )
        return self.out(q.scaled_dot_product_attention(k, v).transpose(1, 2).reshape(b, t, d))


class SpatialTransformer:
    """Self-attention over the places of an image, attention to the text, a gated layer, each around a shortcut."""

    def __init__(self, nn: Any, dim: int) -> None:
        self.norm, self.inward, self.outward = nn.GroupNorm(UNET.groups, dim), nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.norms = [nn.LayerNorm(dim) for _ in range(3)]
        self.own, self.text = CrossAttention(nn, dim, dim), CrossAttention(nn, dim, UNET.context)
        self.up, self.down = nn.Linear(dim, 8 * dim), nn.Linear(4 * dim, dim)

    def __call__(self, x: Any, _time: Any, context: Any) -> Any:
        b, c, h, w = x.shape
        y = self.inward(self.norm(x)).reshape(b, c, h * w).transpose(1, 2)
        n = self.norms[0](y)
        y = y + self.own(n, n)
        y = y + self.text(self.norms[1](y), context)
        value, gate = self.up(self.norms[2](y)).chunk(2, dim=-1)
        y = y + self.down(value * gate.gelu())
        return x + self.outward(y.transpose(1, 2).reshape(b, c, h, w))


class Resize:
    """Half the size by a stride, or twice by repeating places, then a convolution."""

    def __init__(self, nn: Any, dim: int, up: bool) -> None:
        self.conv, self.up = nn.Conv2d(dim, dim, 3, stride=1 if up else 2, padding=1), up

    def __call__(self, x: Any, _time: Any, _context: Any) -> Any:
        if self.up:
            b, c, h, w = x.shape
            x = x.reshape(b, c, h, 1, w, 1).expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)
        return self.conv(x)


class UNet:
    """The layout of Stable Diffusion 1.5 (Rombach et al. 2022): 860 million weights."""

    def __init__(self, nn: Any) -> None:
        time, widths = 4 * UNET.widths[0], UNET.widths
        self.time1, self.time2 = nn.Linear(widths[0], time), nn.Linear(time, time)
        self.first, inner = nn.Conv2d(UNET.latent, widths[0], 3, padding=1), widths[0]
        self.down, kept = [], [inner]
        for level, outer in enumerate(widths):
            for _ in range(2):
                self.down.append([ResBlock(nn, inner, outer, time), *([SpatialTransformer(nn, outer)] if level < 3 else [])])
                inner = outer
                kept.append(inner)
            if level < 3:
                self.down.append([Resize(nn, inner, False)])
                kept.append(inner)
        self.middle = [ResBlock(nn, inner, inner, time), SpatialTransformer(nn, inner), ResBlock(nn, inner, inner, time)]
        self.up = []
        for level, outer in reversed(list(enumerate(widths))):
            for j in range(3):
                step = [ResBlock(nn, inner + kept.pop(), outer, time), *([SpatialTransformer(nn, outer)] if level < 3 else [])]
                self.up.append([*step, *([Resize(nn, outer, True)] if level and j == 2 else [])])
                inner = outer
        self.norm, self.last = nn.GroupNorm(UNET.groups, inner), nn.Conv2d(inner, UNET.latent, 3, padding=1)

    def __call__(self, x: Any, time: Any, context: Any) -> Any:
        """x (B, 4, 64, 64), time (B, 320) as sines and cosines, context (B, 77, 768) -> (B, 4, 64, 64)"""
        time = self.time2(self.time1(time).silu())
        x = self.first(x)
        kept = [x]
        for step in self.down:
            for layer in step:
                x = layer(x, time, context)
            kept.append(x)
        for layer in self.middle:
            x = layer(x, time, context)
        for step in self.up:
            x = x.cat(kept.pop(), dim=1)
            for layer in step:
                x = layer(x, time, context)
        return self.last(self.norm(x).silu())

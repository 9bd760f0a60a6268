"""The nets of the benchmark, written once over a namespace: glassgrad and tinygrad share these names; torch and jax have their own below."""
from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

RESNET18 = ((64, 1), (128, 2), (256, 2), (512, 2))
GPT2 = SimpleNamespace(layers=12, dim=768, heads=12, vocab=50257, context=1024, tokens=128)


class Block:
    def __init__(self, nn: Any, inner: int, outer: int, stride: int) -> None:
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False), nn.BatchNorm(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm(outer)
        self.down = [nn.Conv2d(inner, outer, 1, stride=stride, bias=False), nn.BatchNorm(outer)] if stride != 1 or inner != outer else []

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
        return x + self.down(self.up(self.ln2(x)).gelu())


class Gpt2:
    """The shape of GPT-2 small, with the head tied to the embedding."""
    def __init__(self, nn: Any, shape: Any = GPT2) -> None:
        self.tokens, self.places = nn.Embedding(shape.vocab, shape.dim), nn.Embedding(shape.context, shape.dim)
        self.layers = [Layer(nn, shape.dim, shape.heads) for _ in range(shape.layers)]
        self.ln = nn.LayerNorm(shape.dim)

    def __call__(self, tokens: Any, places: Any) -> Any:
        x = (self.tokens(tokens) + self.places(places)).sequential(self.layers)
        return self.ln(x) @ self.tokens.weight.T


# ---- torch -----------------------------------------------------------------------------------------------------------------------
def torch_resnet18(classes: int = 1000) -> Any:
    """The same net in torch."""
    import torch
    from torch import nn

    class TorchBlock(nn.Module):
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
            self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
            down = [nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)] if stride != 1 or inner != outer else []
            self.down = nn.Sequential(*down)
        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.down(x))
    layers: list[Any] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inner = 64
    for outer, stride in RESNET18:
        layers += [TorchBlock(inner, outer, stride), TorchBlock(outer, outer, 1)]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


# ---- jax -------------------------------------------------------------------------------------------------------------------------
def jax_resnet18(rng: Any, classes: int = 1000) -> tuple[Any, Any]:
    """(parameters, apply(parameters, x, train)) of the same net in jax."""
    import jax.numpy as jnp
    from jax import lax, nn
    params: dict[str, Any] = {}

    def add(name: str, *shape: int) -> None: params[name] = jnp.asarray(rng.standard_normal(shape, dtype="float32") * (2 / math.prod(shape[1:])) ** 0.5)
    def bn(name: str, n: int) -> None:
        params[name] = {"w": jnp.ones(n), "b": jnp.zeros(n), "m": jnp.zeros(n), "v": jnp.ones(n)}
    add("conv", 64, 3, 7, 7)
    bn("bn", 64)
    inner = 64
    for i, (outer, stride) in enumerate(RESNET18):
        for j in range(2):
            p = f"{i}{j}"
            add(p + "c1", outer, inner, 3, 3), bn(p + "b1", outer), add(p + "c2", outer, outer, 3, 3), bn(p + "b2", outer)
            if j == 0 and (stride != 1 or inner != outer): add(p + "cd", outer, inner, 1, 1), bn(p + "bd", outer)
            inner = outer
    add("fc", classes, 512)

    def conv(x: Any, w: Any, s: int, pad: int) -> Any: return lax.conv_general_dilated(x, w, (s, s), [(pad, pad)] * 2)
    def norm(x: Any, p: Any, train: bool) -> Any:
        m, v = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if train else (p["m"], p["v"])
        c = (slice(None), None, None)
        return (x - m[c]) * lax.rsqrt(v[c] + 1e-5) * p["w"][c] + p["b"][c]
    def apply(p: Any, x: Any, train: bool = False) -> Any:
        x = nn.relu(norm(conv(x, p["conv"], 2, 3), p["bn"], train))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
        for i, (_, stride) in enumerate(RESNET18):
            for j in range(2):
                q, s = f"{i}{j}", stride if j == 0 else 1
                y = norm(conv(nn.relu(norm(conv(x, p[q + "c1"], s, 1), p[q + "b1"], train)), p[q + "c2"], 1, 1), p[q + "b2"], train)
                x = nn.relu(y + (norm(conv(x, p[q + "cd"], s, 0), p[q + "bd"], train) if q + "cd" in p else x))
        return x.mean((2, 3)) @ p["fc"].T
    return params, apply


def jax_gpt2(rng: Any, shape: Any = GPT2) -> tuple[Any, Any]:
    """(parameters, apply(parameters, tokens)) of the GPT-2 shape in jax, its layers written out."""
    import jax
    import jax.numpy as jnp
    d = shape.dim
    def weights(*s: int) -> Any: return jnp.asarray(rng.standard_normal(s, dtype="float32") * 0.02)
    params = {"wte": weights(shape.vocab, d), "wpe": weights(shape.context, d), "layers": [
        {"qkv": weights(d, 3 * d), "out": weights(d, d), "up": weights(d, 4 * d), "down": weights(4 * d, d), "l1": jnp.ones(d), "l2": jnp.ones(d)}
        for _ in range(shape.layers)], "ln": jnp.ones(d)}

    def norm(x: Any, w: Any) -> Any:
        m = x.mean(-1, keepdims=True)
        return (x - m) * jax.lax.rsqrt(((x - m) ** 2).mean(-1, keepdims=True) + 1e-5) * w
    def apply(p: Any, tokens: Any) -> Any:
        t = tokens.shape[-1]
        x = p["wte"][tokens] + p["wpe"][jnp.arange(t)]
        mask = jnp.tril(jnp.ones((t, t), bool))
        for q in p["layers"]:
            a, b, c = (y.reshape(1, t, shape.heads, d // shape.heads).transpose(0, 2, 1, 3) for y in jnp.split(norm(x, q["l1"]) @ q["qkv"], 3, -1))
            s = jnp.where(mask, a @ b.transpose(0, 1, 3, 2) / math.sqrt(d // shape.heads), -jnp.inf)
            x = x + (jax.nn.softmax(s) @ c).transpose(0, 2, 1, 3).reshape(1, t, d) @ q["out"]
            x = x + jax.nn.gelu(norm(x, q["l2"]) @ q["up"]) @ q["down"]
        return norm(x, p["ln"]) @ p["wte"].T
    return params, apply

"""The cases of the speed tables: inputs, what the result must be in float64, how much work it is at least, and the bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import models
import numpy as np

MIB = 1 << 20
SIDE = 1024  # of the images' matrices in the table's middle
CHAIN = 1000  # additions in a row
CLASSES, LR, MOMENTUM = 10, 0.01, 0.9  # of the training steps
BF16, INT8, WIDE = "bfloat16", "int8", "float32"


class Input(NamedTuple):
    """An array: its shape, how its values are drawn, and the dtype they are computed with."""

    name: str
    shape: tuple[int, ...]
    draw: str = "normal"
    dtype: str = WIDE

    def make(self, rng: np.random.Generator) -> np.ndarray:
        """The values. Those of a bfloat16 are float32 that it can hold."""
        kind, _, number = self.draw.partition(" ")
        if kind == "uniform":
            return rng.random(self.shape, np.float32)
        if kind == "below":
            return rng.integers(0, int(number), self.shape, np.int32)
        if kind == "bytes":
            return rng.integers(-128, 128, self.shape, np.int8)
        if kind == "distinct":
            return rng.permutation(math.prod(self.shape)).astype(np.float32).reshape(self.shape)
        if kind == "order":
            return np.arange(math.prod(self.shape), dtype=np.int32).reshape(self.shape)
        x = rng.standard_normal(self.shape, np.float32)
        return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) if self.dtype == BF16 else x


class Case(NamedTuple):
    """`family` says what is computed, with the arguments `how`, of which inputs. `flops` and `bytes` are the least it takes.

    `limit` is the machine's bound that counts, `tolerance` that of the largest difference, as a share of the largest
    value of the reference (0: equal), `bar` the most of the best peer's time allowed, `is_bound` says that arithmetic bounds
    it, so that a second thread must pay.
    """

    name: str
    family: str
    inputs: tuple[Input, ...]
    flops: float
    bytes: float
    limit: str
    tolerance: float
    bar: float | None = None
    is_bound: bool = False
    how: dict[str, Any] = {}  # noqa: RUF012
    part: str = "speed"

    @property
    def trains(self) -> bool:
        """Whether calls differ, as each goes on from the last: then all of them are compared."""
        return self.family.endswith("_train")

    def arrays(self) -> dict[str, np.ndarray]:
        """The same random values for everyone."""
        rng = np.random.default_rng(len(self.name))
        return {i.name: i.make(rng) for i in self.inputs}

    def reference(self, arrays: dict[str, np.ndarray], calls: int) -> tuple[np.ndarray, ...] | None:
        """The results in float64 (of so many calls, where it trains); None where torch would be needed and is absent."""
        if self.family in REFERENCES:
            found = REFERENCES[self.family](
                *[a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays.values()], **self.how
            )
            return found if isinstance(found, tuple) else (np.asarray(found),)
        try:
            import frameworks

            torch = frameworks.Torch(0, wide=True)
        except ImportError:
            return None
        call = torch.calls(self, [torch.load(a, "float64" if a.dtype == np.float32 else str(a.dtype)) for a in arrays.values()])["eager"]
        if self.trains:
            return (np.stack([torch.read(call())[0] for _ in range(calls)]),)
        return tuple(torch.read(call()))


def cases() -> list[Case]:
    """All of them, in the order of the table."""
    n, rows, line = 16 * MIB, 4096, 1024
    vocab, dim, picks = 50257, 768, 8192
    heads, t, d = 8, 1024, 64
    image, many = (8, 64, 56, 56), (8, 128, 56, 56)
    made = [matmul(f"matmul fp32 {k}", k, WIDE, 0.95) for k in (256, 512, 1024, 2048)]
    made += [matmul("matmul bf16 1024", 1024, BF16, 0.8), matmul("matmul int8 1024", 1024, INT8, 0.6)]
    for name, dtype, bar in (("fp32", WIDE, 1.0), ("bf16", BF16, 0.6)):
        inputs = (Input("x", (4096, 4096), dtype=dtype), Input("y", (4096,), dtype=dtype))
        size = 4 if dtype == WIDE else 2
        made.append(Case(f"matvec {name} 4096", "matmul", inputs, 2 * 4096**2, size * 4096**2, "read", tolerance(dtype), bar))
    x = Input("x", (n,))
    made += [
        Case("gelu 16M", "gelu", (x,), 12 * n, 8 * n, "copy", 1e-5, 0.4),
        Case("sum 16M", "sum", (Input("x", (n,), "uniform"),), n, 4 * n, "read", 1e-5, 1.0),
        Case(
            "layernorm",
            "layernorm",
            (Input("x", (rows, line)), Input("w", (line,)), Input("b", (line,))),
            7 * rows * line,
            8 * rows * line,
            "copy",
            1e-5,
            0.5,
        ),
        Case("softmax", "softmax", (Input("x", (rows, line)),), 4 * rows * line, 8 * rows * line, "copy", 1e-5, 1.0),
        Case(
            "attention",
            "attention",
            tuple(Input(name, (1, heads, t, d)) for name in "qkv"),
            4 * heads * t * t * d,
            16 * heads * t * d,
            "fma",
            1e-5,
            0.8,
            True,
        ),
        convolution("conv 3x3", image, 64, 3, 1, 1, 0.95),
        convolution("conv 7x7 stride 2", (8, 3, 224, 224), 64, 7, 2, 1, 0.9),
        convolution("depthwise 3x3", many, 128, 3, 1, 128, 0.5),
        Case(
            "embedding",
            "embedding",
            (Input("w", (vocab, dim)), Input("i", (picks,), f"below {vocab}", "int32")),
            0,
            8 * picks * dim,
            "copy",
            0,
            0.6,
        ),
        Case("cumsum 16M", "cumsum", (Input("x", (n,), "uniform"),), n, 8 * n, "copy", 1e-4, 0.4),
    ]
    for name, family, bar in (("sort 1M", "sort", 0.7), ("argsort 1M", "argsort", 0.7), ("topk(100) of 1M", "topk", 1.0)):
        how = {"k": 100} if family == "topk" else {}
        made.append(Case(name, family, (Input("x", (MIB,), "distinct"),), 0, 4 * MIB, "read", 0, bar, how=how))
    for batch in (1, 8):
        made.append(
            Case(
                f"resnet18 b{batch}",
                "resnet18",
                (Input("x", (batch, 3, 224, 224)),),
                batch * models.resnet_flops("resnet18"),
                46.8e6,
                "fma",
                1e-4,
                1.0,
                True,
            )
        )
    g = models.GPT2
    weights = 12 * g.layers * g.dim**2
    small = {
        "resnet18_train": (Input("x", (16, 3, 32, 32)), Input("y", (16,), f"below {CLASSES}", "int32")),
        "mlp_train": (Input("x", (512, models.MLP[0])), Input("y", (512,), f"below {CLASSES}", "int32")),
        "gpt2": (Input("tokens", (1, g.tokens), f"below {g.vocab}", "int32"), Input("places", (1, g.tokens), "order", "int32")),
        "decode": (
            Input("tokens", (1, 1), f"below {g.vocab}", "int32"),
            Input("cache", (g.layers, 2, 1, g.heads, models.CACHE_TOKENS, g.dim // g.heads)),
        ),
    }
    mlp = 6 * 512 * sum(i * o for i, o in zip(models.MLP, models.MLP[1:]))
    made += [
        Case("resnet18 train", "resnet18_train", small["resnet18_train"], 3 * 16 * models.resnet_flops("resnet18", 32, 10),
             5 * 44.7e6, "fma", 1e-3, 0.75, True),
        Case("mlp train", "mlp_train", small["mlp_train"], mlp, 20e6, "fma", 1e-3, 0.8, True),
        Case("gpt2 128 tokens", "gpt2", small["gpt2"], 2 * g.tokens * (weights + g.vocab * g.dim), 498e6, "fma", 1e-4, 0.85, True),
        Case("gpt2 decode", "decode", small["decode"], 2 * (weights + g.vocab * g.dim), 4 * (weights + g.vocab * g.dim), "read",
             1e-4, 0.95),
    ]
    pair = (Input("x", (4, 4)), Input("y", (4, 4)))
    made += [
        Case(name, family, pair, 16, 192, "time", 1e-5, part="overheads")
        for name, family in (("4x4 add", "add"), ("1,000 chained adds", "chain"))
    ]
    return made


def tolerance(dtype: str) -> float:
    """Of a product: bfloat16 rounds the result to 8 bits, integers are exact."""
    return {WIDE: 1e-5, BF16: 4e-3, INT8: 0}[dtype]


def matmul(name: str, n: int, dtype: str, bar: float) -> Case:
    """Square matrices; the sum of int8 products is int32."""
    draw = "bytes" if dtype == INT8 else "normal"
    inputs = (Input("x", (n, n), draw, dtype), Input("y", (n, n), draw, dtype))
    family = "matmul_int8" if dtype == INT8 else "matmul"
    size = {WIDE: 12, BF16: 6, INT8: 6}[dtype]
    return Case(name, family, inputs, 2 * n**3, size * n**2, "fma", tolerance(dtype), bar, True)


def convolution(name: str, image: tuple[int, ...], outer: int, kernel: int, stride: int, groups: int, bar: float) -> Case:
    """Without bias, padded by half the kernel."""
    inner, out = image[1] // groups, image[0] * outer * math.prod(n // stride for n in image[2:])
    inputs = (Input("x", image), Input("w", (outer, inner, kernel, kernel)))
    how = {"stride": stride, "padding": kernel // 2, "groups": groups}
    work = 2 * out * inner * kernel * kernel
    bound = "fma" if groups == 1 else "copy"
    return Case(name, "conv", inputs, work, 4 * (math.prod(image) + out), bound, 1e-5, bar, groups == 1, how)


# ---- what each family computes, in float64; nets are computed by torch ----------------------------------------------
def conv_reference(x: np.ndarray, w: np.ndarray, stride: int, padding: int, groups: int) -> np.ndarray:
    """As a product of matrices for each place in the kernel."""
    h, v = (n // stride for n in x.shape[2:])
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, k = x.shape[0], x.shape[1] // groups, w.shape[2]
    x, w = x.reshape(n, groups, c, *x.shape[2:]), w.reshape(groups, -1, *w.shape[1:])
    total = sum(
        np.einsum("ngchw,goc->ngohw", x[..., i : i + h * stride : stride, j : j + v * stride : stride], w[..., i, j], optimize=True)
        for i in range(k)
        for j in range(k)
    )
    return total.reshape(n, -1, h, v)


def softmax_reference(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layernorm_reference(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Along the last axis, with scale and shift."""
    rest = x - x.mean(-1, keepdims=True)
    return rest / np.sqrt((rest * rest).mean(-1, keepdims=True) + 1e-5) * w + b


def topk_reference(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(values, places)"""
    order = np.argsort(-x)[:k]
    return x[order], order


REFERENCES: dict[str, Callable[..., Any]] = {
    "matmul": lambda x, y: x @ y,
    # exact: the sums stay below 2**53
    "matmul_int8": lambda x, y: x.astype(np.float64) @ y.astype(np.float64),
    "conv": conv_reference,
    "attention": lambda q, k, v: softmax_reference(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])) @ v,
    "layernorm": layernorm_reference,
    "softmax": softmax_reference,
    # by the formula with tanh, which all frameworks are asked for
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sum": lambda x: x.sum(),
    "embedding": lambda w, i: w[i],
    "cumsum": lambda x: x.cumsum(),
    "sort": lambda x: np.sort(x),
    "argsort": lambda x: np.argsort(x),
    "topk": topk_reference,
    "add": lambda x, y: x + y,
    "chain": lambda x, y: x + CHAIN * y,
}

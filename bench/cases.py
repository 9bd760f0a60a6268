"""The cases of the speed tables: inputs, what the result must be in float64, and how much work it is at least."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import models
import numpy as np

Arrays = dict[str, np.ndarray]


class Case(NamedTuple):
    """`family` says what is computed, `shapes` of which inputs. `flops` and `bytes` are the least it takes.

    `limit` is the machine's bound that counts, `tolerance` that of the largest difference, as a share of the largest
    value of the reference, `bar` the most of torch's time allowed.
    """

    name: str
    family: str
    shapes: dict[str, tuple[int, ...]]
    flops: float
    bytes: float
    limit: str
    tolerance: float
    bar: float | None = None
    two_threads: bool = False  # there is a bar on the gain of a second thread
    part: str = "speed"

    def inputs(self) -> Arrays:
        """The same random values for everyone."""
        rng = np.random.default_rng(len(self.name))
        draw = (
            (lambda s: rng.random(s, np.float32))
            if self.family == "sum"
            else (lambda s: rng.standard_normal(s, np.float32))
        )
        return {name: draw(shape) for name, shape in self.shapes.items()}

    def reference(self, arrays: Arrays) -> np.ndarray | None:
        """The result in float64; None where torch would be needed and is absent."""
        return REFERENCES[self.family]({k: v.astype(np.float64) for k, v in arrays.items()})


def cases() -> list[Case]:
    """All of them, in the order of the table."""
    made = [
        Case(f"matmul {n}", "matmul", {"x": (n, n), "y": (n, n)}, 2 * n**3, 12 * n**2, "fma", 1e-5, 1.5, True)
        for n in (512, 1024, 2048)
    ]
    n, rows, line = 1 << 24, 4096, 1024
    image, weight = (8, 64, 56, 56), (64, 64, 3, 3)
    heads, t, d = 8, 1024, 64
    attention = {name: (1, heads, t, d) for name in "qkv"}
    made += [
        Case(
            "conv 3x3",
            "conv",
            {"x": image, "w": weight},
            2 * 9 * 64 * math.prod(image),
            8 * math.prod(image),
            "fma",
            1e-5,
            2.0,
            True,
        ),
        Case("resnet18", "resnet18", {"x": (1, 3, 224, 224)}, resnet18_flops(), 46.8e6, "fma", 1e-4, 1.5),
        Case("attention", "attention", attention, 4 * heads * t * t * d, 16 * heads * t * d, "fma", 1e-5, 1.5),
        Case(
            "layernorm",
            "layernorm",
            {"x": (rows, line), "w": (line,), "b": (line,)},
            7 * rows * line,
            8 * rows * line,
            "copy",
            1e-5,
            1.0,
        ),
        Case("softmax", "softmax", {"x": (rows, line)}, 4 * rows * line, 8 * rows * line, "copy", 1e-5, 1.0),
        Case("gelu(x*a+b)", "gelu", {"x": (n,)}, 12 * n, 8 * n, "copy", 1e-5, 0.5),
        Case("sum", "sum", {"x": (n,)}, n, 4 * n, "read", 1e-5, 1.0),
    ]
    small = {"x": (4, 4), "y": (4, 4)}
    made += [
        Case(name, family, small, 16, 192, "time", 1e-5, part="overheads")
        for name, family in (("4x4 add", "add"), ("1,000 chained adds", "chain"))
    ]
    return made


def resnet18_flops() -> float:
    """Two for each multiply-add of the convolutions and the last layer, for one image of 224 x 224."""
    side, inner, total = 56, 64, 2 * 112 * 112 * 64 * 3 * 49
    for outer, stride in models.blocks_of_resnet18():
        side //= stride
        total += 2 * side * side * outer * 9 * (inner + outer) + (
            2 * side * side * outer * inner if stride != 1 or inner != outer else 0
        )
        inner = outer
    return total + 2 * 512 * 1000


# ---- what each family computes, in float64 -------------------------------------------------------------------------
SCALE, SHIFT = 1.5, 0.25  # of gelu(x * a + b)
CHAIN = 1000  # additions in a row


def conv_reference(a: Arrays) -> np.ndarray:
    """As nine products of matrices."""
    x, w = np.pad(a["x"], ((0, 0), (0, 0), (1, 1), (1, 1))), a["w"]
    h, v = a["x"].shape[2:]
    return sum(
        np.einsum("nchw,oc->nohw", x[:, :, i : i + h, j : j + v], w[:, :, i, j], optimize=True)
        for i in range(3)
        for j in range(3)
    )


def resnet18_reference(a: Arrays) -> np.ndarray | None:
    """By torch in float64, if it is there."""
    try:
        import torch
    except ImportError:
        return None
    with torch.inference_mode():
        return models.torch_resnet18(models.resnet18_weights()).double().eval()(torch.tensor(a["x"])).numpy()


def softmax_reference(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layernorm_reference(a: Arrays) -> np.ndarray:
    """Along the last axis, with scale and shift."""
    rest = a["x"] - a["x"].mean(-1, keepdims=True)
    return rest / np.sqrt((rest * rest).mean(-1, keepdims=True) + 1e-5) * a["w"] + a["b"]


def gelu_reference(a: Arrays) -> np.ndarray:
    """By the formula with tanh, which all frameworks are asked for."""
    x = a["x"] * SCALE + SHIFT
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


REFERENCES: dict[str, Callable[[Arrays], Any]] = {
    "matmul": lambda a: a["x"] @ a["y"],
    "conv": conv_reference,
    "resnet18": resnet18_reference,
    "attention": lambda a: softmax_reference(a["q"] @ a["k"].swapaxes(-1, -2) / math.sqrt(a["q"].shape[-1])) @ a["v"],
    "layernorm": layernorm_reference,
    "softmax": lambda a: softmax_reference(a["x"]),
    "gelu": gelu_reference,
    "sum": lambda a: a["x"].sum(),
    "add": lambda a: a["x"] + a["y"],
    "chain": lambda a: a["x"] + CHAIN * a["y"],
}

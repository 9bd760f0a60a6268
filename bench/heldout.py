"""Shapes nobody tuned for: 200 random ones of each family, glassgrad (jit) against torch (eager), in turns.

    python bench/heldout.py                          # all four families: about five minutes
    python bench/heldout.py --only gemm --count 50   # the first fifty of one family
    python bench/heldout.py --only conv --shape 17   # one shape, by its number; also on two threads: --threads 2

The draws are the same on every machine (a fixed seed): sizes are log-uniform, a quarter of them primes, a quarter multiples
of 16; operands are transposed, sliced and strided views. Two worker processes pinned to the same CPUs take short turns; a
shape's time is the best turn's median. Values are compared with torch in float64.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
from team import Failed, Worker, say

SEED, COUNT = 1, 200
FAMILIES = ("gemm", "conv", "reduce", "elementwise")
MEDIAN_BAR, P95_BAR = 0.9, 1.3
ROUNDS, TURN_S = 4, 0.008
TOLERANCE = 1e-5  # of the largest value of the reference, or four times what torch itself is off
OPEN_LIMIT_S, TURN_LIMIT_S = 120, 60
POOL = 1 << 23  # random numbers that inputs are cut from

Shape = tuple[int, ...]


class Operand(NamedTuple):
    """An array as it is stored, the view of it that is computed with, and how to write that."""

    stored: Shape
    view: Callable[[Any], Any]
    text: str


class Draw(NamedTuple):
    """One random program: `compute(names, *tensors)`, names being those of GlassgradNames and TorchNames."""

    family: str
    operands: tuple[Operand, ...]
    compute: Callable[..., Any]
    text: str
    flops: float

    def inputs(self) -> list[np.ndarray]:
        """The same values in every process. Sums and chains get positive ones, so that nothing cancels."""
        pool, at, arrays = numbers(), 0, []
        for o in self.operands:
            size = math.prod(o.stored)
            at = at if at + size <= POOL else 0
            part = pool[at : at + size].reshape(o.stored)
            arrays.append(part.copy() if self.family in ("gemm", "conv") else np.abs(part) + np.float32(0.5))
            at += size
        return arrays

    def program(self, names: Any) -> Callable[..., Any]:
        """The whole of it as one function of the stored arrays."""
        compute, views = self.compute, [o.view for o in self.operands]
        return lambda *xs: compute(names, *[view(x) for view, x in zip(views, xs)])


@functools.cache
def numbers() -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal(POOL, np.float32)


@functools.cache
def draws(family: str) -> list[Draw]:
    """All of a family."""
    rng = random.Random(f"{family} {SEED}")
    return [{"gemm": draw_gemm, "conv": draw_conv, "reduce": draw_reduce, "elementwise": draw_elementwise}[family](rng) for _ in range(COUNT)]


# ---- drawing -------------------------------------------------------------------------------------------------------
def log_uniform(rng: random.Random, lo: float, hi: float) -> float:
    return math.exp(rng.uniform(math.log(lo), math.log(hi)))


def size(rng: random.Random, lo: float, hi: float) -> int:
    """An axis' length: any, a prime, or a multiple of 16."""
    n, kind = round(log_uniform(rng, lo, hi)), rng.choice(("any", "any", "prime", "round"))
    if kind == "prime":
        while n < 2 or any(n % i == 0 for i in range(2, math.isqrt(n) + 1)):
            n += 1
    return max(16, n // 16 * 16) if kind == "round" and n >= 8 else n


def shape_of(rng: random.Random, ranks: Shape, lo: int, hi: int) -> Shape:
    """A shape of lo to hi elements."""
    while True:
        parts = [rng.uniform(0.15, 1) for _ in range(rng.choice(ranks))]
        total = math.log(log_uniform(rng, lo, hi)) / sum(parts)
        shape = tuple(size(rng, n, n) for n in (math.exp(total * p) for p in parts))
        if lo <= math.prod(shape) <= hi:
            return shape


def operand(rng: random.Random, name: str, shape: Shape, plain: float = 0.6) -> Operand:
    """The array of this shape, or a view that has it: axes permuted, every second element of one, or all but the first few."""
    kind = "plain" if rng.random() < plain else rng.choice(("permute", "permute", "step", "cut"))
    if kind == "permute" and len(shape) > 1:
        order = list(range(len(shape)))
        while order == sorted(order):
            rng.shuffle(order)
        order = tuple(order)
        stored = tuple(shape[order.index(a)] for a in range(len(shape)))
        swap = ".T" if len(shape) == 2 else f".permute{order}"
        return Operand(stored, lambda x: x.permute(order), f"{name}{stored}{swap}")
    if kind not in ("step", "cut"):
        return Operand(shape, lambda x: x, f"{name}{shape}")
    axis, off = rng.randrange(len(shape)), rng.randint(1, 5)
    key = tuple(
        (slice(None, None, 2) if kind == "step" else slice(off, None)) if a == axis else slice(None)
        for a in range(len(shape))
    )
    stored = tuple((2 * n if kind == "step" else n + off) if a == axis else n for a, n in enumerate(shape))
    text = ", ".join((("::2" if kind == "step" else f"{off}:") if a == axis else ":") for a in range(len(shape)))
    return Operand(stored, lambda x: x[key], f"{name}{stored}[{text}]")


def draw_gemm(rng: random.Random) -> Draw:
    """Products of matrices: plain, skinny, a matrix and a vector, batched, one matrix for the whole batch."""
    while True:
        kind = rng.choice(("plain", "plain", "plain", "skinny", "vector", "batched", "batched", "shared"))
        m, n, k = (size(rng, 16, 1024) for _ in "mnk")
        b = size(rng, 2, 64) if kind in ("batched", "shared") else 1
        if kind == "skinny":
            m, n = rng.choice(((rng.randint(1, 8), 2 * n), (2 * m, rng.randint(1, 8))))
        if kind == "vector":
            m, k, n = 4 * m, 2 * k, 1
        if 2**18 <= b * m * n * k <= 2**27.5 and b * max(m * k, k * n, m * n) <= 1 << 22:
            break
    if kind == "vector":
        x, y = operand(rng, "x", (m, k)), operand(rng, "y", (k,), 0.9)
    else:
        many = (b,) if kind in ("batched", "shared") else ()
        x = operand(rng, "x", (*many, m, k))
        y = operand(rng, "y", ((*many, k, n) if kind != "shared" else (k, n)))
    return Draw("gemm", (x, y), lambda names, x, y: x @ y, f"{x.text} @ {y.text}", 2 * b * m * n * k)


def draw_conv(rng: random.Random) -> Draw:
    """Convolutions over one to three axes: strides, dilation, padding, groups, depthwise."""
    while True:
        axes = rng.choice((1, 2, 2, 2, 2, 3))
        kind = rng.choice(("full", "full", "full", "grouped", "depthwise"))
        batch, inner, outer = rng.randint(1, 8), size(rng, 1, 256), size(rng, 1, 256)
        groups = 1
        if kind == "grouped":
            groups = rng.choice((2, 3, 4, 8))
            inner, outer = -(-inner // groups) * groups, -(-outer // groups) * groups
        if kind == "depthwise":
            groups, outer = inner, inner * rng.choice((1, 1, 2))
        space = tuple(size(rng, 5, {1: 4096, 2: 128, 3: 24}[axes]) for _ in range(axes))
        kernel = tuple(rng.choice((1, 2, 3, 3, 3, 5, 7)) for _ in range(axes))
        if rng.random() < 0.6:
            kernel = kernel[:1] * axes
        stride, dilation, padding = rng.choice((1, 1, 1, 2, 3)), rng.choice((1, 1, 1, 2)), rng.choice((0, 0, 1, 2, 3))
        out = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(space, kernel)]
        if min(out) < 1 or padding > min(kernel):
            continue
        work = batch * outer * math.prod(out) * inner // groups * math.prod(kernel)
        if 2**18 <= work <= 2**27 and batch * max(inner * math.prod(space), outer * math.prod(out)) <= 1 << 22:
            break
    x, w = operand(rng, "x", (batch, inner, *space), 0.75), operand(rng, "w", (outer, inner // groups, *kernel), 0.9)
    b = operand(rng, "b", (outer,), 1.0)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    text = ", ".join(f"{k}={v}" for k, v in how.items() if v != (0 if k == "padding" else 1))
    return Draw(
        "conv",
        (x, w, b),
        lambda names, x, w, b: names.conv(x, w, b, **how),
        f"conv{axes}d({x.text}, {w.text}, b{', ' + text if text else ''})",
        2 * work,
    )


REDUCTIONS = ("sum", "sum", "max", "min", "mean", "mean", "var", "std", "logsumexp", "norm", "argmax")


def draw_reduce(rng: random.Random) -> Draw:
    """Reductions over any axes."""
    while True:
        shape, kind = shape_of(rng, (1, 2, 2, 3, 3, 4), 1 << 13, 1 << 22), rng.choice(REDUCTIONS)
        axes = tuple(sorted(rng.sample(range(len(shape)), 1 if kind == "argmax" else rng.randint(1, len(shape)))))
        if math.prod(shape[a] for a in axes) > 1:
            break
    x = operand(rng, "x", shape, 0.7)
    return Draw(
        "reduce", (x,), lambda names, x: getattr(names, kind)(x, axes), f"{x.text}.{kind}{axes}", math.prod(shape)
    )


UNARY = {
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "relu": lambda x: x.relu(),
    "abs": lambda x: x.abs(),
    "neg": lambda x: -x,
    "square": lambda x: x.square(),
    "clamp(-8, 8).exp": lambda x: x.clamp(-8, 8).exp(),
    "clamp(-8, 8).sin": lambda x: x.clamp(-8, 8).sin(),
    "abs().sqrt": lambda x: x.abs().sqrt(),
    "*1.5+0.25": lambda x: x * 1.5 + 0.25,
}
BINARY = {
    "+": lambda names, x, y: x + y,
    "-": lambda names, x, y: x - y,
    "*": lambda names, x, y: x * y,
    "/": lambda names, x, y: x / y,
    "max": lambda names, x, y: x.maximum(y),
    "where>": lambda names, x, y: names.where(x > y, x, y * 0.5),
}


def draw_elementwise(rng: random.Random) -> Draw:
    """Chains of two to six steps, half of them with another operand, which is broadcast along some axes."""
    shape = shape_of(rng, (1, 2, 2, 3, 3, 4), 1 << 13, 1 << 22)
    operands, steps, text = [operand(rng, "x", shape)], [], []
    for _ in range(rng.randint(2, 6)):
        if rng.random() < 0.5 and len(operands) < 4:
            thin = tuple(1 if rng.random() < 0.35 else n for n in shape)
            y, name = operand(rng, "xyzw"[len(operands)], thin, 0.8), rng.choice(list(BINARY))
            operands.append(y)
            steps.append((BINARY[name], len(operands) - 1))
            text.append(f"{name} {y.text}")
        else:
            name = rng.choice([n for n in UNARY if n != "square" or (UNARY["square"], None) not in steps])
            steps.append((UNARY[name], None))
            text.append(name)

    def compute(names: Any, *xs: Any) -> Any:
        x = xs[0]
        for step, other in steps:
            x = step(x) if other is None else step(names, x, xs[other])
        return x

    return Draw("elementwise", tuple(operands), compute, f"{operands[0].text}, {', '.join(text)}", math.prod(shape))


class GlassgradNames:
    """What the draws call, where names differ from torch's."""

    def __init__(self) -> None:
        for name in ("sum", "max", "min", "mean", "var", "std", "logsumexp"):
            setattr(self, name, lambda x, axes, name=name: getattr(x, name)(axes))

    def argmax(self, x: Any, axes: Shape) -> Any: return x.argmax(axes[0])
    def norm(self, x: Any, axes: Shape) -> Any: return x.square().sum(axes).sqrt()
    def where(self, c: Any, x: Any, y: Any) -> Any: return c.where(x, y)
    def conv(self, x: Any, w: Any, b: Any, **how: Any) -> Any: return x.conv2d(w, b, **how)


class TorchNames:
    """The same in torch."""

    def __init__(self, torch: Any) -> None:
        F = torch.nn.functional
        self.max, self.min, self.where = torch.amax, torch.amin, torch.where
        self.sum, self.mean, self.var, self.std, self.logsumexp = torch.sum, torch.mean, torch.var, torch.std, torch.logsumexp
        self.conv = lambda x, w, b, **how: (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3](x, w, b, **how)
        self.norm = lambda x, axes: torch.linalg.vector_norm(x, dim=axes)
        self.argmax = lambda x, axes: torch.argmax(x, axes[0])


# ---- measuring -----------------------------------------------------------------------------------------------------
def start(threads: int) -> dict[str, Worker]:
    """A worker of each framework on the same CPUs."""
    cpus = machine.pick_cpus(threads)
    return {f: Worker(f, threads, cpus, machine.worker_env(threads, {})) for f in ("glassgrad", "torch")}


def measure(workers: dict[str, Worker], family: str, number: int, folder: str) -> dict[str, Any]:
    """One shape: seconds of both, their ratio, and how far glassgrad is off."""
    found: dict[str, Any] = {"number": number, "text": draws(family)[number].text}
    try:
        for framework, w in workers.items():
            found[f"{framework} first_s"] = w.ask(OPEN_LIMIT_S, do="draw", family=family, number=number, save=folder)["first_s"]
        expected, ours, theirs = (np.load(Path(folder, f"{n}.npy")) for n in ("expected", "glassgrad", "torch"))
        found["error"], own = off(ours, expected), off(theirs, expected)
        found["wrong"] = not found["error"] <= max(TOLERANCE, 4 * own)
        best = dict.fromkeys(workers, math.inf)
        for turn in range(ROUNDS):
            for framework in list(workers)[:: -1 if turn % 2 else 1]:
                times = workers[framework].ask(TURN_LIMIT_S, do="turn", mode="timed", seconds=TURN_S)["times"]
                best[framework] = min(best[framework], sorted(times)[len(times) // 2])
        return {**found, **{f"{k}_s": v for k, v in best.items()}, "ratio": best["glassgrad"] / best["torch"]}
    except Failed as e:
        return {**found, "failed": str(e)}


def off(x: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest value; infinite for another shape and for NaN."""
    if x.shape != expected.shape:
        return math.inf
    error = np.abs(x - expected).max() / max(np.abs(expected).max(), 1e-30)
    return float(error) if np.isfinite(error) else math.inf


def run(
    families: list[str], wanted: range | list[int], threads: int = 1, found: dict[str, list[dict[str, Any]]] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """All wanted shapes of the families, into `found`: {family: rows}."""
    found = {} if found is None else found
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for family in families:
                begin, found[family] = time.perf_counter(), []
                for number in wanted:
                    if not all(w.is_alive for w in workers.values()) or not workers:
                        for w in workers.values():
                            w.end()
                        workers = start(threads)
                    found[family].append(measure(workers, family, number, folder))
                say(f"held out: {family}: {len(wanted)} shapes in {time.perf_counter() - begin:.0f} s")
        finally:
            for w in workers.values():
                w.end()
    return found


# ---- report --------------------------------------------------------------------------------------------------------
def distribution(rows: list[dict[str, Any]]) -> dict[str, float] | None:
    """Geometric mean, median, 90th and 95th percentile of our time over torch's."""
    ratios = [r["ratio"] for r in rows if "ratio" in r]
    if not ratios:
        return None
    middle, p90, p95 = np.percentile(ratios, (50, 90, 95))
    return {"mean": float(np.exp(np.mean(np.log(ratios)))), "median": float(middle), "p90": float(p90), "p95": float(p95)}


def lines(found: dict[str, list[dict[str, Any]]], worst: int = 10) -> list[str]:
    """Two tables in Markdown: the distribution of each family, and its worst shapes."""
    text = ["| family | shapes | geometric mean | median | 90th percentile | 95th | failed | wrong |", "|" + "---|" * 8]
    for family, rows in found.items():
        d = distribution(rows)
        shares = [f"{d[k]:.2f}x" for k in ("mean", "median", "p90", "p95")] if d else ["-"] * 4
        counts = [str(len(rows)), *shares, str(sum("failed" in r for r in rows)), str(sum(r.get("wrong", False) for r in rows))]
        text.append(f"| {family} | {' | '.join(counts)} |")
    text += ["", "| ours / torch's | glassgrad us | torch us | number | shape |", "|" + "---|" * 5]
    for family, rows in found.items():
        for r in sorted((r for r in rows if "ratio" in r), key=lambda r: -r["ratio"])[:worst]:
            text.append(
                f"| {r['ratio']:.2f}x | {r['glassgrad_s'] * 1e6:.0f} | {r['torch_s'] * 1e6:.0f} | {family} {r['number']} | `{r['text']}` |"
            )
    for family, rows in found.items():
        for r in rows:
            if "failed" in r or r.get("wrong"):
                text.append(f"| {'failed' if 'failed' in r else 'wrong'} | | | {family} {r['number']} | `{r['text']}`: "
                            f"{r.get('failed') or format(r['error'], '.1e')} |")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], choices=FAMILIES, help="a family")
    parser.add_argument("--count", type=int, default=COUNT, help=f"how many of each, {COUNT} at most")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many first")
    parser.add_argument("--shape", type=int, action="append", default=[], help="a shape's number; may be given again")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worst", type=int, default=10, help="how many of the slowest are listed")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    machine.present_frameworks(())
    wanted = options.shape or range(options.skip, min(options.skip + options.count, COUNT))
    found = run(options.only or list(FAMILIES), wanted, options.threads)
    print("\n".join(lines(found, options.worst)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    sys.exit(any("failed" in r or r.get("wrong") for rows in found.values() for r in rows))


if __name__ == "__main__":
    main()

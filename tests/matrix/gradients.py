"""Cases of gradients: every differentiable row and op, weighted sums of the result differentiated, against torch in float64; also twice."""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matrix.cases import Case, apply, rng_of, tensor
from matrix.reference import Array, Want, round_to
from matrix.structure import node

from glassgrad import Tensor
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op, Ops, ScatterArg, UnfoldArg

T = torch.Tensor
FLOATS = (dtypes.float64, dtypes.float32, dtypes.bfloat16, dtypes.float16)
# how many units in the last place, of the largest element, a gradient may be off: its formula rounds at every step
STEPS = 8

ROWS: dict[str, Callable[..., T]] = {
    "NEG": torch.neg, "RECIP": torch.reciprocal, "SQRT": torch.sqrt, "EXP2": torch.exp2, "LOG2": torch.log2, "EXP": torch.exp, "LOG": torch.log,
    "SIN": torch.sin, "COS": torch.cos, "TANH": torch.tanh, "ERF": torch.erf, "TRUNC": torch.trunc, "ADD": torch.add, "SUB": torch.sub,
    "MUL": torch.mul, "FDIV": torch.div, "POW": torch.pow, "MAX": torch.maximum, "MIN": torch.minimum, "MULACC": lambda x, y, z: x * y + z,
    "WHERE": lambda c, y, z: torch.where(c > 0, y, z)}

INDEX = np.array([[0, 2, 1, 2], [3, 0, 3, 3], [0, 0, 1, 2], [2, 3, 1, 0], [1, 1, 1, 1]])       # into 4 places of the first axis
PLACES = np.array([[0, 2, 1, 5], [3, 0, 4, 3], [5, 4, 3, 2]])                                  # no place twice in a column


def index(x: T) -> T: return torch.tensor(INDEX)


def ours_index(t: Tensor, at: Array = INDEX) -> Tensor: return tensor(at, dtypes.int32, t.device)


def scatter(op: Op | None) -> Callable[[Tensor, Tensor], Tensor]:
    at = PLACES if op is None else INDEX
    def make(base: Tensor, x: Tensor) -> Tensor: return node(base, Ops.SCATTER, base.dtype, ScatterArg(0, op), ours_index(base, at), x)
    return make


Pair = tuple[Sequence[tuple[int, ...]], Callable[..., Tensor], Callable[..., T]]
SHAPED: dict[str, Pair] = {  # shapes of the sources, ours, torch's
    "sum": ([(3, 4, 5)], lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2))),
    "prod": ([(3, 4, 5)], lambda x: x.prod(1), lambda x: x.prod(1)),
    "prod of zeros": ([(4, 5)], lambda x: (x * zero_some(x)).prod(1), lambda x: (x * torch.tensor(ZEROS)).prod(1)),
    "max": ([(3, 4, 5)], lambda x: x.max((1, 2)), lambda x: x.amax((1, 2))),
    "min": ([(3, 4, 5)], lambda x: x.min(0), lambda x: x.amin(0)),
    "cumsum": ([(3, 7)], lambda x: x.cumsum(1), lambda x: x.cumsum(1)),
    "cumprod": ([(3, 7)], lambda x: x.cumprod(1), lambda x: x.cumprod(1)),
    "cumprod of zeros": ([(4, 5)], lambda x: (x * zero_some(x)).cumprod(1), lambda x: (x * torch.tensor(ZEROS)).cumprod(1)),
    "cummax": ([(3, 7)], lambda x: x.cummax(1)[0], lambda x: x.cummax(1).values),
    "cummin": ([(3, 7)], lambda x: x.cummin(1)[0], lambda x: x.cummin(1).values),
    "gather": ([(4, 4)], lambda x: node(x, Ops.GATHER, x.dtype, 0, ours_index(x)), lambda x: x.gather(0, index(x))),
    "scatter": ([(6, 4), (3, 4)], scatter(None), lambda b, x: b.scatter(0, torch.tensor(PLACES), x)),
    "scatter add": ([(4, 4), (5, 4)], scatter(Ops.ADD), lambda b, x: b.scatter_add(0, index(x), x)),
    "scatter mul": ([(4, 4), (5, 4)], scatter(Ops.MUL), lambda b, x: b.scatter_reduce(0, index(x), x, "prod")),
    "scatter max": ([(4, 4), (5, 4)], scatter(Ops.MAX), lambda b, x: b.scatter_reduce(0, index(x), x, "amax")),
    "scatter min": ([(4, 4), (5, 4)], scatter(Ops.MIN), lambda b, x: b.scatter_reduce(0, index(x), x, "amin")),
    "sort": ([(3, 9)], lambda x: x.sort(1, descending=True)[0], lambda x: x.sort(1, descending=True).values),
    "reshape": ([(3, 4)], lambda x: x.permute(1, 0).reshape(2, 6), lambda x: x.permute(1, 0).reshape(2, 6)),
    "expand": ([(3, 1, 4)], lambda x: x.expand(3, 5, 4), lambda x: x.expand(3, 5, 4)),
    "pad": ([(3, 4)], lambda x: x.pad((1, 2, 0, 3)), lambda x: torch.nn.functional.pad(x, (1, 2, 0, 3))),
    "shrink": ([(5, 6)], lambda x: x.shrink(((1, 4), (0, 5))), lambda x: x[1:4, :5]),
    "flip": ([(3, 4)], lambda x: x.flip(0, 1), lambda x: x.flip(0, 1)),
    "steps": ([(7, 9)], lambda x: x[::-2, 1::3], lambda x: x.flip(0)[::2, 1::3]),
    "cat": ([(2, 3), (4, 3)], lambda x, y: x.cat(y, x, dim=0), lambda x, y: torch.cat([x, y, x])),
    "unfold": ([(3, 11)], lambda x: node(x, Ops.UNFOLD, x.dtype, UnfoldArg(1, 4, 2, 1, 11)), lambda x: x.unfold(1, 4, 2)),
    "fold": ([(2, 5, 3)], lambda x: node(x, Ops.FOLD, x.dtype, UnfoldArg(1, 3, 2, 1, 11)),
             lambda x: torch.nn.functional.fold(x.transpose(1, 2), (1, 11), (1, 3), stride=(1, 2)).reshape(2, 11)),
    "cast": ([(3, 4)], lambda x: (x.cast(dtypes.float32) * 3).cast(x.dtype), lambda x: (x.float() * 3).double()),
    "detach": ([(3, 4)], lambda x: x * x.detach(), lambda x: x * x.detach()),
    "scalar": ([(), (3, 4)], lambda x, y: x * y + x, lambda x, y: x * y + x),
}
ZEROS = np.array([[1., 0, 1, 1, 1], [0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


def zero_some(x: Tensor) -> Tensor: return tensor(ZEROS, x.dtype, x.device)


def differentiable() -> list[Op]:
    """The rows of the table that give at least one source a gradient (or say that it is zero), besides casts."""
    return [op for op in Ops.alu() if op.out == "same" and op.name in ROWS]


def sources(shapes: Sequence[tuple[int, ...]], domain: tuple[float, float], d: DType, *names: Any) -> list[Array]:
    """Values inside the domain; the second has some in common with the first, where shapes agree: MAX and MIN share there."""
    rng, domain = rng_of(*names, "gradient"), (max(domain[0], -d.largest), min(domain[1], d.largest))
    xs = [round_to(d, rng.uniform(*domain, shape)) for shape in shapes]
    if len(shapes) == 2 and shapes[0] == shapes[1]: xs[1].ravel()[::7] = xs[0].ravel()[::7]
    return xs


def gradient_case(name: str, d: DType, shapes: Sequence[tuple[int, ...]], domain: tuple[float, float], ours: Callable[..., Tensor], theirs: Callable[..., T],
                  order: int = 1) -> Case:
    """All gradients of the sum of the result times weights, one after the other; of order 2: those of their own weighted sum."""
    data = functools.cache(lambda: sources(shapes, domain, d, name))
    def weights(n: int, k: int) -> Array: return round_to(d, rng_of(name, k).uniform(0.5, 1.5, n))
    def make(device: str) -> Tensor:
        xs = [tensor(x, d, device) for x in data()]
        y = ours(*xs).reshape(-1)
        for k in range(order):
            grads = (y * tensor(weights(y.numel(), k), d, device)).sum().gradient(*xs)
            y = grads[0].reshape(-1).cat(*[g.reshape(-1) for g in grads[1:]])
        return y
    def want(device: str) -> Want:
        xs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in data()]
        y = theirs(*xs).reshape(-1)
        for k in range(order):
            loss = (y * torch.tensor(weights(y.numel(), k))).sum()
            found = torch.autograd.grad(loss, xs, create_graph=True, allow_unused=True) if loss.requires_grad else [None] * len(xs)
            y = torch.cat([(torch.zeros_like(x) if g is None else g).reshape(-1) for g, x in zip(found, xs, strict=True)])
        exact = y.detach().numpy()
        return Want(d, (exact,), STEPS * order, STEPS * order * 2.0 ** -d.mantissa * max(float(np.nanmax(np.abs(exact))), 2.0 ** -10))
    return Case(f"{name}-{d.name}{'-twice' if order > 1 else ''}", f"{d.name}-{order}", make, want)


def row_case(op: Op, d: DType, order: int = 1) -> Case:
    """One row of the op table, inside its domain."""
    def ours(*xs: Tensor) -> Tensor: return apply(op, [xs[0] > 0, *xs[1:]] if op is Ops.WHERE else xs)
    return gradient_case(op.name, d, [(5, 7)] * op.arity, op.domain, ours, ROWS[op.name], order)


def shaped_case(name: str, d: DType, order: int = 1) -> Case:
    """One op that has a shape."""
    shapes, ours, theirs = SHAPED[name]
    return gradient_case(name, d, shapes, (0.5, 1.8) if "mul" in name else (-2, 2), ours, theirs, order)


def row_cases() -> list[Case]:
    """Every differentiable row, on every float torch knows; twice in float64."""
    ops = differentiable()
    return [row_case(op, d) for d in FLOATS for op in ops] + [row_case(op, dtypes.float64, 2) for op in ops]


def shaped_cases() -> list[Case]:
    """Every op with a shape; twice in float64."""
    return [shaped_case(name, d) for d in FLOATS[:2] for name in SHAPED] + [shaped_case(name, dtypes.float64, 2) for name in SHAPED]

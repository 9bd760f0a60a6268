"""Random graphs: what torch, the oracle and the device make of a random sequence of operations must agree, gradients included."""

import numpy as np
import pytest
import torch
from judge import agree

from glassgrad import Tensor

UNARY = [
    ("tanh", torch.tanh),
    ("sigmoid", torch.sigmoid),
    ("relu", torch.relu),
    ("sin", torch.sin),
    ("abs", torch.abs),
    ("square", torch.square),
    ("neg", torch.neg),
]
BINARY = [lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x.maximum(y)]


def grow(rng, steps):
    """(ours, theirs, our leaf, their leaf) after random steps."""
    shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(1, 4)))
    a = rng.uniform(-1, 1, shape)
    x, y = Tensor(a), torch.tensor(a, requires_grad=True)
    ours, theirs = [x * 1], [y * 1]
    for _ in range(steps):
        i = int(rng.integers(len(ours)))
        t, u = ours[i], theirs[i]
        kind = int(rng.integers(12))
        axis = int(rng.integers(t.ndim)) if t.ndim else None
        if kind <= 1:
            name, f = UNARY[int(rng.integers(len(UNARY)))]
            t, u = getattr(t, name)(), f(u)
        elif kind == 2:
            mates = [k for k, other in enumerate(ours) if other.shape == t.shape or other.ndim == 0 or t.ndim == 0]
            k, f = int(rng.choice(mates)), BINARY[int(rng.integers(len(BINARY)))]
            t, u = f(t, ours[k]), f(u, theirs[k].expand_as(u) if theirs[k].ndim < u.ndim else theirs[k])
        elif axis is None:
            continue
        elif kind == 3:
            t, u = t.sum(axis), u.sum(axis)
        elif kind == 4:
            t, u = t.max(axis, keepdim=True), u.amax(axis, keepdim=True)
        elif kind == 5:
            order = [int(k) for k in rng.permutation(t.ndim)]
            t, u = t.permute(*order), u.permute(*order)
        elif kind == 6:
            t, u = t.flip(axis), u.flip(axis)
        elif kind == 7:
            t, u = t.softmax(axis), u.softmax(axis)
        elif kind == 8:
            lo = int(rng.integers(t.shape[axis]))
            key = (slice(None),) * axis + (slice(lo, None, int(rng.integers(1, 3))),)
            t, u = t[key], u[key]
        elif kind == 9:
            t, u = t.cumsum(axis), u.cumsum(axis)
        elif kind == 10:
            index = rng.integers(0, t.shape[axis], 3)
            key = (slice(None),) * axis
            t, u = t[(*key, index)], u[(*key, torch.tensor(index))]
        else:
            t, u = t.cat(t * 0.5, dim=axis), torch.cat([u, u * 0.5], axis)
        if t.numel() > 500:
            continue
        ours.append(t)
        theirs.append(u)
    return ours[-1], theirs[-1], x, y


@pytest.mark.parametrize("seed", [*range(60), 1101, 1144, 1225])
def test_random_graph(seed):
    rng = np.random.default_rng(seed)
    ours, theirs, x, y = grow(rng, int(rng.integers(2, 14)))
    agree(ours, theirs, rtol=1e-6, atol=1e-8)
    (g,) = torch.autograd.grad(theirs.sin().sum(), y, allow_unused=True)
    agree(ours.sin().sum().gradient(x)[0], torch.zeros_like(y) if g is None else g, rtol=1e-5, atol=1e-7)

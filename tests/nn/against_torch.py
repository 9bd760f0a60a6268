"""The same weights in our model and in torch's, and then the same results and gradients."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from glassgrad.nn.state import get_state_dict
from glassgrad.tensor.tensor import Tensor


def share_weights(ours: Any, theirs: torch.nn.Module) -> None:
    """Small random weights for `ours`, the same for `theirs`; both must have the same names."""
    rng = np.random.default_rng(1)
    mine, other = get_state_dict(ours), theirs.state_dict()
    assert set(mine) == set(other), set(mine) ^ set(other)
    with torch.no_grad():
        for name, x in mine.items():
            assert tuple(x.shape) == tuple(other[name].shape), name
            value = rng.uniform(-0.5, 0.5, x.shape).astype(np.float32)
            x.assign(Tensor(value))
            other[name].copy_(torch.from_numpy(value))
    Tensor.realize(*mine.values())


def flat(x: Any) -> list[Any]:
    """The tensors among nested results."""
    if isinstance(x, (tuple, list)): return [z for y in x for z in flat(y)]
    return [] if x is None else [x]


def compare(ours: Callable, theirs: Callable, *inputs: np.ndarray, model: Any = None, torch_model: Any = None, tol: float = 2e-5) -> None:
    """Results, and the gradients of their squares' sum for inputs and weights."""
    xs = [Tensor(x, requires_grad=x.dtype == np.float32 or None) for x in inputs]
    ys = [torch.tensor(x, requires_grad=x.dtype == np.float32) for x in inputs]
    outs, wants = flat(ours(*xs)), flat(theirs(*ys))
    assert len(outs) == len(wants)
    sum((o * o).sum() for o in outs).backward()
    sum((w * w).sum() for w in wants).backward()
    grads = [(x.grad, y.grad) for x, y in zip(xs, ys) if y.grad is not None]
    if model is not None: grads += [(x.grad, dict(torch_model.named_parameters())[name].grad) for name, x in get_state_dict(model).items()]
    Tensor.realize(*outs, *[g for g, _ in grads])
    for o, w in zip(outs, wants): np.testing.assert_allclose(o.numpy(), w.detach().numpy(), rtol=tol * 10, atol=tol)
    for g, w in grads: np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=tol * 20, atol=tol * 10)

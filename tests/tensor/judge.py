"""How the tests of this folder judge: the graph's meaning (oracle) first, then what the compiler made of it, both against NumPy or
torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from oracle import evaluate

from glassgrad import Tensor

Arrays = Sequence[np.ndarray]


def agree(t: Tensor, expected: Any, rtol: float = 1e-5, atol: float = 1e-6, dtype: bool = True) -> None:
    """The tensor's graph means `expected`, and the device computes that."""
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    assert t.shape == expected.shape, f"shape {t.shape}, expected {expected.shape}"
    if dtype:
        assert t.dtype.np_name == expected.dtype.name, f"dtype {t.dtype}, expected {expected.dtype}"
    for judge, found in (("oracle", evaluate(t.uop)[0]), ("device", t.numpy())):
        np.testing.assert_allclose(found, expected, rtol, atol, err_msg=f"by the {judge}")


def same(
    f: Callable, g: Callable, *arrays: np.ndarray, rtol: float = 1e-5, atol: float = 1e-6, grad: bool = True, dtype: bool = True
) -> None:
    """f on our tensors is what g is on torch's; so are the gradients of a weighted sum, where there are floats."""
    xs = [Tensor(a) for a in arrays]
    ys = [torch.tensor(a, requires_grad=grad and a.dtype.kind == "f") for a in arrays]
    out, want = f(*xs), g(*ys)
    agree(out, want, rtol, atol, dtype)
    floats = [(x, y) for x, y in zip(xs, ys) if y.requires_grad]
    if not grad or not floats or not want.requires_grad:
        return
    weights = np.random.default_rng(7).uniform(-1, 1, tuple(want.shape)).astype(want.detach().numpy().dtype)
    expected = torch.autograd.grad((want * torch.tensor(weights)).sum(), [y for _, y in floats], allow_unused=True)
    found = (out * Tensor(weights)).sum().gradient(*[x for x, _ in floats])
    for d, e, (_, y) in zip(found, expected, floats):
        agree(d, torch.zeros_like(y) if e is None else e, max(rtol, 1e-4), max(atol, 1e-5))


def data(*shape: int, lo: float = -2, hi: float = 2, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Random numbers, the same in every run."""
    rng = np.random.default_rng(seed + sum(shape))
    if np.dtype(dtype).kind in "iu":
        return rng.integers(int(lo), int(hi) + 1, shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.uniform(lo, hi, shape).astype(dtype)


def gives(ours: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """The device computes `expected`: an array, a tensor of torch's, or several."""
    if isinstance(expected, (tuple, list)):
        assert len(ours) == len(expected)
        for x, y in zip(ours, expected):
            gives(x, y, rtol, atol)
        return
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    found = ours.numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    np.testing.assert_allclose(found, expected, rtol, atol)


def slopes(f: Callable, g: Callable, *arrays: np.ndarray, rtol: float = 1e-4, atol: float = 1e-5, twice: bool = False) -> None:
    """The gradient of f on our tensors means what torch finds for g; with `twice` the second one too. Nothing is compiled for it."""
    xs, ys = [Tensor(a) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    out, want = f(*xs), g(*ys)
    weights = np.random.default_rng(7).uniform(-1, 1, tuple(want.shape)).astype(want.detach().numpy().dtype)
    found = (out * Tensor(weights)).sum().gradient(*xs)
    expected = torch.autograd.grad((want * torch.tensor(weights)).sum(), ys, create_graph=twice, allow_unused=True)
    for d, e, y in zip(evaluate(*[d.uop for d in found]), expected, ys):
        np.testing.assert_allclose(d, np.zeros(y.shape) if e is None else e.detach().numpy(), rtol, atol, err_msg="gradient")
    if twice:
        again = sum((d * d).sum() for d in found).gradient(*xs)
        expected = torch.autograd.grad(sum((e * e).sum() for e in expected), ys, allow_unused=True)
        for d, e, y in zip(evaluate(*[d.uop for d in again]), expected, ys):
            np.testing.assert_allclose(d, np.zeros(y.shape) if e is None else e.detach().numpy(), rtol, atol, err_msg="second gradient")

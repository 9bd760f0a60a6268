"""Optimizers and schedules against torch: the same weights after every one of several steps."""
from __future__ import annotations

import math

import numpy as np
import pytest

from glassgrad.nn import optim
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is absent")
STEPS = 6
SHAPES = ((3, 4), (4,), (4, 2))


class Net:
    """x @ a + b, tanh, @ c, squared: some weights and a loss, in both libraries."""
    def __init__(self, wrap):
        rng = np.random.default_rng(1)
        self.weights = [wrap(rng.normal(size=shape).astype(np.float32)) for shape in SHAPES]
        self.x = wrap(rng.normal(size=(5, 3)).astype(np.float32), False)

    def loss(self):
        a, b, c = self.weights
        return (((self.x @ a + b).tanh() @ c) ** 2).mean()


def ours(x, grad=True):
    t = Tensor(x)
    t.requires_grad = grad
    return t


def theirs(x, grad=True): return torch.tensor(x, requires_grad=grad)


def paths(make_ours, make_theirs, weights=slice(None), rtol=2e-5, atol=2e-6):
    """Step both and compare after each."""
    mine, other = Net(ours), Net(theirs)
    a, b = make_ours(mine.weights[weights]), make_theirs(other.weights[weights])
    for _ in range(STEPS):
        for net, optimizer in ((mine, a), (other, b)):
            optimizer.zero_grad()
            net.loss().backward()
            optimizer.step()
        for x, y in zip(mine.weights, other.weights, strict=True):
            np.testing.assert_allclose(x.numpy(), y.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1},
                                     {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}], ids=str)
def test_sgd(options):
    paths(lambda w: optim.SGD(w, lr=0.1, **options), lambda w: torch.optim.SGD(w, lr=0.1, **options))


def test_classic_sgd_is_the_same_at_a_constant_rate():
    paths(lambda w: optim.SGD(w, lr=0.1, momentum=0.9, classic=True), lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9))


def test_adam():
    paths(lambda w: optim.Adam(w, lr=0.05), lambda w: torch.optim.Adam(w, lr=0.05))
    paths(lambda w: optim.Adam(w, lr=0.05, b1=0.8, b2=0.9, eps=1e-3), lambda w: torch.optim.Adam(w, lr=0.05, betas=(0.8, 0.9), eps=1e-3))


def test_adamw():
    paths(lambda w: optim.AdamW(w, lr=0.05), lambda w: torch.optim.AdamW(w, lr=0.05))
    paths(lambda w: optim.AdamW(w, lr=0.05, weight_decay=0.3), lambda w: torch.optim.AdamW(w, lr=0.05, weight_decay=0.3))


def test_muon():
    if not hasattr(torch.optim, "Muon"): pytest.skip("this torch has no Muon")
    paths(
        lambda w: optim.Muon(w, lr=0.02), lambda w: torch.optim.Muon(w, lr=0.02), slice(None, None, 2), rtol=0.05, atol=2e-3
    )  # torch's is in bfloat16


def test_orthogonalize():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    for matrix, expected in ((x, u @ vt), (x.T, (u @ vt).T)):
        y = optim.orthogonalize(Tensor(matrix), steps=8).numpy()
        assert np.linalg.svd(y, compute_uv=False).min() > 0.6 and np.linalg.svd(y, compute_uv=False).max() < 1.3
        assert np.abs(y - expected).max() < 0.35


def reference(name, w, g, state, lr):
    """LAMB and LARS in NumPy, from the papers."""
    norm = lambda x: float(np.sqrt((x ** 2).sum()))
    if name == "LARS":
        ratio = 0.001 * norm(w) / (norm(g) + 0.1 * norm(w))
        state["b"] = state.get("b", 0) * 0.9 + (g + 0.1 * w) * ratio * lr
        return w - state["b"]
    t = state["t"] = state.get("t", 0) + 1
    state["m"], state["v"] = state.get("m", 0) * 0.9 + g * 0.1, state.get("v", 0) * 0.999 + g * g * 0.001
    change = state["m"] / (1 - 0.9 ** t) / (np.sqrt(state["v"] / (1 - 0.999 ** t)) + 1e-6) + 0.1 * w
    return w - lr * norm(w) / norm(change) * change


@pytest.mark.parametrize("name, lr", [("LAMB", 0.05), ("LARS", 10.0)])
def test_layerwise_rates(name, lr):
    net = Net(ours)
    optimizer = getattr(optim, name)(net.weights, lr=lr, weight_decay=0.1)
    states = [{} for _ in SHAPES]
    for _ in range(STEPS):
        optimizer.zero_grad()
        net.loss().backward()
        expected = [reference(name, w.numpy().astype(np.float64), w.grad.numpy(), s, lr) for w, s in zip(net.weights, states, strict=True)]
        optimizer.step()
        for w, e in zip(net.weights, expected, strict=True): np.testing.assert_allclose(w.numpy(), e, rtol=1e-4, atol=1e-5)


def test_group():
    def group(w): return optim.OptimizerGroup(optim.SGD(w[:1], lr=0.1, momentum=0.9), optim.AdamW(w[1:], lr=0.05))

    class Both:
        def __init__(self, w): self.parts = [torch.optim.SGD(w[:1], lr=0.1, momentum=0.9), torch.optim.AdamW(w[1:], lr=0.05)]
        def zero_grad(self): [p.zero_grad() for p in self.parts]
        def step(self): [p.step() for p in self.parts]
    paths(group, Both)


def test_half_precision_weights_have_wide_state():
    w = ours(np.ones((4,), np.float16))
    optimizer = optim.AdamW([w], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    assert w.dtype is dtypes.float16 and optimizer.m[0].dtype is dtypes.float32
    np.testing.assert_allclose(w.numpy(), 0.9, atol=2e-3)


def test_weights_without_gradient_stay():
    a, b = ours(np.ones(2, np.float32)), ours(np.ones(2, np.float32))
    optimizer = optim.SGD([a, b], lr=0.5)
    (a * 2).sum().backward()
    optimizer.step()
    assert a.tolist() == [0, 0] and b.tolist() == [1, 1]


def test_errors():
    w = ours(np.ones(2, np.float32))
    with pytest.raises(UsageError, match="backward"): optim.SGD([w]).step()
    with pytest.raises(UsageError, match="requires_grad"): optim.SGD([ours(np.ones(2, np.float32), False)])
    with pytest.raises(UsageError, match="matrices"): optim.Muon([w])
    with pytest.raises(UsageError, match="anneal_strategy"): optim.OneCycleLR(optim.SGD([w]), 0.1, 10, anneal_strategy="up")
    with pytest.raises(UsageError, match="mode"): optim.ReduceLROnPlateau(optim.SGD([w]), mode="low")


def test_a_tensor_twice_is_stepped_once():
    w = ours(np.ones(2, np.float32))
    optimizer = optim.SGD([w, w], lr=0.5)
    w.sum().backward()
    optimizer.step()
    assert w.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind, max_norm", [(2.0, 0.1), (2.0, 100.0), (1.0, 0.1), (math.inf, 0.01)])
def test_clip_grad_norm(kind, max_norm):
    mine, other = Net(ours), Net(theirs)
    mine.loss().backward()
    other.loss().backward()
    a = optim.clip_grad_norm_(mine.weights, max_norm, kind)
    b = torch.nn.utils.clip_grad_norm_(other.weights, max_norm, kind)
    np.testing.assert_allclose(a.item(), b.item(), rtol=1e-5)
    for x, y in zip(mine.weights, other.weights, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_clip_grad_value():
    mine, other = Net(ours), Net(theirs)
    mine.loss().backward()
    other.loss().backward()
    optim.clip_grad_value_(mine.weights, 0.05)
    torch.nn.utils.clip_grad_value_(other.weights, 0.05)
    for x, y in zip(mine.weights, other.weights, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-4, atol=1e-7)


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 6], "gamma": 0.1}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("LinearLR", {"start_factor": 0.2, "total_iters": 4}),
    ("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 12}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "pct_start": 0.4, "anneal_strategy": "linear"}),
]


@pytest.mark.parametrize("name, options", SCHEDULES, ids=[f"{n}{i}" for i, (n, _) in enumerate(SCHEDULES)])
def test_schedule(name, options):
    other = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.2)
    mine = optim.SGD([ours(np.ones(1, np.float32))], lr=0.2)
    a = getattr(optim, name)(mine, **options)
    b = getattr(torch.optim.lr_scheduler, name)(other, **options, **({"cycle_momentum": False} if name == "OneCycleLR" else {}))
    for _ in range(11):
        np.testing.assert_allclose(mine.lr.item(), other.param_groups[0]["lr"], rtol=1e-5, atol=1e-8)
        other.step()
        a.step()
        b.step()


def test_lambda_schedule():
    mine = optim.SGD([ours(np.ones(1, np.float32))], lr=0.2)
    a = optim.LambdaLR(mine, lambda t: 1 / (t + 1))
    for t in range(4):
        np.testing.assert_allclose(mine.lr.item(), 0.2 / (t + 1), rtol=1e-6)
        a.step()


def test_warmup():
    mine = optim.SGD([ours(np.ones(1, np.float32))], lr=0.2)
    a = optim.WarmupLR(mine, 4, optim.CosineAnnealingLR, T_max=4)
    rates = []
    for _ in range(9):
        rates.append(mine.lr.item())
        a.step()
    np.testing.assert_allclose(rates[:5], [0.04, 0.08, 0.12, 0.16, 0.2], rtol=1e-5)
    np.testing.assert_allclose(rates[4:], [0.2 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(5)], rtol=1e-4, atol=1e-7)


def test_plateau():
    mine, other = optim.SGD([ours(np.ones(1, np.float32))], lr=0.2), torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.2)
    a, b = optim.ReduceLROnPlateau(mine, patience=1), torch.optim.lr_scheduler.ReduceLROnPlateau(other, patience=1)
    for metric in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0):
        a.step(metric)
        b.step(metric)
        np.testing.assert_allclose(mine.lr.item(), other.param_groups[0]["lr"], rtol=1e-5)


def test_schedule_of_a_group():
    w = ours(np.ones(1, np.float32))
    group = optim.OptimizerGroup(optim.SGD([w], lr=0.2), optim.SGD([w], lr=0.4))
    a = optim.StepLR(group, 1, 0.5)
    a.step()
    assert [round(o.lr.item(), 6) for o in group.optimizers] == [0.1, 0.2]

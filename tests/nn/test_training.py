"""Training loops: jitted and plain ones agree, a changed rate compiles nothing, memory and graphs do not grow."""
from __future__ import annotations

import gc

import numpy as np
import pytest

from glassgrad import GlobalCounters, Tensor, nn
from glassgrad import TinyJit as jit
from glassgrad.nn.state import get_parameters, get_state_dict

STEPS = 6


class Model:
    def __init__(self, seed=0, drop=0.0):
        Tensor.manual_seed(seed)
        self.layers = nn.Sequential([nn.Linear(4, 8, bias=False), nn.BatchNorm(8), Tensor.relu, nn.Dropout(drop), nn.Linear(8, 3)])
    def __call__(self, x): return self.layers(x)


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS): yield rng.normal(size=(16, 4)).astype(np.float32), rng.integers(0, 3, 16, dtype=np.int32)


def train(make_optimizer, wrap, inside=False, drop=0.0):
    """(losses, state) after STEPS steps; `inside`: the schedule is stepped in the step function."""
    model = Model(drop=drop)
    optimizer = make_optimizer(get_parameters(model))
    schedule = nn.optim.CosineAnnealingLR(optimizer, T_max=10)

    def step(x, y):
        optimizer.zero_grad()
        loss = model(x).sparse_categorical_crossentropy(y)
        loss.backward()
        optimizer.step()
        if inside: schedule.step()
        return loss

    step, losses = wrap(step), []
    with Tensor.train():
        for x, y in batches():
            losses.append(step(Tensor(x), Tensor(y)).item())
            if not inside: schedule.step()
    return losses, {name: x.numpy() for name, x in get_state_dict(model).items()}, step


OPTIMIZERS = [lambda p: nn.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), lambda p: nn.optim.AdamW(p, lr=0.05),
              lambda p: nn.optim.LAMB(p, lr=0.05)]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "AdamW", "LAMB"])
def test_jitted_training_equals_plain(make, inside):
    losses, state, _ = train(make, lambda f: f, inside)
    again, found, step = train(make, jit, inside)
    np.testing.assert_allclose(losses, again, rtol=1e-5)
    for name, x in state.items(): np.testing.assert_allclose(x, found[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert found["layers.1.num_batches_tracked"] == STEPS and losses[-1] != losses[0]
    assert step.replays >= STEPS - 3


def test_dropout_differs_at_each_replay():
    drop = nn.Dropout(0.5)

    @jit
    def f(x): return drop(x)
    with Tensor.train(): masks = {tuple(f(Tensor(np.ones(64, np.float32))).tolist()) for _ in range(5)}
    assert len(masks) == 5


def test_a_changed_rate_compiles_nothing():
    w = Tensor(np.ones(8, np.float32))
    optimizer = nn.optim.AdamW([w], lr=0.1)

    def step():
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
    for _ in range(3): step()
    optimizer.lr.assign([0.2])
    step()
    before = GlobalCounters.compile_count, GlobalCounters.schedule_count
    for rate in (0.3, 0.4):
        optimizer.lr.assign([rate])
        step()
    assert (GlobalCounters.compile_count, GlobalCounters.schedule_count) == before


def test_memory_does_not_grow():
    model = Model()
    optimizer = nn.optim.AdamW(get_parameters(model))
    used = []
    with Tensor.train():
        for _ in range(3):
            for x, y in batches():
                optimizer.zero_grad()
                model(Tensor(x)).sparse_categorical_crossentropy(Tensor(y)).backward()
                optimizer.step()
            gc.collect()
            used.append(GlobalCounters.mem_used)
    assert used[2] <= used[1]


def test_running_statistics_without_optimizer_do_not_pile_up():
    norm = nn.BatchNorm(3)
    with Tensor.train():
        for _ in range(20): norm(Tensor(np.ones((2, 3), np.float32))).realize()
    assert norm.num_batches_tracked.item() == 20
    assert len(norm.running_mean.uop.toposort()) < 10


def test_a_step_is_one_realize(monkeypatch):
    calls, realize = [], Tensor.realize
    model = Model()
    optimizer = nn.optim.AdamW(get_parameters(model))
    model(Tensor(np.ones((2, 4), np.float32))).sum().backward()
    monkeypatch.setattr(Tensor, "realize", lambda *x: (calls.append(len(x)), realize(*x))[1])
    optimizer.step()
    assert len(calls) == 1

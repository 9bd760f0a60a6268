"""More optimizers and groups of weights: step for step as torch's."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from glassgrad.nn import optim
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import UsageError

START = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")


def walk(make, other, steps=3, rtol=2e-4):
    """Both minimise the same function of two weights."""
    x, w = Tensor(START, requires_grad=True), Tensor(START[0] * 2, requires_grad=True)
    y, v = (torch.tensor(t, requires_grad=True) for t in (START, START[0] * 2))
    ours, theirs = make([x, w]), other([y, v])
    for _ in range(steps):
        for o, a, b in ((ours, x, w), (theirs, y, v)):
            o.zero_grad()
            ((a * a * a * a).sum() + (a @ b).sin().sum()).backward()
            o.step()
        for mine, torchs in ((x, y), (w, v)): np.testing.assert_allclose(mine.numpy(), torchs.detach().numpy(), rtol=rtol, atol=1e-5)


RULES = [
    (lambda p: optim.RMSprop(p, 0.02), lambda p: torch.optim.RMSprop(p, 0.02)),
    (lambda p: optim.RMSprop(p, 0.02, momentum=0.9, centered=True, weight_decay=0.1),
     lambda p: torch.optim.RMSprop(p, 0.02, momentum=0.9, centered=True, weight_decay=0.1)),
    (lambda p: optim.Adagrad(p, 0.1, 0.1, 0.01, 0.2), lambda p: torch.optim.Adagrad(p, 0.1, 0.1, 0.01, 0.2)),
    (lambda p: optim.Adadelta(p, 0.5), lambda p: torch.optim.Adadelta(p, 0.5)),
    (lambda p: optim.Adamax(p, 0.05), lambda p: torch.optim.Adamax(p, 0.05)),
    (lambda p: optim.NAdam(p, 0.05), lambda p: torch.optim.NAdam(p, 0.05)),
    (lambda p: optim.RAdam(p, 0.05), lambda p: torch.optim.RAdam(p, 0.05)),
]


@pytest.mark.parametrize("make,other", RULES, ids=["RMSprop", "RMSprop with all", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam"])
def test_rule(make, other): walk(make, other, 7)


def test_lion():
    """Every step is the learning rate long, against the sign."""
    x = Tensor([1.0, -2.0], requires_grad=True)
    o = optim.Lion([x], 0.1, weight_decay=0.0)
    (x * x).sum().backward()
    o.step()
    np.testing.assert_allclose(x.numpy(), [0.9, -1.9], rtol=1e-6)


@pytest.mark.parametrize("name,options", [("SGD", {"momentum": 0.9}), ("AdamW", {})])
def test_groups(name, options):
    def groups(p): return [{"params": p[0], "lr": 0.03, "weight_decay": 0.2}, {"params": [p[1]]}]
    walk(lambda p: getattr(optim, name)(groups(p), lr=0.1, weight_decay=0.01, **options),
         lambda p: getattr(torch.optim, name)(groups(p), lr=0.1, weight_decay=0.01, **options))


def test_a_groups_rate_follows_a_schedule():
    x, y = (Tensor([1.0], requires_grad=True) for _ in range(2))
    o = optim.SGD([{"params": [x], "lr": 0.2}, {"params": [y]}], lr=0.1)
    o.lr.assign(o.lr * 0.5)
    (x + y).sum().backward()
    o.step()
    np.testing.assert_allclose([x.item(), y.item()], [0.9, 0.95], rtol=1e-6)


def test_mistakes():
    with pytest.raises(UsageError, match="sets 'momentum'"): optim.SGD([{"params": [Tensor([1.0])], "momentum": 0.5}])
    with pytest.raises(UsageError, match="lr above 0"): optim.SGD([{"params": [Tensor([1.0])], "lr": 0.5}], lr=0.0)

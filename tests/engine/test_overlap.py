"""Overlap: groups hold only launches that are not in each other's way, and results do not depend on who runs them."""
import numpy as np
import pytest

from glassgrad.device.device import Device
from glassgrad.engine.context import Context
from glassgrad.engine.jit import jit
from glassgrad.engine.overlap import MAX_GROUP, find_groups
from glassgrad.nn import Linear, optim, state
from glassgrad.tensor.tensor import Tensor

RNG = np.random.default_rng(0)


def make(*shape): return Tensor(RNG.standard_normal(shape).astype(np.float32)).realize()
def plan_of(f): return next(iter(f.captures.values()))[0].recipe.single
def touched(plan, step):
    """(reads, writes) of a launch, as sets of (slot or "arena", 64-byte piece)."""
    row, out = plan.rows[step], (set(), set())
    for k, s in enumerate(row.bufs):
        at = plan.memory.offsets.get(s)
        pieces = {(s, 0)} if at is None else {("arena", i) for i in range(at // 64, -(-(at + plan.slots[s].nbytes) // 64))}
        donor = plan.donors.get(s - plan.inputs)
        if donor is not None: pieces.add((donor, 0))
        out[k in plan.units[row.unit].outs].update(pieces)
    return out


def adam_step():
    layers = [Linear(32, 32) for _ in range(3)]
    opt = optim.Adam([p for layer in layers for p in state.get_parameters(layer)])
    def step(x, y):
        opt.zero_grad()
        h = x
        for layer in layers: h = layer(h).tanh()
        loss = (h - y).square().mean()
        loss.backward()
        opt.step()
        return loss
    return step, (make(64, 32), make(64, 32))


def many_sums():
    return (lambda *xs: [x.exp().sum(axis=0) for x in xs]), tuple(make(200 + k, 100) for k in range(20))


def branches():
    def fn(x, y):
        a, b = (x @ y).softmax(), (y @ x).tanh()
        return (a @ b).sum(), (b @ a).max(axis=0), a + 1
    return fn, (make(96, 96), make(96, 96))


@pytest.mark.parametrize("maker", [adam_step, many_sums, branches])
def test_groups_are_independent_and_complete(maker):
    with Tensor.train():
        fn, args = maker()
        f = jit(fn)
        for _ in range(3): f(*args)
    plan = plan_of(f)
    groups = find_groups(plan)
    assert sorted(step for g in groups for step in g) == list(range(len(plan.rows))) and max(map(len, groups)) <= MAX_GROUP
    assert any(len(g) > 1 for g in groups), str(plan)
    ends = [max(g) for g in groups]
    assert all(min(b) > a for a, b in zip(ends, groups[1:])), "groups follow the plan's order"
    for g in groups:
        facts = [touched(plan, step) for step in g]
        for i, (reads, writes) in enumerate(facts):
            for other_reads, other_writes in facts[i + 1:]:
                assert not writes & (other_reads | other_writes) and not reads & other_writes


@pytest.mark.parametrize("maker", [adam_step, many_sums, branches])
def test_results_are_the_same_with_any_number_of_threads(maker):
    def run(threads):
        global RNG
        RNG = np.random.default_rng(0)
        Tensor.manual_seed(0)
        with Context(THREADS=threads), Tensor.train():
            fn, args = maker()
            f, out = jit(fn), []
            for _ in range(6): out.append(f(*args))
            return [t.numpy() for r in out for t in (r if isinstance(r, (list, tuple)) else [r])]
    first = run(3)
    for _ in range(3):
        for a, b in zip(run(3), first, strict=True): np.testing.assert_array_equal(a, b)
    for a, b in zip(run(1), first, strict=True): np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_small_launches_stay_with_one_thread():
    f = jit(lambda x: [(x * k).contiguous() for k in range(2, 6)])
    x = make(4, 4)
    for _ in range(3): f(x)
    plan = plan_of(f)
    assert all(len(g) == 1 for g in find_groups(plan)) and plan.is_quick
    assert Device["CPU"].graph([]).is_serial

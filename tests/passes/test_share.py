"""Values over the same loops share a kernel: which do, that the result stays, and that no kernel waits for itself."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Device, Tensor, nn
from glassgrad.engine.plan import _plans
from glassgrad.engine.realize import forget_everything
from glassgrad.passes.kernels import KernelCall, in_order
from glassgrad.passes.share import MAX_BUFFERS, Facts, share_kernels
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import BufferArg, Ops
from glassgrad.uop.uop import UOp

RNG = np.random.default_rng(3)


def data(*shape: int) -> Tensor: return Tensor(RNG.standard_normal(shape, np.float32)).realize()


def plan_of(*ys: Tensor) -> list[tuple[int, ...]]:
    """The buffers of each kernel that computes `ys`, outputs first."""
    before, Device.DEFAULT = Device.DEFAULT, "CPU"
    forget_everything()
    try:
        ys[0].realize(*ys[1:])
        return [r.bufs for r in max(_plans.values(), key=lambda p: len(p.rows)).rows]
    finally: Device.DEFAULT = before


def test_momentum_and_weight_are_one_kernel():
    x, m, g = data(64, 32), data(64, 32), data(64, 32)
    kept = [t.numpy().copy() for t in (x, m, g)]
    m2 = m * 0.9 + g
    x2 = x - m2 * 0.1
    assert [len(b) for b in plan_of(x2, m2)] == [5]
    np.testing.assert_allclose(m2.numpy(), kept[1] * 0.9 + kept[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x2.numpy(), kept[0] - (kept[1] * 0.9 + kept[2]) * 0.1, rtol=1e-5, atol=1e-6)


def test_statistics_of_rows_are_one_kernel():
    x = data(512, 256)
    mean = x.mean(1)
    var = (x - mean.reshape(-1, 1)).square().mean(1)
    assert len(plan_of(mean, var, (var + 1).rsqrt(), x.sum(1))) == 1
    np.testing.assert_allclose(var.numpy(), x.numpy().var(1), rtol=1e-4)


def test_batchnorm_in_training():
    layer, x = nn.BatchNorm(8), data(16, 8, 12, 12)
    Tensor.realize(*nn.state.get_state_dict(layer).values())
    with Tensor.train():
        y = layer(x)
        kernels = plan_of(y, layer.running_mean, layer.running_var)
    assert len(kernels) == 3     # statistics, the layer, and the count of batches
    want = (x.numpy() - x.numpy().mean((0, 2, 3), keepdims=True)) / np.sqrt(x.numpy().var((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(layer.running_mean.numpy(), x.numpy().mean((0, 2, 3)) * 0.1, rtol=1e-3, atol=1e-5)


def test_two_products_do_not_share():
    x, w, v = data(64, 64), data(64, 64), data(64, 64)
    assert len(plan_of(x @ w, x @ v)) == 2


def test_counters_share():
    xs = [data(1) for _ in range(10)]
    assert len(plan_of(*[x + 1 for x in xs])) == 1


def test_the_number_of_arguments_is_bounded():
    x = data(4096)
    ys = [x * float(i) for i in range(MAX_BUFFERS + 10)]
    kernels = plan_of(*ys)
    assert len(kernels) == 2 and all(len(b) <= MAX_BUFFERS for b in kernels)
    for i, y in enumerate(ys): np.testing.assert_array_equal(y.numpy(), x.numpy() * np.float32(i))


def test_what_only_its_own_kernel_reads_is_not_stored():
    x = data(5000)
    y = x
    for _ in range(6): y = (y + 1).contiguous()
    assert [len(b) for b in plan_of(y)] == [2]


# ---- levels ------------------------------------------------------------------------------------------------------------------------
def value(i: int, *src: UOp, n: int = 1 << 20) -> UOp:
    x = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(i, n, "CPU"))
    for s in src: x = x + (s if s.size == n else s.reduce(Ops.ADD, (0,)))
    return x


@pytest.mark.parametrize("seed", range(20))
def test_no_kernel_waits_for_itself(seed):
    rng = np.random.default_rng(seed)
    order, facts = [], {}
    for i in range(60):
        src = [order[int(k)] for k in rng.integers(0, len(order), 3)] if order else []
        n = value(i, *src, n=int(rng.choice([1 << 20, 1 << 19])))
        order.append(n)
        facts[n] = Facts({s: s.size == n.size and bool(rng.random() < 0.7) for s in src}, contractions=int(rng.random() < 0.2), work=5)
        facts[n].sums = facts[n].contractions
    numbers = share_kernels(order, facts, set(order))
    after = {k: {numbers[s] for n in order if numbers[n] == k for s in facts[n].reads} - {k} for k in numbers.values()}
    done: set[int] = set()
    while ready := {k for k in after if k not in done and after[k] <= done}: done |= ready
    assert done == set(after) and len(done) < len(order)
    for n in order:
        for s, is_aligned in facts[n].reads.items(): assert is_aligned or numbers[s] != numbers[n]


# ---- order -------------------------------------------------------------------------------------------------------------------------
def call(new: dict[int, int], *reads: int) -> KernelCall:
    return KernelCall(UOp.sink(), (*new, *reads), (), {slot: (size, dtypes.float32) for slot, size in new.items()}, "", "")


def test_what_frees_memory_runs_first():
    # 10 and 20 are large; what reads them last (results 1 and 2) runs before the next large one is made
    calls = [call({10: 100}), call({11: 100}, 10), call({12: 100}, 11), call({0: 1}, 12), call({1: 1}, 10), call({2: 1}, 11)]
    order = [next(iter(c.new_slots)) for c in in_order(calls, {0, 1, 2})]
    assert sorted(order) == [0, 1, 2, 10, 11, 12]
    assert order.index(1) < order.index(11) and order.index(2) < order.index(12)


def test_sources_run_first():
    calls = [call({0: 1}, 5, 6), call({5: 1}, 6), call({6: 1})]
    assert [next(iter(c.new_slots)) for c in in_order(calls, {0})] == [6, 5, 0]

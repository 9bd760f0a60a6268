"""Realize: structure shares plans, identity does not matter, devices meet at copies."""
import gc
import time

import numpy as np
import pytest

from glassgrad.device.buffer import Buffer
from glassgrad.engine import realize as realize_module
from glassgrad.engine.context import Context
from glassgrad.engine.counters import GlobalCounters
from glassgrad.engine.realize import buffer_of, buffer_uop, new_buffer, realize, settled
from glassgrad.engine.signature import normalise, sign
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DeviceError, UsageError
from glassgrad.uop.ops import KeyArg, Ops, VarArg
from glassgrad.uop.uop import UOp
from tests.engine.graphs import array, copy, full, leaf, values

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_values_and_plan_sharing(cold):
    np.testing.assert_array_equal(values(array(X) + array(X)), 2 * X)
    assert (GlobalCounters.schedule_count, GlobalCounters.compile_count, GlobalCounters.kernel_count) == (1, 1, 1)  # x + x: two leaves
    np.testing.assert_array_equal(values(array(X) + array(3 * X)), 4 * X)
    assert (GlobalCounters.schedule_count, GlobalCounters.kernel_count) == (1, 2)
    x = array(X)
    np.testing.assert_array_equal(values(x + x), 2 * X)          # one leaf twice is another structure
    assert GlobalCounters.schedule_count == 2


def test_identical_kernels_compile_once(cold):
    a, b = array(np.ones((64, 96), np.float32)), array(np.ones((64, 96), np.float32))
    realize((a + 1).reduce(Ops.ADD, (1,)), (b + 1).reduce(Ops.ADD, (1,)))
    assert GlobalCounters.kernel_count == 2 and GlobalCounters.compile_count == 1


def test_realized_values_are_read_not_computed_again():
    x = array(X)
    y = x + 1
    realize(y)
    assert y.memory is not None and buffer_of(y) is y.memory.memory
    with_history = sign([y * 2])
    assert len(with_history.buffers) == 1 and with_history.buffers[0] is y.memory
    np.testing.assert_array_equal(values(y * 2), (X + 1) * 2)
    assert settled(y).op is Ops.RESHAPE and settled(x) is x


def test_minus_zero_and_nan_are_other_structures():
    x = array(X)
    keys = {sign([x * c]).key for c in (0.0, -0.0, float("nan"), 1.0)}
    assert len(keys) == 4
    assert sign([x * float("nan")]).key == sign([x * float("nan")]).key


def test_leaves_and_detach_are_not_structure():
    a, b = array(X), array(X)
    mark = UOp(Ops.DETACH, a.dtype, (a,))
    assert sign([leaf(full((3, 4), 2.0)) * a]).key == sign([full((3, 4), 2.0) * b]).key == sign([full((3, 4), 2.0) * mark]).key
    roots = [leaf(full((3, 4), 2.0)) * a]
    other = [full((3, 4), 2.0) * b]
    assert normalise(roots, sign(roots)) == normalise(other, sign(other))   # the very same node


def test_constants_are_never_marked_realized():
    zeros = full((3,), 0.0)
    mark = UOp(Ops.CONTIGUOUS, zeros.dtype, (zeros,))
    np.testing.assert_array_equal(values(mark), np.zeros(3))
    assert mark.memory is not None and zeros.memory is None


def test_roots_that_are_in_memory_need_no_kernel(cold):
    x = array(X)
    flat = x.reshape((12,))
    out = realize(flat, x, leaf(x), UOp(Ops.CONTIGUOUS, x.dtype, (x.reshape((4, 3)),)))
    assert all(buf is buffer_of(x) for buf in out) and GlobalCounters.kernel_count == 0


def test_duplicate_roots_share_memory():
    x = array(X)
    a, b = leaf(full((3,), 1.0)), leaf(full((3,), 1.0))
    first, second, third, fourth = realize(x + 1, x + 1, a, b)
    assert first is second and third is fourth


def test_no_roots_and_no_elements(cold):
    assert realize() == []
    empty = array(X).shrink(((0, 0), (0, 4))) + 1
    buf, = realize(empty)
    assert buf.size == 0 and bytes(buf.as_memoryview()) == b"" and GlobalCounters.kernel_count == 0
    assert [b.size for b in realize(empty * 2, array(X) + 1)] == [0, 12]


def test_pieces_that_are_views_become_their_own_memory():
    x = array(X)
    np.testing.assert_array_equal(values(x.shrink(((1, 3), (0, 4)))), X[1:3])
    np.testing.assert_array_equal(values(x.permute((1, 0))), X.T)


def test_pending_values_come_along():
    x = array(X)
    late = x + 5
    realize_module.pending.append(lambda: [late])
    try: realize(x * 3)
    finally: realize_module.pending.pop()
    assert late.memory is not None


def test_memory_goes_with_the_last_node():
    x = array(X)
    before = GlobalCounters.mem_used
    y = x + 1
    realize(y)
    assert GlobalCounters.mem_used > before
    del y
    gc.collect()
    assert GlobalCounters.mem_used == before


@pytest.mark.parametrize("is_on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(cold, is_on):
    (gc.enable if is_on else gc.disable)()
    try:
        realize(array(X) + 7)
        with pytest.raises(ZeroDivisionError), realize_module.without_collector():
            assert not gc.isenabled()
            1 / 0
        assert gc.isenabled() is is_on
    finally: gc.enable()


def test_temporaries_reuse_one_arena(cold):
    x = array(np.ones((64, 64)))
    for _ in range(8):
        total = UOp(Ops.CONTIGUOUS, x.dtype, (x.reduce(Ops.ADD, (1,)).reshape((64, 1)).expand((64, 64)),), "test")
        x = total + x * 0.5
    plan = realize_module.recipe_for([x], sign([x], ("test",))).plans[0]
    temporaries = len(plan.memory.offsets)
    assert temporaries >= 7 and plan.peak_bytes < plan.memory.total_bytes
    realize(x)


def test_variables_and_keys_are_values(cold):
    x = array(X)
    var = UOp(Ops.VAR, dtypes.int32, (), VarArg("i", 0, 9))
    bound = [UOp(Ops.BIND, dtypes.int32, (var, UOp.const(dtypes.int32, v))) for v in (3, 4)]
    for v, n in zip((3, 4), bound): np.testing.assert_array_equal(values(x + n.cast(dtypes.float32)), X + v)
    keys = [UOp(Ops.KEY, dtypes.uint64, (), KeyArg(7, c)) for c in (1, 2)]
    bits = array(np.zeros(2, np.uint64))
    for c, k in zip((1, 2), keys): np.testing.assert_array_equal(values(bits + k), [(7 << 32) + c] * 2)
    assert GlobalCounters.schedule_count == 2
    with pytest.raises(UsageError, match="the variable 'i' has no value"): realize(x + var.cast(dtypes.float32))


# ---- devices -----------------------------------------------------------------------------------------------------------------------
def test_copy_is_a_border():
    x = array(X)
    y = copy(x + 1, "CPU:1") * 2
    np.testing.assert_array_equal(values(y), (X + 1) * 2)
    assert buffer_of(y).device == "CPU:1"
    back = copy(y.reduce(Ops.ADD, (1,)), "CPU") + copy(copy(x, "CPU:1") * 3, "CPU").reduce(Ops.ADD, (1,))
    np.testing.assert_array_equal(values(back), ((X + 1) * 2).sum(1) + (X * 3).sum(1))


def test_copy_of_what_is_there_moves_nothing(cold):
    x = array(X)
    assert realize(copy(x, "CPU"))[0] is buffer_of(x)
    y = copy(full((2, 2), 3.0), "CPU:1")
    np.testing.assert_array_equal(values(y), np.full((2, 2), 3.0))
    assert buffer_of(y).device == "CPU:1"


def test_results_on_two_devices_in_one_call():
    x, y = array(X), array(X, "CPU:1")
    a, b, c = x + 1, y + 2, copy(x + 1, "CPU:1") + y
    realize(a, b, c)
    assert [buffer_of(n).device for n in (a, b, c)] == ["CPU", "CPU:1", "CPU:1"]
    np.testing.assert_array_equal(values(c), 2 * X + 1)


def test_empty_copies():
    y = copy(array(X).shrink(((0, 0), (0, 4))), "CPU:1")
    assert realize(y)[0].size == 0 and buffer_of(y).device == "CPU:1"


def test_mixed_devices_are_an_error_with_a_way_out():
    with pytest.raises(DeviceError, match=r"ADD of sources on two devices\n.*on CPU.*on CPU:1.*\n  try: move one of them, x.to\('CPU'\)"):
        realize(array(X) + array(X, "CPU:1"))


def test_files_are_read_by_pieces(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(X.tobytes())
    disk = buffer_uop(Buffer(f"DISK:{path}", 12, dtypes.float32)).reshape((3, 4))
    np.testing.assert_array_equal(values(copy(disk.shrink(((1, 2), (0, 4))), "CPU")), X[1:2])
    np.testing.assert_array_equal(values(copy(disk.permute((1, 0)), "CPU") + 1), X.T + 1)   # computed after the copy
    np.testing.assert_array_equal(values(disk.shrink(((1, 3), (0, 4)))), X[1:])              # a view of the file
    with pytest.raises(DeviceError, match="holds data and computes nothing"): realize(disk + 1)


def test_default_device_is_followed():
    with Context(DEV="CPU:1"):
        n = leaf(full((2,), 5.0))
        realize(n)
        assert buffer_of(n).device == "CPU:1"
    n = leaf(full((2,), 5.0))
    realize(n)
    assert buffer_of(n).device == "CPU"


# ---- cost --------------------------------------------------------------------------------------------------------------------------
def test_deep_graphs():
    x = array(X)
    for _ in range(20_000): x = x + 1
    np.testing.assert_array_equal(sign([x]).order[x], 20_001 + 1)


def test_a_shape_seen_before_is_cheap():
    b = array(np.ones((4, 4)))
    def once(n):
        x = array(np.ones((4, 4)))
        start = time.perf_counter()
        for _ in range(n): x = x + b
        realize(x)
        return time.perf_counter() - start
    once(1), once(1000)
    assert min(once(1) for _ in range(50)) < 120e-6
    assert min(once(1000) for _ in range(5)) < 60e-3


def test_a_failed_run_leaves_nothing_behind(monkeypatch):
    y = array(X) + 77
    def fail(*_): raise MemoryError("no room")
    monkeypatch.setattr(realize_module.Recipe, "run", fail)
    with pytest.raises(MemoryError): realize(y)
    monkeypatch.undo()
    assert y.memory is None
    np.testing.assert_array_equal(values(y), X + 77)


def test_new_buffer_is_unfilled_memory_of_its_own():
    a, b = new_buffer("CPU", 4, dtypes.int8), new_buffer("CPU", 4, dtypes.int8)
    assert a is not b and a.memory is not b.memory and a.memory.nbytes == 4

"""Plans: on disk and back, warm starts, memory, what people are shown."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from glassgrad.device.device import Device
from glassgrad.engine import cache, plan
from glassgrad.engine.context import Context
from glassgrad.engine.counters import GlobalCounters
from glassgrad.engine.limits import limits_of
from glassgrad.engine.plan import Plan
from glassgrad.engine.realize import forget_everything, realize, recipe_for
from glassgrad.engine.signature import sign
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops, add_op
from glassgrad.uop.uop import UOp
from tests.engine.graphs import array, values

CPU = Device["CPU"]
X = np.arange(12, dtype=np.float32).reshape(3, 4)


def two_kernels(x):
    mid = UOp(Ops.CONTIGUOUS, x.dtype, ((x * 2).reduce(Ops.ADD, (1,)),), "wanted by the test")
    return mid.reshape((3, 1)).expand((3, 4)) + x


def plan_of(root): return recipe_for([root], sign([root], ("test",))).plans[0]


def test_json_round_trip():
    x = array(X)
    made = plan_of(two_kernels(x))
    again = Plan.from_json(json.loads(json.dumps(made.to_json())), made.binaries(), made.device)
    assert again.to_json() == made.to_json() and again.memory == made.memory
    out, = again.run([x.src[0].memory])
    np.testing.assert_array_equal(np.frombuffer(out.as_memoryview(), np.float32).reshape(3, 4), (2 * X).sum(1, keepdims=True) + X)


def test_warm_start_in_this_process(tmp_path):
    with Context(CACHE=str(tmp_path), CHECK=0):
        forget_everything()
        values(two_kernels(array(X)))
        forget_everything()
        GlobalCounters.reset()
        np.testing.assert_array_equal(values(two_kernels(array(X))), (2 * X).sum(1, keepdims=True) + X)
        assert (GlobalCounters.schedule_count, GlobalCounters.compile_count, GlobalCounters.cache_hits) == (0, 0, 1)
        values(two_kernels(array(X)) * 1.0)                        # another plan, but its first kernel is known
        assert GlobalCounters.schedule_count == 1


def compiled_together(monkeypatch):
    """The names of the programs in each call of compile_all from now on."""
    calls, compile_all = [], CPU.compile_all
    def watched(programs):
        programs = list(programs)
        if programs: calls.append([p.name for p, _ in programs])
        return compile_all(programs)
    monkeypatch.setattr(CPU, "compile_all", watched)
    return calls


def test_only_new_kernels_are_compiled_and_those_together(monkeypatch):
    with Context(CACHE="0"):
        forget_everything()
        calls = compiled_together(monkeypatch)
        first, more = plan_of(two_kernels(array(X))), plan_of(two_kernels(array(X)) * 3)
        assert list(map(len, calls)) == [2, 1]                    # the first kernel of the second plan is known
        assert len(first.binaries()) == 1 and len({u.entry for u in first.units}) == 2
        assert more.units[0] is first.units[0] and len(more.binaries()) == 2


def test_kernels_known_from_another_plan_are_read_from_disk(tmp_path, monkeypatch):
    """They point at the object that holds them; where it is gone they are compiled again."""
    expected = ((2 * X).sum(1, keepdims=True) + X) * 3
    with Context(CACHE=str(tmp_path), CHECK=0):
        forget_everything()
        made = plan_of(two_kernels(array(X)))
        forget_everything()
        calls = compiled_together(monkeypatch)
        np.testing.assert_array_equal(values(two_kernels(array(X)) * 3), expected)
        assert list(map(len, calls)) == [1]
        cache._remove(cache.disk_cache().path(cache.content_key(made.binaries()[0])))
        forget_everything()
        np.testing.assert_array_equal(values(two_kernels(array(X)) * 4.5), expected * 1.5)
        assert list(map(len, calls)) == [1, 2]


def test_damaged_entries_are_made_again(tmp_path):
    with Context(CACHE=str(tmp_path), CHECK=0):
        forget_everything()
        values(two_kernels(array(X)))
        for _, _, path in cache.disk_cache().entries(): os.truncate(path, os.path.getsize(path) - 3)
        forget_everything()
        GlobalCounters.reset()
        np.testing.assert_array_equal(values(two_kernels(array(X))), (2 * X).sum(1, keepdims=True) + X)
        assert GlobalCounters.schedule_count == 1 and GlobalCounters.cache_hits == 0


SCRIPT = """
import sys
from tests.engine.test_plan import *
np.testing.assert_array_equal(values(two_kernels(array(X))), (2 * X).sum(1, keepdims=True) + X)
print(GlobalCounters.schedule_count, GlobalCounters.compile_count, GlobalCounters.cache_hits, "llvmlite" in sys.modules)
"""


def run_script(folder):
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env={**os.environ, "CACHE": str(folder), "CHECK": "0"})
    assert out.returncode == 0, out.stderr
    return out.stdout.split()[:3]


def test_warm_start_in_another_process(tmp_path):
    assert run_script(tmp_path) == ["1", "2", "0"]
    assert run_script(tmp_path) == ["0", "0", "1"]


def test_rows_added_by_the_user_are_not_kept_on_disk(tmp_path):
    add_op("TEST_TWICE", arity=1, doc="2x", py=lambda x: 2 * x, decomp=lambda n: n.src[0] + n.src[0])
    try:
        with Context(CACHE=str(tmp_path)):
            graph = UOp.sink(array(X).alu(Ops.TEST_TWICE))
            assert plan._disk(graph, CPU) is None and plan._disk(UOp.sink(array(X) + 1), CPU) is not None
    finally: delattr(Ops, "TEST_TWICE")


def test_code_for_devices_of_the_user_is_not_kept_on_disk(tmp_path):
    class Mine(type(CPU)): pass
    with Context(CACHE=str(tmp_path)): assert plan._disk(UOp.sink(array(X) + 1), Mine("CPU")) is None


@pytest.mark.parametrize("graph, is_quick", [(lambda x: x + 1, True), (lambda x: x.reshape((12, 1)).expand((12, 4000)) + 1, False)])
def test_only_small_plans_run_with_the_lock_of_python(graph, is_quick):
    made = plan_of(graph(array(X)))
    made.prepared()
    assert made.is_quick == is_quick


def test_options_that_change_code_change_the_key():
    graph, target = UOp.sink(array(X) + 1), Device["CPU"].target
    keys = {plan._key("plan", graph, target)}
    with Context(BEAM=3): keys.add(plan._key("plan", graph, target))
    keys.add(plan._key("plan", graph, target.with_(features="other")))
    assert len(keys) == 3


# ---- what people see ---------------------------------------------------------------------------------------------------------------
def test_schedule_in_words():
    text = str(plan_of(two_kernels(array(X))))
    assert "2 kernels" in text and "wanted by the test" in text and "tmp" in text and "in0:f32[12]" in text


def test_debug_prints_a_line_a_kernel(capfd, cold):
    x = array(X)
    with Context(DEBUG=2): realize(two_kernels(x))
    err = capfd.readouterr().err
    assert err.count("FLOP/s") == 2 and err.count("B/s") >= 2 and "CPU" in err


def test_debug_shows_reasons_and_source(capfd, cold):
    with Context(DEBUG=4): realize(two_kernels(array(X) * 1.25))
    err = capfd.readouterr().err
    assert "wanted by the test" in err and "define" in err


def test_watched_and_unwatched_runs_agree():
    x = array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    plain = values(two_kernels(x) * 3)
    with Context(PROFILE=1): np.testing.assert_array_equal(values(two_kernels(leafless(x)) * 3), plain)
    assert GlobalCounters.time_sum_s > 0


def leafless(x): return array(values(x).copy())


def test_check_compares_with_the_reference_device(cold, monkeypatch):
    x = array(X)
    with Context(CHECK=2): np.testing.assert_array_equal(values(two_kernels(x) + 2), (2 * X).sum(1, keepdims=True) + X + 2)
    wrong = plan_of(two_kernels(x) + 4)
    wrong.units[-1] = plan_of(two_kernels(x) + 5).units[-1]
    with Context(CHECK=2), pytest.raises(CompilerBug, match=r"CHECK: kernel .* differs from the reference device in 12 of 12 elements"):
        wrong.run([x.src[0].memory])


def test_the_limits_of_a_device_are_measured_where_there_is_hardware(capfd, cold):
    limits = limits_of(CPU)
    assert limits.flops > 1e8 and limits.bandwidth > 1e8
    assert limits.least_seconds(limits.flops, 0) == limits.least_seconds(0, limits.bandwidth) == 1
    target = CPU.target
    assert limits.predict(1e6, 0, 0, 1, target) > limits.predict(1e3, 0, 0, 1, target) >= limits.launch_s
    assert limits.predict(0, limits.read_bandwidth, 0, 1, target) > 1
    assert limits_of(Device["NULL"]) is None and limits_of(Device["PYTHON"]) is None
    with Context(DEBUG=2): realize(array(X).exp() + 1)
    said = capfd.readouterr().err
    assert "% of limit" in said and "predicted" in said

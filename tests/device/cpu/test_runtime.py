"""The native launcher: threads, replays, forks and exits."""
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from linear_programs import Linear

from glassgrad.device.cpu import CpuDevice
from glassgrad.device.device import Launch, Slot
from glassgrad.target.llvm import join
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug, DeviceError, UsageError

CPU = CpuDevice("CPU")
I = dtypes.int64


def with_threads(n):
    """A device that uses n threads, whatever this machine has."""
    device = CpuDevice("CPU")
    device.target = device.target.with_(threads=n)
    return device


def load(k):
    program = k.program()
    return CPU.load(program.name, CPU.compile(program, CPU.render(program)))


def add_number(count):
    """out[g] = out[g] + value + g: run twice on an element, or not at all, shows."""
    k = Linear("add_number", I)
    out, value = k.buffer(I, count), k.value(I)
    g = k.group(0, count)
    k.store(out, g, k.put(k.load(out, g) + value + g))
    return load(k)


def copy(n):
    k = Linear("copy", I)
    out, x = k.buffer(I, n), k.buffer(I, n)
    g = k.group(0, n)
    k.store(out, g, k.load(x, g))
    return load(k)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 1000, 100_003])
def test_every_index_runs_once(count, threads):
    device, prog = with_threads(threads), add_number(max(count, 1))
    out = np.zeros(max(count, 1), "i8")
    for step in range(20): device.launch(prog, [out.ctypes.data], (step,), (count, 1, 1))
    assert (out[:count] == np.arange(count) * 20 + 190).all() and (count or not out.any())


def test_workers_take_part():
    """Each piece waits until a second one has begun: alone, nobody would get through."""
    k = Linear("meet", I)
    out, flags = k.buffer(I, 2), k.buffer(I, 2)
    g = k.group(0, 2)
    k.store(flags, g, k.const(1))
    done, r = k.acc(0, k.const(0)), k.loop(0, 1 << 22)
    k.set(done, k.put(k.get(done, r) + k.load(flags, k.put(k.const(1) - g))))
    e = k.end(r)
    k.store(out, g, k.get(done, e))
    prog, device = load(k), with_threads(2)
    deadline = time.monotonic() + 60                            # a busy machine may give the second thread no core for a while
    while time.monotonic() < deadline:
        a, f = np.zeros(2, "i8"), np.zeros(2, "i8")
        device.launch(prog, [a.ctypes.data, f.ctypes.data], (), (2, 1, 1))
        if (a > 0).all(): return
        time.sleep(0.001)
    pytest.fail("the second thread never ran beside the caller")


def test_rows_run_in_order():
    """A chain of copies: each row needs the whole of the row before."""
    n, device = 5000, with_threads(3)
    prog, add = copy(n), add_number(n)
    bufs = [np.zeros(n, "i8") for _ in range(4)]
    handles = [b.ctypes.data for b in bufs]
    rows = [Launch(add, [handles[0]], [5], (n, 1, 1))] + [Launch(prog, [handles[i + 1], handles[i]], (), (n, 1, 1)) for i in range(3)]
    replay = device.graph(rows)
    for step in range(30):
        replay.run()
        assert (bufs[3] == (np.arange(n) + 5) * (step + 1)).all()


def test_replay_fills_slots():
    n, device = 64, with_threads(2)
    add, prog = add_number(n), copy(n)
    fixed = np.zeros(n, "i8")
    replay = device.graph([Launch(add, [Slot(1)], [Slot(0)], (Slot(1), 1, 1)), Launch(prog, [fixed.ctypes.data, Slot(1)], (), (n, 1, 1)),
                           Launch(prog, [Slot(0, 8 * n), fixed.ctypes.data], (), (n, 1, 1))])
    for value, count in ((3, 10), (-7, 64), ((1 << 64) - 1, 1)):
        arena, x = np.zeros(2 * n, "i8"), np.zeros(n, "i8")
        replay.run([arena.ctypes.data, x.ctypes.data], [value, count])
        want = np.where(np.arange(n) < count, np.arange(n) + np.array(value, "u8" if value > 0 else "i8").astype("i8"), 0)
        assert (x == want).all() and (arena[n:] == want).all() and not arena[:n].any()
    device.graph([]).run()


def test_many_arguments():
    n = 100
    k = Linear("sum_all", I)
    bufs, g = [k.buffer(I, 1) for _ in range(n)], k.group(0, 1)
    total = k.load(bufs[1], g)
    for b in bufs[2:]: total = k.put(total + k.load(b, g))
    k.store(bufs[0], g, total)
    arrays = [np.array([i]) for i in range(n)]
    CPU.launch(load(k), [a.ctypes.data for a in arrays])
    assert arrays[0][0] == sum(range(n))


def test_python_threads_share_the_device():
    device, prog, errors = with_threads(2), add_number(500), []
    def work():
        out = np.zeros(500, "i8")
        for step in range(300): device.launch(prog, [out.ctypes.data], (step,), (500, 1, 1))
        if not (out == np.arange(500) * 300 + 44850).all(): errors.append("wrong")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not errors


def test_sleeping_workers_wake_up():
    device, prog, out = with_threads(4), add_number(100), np.zeros(100, "i8")
    for _ in range(5):
        time.sleep(0.01)
        device.launch(prog, [out.ctypes.data], (1,), (100, 1, 1))
    assert (out == 5 + 5 * np.arange(100)).all()


def test_fork_gets_a_pool_of_its_own():
    device, prog, out = with_threads(3), add_number(100), np.zeros(100, "i8")
    device.launch(prog, [out.ctypes.data], (0,), (100, 1, 1))
    child = os.fork()
    if not child:
        for _ in range(50): device.launch(prog, [out.ctypes.data], (0,), (100, 1, 1))
        os._exit(0 if (out == 51 * np.arange(100)).all() and device.runtime.workers == 2 else 1)
    for _ in range(50): device.launch(prog, [out.ctypes.data], (0,), (100, 1, 1))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and (out == 51 * np.arange(100)).all()


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "threading.Thread(target=spin, daemon=True).start(); time.sleep(0.05)"],
                         ids=["end of script", "exit", "daemon at work"])
def test_exit_is_quick_and_clean(ending):
    script = f"""
import sys, threading, time
sys.path[:0] = {sys.path!r}
from test_runtime import *
device, prog, out = with_threads(4), add_number(100), np.zeros(100, "i8")
def spin():
    while True: device.launch(prog, [out.ctypes.data], (0,), (100, 1, 1))
for _ in range(100): device.launch(prog, [out.ctypes.data], (0,), (100, 1, 1))
{ending}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr


def test_bad_calls():
    with pytest.raises(UsageError, match="must be ints"): CPU.launch(add_number(1), [0], [1.5])
    other = CPU.llvm.compile("define void @other() { ret void }", CPU.target.features)
    with pytest.raises(DeviceError, match="cannot load missing"): CPU.load("missing", other)
    with pytest.raises(CompilerBug, match="LLVM refuses"): CPU.llvm.compile("define void", CPU.target.features)


def scale(by):
    k = Linear("scale", I)
    out, g = k.buffer(I, 4), k.group(0, 4)
    k.store(out, g, k.put(k.load(out, g) * by))
    return k.program()


@pytest.mark.parametrize("lines, objects", [(0, 3), (40, 2), (3000, 1)])
def test_programs_of_one_name_in_few_modules(monkeypatch, lines, objects):
    """Several a module, as many as its bound allows; each is found by a name of its own, in one library."""
    monkeypatch.setattr("glassgrad.device.cpu.MODULE_LINES", lines)
    programs = [(p, CPU.render(p)) for p in map(scale, (2, 3, 5))]
    made = CPU.compile_all(programs)
    assert len({binary for _, binary in made}) == objects and len({name for name, _ in made}) == 3
    assert made == CPU.compile_all(programs)                       # the same bytes and names in any process
    loaded = CPU.load_all([*made, made[0]])
    assert len({id(p.keep) for p in loaded}) == 1 and loaded[0].address == loaded[3].address
    x = np.arange(4)
    for prog in loaded: CPU.launch(prog, [x.ctypes.data], (), (4, 1, 1))
    assert x.tolist() == [0, 60, 120, 180]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_second_core_generates_code_while_programs_are_taken(monkeypatch, threads):
    """With one thread nothing runs beside the caller; either way the same bytes, and what goes wrong with a program is the caller's."""
    monkeypatch.setattr("glassgrad.device.cpu.MODULE_LINES", 0)
    programs = [(p, CPU.render(p)) for p in map(scale, (2, 3))]
    expected, workers, compile_one = CPU.compile_all(programs), set(), CPU.llvm.compile
    monkeypatch.setattr(CPU, "target", CPU.target.with_(threads=threads))
    monkeypatch.setattr(CPU.llvm, "compile", lambda *args: (workers.add(threading.current_thread()), compile_one(*args))[1])
    assert CPU.compile_all(iter(programs)) == expected
    assert (threading.current_thread() in workers) == (threads == 1) and len(workers) == threads     # a module each

    def broken():
        yield programs[0]
        raise KeyError("lowering")
    with pytest.raises(KeyError, match="lowering"): CPU.compile_all(broken())


LATE = """
import threading
from glassgrad import Tensor
def work():
    threading.main_thread().join()
    print((Tensor([1.0, 2.0]) * 3 + 1).tolist())
threading.Thread(target=work).start()
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_thread_may_compile_when_the_main_one_has_ended(threads):
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, env={**os.environ, "CACHE": "0", "THREADS": threads}, timeout=60)
    assert done.stdout.strip() == "[4.0, 7.0]", done.stderr


def test_what_is_a_programs_own_is_named_by_it_and_what_all_declare_stands_once():
    own = 'define void @"f"() {\n  %x = load i8, ptr @"f.zeros"\n  ret void\n}\n@"f.zeros" = internal constant i8 0\ndeclare void @g(ptr)\n'
    text, names = join([own, own], "seal")
    assert [text.count(f'@"{name}') for name in names] == [3, 3] and text.count("declare") == 1
    CPU.llvm.compile(text, CPU.target.features)
    assert names != join([own, own], "another")[1]


def test_plain_names_may_come_twice():
    binaries = [(p.name, CPU.compile(p, CPU.render(p))) for p in map(scale, (2, 3))]
    x = np.arange(4)
    for prog in CPU.load_all(binaries): CPU.launch(prog, [x.ctypes.data], (), (4, 1, 1))
    assert x.tolist() == [0, 6, 12, 18]


def test_object_is_the_disk_format():
    k = Linear("double", I)
    out, g = k.buffer(I, 4), k.group(0, 4)
    k.store(out, g, k.put(k.load(out, g) * 2))
    program = k.program()
    binary = CPU.compile(program, CPU.render(program))
    assert binary[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe") and CPU.compile(program, CPU.render(program)) == binary
    x = np.arange(4)
    for _ in range(2): CPU.launch(CPU.load("double", bytes(binary)), [x.ctypes.data], (), (4, 1, 1))
    assert x.tolist() == [0, 4, 8, 12]

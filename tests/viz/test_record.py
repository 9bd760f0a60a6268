"""The recorder: what is kept, what is let go, and what it costs."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import sample
from sample import f32

from glassgrad.rewrite import trace
from glassgrad.uop.ops import BufferArg, Ops
from glassgrad.uop.uop import UOp
from glassgrad.viz import record, views
from glassgrad.viz.record import Call, Limits, Recorder


def test_off_by_default():
    assert record.recorder is None
    assert trace.tracer is None


def test_kernel_has_its_passes_and_rules(recorder):
    kernel = views.group(recorder, 1)
    assert [s["name"] for s in kernel["steps"]] == ["simplify", "tile", "lower ops", "lower dtypes", "add grid", "linearize"]
    assert kernel["steps"][0]["fired"] == 1
    assert kernel["texts"] == ["loops", "source", "ir", "asm", "graph"]
    step = views.compare(recorder, 1, 0, 0)
    assert step["rules"] == {"add_zero": 1}
    fired = step["fired"][0]
    assert (step["terms"][fired["before"]], step["terms"][fired["after"]]) == ("(r1 + 0)", "RANGE[r1 LOOP](128)")


def test_passes_outside_a_kernel_belong_to_the_schedule(recorder):
    schedule = views.group(recorder, 0)
    assert schedule["kind"] == "schedule"
    assert [s["name"] for s in schedule["steps"]] == ["drop markers", "simplify shapes"]
    assert [c["name"] for c in schedule["calls"]][:2] == ["relu_matmul_64_128", "matmul_64_10"]
    assert "12.9 MFLOP" in schedule["calls"][0]["why"]
    assert schedule["calls"][0]["unfused"]


def test_times_and_rates():
    r = Recorder("x")
    k = r.kernel_begin("k")
    r.kernel_end()
    for i in range(4):
        r.launch(k, 10 + i, 10 + i + 0.25 * (i + 1), 1 << 30, 10**9)
    row = views.index(r)["kernels"][0]
    assert row["runs"] == 4 and row["seconds"] == 2.5 and row["fastest"] == 0.25
    assert row["gflops"] == 4.0


def test_two_kernels_of_one_name_are_told_apart_by_number():
    r = Recorder("x")
    a = r.kernel_begin("same")
    r.kernel_end()
    b = r.kernel_begin("same")
    r.kernel_end()
    r.schedule([Call("same", kernel=a), Call("same", kernel=b)])
    r.launch(a, 0, 1)
    r.launch(b, 1, 3)
    rows = {k["id"]: k["seconds"] for k in views.index(r)["kernels"]}
    assert rows == {a: 1.0, b: 2.0}
    assert [c["kernel"] for c in views.index(r)["schedules"][0]["calls"]] == [a, b]


def test_launch_of_what_was_never_compiled_is_on_the_timeline():
    r = Recorder("x")
    r.launch("copy CPU to CL", 1, 2, device="CL")
    line = views.timeline(r)
    assert line["lanes"] == ["CL"] and line["names"] == ["copy CPU to CL"] and line["group"] == [-1]


def test_the_same_schedule_again_is_another_run():
    r = Recorder("x")
    first = r.schedule([Call("k")], runs=0)
    r.ran(first)
    r.ran(first)
    assert [s["runs"] for s in views.index(r)["schedules"]] == [2]


def test_a_tensor_graph_is_not_kept_alive():
    r = Recorder("x")
    before = UOp.sink(UOp(Ops.BUFFER, f32, (), BufferArg(987654, 3, "CPU")) + 1.0)
    after = UOp.sink(before.src[0] * 2.0)
    r.rule("some_rule", before.src[0], after.src[0])
    r.pass_("tensor graph", "a pass", before, after)
    seen = weakref.ref(before), weakref.ref(after)
    del before, after
    gc.collect()
    assert [s() for s in seen] == [None, None]
    assert views.compare(r, 0, 0, 0)["rules"] == {"some_rule": 1}


def test_kernel_nodes_are_let_go_once_someone_looked():
    r = Recorder("x")
    ast = sample.softmax_ast(16, 24)
    r.kernel_begin("k", ast)
    sample.passes(r, ast)
    r.kernel_end()
    seen = weakref.ref(ast)
    views.group(r, 0)
    del ast
    gc.collect()
    assert seen() is None
    assert views.group(r, 0)["steps"][1]["new"] > 0


def test_nodes_are_stored_once_for_all_passes(recorder):
    recorder.settle()
    g = recorder.groups[1]
    every_pass = sum(s["nodes"] for s in views.group(recorder, 1)["steps"])
    assert len(g.rows) < 0.6 * every_pass


def test_linear_programs_and_several_roots_are_graphs_too():
    r = Recorder("x")
    r.kernel_begin("k")
    p = sample.program()
    r.step("kernel", "linearize", (sample.matmul_ast().src[0],), list(p.uops))
    r.kernel_end()
    step = views.compare(r, 0, 0, 0)
    assert step["rows"][step["after"]["root"]]["op"] == "SINK"
    assert len(step["after"]["nodes"]) == len(p.uops) + 1


def test_errors_are_kept_and_shown(recorder):
    broken = next(k for k in views.index(recorder)["kernels"] if k["name"] == "broken")
    assert "bf16 has no decomposition" in broken["error"]
    assert views.group(recorder, broken["id"])["steps"]


def test_texts_are_made_when_asked_for_and_never_break_the_page():
    r, calls = Recorder("x"), []
    k = r.kernel_begin("k")
    r.program(asm=lambda: calls.append(1) or "ret", ir=lambda: 1 / 0)
    r.kernel_end()
    assert not calls
    assert views.text(r, k, "asm")["text"] == views.text(r, k, "asm")["text"] == "ret"
    assert calls == [1]
    assert "ZeroDivisionError" in views.text(r, k, "ir")["text"]


# ---- limits ------------------------------------------------------------------------------------------------------------------------
def test_old_kernels_lose_their_details_then_their_place():
    r = Recorder("x", Limits(groups=6, detailed=3))
    for i in range(10):
        ast = sample.matmul_ast(8, 8, 8, 100 + i)
        r.kernel_begin(f"k{i}", ast)
        sample.passes(r, ast)
        r.kernel_end()
    listed = views.index(r)
    assert [k["name"] for k in listed["kernels"]] == [f"k{i}" for i in range(4, 10)]
    assert [bool(k["passes"]) for k in listed["kernels"]] == [False, False, False, True, True, True]
    assert "dropped" in " ".join(listed["notes"])
    assert "dropped to bound memory" in views.group(r, listed["kernels"][0]["id"])["notes"][0]


def test_passes_and_rules_of_one_kernel_are_bounded():
    r = Recorder("x", Limits(steps=4, fired=3))
    r.kernel_begin("k")
    x = sample.param(0, 4)
    for i in range(6):
        for k in range(10):
            r.rule("r", x, sample.param(k + 1, 4))
        r.pass_("kernel", f"p{i}", x, x)
    r.kernel_end()
    detail = views.group(r, 0)
    assert len(detail["steps"]) == 4 and "first 4 passes" in detail["notes"][0]
    step = views.compare(r, 0, 0, 0)
    assert len(step["fired"]) == 3 and step["rules"] == {"r": 10}


def test_graphs_over_the_limit_are_left_out_with_a_note():
    r = Recorder("x", Limits(rows=100))
    r.kernel_begin("k")
    big = sample.big_graph(400)
    r.pass_("kernel", "p", big, big)
    r.kernel_end()
    detail = views.group(r, 0)
    assert not detail["steps"][0]["kept"] and "too big" in " ".join(detail["notes"])
    assert views.compare(r, 0, 0, 0)["after"]["nodes"] == []


def test_timeline_and_memory_are_bounded_and_keep_the_peak():
    r = Recorder("x", Limits(events=50, samples=100))
    for i in range(500):
        r.launch("k", i, i + 0.5)
        r.memory(i, 10_000 if i == 33 else i, cause="big one" if i == 33 else "")
    line, memory = views.timeline(r), views.memory(r)["CPU"]
    assert len(line["start"]) == 50 and line["next"] == 500
    assert len(r.samples["CPU"]) <= 100
    assert memory["peak"] == 10_000 and memory["cause"] == "big one" and max(memory["bytes"]) == 10_000
    assert any("timeline events" in n for n in views.notes(r))
    assert views.timeline(r, since=498)["start"].__len__() == 2


def test_comparison_shows_what_is_nearest_to_the_change():
    r = sample.with_big(Recorder("x"))
    step = views.compare(r, 0, 0, 0, limit=200)
    assert len(step["after"]["nodes"]) == 200 and step["after"]["total"] > 2000
    changed = [n for n, m in step["after"]["marks"].items() if m == "new"]
    assert changed and set(changed) <= set(step["after"]["nodes"])
    inside = set(step["rows"])
    assert set(step["after"]["nodes"]) <= inside


# ---- cost and threads --------------------------------------------------------------------------------------------------------------
def test_recording_a_hundred_kernels_of_fifteen_passes_costs_little():
    graphs = [[sample.matmul_ast(8 + i, 8, 16, i), sample.matmul_ast(8 + i, 16, 16, i)] for i in range(100)]
    r = Recorder("x")
    start = time.perf_counter()
    for i, (a, b) in enumerate(graphs):
        r.kernel_begin(f"k{i}", a)
        for p in range(15):
            for _ in range(20):
                r.rule("rule", a, b)
            r.pass_("kernel", f"p{p}", a, b)
        r.kernel_end()
    took = time.perf_counter() - start
    assert took < 1.0, f"recording took {took:.2f} s; it should be some 50 ms"


def test_threads_record_into_their_own_kernels():
    r, barrier = Recorder("x"), threading.Barrier(4)

    def work(i: int) -> None:
        ast = sample.matmul_ast(8, 8, 8, 200 + i)
        barrier.wait()
        for k in range(20):
            r.kernel_begin(f"t{i}.{k}", ast)
            r.pass_("kernel", f"thread {i}", ast, ast)
            r.kernel_end()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        views.index(r), r.settle()
    for t in threads:
        t.join()
    assert len(r.groups) == 80
    for g in r.groups.values():
        assert [s.name for s in g.steps] == [f"thread {g.name[1]}"]

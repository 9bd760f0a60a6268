"""A record made by hand from UOps: two schedules of a small training step, with passes, texts, times and memory."""

from __future__ import annotations

import random
import time

from glassgrad.target.program import Param, Program
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import BufferArg, Ops, ParamArg, RangeArg, ReduceArg, SpecialArg
from glassgrad.uop.uop import UOp, substitute
from glassgrad.viz.record import Call, Limits, Recorder

f32, i64 = dtypes.float32, dtypes.int64


def at(n: UOp, line: int, file: str = "train.py") -> UOp:
    """The node, with a user line."""
    if n.site is None:
        n.site = f"/home/me/{file}:{line}"
    return n


def param(slot: int, size: int) -> UOp:
    return UOp(Ops.PARAM, f32, (), ParamArg(slot, "buffer", size))


def load(buf: UOp, index: UOp) -> UOp:
    return UOp(Ops.LOAD, f32, (buf, index))


def matmul_ast(m: int = 64, n: int = 128, k: int = 784, line: int = 21) -> UOp:
    """relu(x @ w + b) as the schedule hands it over."""
    i, j, r = UOp.range(0, m), UOp.range(1, n), UOp.range(2, k, "REDUCE")
    x, w = load(param(1, m * k), i * k + r), load(param(2, k * n), r * n + j)
    total = at(UOp(Ops.REDUCE, f32, (at(x * w, line), r), ReduceArg(Ops.ADD, ())), line)
    out = at((at(total + load(param(3, n), j + 0), line)).max(0.0), line + 1)
    return UOp.sink(UOp(Ops.END, dtypes.void, (UOp(Ops.STORE, dtypes.void, (param(0, m * n), i * n + j, out)), i, j)))


def softmax_ast(m: int = 64, n: int = 10, line: int = 24) -> UOp:
    """softmax over the last axis: two reductions in one kernel."""
    i, j = UOp.range(0, m), UOp.range(1, n)

    def x(r: UOp) -> UOp:
        return load(param(1, m * n), i * n + r)

    r1, r2 = UOp.range(2, n, "REDUCE"), UOp.range(3, n, "REDUCE")
    top = at(UOp(Ops.REDUCE, f32, (x(r1), r1), ReduceArg(Ops.MAX, ())), line)
    total = at(UOp(Ops.REDUCE, f32, (at((x(r2) - top).exp(), line), r2), ReduceArg(Ops.ADD, ())), line)
    out = at((x(j) - top).exp() / total, line)
    return UOp.sink(UOp(Ops.END, dtypes.void, (UOp(Ops.STORE, dtypes.void, (param(0, m * n), i * n + j, out)), i, j)))


def passes(r: Recorder, ast: UOp) -> UOp:
    """A few passes like the compiler's, on any of the kernels."""
    graph = ast
    table = {n: n.src[0] for n in graph.toposort() if n.op is Ops.ADD and n.src[1].op is Ops.CONST and n.src[1].arg == 0}
    graph = step(r, "kernel", "simplify", graph, table, "add_zero", "constants that say nothing would be computed for every element")
    loops = [n for n in graph.toposort() if n.op is Ops.RANGE and n.arg.kind == "LOOP"]
    last = loops[-1]
    table = {n: n.replace(arg=RangeArg(n.arg.id, "GLOBAL")) for n in loops[:-1]}
    if last.src[0].arg % 8 == 0:
        high, lane = UOp.range(10, last.src[0].arg // 8), UOp.range(11, 8, "LANE")
        table[last] = high * 8 + lane
        ends = {
            n: n.replace(src=tuple(s for s in n.src if s is not last) + (high, lane))
            for n in graph.toposort()
            if n.op is Ops.END and last in n.src
        }
        graph = substitute((graph,), ends)[0]
    graph = step(r, "kernel", "tile", graph, table, "split_axis", "threads, vectors and registers would stand idle")
    r.why("tile", "8 lanes by 1: the rows are 512 bytes, one vector load each; 6 of 16 registers in use")
    table = {n: n.src[0].alu(Ops.EXP2).replace(src=(n.src[0] * 1.4426950408889634,)) for n in graph.toposort() if n.op is Ops.EXP}
    graph = step(r, "kernel", "lower ops", graph, table, "exp_to_exp2", "the target cannot compute some ops itself")
    table = {n: n.replace(src=(n.src[0], n.src[1].src[0] * n.src[1].src[1] + 0)) for n in ()}
    graph = step(r, "kernel", "lower dtypes", graph, table, "", "the target cannot compute in some dtypes itself")
    table = {
        n: UOp(Ops.SPECIAL, i64, (), SpecialArg("gidx0", n.src[0].arg))
        for n in graph.toposort()
        if n.op is Ops.RANGE and n.arg.kind == "GLOBAL"
    }
    ends = {n: n.replace(src=tuple(s for s in n.src if s not in table)) for n in graph.toposort() if n.op is Ops.END}
    return step(
        r,
        "program",
        "add grid",
        substitute((graph,), ends)[0],
        table,
        "range_to_special",
        "hardware counts workgroups, it has no loops over them",
    )


def step(r: Recorder, stage: str, name: str, graph: UOp, table: dict[UOp, UOp], rule: str, why: str) -> UOp:
    for before, after in table.items():
        r.rule(rule, before, after)
        if after.site is None:
            after.site = before.site
    after = substitute((graph,), table)[0]
    r.pass_(stage, name, graph, after, why=why)
    return after


def program(name: str = "relu_matmul", n: int = 128) -> Program:
    """A linear program with a vector loop and an accumulator."""
    out, x, w = param(0, 64 * n), param(1, 64 * 784), param(2, 784 * n)
    g = UOp(Ops.SPECIAL, i64, (), SpecialArg("gidx0", 64))
    count, width, zero = UOp.const(i64, n // 8), UOp.const(i64, 784), UOp.const(f32.vec(8), 0.0)
    j = UOp(Ops.RANGE, i64, (count,), RangeArg(0, "LOOP"))
    acc = UOp(Ops.ACC, f32.vec(8), (zero,), 0)
    k = UOp(Ops.RANGE, i64, (width,), RangeArg(1, "REDUCE"))
    left = UOp(Ops.SPLAT, f32.vec(8), (UOp(Ops.LOAD, f32, (x, g * width + k)),))
    right = UOp(Ops.LOAD, f32.vec(8), (w, k * n + j * 8))
    got = UOp(Ops.GET, f32.vec(8), (acc, k))
    added = UOp(Ops.MULACC, f32.vec(8), (left, right, got))
    kept = UOp(Ops.SET, dtypes.void, (acc, added))
    end = UOp(Ops.END, dtypes.void, (k,))
    result = UOp(Ops.GET, f32.vec(8), (acc, end))
    positive = at(result.max(0.0), 22)
    store = UOp(Ops.STORE, dtypes.void, (out, g * n + j * 8, positive))
    tail = UOp(Ops.END, dtypes.void, (j,))
    order: dict[UOp, None] = {}
    for part in (g, j, acc, k, left, right, got, added, kept, end, result, positive, store, tail):
        for u in part.toposort():
            order[u] = None
    params = [Param(i, "buffer", p.arg.size, f32) for i, p in enumerate((out, x, w))]
    return Program(name, list(order), params, (64, 1, 1), outs=(0,), ins=(1, 2), flops=2 * 64 * n * 784)


def tensor_graph(line: int = 20) -> tuple[UOp, UOp]:
    """relu(x @ w1) @ w2 on the tensor level, before and after the first pass."""

    def buf(id: int, *shape: int) -> UOp:
        size = 1
        for n in shape:
            size *= n
        return UOp(Ops.BUFFER, f32, (), BufferArg(id, size, "CPU")).reshape(shape)

    def matmul(x: UOp, w: UOp, at_line: int) -> UOp:
        (m, k), n = x.shape, w.shape[1]
        return at(
            (x.reshape((m, 1, k)).expand((m, n, k)) * w.permute((1, 0)).reshape((1, n, k)).expand((m, n, k))).reduce(Ops.ADD, (2,)), at_line
        )

    hidden = at(matmul(buf(0, 64, 784), buf(1, 784, 128), line + 1).max(0.0), line + 2)
    logits = UOp(Ops.DETACH, f32, (matmul(hidden, buf(2, 128, 10), line + 3),))
    before = UOp.sink(at(logits + buf(3, 10).broadcast_to((64, 10)), line + 3))
    return before, substitute((before,), {logits: logits.src[0]})[0]


SOURCE = """define void @{name}(ptr noalias %bufs, ptr %vals, i64 %begin, i64 %end) #0 {{
entry:
  %p0 = load ptr, ptr %bufs, align 8
  br label %loop
loop:                                             ; rows
  %i = phi i64 [ %begin, %entry ], [ %i.next, %loop ]
  %at = getelementptr inbounds float, ptr %p0, i64 %i
  %x = load <8 x float>, ptr %at, align 4
  %y = fmul fast <8 x float> %x, <float 2.0, float 2.0, float 2.0, float 2.0, float 2.0, float 2.0, float 2.0, float 2.0>
  store <8 x float> %y, ptr %at, align 4
  %i.next = add nuw nsw i64 %i, 8
  %done = icmp eq i64 %i.next, %end
  br i1 %done, label %exit, label %loop
exit:
  ret void
}}
"""
ASM = """	.globl	{name}
{name}:
	movq	(%rdi), %rax
	vbroadcastss	.LCPI0_0(%rip), %ymm0    # 2.0
.LBB0_1:                                # rows
	vmulps	(%rax,%rdx,4), %ymm0, %ymm1
	vmovups	%ymm1, (%rax,%rdx,4)
	addq	$8, %rdx
	cmpq	%rcx, %rdx
	jne	.LBB0_1
	vzeroupper
	retq
"""


def record(limits: Limits | None = None, repeats: int = 30) -> Recorder:
    """The record of a small training loop; always the same but for the wall clock."""
    r, rng = Recorder("train.py", limits), random.Random(1)
    kernels = [
        ("relu_matmul_64_128", matmul_ast(), 21, 12_900_000),
        ("matmul_64_10", matmul_ast(64, 10, 128, 23), 23, 165_000),
        ("softmax_64_10", softmax_ast(), 24, 12_000),
        ("mean_loss_64", softmax_ast(64, 16, 25), 25, 900),
        ("grad_matmul_784_128", matmul_ast(784, 128, 64, 31), 31, 12_900_000),
        ("sgd_784_128", matmul_ast(8, 16, 32, 33), 33, 200_000),
    ]
    r.device("CPU", flops=60e9, bandwidth=22e9, cores=2)
    before, after = tensor_graph()
    r.rule("drop_detach", before.src[0].src[0], before.src[0].src[0].src[0])
    r.pass_("tensor graph", "drop markers", before, after, why="identities and detach marks would keep equal values apart")
    r.pass_("tensor graph", "simplify shapes", after, after, why="every needless view costs index arithmetic in a kernel")
    ids = []
    for name, ast, _, _ in kernels:
        ids.append(r.kernel_begin(name, ast))
        passes(r, ast)
        r.program(
            program=program(name),
            source=SOURCE.format(name=name),
            ir=SOURCE.format(name=name),
            asm=lambda name=name: ASM.format(name=name),
            grid=(64, 1, 1),
            local=(1, 1, 1),
        )
        r.kernel_end(name)
    reasons = (
        "it is read by two kernels, and computing it twice would cost 12.9 MFLOP",
        "an output the user asked for",
        "a reduction that the next kernel reads 10 times a row",
    )
    calls = [
        Call(
            name,
            (f"/home/me/train.py:{line}", f"/home/me/nn/layers.py:{line + 40}"),
            reasons[i % 3],
            ("its reduction over 784 would run again for each of the 10 columns of matmul_64_10",) if i == 0 else (),
            "CPU",
            (f"f32[{64 * 128}] #{i + 4}",),
            (f"f32[{784 * 128}] #{i}", "f32[50176] #3"),
            4 * 784 * 128,
            flops,
            ids[i],
        )
        for i, (name, _, line, flops) in enumerate(kernels)
    ]
    r.schedule(calls[:4], peak_bytes=123456)
    r.schedule(calls[4:])
    t, used = time.perf_counter(), 3 << 20
    for n in range(repeats):
        for i, (name, _, _, flops) in enumerate(kernels):
            took = (flops / 30e9 + 8e-6) * rng.uniform(1, 1.3)
            r.launch(ids[i], t, t + took, 4 * 784 * 128, flops)
            used += (1 << 19) if i < 3 else -(1 << 19)
            r.memory(t, used + (n == 9) * (1 << 21), cause=name)
            t += took + rng.uniform(1e-6, 6e-6)
        r.launch("copy CPU to PYTHON", t, t + 4e-5, 400_000, 0, "PYTHON")
        t += 5e-5
    r.kernel_begin("broken", softmax_ast(32, 8, 40))
    passes(r, softmax_ast(32, 8, 40))
    r.kernel_end(error="CompilerBug: lower dtypes: bf16 has no decomposition here\n  node: CAST bf16 r0*8 + r1")
    return r


def big_graph(n: int, seed: int = 0) -> UOp:
    """A random graph of about n nodes, deep and wide."""
    rng = random.Random(seed)
    nodes = [load(param(i, 64), UOp.range(i, 64)) for i in range(8)]
    while len(nodes) < n:
        nodes.append(
            rng.choice((Ops.ADD, Ops.MUL, Ops.MAX))
            and nodes[-1 - int(rng.random() ** 3 * min(len(nodes), 60))].alu(
                rng.choice((Ops.ADD, Ops.MUL, Ops.MAX, Ops.SUB)), nodes[-1 - int(rng.random() * min(len(nodes), 30))]
            )
        )
    return UOp.sink(*nodes[-20:])


def with_big(r: Recorder, n: int = 3000) -> Recorder:
    """The record, with a kernel of a big graph added."""
    graph = big_graph(n)
    r.kernel_begin("big", graph)
    loads = [x for x in graph.toposort() if x.op is Ops.LOAD][:1]
    step(r, "kernel", "simplify", graph, {x: x.src[0].replace(op=Ops.LOAD, src=(x.src[0], x.src[1] * 2)) for x in loads}, "double", "")
    r.kernel_end()
    return r


if __name__ == "__main__":
    from pathlib import Path

    from glassgrad.viz import file

    print(file.save(with_big(record()), Path("/tmp/sample.viz")))

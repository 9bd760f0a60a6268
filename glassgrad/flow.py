"""Flow: every pass from tensor graph to binary, in order. What is not reachable from here does not rewrite anything.

Two lists: TENSOR_FLOW takes a whole graph to kernels, KERNEL_FLOW takes one kernel to a list of instructions for a target. Each pass has
a name and a sentence that says what would go wrong without it.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glassgrad.passes import (algebra, fuse, grid, kernels, linearize, lower_dtypes, lower_ops, narrow, online, order, pairs, prepare, scratch,
                              spell, tile, windows, winograd)
from glassgrad.passes.kernels import KernelCall
from glassgrad.passes.reuse import find_reuses
from glassgrad.rewrite import driver, trace
from glassgrad.target.program import Param, Program
from glassgrad.target.target import Target
from glassgrad.uop import forms
from glassgrad.uop.infer import free_axes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp


@dataclass(frozen=True)
class Pass:
    """One step: `run(graph, target)` gives the next graph; `form` is what holds afterwards; `when(target)` says if it is needed."""
    name: str
    why: str
    run: Callable[[UOp, Target], Any]
    form: str = "KERNEL"
    when: Callable[[Target], bool] = lambda t: True


def rules(rule_set: Any) -> Callable[[UOp, Target], UOp]:
    """A pass that applies a rule set until nothing changes."""
    def run(graph: UOp, target: Target) -> UOp: return driver.rewrite(graph, rule_set)
    return run


# LEAF, DETACH, SURROGATE and BIND are left out when the engine reads a graph's structure (engine/signature.py)
TENSOR_FLOW = (
    Pass("order by keys", "sorting would compare floats with all their cases, and order everything to find the first few",
         order.order_by_keys, "TENSOR"),
    Pass("folds to windows", "a convolution's gradient would test at every place whether its window reaches there",
         windows.fold_to_windows, "TENSOR"),
    Pass("compare places", "writing one place of each row would copy the rows one by one, alone in its kernel",
         prepare.compare_places, "TENSOR"),
    Pass("small convolutions", "a 3x3 convolution would multiply four times as often as it must", winograd.small_convolutions, "TENSOR"),
    Pass("normalise last", "softmax's weights would be divided one by one before they are summed with", prepare.normalise_last, "TENSOR"),
    Pass("bound exponents", "softmax's exponentials would be made ready for overflow, which never comes",
         prepare.bound_exponents, "TENSOR"),
    Pass("simplify shapes", "every needless view costs index arithmetic in a kernel", rules(algebra.shapes), "TENSOR"),
    Pass("split long reductions", "one core would sum alone while the others wait", prepare.split_reductions, "TENSOR"),
    Pass("choose stores", "every value is stored once, staged in a kernel or recomputed: somebody must say which",
         fuse.choose_stores, "TENSOR"),
)

KERNEL_FLOW = (
    Pass("simplify", "constants and gates that say nothing would be computed for every element", rules(algebra.all)),
    Pass("pair products", "16-bit multipliers would compute one small product at a time", pairs.pair_products,
         when=lambda t: Ops.PAIRMUL in t.ops),
    Pass("spell out tables", "the zeros and ones of a constant matrix would be multiplied with", spell.spell_out),
    Pass("tile", "threads, vectors and registers would stand idle", tile.tile),
    Pass("narrow loops", "what a mask leaves out would be computed for nothing", narrow.narrow_loops,
         when=lambda t: not t.in_step),
    Pass("online softmax", "rows of scores longer than the cache would be walked four times", online.online_softmax),
    Pass("widen scratch", "the values of one tile would overwrite each other", scratch.widen_scratch),
    Pass("lower ops", "the target cannot compute some ops itself", lower_ops.lower_ops),
    Pass("lower dtypes", "the target cannot compute in some dtypes itself", lower_dtypes.lower_dtypes),
    Pass("add grid", "hardware counts workgroups and threads, it has no loops over them", grid.add_grid),
    Pass("simplify indices", "splitting axes leaves divisions that bounds can decide", rules(algebra.index)),
)


@functools.cache
def get_rewrites_for_renderer(target: Target) -> tuple[Pass, ...]:
    """The kernel passes that `target` needs, in order."""
    return tuple(p for p in KERNEL_FLOW if p.when(target))


def run_passes(stage: str, passes: tuple[Pass, ...], graph: UOp, target: Target, check: bool = False) -> UOp:
    """Apply passes in order, reporting each to the tracer; with `check`, prove the form after each."""
    for p in passes:
        new = p.run(graph, target)
        if trace.tracer is not None: trace.tracer.step(stage, p.name, graph, new)
        if check: forms.check(p.form, new, p.name)
        graph = new
    return graph


def schedule(graph: UOp, target: Target, check: bool = False) -> list[KernelCall]:
    """The kernels that store the sources of SINK `graph`, in order."""
    return kernels.cut_kernels(run_passes("tensor graph", TENSOR_FLOW, graph, target, check))


def up_to(name: str, ast: UOp, target: Target) -> UOp:
    """A kernel as the pass `name` gets it."""
    names = [p.name for p in get_rewrites_for_renderer(target)]
    return run_passes("kernel", get_rewrites_for_renderer(target)[:names.index(name)], ast, target)


def lower(ast: UOp, target: Target, name: str = "kernel", check: bool = False) -> Program:
    """The instructions of one kernel for `target`."""
    graph = run_passes("kernel", get_rewrites_for_renderer(target), ast, target, check)
    uops = linearize.linearize(graph, target)
    if check: forms.check("LINEAR", uops, "linearize")
    params = sorted({Param(n.arg.slot, n.arg.kind, n.arg.size, n.dtype) for n in ast.toposort() if n.op is Ops.PARAM})
    sizes = {n.arg.name: n.arg.size for n in uops if n.op is Ops.SPECIAL}
    dims = [tuple(sizes.get(f"{kind}{d}", 1) for d in range(3)) for kind in ("gidx", "lidx")]
    outs = tuple(sorted({base(n.src[0]).arg.slot for n in uops if n.op is Ops.STORE and base(n.src[0]).op is Ops.PARAM}))
    ins = tuple(sorted({base(n.src[0]).arg.slot for n in uops if n.op is Ops.LOAD and base(n.src[0]).op is Ops.PARAM}))
    flops, moved = count_work(ast)
    cycles = graph.arg.cycles if graph.arg is not None else 0.0
    return Program(name, uops, params, dims[0], dims[1], outs, ins, flops, moved, find_reuses(uops), cycles)


def base(buf: UOp) -> UOp:
    """The PARAM or SCRATCH under a chain of AFTER."""
    while buf.op is Ops.AFTER: buf = buf.src[0]
    return buf


def count_work(ast: UOp) -> tuple[int, int]:
    """(float operations, bytes of all buffers touched once) of a kernel."""
    flops = moved = 0
    for n in ast.toposort():
        if n.op is Ops.PARAM and n.arg.kind == "buffer": moved += n.arg.size * n.dtype.itemsize
        elif n.op is Ops.REDUCE or n.op.is_alu and n.dtype.is_float and n.op is not Ops.CAST:
            loops = free_axes(n).union(n.src[1:]) if n.op is Ops.REDUCE else free_axes(n)
            flops += math.prod(r.src[0].arg for r in loops if r.src[0].op is Ops.CONST)
    return flops, moved

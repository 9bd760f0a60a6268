"""Forms: what may stand in a graph at each of its levels, and the check that a graph keeps to it.

TENSOR  values with shapes: leaves, views, arithmetic, reductions, gathers
KERNEL  one launch: loop axes, loads, stores, scalar arithmetic; no shapes, no views
LINEAR  a list of instructions in the order they run, scalars and SIMD vectors; loops open with RANGE and close with END

A check runs after every pass in tests and with CHECK=1. Its error names the pass, the op and the smallest expression that is wrong.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import (BufferArg, KeyArg, Op, Ops, ParamArg, RangeArg, ReduceArg, ScatterArg, ScratchArg, SortArg, SpecialArg,
                               UnfoldArg, VarArg)
from glassgrad.uop.text import expr
from glassgrad.uop.uop import UOp


class Form(NamedTuple):
    """A level: its name, the ops that may stand there besides arithmetic, and those whose number of sources is free there."""
    name: str; ops: frozenset[Op]; free_arity: frozenset[Op]


def _ops(names: str) -> frozenset[Op]: return frozenset(getattr(Ops, name) for name in names.split())


TENSOR = Form("TENSOR", _ops("BUFFER CONST KEY VAR IOTA TABLE LEAF BIND RESHAPE EXPAND PERMUTE PAD SHRINK FLIP UNFOLD FOLD CAT REDUCE SCAN "
                             "GATHER SCATTER SORT CONTIGUOUS STAGE DETACH SURROGATE COPY SINK"), frozenset())
KERNEL = Form("KERNEL", _ops("PARAM CONST VAR TABLE RANGE SPECIAL SCRATCH LOAD STORE AFTER END REDUCE SCAN SORT STAGE SINK BARRIER"),
              _ops("REDUCE SCAN SORT STAGE"))
LINEAR = Form("LINEAR", _ops("PARAM CONST RANGE END SPECIAL SCRATCH LOAD STORE PREFETCH AFTER ACC SET GET BARRIER SPLAT LANES HREDUCE HSCAN "
                             "EXTRACT PACK SHUFFLE"), frozenset())
FORMS = {f.name: f for f in (TENSOR, KERNEL, LINEAR)} | {"LOOPS": KERNEL}

ARGS: dict[Op, Any] = {
    Ops.BUFFER: BufferArg, Ops.KEY: KeyArg, Ops.VAR: VarArg, Ops.IOTA: int, Ops.TABLE: tuple, Ops.RESHAPE: tuple, Ops.EXPAND: tuple, Ops.PERMUTE: tuple,
    Ops.PAD: tuple, Ops.SHRINK: tuple, Ops.FLIP: tuple, Ops.UNFOLD: UnfoldArg, Ops.FOLD: UnfoldArg, Ops.CAT: int, Ops.REDUCE: ReduceArg,
    Ops.SCAN: ReduceArg, Ops.GATHER: int, Ops.SCATTER: ScatterArg, Ops.SORT: SortArg, Ops.COPY: str, Ops.PARAM: ParamArg,
    Ops.RANGE: RangeArg, Ops.SCRATCH: ScratchArg, Ops.SPECIAL: SpecialArg, Ops.ACC: int, Ops.EXTRACT: int,
    Ops.SHUFFLE: tuple, Ops.HREDUCE: Op, Ops.HSCAN: Op,
}


def check(form: str, graph: Any, name: str = "") -> None:
    """Raise CompilerBug if `graph` (a root, several, or for LINEAR the list of instructions) has something that `form` does not allow.

    `name` is the pass that made it.
    """
    spec = FORMS[form]
    roots = (graph,) if isinstance(graph, UOp) else tuple(graph)
    nodes = roots if spec is LINEAR else UOp.sink(*roots).toposort()[:-1]
    for n in nodes:
        why = _wrong(n, spec)
        if why is not None: raise _bug(name, spec, n, why)
    if spec is LINEAR: _check_order(nodes, name)


def _bug(name: str, form: Form, n: UOp, why: str) -> CompilerBug:
    after = f"after pass {name!r}" if name else "form check"
    src = ", ".join(f"{s.op} {s.dtype.short}" for s in n.src)
    return CompilerBug(f"{after}: {n.op} {n.dtype.short} in {form.name} form: {why}\n  node: {expr(n, depth=3)}\n"
                       f"  arg: {n.arg!r}; sources: {src or 'none'}" + (f"\n  from {n.site}" if n.site else ""))


def _wrong(n: UOp, form: Form) -> str | None:
    """What is wrong with one node by itself, or None."""
    op = n.op
    if not op.is_alu and op not in form.ops: return f"{op} may not stand there"
    if op.arity not in (-1, len(n.src)) and op not in form.free_arity: return f"{op} takes {op.arity} sources, here are {len(n.src)}"
    kind = ARGS.get(op)
    if kind is not None and not isinstance(n.arg, kind): return f"its arg must be {kind.__name__}"
    rule = _RULES.get(op) or (_alu if op.is_alu else None)
    why = rule(n) if rule is not None else None
    if why is None and form is TENSOR: why = _wrong_shape(n)
    return why


# ---- one node --------------------------------------------------------------------------------------------------------------------
def _alu(n: UOp) -> str | None:
    op, src = n.op, n.src
    if op is Ops.CAST or op is Ops.BITCAST:
        if src[0].dtype.lanes != n.dtype.lanes: return "a cast keeps the number of lanes"
        return "the two dtypes must have one size" if op is Ops.BITCAST and src[0].dtype.itemsize != n.dtype.itemsize else None
    values = src[1:] if op is Ops.WHERE else src
    if op is Ops.WHERE and not _is_mask(src[0].dtype, n.dtype): return "its condition must be bool"
    if any(s.dtype is not values[0].dtype for s in values): return "its sources must have one dtype"
    if op.out == "bool": return None if n.dtype.is_bool and n.dtype.lanes == values[0].dtype.lanes else "a comparison is bool"
    if n.dtype is not values[0].dtype: return f"its dtype must be that of its sources, {values[0].dtype.short}"
    return None if computes(op, n.dtype) else f"{op} is for {op.dtypes}"


def computes(op: Op, d: DType) -> bool:
    """Is `op` for values of dtype `d`, by the op table?"""
    words = op.dtypes.split()
    kinds = {"number": d.is_int or d.is_float, "int": d.is_int, "float": d.is_float, "bool": d.is_bool, "any": True}
    return any(kinds.get(w, w == d.name) for w in words)


def _const(n: UOp) -> str | None:
    d, v = n.dtype, n.arg
    if d.is_bool: return None if v is True or v is False else "a bool constant is True or False"
    if d.is_int: return None if type(v) is int and d.min <= v <= d.max else f"the value must be an int from {d.min} to {d.max}"
    return None if type(v) is float else "a float constant is a Python float"


def _access(n: UOp) -> str | None:
    """LOAD and STORE: a buffer, an int index, for STORE a value, perhaps a gate."""
    store = n.op is Ops.STORE
    if not 2 + store <= len(n.src) <= 3 + store: return f"it takes buffer, index{', value' if store else ''} and perhaps a gate"
    buf, idx = n.src[:2]
    if base_of(buf).op not in (Ops.PARAM, Ops.SCRATCH): return "its first source must be a PARAM, a SCRATCH, or AFTER of one"
    if not idx.dtype.is_int: return "its index must be an int"
    value = n.src[2].dtype if store else n.dtype
    # a device that lacks a type of floats reads and writes their bits
    as_bits = buf.dtype.is_float and value.is_unsigned and value.bits == buf.dtype.bits
    if value.scalar is not buf.dtype.scalar and not as_bits:
        return f"the buffer has elements of {buf.dtype.short}, the value is {value.short}"
    if idx.dtype.lanes not in (1, value.lanes): return f"{idx.dtype.lanes} indices for {value.lanes} lanes"
    gate = n.src[2 + store:]
    return "its gate must be bool, one or one a lane" if gate and not _is_mask(gate[0].dtype, value) else None


def _is_mask(d: DType, value: DType) -> bool: return d.is_bool and d.lanes in (1, value.lanes)


def base_of(buf: UOp) -> UOp:
    """The memory under a chain of AFTER."""
    while buf.op is Ops.AFTER: buf = buf.src[0]
    return buf


def _end(n: UOp) -> str | None:
    if not n.src: return "it closes nothing"
    return None if all(s.op is Ops.RANGE for s in n.src[1:]) else "after its effect come the axes it closes"


def _rule(holds: Callable[[UOp], bool], why: str) -> Callable[[UOp], str | None]: return lambda n: None if holds(n) else why


_range = _rule(lambda n: n.src[0].dtype is n.dtype and n.dtype.is_int, "it counts in an int dtype, that of its count")
_splat = _rule(lambda n: n.src[0].dtype is n.dtype.scalar, "it repeats a scalar of its dtype")
_lanes = _rule(lambda n: n.dtype.is_int and n.dtype.lanes > 1, "it is an int vector")
_horizontal = _rule(lambda n: n.dtype is n.src[0].dtype.scalar, "it makes a scalar of a vector of its dtype")
_running = _rule(lambda n: n.dtype is n.src[0].dtype and n.dtype.lanes > 1, "it makes a vector of one of its dtype")
_extract = _rule(lambda n: n.dtype is n.src[0].dtype.scalar and 0 <= n.arg < n.src[0].dtype.lanes, "its arg must be a lane of its source")
_shuffle = _rule(lambda n: n.src[0].dtype is n.src[1].dtype is n.dtype and len(n.arg) == n.dtype.lanes
                 and 0 <= min(n.arg) and max(n.arg) < 2 * n.dtype.lanes,
                 "it takes two vectors of its dtype, and a lane of these for each of its own")
_pack = _rule(lambda n: [s.dtype for s in n.src] == [n.dtype.scalar] * n.dtype.lanes, "it takes a scalar of its dtype per lane")
_acc = _rule(lambda n: n.src[0].dtype is n.dtype, "its first value must have its dtype")
_set = _rule(lambda n: n.src[0].op is Ops.ACC and n.src[1].dtype is n.src[0].dtype, "it takes an ACC and a value of the same dtype")
_get = _rule(lambda n: bool(n.src) and n.src[0].op is Ops.ACC and n.dtype is n.src[0].dtype, "it reads an ACC of its dtype")


def _reduce(n: UOp) -> str | None:
    if not isinstance(n.arg, ReduceArg): return None
    if n.arg.op not in (Ops.ADD, Ops.MUL, Ops.MAX, Ops.MIN): return f"nothing reduces with {n.arg.op}"
    return None if n.src[0].dtype is n.dtype else "a reduction keeps the dtype"


_RULES: dict[Op, Callable[[UOp], str | None]] = {
    Ops.CONST: _const, Ops.LOAD: _access, Ops.STORE: _access, Ops.RANGE: _range, Ops.END: _end, Ops.SPLAT: _splat, Ops.LANES: _lanes,
    Ops.HREDUCE: _horizontal, Ops.HSCAN: _running, Ops.EXTRACT: _extract, Ops.PACK: _pack, Ops.SHUFFLE: _shuffle,
    Ops.ACC: _acc, Ops.SET: _set, Ops.GET: _get, Ops.REDUCE: _reduce,
    Ops.SCAN: _reduce,
}


# ---- shapes ----------------------------------------------------------------------------------------------------------------------
def _wrong_shape(n: UOp) -> str | None:
    """What is wrong with the shapes of a tensor node, or None."""
    op, arg = n.op, n.arg
    if op.is_alu:
        shapes = {s.shape for s in n.src if s.shape}
        return None if len(shapes) <= 1 else f"its sources have shapes {', '.join(map(str, sorted(shapes)))}"
    if not n.src or op is Ops.SINK: return None
    s = n.src[0].shape
    if op is Ops.RESHAPE: return None if n.size == n.src[0].size else f"{s} has not the elements of {arg}"
    if op is Ops.EXPAND:
        fine = len(arg) == len(s) and all(i in (1, o) for i, o in zip(s, arg))
        return None if fine else f"{s} does not expand to {arg}"
    if op is Ops.PERMUTE: return None if sorted(arg) == list(range(len(s))) else f"{arg} is no order of the axes of {s}"
    if op is Ops.PAD: return None if len(arg) == len(s) and all(p >= 0 and q >= 0 for p, q in arg) else f"{arg} does not pad {s}"
    if op is Ops.SHRINK:
        return None if len(arg) == len(s) and all(0 <= i <= j <= m for (i, j), m in zip(arg, s)) else f"{arg} is no box in {s}"
    if op is Ops.FLIP or op is Ops.REDUCE:
        axes = arg if op is Ops.FLIP else arg.axes
        return None if all(0 <= a < len(s) for a in axes) and len(set(axes)) == len(axes) else f"{axes} are no axes of {s}"
    return None


# ---- the order of a program ------------------------------------------------------------------------------------------------------
def _check_order(uops: Sequence[UOp], name: str) -> None:
    """Sources before uses, loops properly nested, no value used outside the loop that computes it."""
    place: dict[UOp, tuple[UOp, ...]] = {}
    opened: list[UOp] = []
    for n in uops:
        if n in place and (n.dtype.kind == "void" or n.op is Ops.ACC or place[n] == tuple(opened[:len(place[n])])):
            raise _bug(name, LINEAR, n, "it stands there twice")     # a pure value may stand in several loops, once in each
        for s in n.src:
            if s not in place: raise _bug(name, LINEAR, n, f"its source {expr(s, depth=2)} does not stand before it")
            loops = place[s]
            if s.dtype.kind != "void" and loops != tuple(opened[:len(loops)]) and n.op is not Ops.END and s in _read(n):
                raise _bug(name, LINEAR, n, f"its source {expr(s, depth=2)} is computed in a loop that is closed")
        if n.op is Ops.END:
            if not opened or opened[-1] is not n.src[0]: raise _bug(name, LINEAR, n, "it must close the innermost open loop")
            opened.pop()
        if n.op is Ops.RANGE: opened.append(n)
        place[n] = tuple(opened)
    if opened: raise _bug(name, LINEAR, opened[-1], "the loop is never closed")


def _read(n: UOp) -> Iterable[UOp]:
    """The sources whose values a node uses: not those that only say what it comes after, nor leaves, which have no place."""
    src = n.src[:1] if n.op in (Ops.GET, Ops.AFTER, Ops.BARRIER) else n.src
    return [s for s in src if s.src]

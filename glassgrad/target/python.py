"""The PYTHON target: no code, the LINEAR form itself, as a listing to read and as bytes to keep on disk.

`dump` and `parse` are one another's inverse on what a device needs of a Program (sites are lost).
"""
from __future__ import annotations

import json
from typing import Any

from glassgrad.target.program import Param, Program
from glassgrad.target.target import Target
from glassgrad.uop import ops
from glassgrad.uop.dtype import DType, dtypes, to_dtype
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

ARG_TYPES = {t.__name__: t for t in (ops.ParamArg, ops.RangeArg, ops.ScratchArg, ops.SpecialArg)}
_targets: dict[tuple[frozenset[Op], frozenset[DType]], Target] = {}


def python_target() -> Target:
    """The facts of the interpreter: every op and dtype of the tables, also those added since the last call."""
    alu, types = frozenset(Ops.alu()), frozenset(dtypes.all)
    if (alu, types) not in _targets:
        _targets[alu, types] = Target("PYTHON", alu, types, types, lanes=1, has_grid=True, max_local=256, shared_bytes=64 << 10, index_dtype=dtypes.int64,
                                      in_step=True)
    return _targets[alu, types]


def render(program: Program, target: Target) -> str:
    """The listing: one line a node, loops indented, dtype and op in front."""
    number = {u: i for i, u in enumerate(dict.fromkeys(program.uops))}
    depth, lines = 0, [f"{program.name}: grid {program.grid} local {program.local}"]
    for u in program.uops:
        if u.op is Ops.END: depth -= 1
        name = "" if u.dtype is dtypes.void else f"%{number[u]} = "
        arg = "" if u.arg is None else f" {u.arg.name if isinstance(u.arg, Op) else u.arg}"
        lines.append("  " * (depth + 1) + f"{name}{u.dtype.short} {u.op}{arg} {' '.join(f'%{number[s]}' for s in u.src)}".rstrip())
        if u.op is Ops.RANGE: depth += 1
    return "\n".join(lines) + "\n"


def dump(program: Program) -> bytes:
    """A program as portable bytes: JSON of op names, dtype names and args."""
    number = {u: i for i, u in enumerate(dict.fromkeys(program.uops))}
    rows = [(u.op.name, u.dtype.name, u.dtype.lanes, [number[s] for s in u.src], _dump_arg(u.arg)) for u in number]
    params = [(p.slot, p.kind, p.size, p.dtype.name) for p in program.params]
    return json.dumps({"name": program.name, "grid": program.grid, "local": program.local, "outs": program.outs, "ins": program.ins,
                       "flops": program.flops, "bytes": program.bytes, "reuses": program.reuses, "params": params, "nodes": rows,
                       "order": [number[u] for u in program.uops]}, separators=(",", ":")).encode()


def parse(data: bytes) -> Program:
    """The program that `dump` wrote.

    errors:  CompilerBug if the bytes are none of ours
    """
    try: tree = json.loads(data)
    except ValueError as e: raise CompilerBug(f"PYTHON: parse: {len(data)} bytes that are no program: {e}") from None
    nodes: list[UOp] = []
    for op, dtype, lanes, src, arg in tree["nodes"]:
        nodes.append(UOp(getattr(Ops, op), _dtype(dtype, lanes), tuple([nodes[i] for i in src]), _parse_arg(arg)))
    params = tuple(Param(slot, kind, size, to_dtype(dtype)) for slot, kind, size, dtype in tree["params"])
    return Program(tree["name"], [nodes[i] for i in tree["order"]], params, tuple(tree["grid"]), tuple(tree["local"]),
                   tuple(tree["outs"]), tuple(tree["ins"]), tree["flops"], tree["bytes"], tuple(map(tuple, tree["reuses"])))


def _dtype(name: str, lanes: int) -> DType:
    base = to_dtype(name)
    return base if lanes == 1 else base.vec(lanes)


def _dump_arg(arg: Any) -> Any:
    """JSON with a tag where JSON has no such type; floats as hex so that every bit survives."""
    if arg is None or isinstance(arg, (bool, int, str)): return arg
    if isinstance(arg, float): return ["float", arg.hex()]
    if isinstance(arg, Op): return ["Op", arg.name]
    if type(arg).__name__ in ARG_TYPES: return [type(arg).__name__, *arg]
    raise CompilerBug(f"PYTHON: dump: no byte form for the arg {arg!r} of type {type(arg).__name__}")


def _parse_arg(tree: Any) -> Any:
    if not isinstance(tree, list): return tree
    kind, *rest = tree
    if kind == "float": return float.fromhex(rest[0])
    if kind == "Op": return getattr(Ops, rest[0])
    return ARG_TYPES[kind](*rest)

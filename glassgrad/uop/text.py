"""Text: the two written forms of a graph.

The text form has one line a node, `%3 = add i64 %1 %2`, and parses back to the identical nodes. The short form is one infix
expression, `r0*16 + r1`, for errors, VIZ and docstrings; its parser reads what docstrings say, with types where names first appear.
"""
from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

from glassgrad.uop import ops
from glassgrad.uop.dtype import TABLE, DType, dtypes
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import BufferArg, Op, Ops, ParamArg, ReduceArg, VarArg
from glassgrad.uop.uop import UOp, toposort

ARG_TYPES: dict[str, type] = {}


def add_arg_type(kind: type) -> type:
    """Make a named tuple or frozen dataclass known to the parser as a node's arg (those in ops.py are known). Also a decorator."""
    ARG_TYPES[kind.__name__] = kind
    return kind


# ---- the text form ---------------------------------------------------------------------------------------------------------------
def to_text(graph: UOp | Iterable[UOp], normal: bool = False, sites: bool = False) -> str:
    """A graph (the node: all below it) or a program (a list: these nodes in this order, and before each what it needs) as text.

    normal:  renumber buffers, leaves, keys and axes in order of appearance, so that equal structure gives equal text
    sites:   add the user's line that made each node, as a comment
    """
    order = graph.toposort() if isinstance(graph, UOp) else _with_sources(list(graph))
    place: dict[UOp, int] = {}
    numbers: dict[Any, int] = {}
    lines = []
    for i, n in enumerate(order):
        arg = _renumber(n, numbers) if normal else n.arg
        parts = [f"%{i} = {n.op.name.lower()}", n.dtype.short, *[f"%{place[s]}" for s in n.src]]
        if arg is not None: parts.append(show_arg(arg))
        place[n] = i
        lines.append(" ".join(parts) + (f"  # {n.site}" if sites and n.site else ""))
    return "\n".join(lines) + "\n"


def parse_text(text: str) -> list[UOp]:
    """The nodes of a text form, in order; the last is the root of a graph.

    errors:  UsageError naming the line that cannot be read
    """
    made: dict[str, UOp] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("  # ")[0].strip()
        if not line or line.startswith("#"): continue
        found = _LINE.fullmatch(line)
        if found is None: raise UsageError(f"text form, line {number}: {line!r}\n  a line reads: %3 = add i64 %1 %2 [arg]")
        name, op, dtype, src, arg = found.groups()
        try:
            made[name] = UOp(_op_named(op), _dtype_named(dtype), tuple([made[s] for s in src.split()]), parse_arg(arg) if arg else None)
        except (KeyError, AttributeError, ValueError, SyntaxError) as e:
            raise UsageError(f"text form, line {number}: {line!r}\n  unknown: {e}") from None
    return list(made.values())


_LINE = re.compile(r"(%\w+)\s*=\s*(\w+)\s+(\w+)((?:\s+%\w+)*)(?:\s+([^%\s].*))?")


def _with_sources(program: list[UOp]) -> list[UOp]:
    """The list, with nodes that are used before they stand in it (or never do) put before their first use."""
    out: list[UOp] = []
    seen: set[UOp] = set()
    for n in program:
        new = [m for m in toposort((n,), stop=seen.__contains__) if m not in seen]
        out += new or [n]
        seen.update(new)
    return out


def _renumber(n: UOp, numbers: dict[Any, int]) -> Any:
    if n.op is Ops.BUFFER: return n.arg._replace(id=numbers.setdefault((n.op, n.arg.id), _count(numbers, n.op)))
    if n.op is Ops.RANGE: return n.arg._replace(id=numbers.setdefault((n.op, n.arg.id), _count(numbers, n.op)))
    if n.op is Ops.LEAF: return numbers.setdefault((n.op, n.arg), _count(numbers, n.op))
    return n.arg


def _count(numbers: dict[Any, int], op: Op) -> int: return sum(1 for k in numbers if k[0] is op)


def _op_named(name: str) -> Op:
    found = getattr(Ops, name.upper(), None)
    if not isinstance(found, Op): raise KeyError(f"op {name!r}")
    return found


def _dtype_named(short: str) -> DType:
    base, _, lanes = short.partition("x")
    for d in TABLE.values():
        if d.short == base: return d.vec(int(lanes)) if lanes else d
    raise KeyError(f"dtype {short!r}")


def show_arg(arg: Any) -> str:
    """An arg as text that `parse_arg` reads back."""
    if isinstance(arg, Op): return f"Ops.{arg.name}"
    if isinstance(arg, DType): return f"dtypes.{arg.name}" + (f".vec({arg.lanes})" if arg.lanes > 1 else "")
    if isinstance(arg, tuple):
        if hasattr(arg, "_fields"): return _show_fields(arg, arg._fields)
        return f"({', '.join(map(show_arg, arg))}{',' if len(arg) == 1 else ''})"
    if isinstance(arg, frozenset): return f"frozenset(({''.join(sorted(show_arg(v) + ', ' for v in arg))}))"
    if dataclasses.is_dataclass(arg): return _show_fields(arg, [f.name for f in dataclasses.fields(arg)])
    return repr(arg)


def _show_fields(arg: Any, names: Iterable[str]) -> str:
    return f"{type(arg).__name__}({', '.join(f'{name}={show_arg(getattr(arg, name))}' for name in names)})"


def parse_arg(text: str) -> Any:
    """The arg that `show_arg` wrote. Evaluates nothing but literals, op and dtype names, and known arg types."""
    return _arg_value(ast.parse(text, mode="eval").body)


def _arg_value(e: ast.AST) -> Any:
    if isinstance(e, ast.Constant): return e.value
    if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub): return -_arg_value(e.operand)
    if isinstance(e, ast.Tuple): return tuple(map(_arg_value, e.elts))
    if isinstance(e, ast.Name) and e.id in ("inf", "nan"): return float(e.id)
    if isinstance(e, ast.Attribute) and isinstance(e.value, ast.Name):
        if e.value.id == "Ops": return _op_named(e.attr)
        if e.value.id == "dtypes": return TABLE[e.attr]
    if isinstance(e, ast.Call) and isinstance(e.func, ast.Attribute) and e.func.attr == "vec":
        return _arg_value(e.func.value).vec(_arg_value(e.args[0]))
    if isinstance(e, ast.Call) and isinstance(e.func, ast.Name):
        if e.func.id == "frozenset": return frozenset(_arg_value(e.args[0]))
        kind = ARG_TYPES.get(e.func.id) or getattr(ops, e.func.id, None)
        if isinstance(kind, type): return kind(**{k.arg: _arg_value(k.value) for k in e.keywords if k.arg})
    raise KeyError(f"arg {ast.unparse(e)!r}")


# ---- the short form: printing ----------------------------------------------------------------------------------------------------
_BINDS = {"<": 1, "<=": 1, "==": 1, "!=": 1, "|": 2, "^": 3, "&": 4, "<<": 5, ">>": 5, "+": 6, "-": 6, "*": 7, "/": 7, "//": 7, "%": 7}
_CALLS = {Ops.WHERE: "where", Ops.MAX: "max", Ops.MIN: "min"}
_REDUCES = {Ops.ADD: "sum", Ops.MUL: "prod", Ops.MAX: "amax", Ops.MIN: "amin"}
ATOM = 9


def expr(n: UOp, depth: int = 12, declare: bool = False) -> str:
    """One line for a node: `where(r0 < 3, p0[r0*16 + r1], 0.0)`; what lies deeper than `depth` is `…`.

    declare:  say each name's type where it first stands, so that `parse_expr` reads it back
    """
    return _expr(n, depth, set() if declare else None)[0]


def _expr(n: UOp, depth: int, seen: set[UOp] | None) -> tuple[str, int]:
    """(text, how strongly it binds)"""
    op, src = n.op, n.src
    if not src or op is Ops.RANGE: return _leaf(n, seen), ATOM
    if depth == 0: return "…", ATOM
    if op is Ops.XOR and src[1].op is Ops.CONST and src[1].arg is True: return f"not {_inside(src[0], depth, seen, 2)}", 0
    if op.text and len(src) == 2:
        binds = _BINDS[op.text]
        left = _inside(src[0], depth, seen, binds + (binds == 1))
        space = "" if op.text in ("*", "//", "%", "/") else " "
        return f"{left}{space}{op.text}{space}{_inside(src[1], depth, seen, binds + 1)}", binds
    if op is Ops.NEG: return f"-{_inside(src[0], depth, seen, 8)}", 8
    if op is Ops.LOAD:
        buf = _inside(src[0], depth, seen, ATOM)
        return f"{buf}[{', '.join(_expr(s, depth - 1, seen)[0] for s in src[1:])}]", ATOM
    if op.is_movement or (op is Ops.REDUCE and len(src) == 1): return _method(n, depth, seen), ATOM
    args = ", ".join(_expr(s, depth - 1, seen)[0] for s in src)
    if op is Ops.CAST: return f"{n.dtype.short}({args})", ATOM
    extra = "" if n.arg is None else f"; {show_arg(n.arg)}"
    return f"{_CALLS.get(op, op.name.lower())}({args}{extra})", ATOM


def _inside(n: UOp, depth: int, seen: set[UOp] | None, at_least: int) -> str:
    text, binds = _expr(n, depth - 1, seen)
    return text if binds >= at_least else f"({text})"


def _leaf(n: UOp, seen: set[UOp] | None) -> str:
    arg = n.arg
    if n.op is Ops.CONST: return repr(arg) if arg == arg and abs(arg) != math.inf else f"{'-' if arg < 0 else ''}{abs(arg)}"
    declare = seen is not None and n not in seen
    if seen is not None: seen.add(n)
    if n.op is Ops.RANGE:
        if not declare: return f"r{arg.id}"
        count = n.src[0].arg if n.src[0].op is Ops.CONST else "?"
        return f"r{arg.id}:{count}{'' if n.dtype is dtypes.int64 else n.dtype.short}"
    if n.op is Ops.VAR:
        span = n.dtype.short if (arg.lo, arg.hi) == (n.dtype.min, n.dtype.max) else f"{arg.lo}..{arg.hi}"
        short = "" if n.dtype is dtypes.int64 or span == n.dtype.short else n.dtype.short
        return f"{arg.name}:{span}{short}" if declare else arg.name
    if n.op is Ops.SPECIAL: return arg.name
    if n.op is Ops.PARAM: return f"p{arg.slot}" + (f":{n.dtype.short}" if declare else "")
    if n.op is Ops.BUFFER: return f"b{arg.id}" + (f":{n.dtype.short}[{arg.size}]" if declare else "")
    return n.op.name.lower() + ("" if arg is None else f"({show_arg(arg)})")


def _method(n: UOp, depth: int, seen: set[UOp] | None) -> str:
    x = _inside(n.src[0], depth, seen, ATOM)
    if n.op is Ops.REDUCE: return f"{x}.{_REDUCES.get(n.arg.op, n.arg.op.name)}({', '.join(map(str, n.arg.axes))})"
    arg = ", ".join(map(show_arg, n.arg)) if type(n.arg) is tuple else show_arg(n.arg)
    return f"{x}.{n.op.name.lower()}({arg})"


# ---- the short form: reading -----------------------------------------------------------------------------------------------------


_DECLARED = re.compile(r"(\b[A-Za-z]\w*|-?\b\d[\w.]*):(-?\d+\.\.-?\d+[a-z]?\d*|\w+(?:\[[\d, ]*\])?(?![\w\[])|\w+)")


def parse_expr(text: str, names: dict[str, UOp] | None = None) -> UOp:
    """The node an expression stands for.

    `r0:8` is the loop axis 0 with 8 steps (`r0:8i32` in int32), `i:2..9` a variable, `x:i32` an integer that can have any value of its
    type, `p0:f32` kernel argument 0 (`p0[i]` loads from it), `b0:f32[3,4]` a buffer of that shape, `3:i32` a typed constant. Names
    once declared stand alone; `names` remembers them from one expression to the next.
    """
    names = {} if names is None else names
    serial = [0]

    def declare(found: re.Match) -> str:
        name, kind = found.groups()
        if name[0].isdigit() or name[0] == "-":
            serial[0] += 1
            key = f"literal{serial[0]}"
            names[key] = UOp.const(_dtype_named(kind), ast.literal_eval(name))
            return key
        names[name] = _declared(name, kind)
        return name

    plain = _DECLARED.sub(lambda m: declare(m), _split_buffers(text, names))
    try: body = ast.parse(plain.strip(), mode="eval").body
    except SyntaxError as e: raise UsageError(f"expression {text!r}: {e.msg}") from None
    found = _node(body, names)
    return found if isinstance(found, UOp) else UOp.const(_default(found), found)


def parse_example(text: str) -> tuple[UOp, UOp]:
    """`before -> after`, the docstring of a transform, as two nodes; names declared before the arrow hold after it."""
    before, arrow, after = text.partition("->")
    if not arrow: raise UsageError(f"example {text!r}: it must read: before -> after")
    names: dict[str, UOp] = {}
    x = parse_expr(before, names)
    y = parse_value(after, names)
    return x, y if isinstance(y, UOp) else x.const_like(y)


def parse_value(text: str, names: dict[str, UOp]) -> Any:
    """Like parse_expr, but a bare number stays a Python number."""
    if not re.fullmatch(r"\s*(-?[\d.e+-]+|-?inf|nan|True|False)\s*", text): return parse_expr(text, names)
    return float(text) if "inf" in text or "nan" in text else ast.literal_eval(text.strip())


def _split_buffers(text: str, names: dict[str, UOp]) -> str:
    """`p0:f32[i]` is a load from p0, not a shape: put the type aside."""
    def declare(found: re.Match) -> str:
        names[found[1]] = _declared(found[1], found[2])
        return found[1] + "["
    return re.sub(r"\b(p\d+):(\w+)\[", declare, text)


def _declared(name: str, kind: str) -> UOp:
    if (found := re.fullmatch(r"(-?\d+)\.\.(-?\d+)([a-z]\w*)?", kind)):
        return UOp(Ops.VAR, _dtype_named(found[3] or "i64"), (), VarArg(name, int(found[1]), int(found[2])))
    if (found := re.fullmatch(r"(\d+)([a-z]\w*)?", kind)):
        return UOp.range(int(name[1:]), int(found[1]), dtype=_dtype_named(found[2] or "i64"))
    if (found := re.fullmatch(r"(\w+)\[([\d, ]*)\]", kind)):
        shape = tuple(int(s) for s in found[2].split(",") if s.strip())
        return UOp(Ops.BUFFER, _dtype_named(found[1]), (), BufferArg(int(name[1:]), math.prod(shape), "CPU")).reshape(shape)
    d = _dtype_named(kind)
    if re.fullmatch(r"p\d+", name): return UOp(Ops.PARAM, d, (), ParamArg(int(name[1:]), "value", 1))
    if d.is_float: raise UsageError(f"expression: {name}:{kind}\n  floats are kernel arguments, name them p0, p1, …")
    return UOp(Ops.VAR, d, (), VarArg(name, int(d.min), int(d.max)))


def _default(value: Any) -> DType:
    return dtypes.bool if isinstance(value, bool) else dtypes.float32 if isinstance(value, float) else dtypes.int64


_BINARY = {ast.Add: "ADD", ast.Sub: "SUB", ast.Mult: "MUL", ast.Div: "FDIV", ast.FloorDiv: "CDIV", ast.Mod: "CMOD", ast.BitAnd: "AND",
           ast.BitOr: "OR", ast.BitXor: "XOR", ast.LShift: "SHL", ast.RShift: "SHR", ast.Lt: "CMPLT", ast.LtE: "CMPLE", ast.Eq: "CMPEQ",
           ast.NotEq: "CMPNE", ast.Gt: "CMPLT", ast.GtE: "CMPLE"}
_METHODS = {"reshape": Ops.RESHAPE, "expand": Ops.EXPAND, "permute": Ops.PERMUTE, "pad": Ops.PAD, "shrink": Ops.SHRINK, "flip": Ops.FLIP}


def _node(e: ast.AST, names: dict[str, UOp]) -> Any:
    if isinstance(e, ast.Constant): return e.value
    if isinstance(e, ast.Name): return names[e.id] if e.id in names else _named(e.id)
    if isinstance(e, ast.BinOp): return _alu(getattr(Ops, _BINARY[type(e.op)]), [_node(e.left, names), _node(e.right, names)])
    if isinstance(e, ast.Compare):
        src = [_node(e.left, names), _node(e.comparators[0], names)]
        return _alu(getattr(Ops, _BINARY[type(e.ops[0])]), src[::-1] if isinstance(e.ops[0], (ast.Gt, ast.GtE)) else src)
    if isinstance(e, ast.UnaryOp):
        x = _node(e.operand, names)
        if isinstance(e.op, ast.Not): return x.not_()
        return -x
    if isinstance(e, ast.Subscript):
        buf = _node(e.value, names)
        buf = buf.replace(arg=buf.arg._replace(kind="buffer", size=0))
        rest = e.slice.elts if isinstance(e.slice, ast.Tuple) else [e.slice]
        index, *gate = [_node(r, names) for r in rest]
        src = (_as(index, dtypes.int64), *[_as(g, dtypes.bool) for g in gate])
        return UOp(Ops.LOAD, buf.dtype, (buf, *src))
    if isinstance(e, ast.Call): return _call(e, names)
    raise UsageError(f"expression: cannot read {ast.unparse(e)!r}")


def _named(name: str) -> Any:
    if name in ("inf", "nan"): return float(name)
    raise UsageError(f"expression: {name!r} is not declared\n  try: {name}:8 for an axis of 8 steps, {name}:i32 for an integer, p0:f32")


def _call(e: ast.Call, names: dict[str, UOp]) -> UOp:
    if isinstance(e.func, ast.Attribute):
        x, name = _node(e.func.value, names), e.func.attr
        arg = tuple(ast.literal_eval(v) for v in e.args)
        for op, reduce in _REDUCES.items():
            if name == reduce: return UOp(Ops.REDUCE, x.dtype, (x,), ReduceArg(op, arg))
        return UOp(_METHODS[name], x.dtype, (x,), arg)
    name, src = ast.unparse(e.func), [_node(v, names) for v in e.args]
    if re.fullmatch(r"(i|u|f|b|bf)\d+(x\d+)?|f8e\d", name): return UOp(Ops.CAST, _dtype_named(name), (_as(src[0], None),))
    if name.startswith("bits_"): return UOp(Ops.BITCAST, _dtype_named(name[5:]), (_as(src[0], None),))
    return _alu(_op_named(name), src)


def _as(x: Any, d: DType | None) -> UOp: return x if isinstance(x, UOp) else UOp.const(d or _default(x), x)


def _alu(op: Op, src: list[Any]) -> Any:
    """The op over nodes and numbers; a number takes the dtype of a neighbour."""
    values = src[1:] if op is Ops.WHERE else src
    dtype = next((s.dtype for s in values if isinstance(s, UOp)), _default(values[0]))
    made = [_as(s, dtype) for s in values]
    if op is Ops.WHERE: made = [_as(src[0], dtypes.bool), *made]
    return made[0].alu(op, *made[1:])

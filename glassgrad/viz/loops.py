"""Loops: a linear program as an indented loop nest that reads like the source one would write by hand.

An expression used once stands where it is used; what is used again, or read from memory before it could change, gets a name.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

WIDTH = 100     # an expression longer than this gets a name even if it is used once
_STATEMENTS = (Ops.LOAD, Ops.GET, Ops.HREDUCE)


class _Nest:
    """The state of one listing."""

    def __init__(self, uops: Sequence[UOp]) -> None:
        self.uses: dict[UOp, int] = {}
        for n in uops:
            for s in n.src: self.uses[s] = self.uses.get(s, 0) + 1
        self.term: dict[UOp, str] = {}
        self.lines: list[str] = []
        self.depth = self.names = 0

    def say(self, line: str, n: UOp | None = None) -> None:
        site = f"    # {n.site}" if n is not None and n.site else ""
        self.lines.append("    " * self.depth + line + site)

    def of(self, n: UOp) -> str: return self.term.get(n, f"?{n.op}")

    def bind(self, n: UOp, text: str) -> None:
        """Give a node its text: a name if it is used more than once, reads memory or is long."""
        if n.op not in _STATEMENTS and self.uses.get(n, 0) <= 1 and len(text) <= WIDTH:
            self.term[n] = text
            return
        self.term[n] = name = f"v{self.names}"
        self.names += 1
        self.say(f"{name}: {n.dtype.short} = {_bare(text)}", n)


def _bare(text: str) -> str:
    """Without the outer parentheses, if they belong together."""
    if not (text.startswith("(") and text.endswith(")")): return text
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0: return text[1:-1] if i == len(text) - 1 else text
    return text


def _constant(n: UOp) -> str:
    return f"{n.arg:g}" if isinstance(n.arg, float) else str(n.arg)


def _leaf(n: UOp) -> str | None:
    """The text of a node without code of its own."""
    if n.op is Ops.CONST: return _constant(n)
    if n.op is Ops.PARAM: return f"p{n.arg.slot}" if n.arg.kind == "buffer" else f"n{n.arg.slot}"
    if n.op is Ops.SPECIAL: return str(n.arg.name)
    if n.op is Ops.LANES: return f"lanes({n.dtype.lanes})"
    return None


def _term(nest: _Nest, n: UOp) -> str:
    """An arithmetic node in terms of its sources."""
    src = [nest.of(s) for s in n.src]
    if n.op is Ops.WHERE: return f"({src[1]} if {src[0]} else {src[2]})"
    if n.op is Ops.MULACC: return f"fma({', '.join(src)})"
    if n.op in (Ops.CAST, Ops.BITCAST): return f"{'bits_' if n.op is Ops.BITCAST else ''}{n.dtype.short}({_bare(src[0])})"
    if n.op is Ops.EXTRACT: return f"{src[0]}.{n.arg}"
    if n.op is Ops.HREDUCE: return f"{str(n.arg).lower()}_lanes({_bare(src[0])})"
    if n.op.text and len(src) == 2: return f"({src[0]} {n.op.text} {src[1]})"
    if n.op.text and len(src) == 1: return f"{n.op.text}{src[0]}"
    return f"{n.op.name.lower()}({', '.join(_bare(s) for s in src)})"


def _place(nest: _Nest, n: UOp) -> str:
    """The memory a LOAD or STORE touches: p0[i], or p0[i:+8] for a vector at consecutive places."""
    value = n.dtype if n.op is Ops.LOAD else n.src[2].dtype
    wide = f":+{value.lanes}" if value.lanes > 1 and n.src[1].dtype.lanes == 1 else ""
    return f"{nest.of(n.src[0])}[{_bare(nest.of(n.src[1]))}{wide}]"


def _statement(nest: _Nest, n: UOp) -> bool:
    """Write a node that is a line of its own; False if it is none."""
    if n.op is Ops.RANGE:
        nest.term[n] = name = f"r{n.arg.id}"
        nest.say(f"for {name} in range({_bare(nest.of(n.src[0]))}):  # {n.arg.kind}")
        nest.depth += 1
    elif n.op is Ops.END: nest.depth = max(nest.depth - 1, 0)
    elif n.op is Ops.STORE:
        gate = f" if {_bare(nest.of(n.src[3]))}" if len(n.src) > 3 else ""
        nest.say(f"{_place(nest, n)} = {_bare(nest.of(n.src[2]))}{gate}", n)
    elif n.op is Ops.ACC:
        nest.term[n] = f"acc{n.arg}"
        nest.say(f"acc{n.arg}: {n.dtype.short} = {_bare(nest.of(n.src[0]))}", n)
    elif n.op is Ops.SET: nest.say(f"{nest.of(n.src[0])} = {_bare(nest.of(n.src[1]))}", n)
    elif n.op is Ops.SCRATCH:
        nest.term[n] = f"s{n.arg.id}"
        nest.say(f"s{n.arg.id} = {n.arg.space} {n.dtype.short}[{n.arg.size}]")
    elif n.op is Ops.BARRIER: nest.say("barrier()")
    elif n.op is Ops.SINK: pass
    else: return False
    return True


def loops_text(uops: Sequence[UOp], program: Any = None) -> str:
    """The loop nest of a linear program; with its `Program`, the signature and the grid too."""
    nest = _Nest(uops)
    if program is not None:
        params = ", ".join(f"p{p.slot}: {p.dtype.short}[{p.size}]" if p.kind == "buffer" else f"n{p.slot}: {p.dtype.short}" for p in program.params)
        nest.say(f"kernel {program.name}({params}):")
        nest.depth = 1
        for axis, n in zip(("gidx0", "gidx1", "gidx2", "lidx0", "lidx1", "lidx2"), (*program.grid, *program.local), strict=False):
            if n > 1: nest.say(f"{axis}: {n:,} {'workgroups or chunks' if axis[0] == 'g' else 'threads'}")
    for n in uops:
        leaf = _leaf(n)
        if leaf is not None: nest.term[n] = leaf
        elif n.op in (Ops.AFTER, Ops.SPLAT): nest.term[n] = nest.of(n.src[0])
        elif n.op is Ops.GET: nest.bind(n, nest.of(n.src[0]))
        elif n.op is Ops.LOAD: nest.bind(n, _place(nest, n) + (f" if {_bare(nest.of(n.src[2]))} else 0" if len(n.src) > 2 else ""))
        elif not _statement(nest, n): nest.bind(n, _term(nest, n))
    return "\n".join(nest.lines) + "\n"

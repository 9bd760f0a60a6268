"""Loops: a linear program as an indented loop nest that reads like the source one would write by hand.

An expression used once stands where it is used; what is used again gets a name, and so does a value that is read from memory or from a
register which is written before the value is used.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

WIDTH = 100     # an expression longer than this gets a name even if it is used once
ATOM = 9
_BINDS = {"<": 1, "<=": 1, "==": 1, "!=": 1, "|": 2, "^": 3, "&": 4, "<<": 5, ">>": 5, "+": 6, "-": 6, "*": 7, "/": 7, "//": 7, "%": 7}
# a line of their own, or none
_LINES = (Ops.RANGE, Ops.END, Ops.STORE, Ops.ACC, Ops.SET, Ops.SCRATCH, Ops.BARRIER, Ops.PREFETCH, Ops.SINK)
_BORDERS = (Ops.RANGE, Ops.END, Ops.BARRIER)


class _Nest:
    """The state of one listing: the text of each node and how strongly it binds."""

    def __init__(self, uops: Sequence[UOp]) -> None:
        self.uops, self.place = uops, {n: i for i, n in enumerate(uops)}
        self.users: dict[UOp, list[UOp]] = {}
        for n in uops:
            for s in n.src: self.users.setdefault(s, []).append(n)
        self.term: dict[UOp, tuple[str, int]] = {}
        self.lines: list[str] = []
        self.depth = self.names = 0

    def say(self, line: str, n: UOp | None = None) -> None:
        """A line, with the user's line that asked for it: a store's is its value's."""
        site = next((f"    # {m.site}" for m in ((n, *n.src) if n is not None else ()) if m.site), "")
        self.lines.append("    " * self.depth + line + site)

    def of(self, n: UOp, binds: int = 0) -> str:
        """The text of a node, in parentheses if it binds less than its place asks for."""
        text, own = self.term.get(n, (f"?{n.op}", ATOM))
        return text if own >= binds else f"({text})"

    def bind(self, n: UOp, text: str, binds: int) -> None:
        """Give a node its text, or a name and a line."""
        if len(text) <= WIDTH and self.can_wait(n):
            self.term[n] = (text, binds)
            return
        self.term[n] = (f"v{self.names}", ATOM)
        self.say(f"v{self.names}: {n.dtype.short} = {text}", n)
        self.names += 1

    def can_wait(self, n: UOp) -> bool:
        """Whether a value has one use, and nothing happens before the line of that use which would change it."""
        use, reads = n, n.op in (Ops.LOAD, Ops.GET)
        while use.op not in _LINES:
            users = self.users.get(use, ())
            if len(users) != 1: return not users or (use is not n and not reads)
            use = users[0]
        if not reads: return True
        between = self.uops[self.place[n] + 1:self.place[use]]
        if any(m.op in _BORDERS for m in between) or use.op in _BORDERS: return False
        if n.op is Ops.GET: return not any(m.op is Ops.SET and m.src[0] is n.src[0] for m in between)
        return not any(m.op is Ops.STORE for m in between)


def _constant(n: UOp) -> str:
    text = f"{n.arg:g}" if isinstance(n.arg, float) else str(n.arg)
    return text if not isinstance(n.arg, float) or float(text) == n.arg else repr(n.arg)


def _leaf(n: UOp) -> str | None:
    """The text of a node without code of its own."""
    if n.op is Ops.CONST: return _constant(n)
    if n.op is Ops.PARAM: return f"p{n.arg.slot}" if n.arg.kind == "buffer" else f"n{n.arg.slot}"
    if n.op is Ops.SPECIAL: return str(n.arg.name)
    if n.op is Ops.LANES: return f"lanes({n.dtype.lanes})"
    return None


def _term(nest: _Nest, n: UOp) -> tuple[str, int]:
    """An arithmetic node in terms of its sources, and how strongly it binds."""
    src, of = n.src, nest.of
    if n.op is Ops.WHERE: return f"{of(src[1], 1)} if {of(src[0], 1)} else {of(src[2])}", 0
    if n.op is Ops.MULACC: return f"fma({of(src[0])}, {of(src[1])}, {of(src[2])})", ATOM
    if n.op in (Ops.CAST, Ops.BITCAST): return f"{'bits_' if n.op is Ops.BITCAST else ''}{n.dtype.short}({of(src[0])})", ATOM
    if n.op is Ops.EXTRACT: return f"{of(src[0], ATOM)}.{n.arg}", ATOM
    if n.op is Ops.SHUFFLE: return f"lanes_{'_'.join(map(str, n.arg))}({of(src[0])}, {of(src[1])})", ATOM
    if n.op is Ops.HREDUCE: return f"{n.arg.name.lower()}_lanes({of(src[0])})", ATOM
    if n.op is Ops.HSCAN: return f"running_{n.arg.name.lower()}({of(src[0])})", ATOM
    if n.op.text and len(src) == 2:
        binds = _BINDS[n.op.text]
        space = "" if binds == 7 else " "
        return f"{of(src[0], binds + (binds == 1))}{space}{n.op.text}{space}{of(src[1], binds + 1)}", binds
    if n.op.text and len(src) == 1: return f"{n.op.text}{of(src[0], 8)}", 8
    return f"{n.op.name.lower()}({', '.join(of(s) for s in src)})", ATOM


def _place(nest: _Nest, n: UOp) -> str:
    """The memory a LOAD or STORE touches: p0[i], or p0[i:+8] for a vector at consecutive places."""
    value = n.dtype if n.op is Ops.LOAD else n.src[2].dtype
    wide = f" :+{value.lanes}" if value.lanes > 1 and n.src[1].dtype.lanes == 1 else ""
    return f"{nest.of(n.src[0])}[{nest.of(n.src[1])}{wide}]"


def _statement(nest: _Nest, n: UOp) -> bool:
    """Write a node that is a line of its own; False if it is none."""
    if n.op is Ops.RANGE:
        nest.term[n] = (f"r{n.arg.id}", ATOM)
        nest.say(f"for r{n.arg.id} in range({nest.of(n.src[0])}):  # {n.arg.kind}")
        nest.depth += 1
    elif n.op is Ops.END: nest.depth = max(nest.depth - 1, 0)
    elif n.op is Ops.STORE:
        gate = f" if {nest.of(n.src[3])}" if len(n.src) > 3 else ""
        nest.say(f"{_place(nest, n)} = {nest.of(n.src[2], 1 if gate else 0)}{gate}", n)
    elif n.op is Ops.ACC:
        nest.term[n] = (f"acc{n.arg}", ATOM)
        nest.say(f"acc{n.arg}: {n.dtype.short} = {nest.of(n.src[0])}", n)
    elif n.op is Ops.SET: nest.say(f"{nest.of(n.src[0])} = {nest.of(n.src[1])}", n)
    elif n.op is Ops.SCRATCH:
        nest.term[n] = (f"s{n.arg.id}", ATOM)
        nest.say(f"s{n.arg.id} = {n.arg.space} {n.dtype.short}[{n.arg.size}]")
    elif n.op is Ops.BARRIER: nest.say("barrier()")
    elif n.op is Ops.PREFETCH: nest.say(f"prefetch {_place(nest, n)}")
    return n.op in _LINES


def loops_text(uops: Sequence[UOp], program: Any = None) -> str:
    """The loop nest of a linear program; with its `Program`, the signature and the grid too."""
    nest = _Nest(uops)
    if program is not None:
        params = [f"p{p.slot}: {p.dtype.short}[{p.size}]" if p.kind == "buffer" else f"n{p.slot}: {p.dtype.short}" for p in program.params]
        nest.say(f"kernel {program.name}({', '.join(params)}):")
        nest.depth = 1
    for n in uops:
        leaf = _leaf(n)
        if n.op is Ops.SPECIAL and n.arg.size > 1:
            what = "workgroups, or chunks shared among threads" if n.arg.name.startswith("g") else "threads"
            nest.say(f"{n.arg.name} in {n.arg.size}  # {what}")
        if leaf is not None: nest.term[n] = (leaf, 8 if leaf.startswith("-") else ATOM)
        elif n.op in (Ops.AFTER, Ops.SPLAT): nest.term[n] = nest.term.get(n.src[0], (f"?{n.src[0].op}", ATOM))
        elif n.op is Ops.GET: nest.bind(n, nest.of(n.src[0]), ATOM)
        elif n.op is Ops.LOAD:
            gate = f" if {nest.of(n.src[2], 1)} else 0" if len(n.src) > 2 else ""
            nest.bind(n, _place(nest, n) + gate, 0 if gate else ATOM)
        elif not _statement(nest, n): nest.bind(n, *_term(nest, n))
    return "\n".join(nest.lines) + "\n"

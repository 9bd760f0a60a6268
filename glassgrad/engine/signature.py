"""Signature: the structure of a graph, without the identities in it. Graphs of one signature share one recipe.

One linear walk numbers the nodes and lists what each is made of; no node is built. LEAF, DETACH and SURROGATE, which mean something to
gradients only, count as their (first) source, and a node that has been realized as a view of its memory.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import BufferArg, KeyArg, Ops, VarArg
from glassgrad.uop.uop import UOp

_BUFFER, _KEY, _BIND, _VAR, _CONST, _SURROGATE = Ops.BUFFER, Ops.KEY, Ops.BIND, Ops.VAR, Ops.CONST, Ops.SURROGATE
_MARKERS = frozenset((Ops.LEAF, Ops.DETACH, Ops.SURROGATE))


class Signature(NamedTuple):
    """`key` is equal for graphs of one structure. `order` has the nodes walked and their numbers; `buffers` the BUFFER nodes read and
    `values` the KEY and BIND nodes, both in the order in which a plan numbers them."""
    key: tuple
    order: dict[UOp, int]
    buffers: list[UOp]
    values: list[UOp]


def sign(roots: Sequence[UOp], context: tuple = ()) -> Signature:
    """The signature of a graph with these roots; `context` is whatever else the code for it depends on.

    errors:  UsageError for a VAR that no BIND gives a value
    """
    order: dict[UOp, int] = {}
    place: dict[UOp, int] = {}
    parts: list[Any] = [context, len(roots)]
    buffers: list[UOp] = []
    values: list[UOp] = []
    count = 0
    stack = list(roots)
    stack.reverse()
    while stack:
        n = stack[-1]
        if n in order:
            stack.pop()
            continue
        op = n.op
        if op is _BUFFER or n.memory is not None:
            buf = n if op is _BUFFER else n.memory
            at = place.get(buf)
            if at is None:
                at = place[buf] = count
                parts.append((_BUFFER, buf.dtype, buf.arg.size, buf.arg.device))
                buffers.append(buf)
                count += 1
            if buf is not n:
                parts.append((at, n.shape))
                at, count = count, count + 1
            order[n] = at
            stack.pop()
            continue
        src = n.src
        if src and op is not _BIND:
            if len(src) == 1 or op is _SURROGATE:
                if src[0] not in order:
                    stack.append(src[0])
                    continue
            else:
                todo = [s for s in src if s not in order]
                if todo:
                    todo.reverse()
                    stack += todo
                    continue
            if op in _MARKERS:
                order[n] = order[src[0]]
                stack.pop()
                continue
            parts.append((op, n.dtype, n.arg, *[order[s] for s in src]))
        elif op is _CONST:
            arg = n.arg   # 0.0 == -0.0 and nan != nan: the exact bits tell
            parts.append((op, n.dtype, arg.hex() if arg.__class__ is float else arg))
        elif op is _KEY:
            parts.append(op)
            values.append(n)
        elif op is _BIND:
            parts.append((op, n.dtype, n.src[0].arg.lo, n.src[0].arg.hi))
            values.append(n)
        elif op is _VAR:
            raise UsageError(f"realize: the variable {n.arg.name!r} has no value\n  try: Variable({n.arg.name!r}, …).bind(value)")
        else:
            parts.append((op, n.dtype, n.arg))
        order[n] = count
        count += 1
        stack.pop()
    parts += [order[r] for r in roots]
    return Signature(tuple(parts), order, buffers, values)


def normalise(roots: Sequence[UOp], signature: Signature) -> list[UOp]:
    """The same graph with buffers, keys and variables numbered in the order of the signature: equal structures become one node."""
    slots = {b: i for i, b in enumerate(signature.buffers)}
    numbers = {v: i for i, v in enumerate(signature.values)}
    memo: dict[UOp, UOp] = {}
    for n in signature.order:
        op = n.op
        if op is _BUFFER or n.memory is not None:
            buf = n if op is _BUFFER else n.memory
            leaf = UOp(_BUFFER, buf.dtype, (), BufferArg(slots[buf], buf.arg.size, buf.arg.device))
            memo[n] = leaf if buf is n else leaf.reshape(n.shape)
        elif op in _MARKERS: memo[n] = memo[n.src[0]]
        elif op is _KEY: memo[n] = UOp(_KEY, n.dtype, (), KeyArg(0, numbers[n]))
        elif op is _BIND:
            var = n.src[0].arg
            memo[n] = UOp(_VAR, n.dtype, (), VarArg(str(numbers[n]), var.lo, var.hi))
        else:
            src = tuple([memo[s] for s in n.src])
            memo[n] = n if src == n.src else n.replace(src=src)
    return [memo[r] for r in roots]

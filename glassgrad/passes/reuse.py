"""Reuse: which output of a kernel may take the memory of which input.

in:      LINEAR form
out:     pairs (written slot, read slot); the engine decides for which of them the memory is one
source:  our own
"""
from __future__ import annotations

from collections.abc import Sequence

from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

UNKNOWN = (Ops.LOAD, Ops.GET)          # an index made of these says nothing before the kernel runs


class _Access:
    """How a PARAM is read, or how it is written: the lanes at each index, and where in the program that happens first and last."""
    def __init__(self) -> None:
        self.lanes: dict[UOp, int] = {}
        self.first: dict[UOp, int] = {}
        self.last: dict[UOp, int] = {}
        self.elements, self.is_known = 0, True


def find_reuses(uops: Sequence[UOp]) -> tuple[tuple[int, int], ...]:
    """Pairs (written, read) such that each element is read only at the index at which it is written, earlier, and is written once.

    After the kernel an output is complete, so for the last part it is enough to count: as many elements are stored as there are.
    Overlapping tiles store more, gates fewer; both are left alone.
    """
    params = {n for n in uops if n.op is Ops.PARAM and n.arg.kind == "buffer"}
    written = {_under(n.src[0]) for n in uops if n.op is Ops.STORE}
    if not any(_is_like(o, i) for o in params & written for i in params - written): return ()
    turns = [1]                        # how often the instructions of each open loop run
    hidden: set[UOp] = set()           # nodes whose value depends on data
    reads: dict[UOp, _Access] = {}
    writes: dict[UOp, _Access] = {}
    for at, n in enumerate(uops):
        op = n.op
        if op in UNKNOWN or not hidden.isdisjoint(n.src): hidden.add(n)
        if op is Ops.SPECIAL: turns[-1] *= n.arg.size
        elif op is Ops.RANGE: turns.append(turns[-1] * (n.src[0].arg if n.src[0].op is Ops.CONST else 0))
        elif op is Ops.END: turns.pop()
        elif op is Ops.LOAD or op is Ops.STORE:
            buf, idx = _under(n.src[0]), n.src[1]
            if buf.op is not Ops.PARAM: continue
            value = n.src[2] if op is Ops.STORE else n
            a = (writes if op is Ops.STORE else reads).setdefault(buf, _Access())
            is_gated = op is Ops.STORE and len(n.src) > 3
            a.is_known &= idx not in hidden and a.lanes.setdefault(idx, value.dtype.lanes) == value.dtype.lanes and not is_gated
            a.first.setdefault(idx, at)
            a.last[idx] = at
            a.elements += turns[-1] * value.dtype.lanes
    out = []
    for o, w in writes.items():
        if not w.is_known or w.elements != o.arg.size or o in reads: continue
        for i, r in reads.items():
            if not _is_like(o, i) or i in writes or not r.is_known: continue
            if all(w.lanes.get(idx) == lanes and r.last[idx] < w.first[idx] for idx, lanes in r.lanes.items()):
                out.append((o.arg.slot, i.arg.slot))
    return tuple(sorted(out))


def _is_like(o: UOp, i: UOp) -> bool: return o.arg.size == i.arg.size and o.dtype.itemsize == i.dtype.itemsize


def _under(buf: UOp) -> UOp:
    """The PARAM or SCRATCH under a chain of AFTER."""
    while buf.op is Ops.AFTER: buf = buf.src[0]
    return buf

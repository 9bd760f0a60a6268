"""Narrow loops: a loop ends where nothing that is still to come can count.

in:      KERNEL form, tiled
out:     the same; the count of a loop may be an expression of the loops around it

A sum of `where(j <= i, x, 0)` over j needs no turn beyond i, nor does a maximum of `where(j <= i, x, -inf)`, nor a sum of what is
multiplied by exp(that - maximum). What fills scratch needs no turn beyond the last place that is read. So causal attention computes half
the scores. A tile needs as many turns as its longest row. Where a factor is 0 by a mask the product is taken to be 0, also if the other is
infinite.
"""
from __future__ import annotations

from glassgrad.passes.algebra import simplify
from glassgrad.passes.linearize import affine
from glassgrad.passes.transcend import exponent
from glassgrad.target.target import Target
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, substitute, toposort

REGISTERS = {"UPCAST", "UNROLL", "LANE"}
SHORT = 2       # turns that are not worth a bound
Limit = tuple[UOp, UOp]     # what is asked about is 0 (or -inf) unless the first is at most the second


def narrow_loops(sink: UOp, target: Target) -> UOp:
    """End loops at the last turn that matters."""
    order = sink.toposort()
    if not any(n.op is Ops.WHERE for n in order): return sink
    return _Narrower(order).run(sink)


class _Narrower:
    """Consumers come before producers: when the loops that fill scratch are met, all that read it have been narrowed."""

    def __init__(self, order: list[UOp]) -> None:
        self.order = order
        self.free: dict[UOp, frozenset[UOp]] = {}
        for n in order:
            f = frozenset((n,)) if n.op is Ops.RANGE else frozenset().union(*(self.free[s] for s in n.src)) if n.src else frozenset()
            self.free[n] = f.difference(n.src[1:]) if n.op in (Ops.REDUCE, Ops.END) else f
        self.last: dict[UOp, UOp] = {}                  # of a loop: its last turn that matters
        self.read: dict[UOp, list[UOp | None]] = {}     # of an END that fills scratch: the greatest places that are read, None if unknown
        self.kept: dict[tuple[UOp, bool], list[Limit]] = {}

    def run(self, sink: UOp) -> UOp:
        for n in reversed(self.order):
            for s in n.src:
                if s.op is Ops.AFTER and s.src[0].op is Ops.SCRATCH:
                    place = self.most(n.src[1], self.loops(s)) if n.op is Ops.LOAD else None
                    for effect in s.src[1:]: self.read.setdefault(effect, []).append(place)
            if n.op is Ops.REDUCE and n.arg.op in (Ops.ADD, Ops.MAX): self.narrow(n, self.limits(n.src[0], n.arg.op is Ops.MAX))
            elif n.op is Ops.END and (places := self.read.get(n)) and None not in places and n.src[0].op is Ops.STORE:
                end = places[0]
                for p in places[1:]: end = end if p is end else simplify(end.max(p))  # type: ignore[union-attr, arg-type]
                self.narrow(n, [(n.src[0].src[1], end)])  # type: ignore[list-item]
        made: dict[UOp, UOp] = {}

        def ended(r: UOp) -> UOp:
            if r not in made:
                count = simplify((self.last[r] + 1).min(r.src[0]))
                made[r] = r.replace(src=substitute((count,), {x: ended(x) for x in count.toposort() if x in self.last}))
            return made[r]
        return substitute((sink,), {r: ended(r) for r in self.last})[0] if self.last else sink

    def loops(self, n: UOp) -> frozenset[UOp]:
        """The loops around a node that its value depends on."""
        return frozenset(r for r in self.free[n] if r.arg.kind not in REGISTERS)

    def narrow(self, closer: UOp, limits: list[Limit]) -> None:
        """End the closer's own loops where a limit is passed."""
        around = self.loops(closer)
        for r in closer.src[1:]:
            if r.arg.kind in REGISTERS or r.src[0].op is not Ops.CONST or r.src[0].arg <= SHORT: continue
            for low, high in limits:
                terms, const = affine(simplify(high - unclipped(low, r)))
                step = -terms.pop(r, 0)
                if step <= 0 or any(r in t.toposort() for t in terms): continue
                left = self.total(terms, const, around)
                if left is None: continue
                last = simplify(left.max(0) // step)
                if bounds(last)[0] >= r.src[0].arg - 1: continue
                self.last[r] = last if r not in self.last else simplify(self.last[r].min(last))

    def most(self, x: UOp, around: frozenset[UOp], sign: int = 1) -> UOp | None:
        """The greatest (least with sign -1) value of an index over all but the loops `around`."""
        if x.op is Ops.CONST or not any(n.op is Ops.RANGE and n not in around for n in x.toposort()): return x
        if x.op is Ops.RANGE:
            if sign < 0: return x.const_like(0)
            return self.most(self.last[x], around) if x in self.last else self.most(x.src[0] - 1, around)
        if x.op in (Ops.MIN, Ops.MAX):
            parts = [self.most(s, around, sign) for s in x.src]
            return None if None in parts else simplify(x.replace(src=tuple(parts)))  # type: ignore[arg-type]
        if x.op is Ops.CDIV and x.src[1].op is Ops.CONST and x.src[1].arg > 0:
            top = self.most(x.src[0], around, sign)
            return None if top is None else simplify(top // x.src[1])
        terms, const = affine(x)
        return None if x in terms else self.total(terms, const, around, sign)

    def total(self, terms: dict[UOp, int], const: int, around: frozenset[UOp], sign: int = 1) -> UOp | None:
        """The greatest (least) value of a sum."""
        whole: UOp | None = None
        for t, c in terms.items():
            top = self.most(plain(t), around, sign if c > 0 else -sign)
            if top is None: return None
            whole = top * c if whole is None else whole + top * c
        return simplify(whole + const) if whole is not None else None

    def limits(self, x: UOp, low: bool) -> list[Limit]:
        """Where a value can be other than 0 (with `low`: than -inf)."""
        if x.op is Ops.CAST: return self.limits(x.src[0], low) if x.src[0].dtype.is_float and x.dtype.is_float else []
        if x.op is Ops.LOAD and len(x.src) == 2 and x.src[0].op is Ops.AFTER:
            return [(x.src[1], end) for _, end in self.stored(x.src[0], low)]
        if x.op is Ops.WHERE:
            return conditions(x.src[0]) if x.src[2].op is Ops.CONST and x.src[2].arg == (x.dtype.min if low else 0) else []
        if x.op is Ops.MUL and low:
            return next((self.limits(a, True) for a, b in (x.src, x.src[::-1]) if b.op is Ops.CONST and b.arg > 0), [])
        if x.op is Ops.MUL:     # each factor once, however often it stands in the product
            inside = toposort((x,), stop=lambda n: n.op is not Ops.MUL)
            return [limit for f in inside if f.op is not Ops.MUL for limit in self.limits(f, False)]
        # where the maximum too is -inf, or NaN, all of the row is NaN
        if x.op is Ops.EXP and exponent(x).op is Ops.SUB and not low:
            y, m = exponent(x).src
            return self.limits(y, True) if m.op is Ops.REDUCE and m.arg.op is Ops.MAX and loads(m.src[0]) == loads(y) else []
        return []

    def stored(self, after: UOp, low: bool) -> list[Limit]:
        """The same of what stands in scratch: (scratch, the last place where there is more)."""
        if (after, low) not in self.kept:
            found: list[Limit] = []
            ends = [e for e in after.src[1:] if e.op is Ops.END and e.src[0].op is Ops.STORE and len(e.src[0].src) == 3]
            if len(ends) == 1 == len(after.src) - 1:
                _, place, value = ends[0].src[0].src
                at, first = affine(place)
                own = ends[0].src[1:]
                for a, b in self.limits(value, low):
                    terms, const = affine(simplify(plain(b) - plain(a)))
                    for t, c in at.items(): terms[t] = terms.get(t, 0) + c
                    terms = {t: c for t, c in terms.items() if c}
                    if any(r in own for t in terms for r in self.ranges(t)): continue
                    end: UOp = place.const_like(const + first)
                    for t, c in terms.items(): end = end + plain(t) * c
                    found.append((after, simplify(end)))
            self.kept[after, low] = found
        return self.kept[after, low]

    def ranges(self, x: UOp) -> list[UOp]: return [n for n in x.toposort() if n.op is Ops.RANGE]


def loads(x: UOp) -> set[UOp]:
    """The memory that a value is made of."""
    return {n.src[0] for n in x.toposort() if n.op is Ops.LOAD}


def conditions(gate: UOp) -> list[Limit]:
    """The comparisons of ints that hold where `gate` holds."""
    if gate.op is Ops.AND: return conditions(gate.src[0]) + conditions(gate.src[1])
    if gate.op not in (Ops.CMPLE, Ops.CMPLT) or not gate.src[0].dtype.is_int: return []
    a, b = map(plain, gate.src)
    if a.dtype is not b.dtype: return []
    return [(a, b if gate.op is Ops.CMPLE else b - 1)]


def plain(x: UOp) -> UOp:
    """An int without casts that keep its value."""
    while x.op is Ops.CAST and x.src[0].dtype.is_int and x.dtype.min <= bounds(x.src[0])[0] and bounds(x.src[0])[1] <= x.dtype.max:
        x = x.src[0]
    return x


def unclipped(x: UOp, r: UOp) -> UOp:
    """`x` without the MIN that lets the last tile along `r` start early: the tiles before it cover what they would anyway."""
    clipped = [n for n in x.toposort() if n.op is Ops.MIN and n.src[1].op is Ops.CONST and r in n.src[0].toposort()]
    return substitute((x,), {n: n.src[0] for n in clipped})[0]

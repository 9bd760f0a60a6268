"""Spell out: loops over the places of constant matrices become terms with constant coefficients, of which most are 0 or 1.

in:      KERNEL form
out:     KERNEL form without TABLEs
source:  sums of products by variable elimination (Dechter, Bucket elimination, 1999): a factor is multiplied after the sums
         that it does not change in

A loop that a TABLE's index takes apart, as i % 4 where tiles of 4 outputs stand side by side, is split first. What several of the copies
share, loads and partial sums, is one node.
"""
from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator

from glassgrad.passes.algebra import gates, simplify, weighted_sum
from glassgrad.passes.axes import replace_axes
from glassgrad.passes.linearize import affine
from glassgrad.rewrite.driver import rewrite
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.infer import constant, free_axes
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

LONGEST = 8         # turns of a loop that is spelled out
MOST = 32           # factors that a product is taken apart into: x * x, multiplied by itself again and again, has no end of them
Loops = tuple[UOp, ...]
Place = tuple[int, ...]             # values of the spelled loops that a node depends on, in the order of their numbers
Value = UOp | float
Factor = tuple[Loops, dict[Place, Value]]


def spell_out(sink: UOp, target: Target) -> UOp:
    """Spell out the loops of every TABLE; one whose place is no simple function of a loop chooses its number as the kernel runs."""
    if not any(n.op is Ops.TABLE for n in sink.toposort()): return sink
    sink = _split(sink)
    order = sink.toposort()
    loops = {r for n in order if n.op is Ops.TABLE for r in free_axes(n) if r.src[0].op is Ops.CONST and r.src[0].arg <= LONGEST}
    for n in order:     # what has loops of its own, or fills scratch, is not to be copied
        if n.op is Ops.REDUCE and not loops.issuperset(n.src[1:]): loops -= free_axes(n)
        if n.op is Ops.AFTER: loops -= free_axes(n).union(*(e.src[1:] for e in n.src[1:]))
    return rewrite(_Speller(order, loops).run(), gates)


def _split(sink: UOp) -> UOp:
    """Loops whose remainders are places, in two: the outer one and the remainder."""
    order = sink.toposort()
    free = 1 + max((n.arg.id for n in order if n.op is Ops.RANGE), default=0)
    table: dict[UOp, UOp] = {}
    for n in {n: None for t in order if t.op is Ops.TABLE for n in t.toposort() if n.op is Ops.CMOD}:
        r, m = n.src
        if r.op is not Ops.RANGE or r in table or m.op is not Ops.CONST or m.arg > LONGEST or r.src[0].arg % m.arg: continue
        outer, inner = (UOp.range(free + i, k, r.arg.kind, r.dtype) for i, k in enumerate((r.src[0].arg // m.arg, m.arg)))
        table[r] = simplify(outer * m.arg + inner)
        free += 2
    return replace_axes(sink, table) if table else sink


class _Speller:
    """The values of each node for each combination of the spelled loops that it depends on."""

    def __init__(self, order: list[UOp], loops: set[UOp]) -> None:
        self.order, self.loops = order, loops
        self.of = {n: self.sorted(free_axes(n)) for n in order}
        self.linear: dict[UOp, tuple[UOp, int, list[int]]] = {}
        self.made: dict[UOp, dict[Place, Value]] = {}

    def sorted(self, axes: Iterable[UOp]) -> Loops: return tuple(sorted(self.loops.intersection(axes), key=lambda r: r.arg.id))

    def run(self) -> UOp:
        wanted = {self.order[-1]}
        for n in reversed(self.order):
            if n not in wanted: continue
            if n.dtype is dtypes.int64 and n.op.is_alu and self.of[n]: self.note_linear(n)
            wanted.update(self.factors(n) if n.op is Ops.REDUCE and self.is_own(n) else () if n in self.linear else n.src)
        for n in self.order:
            if n not in wanted: continue
            if n.op is Ops.RANGE and n in self.loops: self.made[n] = {(i,): constant(n.dtype, i) for i in range(n.src[0].arg)}
            elif n.op is Ops.REDUCE and self.is_own(n): self.made[n] = self.summed(n)
            else:
                make = self.number if n.op is Ops.TABLE else self.stored if n.op is Ops.END and self.is_own(n) else self.node
                self.made[n] = {p: make(n, p) for p in places(self.of[n])}
        return self.at(self.order[-1], (), ())

    def is_own(self, n: UOp) -> bool: return not self.loops.isdisjoint(n.src[1:])

    def at(self, n: UOp, loops: Loops, p: Place) -> UOp:
        """The value of `n` where `loops` are at `p`."""
        value = part((self.of[n], self.made[n]), loops, p)
        return value if isinstance(value, UOp) else n.const_like(value)

    def note_linear(self, n: UOp) -> None:
        """An index to which spelled loops add multiples of themselves: what is left is simplified once."""
        terms, const = affine(n)
        steps = [terms.pop(r, 0) for r in self.of[n]]
        if any(self.loops & free_axes(t) for t in terms): return
        rest = weighted_sum(n.dtype, terms.items())
        self.linear[n] = (rest.const_like(0), const + rest.arg, steps) if rest.op is Ops.CONST else (rest, const, steps)

    def node(self, n: UOp, p: Place) -> UOp:
        if n in self.linear:
            rest, const, steps = self.linear[n]
            const += sum(c * i for c, i in zip(steps, p))
            if not const: return rest
            return rest.const_like(const) if rest.op is Ops.CONST else rest + const
        src = tuple([self.at(s, self.of[n], p) for s in n.src])
        if src == n.src: return n
        new = n.replace(src=src)
        return simplify(new) if n.dtype is dtypes.int64 or n.dtype.is_bool else new

    def number(self, n: UOp, p: Place) -> Value:
        """The number of a TABLE, chosen one by one if its place is not known yet."""
        place = self.at(n.src[0], self.of[n], p)
        if place.op is Ops.CONST: return n.arg[place.arg]
        chosen = n.const_like(n.arg[-1])
        for i in reversed(range(len(n.arg) - 1)): chosen = place.eq(i).where(n.const_like(n.arg[i]), chosen)
        return chosen

    def stored(self, n: UOp, p: Place) -> UOp:
        """An END around a copy of its stores for each place of its own loops."""
        own = self.sorted(n.src[1:])
        effects = [self.at(n.src[0], (*self.of[n], *own), (*p, *q)) for q in places(own)]
        effects = [s for e in effects for s in (e.src if e.op is Ops.SINK else (e,))]
        rest = [r for r in n.src[1:] if r not in own]
        return n.replace(src=(UOp.sink(*effects), *rest)) if rest else UOp.sink(*effects)

    def factors(self, n: UOp) -> list[UOp]:
        """What a sum multiplies; of another reduction its value."""
        out, stack = [], [n.src[0]]
        while stack:
            x = stack.pop()
            if x.op is Ops.MUL and n.arg.op is Ops.ADD and x.dtype.is_float and len(out) + len(stack) < MOST: stack += reversed(x.src)
            else: out.append(x)
        return out

    def summed(self, n: UOp) -> dict[Place, Value]:
        """One loop after another: what depends on it is multiplied and summed, what does not is multiplied later."""
        factors: list[Factor] = [(self.of[f], self.made[f]) for f in self.factors(n)]
        for r in reversed(self.sorted(n.src[1:])):
            near = [f for f in factors if r in f[0]]
            loops = self.sorted({x for f in near for x in f[0] if x is not r})
            turns = range(r.src[0].arg)
            values = {p: total([product(near, (*loops, r), (*p, i)) for i in turns], n.arg.op) for p in places(loops)}
            factors = [*(f for f in factors if r not in f[0]), (loops, values)]
        found = {p: total([product(factors, self.of[n], p)], n.arg.op) for p in places(self.of[n])}
        rest = [r for r in n.src[1:] if r not in self.loops]
        return {p: n.replace(src=(v if isinstance(v, UOp) else n.const_like(v), *rest)) for p, v in found.items()} if rest else found


def places(loops: Loops) -> Iterator[Place]: return itertools.product(*(range(r.src[0].arg) for r in loops))


def part(f: Factor, loops: Loops, p: Place) -> Value:
    """The value of `f` where `loops` are at `p`."""
    return f[1][tuple([p[loops.index(r)] for r in f[0]])]


def product(factors: list[Factor], loops: Loops, p: Place) -> tuple[float, UOp | None]:
    """(coefficient, the rest) of a term."""
    number, node = 1.0, None
    for f in factors:
        value = part(f, loops, p)
        if not isinstance(value, UOp): number *= value
        else: node = value if node is None else node * value
    return number, node


def total(terms: list[tuple[float, UOp | None]], op: Op) -> Value:
    """The terms combined, those that are added before those that are taken away."""
    if op is not Ops.ADD:
        nodes, numbers = [x for _, x in terms if x is not None], [c for c, x in terms if x is None]
        if not nodes: return functools.reduce(op.py, numbers)
        if numbers: nodes.append(nodes[0].const_like(functools.reduce(op.py, numbers)))
        return functools.reduce(lambda x, y: x.alu(op, y), nodes)
    y: UOp | None = None
    for number, node in sorted(((c, x) for c, x in terms if c and x is not None), key=lambda t: t[0] < 0):
        if y is None: y = node if number == 1 else node * number
        elif abs(number) == 1: y = y + node if number == 1 else y - node
        else: y = y + node * number
    rest = sum(c for c, x in terms if x is None)
    return rest if y is None else y + rest if rest else y

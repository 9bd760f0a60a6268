"""Choose stores: every value is either stored once, kept in a row of scratch inside one kernel, or computed where it is wanted.

in:      TENSOR form, a SINK of the values to store
out:     TENSOR form: each stored value stands under CONTIGUOUS(arg=reason and kernel), each staged one under STAGE(arg=the axes that
         it shares with the kernel)
source:  the walk over indices is our own; the three choices are Halide's compute_root, compute_at and inline (PLDI 2013)

Consumers come before producers: when a value is reached, every place that wants it is known, as an index over the loops of some
kernel. Costs are counted in vector operations: recomputing costs (operations x evaluations), storing costs a trip through memory. What a
value costs depends on what below it is stored, which is decided later: so the walk is done twice, the second time with the first one's
answers.
"""
from __future__ import annotations

import math
from typing import NamedTuple

from glassgrad.passes.axes import BOUNDED
from glassgrad.passes.cost import FAR_CACHES
from glassgrad.passes.share import Facts, share_kernels
from glassgrad.passes.views import TRUE, ZERO, Axes, Demand, Index, demands, div, is_disjoint
from glassgrad.target.target import Target
from glassgrad.uop.infer import free_axes, linear
from glassgrad.uop.ops import Ops, StoreArg
from glassgrad.uop.uop import UOp, toposort

STORE_COST = 10          # vector operations that one element's way to memory and back is worth
GATE_COST = 4            # masking the loads of a padded value
ROW_COST = 0.25          # choosing whether a row of it is read
LAUNCH_COST = 4000       # what a kernel of its own costs beside its elements
STAGE_ELEMENTS = 1 << 16  # the largest scratch row: a quarter of a megabyte of float32, an L2 share
MANY_ROWS = 64           # of a product from which on its other operand is better read once for many of them,
MANY_COLUMNS = 32        # and columns from which on reading that costs more than storing the rows
SAME_SETS = 1 << 11      # bytes between rows that share a set of the first-level cache with every second one
PARALLEL_WORK = 1 << 15  # below this many operations a kernel need not be parallel
MAX_COST = 2000          # operations per element beyond which a chain is cut: longer kernels compile slowly and gain nothing

ALWAYS_STORED = {Ops.SCAN: "a running reduction has its own loop order", Ops.SCATTER: "scattered writes need memory",
                 Ops.SORT: "sorting needs memory", Ops.COPY: "it moves to another device"}


class Want(NamedTuple):
    """A value wanted by the kernel of `root` at `idx` under `gate`, inside `loops` (outermost first)."""
    root: UOp
    idx: Index
    gate: UOp
    loops: tuple[UOp, ...]


def stored_under(x: UOp) -> UOp | None:
    """The buffer whose memory is `x` as it stands: `x` itself or what it reshapes; None if there is none."""
    while x.op is Ops.RESHAPE: x = x.src[0]
    return x if x.op in (Ops.BUFFER, Ops.CONTIGUOUS) else None


def trips(loops: tuple[UOp, ...]) -> int:
    """How often the body of nested loops runs."""
    return math.prod(r.src[0].arg for r in loops)


def estimate_costs(order: list[UOp], stored: set[UOp]) -> tuple[dict[UOp, int], list[UOp]]:
    """Operations for one element of each value from what is at hand: buffers, reductions, `stored` values; and too long chains."""
    cost: dict[UOp, int] = {}
    long: list[UOp] = []
    for n in order:
        if n.op.kind in ("reduce", "fold", "scan", "sort") and not is_disjoint(n) or n.op in ALWAYS_STORED or n.op is Ops.BUFFER:
            cost[n] = 1
        elif n.op.kind == "leaf": cost[n] = 0
        else:
            own = GATE_COST if n.op in (Ops.PAD, Ops.FOLD) else n.op.cost if n.op.is_alu and n.op not in (Ops.CAST, Ops.BITCAST) else 0
            total = own + sum(at_hand(s, cost, stored) for s in n.src)
            if n.op is Ops.EXPAND: total = total * n.src[0].size // max(n.size, 1)      # loops around find it ready
            if total > MAX_COST and n.shape: long.append(n)
            cost[n] = 1 if total > MAX_COST else total
    return cost, long


def at_hand(x: UOp, cost: dict[UOp, int], stored: set[UOp]) -> int: return 1 if x in stored else cost[x]


def reduce_work(n: UOp, cost: dict[UOp, int], stored: set[UOp]) -> int:
    """Operations for one element of a reduction, its body included; 0 if `n` is none."""
    if is_disjoint(n): return 0
    if n.op is Ops.FOLD: return n.arg.size * (at_hand(n.src[0], cost, stored) + 1)
    if n.op is not Ops.REDUCE: return 0
    loads = 2 if is_contraction(n) else 0       # what it repeats it reads again and again, other loops find it ready
    return min(1 << 40, math.prod(n.src[0].shape[a] for a in n.arg.axes) * (at_hand(n.src[0], cost, stored) + loads + 1))


def is_contraction(n: UOp) -> bool:
    """Whether a reduction multiplies values that are repeated along some axis, so that its operands are read again and again."""
    x = n.src[0]
    while x.op in (Ops.CAST, Ops.RESHAPE, Ops.PERMUTE): x = x.src[0]
    return x.op is Ops.MUL and any(s.op is Ops.EXPAND for s in x.src) and not any(map(is_table, x.src))


def is_table(x: UOp) -> bool: return x.op is Ops.EXPAND and x.src[0].op is Ops.RESHAPE and x.src[0].src[0].op is Ops.TABLE


def table_axes(n: UOp) -> list[int]:
    """The axes of what a reduction multiplies along which some TABLE changes: its kernel spells their loops out."""
    if n.op is not Ops.REDUCE: return []
    products = toposort((n.src[0],), stop=lambda x: x.op is not Ops.MUL)
    tables = [x.src[0].shape for x in products if is_table(x)]
    return [a for a, m in enumerate(n.src[0].shape) if any(t[a] == m > 1 for t in tables)] if tables else []


def is_spelled(i: UOp) -> bool:
    """Whether a loop can be spelled out of an index into a TABLE."""
    if i.op is Ops.CMOD and i.src[1].op is Ops.CONST and i.src[0].op is Ops.RANGE: return i.src[0].src[0].arg % i.src[1].arg == 0
    return i.op is Ops.RANGE or i is ZERO


def elements(x: UOp) -> int:
    """How many elements lie under the views of a value."""
    least = x.size
    while x.op.is_movement or x.op is Ops.CAST:
        x = x.src[0]
        least = min(least, x.size)
    return least


def is_split(i: UOp) -> bool:
    """Whether an index takes a loop apart, by division or remainder."""
    return any(n.op in (Ops.CDIV, Ops.CMOD) for n in toposort((i,)))


class Chooser:
    """The walk's state: who wants what, what was decided, and why."""

    def __init__(self, sink: UOp, target: Target, stored: set[UOp], known: dict) -> None:
        self.sink, self.target, self.stored, self.known = sink, target, stored, known
        self.order = sink.toposort()
        self.cost, self.long = estimate_costs(self.order, stored)
        self.wants: dict[UOp, dict[Want, None]] = {n: {} for n in self.order}
        self.reasons: dict[UOp, str] = {}
        self.stages: dict[UOp, tuple[int, ...]] = {}
        self.loops: dict[UOp, tuple[UOp, ...]] = {}      # of each stored value's kernel
        self.facts: dict[UOp, Facts] = {}
        self.axes: dict[UOp, Axes] = {}                  # which each kernel numbers from 0
        self.spelled: dict[UOp, set[UOp]] = {}           # loops of each kernel that TABLEs are read in
        self.beside: dict[UOp, int] = {}                 # elements that products in the same kernel read beside a value
        self.min_parallel = 1024 if target.has_grid else 4
        self.stage_limit = 1024 if target.has_grid else STAGE_ELEMENTS

    def choose(self) -> Chooser:
        """Decide for every value."""
        forced = {s: "it is a result" for s in self.sink.src}
        long = set(self.long)
        for n in self.long: forced[n] = f"its chain of operations would make a kernel of more than {MAX_COST}"
        for n in self.order:
            if n.op in ALWAYS_STORED: forced.setdefault(n, ALWAYS_STORED[n.op])
            if n.op is Ops.CONTIGUOUS: forced.setdefault(n, n.arg or "contiguous() was asked for")
            if n.op is Ops.SORT and stored_under(n.src[0]) is None: forced.setdefault(n.src[0], "sorting reads it many times")
        for n in reversed(self.order):
            if n is self.sink: continue
            wants = list(self.wants[n])
            if n.op is Ops.BUFFER: self.note_reads(n, wants)
            if n.op.kind == "leaf" and n not in forced: continue
            reason = forced.get(n)
            stage = None
            if reason is None and wants: reason, stage = self.decide(n, wants)
            if reason is not None:
                self.reasons[n] = reason
                self.note_reads(n, wants)
                self.axes[n] = Axes(self.known)
                axes = tuple([self.axes[n].new(m) for m in n.shape])
                self.loops[n] = tuple(r for r in axes if r is not ZERO)
                value = n.src[0] if n.op is Ops.CONTIGUOUS else n
                total = n.size * max(reduce_work(value, self.cost, self.stored), self.cost[value])
                self.facts[n] = Facts(work=self.cost[value] if n not in long else MAX_COST, total=total, alone=value.op in ALWAYS_STORED)
                wants = [Want(n, axes, TRUE, self.loops[n])]
            elif stage is not None:
                self.stages[n] = stage
                root, idx, _, loops = wants[0]
                axes = tuple(idx[a] if a in stage else self.axes[root].new(m) for a, m in enumerate(n.shape))
                shared = {idx[a] for a in stage}
                loops = (*(r for r in loops if r in shared), *(r for a, r in enumerate(axes) if a not in stage and r is not ZERO))
                wants = [Want(root, axes, TRUE, loops)]
            if reduce_work(n, self.cost, self.stored):
                for root in {w.root: None for w in wants}:
                    self.facts[root].sums += 1
                    self.facts[root].contractions += is_contraction(n)
            if reason is None or n.op is Ops.REDUCE: self.note_beside(n)
            for want in wants: self.pass_on(n, want)
        return self

    def note_reads(self, n: UOp, wants: list[Want]) -> None:
        """Memory is read by the kernels that want it, at the very element they compute or elsewhere."""
        for w in wants:
            reads = self.facts[w.root].reads
            aligned = w.gate is TRUE and tuple(i for i in w.idx if i is not ZERO) == self.loops[w.root]
            reads[n] = reads.get(n, True) and aligned

    def mark(self) -> UOp:
        """The graph with the decisions in it."""
        table: dict[UOp, UOp] = {}
        numbers = share_kernels([n for n in self.order if n in self.reasons], self.facts, set(self.sink.src))
        for n in self.order:
            src = tuple(table[s] for s in n.src)
            new = n if src == n.src else n.replace(src=src)
            if n in self.reasons and n not in numbers: new = new.src[0] if n.op is Ops.CONTIGUOUS else new
            elif n in self.reasons:
                arg = StoreArg(self.reasons[n], numbers[n])
                new = new.replace(arg=arg) if n.op is Ops.CONTIGUOUS else _mark(Ops.CONTIGUOUS, new, arg)
            elif n in self.stages: new = _mark(Ops.STAGE, new, self.stages[n])
            table[n] = new
        return table[self.sink]

    def pass_on(self, n: UOp, want: Want) -> None:
        """Tell the sources of `n` that this want makes them wanted: inside the loops that `n` is computed in, the others are outside."""
        if n.op.kind == "leaf": return
        depth = self.depth(want)
        if depth < len(want.loops): want = Want(want.root, want.idx, want.gate, want.loops[:depth])
        if n.op.is_alu or n.op.kind == "identity":      # most nodes: their sources are wanted as they are
            for s in n.src: self.want(s, want if s.shape else Want(want.root, (), want.gate, want.loops))
            return
        if n.op is Ops.SORT:
            self.facts[n].reads[stored_under(n.src[0]) or n.src[0]] = False
            wanted = []
        elif n.op is Ops.SCAN:
            wanted = [Demand(n.src[0], want.idx, want.gate)]
            if len(n.src) > 1:
                runs = tuple(div(i, m // k) if a in n.arg.axes else i for a, (i, m, k) in enumerate(zip(want.idx, n.shape, n.src[1].shape)))
                wanted.append(Demand(n.src[1], runs, want.gate))
        elif n.op is Ops.SCATTER:
            base, index, x = n.src
            inner = tuple([self.axes[want.root].new(m) for m in x.shape])
            loops = tuple(r for r in inner if r is not ZERO)
            self.want(base, want)
            for s in (index, x): self.want(s, Want(want.root, inner, TRUE, loops))
            return
        else: wanted = demands(n, want.idx, want.gate, self.axes[want.root], self.gather)
        for a in table_axes(n): self.spelled.setdefault(want.root, set()).add(wanted[0].idx[a])
        for d in wanted:
            self.want(d.src, Want(want.root, d.idx, d.gate, want.loops + d.ranges))

    def want(self, s: UOp, w: Want) -> None: self.wants[s][w] = None

    def gather(self, n: UOp, idx: Index, gate: UOp) -> UOp:
        """A stand-in for the index that GATHER reads: an unknown function of the loops it depends on."""
        return UOp(Ops.GATHER, ZERO.dtype, tuple(i for i in idx if i is not ZERO) or (ZERO,), n.src[1])

    def evaluations(self, w: Want) -> int:
        """How often the value is computed for this want: once per turn of every loop down to the innermost it depends on. Copies of a loop
        that is spelled out share what does not change in it."""
        loops = w.loops[:self.depth(w)]
        if spelled := self.spelled.get(w.root): loops = tuple(r for r in loops if r not in spelled or r in self.axes_of(w))
        return trips(loops)

    def axes_of(self, w: Want) -> frozenset[UOp]: return free_axes(w.gate).union(*map(free_axes, w.idx))

    def depth(self, w: Want) -> int:
        """The loops down to the innermost that this want depends on."""
        depth = len(w.loops)
        if not depth or w.loops[-1] in w.idx: return depth
        deps = self.axes_of(w)
        while depth and w.loops[depth - 1] not in deps: depth -= 1
        return depth

    def decide(self, n: UOp, wants: list[Want]) -> tuple[str | None, tuple[int, ...] | None]:
        """Why `n` must be stored (or None), and the axes it is staged by (or None)."""
        if n.op.is_movement and n.op is not Ops.PAD or n.op.kind == "identity": return None, None
        cost, size, work, stage = self.cost[n], max(n.size, 1), reduce_work(n, self.cost, self.stored), None
        if n.op is Ops.PAD and all(self.is_read_in_rows(n, w) for w in wants): cost -= GATE_COST - ROW_COST
        per_element = work or cost
        if per_element <= 1 and not work: return None, None
        evals = [self.evaluations(w) for w in wants]
        recompute = per_element * sum(evals)
        if work:
            if (spelled := table_axes(n)) and (why := self.not_spelled(n, spelled, wants)) is not None: return why, None
            unknown = {i for w in wants for i in w.idx if i.op is not Ops.RANGE}
            if work * size > PARALLEL_WORK and is_contraction(n) and any(map(is_split, unknown)):
                return "no tile could follow the index at which it is wanted", None
            why, stage = self.not_here(n, wants, work), self.stage_axes(n, wants)
            if stage is not None and sum(evals) > n.size and self.turns_rows(n, wants):
                return "in rows of scratch its vectors would lie across the rows that are stored", None
            if why is not None and stage is not None: return self.stage_or_store(n, wants, stage)
            if why is not None: return why, None
        if sum(evals) <= size: return None, None
        store = size * (per_element + STORE_COST) + sum(evals) + LAUNCH_COST
        if not work: stage = self.stage_axes(n, wants)
        if stage is not None and size * (per_element + 2) + sum(evals) < min(recompute, store): return self.stage_or_store(n, wants, stage)
        if recompute <= store: return None, None
        return f"computing it in place would repeat its {per_element} operations {sum(evals) / size:.3g} times", None

    def is_read_in_rows(self, n: UOp, w: Want) -> bool:
        """Whether a padded value is wanted once for each place of a window, in rows that lie in memory as those which its kernel stores,
        each wanted or not as a whole; short ones may have ends as well, whose masks are constant."""
        row = self.loops[w.root][-1] if self.loops[w.root] else None
        if self.target.has_grid or row is None or stored_under(n.src[0]) is None or any(row in free_axes(i) for i in w.idx[:-1]):
            return False
        if not self.axes_of(w).issuperset(self.loops[w.root]): return False
        return linear(w.idx[-1])[0].get(row) == 1 and (n.arg[-1] == (0, 0) or 2 < row.src[0].arg / self.target.lanes <= BOUNDED)

    def not_spelled(self, n: UOp, spelled: list[int], wants: list[Want]) -> str | None:
        """Why the loops along which a reduction's TABLEs change cannot be spelled out in the kernels that want it."""
        kept = [a for a in range(n.src[0].ndim) if a not in n.arg.axes]
        for w in wants:
            here = [i for a, i in zip(kept, w.idx) if a in spelled]
            if not all(map(is_spelled, here)): return "the loops of its constants could not be spelled out"
            if any(free_axes(i).intersection(self.loops[w.root][-1:]) for i in here):
                return "vectors need the loop that would be spelled out"
        return None

    def not_here(self, n: UOp, wants: list[Want], work: int) -> str | None:
        """Why a reduction cannot be computed inside the kernels that want it."""
        total = work * max(n.size, 1)
        if total < PARALLEL_WORK // 8 and len(wants) == 1: return None
        for w in wants:
            outer = [r for r in w.loops if r.arg.kind != "REDUCE"]
            deps: frozenset[UOp] = frozenset().union(*map(free_axes, w.idx))
            if total > PARALLEL_WORK and any(r not in outer for r in deps) and n.op is Ops.REDUCE and not self._under_fold(n):
                return "it is a reduction inside another reduction"
            parallel = math.prod(r.src[0].arg for r in deps)
            if total > PARALLEL_WORK and parallel < self.min_parallel and parallel < w.root.size:
                return f"only {parallel} rows share it: too few to keep the device busy"
        return None

    def note_beside(self, n: UOp) -> None:
        """Tell what a value is made of how much each product that reads it inside its kernel reads beside it."""
        if n.op is Ops.REDUCE and is_contraction(n):
            x = n.src[0]
            while x.op is not Ops.MUL: x = x.src[0]
            found = [(x.src[0], elements(x.src[1])), (x.src[1], elements(x.src[0]))]
        elif n.op is Ops.REDUCE or n not in self.beside: return
        else: found = [(s, self.beside[n]) for s in n.src]
        for s, m in found: self.beside[s] = max(self.beside.get(s, 0), m)

    def stage_or_store(self, n: UOp, wants: list[Want], stage: tuple[int, ...]) -> tuple[str | None, tuple[int, ...] | None]:
        """What `decide` says of a value that could be staged. A product that finds its rows in scratch reads its other operand once for
        every few of them; one that finds all rows in memory, once for as many as a cache holds. Where that operand is in no cache near,
        rows are stored (a layer of GPT-2 for 128 tokens, 28 MB of weights: 28 ms instead of 33, and small kernels compile in 0.8 of the
        time of one)."""
        rows = math.prod(n.shape[a] for a in stage)
        inner = max(trips(w.loops[sum(n.shape[a] > 1 for a in stage):]) for w in wants)
        other, most = min(inner, self.beside.get(n, 0)), self.target.llc_bytes // 2
        if other * n.dtype.itemsize <= FAR_CACHES * self.target.l2_bytes or n.size * n.dtype.itemsize > most or self.target.has_grid:
            return None, stage
        if rows < MANY_ROWS or other * rows < MANY_COLUMNS * n.size: return None, stage
        return f"a product would read {other} elements beside it again for every few of its {rows} rows", None

    def turns_rows(self, n: UOp, wants: list[Want]) -> bool:
        """Whether staging a product would make a kernel store as much as it stages across its vectors, element by element, in rows that
        push each other out of the first-level cache: a way of it is 4 kB, so rows of a multiple of 2 kB fall on two sets (scores of
        8 x 1024 x 1024 and their exponentials: 38 ms instead of 25). Where a second product follows, as in attention, that is stored."""
        if self.target.has_grid or not is_contraction(n) or n.size * n.dtype.itemsize <= self.target.l2_bytes: return False
        return all(w.root.size >= n.size and w.root.shape[-1] * w.root.dtype.itemsize % SAME_SETS == 0
                   and not self.facts[w.root].contractions for w in wants)

    def _under_fold(self, n: UOp) -> bool:
        if not hasattr(self, "_folded"):
            self._folded: set[UOp] = set()
            for f in self.order:
                if f.op is Ops.FOLD:
                    s = f.src[0]
                    while s.op.is_movement or s.op in (Ops.CAST, Ops.FOLD): s = s.src[0]
                    self._folded.add(s)
        return n in self._folded

    def stage_axes(self, n: UOp, wants: list[Want]) -> tuple[int, ...] | None:
        """The axes whose indices all wants share, if they are exactly the outermost loops of one kernel and the rest fits in cache."""
        first = wants[0]
        if any(w.root is not first.root or w.gate is not TRUE for w in wants): return None
        shared = [a for a in range(n.ndim) if first.idx[a].op is Ops.RANGE and all(w.idx[a] is first.idx[a] for w in wants)]
        while shared:
            ranges = {first.idx[a] for a in shared}
            p = len(ranges)
            if p == len(shared) and all(set(w.loops[:p]) == ranges for w in wants): break
            # the innermost shared loop may come after loops that are not shared: leave it to the stage
            order = {r: k for k, r in enumerate(first.loops)}
            if any(r not in order for r in ranges): return None
            shared.remove(max(shared, key=lambda a: order[first.idx[a]]))
        if not shared or any(r.arg.kind == "REDUCE" for r in ranges): return None
        row = math.prod(m for a, m in enumerate(n.shape) if a not in shared)
        inner = max(trips(w.loops[p:]) for w in wants)
        if row < 2 or row > self.stage_limit or inner > 64 * self.stage_limit: return None
        if trips(first.loops[:p]) < self.min_parallel and n.size * self.cost[n] > PARALLEL_WORK: return None
        return tuple(shared)


def _mark(op: object, n: UOp, arg: object) -> UOp:
    new = UOp(op, n.dtype, (n,), arg)  # type: ignore[arg-type]
    new.site = new.site or n.site
    return new


def choose_stores(sink: UOp, target: Target) -> UOp:
    """Mark what is stored (CONTIGUOUS, with its reason) and what is staged inside a kernel (STAGE)."""
    known: dict = {}
    first = Chooser(sink, target, set(), known).choose()
    return Chooser(sink, target, set(first.reasons), known).choose().mark()

"""Linearize: the compact kernel graph becomes a list of instructions in nested loops. The only pass that spells tiles out.

in:      LOOPS form: final axis kinds, everything in ops and dtypes the target has
out:     LINEAR form, in execution order
source:  our own; placing a value at the innermost loop it depends on is lazy code motion by dependence (Knoop, PLDI 1992, in spirit)

A value's loops are those it depends on and that nothing has closed yet; it stands in the innermost of them, so what does not change in
a loop is computed outside it without a search. A value's register axes (UPCAST, UNROLL) give it one instance per coordinate, LANE makes
it a vector. An index is split once into base + coefficient x coordinate, so the copies of a tile differ by constants.
"""
from __future__ import annotations

import itertools
from typing import NamedTuple

from glassgrad.passes import sort
from glassgrad.passes.algebra import simplify
from glassgrad.passes.lower_ops import lower_op
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

REGISTER = {"UPCAST", "UNROLL"}
LOOPED = {"LOOP", "REDUCE"}
CLOSERS = {Ops.REDUCE, Ops.END}
Coords = tuple[int, ...]
LINE_BYTES = 64
GROUP_BYTES = 16        # within which lanes change places in one instruction
AHEAD_BYTES = 8192      # that a row, of at least an eighth of it, is asked for before it is wanted
FAR_MEMORY = 8          # second-level caches: what is smaller may be near
STREAM = "stream"       # the arg of a STORE that goes past the caches


class Offsets(NamedTuple):
    """How an address moves: ((register axis, coefficient), …), the coefficient of the SIMD axis, that axis."""
    axes: tuple[tuple[UOp, int], ...]
    lane: int
    lane_axis: UOp | None


def affine(x: UOp) -> tuple[dict[UOp, int], int]:
    """`x` as a sum of terms with coefficients and a constant."""
    terms: dict[UOp, int] = {}
    const = 0
    stack = [(x, 1)]
    while stack:
        n, c = stack.pop()
        if n.op is Ops.ADD: stack += [(n.src[1], c), (n.src[0], c)]
        elif n.op is Ops.SUB: stack += [(n.src[1], -c), (n.src[0], c)]
        elif n.op is Ops.NEG: stack.append((n.src[0], -c))
        elif n.op is Ops.CONST: const += c * n.arg
        elif n.op is Ops.MUL and n.src[1].op is Ops.CONST: stack.append((n.src[0], c * n.src[1].arg))
        elif n.op is Ops.MUL and n.src[0].op is Ops.CONST: stack.append((n.src[1], c * n.src[0].arg))
        else: terms[n] = terms.get(n, 0) + c
    return {n: c for n, c in terms.items() if c}, const


def join_remainders(terms: dict[UOp, int], const: int) -> tuple[dict[UOp, int], int]:
    """The same sum with x % c + k * (x // c) as x + (k - c) * (x // c): of the two divisions one is left."""
    for n in [n for n in terms if n.op is Ops.CMOD and n.src[1].op is Ops.CONST]:
        quotient = UOp(Ops.CDIV, n.dtype, n.src)
        if quotient not in terms: continue
        k, (inner, more) = terms.pop(n), affine(n.src[0])
        for t, c in ((quotient, -k * n.src[1].arg), *((t, k * c) for t, c in inner.items())): terms[t] = terms.get(t, 0) + c
        const += k * more
    return {n: c for n, c in terms.items() if c}, const


def _size(buf: UOp) -> int:
    """The elements of a kernel's argument; 0 for other memory."""
    return buf.arg.size if buf.op is Ops.PARAM else 0


def identity(op: Op, dtype: DType) -> bool | int | float:
    """The value that changes nothing under a reduction's `op`."""
    if op is Ops.MAX: return dtype.min
    if op is Ops.MIN: return dtype.max
    if op.unit is None: raise CompilerBug(f"linearize: {op} has no identity to reduce with")
    return op.unit


def linearize(sink: UOp, target: Target) -> list[UOp]:
    """The instructions of a kernel in order."""
    return _Linearizer(sink, target).run()


class _Linearizer:
    def __init__(self, sink: UOp, target: Target) -> None:
        self.target = target
        self.sink = sink
        self.loops: dict[UOp, frozenset[UOp]] = {}
        self.regs: dict[UOp, tuple[UOp, ...]] = {}
        self.lane: dict[UOp, UOp | None] = {}
        self.closer: dict[UOp, UOp] = {}
        self.depth: dict[UOp, int] = {}
        self.out: list[UOp] = []
        self.scopes: list[list[UOp]] = [[]]
        self.open: set[UOp] = set()        # what stands in one of the scopes
        self.inst: dict[tuple[UOp, Coords], UOp] = {}
        self.accs = 0

    def run(self) -> list[UOp]:
        order = self.sink.toposort()
        for n in order: self.facts(n)
        for r in list(self.closer): self.level(r)
        self.closer.clear()     # closers are rebuilt over split addresses; the levels found stay
        order = UOp.sink(*self.split_addresses(order)).toposort()[:-1]
        for n in order: self.facts(n)
        self.items: dict[UOp | None, list[UOp]] = {}
        self.scans: dict[UOp | None, list[UOp]] = {}
        self.running: dict[tuple[UOp, Coords], UOp] = {}
        for n in order:
            if n.op is Ops.RANGE and n.arg.kind in LOOPED: continue
            self.items.setdefault(self.home(n), []).append(n)
            if n.op is Ops.SCAN: self.scans.setdefault(next((r for r in n.src[2:] if r.arg.kind in LOOPED), None), []).append(n)
        params = [n for n in order if n.op is Ops.PARAM and n.arg.kind == "buffer"]
        self.moved = sum(n.arg.size * n.dtype.itemsize for n in params)
        self.read = {n.src[0] for n in order if n.op is Ops.LOAD}
        # what an innermost loop of a reduction computes is made where the tile first wants it, so that few operands wait in registers
        self.lazy = {own[-1] for n in order if n.op is Ops.REDUCE and (own := [r for r in n.src[1:] if r.arg.kind in LOOPED])}
        self.ahead = self.rows_ahead(order) if Ops.PREFETCH in self.target.ops else {}
        self.block(None)
        return drop_dead(self.out)

    # ---- where things stand ------------------------------------------------------------------------------------------------------
    def facts(self, n: UOp) -> None:
        if n in self.loops: return
        loops: frozenset[UOp] = frozenset()
        regs: list[UOp] = []
        lane = None
        if n.op is Ops.RANGE:
            loops = frozenset((n,)) if n.arg.kind in LOOPED else loops
            if n.arg.kind in REGISTER: regs.append(n)
            lane = n if n.arg.kind == "LANE" else None
        for s in n.src:
            if self.loops[s]: loops |= self.loops[s]
            if self.regs[s]: regs += [r for r in self.regs[s] if r not in regs]
            if self.lane[s] is not None:
                if lane is not None and lane is not self.lane[s] and not (n.op in CLOSERS and s in n.src[1:]):
                    raise CompilerBug(f"linearize: {n.op} depends on two SIMD axes, {lane.arg} and {self.lane[s].arg}")
                lane = self.lane[s]
        if isinstance(n.arg, Offsets):
            regs += [r for r, _ in n.arg.axes if r not in regs]
            if n.arg.lane: lane = n.arg.lane_axis
        if n.op in CLOSERS:
            own = n.src[1:]
            for r in own:
                if r.arg.kind in LOOPED and self.closer.setdefault(r, n) is not n:
                    raise CompilerBug(f"linearize: loop {r.arg} is closed twice")
            loops = loops.difference(own)
            regs = [r for r in regs if r not in own] if n.op is Ops.REDUCE else []
            if lane in own or n.op is Ops.END: lane = None
        if n.op is Ops.AFTER: regs, lane, loops = [], None, loops
        self.loops[n], self.regs[n], self.lane[n] = loops, tuple(sorted(regs, key=lambda r: r.arg.id)) if regs else (), lane

    def level(self, r: UOp) -> int:
        """How many loops are open inside loop `r`."""
        if r not in self.depth:
            closer = self.closer.get(r)
            if closer is None: raise CompilerBug(f"linearize: loop {r.arg} is never closed")
            own = [s for s in closer.src[1:] if s.arg.kind in LOOPED]
            k = own.index(r)
            outer = own[k - 1] if k else self.deepest(self.loops[closer])
            self.depth[r] = 1 + (self.level(outer) if outer is not None else 0)
        return self.depth[r]

    def deepest(self, loops: frozenset[UOp]) -> UOp | None:
        return max(loops, key=lambda r: (self.level(r), r.arg.id)) if loops else None

    def home(self, n: UOp) -> UOp | None: return self.deepest(self.loops[n])

    # ---- addresses ---------------------------------------------------------------------------------------------------------------
    def split_addresses(self, order: list[UOp]) -> tuple[UOp, ...]:
        """Every LOAD and STORE gets a base free of register axes, and Offsets along them."""
        table: dict[UOp, UOp] = {}
        for n in order:
            src = tuple([table[s] for s in n.src])
            new = n if src == n.src else n.replace(src=src)
            for s in src:
                if s not in self.loops: self.facts(s)
            if n.op is Ops.LOAD or n.op is Ops.STORE: new = self.split_address(new)
            elif n.op in (Ops.CMPLT, Ops.CMPLE) and new.src[0].dtype is dtypes.int64: new = self.split_comparison(new)
            table[n] = new
        return table[self.sink].src

    def split_address(self, n: UOp) -> UOp:
        idx = n.src[1]
        if not self.regs[idx] and self.lane[idx] is None: return n
        terms, const = join_remainders(*affine(idx))
        axes: list[tuple[UOp, int]] = []
        lane, lane_axis = 0, None
        rest: list[tuple[UOp, int]] = []
        for t, c in terms.items():
            if t.op is Ops.RANGE and t.arg.kind in REGISTER: axes.append((t, c))
            elif t.op is Ops.RANGE and t.arg.kind == "LANE": lane, lane_axis = c, t
            else:
                self.facts(t)
                if self.lane[t] is not None: return n
                rest.append((t, c))
        # what only depends on register axes is a constant in each instance: added last it is part of the access
        def place(tc: tuple[UOp, int]) -> tuple[bool, int, int]:
            t = tc[0]
            depth = max((self.level(r) for r in self.loops[t]), default=0)
            return bool(self.regs[t]) and not self.loops[t], depth, t.arg.id if t.op is Ops.RANGE else -1
        rest.sort(key=place)
        base: UOp | None = None
        for t, c in rest:
            term = t if c == 1 else t * c
            base = term if base is None else base + term
        if base is None: base = idx.const_like(const)
        elif const: base = base + const
        for s in base.toposort(stop=lambda s: s in self.loops): self.facts(s)
        offsets = Offsets(tuple(sorted(axes, key=lambda a: a[0].arg.id)), lane, lane_axis)
        return n.replace(src=(n.src[0], base, *n.src[2:]), arg=offsets)

    def split_comparison(self, n: UOp) -> UOp:
        """A bound on an index along the SIMD axis as one on the lane's number, in half as many bits: and compared with a scalar."""
        terms, const = affine(n.src[0] - n.src[1])
        lane = next((t for t in terms if t.op is Ops.RANGE and t.arg.kind == "LANE"), None)
        if lane is None or abs(step := terms.pop(lane)) != 1: return n
        rest = n.src[0].const_like(-step * const)
        for t, c in terms.items():
            self.facts(t)
            if self.lane[t] is not None: return n
            rest = t * (-step * c) + rest
        if max(map(abs, bounds(rest))) >= 1 << 31: return n
        number, bound = lane.cast(dtypes.int32), simplify(rest).cast(dtypes.int32)
        new = UOp(n.op, n.dtype, (number, bound) if step == 1 else (bound, number))
        for s in new.toposort(stop=lambda s: s in self.loops): self.facts(s)
        return new

    def rows_ahead(self, order: list[UOp]) -> dict[UOp, int]:
        """Where rows of large memory are walked several times, and nothing new is read after the first: the LOADs of the second walk, which
        ask for a row to come, and how far ahead that is (layernorm of 4096 x 1024: 1.4 ms instead of 1.9)."""
        walks: dict[UOp, dict[UOp, list[UOp]]] = {}
        for n in order:
            loop = self.home(n) if n.op is Ops.LOAD else None
            if loop is None or n.src[0].op is not Ops.PARAM or len(n.src) > 2 or not isinstance(n.arg, Offsets) or n.arg.lane != 1: continue
            if n.src[0].arg.size * n.dtype.itemsize > FAR_MEMORY * self.target.l2_bytes:
                walks.setdefault(n.src[0], {}).setdefault(loop, []).append(n)
        found: dict[UOp, int] = {}
        for buf, loops in walks.items():
            closed = [r for n in order if n.op in CLOSERS for r in n.src[1:] if r in loops]        # in the order they run
            if len(closed) < 2: continue
            around = self.loops[loops[closed[0]][0]] & self.loops[loops[closed[1]][0]]
            terms, _ = affine(loops[closed[1]][0].src[1])
            rows = self.deepest(around) or next((t for t in terms if t.op is Ops.SPECIAL), None)
            step, size = terms.get(rows, 0), buf.dtype.itemsize      # type: ignore[arg-type]
            if self.loops[loops[closed[1]][0]] != around | {closed[1]} or not AHEAD_BYTES // 8 <= step * size <= self.target.l2_bytes // 4:
                continue
            found |= dict.fromkeys(loops[closed[1]], -(-AHEAD_BYTES // (step * size)) * step)
        return found

    # ---- emission ----------------------------------------------------------------------------------------------------------------
    def emit(self, n: UOp) -> UOp:
        """Append `n` unless it already stands in an open scope."""
        if n not in self.open:
            self.open.add(n)
            self.scopes[-1].append(n)
            self.out.append(n)
        return n

    def make(self, op: Op, dtype: DType, src: tuple[UOp, ...] = (), arg: object = None) -> UOp:
        """Append a new node; what combines a reduction may be an op that the target lacks."""
        n = UOp(op, dtype, src, arg)
        made = lower_op(n, self.target) if op.is_alu and op not in self.target.ops else None
        if made is None: return self.emit(n)
        for s in made.toposort(stop=lambda m: m in src): self.emit(s)
        return made

    def block(self, loop: UOp | None) -> None:
        items = self.items.get(loop, ())
        if loop in self.lazy and all(n.op is Ops.LOAD or n.op.is_alu for n in items): return
        for n in items:
            if n.op is Ops.REDUCE: self.reduce(n)
            elif n.op is Ops.END: self.nest(n.src[1:], lambda: None)
            elif n.op is Ops.SINK: pass
            elif not self.regs[n]: self.instance(n, ())
            else:
                for coords in itertools.product(*(range(r.src[0].arg) for r in self.regs[n])): self.instance(n, coords)

    def nest(self, ranges: tuple[UOp, ...], innermost: object) -> None:
        """Open the loops among `ranges`, emit what stands in them, call `innermost`, close them."""
        own = [r for r in ranges if r.arg.kind in LOOPED]
        for r in own:
            for scan in self.scans.get(r, ()):
                free = [x for x in self.regs[scan] if x not in scan.src]
                for coords in itertools.product(*(range(x.src[0].arg) for x in free)):
                    self.register(scan, coords, self.before(scan, dict(zip(free, coords))))
            self.emit(self.at(r.src[0], {}))
            self.emit(r)
            self.scopes.append([])
            self.block(r)
        innermost()  # type: ignore[operator]
        for r in reversed(own):
            self.open.difference_update(self.scopes.pop())
            self.make(Ops.END, dtypes.void, (r,))

    def acc(self, n: UOp, coords: Coords, op: Op, dtype: DType) -> UOp:
        return self.register(n, coords, self.emit(UOp.const(dtype, identity(op, dtype.scalar))))

    def register(self, n: UOp, coords: Coords, init: UOp) -> UOp:
        self.accs += 1
        acc = self.make(Ops.ACC, init.dtype, (init,), self.accs - 1)
        self.inst[n, ("acc", *coords)] = acc  # type: ignore[index]
        return acc

    def combine(self, op: Op, acc: UOp, x: UOp) -> UOp:
        if op is Ops.ADD and x.op is Ops.MUL and self.target.fma and x.dtype.is_float and self.target.is_native(Ops.MULACC, x.dtype):
            return self.make(Ops.MULACC, x.dtype, (*x.src, acc))
        return self.make(op, x.dtype, (acc, x))

    def reduce(self, n: UOp) -> None:
        value, own, op = n.src[0], n.src[1:], n.arg.op
        loops = [r for r in own if r.arg.kind in LOOPED]
        free = self.regs[n]
        split = [r for r in own if r.arg.kind == "UPCAST"]
        serial = [r for r in own if r.arg.kind == "UNROLL"]
        lane = self.lane[value]
        dtype = value.dtype.vec(lane.src[0].arg) if lane is not None else value.dtype
        grid = [(f, s) for f in itertools.product(*(range(r.src[0].arg) for r in free))
                for s in itertools.product(*(range(r.src[0].arg) for r in split))]
        accs = {fs: self.acc(n, (*fs[0], *fs[1]), op, dtype) for fs in grid} if loops else {}
        # the axis with the most copies outermost: its operand is needed one at a time, while that of the shorter axis stays in registers
        widest = sorted(range(len(free)), key=lambda i: -free[i].src[0].arg)
        grid.sort(key=lambda fs: [fs[0][i] for i in widest])
        results: dict[tuple[Coords, Coords], UOp] = {}

        def body() -> None:
            # all accumulators take a step before any takes the next: few operands are live, and no chain of additions is waited for
            totals = {fs: self.make(Ops.GET, dtype, (accs[fs], loops[-1])) if loops else None for fs in grid}
            for u in itertools.product(*(range(r.src[0].arg) for r in serial)):
                for fs in grid:
                    env = dict(zip((*free, *split, *serial), (*fs[0], *fs[1], *u)))
                    x, total = self.vector(self.at(value, env), dtype), totals[fs]
                    totals[fs] = x if total is None else self.combine(op, total, x)
            for fs, total in totals.items():
                if loops: self.make(Ops.SET, dtypes.void, (accs[fs], total))  # type: ignore[arg-type]
                else: results[fs] = total  # type: ignore[assignment]
        self.nest(own, body)
        if loops:
            closed = self.out[-1]
            results = {fs: self.make(Ops.GET, dtype, (acc, closed)) for fs, acc in accs.items()}
        for f in itertools.product(*(range(r.src[0].arg) for r in free)):
            parts = [results[f, s] for s in itertools.product(*(range(r.src[0].arg) for r in split))]
            while len(parts) > 1:
                pairs = [parts[i:i + 2] for i in range(0, len(parts), 2)]
                parts = [self.make(op, dtype, tuple(p)) if len(p) > 1 else p[0] for p in pairs]
            total = parts[0]
            if lane is not None and lane in own: total = self.make(Ops.HREDUCE, value.dtype, (total,), op)
            elif lane is None:
                for r in own:      # a value that is the same in all lanes counts in each of them
                    if r.arg.kind == "LANE": total = self.repeat(op, total, r.src[0].arg)
            self.inst[n, f] = total

    def repeat(self, op: Op, x: UOp, count: int) -> UOp:
        """x combined with itself, `count` times in all."""
        if op is Ops.ADD: return self.make(Ops.MUL, x.dtype, (x, self.emit(UOp.const(x.dtype, count))))
        for _ in range(count.bit_length() - 1 if op is Ops.MUL else 0): x = self.make(Ops.MUL, x.dtype, (x, x))
        return x

    # ---- instances ---------------------------------------------------------------------------------------------------------------
    def at(self, n: UOp, env: dict[UOp, int]) -> UOp:
        """The instance of `n` at the coordinates in `env` of its own register axes."""
        coords = tuple([env[r] for r in regs]) if (regs := self.regs[n]) else ()
        return self.inst.get((n, coords)) or self.instance(n, coords)

    def vector(self, x: UOp, dtype: DType) -> UOp:
        """`x` in as many lanes as `dtype` has."""
        if x.dtype.lanes == dtype.lanes: return x
        if x.op is Ops.CONST: return self.make(Ops.CONST, x.dtype.vec(dtype.lanes), (), x.arg)
        return self.make(Ops.SPLAT, x.dtype.vec(dtype.lanes), (x,))

    def instance(self, n: UOp, coords: Coords) -> UOp:
        key = (n, coords)
        if key in self.inst: return self.inst[key]
        env = dict(zip(self.regs[n], coords))
        lane = self.lane[n]
        lanes = lane.src[0].arg if lane is not None else 1
        if n.op is Ops.RANGE:
            if n.arg.kind in REGISTER: new = self.emit(n.const_like(coords[0]))
            elif n.arg.kind == "LANE": new = self.make(Ops.LANES, n.dtype.vec(lanes))
            else: new = n
        elif n.op is Ops.LOAD: new = self.load(n, env, lane)
        elif n.op is Ops.STORE: new = self.store(n, env, lane)
        elif n.op is Ops.SORT: new = sort.emit(self.emit, n, tuple(self.at(s, env) for s in n.src), self.target)
        elif n.op is Ops.SCAN:
            new = self.scan(n, env)
        else:
            if n.op is Ops.AFTER: env = {r: 0 for s in n.src for r in self.regs[s]}
            src = tuple([self.at(s, env) for s in n.src if s.op is not Ops.END])
            if lanes > 1: src = tuple([self.vector(s, n.dtype.vec(lanes)) for s in src])
            new = self.fold(n, n.dtype.vec(lanes) if lanes > 1 else n.dtype, src)
        self.inst[key] = new
        return new

    def before(self, n: UOp, env: dict[UOp, int]) -> UOp:
        """What stands before the first element of a SCAN: a vector if neighbouring lanes have running values of their own."""
        x, lane = self.at(n.src[1], env), self.lane[n]
        return x if lane is None or lane in n.src else self.vector(x, n.dtype.vec(lane.src[0].arg))

    def scan(self, n: UOp, env: dict[UOp, int]) -> UOp:
        """The next running value. Where the lanes are steps along the axis, what came before is added to a running vector: from vector to
        vector only that one addition has to wait."""
        op, own = n.arg.op, [r for r in self.regs[n] if r in n.src]
        coords = tuple(env[r] for r in self.regs[n] if r not in n.src)
        loop = next((r for r in n.src[2:] if r.arg.kind in LOOPED), None)
        acc: UOp | None = self.inst.get((n, ("acc", *coords)))  # type: ignore[arg-type]
        if any(env[r] for r in own): before = self.running[n, coords]
        elif acc is None: before = self.before(n, {r: env[r] for r in self.regs[n.src[1]]})
        else: before = self.make(Ops.GET, acc.dtype, (acc, loop))  # type: ignore[arg-type]
        x, lane = self.at(n.src[0], env), self.lane[n]
        if lane is not None: x = self.vector(x, n.dtype.vec(lane.src[0].arg))
        if lane is not None and lane in n.src:
            x = self.make(Ops.HSCAN, x.dtype, (x,), op)
            value = self.make(op, x.dtype, (self.vector(before, x.dtype), x))
            after = self.make(op, n.dtype, (before, self.make(Ops.EXTRACT, n.dtype, (x,), x.dtype.lanes - 1)))
        else: value = after = self.combine(op, before, x)
        self.running[n, coords] = after
        if acc is not None and all(env[r] == r.src[0].arg - 1 for r in own): self.make(Ops.SET, dtypes.void, (acc, after))
        return value

    def fold(self, n: UOp, dtype: DType, src: tuple[UOp, ...]) -> UOp:
        """The node itself, or a constant where integer arithmetic on coordinates is one."""
        if n.op.is_alu and src and n.op.py is not None and not dtype.is_float and all(s.op is Ops.CONST for s in src):
            return self.make(Ops.CONST, dtype, (), dtype.scalar.const(n.op.py(*(s.arg for s in src))))
        if n.op is Ops.WHERE and src[0].op is Ops.CONST: return src[1] if src[0].arg else src[2]
        if n.op is Ops.ADD and src[1].op is Ops.CONST and dtype.is_int and dtype.lanes == 1: return self.plus(src[0], src[1].arg)
        if n.op is Ops.ADD and src[0].op is Ops.CONST and dtype.is_int and dtype.lanes == 1: return self.plus(src[1], src[0].arg)
        if n.op is Ops.CAST and src[0].op is Ops.LANES and dtype.is_int: return self.make(Ops.LANES, dtype)
        if n.op is Ops.CAST and src[0].op is Ops.CONST and dtype.is_int and src[0].dtype.is_int:
            return self.make(Ops.CONST, dtype, (), dtype.scalar.const(src[0].arg))
        if n.op is Ops.AND and dtype.is_bool:
            for x, y in (src, src[::-1]):
                if x.op is Ops.CONST: return y if x.arg else x
        if n.op in (Ops.CMPLT, Ops.CMPLE) and {s.op for s in src} == {Ops.LANES, Ops.CONST}:      # the same for all lanes?
            ends = {n.op.py(*(end if s.op is Ops.LANES else s.arg for s in src)) for end in (0, dtype.lanes - 1)}
            if len(ends) == 1: return self.make(Ops.CONST, dtype, (), *ends)
        return self.make(n.op, dtype, src, n.arg)

    def plus(self, x: UOp, c: int) -> UOp:
        """An integer and a constant, which joins one that `x` ends with."""
        while x.op is Ops.ADD and x.src[1].op is Ops.CONST: x, c = x.src[0], c + x.src[1].arg
        if x.op is Ops.CONST: return self.emit(x.const_like(x.arg + c))
        return self.make(Ops.ADD, x.dtype, (x, self.emit(x.const_like(c)))) if c else x

    def address(self, n: UOp, env: dict[UOp, int], lane: UOp | None) -> UOp:
        """A scalar index for contiguous or single elements, else a vector of indices."""
        off = n.arg
        idx = self.at(n.src[1], env)
        if not isinstance(off, Offsets): return idx
        step = sum(c * env[r] for r, c in off.axes)
        if step: idx = self.plus(idx, step)
        if lane is None or off.lane in (0, 1): return idx
        vec = idx.dtype.vec(lane.src[0].arg)
        place = self.make(Ops.MUL, vec, (self.make(Ops.LANES, vec), self.make(Ops.CONST, vec, (), off.lane)))
        return self.make(Ops.ADD, vec, (self.vector(idx, vec), place))

    def load(self, n: UOp, env: dict[UOp, int], lane: UOp | None) -> UOp:
        across = self.across(n, lane)
        if across is not None: return self.load_across(n, env, lane, across)  # type: ignore[arg-type]
        buf = self.at(n.src[0], dict.fromkeys(self.regs[n.src[0]], 0))
        idx = self.address(n, env, lane)
        gate = tuple(self.at(s, env) for s in n.src[2:])
        lanes = lane.src[0].arg if lane is not None else 1
        if gate and gate[0].op is Ops.CONST:
            if not gate[0].arg: return self.emit(UOp.const(n.dtype.vec(lanes), 0))
            gate = ()
        if idx.dtype.lanes == 1 and (not isinstance(n.arg, Offsets) or n.arg.lane == 0) and lanes > 1:  # only the gate depends on the lane
            if not gate: return self.vector(self.make(Ops.LOAD, n.dtype, (buf, idx)), n.dtype.vec(lanes))
            idx = self.vector(idx, idx.dtype.vec(lanes))
        strides = isinstance(n.arg, Offsets) and idx.op is Ops.ADD and idx.src[0].op is Ops.SPLAT
        if gate and gate[0].dtype.lanes == 1 and strides and 0 < n.arg.lane * (lanes - 1) < _size(buf):
            # all lanes or none: the first elements are read in place of what may not be
            vec, (first, steps) = n.dtype.vec(lanes), idx.src
            first = self.make(Ops.WHERE, n.src[1].dtype, (gate[0], first.src[0], self.make(Ops.CONST, n.src[1].dtype, (), 0)))
            value = self.make(Ops.LOAD, vec, (buf, self.make(Ops.ADD, idx.dtype, (self.vector(first, idx.dtype), steps))))
            return self.make(Ops.WHERE, vec, (self.vector(gate[0], vec), value, self.make(Ops.CONST, vec, (), n.const_like(0).arg)))
        if gate and gate[0].dtype.lanes > 1 and idx.dtype.lanes > 1: gate = (self.vector(gate[0], idx.dtype),)
        if n in self.ahead and sum(c * env[r] for r, c in n.arg.axes) * n.dtype.itemsize % LINE_BYTES == 0:
            self.make(Ops.PREFETCH, dtypes.void, (buf, self.plus(idx, self.ahead[n])))
        return self.make(Ops.LOAD, n.dtype.vec(lanes), (buf, idx, *gate))

    def across(self, n: UOp, lane: UOp | None) -> UOp | None:
        """The register axis, of as many places as the SIMD axis has, along which a strided LOAD lies in memory."""
        off = n.arg
        if lane is None or not isinstance(off, Offsets) or off.lane in (0, 1) or len(n.src) > 2 or n.dtype.is_bool: return None
        return next((r for r, c in off.axes if c == 1 and r.src[0].arg == lane.src[0].arg), None)

    def load_across(self, n: UOp, env: dict[UOp, int], lane: UOp, across: UOp) -> UOp:
        """Rows as they lie in memory, turned in registers: 8 loads and 24 shuffles instead of 64 loads and as many insertions."""
        buf, lanes = self.at(n.src[0], dict.fromkeys(self.regs[n.src[0]], 0)), lane.src[0].arg
        first = self.address(n.replace(arg=n.arg._replace(lane=1)), env | {across: 0}, lane)
        rows = [self.make(Ops.LOAD, n.dtype.vec(lanes), (buf, self.plus(first, i * n.arg.lane))) for i in range(lanes)]
        for i, x in enumerate(self.transpose(rows)): self.inst[n, tuple([i if r is across else env[r] for r in self.regs[n]])] = x
        return self.inst[n, tuple([env[r] for r in self.regs[n]])]

    def transpose(self, rows: list[UOp]) -> list[UOp]:
        """The columns of a square of vectors: within groups of 16 bytes, which machines shuffle in one instruction, by zipping; then whole
        groups change places."""
        d, lanes = rows[0].dtype, rows[0].dtype.lanes
        group = min(lanes, max(GROUP_BYTES // d.scalar.itemsize, 1))
        places = range(lanes)

        def both(x: UOp, y: UOp, picks: list[int]) -> UOp: return self.make(Ops.SHUFFLE, d, (x, y), tuple(picks))
        half, size = group // 2, 1
        zips = [[(i // group * group) + (i % group) // 2 + part * half + (i % 2) * lanes for i in places]
                for part in (0, 1)] if half else []
        while size < group:
            rows = [both(rows[at + i // 2], rows[at + i // 2 + half], zips[i % 2]) for at in range(0, lanes, group) for i in range(group)]
            size *= 2
        while size < lanes:
            swaps = [[i if not i & size else i - size + lanes for i in places], [i + size if not i & size else i + lanes for i in places]]
            rows = [both(rows[i & ~size], rows[i | size], swaps[bool(i & size)]) for i in places]
            size *= 2
        return rows

    def store(self, n: UOp, env: dict[UOp, int], lane: UOp | None) -> UOp:
        buf = self.at(n.src[0], dict.fromkeys(self.regs[n.src[0]], 0))
        idx = self.address(n, env, lane)
        value, *gate = (self.at(s, env) for s in n.src[2:])
        if gate and gate[0].op is Ops.CONST:
            if not gate[0].arg: return gate[0]
            gate = []
        if lane is not None:
            value = self.vector(value, value.dtype.vec(lane.src[0].arg))
            if idx.dtype.lanes > 1 and gate: gate = [self.vector(gate[0], idx.dtype)]
        return self.make(Ops.STORE, dtypes.void, (buf, idx, value, *gate), STREAM if self.streams(n, lane) else None)

    def streams(self, n: UOp, lane: UOp | None) -> bool:
        """Whether a store goes past the caches: it writes whole vectors at aligned places, one after the other, in a kernel whose memory
        no cache holds. The lines are then not read before they are written (16 MB to 16 MB: 1.0 ms instead of 1.7)."""
        off, buf = n.arg, n.src[0]
        if lane is None or not isinstance(off, Offsets) or off.lane != 1 or len(n.src) > 3 or buf.op is not Ops.PARAM: return False
        lanes = lane.src[0].arg
        if self.moved < self.target.llc_bytes or buf in self.read or lanes * buf.dtype.itemsize < 16: return False
        width = lanes
        for r, c in sorted(off.axes, key=lambda rc: rc[1]):
            if c == width: width *= r.src[0].arg
            elif c % lanes or width * buf.dtype.itemsize < LINE_BYTES: return False        # several rows, each by whole lines
        terms, const = affine(n.src[1])
        walk = self.home(n) or next((t for t in terms if t.op is Ops.SPECIAL), None)
        return terms.get(walk) == width and const % lanes == 0 and all(c % lanes == 0 for c in terms.values())  # type: ignore[arg-type]


def drop_dead(uops: list[UOp]) -> list[UOp]:
    """Without what no effect needs. An ACC's SETs count as needed once it is read."""
    sets: dict[UOp, list[UOp]] = {}
    for n in uops:
        if n.op is Ops.SET: sets.setdefault(n.src[0], []).append(n)
    live: set[UOp] = set()
    stack = [n for n in uops if n.op in (Ops.STORE, Ops.PREFETCH, Ops.BARRIER, Ops.RANGE, Ops.END)]
    while stack:
        n = stack.pop()
        if n in live: continue
        live.add(n)
        stack += n.src
        if n.op is Ops.ACC: stack += sets.get(n, ())
    return [n for n in uops if n in live]
